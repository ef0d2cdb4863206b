r"""Outcomes as a surrogate learns them: large is good, mean 0, variance 1.

.. math:: z = \varsigma\, (g(y) - a) / b, \qquad \varsigma = \pm 1,

with an increasing transform g of the outcome. So a bound on y is one on z.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.core.search import Problem
from understudy.core.warp import Identity, Warp


@dataclass(frozen=True)
class Scale:
    """How one outcome is learnt.

    Parameters
    ----------
    sign : float
        1 where large is good, -1 where small is.
    warp : Warp
        g.
    shift, spread : float
        a and b > 0.
    """

    sign: float
    warp: Warp
    shift: float
    spread: float

    @classmethod
    def fitted(cls, y: Tensor, sign: float, warp: Warp | None = None) -> Scale:
        """Return the scale on which outcomes y (n,) have mean 0 and variance 1."""
        warp = Identity() if warp is None else warp
        values = warp.forward(y)
        spread = float(values.std(correction=0))
        tiny = 1e-12 * max(1.0, float(values.abs().max()))
        return cls(sign, warp, float(values.mean()), spread if spread > tiny else 1.0)

    def learnt(self, y: Tensor) -> Tensor:
        """Return z of outcomes y, elementwise."""
        return self.sign * (self.warp.forward(y) - self.shift) / self.spread

    def bounds(self, lower: float, upper: float) -> tuple[float, float]:
        """Interval of z in which y lies between bounds, one of which may be infinite."""
        ends = [
            float(self.learnt(torch.tensor(end, dtype=torch.float64)))
            if math.isfinite(end)
            else self.sign * end
            for end in (lower, upper)
        ]
        return min(ends), max(ends)


@dataclass(frozen=True)
class Interval:
    """One output of a model and the bounds it has to lie between.

    Parameters
    ----------
    output : int
    lower, upper : float
        One may be infinite.
    """

    output: int
    lower: float
    upper: float

    def excess(self, samples: Tensor) -> list[Tensor]:
        """How far samples (..., m) lie beyond each finite bound, (...); negative inside."""
        z = samples[..., self.output]
        ends = []
        if math.isfinite(self.lower):
            ends.append(self.lower - z)
        if math.isfinite(self.upper):
            ends.append(z - self.upper)
        return ends

    @property
    def callables(self) -> list[Callable[[Tensor], Tensor]]:
        """The same as functions of samples, one a finite bound, as BoTorch takes constraints."""
        count = math.isfinite(self.lower) + math.isfinite(self.upper)
        return [lambda samples, i=i: self.excess(samples)[i] for i in range(count)]  # type: ignore[misc]


def signs(problem: Problem) -> list[float]:
    """Sign of each outcome of a problem; 1 for one that is only constrained."""
    known = {objective.name: objective.sign for objective in problem.objectives}
    return [known.get(name, 1.0) for name in problem.outcomes]


def intervals(problem: Problem, scales: list[Scale]) -> list[Interval]:
    """Constraints of a problem on the learnt scale."""
    at = {name: i for i, name in enumerate(problem.outcomes)}
    return [
        Interval(at[c.name], *scales[at[c.name]].bounds(c.lower, c.upper))
        for c in problem.constraints
    ]
