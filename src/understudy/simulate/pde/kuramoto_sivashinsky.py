r"""The Kuramoto-Sivashinsky equation, chaotic in one dimension.

.. math:: u_t + u u_x + u_{xx} + \nu u_{xxxx} = 0, \qquad x \in [0, L) \text{ periodic}

Fourier modes :math:`\hat u_k` with :math:`q = 2\pi k/L` follow

.. math:: \hat u_k' = (q^2 - \nu q^4)\, \hat u_k - \tfrac{i q}{2} \widehat{u^2}_k

whose product is free of aliasing (3n/2 points) and drops no mode that the grid has, and which
ETDRK4 steps: long waves converge at order 4, strongly damped ones at about 3 until h resolves their
damping. Settings are those with which PDE-Refiner (Lippe et al. 2023, arXiv 2308.05732) is
trained, after Brandstetter, Welling & Worrall (2022, arXiv 2202.07643): ten sines of amplitude
U(-1/2, 1/2), 1 or 2 waves and any phase, of which a transient is dropped.
"""

from __future__ import annotations

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.space import Continuous, Space
from understudy.simulate.pde.checks import require_positive
from understudy.simulate.pde.exponential import Nonlinear
from understudy.simulate.pde.random_fields import Sines
from understudy.simulate.pde.semilinear import (
    SEED,
    Precision,
    Scheme,
    SemilinearSimulator,
    derivative,
    square,
)


class KuramotoSivashinsky(SemilinearSimulator):
    """Velocity on a periodic interval; the grid is in units of the input ``length``.

    Parameters
    ----------
    points : int
        256 in the papers; even.
    steps : int
        Outputs after the first, ``time_step`` apart; 139 of training in PDE-Refiner.
    transient : int
        Outputs that are dropped before the first.
    substeps : int
        Time steps an output; 4, of about 0.05.
    refinement : int
        Of the grid of the computation.
    precision : {"double", "single"}
    scheme : {"runge-kutta", "adams"}
        See :class:`~understudy.simulate.pde.semilinear.SemilinearSimulator`.
    """

    channels = ("u",)
    space = Space(
        (
            Continuous("length", 57.6, 70.4),
            Continuous("time_step", 0.18, 0.22),
            Continuous("viscosity", 0.5, 1.5),
            SEED,
        )
    )

    def __init__(
        self,
        points: int = 256,
        steps: int = 139,
        transient: int = 360,
        substeps: int = 4,
        refinement: int = 1,
        precision: Precision = "double",
        scheme: Scheme = "runge-kutta",
    ) -> None:
        if transient < 0:
            raise UserError(f"transient must be at least 0, found {transient}")
        super().__init__(Grid.of(points), steps, substeps, refinement, precision, scheme)
        self.transient = transient

    def _check(self, values: dict[str, Tensor]) -> None:
        require_positive(values, "length", "time_step", "viscosity")
        shortest = torch.pi * self.fine.shape[0] / values["length"]
        growing = values["viscosity"] * shortest**2 <= 1.0
        if bool(growing.any()):
            run = int(growing.nonzero()[0])
            raise UserError(
                f"run {run + 1}: {self.fine.shape[0]} points are too few for length "
                f"{float(values['length'][run]):g} and viscosity "
                f"{float(values['viscosity'][run]):g}, as even the shortest wave would grow"
            )

    def _interval(self, values: dict[str, Tensor]) -> Tensor:
        return values["time_step"]

    def _linear(self, values: dict[str, Tensor]) -> Tensor:
        modes = torch.arange(self.fine.shape[0] // 2 + 1, dtype=torch.float64)
        q2 = (2.0 * torch.pi * modes / values["length"].reshape(-1, 1, 1)) ** 2
        return q2 - values["viscosity"].reshape(-1, 1, 1) * q2**2

    def _square_factor(self, values: dict[str, Tensor]) -> Tensor:
        return -0.5 * derivative(self.fine.shape[0]) / values["length"].reshape(-1, 1, 1)

    def _nonlinear(self, values: dict[str, Tensor]) -> Nonlinear:
        n, half_slope = self.fine.shape[0], self._rounded(self._square_factor(values))
        return lambda w, t: half_slope * square(w, n)

    def _draw(self, values: dict[str, Tensor]) -> Tensor:
        sines = Sines.draw(values["seed"], 10, (-0.5, 0.5), (1, 2))
        field = sines.at(self.fine.axes()[0]).unsqueeze(1)
        if not self.transient:
            return field
        w = self._rounded(self._transform(field))
        return self._inverse(self._after(values, w, self.transient)).double()
