"""What simulators of undamped waves on the unit square by finite elements share."""

from __future__ import annotations

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.simulator import FieldSimulator, Parameters
from understudy.simulate.undamped import SCHEMES, Scheme


class FiniteElementWave(FieldSimulator):
    """Fields at the nodes inside the unit square, at equal times.

    Parameters
    ----------
    points : int
        Nodes inside along each axis.
    steps, duration
        Fields after the first one, and the time of the last.
    substeps : int
        Time steps of the solver for each of them.
    refinement : int
        The mesh is that many times finer than the points at which fields are given.
    scheme : {"newmark", "central"}
    """

    def __init__(
        self,
        points: int,
        steps: int,
        duration: float,
        substeps: int,
        refinement: int,
        scheme: Scheme,
    ) -> None:
        if scheme not in SCHEMES:
            raise UserError(f"scheme must be 'newmark' or 'central', found {scheme!r}")
        if min(steps, substeps, refinement) < 1 or not duration > 0:
            raise UserError(
                "steps, substeps and refinement must be at least 1 and duration positive"
            )
        self.grid = Grid.of(points, points, placement="interior")
        self.steps, self.duration, self.substeps = steps, duration, substeps
        self.refinement, self.scheme = refinement, scheme

    def times(self, params: Parameters) -> Tensor:  # noqa: D102
        runs = len(self.values(params)["x"])
        t = torch.linspace(0.0, self.duration, self.steps + 1, dtype=torch.float64)
        return t.expand(runs, -1)

    @property
    def _plan(self) -> tuple[float, int, int, Scheme]:
        """Time step, number of them, how many between two outputs, and the scheme."""
        count = self.steps * self.substeps
        return self.duration / count, count, self.substeps, self.scheme

    def _axis(self) -> Tensor:
        """Coordinates ``(N,)`` of all nodes along an axis, the rim included."""
        cells = self.refinement * (self.grid.shape[0] + 1)
        return torch.linspace(0.0, 1.0, cells + 1, dtype=torch.float64)

    def _coarse(self, fields: Tensor) -> Tensor:
        """Values at the points of the grid of values at all nodes."""
        r = self.refinement
        return fields[..., r:-r:r, r:-r:r]
