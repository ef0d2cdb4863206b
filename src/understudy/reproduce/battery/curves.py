"""What reproductions of networks for battery cells measure against, and how they calibrate.

Everything here knows a few discharge curves at the corners of the box of two factors: the network
of physics, and what interpolates the same curves without any.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from understudy.core.space import Continuous, Space
from understudy.core.surrogate import Surrogate
from understudy.models.physics.battery import CellPINN
from understudy.models.tabular.deep_ensemble import DeepEnsemble
from understudy.models.tabular.exact_gp import ExactGP
from understudy.search.approximation_error import ApproximationError, LowRankNormal
from understudy.search.measurement import Checks

NOISE = 3e-3
"""Of a measured voltage, V."""

CORNERS = ((0.5, 1.0), (0.5, 10.0), (4.0, 1.0), (4.0, 10.0))
"""Of the box: factors of exchange current and of diffusivity."""

Curves = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Means and variances (n, T) of voltages at parameters (n, 2)."""


# -- interpolation of the curves at the corners ----------------------------------------------------


def rivals(curves: Tensor, times: Tensor, seconds: float, seed: int) -> dict[str, Curves]:
    """What the curves (4, T) of the corners give without physics.

    Parameters
    ----------
    curves : Tensor (4, T)
    times : Tensor (T,)
    seconds : float
        That the Gaussian process and the ensemble may take, each.
    seed : int
        Of the ensemble.
    """
    process = ExactGP(kernel="rbf", max_seconds=seconds)
    ensemble = DeepEnsemble(max_seconds=seconds, seed=seed)
    return {
        "bilinear interpolation": blend(curves),
        "a polynomial of modes": modes(curves),
        "a Gaussian process": tabular(process, curves, times),
        "an ensemble": tabular(ensemble, curves, times),
    }


def blend(curves: Tensor) -> Curves:
    """Bilinear in the parameters."""
    low, high = (torch.tensor(ends, dtype=torch.float64) for ends in (CORNERS[0], CORNERS[3]))

    def evaluate(theta: Tensor) -> tuple[Tensor, Tensor]:
        u, v = ((theta - low) / (high - low)).unbind(1)
        shares = torch.stack([(1 - u) * (1 - v), (1 - u) * v, u * (1 - v), u * v], 1)
        mean = shares @ curves
        return mean, torch.zeros_like(mean)

    return evaluate


def modes(curves: Tensor, at: Tensor | None = None) -> Curves:
    """Proper orthogonal modes; coefficients a polynomial of 1 / first and log second parameter.

    Parameters
    ----------
    curves : Tensor (k, T)
    at : Tensor (k, 2), optional
        Their parameters; the corners by default.
    """

    def features(theta: Tensor) -> Tensor:
        a, b = 1.0 / theta[:, 0], theta[:, 1].log()
        return torch.stack([torch.ones_like(a), a, b, a * b], 1)

    middle = curves.mean(0)
    U, S, Vh = torch.linalg.svd(curves - middle, full_matrices=False)
    at = torch.tensor(CORNERS, dtype=torch.float64) if at is None else at
    solved = torch.linalg.lstsq(features(at), U * S).solution

    def evaluate(theta: Tensor) -> tuple[Tensor, Tensor]:
        mean = middle + features(theta) @ solved @ Vh
        return mean, torch.zeros_like(mean)

    return evaluate


def tabular(model: Surrogate, curves: Tensor, times: Tensor) -> Curves:
    """A surrogate of rows (time, parameters)."""
    T = len(times)

    def rows(theta: Tensor) -> np.ndarray:
        at = torch.cat([times.repeat(len(theta))[:, None], theta.repeat_interleave(T, 0)], 1)
        return np.asarray(at.numpy())

    corners = torch.tensor(CORNERS, dtype=torch.float64)
    model.fit(rows(corners), curves.reshape(-1).numpy())

    def evaluate(theta: Tensor) -> tuple[Tensor, Tensor]:
        found = model.predictive(rows(theta))
        return found.mean.reshape(-1, T), found.sd.square().reshape(-1, T)

    return evaluate


def of_networks(model: CellPINN, theta: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Means and variances (n, T) over the networks of a model, at parameters (n, 2)."""
    T, parts = len(times), []
    with torch.no_grad():
        for rows in theta.split(200):
            at = times.repeat(len(rows)), rows.repeat_interleave(T, 0)
            found = model.voltages(*at).reshape(-1, len(rows), T)
            parts.append(torch.stack([found.mean(0), found.var(0)]))
    mean, variance = torch.cat(parts, 1).unbind(0)
    return mean, variance


# -- the error of each in further runs -------------------------------------------------------------


class _Calibrated:
    """Curves as a model whose error can be known."""

    space = Space(
        (
            Continuous("negative_exchange_current", CORNERS[0][0], CORNERS[3][0]),
            Continuous("positive_diffusivity", CORNERS[0][1], CORNERS[3][1]),
        )
    )
    outputs: tuple[str, ...] = ("voltage",)

    def __init__(self, curves: Curves, times: int) -> None:
        self.curves, self.group = curves, torch.zeros(times, dtype=torch.long)

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        return self.curves(theta)


def errors_of(surrogates: Mapping[str, Curves], runs: Checks) -> dict[str, ApproximationError]:
    """Error of each surrogate in the same runs of the solver."""
    T = runs.y.shape[1]
    return {
        name: ApproximationError.of(_Calibrated(curves, T), runs)
        for name, curves in surrogates.items()
    }


def drawn(count: int, seed: int) -> Tensor:
    """Parameters (count, 2) drawn from the box."""
    g = torch.Generator().manual_seed(seed)
    low, high = (torch.tensor(ends, dtype=torch.float64) for ends in (CORNERS[0], CORNERS[3]))
    return low + (high - low) * torch.rand(count, 2, generator=g, dtype=torch.float64)


# -- posteriors ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GridPosterior:
    """Posterior on an even grid of the box, and what matters of it.

    Parameters
    ----------
    mass : Tensor (g,)
    theta : Tensor (g, 2)
    """

    mass: Tensor
    theta: Tensor

    @classmethod
    def of(
        cls,
        y: Tensor,
        mean: Tensor,
        variance: Tensor,
        theta: Tensor,
        error: ApproximationError | None = None,
    ) -> GridPosterior:
        """Of data y (T,), with tabulated means and variances (g, T), to which noise is added."""
        whole = variance + NOISE**2
        if error is None:
            log = LowRankNormal(mean, whole).log_density(y)
        else:
            shifted, whole = mean + error.mean, whole + error.diagonal
            log = LowRankNormal(shifted, whole.expand_as(mean), error.factor).log_density(y)
        return cls((log - log.max()).exp() / (log - log.max()).exp().sum(), theta)

    @property
    def mean(self) -> Tensor:
        """(2,)."""
        return self.mass @ self.theta

    @property
    def sd(self) -> Tensor:
        """(2,)."""
        return (self.mass @ (self.theta - self.mean).square()).sqrt()

    def holds(self, at: Tensor, share: float = 0.95) -> bool:
        """Whether the smallest region with that share holds the grid point nearest to a truth."""
        spread = self.theta.amax(0) - self.theta.amin(0)
        nearest = ((self.theta - at) / spread).square().sum(1).argmin()
        return float(self.mass[self.mass > self.mass[nearest]].sum()) <= share


def box_grid(points: int) -> Tensor:
    """Even grid (points^2, 2) of the box."""
    a = torch.linspace(0.5, 4.0, points, dtype=torch.float64)
    b = torch.linspace(1.0, 10.0, points, dtype=torch.float64)
    return torch.cartesian_prod(a, b)


@dataclass(frozen=True)
class Calibrations:
    """Calibrations of the same noisy curves through several tables of predictions.

    Parameters
    ----------
    shift : dict of str to dict of int to float
        Of each table and noise: largest distance of a posterior mean from that of the reference,
        in the reference's deviations.
    held : dict of str to dict of int to float
        Whether the 95 % region holds the truth.
    """

    shift: dict[str, dict[int, float]]
    held: dict[str, dict[int, float]]

    @classmethod
    def of(
        cls,
        tables: dict[str, tuple[Tensor, Tensor]],
        theta: Tensor,
        curve: Tensor,
        truth: Tensor,
        noises: int,
        errors: Mapping[str, ApproximationError] | None = None,
    ) -> Calibrations:
        """Calibrate with as many draws of noise; the table ``reference`` is the solver's.

        Where the error of a table is known it is part of its likelihood.
        """
        errors = errors or {}
        shift: dict[str, dict[int, float]] = {name: {} for name in tables}
        held: dict[str, dict[int, float]] = {name: {} for name in tables}
        for k in range(noises):
            g = torch.Generator().manual_seed(100 + k)
            y = curve + NOISE * torch.randn(len(curve), generator=g, dtype=torch.float64)
            found = {
                name: GridPosterior.of(y, *table, theta, errors.get(name))
                for name, table in tables.items()
            }
            right = found["reference"]
            for name, each in found.items():
                shift[name][k] = float(((each.mean - right.mean).abs() / right.sd).max())
                held[name][k] = float(each.holds(truth))
        return cls(shift, held)

    def said(self) -> str:
        """All tables, in words."""
        return "; ".join(
            f"{name}: {np.mean(list(self.shift[name].values())):.2g} sd, holds the truth in "
            f"{np.mean(list(self.held[name].values())):.2g} of the draws"
            for name in self.shift
        )


# -- speed -----------------------------------------------------------------------------------------


def seconds_of(call: Callable[[], Any], rounds: int = 5) -> float:
    """Median CPU seconds of a call."""
    call()
    taken = []
    for _ in range(rounds):
        begin = time.process_time()
        call()
        taken.append(time.process_time() - begin)
    return median(taken)
