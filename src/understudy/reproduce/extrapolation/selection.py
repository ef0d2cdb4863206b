"""Selections of a network: runs in given orders, each until a rule stops it, in one batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from understudy.data.learning_curves import EPOCHS as RUN
from understudy.data.learning_curves import load_learning_curves
from understudy.models.incontext.curve_normaliser import CurveNormaliser
from understudy.models.incontext.lcpfn import LCPFN
from understudy.reproduce.extrapolation.setting import Floats, Size
from understudy.search.early_stopping import COARSE, PredictiveStopper

PATIENCE = (0, 1, 5, 10, 20, 50)
"""Epochs without a better value that the rules wait for."""

BUDGET = 20
"""Whole runs that a selection may cost."""


@dataclass(frozen=True)
class Selection:
    """Regret of a method, averaged over orders of the runs.

    Parameters
    ----------
    regret : array (budget,)
        Gap to the best accuracy of any run, after so many epochs.
    """

    regret: Floats

    def speed_up(self, method: Selection) -> float:
        """How many times sooner the method reaches what this one has at last.

        Below 1, where it does not: the share of this one's time in which this one reached what the
        method has at last.
        """
        if method.regret[-1] <= self.regret[-1]:
            return _first(self.regret, self.regret[-1]) / _first(method.regret, self.regret[-1])
        return _first(self.regret, method.regret[-1]) / _first(self.regret, self.regret[-1])


def _first(regret: Floats, level: float) -> int:
    return int((regret <= level + 1e-12).argmax()) + 1


def selections_on(network: LCPFN, name: str, size: Size, seed: int) -> dict[str, Selection]:
    """Regret of each method on one data set.

    Methods are ``"no stop"``, ``"fine"`` and ``"coarse"``, which stop by forecasts after every
    epoch or after a few, and ``"patience k"``.
    """
    curves = load_learning_curves(name).accuracy
    limits = forecast_limits(network, curves, min(size.epochs, RUN - 1))
    coarse = np.full_like(limits, np.inf)
    for share in COARSE:
        coarse[:, math.ceil(share * RUN) - 1] = limits[:, math.ceil(share * RUN) - 1]
    rng = np.random.default_rng(seed)
    orders = np.stack([rng.permutation(len(curves)) for _ in range(size.orders)])
    never = np.full_like(limits, np.inf)
    selections = {
        "no stop": select(curves, never, orders),
        "fine": select(curves, limits, orders),
        "coarse": select(curves, coarse, orders),
    }
    for k in PATIENCE:
        selections[f"patience {k}"] = select(curves, patience_limits(curves, k), orders)
    return selections


def area_ratio(found: Sequence[Mapping[str, Selection]], method: str) -> float:
    """Regret summed over the budget as a share of no stop's, geometric mean over sets."""
    ratios = [f[method].regret.sum() / f["no stop"].regret.sum() for f in found]
    return float(np.exp(np.log(ratios).mean()))


def forecast_limits(network: LCPFN, curves: Floats, epochs: int) -> Floats:
    r"""Value at or above which the best so far stops a run after each epoch.

    The rule of `PredictiveStopper`, :math:`P(y_{t'} > y_{best}) \le \delta` for all t', is that the
    best so far is at least the largest :math:`1 - \delta` quantile of what is to come.

    Parameters
    ----------
    network : LCPFN
    curves : array (n, 50)
        Accuracies.
    epochs : int
        After which the rule decides, from the first on.

    Returns
    -------
    array (n, 50)
        Infinite after the other epochs.
    """
    normaliser = CurveNormaliser()
    g = normaliser(torch.from_numpy(curves)).float()
    level = torch.tensor([1.0 - PredictiveStopper(RUN, network).delta])
    limits = np.full(curves.shape, np.inf)
    for T in range(1, epochs + 1):
        bars = network.predict(g[:, :T], torch.arange(T + 1, RUN + 1))
        highest = bars.quantile(level)[0].amax(1).double()
        limits[:, T - 1] = normaliser.inverse(highest).numpy()
    return limits


def patience_limits(curves: Floats, patience: int) -> Floats:
    """The same for `Patience`: whatever the best so far, a run without a better one is stopped."""
    best_at = np.maximum.accumulate(
        np.where(curves > _before(curves), np.arange(curves.shape[1]), 0), axis=1
    )
    waited = np.arange(curves.shape[1]) - best_at
    return np.where(waited > patience, -np.inf, np.inf)


def _before(curves: Floats) -> Floats:
    """Best value before each epoch."""
    best = np.maximum.accumulate(curves, axis=1)
    return np.hstack([np.full((len(curves), 1), -np.inf), best[:, :-1]])


def select(curves: Floats, limits: Floats, orders: NDArray[np.int_]) -> Selection:
    """Train runs in given orders, each until its rule stops it or its last epoch.

    Parameters
    ----------
    curves, limits : array (n, epochs)
        Values, and the best so far that stops a run after each epoch.
    orders : array of int (k, n)

    Returns
    -------
    Selection
        Over a budget of 20 whole runs.
    """
    k, m = len(orders), curves.shape[1]
    budget = BUDGET * m
    spent = np.zeros(k, dtype=np.int64)
    best = np.full(k, -np.inf)
    reached = np.full((k, budget + m), -np.inf)
    last = np.arange(m) == m - 1
    for runs in orders.T:
        so_far = np.maximum(best[:, None], np.maximum.accumulate(curves[runs], axis=1))
        stop = ((so_far >= limits[runs]) | last).argmax(1)
        at = spent[:, None] + np.arange(m)
        used = (np.arange(m) <= stop[:, None]) & (at < budget)
        rows, columns = np.nonzero(used)
        reached[rows, at[rows, columns]] = so_far[rows, columns]
        going = spent < budget
        best = np.where(going, so_far[np.arange(k), stop], best)
        spent = np.where(going, spent + stop + 1, spent)
    regret = curves.max() - np.maximum.accumulate(reached[:, :budget], axis=1)
    return Selection(regret.mean(0))
