r"""Walls that absorb more of some frequencies than of others.

The admittance of a wall, normalised by that of air, says how fast it yields to pressure,
:math:`\rho c\, v_n = Y p`. It is approximated by a rational function,

.. math:: Y(\omega) = Y_\infty + \sum_k \frac{A_k}{\lambda_k + i\omega}
    + \sum_k \left(\frac{B_k - i C_k}{\alpha_k - i\beta_k + i\omega}
    + \frac{B_k + i C_k}{\alpha_k + i\beta_k + i\omega}\right),

because in time such a term is an accumulator, an ordinary differential equation on the wall
(Troian et al. 2017; Pind et al. 2019):

.. math:: \dot\varphi_k + \lambda_k \varphi_k = p, \qquad
    \dot z_k + (\alpha_k - i\beta_k) z_k = p, \qquad
    \rho c\, v_n = Y_\infty p + \sum_k A_k \varphi_k + \sum_k 2\,\mathrm{Re}\,(B_k - iC_k) z_k .

A real pole takes one real accumulator and a pair two. A wall reflects a plane wave at normal
incidence by :math:`R = (1 - Y)/(1 + Y)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from understudy.core.errors import UserError
from understudy.data.sound import SPEED_OF_SOUND

Complex = NDArray[np.complex128]
_AIR = 1.2
"""Density in kg/m^3, as in the code of arXiv 2308.05141."""

_RIDGE = 1e-4
_WORST_CONDITION = 1e4  # of the linear problem for the residues, at the first poles


@dataclass(frozen=True)
class RationalAdmittance:
    """Admittance of a wall as a sum of poles.

    Parameters
    ----------
    constant : float
        Of high frequencies, at least 0.
    poles : sequence of complex
        Rates lambda (real) or alpha - i beta in 1/s, with positive real part. Of a conjugate pair
        only one is given.
    residues : sequence of complex
        A or B - iC in 1/s, one a pole; real where the pole is.

    Raises
    ------
    UserError
        If the wall would give energy to the air at some frequency, in which case nothing is stable.
    """

    constant: float
    poles: tuple[complex, ...] = ()
    residues: tuple[complex, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "poles", tuple(complex(a) for a in self.poles))
        object.__setattr__(self, "residues", tuple(complex(r) for r in self.residues))
        if len(self.poles) != len(self.residues):
            raise UserError(
                f"each pole needs a residue, found {len(self.poles)} and {len(self.residues)}"
            )
        if any(not a.real > 0.0 for a in self.poles):
            raise UserError("poles of an admittance must have a positive real part")
        pairs = zip(self.poles, self.residues, strict=True)
        if any(a.imag == 0.0 and r.imag != 0.0 for a, r in pairs):
            raise UserError("the residue of a real pole must be real")
        least = self._least()
        if not least >= -1e-9:
            raise UserError(
                f"the real part of an admittance must be at least 0, found {least:.3g}: "
                "such a wall gives energy to the air"
            )

    @property
    def multiplicities(self) -> tuple[int, ...]:
        """1 for a real pole, 2 for one that stands for a pair."""
        return tuple(1 if a.imag == 0.0 else 2 for a in self.poles)

    @property
    def accumulators(self) -> int:
        """Real numbers that a point of the wall remembers."""
        return sum(self.multiplicities)

    def at(self, frequencies: ArrayLike) -> Complex:
        """Normalised admittance ``(F,)`` at frequencies in Hz."""
        iw = 2j * math.pi * np.asarray(frequencies, dtype=np.float64)
        Y = np.full(iw.shape, complex(self.constant))
        for a, r in zip(self.poles, self.residues, strict=True):
            Y = Y + r / (a + iw)
            if a.imag != 0.0:
                Y = Y + r.conjugate() / (a.conjugate() + iw)
        return Y

    def reflection(self, frequencies: ArrayLike) -> Complex:
        """Reflection coefficient ``(F,)`` of a plane wave at normal incidence."""
        Y = self.at(frequencies)
        reflected: Complex = (1.0 - Y) / (1.0 + Y)
        return reflected

    @classmethod
    def fit(
        cls,
        frequencies: ArrayLike,
        admittance: ArrayLike,
        real_poles: int = 2,
        pairs: int = 1,
    ) -> RationalAdmittance:
        r"""Least-squares fit to values of an admittance.

        Residues follow from the poles by linear least squares, poles are searched, from places that
        are equally spaced on a logarithmic scale inside the band. Two real poles and a pair are the
        four accumulators of the paper. With unit columns for each pole, weights w are found of

        .. math:: \min_w \sum_f |Y(f) - T(f)\, w|^2 + F (10^{-4})^2 |w|^2,

        whose second term keeps poles from coming together with residues that are huge and cancel:
        in single precision little of such a wall would be left.

        Parameters
        ----------
        frequencies : array (F,)
            In Hz, at least as many different ones as there are unknowns, over a band wide enough to
            tell the poles apart.
        admittance : array (F,), complex
        real_poles, pairs : int

        Raises
        ------
        UserError
            If frequencies are too few or too close together, or the wall that is found would give
            energy to the air.
        """
        f = np.asarray(frequencies, dtype=np.float64)
        Y = np.asarray(admittance, dtype=np.complex128)
        if real_poles < 0 or pairs < 0:
            raise UserError(f"numbers of poles are at least 0, found {real_poles} and {pairs}")
        least = -(-(1 + 2 * real_poles + 4 * pairs) // 2)
        if f.ndim != 1 or f.shape != Y.shape or not (f > 0.0).all() or len(set(f)) < least:
            raise UserError(
                f"positive frequencies and as many admittances are needed, at least "
                f"{least} different ones; found {f.shape} and {Y.shape}, {len(set(f.flat))} "
                "different"
            )
        if not (np.isfinite(f).all() and np.isfinite(Y).all()):
            raise UserError("frequencies and admittances must be finite numbers")
        return _fitted(f, Y, real_poles, pairs)

    def _least(self) -> float:
        """The smallest real part over all frequencies."""
        rates = [abs(a) for a in self.poles] or [1.0]
        low, high = 1e-3 * min(rates), 1e3 * max(rates)
        f = np.concatenate([[0.0], np.geomspace(low, high, 4000)]) / (2.0 * math.pi)
        return min(float(self.at(f).real.min()), self.constant)


def porous_absorber(
    frequencies: ArrayLike,
    thickness: float,
    flow_resistivity: float,
    speed: float = SPEED_OF_SOUND,
) -> Complex:
    r"""Admittance of a porous layer before a rigid wall, by Miki's model (1990).

    With :math:`X = f/\sigma`, :math:`Z = 1 + 0.070 X^{-0.632} - 0.107 i X^{-0.632}`,
    :math:`k = \frac{\omega}{c}(1 + 0.109 X^{-0.618} - 0.160 i X^{-0.618})` and thickness d,

    .. math:: Y = i \tan(k d) / Z .

    Parameters
    ----------
    frequencies : array (F,)
        In Hz.
    thickness : float
        In m.
    flow_resistivity : float
        In N s m^-4.
    speed : float
        Of sound in m/s.

    Returns
    -------
    array (F,), complex
        Normalised by the admittance of air.
    """
    f = np.asarray(frequencies, dtype=np.float64)
    if not thickness > 0.0 or not flow_resistivity > 0.0 or not (f > 0.0).all():
        raise UserError("frequencies, thickness and flow resistivity must be positive")
    X = f / flow_resistivity
    Z = 1.0 + (0.070 - 0.107j) * X**-0.632
    k = 2.0 * math.pi * f / speed * (1.0 + (0.109 - 0.160j) * X**-0.618)
    Y: Complex = 1j * np.tan(k * thickness) / Z
    return Y


def normalised_impedance(impedance: float, speed: float = SPEED_OF_SOUND) -> float:
    """Impedance in Pa s/m over that of air, density 1.2 kg/m^3."""
    return impedance / (_AIR * speed)


def wall(text: str, f_max: float = 500.0) -> float | RationalAdmittance:
    """Wall of a description in words.

    Parameters
    ----------
    text : str
        A normalised impedance, ``rigid``, ``soft``, or ``porous:THICKNESS,RESISTIVITY`` for a
        :func:`porous_absorber`, in m and N s m^-4.
    f_max : float
        Up to which frequency in Hz a layer is approximated.

    Raises
    ------
    UserError
        If it is none of these.
    """
    named = {"rigid": math.inf, "soft": 0.0}
    if text in named:
        return named[text]
    kind, colon, numbers = text.partition(":")
    try:
        if not colon:
            return float(text)
        thickness, resistivity = (float(number) for number in numbers.split(","))
    except ValueError:
        kind = ""
    if kind != "porous":
        raise UserError(
            "a wall is an impedance normalised by that of air, rigid, soft, or "
            f"porous:THICKNESS,RESISTIVITY such as porous:0.05,10000; found {text!r}"
        )
    return _layer(thickness, resistivity, f_max)


def _layer(thickness: float, resistivity: float, f_max: float) -> RationalAdmittance:
    """Best of a few passive approximations of a porous layer up to a frequency."""
    f = np.linspace(f_max / 25.0, f_max, 50)
    wanted = porous_absorber(f, thickness, resistivity)
    found = []
    for real_poles, pairs in ((0, 1), (1, 1), (2, 1), (0, 2)):
        try:
            found.append(RationalAdmittance.fit(f, wanted, real_poles, pairs))
        except UserError:  # it would give energy to the air
            continue
    if not found:
        raise UserError(f"no passive wall was found for a layer of {thickness:g} m")
    return min(found, key=lambda wall: float(np.abs(wall.at(f) - wanted).max()))


def _basis(f: NDArray[np.float64], poles: Sequence[complex]) -> NDArray[np.float64]:
    """Columns of the linear problem for the constant and the residues, real over imaginary."""
    iw = 2j * math.pi * f
    columns = [np.ones_like(iw)]
    for a in poles:
        if a.imag == 0.0:
            columns.append(a.real / (a + iw))
        else:
            one, other = abs(a) / (a + iw), abs(a) / (a.conjugate() + iw)
            columns += [one + other, 1j * (one - other)]
    table = np.stack(columns, axis=1)
    return np.concatenate([table.real, table.imag])


def _fitted(f: NDArray[np.float64], Y: Complex, real: int, pairs: int) -> RationalAdmittance:
    from scipy.optimize import least_squares

    scale = 2.0 * math.pi * f
    low, high = float(scale.min()), float(scale.max())
    ridge = _RIDGE * math.sqrt(2 * len(f)) * np.eye(1 + real + 2 * pairs)
    target = np.concatenate([Y.real, Y.imag, np.zeros(len(ridge))])

    def poles_of(x: NDArray[np.float64]) -> list[complex]:
        rates = np.exp(x)
        alpha, beta = rates[real : real + pairs], rates[real + pairs :]
        return [complex(r) for r in rates[:real]] + [
            complex(a, -b) for a, b in zip(alpha, beta, strict=True)
        ]

    def solved(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        table = np.concatenate([_basis(f, poles_of(x)), ridge])
        weights = np.linalg.lstsq(table, target, rcond=None)[0]
        return weights, table @ weights - target

    start = np.log(_first_rates(low, high, real, pairs))
    if np.linalg.cond(_basis(f, poles_of(start))) > _WORST_CONDITION:
        raise UserError(
            f"frequencies from {f.min():g} to {f.max():g} Hz are too close together to tell "
            f"{real + pairs} poles apart; give a wider band, or ask for fewer poles"
        )
    limits = (math.log(low) - 5.0, math.log(high) + 5.0)
    found = least_squares(lambda x: solved(x)[1], start, bounds=limits).x if len(start) else start
    weights, _ = solved(found)
    poles, residues, at = poles_of(found), [], 1
    for a in poles:
        if a.imag == 0.0:
            residues.append(complex(a.real * weights[at]))
            at += 1
        else:
            residues.append(abs(a) * complex(weights[at], weights[at + 1]))
            at += 2
    return RationalAdmittance(float(weights[0]), tuple(poles), tuple(residues))


def _first_rates(low: float, high: float, real: int, pairs: int) -> NDArray[np.float64]:
    """Rates of real poles, alpha and beta of pairs: all different, inside the band.

    Pairs lie between the real poles, and alpha is half of beta.
    """
    inside = np.geomspace(low, high, real + pairs + 2)[1:-1]
    at = [int((k + 0.5) * len(inside) / pairs) for k in range(pairs)]
    return np.concatenate([np.delete(inside, at), 0.5 * inside[at], inside[at]])
