r"""What models of a lithium-ion cell need to know of it, and the cell of Hassanaly et al. (2024).

Of an electrode: particle radius :math:`R`, thickness :math:`L`, share :math:`\varepsilon` of
active material, largest concentration :math:`c_{max}`, stoichiometry :math:`x_0 = c/c_{max}` at
the start, and three functions of the stoichiometry: diffusivity :math:`D(x)`, exchange current
:math:`i_0(x)` and open-circuit potential :math:`U(x)`. All in SI units. Outside [0, 1] the
functions keep the values of the ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from understudy.core.errors import UserError

FARADAY = 96485.33212
"""C/mol."""

GAS = 8.314462618
"""J/(mol K)."""

Curve: TypeAlias = Callable[[Tensor], Tensor]
"""Function of a stoichiometry, cell by cell, differentiable."""


@dataclass(frozen=True)
class Electrode:
    """One electrode, its particles all alike.

    Parameters
    ----------
    radius, thickness : float
        Of the particles and of the electrode, m.
    active_fraction : float in (0, 1)
        Share of active material.
    max_concentration : float
        Of lithium, mol/m3.
    stoichiometry : float in (0, 1)
        At the start.
    diffusivity : float or callable
        m2/s, constant or of the stoichiometry.
    exchange_current : callable
        A/m2 of the particle surface.
    potential : callable
        V.
    """

    radius: float
    thickness: float
    active_fraction: float
    max_concentration: float
    stoichiometry: float
    diffusivity: float | Curve
    exchange_current: Curve
    potential: Curve

    def __post_init__(self) -> None:
        for name in ("radius", "thickness", "max_concentration"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be positive, found {getattr(self, name)}")
        for name in ("active_fraction", "stoichiometry"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise UserError(f"{name} must lie between 0 and 1, found {getattr(self, name)}")
        if not callable(self.diffusivity) and not 0.0 < self.diffusivity < math.inf:
            raise UserError(f"diffusivity must be positive, found {self.diffusivity}")


Law: TypeAlias = Callable[[Any, float], Any]
"""Function of a concentration of salt, mol/m3, and a temperature, K; made of operators alone in
the concentration, so it takes numbers, tensors and symbols."""


@dataclass(frozen=True)
class Electrolyte:
    """Salt between the electrodes, and the separator.

    Parameters
    ----------
    concentration : float
        Of salt at the start, mol/m3.
    separator : float
        Thickness, m.
    porosity : float in (0, 1)
        Of electrodes and separator.
    bruggeman : float
        Power of the porosity by which transport is slowed.
    solid_conductivity : float
        Of both electrodes, S/m, effective.
    diffusivity, conductivity, transference, thermodynamic_factor : callable
        Of concentration and temperature: m2/s, S/m, and two numbers.
    """

    concentration: float
    separator: float
    porosity: float
    bruggeman: float
    solid_conductivity: float
    diffusivity: Law
    conductivity: Law
    transference: Law
    thermodynamic_factor: Law

    def __post_init__(self) -> None:
        for name in ("concentration", "separator", "bruggeman", "solid_conductivity"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be positive, found {getattr(self, name)}")
        if not 0.0 < self.porosity < 1.0:
            raise UserError(f"porosity must lie between 0 and 1, found {self.porosity}")


@dataclass(frozen=True)
class Cell:
    """Two electrodes, and what is between them where it is known.

    Parameters
    ----------
    name : str
    negative, positive : Electrode
    area : float
        Of an electrode sheet, m2, all sheets together.
    capacity : float
        Nominal, A.h; the current that is called 1C empties it in an hour.
    temperature : float
        K.
    electrolyte : Electrolyte, optional
        Single-particle models do without. Exchange currents of the electrodes are those at its
        concentration at the start, and grow with the root of the concentration.
    """

    name: str
    negative: Electrode
    positive: Electrode
    area: float
    capacity: float
    temperature: float = 298.15
    electrolyte: Electrolyte | None = None

    def __post_init__(self) -> None:
        for name in ("area", "capacity", "temperature"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be positive, found {getattr(self, name)}")


@dataclass(frozen=True)
class Polynomial:
    """Polynomial of the stoichiometry.

    Parameters
    ----------
    coefficients : tuple of float
        From the highest power down.
    """

    coefficients: tuple[float, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate by Horner's rule; constant outside [0, 1]."""
        x = x.clamp(0.0, 1.0)
        value = torch.full_like(x, self.coefficients[0])
        for coefficient in self.coefficients[1:]:
            value = (value * x).add_(coefficient)
        return value

    def symbol(self, x: Any) -> Any:
        """Write it down for anything that has operators, such as PyBaMM's symbols."""
        value: Any = self.coefficients[0]
        for coefficient in self.coefficients[1:]:
            value = value * x + coefficient
        return value


@dataclass(frozen=True)
class Scaled:
    """Factor times a polynomial, or times 10 to the power of one.

    Parameters
    ----------
    factor : float
    polynomial : Polynomial
    power : bool
    """

    factor: float
    polynomial: Polynomial
    power: bool = False

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate."""
        if not self.power:
            return self.factor * self.polynomial(x)
        *others, last = (math.log(10.0) * each for each in self.polynomial.coefficients)
        return Polynomial((*others, last + math.log(self.factor)))(x).exp_()

    def symbol(self, x: Any) -> Any:
        """Write it down, see `Polynomial`."""
        value = self.polynomial.symbol(x)
        return self.factor * (10.0**value if self.power else value)


@dataclass(frozen=True)
class Symmetric:
    """Exchange current that is proportional to the root of x (1 - x).

    Parameters
    ----------
    factor : float
        Twice the value at x = 1/2, A/m2.
    """

    factor: float

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate; the root stops short of 0, where its slope is infinite."""
        x = x.clamp(1e-12, 1.0 - 1e-12)
        return self.factor * (x * (1.0 - x)).sqrt()

    def symbol(self, x: Any) -> Any:
        """Write it down, see `Polynomial`."""
        return self.factor * (x * (1.0 - x)) ** 0.5


class Table:
    """Piecewise cubic through values on an even grid of [0, 1]; constant outside.

    Parameters
    ----------
    values : Tensor (k,)
        At least 5; slopes are central differences.
    """

    def __init__(self, values: Tensor) -> None:
        values = values.to(torch.float64)
        slope = torch.gradient(values)[0]
        slope[2:-2] = (8.0 * (values[3:-1] - values[1:-3]) - values[4:] + values[:-4]) / 12.0
        rise, first, last = values.diff(), slope[:-1], slope[1:]
        self._intervals = len(rise)
        self._coefficients = torch.stack(
            [values[:-1], first, 3.0 * rise - 2.0 * first - last, first + last - 2.0 * rise]
        )

    @classmethod
    def of(cls, curve: Curve, nodes: int = 20001) -> Table:
        """Tabulate a curve."""
        with torch.no_grad():
            return cls(curve(torch.linspace(0.0, 1.0, nodes, dtype=torch.float64)))

    def __call__(self, x: Tensor) -> Tensor:
        """Interpolate."""
        u, (a, b, c, d) = self._at(x)
        return ((d * u + c) * u + b) * u + a

    def slope(self, x: Tensor) -> Tensor:
        """Derivative of the interpolant, differentiable once more; 0 outside [0, 1]."""
        u, (_, b, c, d) = self._at(x)
        found = self._intervals * ((3.0 * d * u + 2.0 * c) * u + b)
        return torch.where((x >= 0.0) & (x <= 1.0), found, 0.0)

    def _at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Place in the interval, and the coefficients (4, ...) there."""
        at = x.clamp(0.0, 1.0) * self._intervals
        interval = at.detach().long().clamp(0, self._intervals - 1)
        if self._coefficients.device != x.device:
            self._coefficients = self._coefficients.to(x.device)
        return at - interval, self._coefficients[:, interval]


# -- the cell of Hassanaly et al. ------------------------------------------------------------------

_NEGATIVE_POTENTIAL = Polynomial(
    (
        *(1878.6244900261463, -4981.580023016213, 516.2941996957871, 6452.38177755237),
        *(-436.0524457974526, 1264.0514576769442, -20918.656956191975, 12954.334261316431),
        *(28871.72866007402, -37943.83286204571, 34.11141793217983, 29363.16490602074),
        *(-25774.496334571464, 11073.868226559767, -2702.638445370805, 375.62895901410747),
        *(-28.064663950113868, 1.1265244540945243),
    )
)
_POSITIVE_POTENTIAL = Polynomial(
    (
        *(-43309.69063512314, 122888.63938515769, -69735.99554716503, -59749.183217994185),
        *(25744.002733171154, 15730.398058573825, 54021.915506318735, -44566.03206954511),
        *(64.32177924593454, -7780.173422833786, 1117.4042221859695, 7387.492376558274),
        *(-7237.289515884936, -705.4465901574707, 17170.20236584321, -42.60228181558803),
        *(-23266.56994359366, 10810.92851132453, 2545.4065429021307, 1.6554268823619098),
        *(751.3515882152476, -4447.12851190078, 3727.268889820381, -1331.1791971457515),
        *(227.4712483170547, -17.646894926746256, 0.8568207255402533, -2.34505930698951),
        5.059010555584711,
    )
)
_POSITIVE_LOG_DIFFUSIVITY = Polynomial(
    (
        *(-250.901084347927, 2391.02672525997, -4868.42026761136, -83.3110410292107),
        *(10576.36028329, -12683.2454834812, 5016.27216777553, 982.489665964948),
        *(-1502.4393390709, 472.37093042477, -65.2609204639709),
    )
)
_POSITIVE_EXCHANGE = Polynomial(
    (
        *(16.5045282964129, -75.235671414888, 124.052469007304),
        *(-94.1657108128761, 32.4976882173796, -3.58529006582476),
    )
)


def hassanaly2024() -> Cell:
    """Graphite against NMC532 at 303.15 K, as in arXiv 2312.17329.

    The numbers are those of the code that goes with the paper. The diffusivity of the positive
    particles depends strongly on the stoichiometry; open-circuit potentials are polynomials fitted
    to measured curves, of degree 17 and 28.
    """
    negative = Electrode(
        radius=4e-6,
        thickness=44e-6,
        active_fraction=0.5430727763,
        max_concentration=30530.0,
        stoichiometry=0.91,
        diffusivity=3e-14,
        exchange_current=Symmetric(2.5 * 0.27 * math.sqrt(1.2) * 30.53),
        potential=_NEGATIVE_POTENTIAL,
    )
    positive = Electrode(
        radius=1.8e-6,
        thickness=42e-6,
        active_fraction=0.47662,
        max_concentration=49600.0,
        stoichiometry=0.39,
        diffusivity=Scaled(2.25, _POSITIVE_LOG_DIFFUSIVITY, power=True),
        exchange_current=Scaled(9.0, _POSITIVE_EXCHANGE),
        potential=_POSITIVE_POTENTIAL,
    )
    electrolyte = Electrolyte(
        concentration=1200.0,
        separator=20e-6,
        porosity=0.4,
        bruggeman=2.0,
        solid_conductivity=6.0,
        diffusivity=_salt_diffusivity,
        conductivity=_salt_conductivity,
        transference=_transference,
        thermodynamic_factor=_thermodynamic_factor,
    )
    return Cell("hassanaly2024", negative, positive, 1.4e-3, 0.0189, 303.15, electrolyte)


def _salt_diffusivity(c: Any, T: float) -> Any:
    c = 1e-3 * c
    h = T - (-24.83763 + 64.07366 * c)
    linear, square = -0.8108721 + 475.291 / h, -0.005192312 - 33.43827 / h
    return 1e-4 * 10.0 ** (-0.5688226 - 1607.003 / h + linear * c + square * c**2)


def _salt_conductivity(c: Any, T: float) -> Any:
    c = 1e-3 * c
    k0 = 1.909446e-4 * T**2 - 0.08038545 * T + 9.00341
    rows = (
        (-2.887587e-8, 3.483638e-5, -0.01583677, 3.195295, -241.4638),
        (1.653786e-8, -1.99876e-5, 0.009071155, -1.828064, 138.0976),
        (-2.791965e-9, 3.377143e-6, -0.001532707, 0.3090003, -23.35671),
    )
    k1, k2, k3 = (a * T**4 + b * T**3 + d * T**2 + e * T + f for a, b, d, e, f in rows)
    return c * (k0 + c * k1 + c**2 * k2 + c**3 * k3)


def _transference(c: Any, T: float) -> Any:
    c = 1e-3 * c
    square = -2.876102e-7 * T**2 + 2.077407e-4 * T - 0.03881203
    linear = 1.161463e-6 * T**2 - 8.6825e-4 * T + 0.1777266
    return square * c**2 + linear * c + (-6.766258e-7 * T**2 + 6.389189e-4 * T + 0.3091761)


def _thermodynamic_factor(c: Any, T: float) -> Any:
    c = 1e-3 * c
    square, linear = 0.54 * math.exp(329.0 / T), 0.00225 * math.exp(1360.0 / T)
    return square * c**2 - linear * c + 0.341 * math.exp(261.0 / T)
