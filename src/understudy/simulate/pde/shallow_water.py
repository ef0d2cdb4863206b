r"""Shallow water after a round dam breaks.

.. math:: \partial_t \begin{pmatrix} h \\ hu \\ hv \end{pmatrix}
    + \partial_x \begin{pmatrix} hu \\ hu^2 + gh^2/2 \\ huv \end{pmatrix}
    + \partial_y \begin{pmatrix} hv \\ huv \\ hv^2 + gh^2/2 \end{pmatrix} = 0

on the square :math:`(-5/2, 5/2)^2`, whose edges let waves out, over a flat bed, by finite volumes
of second order. The dam is PDEBench's (Takamoto et al. 2022, arXiv 2210.07182): 2 deep within a
radius U(0.3, 0.7), 1 outside, g = 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.space import Continuous, Space
from understudy.simulate.pde.checks import require_positive
from understudy.simulate.pde.finite_volume import COURANT, FiniteVolumeSimulator


class ShallowWater(FiniteVolumeSimulator):
    """Depth and velocities.

    Parameters
    ----------
    points, steps, duration
        128 along each axis, 100 outputs after the first and 1 in PDEBench.
    gravity : float
    """

    channels = ("h", "vx", "vy")
    space = Space((Continuous("radius", 0.3, 0.7), Continuous("depth_inside", 1.5, 2.5)))

    def __init__(
        self, points: int = 64, steps: int = 100, duration: float = 1.0, gravity: float = 1.0
    ) -> None:
        if not gravity > 0:
            raise UserError(f"gravity must be positive, found {gravity:g}")
        grid = Grid.of(points, points, lower=-2.5, upper=2.5, placement="cells")
        super().__init__(grid, steps, duration)
        self.gravity = gravity

    def _check(self, values: dict[str, Tensor]) -> None:
        require_positive(values, "radius", "depth_inside")

    def _draw(self, values: dict[str, Tensor]) -> Tensor:
        x, y = self.grid.axes()
        radius, depth = (values[n].reshape(-1, 1, 1) for n in ("radius", "depth_inside"))
        h = torch.where(x[:, None] ** 2 + y**2 <= radius**2, depth, 1.0)
        return torch.stack([h, torch.zeros_like(h), torch.zeros_like(h)], dim=1)

    def _conserved(self, field: Tensor) -> Tensor:
        return torch.cat([field[:, :1], field[:, :1] * field[:, 1:]], dim=1)

    def _primitive(self, w: Tensor) -> Tensor:
        return torch.cat([w[:, :1], w[:, 1:] / w[:, :1]], dim=1)

    def _step(self, w: Tensor, values: dict[str, Tensor]) -> Tensor:
        speed = (w[:, 1:].abs() / w[:, :1]).amax(1) + (self.gravity * w[:, 0]).sqrt()
        return COURANT * self.grid.spacing[0] / speed.amax((1, 2))

    def _rate(self, w: Tensor, values: dict[str, Tensor]) -> Tensor:
        swapped = [0, 2, 1]  # momentum across faces comes first
        along_y = self._sweep(_continued(w[:, swapped]))[:, swapped]
        return self._sweep(_continued(w.mT)).mT + along_y

    def _waves(self, w: Tensor) -> tuple[Tensor, Tensor]:
        return w[:, 1:2] / w[:, :1], (self.gravity * w[:, :1]).sqrt()

    def _physical(self, w: Tensor, u: Tensor) -> Tensor:
        pressure = self.gravity * w[:, :1] ** 2 / 2
        return torch.cat([w[:, 1:2], w[:, 1:2] * u + pressure, w[:, 2:] * u], dim=1)


def _continued(w: Tensor) -> Tensor:
    """Two more cells at both ends, as those at the edge."""
    return torch.nn.functional.pad(w, (2, 2, 0, 0), mode="replicate")
