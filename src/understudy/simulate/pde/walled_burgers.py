r"""Burgers' equation between walls.

.. math:: u_t + u u_x = \nu u_{xx} \text{ on } (-1, 1), \qquad u(\pm 1, t) = 0

First fields are Gaussian, :math:`N(0, 25^{2 \alpha} (-\Delta + 25 I)^{-2\alpha})` on an interval
of unit length, by sines of half waves; with :math:`\alpha = 2` they are smooth, with 1 rough.
Their odd continuation has period 4 and stays odd, so that the periodic equation solves this one.
With :math:`\nu = 0.1/\pi` it is the problem of DGNO (Zang & Koutsourelakis 2025, arXiv 2502.06250),
whose law of first fields is not known to us.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from understudy.core.grid import Grid
from understudy.core.space import Continuous, Space
from understudy.simulate.pde.checks import require_positive
from understudy.simulate.pde.conservation import ConservationLaw
from understudy.simulate.pde.draws import normal
from understudy.simulate.pde.semilinear import SEED

_MODES = 64
_STREAM = 13
_FASTEST = 6.0  # of first fields, seven deviations


class WalledBurgers(ConservationLaw):
    """Waves that steepen between walls, spectrally.

    Parameters
    ----------
    points : int
        Cells; 128 as in the paper.
    steps, duration
        Outputs after the first, and the time of the last.
    alpha : float
        Smoothness of first fields.
    refinement : int
        Of the grid of the computation; with 1 the error is some 2e-6 where the viscosity is 0.1/pi.
    """

    space = Space((Continuous("viscosity", 0.005, 1.0, log=True), SEED))

    def __init__(
        self,
        points: int = 128,
        steps: int = 1,
        duration: float = 1.0,
        alpha: float = 2.0,
        refinement: int = 1,
    ) -> None:
        both = Grid.of(2 * points, upper=4.0)
        super().__init__(both, steps, refinement, duration, _FASTEST, None, "spectral")
        self.grid = Grid.of(points, lower=-1.0, upper=1.0, placement="cells")
        self.alpha = alpha

    def _check(self, values: dict[str, Tensor]) -> None:
        require_positive(values, "viscosity")

    def _coefficients(self, values: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        beta = values["viscosity"].reshape(-1, 1, 1)
        return torch.full_like(beta, 0.5), beta, torch.zeros_like(beta)

    def _draw(self, values: dict[str, Tensor]) -> Tensor:
        k = torch.arange(1, _MODES + 1)
        q = math.pi * k.to(torch.float64)
        size = math.sqrt(2.0) * (25.0 / (q**2 + 25.0)) ** self.alpha
        amplitude = size * normal(values["seed"], _STREAM, k)
        # distance from the left wall in units of the interval; the first point is a centre
        along = 0.5 * (self.fine.axes()[0] + 0.5 * self.grid.spacing[0])
        return (amplitude @ torch.sin(q[:, None] * along)).unsqueeze(1)

    def _sampled(self, field: Tensor) -> Tensor:
        return field[..., :: self.refinement][..., : self.grid.shape[0]]

    def _refined(self, field: Tensor) -> Tensor:
        modes = torch.fft.rfft(torch.cat([field, -field.flip(-1)], -1), norm="forward")
        return torch.fft.irfft(modes, n=self.fine.shape[0], norm="forward")
