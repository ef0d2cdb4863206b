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
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.posterior import FunctionSamplePosterior
from understudy.core.predictive import Predictive
from understudy.core.surrogate import Surrogate
from understudy.nn.bayesian_mlp import FlatMLP
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

    ``_sample(network, problems)`` returns the `Samples` of each problem and whether it was
    interrupted.
    """

    chunk_rows = 128

    hidden: tuple[int, ...]
    activation: str
    seed: int

    def _sample(self, network: FlatMLP, problems: Problems) -> tuple[list[Samples], bool]:
        raise NotImplementedError

    def _standardised(self, U: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and spread (d,) of the inputs that the networks see."""
        raise NotImplementedError

    def _check(self) -> None:
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
        samples, interrupted = self._sample(network, problems)
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

    def _state(self) -> dict[str, Tensor]:
        return {
            "shift": self._shift,
            "spread": self._spread,
            "theta": self._samples.theta,
            "noise": self._samples.noise,
        }

    def _load(self, state: dict[str, Tensor]) -> None:
        self._shift, self._spread = state["shift"], state["spread"]
        self._samples = Samples(state["theta"], state["noise"])
