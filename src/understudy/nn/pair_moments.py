r"""Second moments of any activation over two correlated Gaussians, and their derivatives.

In closed form (see `understudy.nn.closed_moments`) for erf, ReLU and any activation that is linear
on either side of zero. For all others, by Mehler's formula: with the coefficients :math:`c_j(k)` of
:math:`\phi(\sqrt{k}\, s)` in normalised Hermite polynomials of s, by the quadrature of
`understudy.nn.gaussian_expectation`,

.. math:: E[\phi\phi'] = \sum_j c_j(k_1)\, c_j(k_2)\, \rho^j, \qquad
          \rho = k / \sqrt{k_1 k_2},

closed at the truncation by what the mean square is known to lack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from understudy.nn.closed_moments import (
    erf_moment,
    erf_slope_moment,
    relu_moment,
    relu_slope_moment,
)
from understudy.nn.gaussian_expectation import activation, quadrature

Moment: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps covariance k and variances k1, k2, which broadcast, to an expectation."""

_TERMS = 160
_NEGLIGIBLE = 1e-15


class _MehlerSum(torch.autograd.Function):
    r"""Sum over j of :math:`a_j b_j \rho^j`.

    Rounding may carry :math:`\rho` of coinciding points above 1; it is taken back without loss of
    its derivative.

    Parameters: rho (*batch, p, q), a (*batch, p, t), b (*batch, q, t).
    """

    @staticmethod
    def forward(ctx: Any, rho: Tensor, a: Tensor, b: Tensor) -> Tensor:
        rho = rho.clamp(-1.0, 1.0)
        ctx.save_for_backward(rho, a, b)
        total = torch.zeros_like(rho)
        for j in reversed(range(a.shape[-1])):
            total.mul_(rho).add_(a[..., j].unsqueeze(-1) * b[..., j].unsqueeze(-2))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rho, a, b = ctx.saved_tensors
        slope, weighted = torch.zeros_like(rho), gradient.clone()
        to_a, to_b = torch.zeros_like(a), torch.zeros_like(b)
        for j in range(a.shape[-1]):
            to_a[..., j] = (weighted @ b[..., j].unsqueeze(-1)).squeeze(-1)
            to_b[..., j] = (weighted.mT @ a[..., j].unsqueeze(-1)).squeeze(-1)
            weighted.mul_(rho)
        for j in reversed(range(1, a.shape[-1])):
            slope.mul_(rho).add_(j * a[..., j].unsqueeze(-1) * b[..., j].unsqueeze(-2))
        return gradient * slope, to_a, to_b


@dataclass(frozen=True)
class PairMoments:
    r"""What a wide layer needs to know of its activation.

    Parameters
    ----------
    value, slope : callable (k, k1, k2) -> Tensor
        :math:`E[\phi\phi']` and :math:`E[\dot\phi\dot\phi']`; differentiable, also where points
        coincide.
    square, slope_square : callable (k) -> Tensor
        :math:`E[\phi^2]` and :math:`E[\dot\phi^2]` at variance k.
    """

    value: Moment
    slope: Moment
    square: Callable[[Tensor], Tensor]
    slope_square: Callable[[Tensor], Tensor]


def _piecewise_linear(above: float, below: float) -> PairMoments:
    """Moments of an activation with these slopes above and below zero."""
    squares, product = above**2 + below**2, 2.0 * above * below

    def value(k: Tensor, k1: Tensor, k2: Tensor) -> Tensor:
        same = squares * relu_moment(k, k1, k2)
        return same - product * relu_moment(-k, k1, k2) if product else same

    def slope(k: Tensor, k1: Tensor, k2: Tensor) -> Tensor:
        same = squares * relu_slope_moment(k, k1, k2)
        return same + product * relu_slope_moment(-k, k1, k2) if product else same

    return PairMoments(
        value,
        slope,
        lambda k: 0.5 * squares * k,
        lambda k: torch.full_like(k, 0.5 * squares),
    )


_ERF = PairMoments(
    erf_moment,
    erf_slope_moment,
    lambda k: torch.asin(2.0 * k / (1.0 + 2.0 * k)) * (2.0 / math.pi),
    lambda k: (4.0 / math.pi) * (1.0 + 4.0 * k).rsqrt(),
)


@lru_cache(maxsize=64)
def pair_moments(which: str | nn.Module | Callable[[Tensor], Tensor]) -> PairMoments:
    """Moments of an activation: in closed form where there is one, else by Mehler's formula.

    Parameters
    ----------
    which : str, Module, callable or Activation
        As for `understudy.nn.gaussian_expectation.activation`.

    Raises
    ------
    UserError
        If the name is unknown, or the function is not elementwise and deterministic.
    """
    phi = activation(which)
    if phi.slopes is not None:
        return _piecewise_linear(*phi.slopes)
    if phi.function is torch.erf:
        return _ERF
    return _by_series(phi.function, phi.kinks)


def _by_series(function: Callable[[Tensor], Tensor], kinks: tuple[float, ...]) -> PairMoments:
    def derivative(z: Tensor) -> Tensor:
        return _derivative(function, z)

    def value(k: Tensor, k1: Tensor, k2: Tensor) -> Tensor:
        return _mehler(function, kinks, k, k1, k2)

    def slope(k: Tensor, k1: Tensor, k2: Tensor) -> Tensor:
        return _mehler(derivative, kinks, k, k1, k2)

    return PairMoments(
        value,
        slope,
        lambda k: _mean_square(function, kinks, k),
        lambda k: _mean_square(derivative, kinks, k),
    )


def _derivative(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Slope of an elementwise function, itself differentiable in z."""
    with torch.enable_grad():
        at = z if z.requires_grad else z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(
            function(at).sum(), at, create_graph=True, materialize_grads=True
        )
    return slope if z.requires_grad else slope.detach()


def _mehler(
    function: Callable[[Tensor], Tensor],
    kinks: tuple[float, ...],
    k: Tensor,
    k1: Tensor,
    k2: Tensor,
) -> Tensor:
    """E[f(u) f(u')] of k (*batch, p, q), k1 (*batch, p, 1) and k2 (*batch, 1, q)."""
    rho = k / (k1 * k2).sqrt()
    a = _coefficients(function, kinks, k1.squeeze(-1))
    b = _coefficients(function, kinks, k2.squeeze(-2))
    size = a.detach().abs().flatten(0, -2).amax(0) * b.detach().abs().flatten(0, -2).amax(0)
    terms = 1 + int(torch.nonzero(size >= _NEGLIGIBLE * size.amax())[-1])
    total: Tensor = _MehlerSum.apply(rho.double(), a[..., :terms], b[..., :terms])
    return total.to(k.dtype)


def _coefficients(
    function: Callable[[Tensor], Tensor], kinks: tuple[float, ...], K: Tensor
) -> Tensor:
    """Hermite coefficients of f(sqrt(K) s) and the root of what they lack, (*K, terms + 1)."""
    s, w = _nodes(kinks, K)
    values = function(K.double().sqrt().unsqueeze(-1) * s)
    c = _hermite_sums(w * values, s) if kinks else (w * values) @ _basis()
    left = (w * values.square()).sum(-1) - c.square().sum(-1)
    some = left > 1e-12 * c.square().sum(-1)
    tail = torch.where(some, left, 1.0).sqrt() * some
    return torch.cat([c, tail.unsqueeze(-1)], dim=-1)


def _mean_square(
    function: Callable[[Tensor], Tensor], kinks: tuple[float, ...], K: Tensor
) -> Tensor:
    s, w = _nodes(kinks, K)
    values = function(K.double().sqrt().unsqueeze(-1) * s)
    return (w * values.square()).sum(-1).to(K.dtype)


def _nodes(kinks: tuple[float, ...], K: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights: those of all variances, or of each where it has kinks."""
    if not kinks:
        return _fixed_nodes()
    return quadrature(K.detach().double(), kinks)


@cache
def _fixed_nodes() -> tuple[Tensor, Tensor]:
    return quadrature(torch.ones((), dtype=torch.float64))


@cache
def _basis() -> Tensor:
    """Normalised Hermite polynomials at the fixed nodes, (nodes, terms)."""
    return torch.stack(list(_hermite(_fixed_nodes()[0])), dim=-1)


def _hermite_sums(weighted: Tensor, s: Tensor) -> Tensor:
    return torch.stack([(weighted * h).sum(-1) for h in _hermite(s)], dim=-1)


def _hermite(s: Tensor) -> Iterator[Tensor]:
    """Normalised Hermite polynomials at s, by degree."""
    before, now = torch.zeros_like(s), torch.ones_like(s)
    for j in range(_TERMS):
        yield now
        before, now = now, (s * now - math.sqrt(j) * before) / math.sqrt(j + 1)
