"""Parameters of the next runs: Monte Carlo, Halton, Latin hypercube (arXiv 2306.16133).

Point number i depends on the seed and on i only, so that a study goes on after an interruption
with the points that it would have had.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.space import Continuous, Space


class ParameterSampler(ABC):
    """Source of the parameters of runs, without an end.

    Parameters
    ----------
    space : Space
    seed : int
    """

    def __init__(self, space: Space, seed: int = 0) -> None:
        self.space, self.seed, self.drawn = space, seed, 0

    def draw(self, count: int) -> Tensor:
        """Codes ``(count, d)``, float64, of the next points."""
        unit = self._points(self.drawn, count)
        self.drawn += count
        return self._codes(unit)

    def observe(self, runs: Tensor, codes: Tensor, losses: Tensor) -> None:
        """Hear of a batch: numbers of runs ``(B,)``, their codes ``(B, d)``, losses ``(B,)``."""
        return

    def finished(self, run: int) -> None:
        """Hear that a run has sent all of its steps."""
        return

    def state_dict(self) -> dict[str, Any]:
        """What a sampler of the same settings needs to go on; JSON."""
        return {"kind": type(self).__name__, "seed": self.seed, "drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        if state["kind"] != type(self).__name__ or state["seed"] != self.seed:
            raise UserError(
                f"the state is of a {state['kind']} with seed {state['seed']}, not of a "
                f"{type(self).__name__} with seed {self.seed}"
            )
        self.drawn = state["drawn"]

    @abstractmethod
    def _points(self, start: int, count: int) -> NDArray[np.float64]:
        """Points ``(count, d)`` of the unit cube, from number ``start`` on."""

    def _codes(self, unit: NDArray[np.float64]) -> Tensor:
        """Codes of points of the unit cube; whole numbers and choices are equally likely."""
        codes = self.space.from_unit(torch.from_numpy(unit)).numpy()
        lower, upper = self.space.bounds.numpy()
        for j, item in enumerate(self.space.inputs):
            if not isinstance(item, Continuous):
                codes[:, j] = lower[j] + np.floor(unit[:, j] * (upper[j] - lower[j] + 1))
        return torch.from_numpy(np.clip(codes, lower, upper))


class UniformSampler(ParameterSampler):
    """Independent uniform draws."""

    def _points(self, start: int, count: int) -> NDArray[np.float64]:
        d = len(self.space)
        rows = [
            np.random.default_rng([self.seed, i]).random(d) for i in range(start, start + count)
        ]
        return np.stack(rows)


class HaltonSampler(ParameterSampler):
    """Scrambled Halton sequence: any number of first points fills the space evenly."""

    def _points(self, start: int, count: int) -> NDArray[np.float64]:
        from scipy.stats import qmc  # slow to load, and no worker needs it

        sequence = qmc.Halton(len(self.space), scramble=True, seed=self.seed)
        return sequence.fast_forward(start).random(count)


class LatinHypercubeSampler(ParameterSampler):
    """Latin hypercubes one after the other.

    Parameters
    ----------
    space : Space
    size : int
        Points of a hypercube; the number of runs that are planned.
    seed : int
    """

    def __init__(self, space: Space, size: int, seed: int = 0) -> None:
        super().__init__(space, seed)
        if size < 1:
            raise UserError(f"size must be at least 1, found {size}")
        self.size = size

    def _points(self, start: int, count: int) -> NDArray[np.float64]:
        first, last = start // self.size, (start + count - 1) // self.size
        cubes = np.concatenate([self._cube(number) for number in range(first, last + 1)])
        return cubes[start - first * self.size :][:count]

    def _cube(self, number: int) -> NDArray[np.float64]:
        from scipy.stats import qmc

        rng = np.random.default_rng([self.seed, number])
        return qmc.LatinHypercube(len(self.space), seed=rng).random(self.size)
