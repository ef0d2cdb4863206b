"""Sizes, and runs of waves in squares of random speed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.reproduce.claims import Scale
from understudy.simulate.pde.named import draw_parameters
from understudy.simulate.pde.wave import Wave

STATE = 3
"""Channels: displacement, velocity and the speed of the medium."""

_FIRST_SEED = 1000
"""Of the training runs of seed 0; learning rates were chosen on runs of smaller ones."""

_TEST_SEED = 1_000_000
"""Of the test runs of all seeds."""


@dataclass(frozen=True)
class Size:
    """What a scale spends.

    `train`, `held`, `test` and `few` are runs, `frames` the fields after the first of each,
    `rolled` the steps of a rollout; `timed` has channels, points a side, fields at a time and
    rounds.
    """

    points: int
    frames: int
    train: int
    held: int
    test: int
    few: int
    channels: int
    blocks: int
    steps: int
    seeds: int
    rolled: int
    timed: tuple[int, int, int, int]
    widths: tuple[float, float] = (0.05, 0.1)
    kernel: int = 5
    batch_size: int = 8
    device: str = "cpu"


SIZES = {
    Scale.SMOKE: Size(15, 6, 8, 4, 4, 4, 8, 1, 4, 1, 3, (8, 16, 2, 1)),
    Scale.CPU: Size(31, 16, 200, 40, 60, 30, 16, 3, 600, 3, 10, (32, 32, 8, 12)),
    Scale.PAPER: Size(
        *(255, 16, 1000, 100, 100, 100, 64, 3, 50_000, 3, 10, (64, 256, 16, 20)),
        widths=(0.03, 0.08),
        kernel=7,
        batch_size=16,
        device="cuda",
    ),
}


@dataclass(frozen=True)
class Runs:
    """Runs of a seed.

    Parameters
    ----------
    train, held, test : Tensor (N, T + 1, 3, n, n)
        Runs to train on, to choose by, and to score by; the last are the same for all seeds.
    simulator : Wave
    """

    train: Tensor
    held: Tensor
    test: Tensor
    simulator: Wave


def simulated(size: Size, seed: int) -> Runs:
    """Simulate the runs of a seed."""
    simulator = Wave(points=size.points, steps=size.frames, medium="random")

    def fields(count: int, first: int) -> Tensor:
        table = draw_parameters(simulator, count, first, {"width": size.widths})
        parts = [simulator.fields(table.iloc[i : i + 20]) for i in range(0, count, 20)]
        return torch.cat(parts)

    return Runs(
        train=fields(size.train, _FIRST_SEED + 2 * seed),
        held=fields(size.held, _FIRST_SEED + 2 * seed + 1),
        test=fields(size.test, _TEST_SEED),
        simulator=simulator,
    )


def zero_fields(size: Size, batch: int) -> Tensor:
    """So many fields ``(B, 3, n, n)`` of the size that networks are trained on."""
    return torch.zeros(batch, STATE, size.points, size.points)
