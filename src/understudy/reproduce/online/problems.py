r"""Solvers on which online training is measured, beside those of `understudy.simulate.pde`.

:class:`Lorenz` is the system

.. math:: x' = \sigma(y - x), \qquad y' = x(\rho - z) - y, \qquad z' = xy - \beta z

from (1, 1, 1), which settles for small :math:`\rho` and swings ever more sharply for large.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from understudy.core.space import Continuous, Space
from understudy.simulate.stream import StreamingSolver

_SUBSTEPS = 5


class Lorenz:
    """Trajectories of the Lorenz system, by Runge-Kutta of order 4, in float64.

    Parameters
    ----------
    steps : int
        Outputs after the first.
    duration : float
    """

    def __init__(self, steps: int = 60, duration: float = 3.0) -> None:
        self.steps, self.duration = steps, duration
        self.space = Space(
            (
                Continuous("sigma", 5.0, 15.0),
                Continuous("rho", 1.0, 30.0),
                Continuous("beta", 1.0, 4.0),
            )
        )

    def stream(self, params: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Times ``(B,)`` and states ``(B, 3)`` of codes ``(B, 3)``."""
        state = torch.ones(len(params), 3, dtype=torch.float64)
        h = self.duration / (self.steps * _SUBSTEPS)
        for step in range(self.steps + 1):
            at = torch.full((len(params),), step * self.duration / self.steps, dtype=torch.float64)
            yield at, state
            for _ in range(_SUBSTEPS):
                state = self._advance(state, params, h)

    def _advance(self, state: Tensor, params: Tensor, h: float) -> Tensor:
        k1 = _slope(state, params)
        k2 = _slope(state + h / 2 * k1, params)
        k3 = _slope(state + h / 2 * k2, params)
        k4 = _slope(state + h * k3, params)
        return state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def _slope(state: Tensor, params: Tensor) -> Tensor:
    x, y, z = state.unbind(-1)
    sigma, rho, beta = params.unbind(-1)
    return torch.stack([sigma * (y - x), x * (rho - z) - y, x * y - beta * z], dim=-1)


@dataclass(frozen=True)
class Paced:
    """A solver that is slower than it is: it sleeps before every time step.

    Parameters
    ----------
    solver : StreamingSolver
    seconds : float
    """

    solver: Any
    seconds: float

    @property
    def space(self) -> Space:
        """That of the solver."""
        solver: StreamingSolver = self.solver
        return solver.space

    def stream(self, params: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Times and fields of the solver."""
        for found in self.solver.stream(params):
            time.sleep(self.seconds)
            yield found
