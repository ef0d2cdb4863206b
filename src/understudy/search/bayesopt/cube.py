"""The domain on which an acquisition function is maximised: a space as its unit cube.

A point is ``u`` in [0, 1]^d; a choice of k stands at (0, ..., k - 1)/(k - 1), so that every
configuration is one point, and only the coordinates of real numbers are free to move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from understudy.core.search import Config
from understudy.core.space import Categorical, Continuous, Integer, Space
from understudy.search.designs import configs_of

FEW_LEVELS = 12
"""Whole numbers with more levels than these are moved along gradients, and then rounded."""

_SAME = 1e-9  # of the unit cube


@dataclass(frozen=True)
class Moves:
    """Changes of one coordinate each: to a value, or by a step.

    Parameters
    ----------
    coordinate : LongTensor (k,)
    value : Tensor (k,)
        On the unit cube.
    relative : BoolTensor (k,)
        Whether the value is a step.
    """

    coordinate: Tensor
    value: Tensor
    relative: Tensor

    def __len__(self) -> int:
        return len(self.coordinate)

    def __getitem__(self, rows: Tensor) -> Moves:
        return Moves(self.coordinate[rows], self.value[rows], self.relative[rows])

    def of(self, U: Tensor) -> Tensor:
        """Apply each move to each of q points of each of b batches (b, q, d): (b, k q, q, d)."""
        q = U.shape[1]
        point = torch.arange(q).repeat_interleave(len(self))
        coordinate, value = self.coordinate.repeat(q), self.value.repeat(q)
        moved = U.unsqueeze(1).repeat(1, len(point), 1, 1)
        row = torch.arange(len(point))
        here = moved[:, row, point, coordinate]
        to = torch.where(self.relative.repeat(q), here + value, value.expand_as(here))
        moved[:, row, point, coordinate] = to.clamp(0.0, 1.0)
        return moved


@dataclass(frozen=True)
class Cube:
    """The unit cube of a space.

    Parameters
    ----------
    space : Space
    """

    space: Space

    @property
    def dimension(self) -> int:
        """Number of inputs, d."""
        return len(self.space)

    @cached_property
    def levels(self) -> Tensor:
        """Number of values of each discrete input, 0 where it is continuous, (d,)."""
        lower, upper = self.space.bounds
        discrete = torch.tensor([not isinstance(item, Continuous) for item in self.space])
        return torch.where(discrete, upper - lower + 1, 0.0)

    @cached_property
    def free(self) -> Tensor:
        """Coordinates moved along gradients: real numbers, and whole ones of many levels, (d,)."""
        whole = torch.tensor([isinstance(item, Integer) for item in self.space])
        return (self.levels == 0) | (whole & (self.levels > FEW_LEVELS))

    @cached_property
    def smooth(self) -> Tensor:
        """Coordinates that features depend on smoothly: all but choices among many, (d,)."""
        few = [not (isinstance(i, Categorical) and len(i.choices) > 2) for i in self.space]
        return torch.tensor(few)

    @property
    def size(self) -> float:
        """Number of configurations, infinite with a continuous input."""
        return float("inf") if bool((self.levels == 0).any()) else float(self.levels.prod())

    # -- configurations -----------------------------------------------------------------------

    def points(self, configs: Sequence[Config]) -> Tensor:
        """Points of the cube (n, d) of configurations, which may lie beyond the bounds."""
        if not configs:
            return torch.empty(0, self.dimension, dtype=torch.float64)
        table = pd.DataFrame({name: [c[name] for c in configs] for name in self.space.names})
        return self.space.to_unit(torch.from_numpy(self.space.encode(table)))

    def configs(self, U: Tensor) -> list[Config]:
        """Configurations of points (n, d), the discrete ones rounded to the nearest."""
        lower, upper = self.space.bounds
        codes = self.space.from_unit(U.detach().clamp(0.0, 1.0))
        return configs_of(self.space.decode(torch.maximum(torch.minimum(codes, upper), lower)))

    def features(self, U: Tensor) -> Tensor:
        """What a model sees of points (..., d): differentiable, one column a choice."""
        return self.space.features(self.space.from_unit(U))

    # -- rounding -----------------------------------------------------------------------------

    def nearest(self, U: Tensor) -> Tensor:
        """Points (..., d) with discrete coordinates at the nearest value."""
        steps = (self.levels - 1).clamp_min(1.0)
        return torch.where(self.levels > 0, (U * steps).round() / steps, U)

    def floored(self, U: Tensor) -> Tensor:
        """Points (..., d) with discrete coordinates in k equal cells, rounded down."""
        steps = (self.levels - 1).clamp_min(1.0)
        cell = torch.minimum((U * self.levels).floor(), steps)
        return torch.where(self.levels > 0, cell / steps, U)

    # -- points to start from -----------------------------------------------------------------

    def sobol(self, n: int, seed: int) -> Tensor:
        """Scrambled Sobol points (n, d), each discrete value equally likely."""
        engine = torch.quasirandom.SobolEngine(self.dimension, scramble=True, seed=seed)
        return self.floored(engine.draw(n, dtype=torch.float64))

    def around(self, centres: Tensor, n: int, scale: Tensor, rng: np.random.Generator) -> Tensor:
        """Perturb some coordinates of centres (k, d): (n, d).

        About twenty coordinates of each point change, at least one: a Gaussian step where it is
        a number, any value where it is a choice.

        Parameters
        ----------
        centres : Tensor (k, d)
        n : int
        scale : Tensor (d,) or (n, d)
            Deviation of the steps.
        rng : numpy.random.Generator
        """
        d = self.dimension
        base = centres[torch.from_numpy(rng.integers(len(centres), size=n))]
        change = rng.random((n, d)) < min(1.0, 20.0 / d)
        change[np.arange(n), rng.integers(d, size=n)] = True
        step = torch.from_numpy(rng.standard_normal((n, d)))
        moved = _reflected(base + scale * step)
        fresh = self.floored(torch.from_numpy(rng.random((n, d))))
        choice = torch.tensor([isinstance(item, Categorical) for item in self.space])
        few = (self.levels > 0) & (self.levels <= FEW_LEVELS)
        moved = torch.where(choice | few, fresh, moved)
        return self.nearest(torch.where(torch.from_numpy(change), moved, base))

    # -- neighbours ---------------------------------------------------------------------------

    def moves(self, rng: np.random.Generator, most: int = 300) -> Moves:
        """Moves to neighbours: every other choice; whole numbers a step away and a few at random.

        Parameters
        ----------
        rng : numpy.random.Generator
        most : int
            Moves at most; a random part of them where there are more.
        """
        found = [
            (j, value, relative)
            for j, item in enumerate(self.space)
            for value, relative in self._moves_of(item, int(self.levels[j]), rng)
        ]
        chosen = sorted(rng.permutation(len(found))[:most])
        coordinate, value, relative = zip(*(found[i] for i in chosen), strict=True)
        return Moves(
            torch.tensor(coordinate),
            torch.tensor(value, dtype=torch.float64),
            torch.tensor(relative),
        )

    @staticmethod
    def _moves_of(item: object, levels: int, rng: np.random.Generator) -> list[tuple[float, bool]]:
        if levels == 0:
            return []
        if levels <= FEW_LEVELS or isinstance(item, Categorical):
            return [(code / (levels - 1), False) for code in range(levels)]
        step = 1.0 / (levels - 1)
        some = rng.integers(levels, size=3) * step
        return [(step, True), (-step, True), *((float(value), False) for value in some)]

    def everywhere(self) -> Tensor:
        """All points of a finite cube, (n, d)."""
        axes = [torch.arange(int(k), dtype=torch.float64) / (k - 1) for k in self.levels]
        return torch.cartesian_prod(*axes).reshape(-1, self.dimension)

    def new(self, U: Tensor, seen: Tensor) -> Tensor:
        """Which points (n, d) are none of those seen (k, d)."""
        if len(seen) == 0:
            return torch.ones(len(U), dtype=torch.bool)
        return torch.cdist(U, seen, p=float("inf")).amin(1) > _SAME


def _reflected(U: Tensor) -> Tensor:
    """Points folded back into the unit cube at its faces."""
    folded = U.remainder(2.0)
    return torch.minimum(folded, 2.0 - folded)
