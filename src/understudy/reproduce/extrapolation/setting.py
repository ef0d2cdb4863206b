"""Sizes, cut-offs and Markov chains by which forecasts of learning curves are measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from understudy.data.learning_curves import EPOCHS as RUN
from understudy.models.incontext.curve_mcmc import MCMCExtrapolator
from understudy.reproduce.claims import Scale

Floats = NDArray[np.float64]

CUTOFFS = (0.1, 0.2, 0.4, 0.8)
"""Shares of a curve that are seen."""

LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Of central intervals."""

M1 = MCMCExtrapolator(walkers=100, burn_in=500, samples=2000)
"""The paper's Markov chains of its speed comparison."""

SHORT = MCMCExtrapolator(walkers=26, burn_in=500, samples=50, thin=10)
"""The chains that are scored here: 500 moves to burn in, 500 from which 50 are kept."""


def moves(chains: MCMCExtrapolator) -> int:
    """How often every walker moves."""
    return chains.burn_in + chains.samples * chains.thin


@dataclass(frozen=True)
class Size:
    """What a scale spends.

    Parameters
    ----------
    seeds, curves : int
        Repetitions, and curves of the prior of each.
    real : int
        Curves of each real set and metric.
    chains, timed : MCMCExtrapolator
        Chains that are scored, and those whose walkers are timed one by one.
    epochs : int
        After which forecasts may stop a run.
    sets, orders : int
        Data sets, and orders of the runs of each.
    """

    seeds: int
    curves: int
    real: int
    chains: MCMCExtrapolator
    timed: MCMCExtrapolator
    epochs: int
    sets: int
    orders: int


_TINY = MCMCExtrapolator(walkers=26, burn_in=10, samples=5, thin=2)
SIZES = {
    Scale.SMOKE: Size(1, 5, 2, _TINY, _TINY, 3, 2, 5),
    Scale.CPU: Size(3, 100, 20, SHORT, M1, RUN, 8, 40),
    Scale.PAPER: Size(3, 1000, 80, replace(M1, samples=200, thin=10), M1, RUN, 8, 40),
}
