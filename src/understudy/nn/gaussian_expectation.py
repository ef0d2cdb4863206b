r"""Expectations of an activation under a Gaussian, to nearly double precision.

.. math:: \langle f \rangle_K = \int f(z)\, \frac{e^{-z^2/2K}}{\sqrt{2\pi K}}\, dz

Nodes are Gauss-Legendre panels in :math:`s = z/\sqrt K`, halved towards zero so that an activation
much narrower than the Gaussian is resolved, and split where the activation has a kink: one global
Gauss-Hermite rule of 200 nodes is wrong in the fifth digit for the swish at :math:`K = 14`.

Expectations over two correlated variables use the Hermite coefficients :math:`c_k` of
:math:`\phi(\sqrt K s)` (Mehler's formula),

.. math:: \langle \phi(z_a) \phi(z_b) \rangle = \sum_k c_k(K_{aa})\, c_k(K_{bb})\, \rho^k, \quad
          \rho = K_{ab} / \sqrt{K_{aa} K_{bb}},

closed at the truncation by what the diagonal is known to lack.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.core.errors import UserError
from understudy.nn.closed_moments import relu_moment

_NODES_PER_PANEL = 16
_CUT = 12.0
_HERMITE_TERMS = 160

NAMED: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": F.elu,
    "erf": torch.erf,
    "gelu": F.gelu,
    "hardtanh": F.hardtanh,
    "leaky_relu": F.leaky_relu,
    "linear": nn.Identity(),
    "mish": F.mish,
    "relu": torch.relu,
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "sin": torch.sin,
    "softplus": F.softplus,
    "swish": F.silu,
    "tanh": torch.tanh,
}
"""Activations that may be given by name."""

_KINKS = {F.hardtanh: (-1.0, 1.0), F.relu6: (0.0, 6.0), F.hardswish: (-3.0, 3.0)}
_MODULE_KINKS: dict[type, tuple[float, ...]] = {
    nn.ReLU6: (0.0, 6.0),
    nn.Hardswish: (-3.0, 3.0),
    nn.Hardsigmoid: (-3.0, 3.0),
}


@dataclass(frozen=True)
class Activation:
    """An elementwise activation with what integration needs to know of it.

    Parameters
    ----------
    name : str
    function : callable
        Maps a Tensor to a Tensor of the same shape, entry by entry.
    kinks : tuple of float
        Where it is not smooth, besides 0.
    slopes : tuple of float or None
        Slopes above and below zero if it is scale-invariant, phi(cz) = c phi(z) for c > 0.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    kinks: tuple[float, ...] = ()
    slopes: tuple[float, float] | None = None

    def __call__(self, z: Tensor) -> Tensor:
        """Values phi(z), without gradient."""
        with torch.no_grad():
            return self.function(z)

    def derivative(self, z: Tensor) -> Tensor:
        """Slopes phi'(z), entry by entry."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value = self.function(z)
            if not value.requires_grad:
                return torch.zeros_like(z)
            return torch.autograd.grad(value.sum(), z)[0]

    def derivatives_at_zero(self) -> tuple[float, float, float, float]:
        """Value of phi and its first three derivatives at 0, as autograd takes them."""
        with torch.enable_grad():
            zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
            values = [self.function(zero)]
            for _ in range(3):
                values.append(_differentiate(values[-1], zero))
        value, first, second, third = (float(v.detach()) for v in values)
        return value, first, second, third

    def slopes_at_zero(self, step: float = 1e-7) -> tuple[float, float]:
        """One-sided derivatives just above and just below 0."""
        above, below = self.derivative(torch.tensor([step, -step], dtype=torch.float64))
        return float(above), float(below)


def _differentiate(value: Tensor, at: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(at)
    return torch.autograd.grad(value, at, create_graph=True, materialize_grads=True)[0]


def activation(which: str | nn.Module | Callable[[Tensor], Tensor] | Activation) -> Activation:
    """Describe an activation given by name, as a module or as a function.

    Parameters
    ----------
    which : str, Module, callable or Activation
        A name of `NAMED`, or anything elementwise. A function with kinks elsewhere than at 0 is
        passed as an `Activation` that names them.

    Raises
    ------
    UserError
        If the name is unknown, or the function is not deterministic, not elementwise, or not
        finite.
    """
    if isinstance(which, Activation):
        return which
    if isinstance(which, str):
        if which not in NAMED:
            raise UserError(f"activation must be one of {', '.join(NAMED)}, got {which!r}")
        name, function = which, NAMED[which]
    else:
        name, function = _name(which), which
    kinks = _kinks(function)
    if isinstance(function, nn.Module):
        function = _frozen(function)
    _require_elementwise(name, function)
    return Activation(name, function, kinks, _scale_invariant_slopes(function))


def _name(which: nn.Module | Callable[[Tensor], Tensor]) -> str:
    if isinstance(which, nn.Module):
        return type(which).__name__.lower()
    return str(getattr(which, "__name__", type(which).__name__))


def _kinks(function: Callable[[Tensor], Tensor]) -> tuple[float, ...]:
    if isinstance(function, nn.Hardtanh) and not isinstance(function, nn.ReLU6):
        return (float(function.min_val), float(function.max_val))
    if isinstance(function, nn.Module):
        return _MODULE_KINKS.get(type(function), ())
    return _KINKS.get(function, ())


def _frozen(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return the module's function in evaluation mode and double precision, never in place."""
    frozen = copy.deepcopy(module).eval().double().requires_grad_(False)
    for part in frozen.modules():
        if hasattr(part, "inplace"):
            part.__dict__["inplace"] = False
    return frozen


def _require_elementwise(name: str, function: Callable[[Tensor], Tensor]) -> None:
    z = torch.linspace(-2.5, 3.0, 8, dtype=torch.float64).reshape(2, 4)
    try:
        with torch.no_grad():
            whole, again = function(z), function(z)
            parts = torch.stack([function(entry.reshape(1)) for entry in z.flatten()])
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"the activation {name} is not elementwise: {error}") from error
    if not isinstance(whole, Tensor) or whole.shape != z.shape or not torch.equal(whole, again):
        raise UserError(
            f"the activation {name} must map each entry to one value, deterministically"
        )
    if not torch.allclose(whole.flatten(), parts.flatten(), rtol=1e-9, atol=1e-12):
        raise UserError(f"the activation {name} is not elementwise: an entry depends on the others")
    if not torch.isfinite(whole).all():
        raise UserError(f"the activation {name} is not finite between -2.5 and 3")


def _scale_invariant_slopes(function: Callable[[Tensor], Tensor]) -> tuple[float, float] | None:
    scale = torch.logspace(-3, 3, 13, dtype=torch.float64)
    with torch.no_grad():
        above, below = function(scale) / scale, -function(-scale) / scale
    flat = (above - above[0]).abs().max() + (below - below[0]).abs().max()
    if float(flat) > 1e-12 * max(float(above.abs().max()), float(below.abs().max()), 1e-300):
        return None
    slopes = float(above[0]) + 0.0, float(below[0]) + 0.0  # without a negative zero
    return None if slopes == (0.0, 0.0) else slopes


@cache
def _legendre() -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(_NODES_PER_PANEL)
    return torch.from_numpy(nodes), torch.from_numpy(weights)


@cache
def _edges() -> Tensor:
    """Ends of the panels in units of the standard deviation."""
    half = [2.0**-k for k in range(10, 1, -1)] + [0.5 * k for k in range(1, int(2 * _CUT) + 1)]
    return torch.tensor([-e for e in reversed(half)] + [0.0, *half], dtype=torch.float64)


def quadrature(K: Tensor, kinks: tuple[float, ...] = ()) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the expectation over N(0, K).

    Parameters
    ----------
    K : Tensor (*batch)
        Variances, positive.
    kinks : tuple of float
        Points z where the integrand is not smooth, besides 0.

    Returns
    -------
    s, w : Tensor (*batch, q)
        Nodes in units of sqrt(K), and weights that sum to 1.
    """
    edges = _edges().expand(*K.shape, -1)
    if kinks:
        extra = torch.tensor(kinks, dtype=torch.float64) / K.unsqueeze(-1).sqrt()
        edges = torch.cat([edges, extra.clamp(-_CUT, _CUT)], dim=-1).sort(dim=-1).values
    nodes, weights = _legendre()
    half = 0.5 * edges.diff(dim=-1).unsqueeze(-1)
    middle = 0.5 * (edges[..., 1:] + edges[..., :-1]).unsqueeze(-1)
    s = (middle + half * nodes).flatten(-2)
    w = (half * weights).flatten(-2) * torch.exp(-0.5 * s.square()) / math.sqrt(2.0 * math.pi)
    return s, w


@dataclass(frozen=True)
class Moments:
    r"""Single-input expectations of an activation, each a Tensor of the shape of K.

    Parameters
    ----------
    K : Tensor
        Variance.
    square : Tensor
        :math:`g = \langle\phi^2\rangle`.
    fourth : Tensor
        :math:`\langle\phi^4\rangle`.
    slope_square, slope_fourth : Tensor
        :math:`\langle\phi'^2\rangle` and :math:`\langle\phi'^4\rangle`.
    mixed : Tensor
        :math:`q = \langle\phi^2\phi'^2\rangle`.
    square_slope : Tensor
        :math:`g' = \langle z\phi\phi'\rangle / K`.
    square_curvature : Tensor
        :math:`g'' = \langle\phi^2 (z^4 - 6Kz^2 + 3K^2)\rangle / 4K^4`.
    slope_square_slope : Tensor
        :math:`d\langle\phi'^2\rangle/dK = \langle\phi'^2 (z^2 - K)\rangle / 2K^2`.
    odd_first, odd_third : Tensor
        :math:`\langle(\phi^2)'\rangle = \langle z\phi^2\rangle / K` and
        :math:`\langle(\phi^2)'''\rangle`; zero where :math:`\phi^2` is even.
    """

    K: Tensor
    square: Tensor
    fourth: Tensor
    slope_square: Tensor
    slope_fourth: Tensor
    mixed: Tensor
    square_slope: Tensor
    square_curvature: Tensor
    slope_square_slope: Tensor
    odd_first: Tensor
    odd_third: Tensor


def moments(phi: Activation, K: Tensor) -> Moments:
    """Expectations over N(0, K) that the recursions need; exact where phi is scale-invariant.

    Parameters
    ----------
    phi : Activation
    K : Tensor (*batch), float64
        Variances, positive.
    """
    if phi.slopes is not None:
        return _scale_invariant_moments(phi.slopes, K)
    s, w = quadrature(K, phi.kinks)
    z = s * K.sqrt().unsqueeze(-1)
    f, d = phi(z), phi.derivative(z)
    f2, d2, s2 = f.square(), d.square(), s.square()

    def mean(values: Tensor) -> Tensor:
        return (w * values).sum(-1)

    return Moments(
        K=K,
        square=mean(f2),
        fourth=mean(f2.square()),
        slope_square=mean(d2),
        slope_fourth=mean(d2.square()),
        mixed=mean(f2 * d2),
        square_slope=mean(s * f * d) / K.sqrt(),
        square_curvature=mean(f2 * (s2.square() - 6.0 * s2 + 3.0)) / (4.0 * K.square()),
        slope_square_slope=mean(d2 * (s2 - 1.0)) / (2.0 * K),
        odd_first=mean(s * f2) / K.sqrt(),
        odd_third=mean(s * (s2 - 3.0) * f2) / (K * K.sqrt()),
    )


def _scale_invariant_moments(slopes: tuple[float, float], K: Tensor) -> Moments:
    A2, A4 = (0.5 * (slopes[0] ** p + slopes[1] ** p) for p in (2, 4))
    odd = math.sqrt(2.0 / math.pi) * (slopes[0] ** 2 - slopes[1] ** 2)
    one, zero = torch.ones_like(K), torch.zeros_like(K)
    return Moments(
        K=K,
        square=A2 * K,
        fourth=3.0 * A4 * K.square(),
        slope_square=A2 * one,
        slope_fourth=A4 * one,
        mixed=A4 * K,
        square_slope=A2 * one,
        square_curvature=zero,
        slope_square_slope=zero,
        odd_first=odd * K.sqrt(),
        odd_third=odd / K.sqrt(),
    )


def _hermite_coefficients(values: Tensor, s: Tensor, w: Tensor) -> Tensor:
    """Coefficients (*batch, terms) of values (*batch, q) in normalised Hermite polynomials."""
    before, now = torch.zeros_like(s), torch.ones_like(s)
    weighted = w * values
    coefficients = []
    for k in range(_HERMITE_TERMS):
        coefficients.append((weighted * now).sum(-1))
        before, now = now, (s * now - math.sqrt(k) * before) / math.sqrt(k + 1)
    return torch.stack(coefficients, dim=-1)


def _mehler(values: Tensor, s: Tensor, w: Tensor, rho: Tensor) -> Tensor:
    c = _hermite_coefficients(values, s, w)
    tail = ((w * values.square()).sum(-1) - c.square().sum(-1)).clamp_min(0.0).sqrt()
    total, power = torch.zeros_like(rho), torch.ones_like(rho)
    for term in (*c.unbind(-1), tail):
        total += torch.outer(term, term) * power
        power = power * rho
    return total


def covariance_moments(phi: Activation, K: Tensor) -> tuple[Tensor, Tensor]:
    r"""Second moments of phi and of phi' over pairs of correlated inputs.

    Parameters
    ----------
    phi : Activation
    K : Tensor (m, m), float64
        Covariance matrix with a positive diagonal.

    Returns
    -------
    Tensor (m, m), Tensor (m, m)
        :math:`\langle \phi(z_a) \phi(z_b) \rangle` and
        :math:`\langle \phi'(z_a) \phi'(z_b) \rangle`.
    """
    variance = K.diagonal()
    norm = (variance.unsqueeze(-1) * variance).sqrt()
    rho = (K / norm).clamp(-1.0, 1.0)
    rho.fill_diagonal_(1.0)
    if phi.slopes is not None:
        return _scale_invariant_covariance(phi.slopes, rho * norm, variance, rho)
    s, w = quadrature(variance, phi.kinks)
    z = s * variance.sqrt().unsqueeze(-1)
    return _mehler(phi(z), s, w, rho), _mehler(phi.derivative(z), s, w, rho)


def _scale_invariant_covariance(
    slopes: tuple[float, float], K: Tensor, variance: Tensor, rho: Tensor
) -> tuple[Tensor, Tensor]:
    """Closed forms: phi(z) = a relu(z) - b relu(-z)."""
    a, b = slopes
    k1, k2 = variance.unsqueeze(-1), variance.unsqueeze(-2)
    same, opposite = relu_moment(K, k1, k2), relu_moment(-K, k1, k2)
    agree = 1.0 - torch.acos(rho) / math.pi
    return (
        (a * a + b * b) * same - 2.0 * a * b * opposite,
        0.5 * (a * a + b * b) * agree + a * b * (1.0 - agree),
    )
