r"""Bayesian neural network by Hamiltonian Monte Carlo.

Li, Rudner & Wilson 2024, arXiv 2305.20028: prior :math:`N(0, \tau^2)` on every weight and bias,
Gaussian likelihood of variance :math:`\sigma^2`, a start near a mode by Adam, then HMC with dual
averaging in the burn-in (see `understudy.sample.hmc`). :math:`\tau^2` and :math:`\sigma^2` are
those of a grid under which four fifths of the rows predict the last fifth best, by the log density
of a Gaussian with the samples' mean and variance.

Choices of ours where the paper and its code leave them open or differ:

- :math:`\sigma^2` is a variance in the likelihood, where the code takes it for a deviation.
- The warm start optimises the network that is sampled, with learning rate 1e-2.
- The fifth is random, as rows of a table are often sorted; the paper's is the last in order. The
  grid is {0.1, 1, 10} x {0.01, 0.1, 1}, and its chains have a fifth of the steps: the paper's code
  does not contain its own.
- The marginal predictive is the mixture over samples rather than a Gaussian of its moments.
- A ``prior`` may take the place of :math:`N(0, \tau^2)`; see
  `understudy.models.tabular.functional_prior`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.models.tabular.functional_prior import PriorChoice
from understudy.models.tabular.sampled_network import (
    LEAST_ROWS,
    NOISE_VARIANCES,
    Choice,
    Problems,
    SampledNetwork,
    Samples,
    best_of_grid,
    log_score,
)
from understudy.nn.bayesian_mlp import FlatMLP, GaussianLikelihood, Joint
from understudy.sample.chains import Chains, Plan, sample
from understudy.sample.hmc import HMC
from understudy.sample.warm_start import maximise

_SEARCH_SHARE = 0.2  # of the steps, for each pair of the grid
_SEARCH_SECONDS = 0.4  # of the time
_WARM_SECONDS = 0.15


class HMCSurrogate(SampledNetwork):
    """Bayesian neural network whose posterior is sampled by Hamiltonian Monte Carlo.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the hidden layers; (128, 128, 128) as in the paper's low-dimensional problems.
    activation : str
    prior : str, dict, FunctionalPrior or LayerPrior, optional
        Instead of a variance: ``"functional"`` and its kin are matched to a Gaussian process,
        ``"fixed"`` is N(0, 1) on weights in units of their fan-in; see
        `understudy.models.tabular.functional_prior.PRIORS`.
    prior_variance, noise_variance : float, optional
        Of every weight, and of an observation in units of the outputs' variance; chosen from a
        grid by default.
    chains : int
        All draws of all chains count alike; 1 as in the paper.
    burn_in, samples : int
        Steps of each chain; 500 and 500 as in the paper.
    step_size, path_length : float
        0.02 as in the paper, whose paths are 0.008 to 0.08 long: a few leapfrog steps. Longer paths
        explore more of the posterior and take as much longer.
    mass : {"identity", "diagonal"}
        Whether the burn-in estimates a deviation of every weight; the identity as in the paper.
    jitter : float in [0, 1)
        Of the path length.
    warm_start_steps : int
        Of Adam; 1000 as in the paper.
    max_seconds : float, optional
        Wall time of a fit, the search included.
    seed : int
    """

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] = (128, 128, 128),
        activation: str = "tanh",
        prior: PriorChoice | None = None,
        prior_variance: float | None = None,
        noise_variance: float | None = None,
        chains: int = 1,
        burn_in: int = 500,
        samples: int = 500,
        step_size: float = 0.02,
        path_length: float = 0.08,
        mass: Literal["identity", "diagonal"] = "identity",
        jitter: float = 0.0,
        warm_start_steps: int = 1000,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.prior = prior
        self.prior_variance = prior_variance
        self.noise_variance = noise_variance
        self.chains = chains
        self.burn_in = burn_in
        self.samples = samples
        self.step_size = step_size
        self.path_length = path_length
        self.mass = mass
        self.jitter = jitter
        self.warm_start_steps = warm_start_steps
        self.max_seconds = max_seconds
        self.seed = seed

    def _check(self) -> None:
        super()._check()
        if self.chains < 1 or self.samples * self.chains < 2:
            raise UserError(
                "a posterior needs at least one chain and two samples, got "
                f"{self.chains} and {self.samples}"
            )
        for name in ("prior_variance", "noise_variance"):
            value = getattr(self, name)
            if value is not None and not value > 0.0:
                raise UserError(f"{name} must be positive, got {value}")

    def _standardised(self, U: Tensor) -> tuple[Tensor, Tensor]:
        if self.prior is not None:
            return super()._standardised(U)
        return torch.zeros_like(U[0]), torch.ones_like(U[0])

    def _sample(
        self, network: FlatMLP, problems: Problems, seconds: float | None
    ) -> tuple[list[Samples], bool]:
        start = time.perf_counter()
        choice, interrupted = self._chosen(network, problems, seconds)
        if seconds is not None:
            seconds = max(seconds - time.perf_counter() + start, 0.1 * seconds)
        plan = Plan(self.burn_in, 1 if interrupted else self.samples)
        steps = 0 if interrupted else self.warm_start_steps
        found = self._run(network, problems, choice, self.chains, plan, steps, seconds)
        draws = found.draws if found.kept else found.state.position.unsqueeze(0)
        by_problem = draws.unflatten(1, (len(problems), self.chains)).transpose(0, 1)
        samples = [
            Samples(theta.flatten(0, 1), noise.expand(theta.shape[:2].numel(), problems.y.shape[1]))
            for theta, noise in zip(by_problem, choice.noise, strict=True)
        ]
        self.chains_ = found
        self.prior_variance_, self.noise_variance_ = float(choice.prior[0]), float(choice.noise[0])
        return samples, interrupted or found.interrupted

    def _chosen(
        self, network: FlatMLP, problems: Problems, seconds: float | None
    ) -> tuple[Choice, bool]:
        """Variances for each problem, from the grid if they are not given."""
        priors = self._prior_variances()
        noises = NOISE_VARIANCES if self.noise_variance is None else (self.noise_variance,)
        grid = list(product(priors, noises))
        few = int(problems.inside.sum(1).min()) < LEAST_ROWS
        if few or len(grid) == 1:
            pair = (priors[len(priors) // 2], noises[len(noises) // 2])
            return best_of_grid([pair], torch.zeros(len(problems), 1).double()), False
        kept, away = problems.held_out(self.seed)
        repeated = Problems(kept.x, kept.y, kept.inside.repeat_interleave(len(grid), 0))
        pairs = torch.tensor(grid, dtype=kept.x.dtype).repeat(len(problems), 1)
        every = Choice(pairs[:, 0], pairs[:, 1])
        plan = Plan(round(_SEARCH_SHARE * self.burn_in), max(2, int(_SEARCH_SHARE * self.samples)))
        steps = round(_SEARCH_SHARE * self.warm_start_steps)
        share = None if seconds is None else _SEARCH_SECONDS * seconds
        found = self._run(network, repeated, every, 1, plan, steps, share)
        positions = found.kept or [found.state.position]
        values = torch.stack([network(theta, kept.x) for theta in positions])
        noise = every.noise[:, None].expand(len(values), -1, kept.y.shape[1])
        scores = log_score(values, noise, kept.y, away.repeat_interleave(len(grid), 0))
        return best_of_grid(grid, scores.unflatten(0, (len(problems), -1))), found.interrupted

    def _run(
        self,
        network: FlatMLP,
        problems: Problems,
        choice: Choice,
        chains: int,
        plan: Plan,
        warm_start_steps: int,
        seconds: float | None,
    ) -> Chains:
        """Warm start and chains, those of one problem together."""
        generator = torch.Generator().manual_seed(self.seed)
        inside = problems.inside.repeat_interleave(chains, 0)
        likelihood = GaussianLikelihood(
            network,
            problems.x,
            problems.y,
            choice.noise.repeat_interleave(chains),
            None if bool(inside.all()) else inside.to(problems.x),
        )
        prior = self._prior_density(choice.prior.repeat_interleave(chains))
        target = Joint(likelihood, prior)
        begin = time.perf_counter()
        theta = network.initial(len(inside), generator, problems.x.dtype)
        warm = None if seconds is None else _WARM_SECONDS * seconds
        theta = maximise(target, theta, warm_start_steps, max_seconds=warm)
        left = None if seconds is None else max(seconds - time.perf_counter() + begin, 1e-3)
        sampler = HMC(self.step_size, self.path_length, jitter=self.jitter, mass=self.mass)
        found = sample(sampler, target, theta, plan, generator, left)
        return replace(found, kept=found.kept[-plan.samples :])
