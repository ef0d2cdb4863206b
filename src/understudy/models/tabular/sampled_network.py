r"""Bayesian neural networks by samples of their weights: what HMC and SGHMC have in common.

Each of S draws is a network :math:`f_s` with noise variance :math:`\sigma_s^2`. A new observation
is

.. math:: p(y \mid x) = \frac1S \sum_s N(y;\ f_s(x),\ \sigma_s^2),

and a draw from the joint posterior is one network at all points. In marginals the S components of a
cell are sorted by mean and merged, neighbours with neighbours, into at most 16 of equal weight,
each with the mean and variance of those that it stands for: mean and variance of the whole are
kept, and its shape nearly.

Networks that miss a fold are further chains of the same batch, so cross-validation of a small table
costs little more than arithmetic.

With a ``prior`` of its own (see `understudy.models.tabular.functional_prior`), a network has
layers :math:`x W / \sqrt{n_{\text{in}}} + b`, sees standardised inputs, and samples are kept as
weights without that scale. A prior is matched on inputs alone; the folds of a table share it.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.posterior import FunctionSamplePosterior
from understudy.core.predictive import Predictive
from understudy.core.surrogate import Surrogate
from understudy.models.tabular.functional_prior import (
    FunctionalPrior,
    PriorChoice,
    layer_prior,
)
from understudy.nn.bayesian_mlp import FlatMLP, IsotropicPrior, Prior, ScaledMLP
from understudy.nn.layer_priors import LayerPrior, restored
from understudy.nn.mlp import ACTIVATIONS

if TYPE_CHECKING:
    from botorch.posteriors import Posterior
    from numpy.typing import NDArray

COMPONENTS = 16
"""Components that a cell has at most."""

PRIOR_VARIANCES = (0.1, 1.0, 10.0)
NOISE_VARIANCES = (0.01, 0.1, 1.0)
LEAST_ROWS = 5
"""Rows from which a held-out fifth can choose hyperparameters."""

GIVEN = "given"
"""What a file says of a prior that was an object; its tensors are there."""

_MATCH_SECONDS = 0.3  # of the time, for a prior that is matched

BATCHED_ELEMENTS = 4_000_000
"""Activations of all networks up to which the folds of a table are one batch."""


@dataclass(frozen=True)
class Samples:
    """Networks drawn from a posterior.

    Parameters
    ----------
    theta : Tensor (S, dim)
    noise : Tensor (S, m)
        Noise variance of each draw.
    """

    theta: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Problems:
    """One table seen by P models, each with rows of its own.

    Parameters
    ----------
    x : Tensor (n, d)
    y : Tensor (n, m)
    inside : BoolTensor (P, n)
        Rows that each model learns from.
    """

    x: Tensor
    y: Tensor
    inside: Tensor

    def __len__(self) -> int:
        return len(self.inside)

    def held_out(self, seed: int, share: float = 0.2) -> tuple[Problems, Tensor]:
        """Problems without a random share of each one's rows, and those rows (P, n)."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.rand(self.inside.shape, generator=generator, dtype=torch.float64)
        rank = order.masked_fill(~self.inside, 2.0).argsort(1).argsort(1)
        away = rank < (share * self.inside.sum(1, keepdim=True)).round()
        return Problems(self.x, self.y, self.inside & ~away), away


@dataclass(frozen=True)
class Choice:
    """Prior and noise variance of the weights' posterior of each of P problems.

    Parameters
    ----------
    prior, noise : Tensor (P,)
    """

    prior: Tensor
    noise: Tensor


def best_of_grid(grid: list[tuple[float, float]], scores: Tensor) -> Choice:
    """Pairs of the grid with the highest scores (P, G); NaN never wins."""
    best = scores.nan_to_num(nan=-torch.inf).argmax(1)
    pairs = torch.tensor(grid, dtype=scores.dtype)[best]
    return Choice(pairs[:, 0], pairs[:, 1])


def log_score(values: Tensor, noise: Tensor, y: Tensor, rows: Tensor) -> Tensor:
    """Log density of held-out rows under Gaussians with the samples' mean and variance.

    Parameters
    ----------
    values : Tensor (S, B, n, m)
        Samples of B models.
    noise : Tensor (S, B, m)
    y : Tensor (n, m)
    rows : BoolTensor (B, n)
        Rows that count for each.

    Returns
    -------
    Tensor (B,)
    """
    variance = values.var(0, correction=0) + noise.mean(0).unsqueeze(1)
    density = torch.distributions.Normal(values.mean(0), variance.sqrt()).log_prob(y)
    return (density.sum(2) * rows).sum(1)


def merged(loc: Tensor, variance: Tensor, most: int = COMPONENTS) -> Predictive:
    """Equal mixture of S Gaussians a cell, merged into at most ``most``.

    Parameters
    ----------
    loc : Tensor (S, n, m)
    variance : Tensor (S, m)
    """
    S, n, m = loc.shape
    loc, order = loc.sort(0)
    variance = variance.unsqueeze(1).expand(S, n, m).gather(0, order)
    means, variances, shares = [], [], []
    for first, spread in zip(
        loc.tensor_split(min(most, S)), variance.tensor_split(min(most, S)), strict=True
    ):
        means.append(first.mean(0))
        variances.append(spread.mean(0) + first.var(0, correction=0))
        shares.append(len(first) / S)
    weight = torch.tensor(shares, dtype=loc.dtype)[:, None, None]
    return Predictive(torch.stack(means), torch.stack(variances).sqrt(), weight)


class SampledNetwork(Surrogate):
    """A Bayesian neural network by samples; a subclass writes `_sample`.

    ``_sample(network, problems, seconds)`` returns the `Samples` of each problem and whether it was
    interrupted.
    """

    chunk_rows = 128

    hidden: tuple[int, ...]
    activation: str
    prior: PriorChoice | None
    prior_variance: float | None
    max_seconds: float | None
    seed: int

    def _sample(
        self, network: FlatMLP, problems: Problems, seconds: float | None
    ) -> tuple[list[Samples], bool]:
        raise NotImplementedError

    def _standardised(self, U: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and spread (d,) of the inputs that the networks see."""
        spread = U.std(0)
        return U.mean(0), torch.where(spread > 1e-12, spread, torch.ones_like(spread))

    def _prior_variances(self) -> tuple[float, ...]:
        """Variances of weights to choose from; a prior of its own leaves no choice."""
        if self.prior is not None:
            return (1.0,)
        return PRIOR_VARIANCES if self.prior_variance is None else (self.prior_variance,)

    def _prior_density(self, variance: Tensor) -> Prior:
        """Prior of the weights of chains with these variances (chains,)."""
        return IsotropicPrior(variance) if self.prior_ is None else self.prior_.frozen()

    def _check(self) -> None:
        if self.prior is not None and self.prior_variance is not None:
            raise UserError(
                "prior_variance is of the prior that is taken when no other is named: give either "
                "prior or prior_variance"
            )
        if self.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise UserError(f"activation must be one of {known}, got {self.activation!r}")
        if not self.hidden or any(int(width) < 1 for width in self.hidden):
            raise UserError(f"hidden must name at least one positive width, got {self.hidden}")

    def _fit(self, U: Tensor, Z: Tensor) -> None:
        self._learn(U, Z, torch.ones(1, len(U), dtype=torch.bool))

    def _fit_folds(self, U: Tensor, Z: Tensor, folds: NDArray[np.int_]) -> Predictive:
        folds = np.asarray(folds)
        kinds = np.unique(folds[folds >= 0])
        elements = (len(kinds) + 1) * len(U) * sum(self.hidden)
        if elements * getattr(self, "chains", 1) > BATCHED_ELEMENTS:
            return super()._fit_folds(U, Z, folds)
        of = torch.from_numpy(folds)
        inside = torch.stack([torch.ones_like(of) > 0, *[of != int(kind) for kind in kinds]])
        samples = self._learn(U, Z, inside)
        parts, order = [], []
        for own, kind in zip(samples[1:], kinds, strict=True):
            rows = np.flatnonzero(folds == kind)
            parts += [self._mixture(own, part) for part in U[rows].split(self.chunk_rows)]
            order.append(rows)
        back = torch.from_numpy(np.argsort(np.concatenate(order)))
        return Predictive.concatenate(parts)[back]

    @torch.no_grad()
    def _learn(self, U: Tensor, Z: Tensor, inside: Tensor) -> list[Samples]:
        """Sample every problem and keep the first; that is the one that sees all rows."""
        self._check()
        self._shift, self._spread = self._standardised(U)
        network = self._network(U.shape[1], Z.shape[1])
        problems = Problems((U - self._shift) / self._spread, Z, inside)
        begin, seconds = time.perf_counter(), self.max_seconds
        self.prior_: LayerPrior | None = None
        if self.prior is not None:
            network = ScaledMLP(network.sizes, network.activation)
            share = None if seconds is None else _MATCH_SECONDS * seconds
            self.prior_ = layer_prior(self.prior, network, problems.x, self.seed, share)
        if seconds is not None:
            seconds = max(seconds - time.perf_counter() + begin, 1e-3)
        samples, interrupted = self._sample(network, problems, seconds)
        samples = [replace(own, theta=network.plain(own.theta)) for own in samples]
        self._samples = samples[0]
        if interrupted:
            raise KeyboardInterrupt
        return samples

    def _network(self, inputs: int, outputs: int) -> FlatMLP:
        return FlatMLP((inputs, *map(int, self.hidden), outputs), self.activation)

    def _values(self, samples: Samples, U: Tensor) -> Tensor:
        """Values (S, n, m) of the networks at U (n, d)."""
        network = self._network(U.shape[-1], samples.noise.shape[1])
        return network(samples.theta, (U - self._shift) / self._spread)

    @torch.no_grad()
    def _mixture(self, samples: Samples, U: Tensor) -> Predictive:
        return merged(self._values(samples, U), samples.noise)

    def _predictive(self, U: Tensor) -> Predictive:
        return self._mixture(self._samples, U)

    def _expected(self, U: Tensor, outputs: Tensor) -> Tensor:
        return self._values(self._samples, U).mean(0)[:, outputs]

    def _posterior(self, U: Tensor, observation_noise: bool) -> Posterior:
        values = self._values(self._samples, U.reshape(-1, U.shape[-1]))
        values = values.reshape(len(values), *U.shape[:-1], -1)
        noise = self._samples.noise.mean(0).expand(values.shape[1:])
        return FunctionSamplePosterior(values, noise if observation_noise else None)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the fitted surrogate as JSON-able parameters and named tensors."""
        head, tensors = super().state()
        if isinstance(self.prior, FunctionalPrior):
            head["params"]["prior"] = asdict(self.prior)
        if isinstance(self.prior, LayerPrior):
            head["params"]["prior"] = GIVEN
        return head, tensors

    def _state(self) -> dict[str, Tensor]:
        prior = {} if self.prior_ is None else self.prior_.state_dict()
        return {
            "shift": self._shift,
            "spread": self._spread,
            "theta": self._samples.theta,
            "noise": self._samples.noise,
            **{f"prior.{name}": value.clone() for name, value in prior.items()},
        }

    def _load(self, state: dict[str, Tensor]) -> None:
        self._shift, self._spread = state["shift"], state["spread"]
        self._samples = Samples(state["theta"], state["noise"])
        prior = {k.removeprefix("prior."): v for k, v in state.items() if k.startswith("prior.")}
        self.prior_ = None
        if prior:
            plain = self._network(len(self._shift), self._samples.noise.shape[1])
            self.prior_ = restored(ScaledMLP(plain.sizes, plain.activation), prior)
        if self.prior == GIVEN:
            self.prior = self.prior_
