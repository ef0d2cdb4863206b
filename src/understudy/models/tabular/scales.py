"""Which inputs a table asks to be taken on a logarithmic scale, chosen by marginal likelihood."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from understudy.core.space import Continuous, Input, Space
from understudy.data.table import Note
from understudy.models.tabular.marginal_likelihood import (
    Deadline,
    StationaryLikelihood,
    climb,
    dimension_scaled,
    most_probable,
)

LEAST_RATIO = 3.0
"""Greatest over least value from which on an input is tried."""

LEAST_EVIDENCE = 3.0
"""Gain of log marginal likelihood, summed over outputs, for which an input is transformed."""

_ROWS = 200
_OUTPUTS = 8
_RELEVANT = 5.0  # length-scale, in widths of the unit cube, above which an input hardly matters
_STEPS = 6

Array = NDArray[np.float64]


def choose_scales(
    space: Space, X: Array, Y: Array, seed: int, seconds: float = math.inf
) -> tuple[Space, tuple[Note, ...]]:
    """Space in which inputs are logarithmic where the runs say so, and what was done.

    An input is tried if it is positive, its values span a factor of `LEAST_RATIO` and they are not
    more skewed in the logarithm, as in a design that was drawn there: predictions along it and
    Sobol indices then keep to that design. It is transformed if Gaussian processes of the outputs
    reach a marginal likelihood higher by `LEAST_EVIDENCE`, given the inputs transformed before.

    Parameters
    ----------
    space : Space
    X : ndarray (n, d)
        Codes.
    Y : ndarray (n, m)
    seed : int
        Of the rows and outputs that are looked at where there are many.
    seconds : float
        Wall time after which no further input is tried.
    """
    deadline = Deadline.after(seconds)
    tried = [k for k, item in enumerate(space) if _is_candidate(item, X[:, k])]
    if not tried or len(X) < 20:
        return space, ()
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(X))[:_ROWS]
    outputs = rng.permutation(Y.shape[1])[:_OUTPUTS]
    Z = Y[np.ix_(rows, outputs)]
    Z = Z[:, np.ptp(Z, axis=0) > 0.0]
    if not Z.shape[1]:
        return space, ()
    evidence = _Evidence(X[rows], (Z - Z.mean(0)) / Z.std(0))
    evidence.start(space, deadline)
    gains = {}
    for k in tried:
        if not deadline.passed:
            gains[k] = evidence.gain(_with_log(space, k), k)
    chosen: list[str] = []
    for k in sorted(gains, key=lambda k: -gains[k]):
        if gains[k] < LEAST_EVIDENCE or deadline.passed:
            break
        if not chosen or evidence.gain(_with_log(space, k), k) >= LEAST_EVIDENCE:
            space = _with_log(space, k)
            evidence.accept(space, k)
            chosen.append(space.names[k])
    return space, tuple(_notes(chosen))


class _Evidence:
    """Marginal likelihoods of the outputs Z (n, m) under a space, and how another changes them."""

    def __init__(self, X: Array, Z: Array) -> None:
        self.X, self.Z = torch.from_numpy(X), np.asfortranarray(Z)

    def start(self, space: Space, deadline: Deadline) -> None:
        """Find the hyperparameters in this space."""
        self.columns = _columns(space)
        likelihood = self._likelihood(space)
        self.theta = most_probable(likelihood, self.Z, deadline)
        self.value = np.array(
            [likelihood.values(t, z[:, None])[0] for t, z in zip(self.theta, self.Z.T, strict=True)]
        )

    def gain(self, space: Space, changed: int) -> float:
        """Rise of the log likelihood, summed over outputs, in a space that differs in one input."""
        return float((self.value - self._improved(space, changed)[1]).sum())

    def accept(self, space: Space, changed: int) -> None:
        """Go on from this space."""
        self.theta, self.value = self._improved(space, changed)

    def _improved(self, space: Space, changed: int) -> tuple[Array, Array]:
        likelihood, column = self._likelihood(space), self.columns[changed]
        theta, value = self.theta.copy(), self.value.copy()
        for j, z in enumerate(self.Z.T):
            if theta[j, column] < math.log(_RELEVANT):
                y = np.asfortranarray(z[:, None])
                theta[j] = climb(likelihood, y, theta[j], Deadline(), _STEPS)
                value[j] = likelihood.values(theta[j], y)[0]
        return theta, value

    def _likelihood(self, space: Space) -> StationaryLikelihood:
        U = space.features(self.X).numpy()
        return StationaryLikelihood(U, "matern52", dimension_scaled(U.shape[1]))


def _columns(space: Space) -> list[int]:
    """First feature of every input."""
    widths = [len(getattr(item, "choices", ())) for item in space]
    counts = [width if width > 2 else 1 for width in widths]
    return [0, *np.cumsum(counts)[:-1].tolist()]


def _is_candidate(item: Input, values: Array) -> bool:
    if not isinstance(item, Continuous) or item.log or not item.lower > 0.0:
        return False
    if values.min() <= 0.0 or values.max() < LEAST_RATIO * values.min():
        return False
    return bool(abs(stats.skew(np.log(values))) <= abs(stats.skew(values)))


def _with_log(space: Space, index: int) -> Space:
    items = list(space)
    item = items[index]
    assert isinstance(item, Continuous)
    items[index] = replace(item, log=True)
    return Space(tuple(items))


def _notes(names: list[str]) -> list[Note]:
    if not names:
        return []
    listed = ", ".join(repr(name) for name in names)
    message = f"column{'s' * (len(names) > 1)} {listed} taken on a logarithmic scale, as likelier"
    return [Note("log-scale", tuple(names), message, len(names))]
