r"""Bayesian neural network by adaptive stochastic-gradient Hamiltonian Monte Carlo.

Springenberg et al. 2016 ("Bohamiann"), as a surrogate of Li, Rudner & Wilson (2024,
arXiv 2305.20028): see `understudy.sample.sghmc` for the sampler. Inputs and outputs are
standardised, every weight has prior :math:`N(0, \tau^2)`, and the logarithm of each output's noise
variance is sampled as well, under a normal prior about :math:`\log 10^{-6}` with variance 0.01.
That prior is strong: it costs :math:`50\,(\log\sigma^2 + 13.8)^2` nats, which a few hundred rows
outweigh only in part, so noise comes out too small on short noisy tables. ``noise_spread`` widens
it.

:math:`\tau^2` is the one of {0.1, 1, 10} under which four fifths of the rows predict the others
best. Those, unlike the paper's, are random; chains of the search have a fifth of the steps. The
noise variance starts at 0.1: a small one makes the first gradients so large that the steps, which
remember them, stay short for thousands of steps. A ``noise_variance`` that is given is not sampled.

A ``prior`` may take the place of :math:`N(0, \tau^2)`; see
`understudy.models.tabular.functional_prior`.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.models.tabular.functional_prior import PriorChoice
from understudy.models.tabular.sampled_network import (
    LEAST_ROWS,
    Problems,
    SampledNetwork,
    Samples,
    best_of_grid,
    log_score,
)
from understudy.models.tabular.stochastic_posterior import Rows, WeightSampler
from understudy.nn.bayesian_mlp import FlatMLP, MinibatchGaussian, MinibatchNoisyGaussian
from understudy.sample.chains import Chains, Plan
from understudy.sample.sghmc import SGHMC

_SEARCH_SHARE = 0.2  # of the steps and of the time
_FIRST_NOISE = 0.1


class SGHMCSurrogate(SampledNetwork):
    """Bayesian neural network sampled from a few rows at a time.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the hidden layers; (128, 128, 128) as in the paper's low-dimensional problems.
    activation : str
    prior : str, dict, FunctionalPrior or LayerPrior, optional
        Instead of a variance: ``"functional"`` and its kin are matched to a Gaussian process,
        ``"fixed"`` is N(0, 1) on weights in units of their fan-in; see
        `understudy.models.tabular.functional_prior.PRIORS`.
    prior_variance : float, optional
        Of every weight; chosen from a grid by default.
    noise_variance : float, optional
        Of an observation, in units of the outputs' variance; sampled by default.
    noise_mean, noise_spread : float
        Mean of the log-normal prior on noise variances, and variance of their logarithm.
    chains : int
        All draws of all chains count alike; 1 as in the paper.
    steps, burn_in, keep_every : int
        2000 in all, of which 1000 adapt and of the rest every 5th is kept, as in the paper.
    learning_rate, friction : float
        1e-2 and 0.05, as in the paper.
    batch_size : int
        Rows in a step; 5 as in the paper.
    resample_every : int
        Steps between draws of the precisions of a hierarchical prior; without effect otherwise.
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
        noise_mean: float = 1e-6,
        noise_spread: float = 0.01,
        chains: int = 1,
        steps: int = 2000,
        burn_in: int = 1000,
        keep_every: int = 5,
        learning_rate: float = 1e-2,
        friction: float = 0.05,
        batch_size: int = 5,
        resample_every: int = 20,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.prior = prior
        self.prior_variance = prior_variance
        self.noise_variance = noise_variance
        self.noise_mean = noise_mean
        self.noise_spread = noise_spread
        self.chains = chains
        self.steps = steps
        self.burn_in = burn_in
        self.keep_every = keep_every
        self.learning_rate = learning_rate
        self.friction = friction
        self.batch_size = batch_size
        self.resample_every = resample_every
        self.max_seconds = max_seconds
        self.seed = seed

    def _check(self) -> None:
        super()._check()
        for name in ("prior_variance", "noise_variance", "noise_mean", "noise_spread"):
            value = getattr(self, name)
            if value is not None and not value > 0.0:
                raise UserError(f"{name} must be positive, got {value}")
        for name in ("chains", "keep_every", "batch_size", "resample_every"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if (self.steps - self.burn_in) // self.keep_every * self.chains < 2:
            raise UserError(
                "a posterior needs at least two samples; keep more than "
                f"{self.steps} steps with {self.burn_in} of burn-in leave"
            )

    def _sample(
        self, network: FlatMLP, problems: Problems, seconds: float | None
    ) -> tuple[list[Samples], bool]:
        begin = time.perf_counter()
        prior, interrupted = self._chosen(network, problems, seconds)
        left = seconds
        if left is not None:
            left = max(left - time.perf_counter() + begin, 1e-3)
        plan = self._plan(1.0)
        plan = Plan(0, 1) if interrupted else plan
        target, found = self._run(network, problems, prior, self.chains, plan, left)
        draws = found.draws if found.kept else found.state.position.unsqueeze(0)
        by_problem = draws.unflatten(1, (len(problems), self.chains)).transpose(0, 1)
        samples = []
        for one in by_problem:
            theta, log_noise = target.split(one.flatten(0, 1))
            samples.append(Samples(theta.contiguous(), log_noise.exp()))
        self.chains_, self.prior_variance_ = found, float(prior[0])
        return samples, interrupted or found.interrupted

    def _plan(self, share: float) -> Plan:
        burn_in = round(share * self.burn_in)
        kept = int(share * (self.steps - self.burn_in)) // self.keep_every
        return Plan(burn_in, max(kept, 2), self.keep_every)

    def _chosen(
        self, network: FlatMLP, problems: Problems, seconds: float | None
    ) -> tuple[Tensor, bool]:
        """Prior variance (P,) of each problem, from the grid if it is not given."""
        grid = self._prior_variances()
        if int(problems.inside.sum(1).min()) < LEAST_ROWS or len(grid) == 1:
            middle = grid[len(grid) // 2]
            return torch.full((len(problems),), middle, dtype=problems.x.dtype), False
        kept, away = problems.held_out(self.seed)
        repeated = Problems(kept.x, kept.y, kept.inside.repeat_interleave(len(grid), 0))
        priors = torch.tensor(grid, dtype=kept.x.dtype).repeat(len(problems))
        left = None if seconds is None else 2.0 * _SEARCH_SHARE * seconds
        plan = self._plan(_SEARCH_SHARE)
        target, found = self._run(network, repeated, priors, 1, plan, left)
        positions = found.kept or [found.state.position]
        pairs = [target.split(position) for position in positions]
        values = torch.stack([network(theta, kept.x) for theta, _ in pairs])
        noise = torch.stack([log_noise.exp() for _, log_noise in pairs])
        scores = log_score(values, noise, kept.y, away.repeat_interleave(len(grid), 0))
        scores = scores.unflatten(0, (len(problems), -1))
        return best_of_grid([(g, g) for g in grid], scores).prior, found.interrupted

    def _run(
        self,
        network: FlatMLP,
        problems: Problems,
        prior: Tensor,
        chains: int,
        plan: Plan,
        seconds: float | None,
    ) -> tuple[MinibatchGaussian | MinibatchNoisyGaussian, Chains]:
        inside = problems.inside.repeat_interleave(chains, 0)
        likelihood = self._likelihood(network, problems, inside)
        generator = torch.Generator().manual_seed(self.seed)
        start = network.initial(len(inside), generator, problems.x.dtype)
        if self.noise_variance is None:
            shape = (len(start), problems.y.shape[1])
            start = torch.cat([start, start.new_full(shape, math.log(_FIRST_NOISE))], dim=1)
        weights = self._prior_density(prior.repeat_interleave(chains))
        rows = Rows(likelihood.counts, self.batch_size)
        inner = SGHMC(self.learning_rate, self.friction)
        sampler = WeightSampler(inner, plan, self.resample_every)
        return likelihood, sampler.run(likelihood, weights, rows, start, generator, seconds)

    def _likelihood(
        self, network: FlatMLP, problems: Problems, inside: Tensor
    ) -> MinibatchGaussian | MinibatchNoisyGaussian:
        """Of chains that see these rows (chains, n)."""
        rows, counts = (~inside).to(torch.int8).argsort(dim=1, stable=True), inside.sum(1)
        x, y = problems.x, problems.y
        if self.noise_variance is not None:
            return MinibatchGaussian(network, x, y, self.noise_variance, rows, counts)
        return MinibatchNoisyGaussian(
            network, x, y, rows, counts, self.noise_mean, self.noise_spread
        )
