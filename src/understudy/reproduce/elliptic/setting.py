"""Sizes, and pairs of coefficients and solutions of Darcy's and Helmholtz' equations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from understudy.core.grid import Grid
from understudy.core.simulator import FieldSimulator
from understudy.reproduce.claims import Scale
from understudy.simulate.pde.darcy import Darcy, Medium

_TEST_SEED = 1_000_000_000
"""First of the test pairs, apart from all that is trained on."""


@dataclass(frozen=True)
class Size:
    """What a scale spends: points along a side, pairs, steps of MgNO; and how large it is.

    `short` are its steps where a difference shows early.
    """

    points: int
    train: int
    test: int
    steps: int
    short: int
    seeds: int
    width: int
    depth: int
    levels: int
    modes: int
    frequency: float
    helmholtz_width: int
    helmholtz_depth: int
    batch_size: int = 4
    device: str = "cpu"


SIZES = {
    Scale.SMOKE: Size(16, 16, 8, 4, 4, 1, 4, 2, 3, 4, 200.0, 2, 1),
    Scale.CPU: Size(32, 200, 100, 600, 200, 3, 16, 3, 4, 12, 450.0, 6, 2),
    Scale.PAPER: Size(256, 1000, 100, 62_500, 62_500, 3, 24, 4, 6, 12, 1000.0, 20, 4, 8, "cuda"),
}


@dataclass(frozen=True)
class Pairs:
    """Coefficients x and solutions y, ``(N, 1, n, n)``, for training and for tests."""

    grid: Grid
    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


def darcy_pairs(size: Size, medium: Medium, seeds: Sequence[int]) -> dict[int, Pairs]:
    """Pairs of Darcy's flow in a medium, of each seed."""
    simulator = Darcy(size.points, medium)
    return {seed: pairs_of(simulator, "coefficient", size, seed) for seed in seeds}


def pairs_of(simulator: FieldSimulator, given: str, size: Size, seed: int) -> Pairs:
    """Training pairs of a seed; the test pairs are the same for all.

    Parameters
    ----------
    simulator : FieldSimulator
        Whose only parameter is a seed.
    given : str
        The input which is the coefficient.
    size : Size
    seed : int
    """
    first = (seed + 1) * 100_000
    x, y = _solved(simulator, given, range(first, first + size.train))
    test_x, test_y = _solved(simulator, given, range(_TEST_SEED, _TEST_SEED + size.test))
    return Pairs(simulator.grid, x, y, test_x, test_y)


def _solved(simulator: FieldSimulator, given: str, seeds: range) -> tuple[Tensor, Tensor]:
    x, y = [], []
    for start in range(0, len(seeds), 100):
        runs = pd.DataFrame({"seed": seeds[start : start + 100]})
        x.append(simulator.inputs(runs)[given].unsqueeze(1).float())
        y.append(simulator.fields(runs)[:, 0])
    return torch.cat(x), torch.cat(y)
