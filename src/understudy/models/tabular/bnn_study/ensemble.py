r"""Deep ensemble of Li, Rudner & Wilson (2024, arXiv 2305.20028): modes of the joint density.

Each of M networks climbs

.. math:: \log p(\theta) + \sum_{i \in S_k} \log N(y_i;\ f_\theta(x_i),\ \sigma^2),
          \qquad \theta \sim N(0, \tau^2 I),

the density that HMC samples, with a random 80 % of the rows :math:`S_k` and 1000 steps of Adam of
length 1e-3. The predictive has the variance among the networks plus :math:`\sigma^2`. All networks,
and those of the grid in which :math:`\tau^2` and :math:`\sigma^2` are sought, are one batch each;
the grid is that of `HMCSurrogate`, with one network a pair.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.models.tabular.sampled_network import (
    LEAST_ROWS,
    NOISE_VARIANCES,
    PRIOR_VARIANCES,
    Choice,
    Problems,
    SampledNetwork,
    Samples,
    best_of_grid,
    log_score,
)
from understudy.nn.bayesian_mlp import FlatMLP, GaussianJoint
from understudy.sample.warm_start import maximise

_SEARCH_SECONDS = 0.5


class ModeEnsemble(SampledNetwork):
    """Networks at modes of the joint density of their rows and weights.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the hidden layers; (128, 128, 128) as in the paper's low-dimensional problems.
    activation : str
    prior_variance, noise_variance : float, optional
        Of every weight, and of an observation in units of the outputs' variance; chosen from a
        grid by default.
    members : int
        10 in the paper.
    share : float in (0, 1]
        Of the rows that a member sees; 0.8 in the paper.
    steps : int
        Of Adam; 1000 in the paper.
    learning_rate : float
        1e-3, Adam's default, as in the official code.
    max_seconds : float, optional
        Wall time of a fit, the search included.
    seed : int
    """

    prior: None = None

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] = (128, 128, 128),
        activation: str = "tanh",
        prior_variance: float | None = None,
        noise_variance: float | None = None,
        members: int = 10,
        share: float = 0.8,
        steps: int = 1000,
        learning_rate: float = 1e-3,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.prior_variance = prior_variance
        self.noise_variance = noise_variance
        self.members = members
        self.share = share
        self.steps = steps
        self.learning_rate = learning_rate
        self.max_seconds = max_seconds
        self.seed = seed

    def _check(self) -> None:
        super()._check()
        if self.members < 2:
            raise UserError(f"an ensemble needs at least 2 members, got {self.members}")
        if not 0.0 < self.share <= 1.0:
            raise UserError(f"share must be above 0 and at most 1, got {self.share}")
        for name in ("prior_variance", "noise_variance"):
            value = getattr(self, name)
            if value is not None and not value > 0.0:
                raise UserError(f"{name} must be positive, got {value}")

    def _standardised(self, U: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(U[0]), torch.ones_like(U[0])

    def _sample(
        self, network: FlatMLP, problems: Problems, seconds: float | None
    ) -> tuple[list[Samples], bool]:
        generator = torch.Generator().manual_seed(self.seed)
        choice = self._chosen(network, problems, generator, seconds)
        rows = self._subsets(problems.inside, generator)
        prior = choice.prior.repeat_interleave(self.members)
        noise = choice.noise.repeat_interleave(self.members)
        theta = self._climb(network, problems, rows, Choice(prior, noise), generator, seconds)
        self.prior_variance_, self.noise_variance_ = float(choice.prior[0]), float(choice.noise[0])
        m = problems.y.shape[1]
        return [
            Samples(members, variance.expand(self.members, m))
            for members, variance in zip(
                theta.unflatten(0, (-1, self.members)), choice.noise, strict=True
            )
        ], False

    def _chosen(
        self,
        network: FlatMLP,
        problems: Problems,
        generator: torch.Generator,
        seconds: float | None,
    ) -> Choice:
        """Variances for each problem, from the grid if they are not given."""
        priors = PRIOR_VARIANCES if self.prior_variance is None else (self.prior_variance,)
        noises = NOISE_VARIANCES if self.noise_variance is None else (self.noise_variance,)
        grid = list(product(priors, noises))
        if len(grid) == 1 or int(problems.inside.sum(1).min()) < LEAST_ROWS:
            pair = (priors[len(priors) // 2], noises[len(noises) // 2])
            return best_of_grid([pair], torch.zeros(len(problems), 1, dtype=problems.x.dtype))
        kept, away = problems.held_out(self.seed)
        pairs = torch.tensor(grid, dtype=kept.x.dtype).repeat(len(problems), 1)
        every = Choice(pairs[:, 0], pairs[:, 1])
        rows = kept.inside.repeat_interleave(len(grid), 0)
        share = None if seconds is None else _SEARCH_SECONDS * seconds
        theta = self._climb(network, kept, rows, every, generator, share)
        values = network(theta, kept.x).unsqueeze(0)
        noise = every.noise[:, None].expand(1, -1, kept.y.shape[1])
        scores = log_score(values, noise, kept.y, away.repeat_interleave(len(grid), 0))
        return best_of_grid(grid, scores.unflatten(0, (len(problems), -1)))

    def _subsets(self, inside: Tensor, generator: torch.Generator) -> Tensor:
        """Rows (P * members, n) of each member: a random share of those of its problem."""
        every = inside.repeat_interleave(self.members, 0)
        order = torch.rand(every.shape, generator=generator, dtype=torch.float64)
        rank = order.masked_fill(~every, 2.0).argsort(1).argsort(1)
        counts = torch.tensor([math.ceil(self.share * int(n)) for n in every.sum(1)])
        return rank < counts.unsqueeze(1)

    def _climb(
        self,
        network: FlatMLP,
        problems: Problems,
        rows: Tensor,
        choice: Choice,
        generator: torch.Generator,
        seconds: float | None,
    ) -> Tensor:
        """Modes (B, dim) of B networks, each with rows (B, n) of its own."""
        target = GaussianJoint(
            network, problems.x, problems.y, choice.prior, choice.noise, rows.to(problems.x)
        )
        theta = network.initial(len(rows), generator, problems.x.dtype)
        return maximise(target, theta, self.steps, self.learning_rate, seconds)
