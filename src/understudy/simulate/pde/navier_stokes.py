r"""Incompressible flow in two dimensions, by its vorticity, on a periodic square.

.. math:: \omega_t + u \cdot \nabla \omega = \nu \Delta \omega - \mu \omega + f, \qquad
    u = (\psi_y, -\psi_x), \qquad -\Delta \psi = \omega

Fourier modes follow

.. math:: \hat\omega' = -(\nu |q|^2 + \mu)\,\hat\omega
    - \widehat{u \cdot \nabla\omega} + \hat f

stepped by ETDRK4; products see modes below two thirds of the grid's only, which leaves no aliasing
in them. Four transforms a stage are enough, as (Basdevant 1983)

.. math:: u \cdot \nabla \omega = (\partial_x^2 - \partial_y^2)(u_x u_y)
    + \partial_x \partial_y (u_y^2 - u_x^2)

:class:`NavierStokes` is the problem of the Fourier neural operator (Li et al. 2020, arXiv
2010.08895): the unit torus, :math:`f = 0.1 (\sin 2\pi(x + y) + \cos 2\pi(x + y))`, and
:math:`\omega_0 \sim N(0, 7^3 (-\Delta + 49 I)^{-2.5})` (the paper prints :math:`7^{3/2}`, and its
generator squares it). :class:`KolmogorovFlow` is forced by :math:`\sin(4y)` along x on a square of
side :math:`2\pi` with drag 0.1, as in Kochkov et al. (2021, arXiv 2102.01010) and PDE-Refiner
(arXiv 2308.05732), and gives velocities.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.space import Continuous, Space
from understudy.simulate.pde.checks import require_positive
from understudy.simulate.pde.exponential import Nonlinear
from understudy.simulate.pde.random_fields import periodic_field
from understudy.simulate.pde.semilinear import (
    SEED,
    Precision,
    Scheme,
    SemilinearSimulator,
    derivative,
    wavenumbers,
)


class PeriodicFlow(SemilinearSimulator):
    r"""Base of the two: vorticity in modes.

    Parameters
    ----------
    grid, steps, substeps, refinement
        See :class:`~understudy.simulate.pde.semilinear.SemilinearSimulator`.
    interval : float
        Time between outputs.
    drag : float
        Rate :math:`\mu`.
    precision : {"double", "single"}
    scheme : {"runge-kutta", "adams"}
        See :class:`~understudy.simulate.pde.semilinear.SemilinearSimulator`.
    """

    channels: tuple[str, ...] = ("vorticity",)

    def __init__(
        self,
        grid: Grid,
        steps: int,
        substeps: int,
        refinement: int,
        interval: float,
        drag: float = 0.0,
        precision: Precision = "double",
        scheme: Scheme = "runge-kutta",
    ) -> None:
        super().__init__(grid, steps, substeps, refinement, precision, scheme)
        if not interval > 0:
            raise UserError(f"interval must be positive, found {interval:g}")
        self.interval, self.drag = interval, drag
        n, length = self.fine.shape[0], self.fine.lengths[0]
        k = torch.fft.fftfreq(n, 1.0 / n, dtype=torch.float64)
        ky = wavenumbers(n)
        self._dx = 2.0j * math.pi * torch.where(k.abs() < n / 2, k, 0.0)[:, None] / length
        self._dy = derivative(n) / length
        self._squares = (2.0 * math.pi / length) ** 2 * (k[:, None] ** 2 + ky**2)
        self._resolved = (k.abs()[:, None] < n / 3) & (ky < n / 3)
        self._products = self._product_factors(k, ky[: (n + 2) // 3])
        self._force = self._transform_scalar(self._forcing(*self.fine.axes()))

    def _product_factors(self, kx: Tensor, ky: Tensor) -> tuple[Tensor, Tensor]:
        """From vorticity to u and v, and from uv and vv - uu to its rate; waves below n/3 only.

        Of shapes ``(2, n, kept)``, complex, and ``(2, n, kept, 2)``, for real and imaginary parts.
        """
        q = 2.0 * math.pi / self.fine.lengths[0]
        resolved = (kx.abs() < len(kx) / 3).to(torch.float64)[:, None]
        x, y = resolved * q * kx[:, None], resolved * q * ky
        inverse = 1.0 / (x**2 + y**2).clamp_min(q**2 / 2)
        to_velocity = 1.0j * torch.stack([y * inverse, -x * inverse])
        from_products = torch.stack([x**2 - y**2, x * y])
        return to_velocity, from_products.unsqueeze(-1).repeat(1, 1, 1, 2)

    def _forcing(self, x: Tensor, y: Tensor) -> Tensor:
        """Curl of the force ``(n, n)``."""
        raise NotImplementedError

    def _check(self, values: dict[str, Tensor]) -> None:
        require_positive(values, "viscosity")

    def _interval(self, values: dict[str, Tensor]) -> Tensor:
        return torch.full_like(values["viscosity"], self.interval)

    def _rate(self, values: dict[str, Tensor], start: Tensor) -> Tensor | None:
        u, v = self._velocity(self._transform(start))
        fastest = (u.abs() + v.abs()).amax((2, 3), keepdim=True)
        return fastest * self._resolved * torch.maximum(self._dx.imag.abs(), self._dy.imag.abs())

    def _linear(self, values: dict[str, Tensor]) -> Tensor:
        return -values["viscosity"].reshape(-1, 1, 1, 1) * self._squares - self.drag

    def _nonlinear(self, values: dict[str, Tensor]) -> Nonlinear:
        n, kept = self._products[0].shape[1:]
        to_velocity, from_products = map(self._rounded, self._products)
        force = self._rounded(self._force)

        def transport(w: Tensor, t: Tensor | float) -> Tensor:
            columns = torch.fft.ifft(to_velocity * w[..., :kept], dim=-2, norm="forward")
            u, v = torch.fft.irfft(columns, n=n, norm="forward").unbind(1)
            products = torch.stack([u * v, (v - u) * (v + u)], dim=1)
            rows = torch.fft.rfft(products, norm="forward")[..., :kept]
            uv, squares = torch.view_as_real(torch.fft.fft(rows, dim=-2, norm="forward")).unbind(1)
            rate = torch.addcmul(uv * from_products[0], squares, from_products[1]).unsqueeze(1)
            total = force.repeat(len(w), 1, 1, 1)
            total[..., :kept] += torch.view_as_complex(rate)
            return total

        return transport

    def _velocity(self, w: Tensor) -> tuple[Tensor, Tensor]:
        stream = torch.where(self._squares > 0, w / self._squares.clamp_min(1e-30), 0.0)
        return self._scalar(self._dy * stream), -self._scalar(self._dx * stream)

    def _scalar(self, w: Tensor) -> Tensor:
        return torch.fft.irfft2(w, s=self.fine.shape, norm="forward")

    def _transform_scalar(self, field: Tensor) -> Tensor:
        return torch.fft.rfft2(field, norm="forward")


class NavierStokes(PeriodicFlow):
    """Vorticity under a steady force, from random eddies.

    Parameters
    ----------
    points, steps, interval
        64 along each axis and 20 outputs after the first, 1 apart, as in the paper.
    substeps : int
        Time steps an output.
    refinement : int
        Of the grid of the computation; 4 in the paper.
    precision : {"double", "single"}
    scheme : {"runge-kutta", "adams"}
        See :class:`~understudy.simulate.pde.semilinear.SemilinearSimulator`.
    """

    space = Space((Continuous("viscosity", 1e-5, 1e-3, log=True), SEED))

    def __init__(
        self,
        points: int = 64,
        steps: int = 20,
        interval: float = 1.0,
        substeps: int = 100,
        refinement: int = 1,
        precision: Precision = "double",
        scheme: Scheme = "runge-kutta",
    ) -> None:
        grid = Grid.of(points, points)
        super().__init__(
            grid, steps, substeps, refinement, interval, precision=precision, scheme=scheme
        )

    def _forcing(self, x: Tensor, y: Tensor) -> Tensor:
        angle = 2.0 * math.pi * (x[:, None] + y)
        return 0.1 * (angle.sin() + angle.cos())

    def _draw(self, values: dict[str, Tensor]) -> Tensor:
        n, m = self.fine.shape
        return periodic_field(values["seed"], (n, m), 7.0**3, 7.0, 2.5).unsqueeze(1)


class KolmogorovFlow(PeriodicFlow):
    """Velocities of a flow that is forced by waves along one axis and turns turbulent.

    A start's mean velocity is not kept.

    Parameters
    ----------
    points, steps, interval
        64 along each axis; outputs after the first and the time between them, 0.2 by default.
    substeps : int
        Time steps an output.
    refinement : int
        Of the grid of the computation; 2048 points in PDE-Refiner, 32 times its output.
    transient : int
        Outputs that are dropped before the first.
    waves : int
        Of the force.
    precision : {"double", "single"}
    scheme : {"runge-kutta", "adams"}
        See :class:`~understudy.simulate.pde.semilinear.SemilinearSimulator`.
    """

    channels = ("vx", "vy")
    space = Space((Continuous("viscosity", 5e-4, 1e-2, log=True), SEED))

    def __init__(
        self,
        points: int = 64,
        steps: int = 50,
        interval: float = 0.2,
        substeps: int = 20,
        refinement: int = 1,
        transient: int = 0,
        waves: int = 4,
        precision: Precision = "double",
        scheme: Scheme = "runge-kutta",
    ) -> None:
        if transient < 0 or waves < 1:
            raise UserError(
                f"transient must be at least 0 and waves at least 1, found {transient} and {waves}"
            )
        self.transient, self.waves = transient, waves
        grid = Grid.of(points, points, upper=2.0 * math.pi)
        super().__init__(grid, steps, substeps, refinement, interval, 0.1, precision, scheme)

    def _forcing(self, x: Tensor, y: Tensor) -> Tensor:
        return (-self.waves * (self.waves * y).cos()).expand(len(x), -1)

    def _draw(self, values: dict[str, Tensor]) -> Tensor:
        n, m = self.fine.shape
        eddies = periodic_field(values["seed"], (n, m), 4e7, 25.0, 3.0).unsqueeze(1)
        w = self._transform_scalar(eddies)
        if self.transient:
            self._stable_step(values, self._inverse(w))
        return self._inverse(self._after(values, self._rounded(w), self.transient).to(w.dtype))

    def _transform(self, field: Tensor) -> Tensor:
        vx, vy = self._transform_scalar(field).split(1, dim=1)
        return self._dx * vy - self._dy * vx

    def _inverse(self, w: Tensor) -> Tensor:
        return torch.cat(self._velocity(w), dim=1)
