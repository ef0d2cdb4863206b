r"""Activations by their Hermite series, their duals, and what a net of them becomes with depth.

Radhakrishnan, Belkin & Uhler (2023, arXiv 2204.14126). An activation with
:math:`E\,\phi(u)^2 = 1` under :math:`u \sim N(0, 1)` is :math:`\phi = \sum_k a_k h_k` in normalised
Hermite polynomials, and its dual, for :math:`(u, v)` standard normal with correlation :math:`\xi`,

.. math:: D(\xi) = E[\phi(u)\phi(v)] = \sum_k a_k^2 \xi^k, \qquad D(1) = 1.

Three numbers say which classifier an infinitely wide network becomes as its depth grows:

.. math:: A = E\,\phi = a_0, \qquad A' = E\,\phi' = a_1, \qquad B' = E\,\phi'^2 = D'(1).

=========================  ======================================================================
:math:`A = A' = 0`         one nearest neighbour
:math:`A = 0 \ne A'`       :math:`\|x - x'\|^{-\alpha}` up to a bounded factor: a singular kernel
:math:`A \ne 0, B' \ge 1`  majority vote
=========================  ======================================================================

.. math:: \alpha = -4 \ln |A'| / \ln B',

and Bayes-consistent on the d-dimensional sphere exactly where :math:`\alpha = d`. The case
:math:`A \ne 0, B' < 1` is not one of the three: all correlations tend to 1 as
:math:`1 - S_l \sim B'^l\, \chi(\xi)`, and ridgeless regression tends to interpolation by
:math:`-\chi` (our derivation).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from understudy.core.errors import UserError

MAX_DIMENSION = 2000
"""Sphere dimension up to which the optimal activation's coefficients are representable."""


@dataclass(frozen=True)
class Constants:
    r"""Expectations of a normalised activation that decide its limit of infinite depth.

    Parameters
    ----------
    mean : float
        :math:`A = E\,\phi`.
    slope : float
        :math:`A' = E\,\phi'`.
    slope_square : float
        :math:`B' = E\,\phi'^2`.
    """

    mean: float
    slope: float
    slope_square: float

    @property
    def alpha(self) -> float:
        """Order of the singularity of the limit kernel; NaN where it has none."""
        if self.mean != 0.0 or self.slope == 0.0 or self.slope_square <= 1.0:
            return math.nan
        return -4.0 * math.log(abs(self.slope)) / math.log(self.slope_square)


@dataclass(frozen=True)
class DepthLimit:
    """What an infinitely wide classifier becomes as its depth grows.

    Parameters
    ----------
    kind : {"1-nn", "majority", "singular", "interpolation", "linear"}
    alpha : float
        Order of the singularity; NaN unless the kind is ``"singular"``.
    """

    kind: str
    alpha: float = math.nan

    def __str__(self) -> str:
        return f"singular({self.alpha:.6g})" if self.kind == "singular" else self.kind


class DualActivation(nn.Module):
    r"""A normalised activation with its dual in closed form.

    A subclass gives ``forward``, `dual`, `dual_derivative` and, if :math:`A = 0`, the dual near
    zero, :math:`D(\xi) = a_m^2 \xi^m\, \tilde q(\xi)` with :math:`\tilde q(0) = 1`:

    ``order``
        :math:`m`, the least degree of its Hermite series; 0 where :math:`A \ne 0`;
    ``leading``
        :math:`a_m^2`;
    ``relative(xi)``
        :math:`\tilde q(\xi)`;
    ``elasticity(xi)``
        :math:`\xi D'(\xi) / D(\xi)`, which is m at 0.
    """

    order: int
    leading: float

    def dual(self, xi: Tensor) -> Tensor:
        """D, entry by entry, of correlations in [-1, 1]."""
        raise NotImplementedError

    def dual_derivative(self, xi: Tensor) -> Tensor:
        """D', entry by entry."""
        raise NotImplementedError

    def dual_pair(self, xi: Tensor) -> tuple[Tensor, Tensor]:
        """D and D', where they share work."""
        return self.dual(xi), self.dual_derivative(xi)

    def relative(self, xi: Tensor) -> Tensor:
        """D without its leading term; 1 at 0."""
        raise NotImplementedError

    def elasticity(self, xi: Tensor) -> Tensor:
        """Logarithmic derivative of D in log xi."""
        raise NotImplementedError

    def constants(self) -> Constants:
        """Return A, A' and B'."""
        raise NotImplementedError


class HermiteActivation(DualActivation):
    r"""Activation :math:`\phi = \sum_k a_k h_k` in normalised Hermite polynomials.

    Parameters
    ----------
    coefficients : sequence of float
        :math:`a_0, a_1, \dots`; scaled so that their squares sum to 1.
    """

    def __init__(self, coefficients: Sequence[float]) -> None:
        super().__init__()
        a = np.asarray(coefficients, dtype=np.float64)
        if a.ndim != 1 or not np.isfinite(a).all() or not np.any(a):
            raise UserError(
                f"coefficients must be finite numbers, not all zero, got {coefficients!r}"
            )
        a = np.trim_zeros(a / np.linalg.norm(a), "b")
        squares = [(k, c**2) for k, c in enumerate(a.tolist()) if c**2 > 0.0]
        self.coefficients: tuple[float, ...] = tuple(a.tolist())
        self.order, self.leading = squares[0]
        self._dual = squares
        self._slope = [(k - 1, k * c) for k, c in squares if k > 0]
        self._relative = [(k - self.order, c / self.leading) for k, c in squares]
        self._weighted = [(k - self.order, k * c / self.leading) for k, c in squares]

    @classmethod
    def expand(
        cls, function: Callable[[Tensor], Tensor], terms: int = 40, least: float = 1e-12
    ) -> HermiteActivation:
        """First terms of a smooth function's Hermite series.

        Parameters
        ----------
        function : callable
            Elementwise; smooth, for a kink makes the series and the quadrature converge slowly.
        terms : int
            Terms kept, at most 64.
        least : float
            Squared coefficients below this share of the sum count as zero, as rounding leaves
            them where a symmetry makes them vanish.

        Raises
        ------
        UserError
            If the terms hold less than 99.9 % of the function's square.
        """
        if not 1 <= terms <= 64:
            raise UserError(f"terms must be from 1 to 64, got {terms}")
        nodes, weights = np.polynomial.hermite_e.hermegauss(180)
        weights = weights / weights.sum()
        with torch.no_grad():
            values = function(torch.from_numpy(nodes)).numpy()
        a = np.stack([h.numpy() for h in _hermite(torch.from_numpy(nodes), terms)])
        a = a @ (weights * values)
        share = (a**2).sum() / (weights @ values**2)
        if not share >= 0.999:
            raise UserError(
                f"{terms} Hermite terms hold {share:.4f} of the activation's square, less than "
                "0.999: give more terms or a smoother activation"
            )
        return cls(np.where(a**2 > least * (a**2).sum(), a, 0.0).tolist())

    def forward(self, x: Tensor) -> Tensor:
        """Return phi(x), entry by entry."""
        total = torch.zeros_like(x)
        for a, h in zip(self.coefficients, _hermite(x, len(self.coefficients)), strict=True):
            total = total + a * h if a else total
        return total

    def dual(self, xi: Tensor) -> Tensor:
        """D, entry by entry."""
        return _polynomial(xi, self._dual)

    def dual_derivative(self, xi: Tensor) -> Tensor:
        """D', entry by entry."""
        return _polynomial(xi, self._slope)

    def relative(self, xi: Tensor) -> Tensor:
        """D without its leading term; 1 at 0."""
        return _polynomial(xi, self._relative)

    def elasticity(self, xi: Tensor) -> Tensor:
        """Logarithmic derivative of D in log xi."""
        return _polynomial(xi, self._weighted) / _polynomial(xi, self._relative)

    def constants(self) -> Constants:
        """Return A, A' and B'."""
        a = (*self.coefficients, 0.0)
        return Constants(a[0], a[1], sum(k * c for k, c in self._dual))

    def extra_repr(self) -> str:
        """Terms of the series."""
        pairs = enumerate(self.coefficients)
        return " + ".join(f"{a:.6g} h{k}" for k, a in pairs if a)


def _hermite(x: Tensor, terms: int) -> list[Tensor]:
    """Return the first normalised probabilists' Hermite polynomials at x."""
    h = [torch.ones_like(x), x]
    for k in range(1, terms - 1):
        h.append((x * h[k] - math.sqrt(k) * h[k - 1]) / math.sqrt(k + 1))
    return h[:terms]


def _polynomial(x: Tensor, terms: list[tuple[int, float]]) -> Tensor:
    """Horner's rule over the non-zero terms, (degree, coefficient) in rising degree."""
    if not terms:
        return torch.zeros_like(x)
    above, value = terms[-1]
    total = torch.full_like(x, value)
    for degree, value in reversed(terms[:-1]):
        total = total.mul_(_power(x, above - degree)).add_(value)
        above = degree
    return total.mul_(_power(x, above)) if above else total


def _power(x: Tensor, exponent: int) -> Tensor:
    """Whole power by squaring; `torch.pow` is ten times slower above the third."""
    if exponent == 1:
        return x
    half = _power(x, exponent // 2)
    return half * half * x if exponent % 2 else half * half


class ReLUActivation(DualActivation):
    r"""Normalised ReLU, :math:`\phi(x) = \sqrt2 \max(x, 0)`: a majority vote in the limit."""

    order = 0
    leading = 1.0 / math.pi

    def forward(self, x: Tensor) -> Tensor:
        """Return phi(x), entry by entry."""
        return math.sqrt(2.0) * torch.relu(x)

    def dual(self, xi: Tensor) -> Tensor:
        """D, entry by entry."""
        return self.dual_pair(xi)[0]

    def dual_derivative(self, xi: Tensor) -> Tensor:
        """D', entry by entry."""
        return 1.0 - torch.acos(xi.clamp(-1.0, 1.0)) / math.pi

    def dual_pair(self, xi: Tensor) -> tuple[Tensor, Tensor]:
        """D and D', from one angle."""
        xi = xi.clamp(-1.0, 1.0)
        slope = self.dual_derivative(xi)
        return ((1.0 - xi) * (1.0 + xi)).sqrt_().div_(math.pi).addcmul_(slope, xi), slope

    def constants(self) -> Constants:
        """Return A, A' and B'."""
        return Constants(1.0 / math.sqrt(math.pi), math.sqrt(0.5), 1.0)


class SineActivation(DualActivation):
    r"""Normalised sine, :math:`\phi(x) \propto \sin(\sqrt a x)`, :math:`D = \sinh a\xi / \sinh a`.

    .. math:: \alpha = -2 \ln\frac{a}{\sinh a} \Big/ \ln(a \coth a)

    Parameters
    ----------
    a : float in (0, 300]
        Squared frequency.
    """

    order = 1

    def __init__(self, a: float) -> None:
        super().__init__()
        if not 0.0 < a <= 300.0:
            raise UserError(f"the sine's squared frequency a must be in (0, 300], got {a!r}")
        self.a = float(a)
        self.leading = self.a / math.sinh(self.a)

    @classmethod
    def optimal(cls, dimension: int) -> SineActivation:
        """Return the frequency for which alpha is the sphere's dimension, 1 to 100."""
        _require_dimension(dimension, least=1, most=100)
        gap = lambda a: cls(a).constants().alpha - dimension  # noqa: E731
        if gap(1e-3) > 0.0:
            raise UserError(f"no sine has alpha {dimension}: as a falls alpha tends to 1")
        return cls(float(brentq(gap, 1e-3, 300.0, xtol=1e-12)))

    def forward(self, x: Tensor) -> Tensor:
        """Return phi(x), entry by entry."""
        return torch.sin(math.sqrt(self.a) * x) / math.sqrt(-0.5 * math.expm1(-2.0 * self.a))

    def dual(self, xi: Tensor) -> Tensor:
        """D, entry by entry."""
        return torch.sinh(self.a * xi) / math.sinh(self.a)

    def dual_derivative(self, xi: Tensor) -> Tensor:
        """D', entry by entry."""
        return self.leading * torch.cosh(self.a * xi)

    def relative(self, xi: Tensor) -> Tensor:
        """D without its leading term; 1 at 0."""
        t = self.a * xi
        return torch.where(t.abs() < 1e-4, 1.0 + t.square() / 6.0, torch.sinh(t) / t)

    def elasticity(self, xi: Tensor) -> Tensor:
        """Logarithmic derivative of D in log xi."""
        t = self.a * xi
        return torch.where(t.abs() < 1e-4, 1.0 + t.square() / 3.0, t / torch.tanh(t))

    def constants(self) -> Constants:
        """Return A, A' and B'."""
        return Constants(0.0, math.sqrt(self.leading), self.a / math.tanh(self.a))

    def extra_repr(self) -> str:
        """Squared frequency."""
        return f"a={self.a:.6g}"


class ErfActivation(DualActivation):
    r"""Normalised error function, :math:`D = \arcsin\frac{2\xi}{3} / \arcsin\frac23`."""

    order = 1
    leading = 2.0 / 3.0 / math.asin(2.0 / 3.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return phi(x), entry by entry."""
        return torch.erf(x) / math.sqrt(2.0 / math.pi * math.asin(2.0 / 3.0))

    def dual(self, xi: Tensor) -> Tensor:
        """D, entry by entry."""
        return torch.asin(xi * (2.0 / 3.0)) / math.asin(2.0 / 3.0)

    def dual_derivative(self, xi: Tensor) -> Tensor:
        """D', entry by entry."""
        return self.leading / (1.0 - xi.square() * (4.0 / 9.0)).sqrt()

    def relative(self, xi: Tensor) -> Tensor:
        """D without its leading term; 1 at 0."""
        t = xi * (2.0 / 3.0)
        return torch.where(t.abs() < 1e-4, 1.0 + t.square() / 6.0, torch.asin(t) / t)

    def elasticity(self, xi: Tensor) -> Tensor:
        """Logarithmic derivative of D in log xi."""
        return 1.0 / (self.relative(xi) * (1.0 - xi.square() * (4.0 / 9.0)).sqrt())

    def constants(self) -> Constants:
        """Return A, A' and B'."""
        return Constants(0.0, math.sqrt(self.leading), self.leading / math.sqrt(5.0 / 9.0))


def classify_limit(activation: DualActivation) -> DepthLimit:
    """Which classifier an infinitely wide network becomes as its depth grows.

    Parameters
    ----------
    activation : DualActivation
    """
    numbers = activation.constants()
    if numbers.mean != 0.0:
        return DepthLimit("interpolation" if numbers.slope_square < 1.0 else "majority")
    if numbers.slope == 0.0:
        return DepthLimit("1-nn")
    if abs(numbers.slope) >= 1.0 or numbers.slope_square <= 1.0:
        return DepthLimit("linear")
    return DepthLimit("singular", numbers.alpha)


def optimal_activation(dimension: int) -> HermiteActivation:
    r"""Activation of the paper whose infinitely deep classifier is Bayes-consistent.

    .. math:: \phi = \frac{h_1 + h_7}{\sqrt2} \quad (d = 1), \qquad
              \phi = 2^{-d/4} (h_1 + h_3) + \sqrt{1 - 2^{1 - d/2}}\, h_2 \quad (d \ge 2)

    Parameters
    ----------
    dimension : int
        Dimension d of the sphere, one less than the number of coordinates; up to 2000.
    """
    _require_dimension(dimension, least=1, most=MAX_DIMENSION)
    if dimension == 1:
        return HermiteActivation([0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    outer = 2.0 ** (-0.25 * dimension)
    return HermiteActivation([0.0, outer, math.sqrt(1.0 - 2.0 ** (1.0 - 0.5 * dimension)), outer])


def design_activation(alpha: float, degrees: Sequence[int] = (7,)) -> HermiteActivation:
    r"""Activation of given Hermite degrees whose limit kernel has a singularity of order alpha.

    :math:`a_1^2 = p`, the other degrees share :math:`1 - p` equally, and with their mean
    :math:`\bar k`, p solves :math:`p = (p + (1 - p) \bar k)^{-\alpha / 2}`.

    Parameters
    ----------
    alpha : float
        Above :math:`2 / (\bar k - 1)`, which is its infimum.
    degrees : sequence of int
        Degrees besides the first, from 2.
    """
    others = sorted(set(degrees))
    if not others or others[0] < 2 or any(k != int(k) for k in others):
        raise UserError(f"degrees must be whole numbers from 2, got {tuple(degrees)!r}")
    mean = sum(others) / len(others)
    least = 2.0 / (mean - 1.0)
    if not least < alpha <= MAX_DIMENSION:
        raise UserError(
            f"with degrees 1 and {', '.join(map(str, others))} alpha can be from above "
            f"{least:.4g} to {MAX_DIMENSION}, got {alpha!r}"
        )

    def excess(log_p: float) -> float:
        p = math.exp(log_p)
        return log_p + 0.5 * alpha * math.log(p + (1.0 - p) * mean)

    low = -0.5 * alpha * math.log(mean) - 1.0
    share = math.exp(float(brentq(excess, low, _below_zero(excess), xtol=1e-15)))
    a = [0.0] * (others[-1] + 1)
    a[1] = math.sqrt(share)
    for k in others:
        a[k] = math.sqrt((1.0 - share) / len(others))
    return HermiteActivation(a)


def _below_zero(excess: Callable[[float], float]) -> float:
    """Largest power of two below zero where the excess is positive; it vanishes again at zero."""
    log_p = -1.0
    while excess(log_p) <= 0.0 and log_p < -1e-12:
        log_p *= 0.5
    return log_p


def _require_dimension(dimension: int, least: int, most: int) -> None:
    if isinstance(dimension, bool) or not isinstance(dimension, int | np.integer):
        raise UserError(f"the sphere's dimension must be a whole number, got {dimension!r}")
    if not least <= dimension <= most:
        raise UserError(f"the sphere's dimension must be from {least} to {most}, got {dimension}")
