r"""Criticality of an activation: the initialisation at which signals neither grow nor fade.

Roberts, Yaida & Hanin, *The Principles of Deep Learning Theory* (2022, arXiv 2106.10165), chapter
5. In a multilayer perceptron of width n with biases :math:`N(0, C_b)` and weights
:math:`N(0, C_W/n)` the variance of a unit passes from layer to layer by

.. math:: K^{(l+1)} = C_b + C_W\, g(K^{(l)}), \quad g(K) = \langle \phi^2 \rangle_K

and a perturbation of it, or the squared distance of two nearby inputs, grows a layer by

.. math:: \chi_\parallel = C_W\, g'(K) = \frac{C_W}{K} \langle z \phi \phi' \rangle_K, \qquad
          \chi_\perp = C_W \langle \phi'^2 \rangle_K .

Criticality is :math:`K^* = C_b + C_W g(K^*)` with :math:`\chi_\parallel = \chi_\perp = 1` there. A
residual connection, :math:`z' = W\phi(z) + b + \gamma z`, asks for :math:`\chi + \gamma^2 = 1` and
scales both variances by :math:`1 - \gamma^2`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.nn.gaussian_expectation import Activation, activation, moments

_SMALL = 1e-8
_GRID = (1e-2, 1e3, 161)
_TOLERANCE = 1e-9


class UniversalityClass(StrEnum):
    """How the variance of a critical network behaves with depth."""

    SCALE_INVARIANT = "scale-invariant"
    """Every variance is kept: ReLU, leaky ReLU, linear."""
    ZERO = "K*=0"
    """It falls as a power of depth, 1/l for a smooth activation: tanh, sin, erf."""
    HALF_STABLE = "half-stable"
    """A positive K* that attracts from above and repels below: GELU, swish."""
    NONE = "none"
    """No criticality: sigmoid, softplus."""


@dataclass(frozen=True)
class CriticalPoint:
    r"""Critical initialisation of an activation, or why there is none.

    Parameters
    ----------
    activation : str
    universality_class : UniversalityClass
    C_b, C_W : float
        Variance of a bias, and of a weight times its fan-in; NaN where there is no criticality.
    K_star : float
        Variance of a unit that stays; 0 in that class, NaN where every one does, or none.
    a1 : float
        Of the class K*=0 where the activation is smooth: :math:`K' = K + a_1 K^2`, so that
        :math:`K^{(l)} \to 1/(-a_1 l)`; NaN otherwise.
    p_perp : float
        Exponent of :math:`\prod \chi_\perp \sim l^{-p_\perp}`; 0 outside the class K*=0.
    nu : float
        Slope of the deviation from a Gaussian, :math:`V/K^2 \to \nu\, l`, at equal widths.
    gamma : float
        Residual coefficient that the point is for.
    reason : str
        Why there is none.
    """

    activation: str
    universality_class: UniversalityClass
    C_b: float = math.nan
    C_W: float = math.nan
    K_star: float = math.nan
    a1: float = math.nan
    p_perp: float = 0.0
    nu: float = math.nan
    gamma: float = 0.0
    reason: str = ""

    @property
    def exists(self) -> bool:
        """Whether the activation can be critical."""
        return self.universality_class is not UniversalityClass.NONE

    def required(self) -> CriticalPoint:
        """Return itself.

        Raises
        ------
        UserError
            If there is no criticality; says why.
        """
        if not self.exists:
            raise UserError(f"{self.activation} has no critical initialisation: {self.reason}")
        return self


def find_critical_point(
    which: str | nn.Module | Callable[[Tensor], Tensor] | Activation, gamma: float = 0.0
) -> CriticalPoint:
    r"""Search the critical initialisation of an activation.

    Scale-invariant activations have it in closed form. Otherwise, if the limit K to 0 exists
    (:math:`\phi(0) = 0` with slopes there) and is stable, it is taken; else the roots of
    :math:`\chi_\parallel(K) = \chi_\perp(K)` between K = 0.01 and 1000, on a logarithmic grid and
    by bisection, of which the least with :math:`C_b \ge 0` is.

    Parameters
    ----------
    which : str, Module, callable or Activation
    gamma : float in [0, 1)
        Residual coefficient.

    Returns
    -------
    CriticalPoint
        With ``exists`` false and a reason where there is none.
    """
    if not 0.0 <= gamma < 1.0:
        raise UserError(f"gamma must lie in [0, 1), got {gamma}")
    phi = activation(which)
    if phi.slopes is not None:
        return _scale_invariant(phi, phi.slopes, gamma)
    point, why_not = _at_zero(phi, gamma)
    if point is not None:
        return point
    return _half_stable(phi, gamma, why_not)


def _source(C_W: float, kurtosis: float, skew: float, gamma: float) -> float:
    r"""Growth of V/K^2 in one layer of a deep critical network.

    From :math:`\langle\phi^4\rangle - g^2` = kurtosis K^2 and :math:`\langle z\phi^2\rangle` =
    skew K^(3/2); the third cumulant has settled at :math:`T = \gamma C_W \langle z\phi^2\rangle /
    (1 - \gamma)`.
    """
    third = gamma / (1.0 - gamma) * C_W * skew
    return C_W**2 * kurtosis + 4.0 * gamma**2 * (1.0 - gamma**2) + 2.0 * C_W * skew * third


def _scale_invariant(phi: Activation, slopes: tuple[float, float], gamma: float) -> CriticalPoint:
    A2, A4 = (0.5 * (slopes[0] ** p + slopes[1] ** p) for p in (2, 4))
    C_W = (1.0 - gamma**2) / A2
    return CriticalPoint(
        phi.name,
        UniversalityClass.SCALE_INVARIANT,
        C_b=0.0,
        C_W=C_W,
        nu=_source(C_W, 3.0 * A4 - A2**2, _skew(*slopes), gamma),
        gamma=gamma,
    )


def _skew(above: float, below: float) -> float:
    """Skew of a function with these slopes above and below zero."""
    return math.sqrt(2.0 / math.pi) * (above**2 - below**2)


def _at_zero(phi: Activation, gamma: float) -> tuple[CriticalPoint | None, str]:
    r"""Limit K to 0, if it is stable.

    With :math:`K' = K (1 - c K^\beta)` and :math:`\chi_\perp = 1 - c_\perp K^\beta`, both read off
    at one small K, :math:`K^\beta = 1/(c \beta l)` and :math:`p_\perp = c_\perp / (c \beta)`; a
    smooth activation has :math:`\beta = 1` and :math:`c = -a_1`.
    """
    value = float(phi(torch.zeros((), dtype=torch.float64)))
    above, below = phi.slopes_at_zero()
    A2 = 0.5 * (above**2 + below**2)
    if value != 0.0 or A2 < 1e-12:
        return None, f"phi(0) = {value:.4g} and phi'(0) = {above:.4g} exclude K*=0"
    smooth = math.isclose(above, below, rel_tol=1e-5)
    if smooth:
        A2 = phi.derivatives_at_zero()[1] ** 2
    at = moments(phi, torch.tensor(_SMALL, dtype=torch.float64))
    decay = 1.0 - float(at.square) / (A2 * _SMALL)
    if abs(decay) < 1e-12:
        return None, "phi is linear around 0, so that K*=0 is approached by no power of depth"
    if not decay > 0.0:
        return None, "the fixed point K*=0 is unstable"
    beta = (1.0 - float(at.square_slope) / A2) / decay - 1.0
    fourth = 0.5 * (above**4 + below**4)
    skew = 0.0 if smooth else _skew(above, below)
    C_W = (1.0 - gamma**2) / A2
    return CriticalPoint(
        phi.name,
        UniversalityClass.ZERO,
        C_b=0.0,
        C_W=C_W,
        K_star=0.0,
        a1=_a1(phi) * (1.0 - gamma**2) if smooth and abs(beta - 1.0) < 0.01 else math.nan,
        p_perp=round((1.0 - float(at.slope_square) / A2) / (decay * beta), 6),
        nu=_source(C_W, 3.0 * fourth - A2**2, skew, gamma) / 3.0,
        gamma=gamma,
    ), ""


def _a1(phi: Activation) -> float:
    _, s1, s2, s3 = phi.derivatives_at_zero()
    return s3 / s1 + 0.75 * (s2 / s1) ** 2


def _imbalance(phi: Activation, log_K: Tensor) -> Tensor:
    """log(chi_par / chi_perp), which C_W leaves unchanged; NaN where chi_par is negative."""
    at = moments(phi, log_K.exp())
    return (at.square_slope / at.slope_square).log()


def _half_stable(phi: Activation, gamma: float, why_not: str) -> CriticalPoint:
    low, high, count = _GRID
    grid = torch.linspace(math.log(low), math.log(high), count, dtype=torch.float64)
    values = _imbalance(phi, grid)
    clear = values.isfinite() & (values.abs() > _TOLERANCE)
    crossing = clear[:-1] & clear[1:] & (values[:-1] * values[1:] < 0.0)
    tried = []
    for k in crossing.nonzero().flatten().tolist():
        K = _bisect(phi, grid[k], grid[k + 1])
        at = moments(phi, torch.tensor(K, dtype=torch.float64))
        C_W = (1.0 - gamma**2) / float(at.slope_square)
        C_b = (1.0 - gamma**2) * K - C_W * float(at.square)
        if C_b >= 0.0:
            kurtosis = float(at.fourth - at.square.square()) / K**2
            skew = float(at.odd_first) / math.sqrt(K)
            return CriticalPoint(
                phi.name,
                UniversalityClass.HALF_STABLE,
                C_b=C_b,
                C_W=C_W,
                K_star=K,
                nu=_source(C_W, kurtosis, skew, gamma),
                gamma=gamma,
            )
        tried.append(f"K = {K:.4g} needs a negative variance C_b = {C_b:.4g} of the biases")
    reason = "; ".join(
        [why_not, *(tried or ["chi_par and chi_perp agree at no K between 0.01 and 1000"])]
    )
    return CriticalPoint(phi.name, UniversalityClass.NONE, gamma=gamma, reason=reason)


def _bisect(phi: Activation, low: Tensor, high: Tensor) -> float:
    sign = _imbalance(phi, low).sign()
    for _ in range(60):
        middle = 0.5 * (low + high)
        if _imbalance(phi, middle).sign() == sign:
            low = middle
        else:
            high = middle
    return math.exp(float(0.5 * (low + high)))
