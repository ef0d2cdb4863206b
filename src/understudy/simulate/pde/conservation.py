r"""Burgers' equation, and the combined equation of which it is a case.

.. math:: u_t + \partial_x\left(\alpha u^2 - \beta u_x + \gamma u_{xx}\right) = \delta(t, x)

on a periodic interval. Diffusion and dispersion are exact in Fourier modes,
:math:`L = -\beta q^2 + i\gamma q^3`; the slope of :math:`\alpha u^2` is WENO5's, which shocks need,
or spectral without aliasing; ETDRK4 steps both.

:class:`CombinedEquation` is the family E1, E2, E3 of the message-passing solver (Brandstetter,
Worrall & Welling 2022, arXiv 2202.03376): L = 16, :math:`\delta = \sum_{j=1}^5 A_j \sin(\omega_j t
+ 2\pi l_j x/L + \varphi_j)`, A in U(-1/2, 1/2), :math:`\omega` in U(-0.4, 0.4), and
:math:`u(0, x) = \delta(0, x)`. The paper writes :math:`\alpha u^2` with l of 1, 2 and 3; its
released code integrates :math:`\alpha u u_x`, so that its :math:`\alpha` is twice the one here, and
draws l of 1 and 2, as here.

:class:`Burgers` is that of PDEBench (Takamoto et al. 2022, arXiv 2210.07182), :math:`u_t + u u_x =
(\nu/\pi) u_{xx}` on the unit interval, from two sines of amplitude U(0, 1) and 1 to 8 waves.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.space import Continuous, Space
from understudy.simulate.pde import cole_hopf
from understudy.simulate.pde.checks import require_courant, require_positive
from understudy.simulate.pde.exponential import Nonlinear
from understudy.simulate.pde.random_fields import Sines
from understudy.simulate.pde.semilinear import (
    CARRIED,
    SEED,
    Precision,
    Scheme,
    SemilinearSimulator,
    derivative,
    square,
    wavenumbers,
)
from understudy.simulate.pde.weno import weno_slope

Flux: TypeAlias = Literal["weno", "spectral"]
COURANT = 1.0


class ConservationLaw(SemilinearSimulator):
    """Base of the two: the flux, its slope and the limit of the time step.

    Parameters
    ----------
    grid, steps, refinement
        See :class:`~understudy.simulate.pde.semilinear.SemilinearSimulator`.
    duration : float
        Time of the last output.
    fastest : float
        Of the waves that the law of first fields and the space allow; sets ``substeps``.
    substeps : int, optional
        Time steps an output.
    flux : {"weno", "spectral"}
    """

    channels = ("u",)

    def __init__(
        self,
        grid: Grid,
        steps: int,
        refinement: int,
        duration: float,
        fastest: float,
        substeps: int | None,
        flux: Flux,
        precision: Precision = "double",
        scheme: Scheme = "runge-kutta",
    ) -> None:
        if flux not in ("weno", "spectral"):
            raise UserError(f"flux must be 'weno' or 'spectral', found {flux!r}")
        super().__init__(grid, steps, 1, refinement, precision, scheme)
        self.duration, self.flux = duration, flux
        crossed = fastest * duration / (steps * self.fine.spacing[0])
        most = COURANT if flux == "weno" else CARRIED[scheme] / math.pi
        self.substeps = max(1, math.ceil(crossed / most)) if substeps is None else substeps

    @abstractmethod
    def _coefficients(self, values: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Alpha, beta and gamma, each ``(B, 1, 1)``."""

    def _interval(self, values: dict[str, Tensor]) -> Tensor:
        return torch.full_like(values["seed"], self.duration / self.steps)

    def _rate(self, values: dict[str, Tensor], start: Tensor) -> Tensor | None:
        alpha, _, _ = self._coefficients(values)
        fastest = 2.0 * (alpha * start).abs().amax(2, keepdim=True)
        if self.flux == "spectral":
            return fastest * derivative(self.fine.shape[0]).imag / self.fine.lengths[0]
        h = self._interval(values) / self.substeps
        crossed = h * fastest.flatten() / self.fine.spacing[0]
        require_courant(crossed, COURANT, "more substeps")
        return None

    def _linear(self, values: dict[str, Tensor]) -> Tensor:
        _, beta, gamma = self._coefficients(values)
        length = self.fine.lengths[0]
        q = 2.0 * math.pi * wavenumbers(self.fine.shape[0]) / length
        if not gamma.requires_grad and not bool(gamma.any()):
            return -beta * q**2
        slope = derivative(self.fine.shape[0]) / length
        return -beta * q**2 - gamma * slope**3

    def _square_slope(self, values: dict[str, Tensor]) -> Tensor:
        alpha, _, _ = self._coefficients(values)
        return -alpha * derivative(self.fine.shape[0]) / self.fine.lengths[0]

    def _square_factor(self, values: dict[str, Tensor]) -> Tensor | None:
        return None if self.flux == "weno" or self._driven else self._square_slope(values)

    def _nonlinear(self, values: dict[str, Tensor]) -> Nonlinear:
        alpha, _, _ = self._coefficients(values)
        n, h = self.fine.shape[0], self.fine.spacing[0]
        slope, alpha = self._rounded(self._square_slope(values)), self._rounded(alpha)

        def spectral(w: Tensor, t: Tensor | float) -> Tensor:
            return slope * square(w, n)

        def weno(w: Tensor, t: Tensor | float) -> Tensor:
            u = self._inverse(w)
            fastest = 2.0 * (alpha * u).abs().amax(-1, keepdim=True)
            return -self._transform(weno_slope(alpha * u * u, u, fastest, h))

        return weno if self.flux == "weno" else spectral


class Burgers(ConservationLaw):
    """Burgers' equation, whose waves steepen to shocks of width ``viscosity``.

    Parameters
    ----------
    points, steps, duration
        128, 40 and 2 as in CAPE (arXiv 2304.14118).
    refinement : int
        Of the grid of the computation; 8 as in PDEBench, whose 1024 points are sampled.
    substeps : int, optional
        Time steps an output; by default enough for every seed.
    flux : {"weno", "spectral"}
        WENO5 where shocks are thinner than cells, spectral where they are resolved.
    precision : {"double", "single"}
    scheme : {"runge-kutta", "adams", "exact"}
        See :class:`~understudy.simulate.pde.semilinear.SemilinearSimulator`; "exact" takes the
        closed form of :mod:`understudy.simulate.pde.cole_hopf` at each output, in double precision.
        Only the waves of the first field have to be resolved, and the other options do not matter.
    """

    space = Space((Continuous("viscosity", 0.001, 4.0, log=True), SEED))
    own_schemes = ("exact",)

    def __init__(
        self,
        points: int = 128,
        steps: int = 40,
        refinement: int = 8,
        duration: float = 2.0,
        substeps: int | None = None,
        flux: Flux = "weno",
        precision: Precision = "double",
        scheme: Scheme | Literal["exact"] = "runge-kutta",
    ) -> None:
        grid, self.exact = Grid.of(points), scheme == "exact"
        stepped: Scheme = "runge-kutta" if scheme == "exact" else scheme
        super().__init__(grid, steps, refinement, duration, 2.0, substeps, flux, precision, stepped)

    def _march(self, values: dict[str, Tensor], start: Tensor | None) -> Iterator[Tensor]:
        if not self.exact:
            yield from super()._march(values, start)
            return
        first = self._sampled(self._draw(values)) if start is None else start
        yield first
        for k in range(1, self.steps + 1):
            t = k * self.duration / self.steps
            yield cole_hopf.burgers(first[:, 0], values["viscosity"] / math.pi, t)[:, None]

    def _check(self, values: dict[str, Tensor]) -> None:
        require_positive(values, "viscosity")

    def _coefficients(self, values: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        beta = values["viscosity"].reshape(-1, 1, 1) / math.pi
        return torch.full_like(beta, 0.5), beta, torch.zeros_like(beta)

    def _draw(self, values: dict[str, Tensor]) -> Tensor:
        return Sines.draw(values["seed"], 2, (0.0, 1.0), (1, 8)).at(self.fine.axes()[0])[:, None]


class CombinedEquation(ConservationLaw):
    """Waves that steepen, spread and disperse under a force; see the module.

    E1 is ``alpha`` = 1/2 alone, E2 adds ``beta`` up to 0.2, E3 varies all three. (In the paper's
    letters alpha of E1 and E2 is 1; see the module for the factor of its code.)

    Parameters
    ----------
    points, steps, duration
        100, 249 and 4 as in the paper.
    refinement : int
        Of the grid of the computation.
    substeps : int, optional
        Time steps an output.
    flux : {"weno", "spectral"}
    forced : bool
        Whether there is a force.
    precision : {"double", "single"}
    scheme : {"runge-kutta", "adams"}
        See :class:`~understudy.simulate.pde.semilinear.SemilinearSimulator`.
    """

    space = Space(
        (
            Continuous("alpha", 0.0, 3.0),
            Continuous("beta", 0.0, 0.4),
            Continuous("gamma", 0.0, 1.0),
            SEED,
        )
    )

    def __init__(
        self,
        points: int = 100,
        steps: int = 249,
        refinement: int = 2,
        duration: float = 4.0,
        substeps: int | None = None,
        flux: Flux = "weno",
        forced: bool = True,
        precision: Precision = "double",
        scheme: Scheme = "runge-kutta",
    ) -> None:
        grid = Grid.of(points, upper=16.0)
        bound = 4.0 if forced else 2.5  # five amplitudes of 1/2, and what a force may add
        fastest = 6.0 * bound
        super().__init__(
            grid, steps, refinement, duration, fastest, substeps, flux, precision, scheme
        )
        self.forced = self._driven = forced

    def _check(self, values: dict[str, Tensor]) -> None:
        bad = values["beta"] < 0
        if bool(bad.any()):
            run = int(bad.nonzero()[0])
            found = float(values["beta"][run])
            raise UserError(f"input 'beta' of run {run + 1} must be at least 0, found {found:g}")

    def _coefficients(self, values: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        alpha, beta, gamma = (values[name].reshape(-1, 1, 1) for name in ("alpha", "beta", "gamma"))
        return alpha, beta, gamma

    def _sines(self, values: dict[str, Tensor]) -> Sines:
        return Sines.draw(values["seed"], 5, (-0.5, 0.5), (1, 2), (-0.4, 0.4))

    def _draw(self, values: dict[str, Tensor]) -> Tensor:
        return self._sines(values).at(self.fine.axes()[0] / 16.0).unsqueeze(1)

    def _nonlinear(self, values: dict[str, Tensor]) -> Nonlinear:
        steepen = super()._nonlinear(values)
        if not self.forced:
            return steepen
        sines = self._sines(values)
        x = self.fine.axes()[0] / 16.0

        def forced(w: Tensor, t: Tensor | float) -> Tensor:
            time = torch.as_tensor(t, dtype=torch.float64).expand(len(w))
            force = self._transform(sines.at(x, time).unsqueeze(1))
            return steepen(w, t) + self._rounded(force)

        return forced
