"""Systems, trajectories and sizes by which forecasts of equations are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from understudy.core.expressions import ExpressionList
from understudy.data.trajectories import TrajectorySet
from understudy.models.operators.prose_training import add_noise
from understudy.reproduce.claims import Scale
from understudy.simulate.ode_families import (
    CHEN_LEE,
    FAMILIES,
    LORENZ,
    ROESSLER,
    SPROTT_B,
    THOMAS,
    ODEFamily,
    sample_families,
    times,
)

REDUCED = (THOMAS, LORENZ, CHEN_LEE, ROESSLER, SPROTT_B)
"""Systems of the scales below the paper's."""

IDENTIFIED = (LORENZ, CHEN_LEE, ROESSLER)
"""Whose parameters a trajectory tells well."""

UNSEEN = ODEFamily(
    "lorenz with u_0**2",
    "sigma * (u_1 - u_0) | u_0 * (rho - u_2) - u_1 | u_0 * u_1 - beta * u_2 + e * u_0 * u_0",
    {"sigma": 10.0, "rho": 28.0, "beta": 8.0 / 3.0, "e": 0.1},
)
"""A combination that no training has."""


@dataclass(frozen=True)
class Size:
    """What a scale spends.

    Parameters
    ----------
    families : tuple of ODEFamily
    train, test, points : int
        Trajectories, and times of each.
    given : (int, int)
        Points of the longer and of the shorter input.
    steps, batch_size, warmup, learning_rate, query_points
        Of the training of every transformer.
    width, heads, layers
        Of the transformers; layers are of encoders of data and symbols, fusion, decoders.
    seeds : int
    optimizer, start
        Of the training of every transformer.
    rival_optimizer, rival_rate
        Of the training of every DeepONet.
    rival_steps : int
        Steps of a DeepONet that take about as long as one of the transformer with symbols.
    long_rivals : int
        Seeds that have a DeepONet of so many steps; each costs as much as a transformer.
    """

    families: tuple[ODEFamily, ...]
    train: int
    test: int
    points: int
    given: tuple[int, int]
    steps: int
    batch_size: int
    warmup: int
    learning_rate: float
    query_points: int | None
    width: int
    heads: int
    layers: tuple[int, int, int, int, int]
    seeds: int
    max_tokens: int = 64
    decay: Literal["inverse-sqrt", "cosine"] = "cosine"
    optimizer: Literal["adam", "soap"] = "soap"
    start: Literal["paper", "ordered"] = "ordered"
    rival_optimizer: Literal["adam", "soap"] = "soap"
    rival_rate: float = 4e-3
    rival_steps: int = 6
    long_rivals: int = 1
    device: str = "cpu"
    workers: int = 1


SIZES = {
    Scale.SMOKE: Size(
        REDUCED, 60, 20, 24, (8, 2), 4, 8, 1, 1e-3, 4, 16, 2,
        (1, 1, 1, 1, 1), 1, rival_steps=2,
    ),
    Scale.CPU: Size(
        REDUCED, 8000, 250, 96, (32, 8), 900, 32, 100, 4e-3, 16, 64, 4, (1, 1, 2, 2, 2), 2,
        workers=2,
    ),
    Scale.PAPER: Size(
        tuple(FAMILIES.values()), 512_000, 25_600, 192, (64, 16), 160_000, 512, 20_000, 1e-4, None,
        512, 8, (2, 4, 8, 8, 8), 3, 150, "inverse-sqrt", "adam", "paper",
        rival_optimizer="adam", rival_rate=1e-3, rival_steps=20, long_rivals=3, device="cuda",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """Trajectories at the times of training and halfway between them, and inputs with noise."""

    at: TrajectorySet
    between: TrajectorySet

    def inputs(self, given: int, noise: float = 0.02) -> Tensor:
        """The first points, with noise that is the same at every call, but for its size."""
        u = self.at.u[:, :given]
        return add_noise(u, self.at.mask, noise, torch.Generator().manual_seed(99))

    @cached_property
    def equations(self) -> list[ExpressionList]:
        """The true ones."""
        return [self.at.equation(i) for i in range(len(self.at))]


Forecast = Callable[[Task], Tensor]
"""Solutions (N, q, d) at the times after the input."""


def _cell(unit: Tensor) -> Tensor:
    return (5.0 * unit).long().clamp_max(4).sum(1) % 5


def held_out(unit: Tensor) -> Tensor:
    """Every fifth cell of the box of parameters, the lowest corner among them."""
    return _cell(unit) == 0


def seen(unit: Tensor) -> Tensor:
    """The other cells, of which the training is."""
    return _cell(unit) != 0


def beyond(unit: Tensor) -> Tensor:
    """In a box of twice the size, places outside of the inner one."""
    return (2.0 * unit - 1.0).abs().amax(1) > 0.5


def sampled_test(
    size: Size,
    families: Sequence[ODEFamily],
    count: int,
    accept: Callable[[Tensor], Tensor] | None = None,
    spread: float = 0.1,
) -> Task:
    """Draw trajectories to be forecast; see :func:`sample_families`."""
    fine = times(points=2 * size.points - 1)
    data = sample_families(families, count, 1_000_003, t=fine, accept=accept, spread=spread)
    widest = max(family.dim for family in size.families)
    u = nn.functional.pad(data.u, (0, widest - data.u.shape[2]))
    sets = [
        TrajectorySet(t, u[:, rows], data.skeletons, data.which, data.numbers)
        for t, rows in ((fine[::2], slice(0, None, 2)), (fine, slice(None)))
    ]
    return Task(*sets)


def name_of(size: Size, tree: ExpressionList) -> str:
    """Name of the system that has a tree."""
    return next(family.name for family in size.families if family.skeleton == tree)


def by_tree(test: Task) -> list[tuple[ExpressionList, Tensor]]:
    """Trees and the numbers of their trajectories."""
    rows = [(test.at.which == k).nonzero().squeeze(1) for k in range(len(test.at.skeletons))]
    return [(k, r) for k, r in zip(test.at.skeletons, rows, strict=True) if len(r)]
