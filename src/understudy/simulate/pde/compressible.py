r"""Compressible flow of a viscous gas in one dimension.

.. math:: \partial_t \begin{pmatrix} \rho \\ \rho u \\ E \end{pmatrix}
    + \partial_x \begin{pmatrix} \rho u \\ \rho u^2 + p - \tau \\ (E + p - \tau)\, u \end{pmatrix}
    = 0, \qquad E = \frac{p}{\Gamma - 1} + \frac{\rho u^2}{2}, \qquad
    \tau = \left(\tfrac43 \eta + \zeta\right) u_x

with :math:`\Gamma = 5/3` and equal viscosities :math:`\eta = \zeta` on the unit interval, periodic,
by finite volumes of second order; :math:`\tau` is a central difference at faces. No heat is
conducted. The equations are those of PDEBench (Takamoto et al. 2022, arXiv 2210.07182); its random
fields are known to us in outline only: here density and pressure are :math:`1 + s/4` and velocity
is s, each with an s of two sines of amplitude U(0, 1), 1 to 4 waves and any phase.
"""

from __future__ import annotations

import torch
from torch import Tensor

from understudy.core.grid import Grid
from understudy.core.space import Continuous, Space
from understudy.simulate.pde.checks import require_positive
from understudy.simulate.pde.draws import uniform
from understudy.simulate.pde.finite_volume import COURANT, FiniteVolumeSimulator
from understudy.simulate.pde.random_fields import Sines
from understudy.simulate.pde.semilinear import SEED

GAMMA = 5.0 / 3.0
_STRESS = 4.0 / 3.0 + 1.0  # of equal viscosities


class CompressibleFlow(FiniteVolumeSimulator):
    """Density, velocity and pressure of a gas.

    Parameters
    ----------
    points, steps, duration
        1024 cells, 100 outputs after the first and 1 in PDEBench.
    """

    channels = ("density", "vx", "pressure")
    space = Space((Continuous("viscosity", 1e-8, 0.1, log=True), SEED))

    def __init__(self, points: int = 128, steps: int = 100, duration: float = 1.0) -> None:
        super().__init__(Grid.of(points), steps, duration)

    def _check(self, values: dict[str, Tensor]) -> None:
        require_positive(values, "viscosity")

    def _draw(self, values: dict[str, Tensor]) -> Tensor:
        x = self.grid.axes()[0]
        seeds = uniform(values["seed"], 9, torch.arange(3)) * 2.0**40  # one for each field
        density, u, pressure = (
            Sines.draw(seed, 2, (0.0, 1.0), (1, 4)).at(x) for seed in seeds.unbind(1)
        )
        return torch.stack([1.0 + density / 4, u, 1.0 + pressure / 4], dim=1)

    def _conserved(self, field: Tensor) -> Tensor:
        density, u, pressure = field.unbind(1)
        energy = pressure / (GAMMA - 1.0) + density * u**2 / 2
        return torch.stack([density, density * u, energy], dim=1)

    def _primitive(self, w: Tensor) -> Tensor:
        u = w[:, 1:2] / w[:, :1]
        return torch.cat([w[:, :1], u, _pressure(w, u)], dim=1)

    def _step(self, w: Tensor, values: dict[str, Tensor]) -> Tensor:
        u, c = self._waves(w)
        h = self.grid.spacing[0]
        stress = _STRESS * values["viscosity"].detach() / w[:, 0].amin(1)
        return COURANT / ((u.abs() + c).amax((1, 2)) / h + 2.0 * stress / h**2)

    def _rate(self, w: Tensor, values: dict[str, Tensor]) -> Tensor:
        wide = torch.cat([w[..., -2:], w, w[..., :2]], dim=-1)
        u = (wide[:, 1] / wide[:, 0])[:, 1:-1]
        h = self.grid.spacing[0]
        stress = _STRESS * values["viscosity"][:, None] * u.diff(dim=-1) / h
        work = stress * (u[:, 1:] + u[:, :-1]) / 2
        viscous = torch.stack([torch.zeros_like(stress), stress, work], dim=1)
        return self._sweep(wide) + viscous.diff(dim=-1) / h

    def _waves(self, w: Tensor) -> tuple[Tensor, Tensor]:
        u = w[:, 1:2] / w[:, :1]
        return u, (GAMMA * _pressure(w, u) / w[:, :1]).sqrt()

    def _physical(self, w: Tensor, u: Tensor) -> Tensor:
        pressure = _pressure(w, u)
        energy = (w[:, 2:] + pressure) * u
        return torch.cat([w[:, 1:2], w[:, 1:2] * u + pressure, energy], dim=1)


def _pressure(w: Tensor, u: Tensor) -> Tensor:
    return (GAMMA - 1.0) * (w[:, 2:] - w[:, 1:2] * u / 2)
