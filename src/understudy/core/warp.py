r"""Monotone transforms of outputs, and predictive distributions seen through them.

A surrogate learns :math:`t = g(y)`, which is closer to Gaussian than y is. With the predictive
distribution of t, that of y has

.. math:: F_Y(y) = F_T(g(y)), \qquad p_Y(y) = p_T(g(y))\, g'(y), \qquad
          Q_Y(p) = g^{-1}(Q_T(p)).

Every g here is increasing, differentiable and maps the reals onto all that a Gaussian can reach, so
no prediction is NaN. Yeo-Johnson: Yeo & Johnson 2000, Biometrika 87, 954-959.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.predictive import Predictive

STEEPEST = 1e3
"""Slope, and inverse of the slope, beyond which a transform goes on as a straight line."""

_LARGEST_EXPONENT = 300.0  # exp(300) squared still is a number
_SMALLEST = 1e-300


@dataclass(frozen=True)
class Identity:
    """No transform, :math:`g(y) = y`."""

    name: ClassVar[str] = "identity"

    def forward(self, y: Tensor) -> Tensor:
        """Return g(y), elementwise."""
        return y

    def inverse(self, t: Tensor) -> Tensor:
        """Return the y with g(y) = t, elementwise."""
        return t

    def log_derivative(self, y: Tensor) -> Tensor:
        """Return log g'(y), elementwise."""
        return torch.zeros_like(y)

    def describe(self) -> str:
        """Say in words what is done to the output."""
        return "as it is"


@dataclass(frozen=True)
class Log:
    r"""Logarithm, :math:`g(y) = \log(y + s)` for :math:`y > -s`.

    Parameters
    ----------
    shift : float
        Added before the logarithm, s.
    """

    shift: float = 0.0
    name: ClassVar[str] = "log"

    def forward(self, y: Tensor) -> Tensor:
        """Return g(y), elementwise; very negative, not NaN, for what has no logarithm."""
        return (y + self.shift).clamp_min(_SMALLEST).log()

    def inverse(self, t: Tensor) -> Tensor:
        """Return the y with g(y) = t, elementwise."""
        return t.clamp(max=_LARGEST_EXPONENT).exp() - self.shift

    def log_derivative(self, y: Tensor) -> Tensor:
        """Return log g'(y), elementwise."""
        return -self.forward(y)

    def describe(self) -> str:
        """Say in words what is done to the output."""
        return "logarithm" if self.shift == 0 else f"logarithm after adding {self.shift:.4g}"


@dataclass(frozen=True)
class YeoJohnson:
    r"""Power transform of either sign, with straight ends.

    With :math:`x = (y - a)/b` and :math:`B(u, \lambda) = ((1 + u)^\lambda - 1)/\lambda`, or
    :math:`\log(1 + u)` for :math:`\lambda = 0`,

    .. math:: g(y) = B(x, \lambda)\ \text{for}\ x \ge 0, \qquad
              g(y) = -B(-x, 2 - \lambda)\ \text{for}\ x < 0.

    For :math:`\lambda` outside [0, 2] one branch is bounded, and its inverse breaks down beyond the
    bound. Outside [lower, upper], and where the slope passes `STEEPEST` or its inverse, g goes on
    as its tangent; so g maps the reals onto the reals.

    Parameters
    ----------
    lmbda : float
        Power; 1 is the identity, below 1 draws in a long upper tail.
    location, scale : float
        Standardisation, a and b > 0.
    lower, upper : float
        Range of x outside which g is straight; contains 0.
    """

    lmbda: float
    location: float = 0.0
    scale: float = 1.0
    lower: float = -math.inf
    upper: float = math.inf
    name: ClassVar[str] = "yeo-johnson"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lmbda) and self.scale > 0 and self.lower < 0 < self.upper):
            raise UserError(
                "Yeo-Johnson needs a finite power, a positive scale and lower < 0 < upper, "
                f"found {self}"
            )

    @classmethod
    def estimate(cls, y: ArrayLike, bounds: tuple[float, float] = (-2.0, 4.0)) -> YeoJohnson:
        """Return the transform whose power maximises the Gaussian profile likelihood.

        Standardised by median and interquartile range, and straight from half a range beyond the
        data on.

        Parameters
        ----------
        y : array (n,)
            Finite observations; at least two differ.
        bounds : (float, float)
            Range searched for the power.
        """
        from scipy.optimize import minimize_scalar

        values = np.asarray(y, dtype=np.float64)
        frame = _robust_frame(values)

        def negative(lmbda: float) -> float:
            return -log_likelihood(cls(float(lmbda), **frame), values)

        found = minimize_scalar(negative, bounds=bounds, method="bounded", options={"xatol": 1e-4})
        return cls(float(found.x), **frame)

    def forward(self, y: Tensor) -> Tensor:
        """Return g(y), elementwise."""
        x = (y - self.location) / self.scale
        low, high = self._ends
        inside = x.clamp(low, high)
        curve = torch.where(
            x >= 0,
            _power(inside.clamp_min(0.0), self.lmbda),
            -_power((-inside).clamp_min(0.0), 2.0 - self.lmbda),
        )
        return curve + (x - inside) * self._log_slope(inside).exp()

    def inverse(self, t: Tensor) -> Tensor:
        """Return the y with g(y) = t, elementwise."""
        ends = torch.tensor(self._ends, dtype=t.dtype)
        bottom, top = self.forward(self.location + self.scale * ends)
        inside = t.clamp(bottom, top)
        curve = torch.where(
            t >= 0,
            _power_inverse(inside.clamp_min(0.0), self.lmbda),
            -_power_inverse((-inside).clamp_min(0.0), 2.0 - self.lmbda),
        )
        x = curve + (t - inside) * (-self._log_slope(curve)).exp()
        return self.location + self.scale * x

    def log_derivative(self, y: Tensor) -> Tensor:
        """Return log g'(y), elementwise."""
        low, high = self._ends
        inside = ((y - self.location) / self.scale).clamp(low, high)
        return self._log_slope(inside) - math.log(self.scale)

    def describe(self) -> str:
        """Say in words what is done to the output."""
        return f"Yeo-Johnson, power {self.lmbda:.3g}"

    def _log_slope(self, x: Tensor) -> Tensor:
        """Log of dg/dx = (1 + |x|)^(+-(lambda - 1)) for x between the ends."""
        return (self.lmbda - 1.0) * x.sign() * x.abs().log1p()

    @cached_property
    def _ends(self) -> tuple[float, float]:
        """Where the curve meets its tangents."""
        bend = abs(self.lmbda - 1.0)
        exponent = math.log(STEEPEST) / bend if bend > 0 else math.inf
        far = math.expm1(min(exponent, _LARGEST_EXPONENT))
        return max(self.lower, -far), min(self.upper, far)


def _power(u: Tensor, lmbda: float) -> Tensor:
    """B(u, lambda) for u >= 0, accurate about lambda = 0."""
    log = u.log1p()
    return log if abs(lmbda) < 1e-12 else torch.expm1(lmbda * log) / lmbda


def _power_inverse(t: Tensor, lmbda: float) -> Tensor:
    """Return the u >= 0 with B(u, lambda) = t, for t it can reach."""
    if abs(lmbda) < 1e-12:
        return torch.expm1(t.clamp(max=_LARGEST_EXPONENT))
    reached = (lmbda * t).clamp_min(-1.0 + 1e-15)
    return torch.expm1((reached.log1p() / lmbda).clamp(max=_LARGEST_EXPONENT))


def _robust_frame(y: np.ndarray) -> dict[str, float]:
    """Median, interquartile deviation and half a range of room beyond the data."""
    first, location, third = (float(q) for q in np.quantile(y, [0.25, 0.5, 0.75]))
    scale = (third - first) / 1.349
    scale = scale if scale > 1e-9 * np.ptp(y) else float(y.std())
    if not 0.0 < scale < math.inf:
        raise UserError("a power transform needs finite observations of which two differ")
    room = 0.5 * float(np.ptp(y))
    lower, upper = (y.min() - room - location) / scale, (y.max() + room - location) / scale
    return {"location": location, "scale": scale, "lower": float(lower), "upper": float(upper)}


Warp: TypeAlias = Identity | Log | YeoJohnson
KINDS: dict[str, type[Warp]] = {kind.name: kind for kind in (Identity, Log, YeoJohnson)}


def to_json(warp: Warp) -> dict[str, Any]:
    """Return a transform as a JSON-able dict; an endless range is None."""
    values = {k: v if math.isfinite(v) else None for k, v in asdict(warp).items()}
    return {"name": warp.name, **values}


def from_json(item: dict[str, Any]) -> Warp:
    """Return the transform that `to_json` described."""
    name = item.get("name")
    if name not in KINDS:
        raise UserError(f"an output transform is one of {sorted(KINDS)}, found {name!r}")
    try:
        return KINDS[name](
            **{k: float(v) for k, v in item.items() if k != "name" and v is not None}
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"output transform {name!r} cannot be read: {error}") from error


def log_likelihood(warp: Warp, y: ArrayLike) -> float:
    r"""Profile log likelihood of :math:`g(y) \sim \mathcal N` over its mean and variance.

    .. math:: -\tfrac n2 \log \widehat{\mathrm{var}}\,g(y) + \sum_i \log g'(y_i) + \text{const}

    Parameters
    ----------
    warp : Warp
    y : array (n,)

    Returns
    -------
    float
        Comparable between transforms of the same y.
    """
    values = torch.as_tensor(np.asarray(y, dtype=np.float64))
    variance = warp.forward(values).var(correction=0).clamp_min(_SMALLEST)
    return float(-0.5 * len(values) * variance.log() + warp.log_derivative(values).sum())


def choose(y: ArrayLike) -> Warp:
    """Return the transform preferred by the Bayesian information criterion.

    The identity has no parameter, the logarithm (for positive observations) none either, and
    Yeo-Johnson one.

    Parameters
    ----------
    y : array (n,)
        Finite observations; at least two differ.
    """
    values = np.asarray(y, dtype=np.float64)
    candidates: list[Warp] = [Identity(), YeoJohnson.estimate(values)]
    if values.min() > 0:
        candidates.insert(1, Log())
    price = {YeoJohnson.name: 0.5 * math.log(len(values))}
    return max(candidates, key=lambda w: log_likelihood(w, values) - price.get(w.name, 0.0))


@dataclass(frozen=True)
class WarpedPredictive:
    """Predictive distribution of y where that of g(y) is a mixture of Gaussians.

    Has the methods of `Predictive`, in the units of y.

    Parameters
    ----------
    base : Predictive
        Of n rows and m transformed outputs.
    warps : tuple of Warp
        One for each output.
    """

    base: Predictive
    warps: tuple[Warp, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "warps", tuple(self.warps))
        if len(self.warps) != self.base.loc.shape[-1]:
            raise ValueError(f"{len(self.warps)} transforms for {self.base.loc.shape[-1]} outputs")

    @classmethod
    def concatenate(cls, parts: Sequence[WarpedPredictive]) -> WarpedPredictive:
        """Rows of several predictives with the same transforms, one after the other."""
        return cls(Predictive.concatenate([part.base for part in parts]), parts[0].warps)

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, rows: Tensor | slice) -> WarpedPredictive:
        """Return the predictive of some rows (index tensor, boolean mask or slice)."""
        return WarpedPredictive(self.base[rows], self.warps)

    def output(self, index: int) -> WarpedPredictive:
        """Return the predictive of one output, as m = 1."""
        return WarpedPredictive(self.base.output(index), (self.warps[index],))

    def widened(self, factor: Tensor) -> WarpedPredictive:
        """Return the distribution spread by a positive factor (m,) on the transformed scale."""
        return WarpedPredictive(self.base.widened(factor), self.warps)

    @property
    def is_plain(self) -> bool:
        """Whether no output is transformed."""
        return all(isinstance(warp, Identity) for warp in self.warps)

    @property
    def mean(self) -> Tensor:
        """Mean of each cell, (n, m)."""
        return self.base.mean if self.is_plain else self._expectation(lambda y: y)

    @property
    def sd(self) -> Tensor:
        """Standard deviation of each cell, (n, m)."""
        if self.is_plain:
            return self.base.sd
        mean = self.mean
        return self._expectation(lambda y: (y - mean).square()).sqrt()

    def _expectation(self, function: Callable[[Tensor], Tensor], nodes: int = 20) -> Tensor:
        """E f(y) per cell (n, m), by Gauss-Hermite quadrature of each Gaussian component."""
        points, weights = np.polynomial.hermite_e.hermegauss(nodes)
        total = torch.zeros_like(self.base.loc[0])
        for z, w in zip(points, weights / math.sqrt(2.0 * math.pi), strict=True):
            y = self.inverse(self.base.loc + z * self.base.scale)
            total += w * (self.base.weight * function(y)).sum(0)
        return total

    def log_density(self, y: Tensor) -> Tensor:
        """Log density of observations (n, m), per cell (n, m)."""
        jacobian = self._each(y, lambda warp, values: warp.log_derivative(values))
        return self.base.log_density(self._forward(y)) + jacobian

    def cdf(self, y: Tensor) -> Tensor:
        """Probability of an observation at most y (..., n, m), per cell."""
        return self.base.cdf(self._forward(y))

    def quantile(self, levels: Tensor) -> Tensor:
        """Quantiles at levels in (0, 1), (l,) or (l, n, m), as a Tensor (l, n, m)."""
        return self.inverse(self.base.quantile(levels))

    def crps(self, y: Tensor, nodes: int = 32) -> Tensor:
        r"""Continuous ranked probability score of observations (n, m), per cell (n, m).

        Twice the quantile score integrated over levels, by Gauss-Legendre quadrature on either
        side of its kink at :math:`p_0 = F(y)`:

        .. math:: 2\int_0^{p_0} p\,(y - Q(p))\,dp + 2\int_{p_0}^1 (1 - p)\,(Q(p) - y)\,dp
        """
        if self.is_plain:
            return self.base.crps(y)
        points, weights = np.polynomial.legendre.leggauss(nodes)
        u = torch.as_tensor(0.5 * (points + 1.0)).reshape(-1, 1, 1)
        w = torch.as_tensor(weights).reshape(-1, 1, 1)
        below = self.cdf(y)
        p = torch.cat([below * u, 1.0 - (1.0 - below) * u]).clamp(1e-12, 1.0 - 1e-12)
        under, over = self.quantile(p).chunk(2)
        left = (w * u * (y - under)).sum(0).clamp_min(0.0) * below.square()
        right = (w * u * (over - y)).sum(0).clamp_min(0.0) * (1.0 - below).square()
        return left + right

    def _each(self, values: Tensor, function: Callable[[Warp, Tensor], Tensor]) -> Tensor:
        parts = [function(warp, values[..., j]) for j, warp in enumerate(self.warps)]
        return torch.stack(parts, dim=-1)

    def _forward(self, y: Tensor) -> Tensor:
        return y if self.is_plain else self._each(y, lambda warp, values: warp.forward(values))

    def inverse(self, t: Tensor) -> Tensor:
        """Outputs of transformed ones (..., n, m), each by its own warp."""
        return t if self.is_plain else self._each(t, lambda warp, values: warp.inverse(values))
