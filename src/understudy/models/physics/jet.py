r"""Taylor arithmetic: values with their first and second derivatives along coordinates.

A jet of a function u holds :math:`u`, :math:`u_i = \partial_i u` for some coordinates and
:math:`u_{ii} = \partial_i^2 u` for some of those. Arithmetic carries them forward:

.. math:: (ab)_i = a_i b + a b_i, \qquad (ab)_{ii} = a_{ii} b + 2 a_i b_i + a b_{ii},

.. math:: f(a)_i = f'(a)\, a_i, \qquad f(a)_{ii} = f'(a)\, a_{ii} + f''(a)\, a_i^2,

and a linear layer maps every part alike. One pass gives all derivatives that the residual of an
equation needs, and one pass back its gradient in the weights; nested automatic differentiation
records each derivative's own graph. Mixed derivatives are not carried.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

Operand: TypeAlias = "Jet | Tensor | float"


@dataclass(frozen=True, eq=False)
class Jet:
    """A field with derivatives.

    Parameters
    ----------
    parts : Tensor (1 + k + l, *shape)
        Value, k first derivatives, l second derivatives.
    first : tuple of str
        Coordinates of the first derivatives.
    second : tuple of str
        Coordinates of the second derivatives; all of them in `first`.
    """

    parts: Tensor
    first: tuple[str, ...] = ()
    second: tuple[str, ...] = ()

    # -- what it holds ----------------------------------------------------------------------------

    @property
    def value(self) -> Tensor:
        """The field itself, (*shape)."""
        return self.parts[0]

    def d(self, name: str) -> Tensor:
        """First derivative along a coordinate, (*shape)."""
        return self.parts[1 + self.first.index(name)]

    def dd(self, name: str) -> Tensor:
        """Second derivative along a coordinate, (*shape)."""
        return self.parts[1 + len(self.first) + self.second.index(name)]

    def map_parts(self, parts: Tensor) -> Jet:
        """Jet with other parts and the same coordinates."""
        return Jet(parts, self.first, self.second)

    def __getitem__(self, at: Any) -> Jet:
        """Jet of a part of the field."""
        at = at if isinstance(at, tuple) else (at,)
        return self.map_parts(self.parts[(slice(None), *at)])

    def detach(self) -> Jet:
        """Jet without gradients of parameters."""
        return self.map_parts(self.parts.detach())

    def along(self, first: tuple[str, ...], second: tuple[str, ...]) -> Jet:
        """The same field with these derivatives; those that it does not hold are 0."""
        if (first, second) == (self.first, self.second):
            return self
        none = torch.zeros_like(self.parts[0])
        ones = [self.d(name) if name in self.first else none for name in first]
        twos = [self.dd(name) if name in self.second else none for name in second]
        return Jet(torch.stack([self.value, *ones, *twos]), first, second)

    # -- arithmetic -------------------------------------------------------------------------------

    def __add__(self, other: Operand) -> Jet:
        if isinstance(other, Jet):
            a, b = aligned(self, other)
            return a.map_parts(a.parts + b.parts)
        return self.map_parts(torch.cat([(self.parts[0] + other)[None], self._rest(other)]))

    def _rest(self, other: Tensor | float) -> Tensor:
        """Derivatives in the shape of the field plus another."""
        if not isinstance(other, Tensor):
            return self.parts[1:]
        shape = torch.broadcast_shapes(self.parts.shape[1:], other.shape)
        room = [1] * (len(shape) - self.parts.ndim + 1)
        parts = self.parts[1:].reshape(-1, *room, *self.parts.shape[1:])
        return parts.expand(-1, *shape)

    def __mul__(self, other: Operand) -> Jet:
        if not isinstance(other, Jet):
            return self.map_parts(self.parts * other)
        a, b = aligned(self, other)
        left, right = torch.broadcast_tensors(a.parts, b.parts)
        found = _Product.apply(left, right, a.pairs)
        return a.map_parts(cast(Tensor, found))

    def __neg__(self) -> Jet:
        return self.map_parts(-self.parts)

    def __sub__(self, other: Operand) -> Jet:
        return self + (-other)

    def __truediv__(self, other: Operand) -> Jet:
        return self * (other.reciprocal() if isinstance(other, Jet) else 1.0 / other)

    def __radd__(self, other: Tensor | float) -> Jet:
        return self + other

    def __rmul__(self, other: Tensor | float) -> Jet:
        return self * other

    def __rsub__(self, other: Tensor | float) -> Jet:
        return -self + other

    def __rtruediv__(self, other: Tensor | float) -> Jet:
        return self.reciprocal() * other

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Positions of the second derivatives and of the first ones that they are of."""
        start = 1 + len(self.first)
        return tuple((start + k, 1 + self.first.index(n)) for k, n in enumerate(self.second))

    # -- functions --------------------------------------------------------------------------------

    def apply(self, f: Tensor, slope: Tensor, curvature: Tensor | None = None) -> Jet:
        """Function of the field, given its value and its two derivatives there, (*shape) each.

        The second may be left out where the jet holds no second derivatives.
        """
        parts = [f, *(slope * part for part in self.parts[1:])]
        for at, of in self.pairs:
            assert curvature is not None
            parts[at] = parts[at] + curvature * self.parts[of].square()
        return self.map_parts(torch.stack(parts))

    def tanh(self) -> Jet:
        """Hyperbolic tangent."""
        return self.map_parts(cast(Tensor, _Tanh.apply(self.parts, self.pairs)))

    def sigmoid(self) -> Jet:
        """Logistic function."""
        return 0.5 * (0.5 * self).tanh() + 0.5

    def exp(self) -> Jet:
        """Exponential."""
        f = self.value.exp()
        return self.apply(f, f, f)

    def log(self) -> Jet:
        """Natural logarithm."""
        slope = 1.0 / self.value
        return self.apply(self.value.log(), slope, -slope.square())

    def sin(self) -> Jet:
        """Sine."""
        f = self.value.sin()
        return self.apply(f, self.value.cos(), -f)

    def cos(self) -> Jet:
        """Cosine."""
        f = self.value.cos()
        return self.apply(f, -self.value.sin(), -f)

    def sqrt(self) -> Jet:
        """Square root."""
        f = self.value.sqrt()
        slope = 0.5 / f
        return self.apply(f, slope, -0.5 * slope / self.value)

    def reciprocal(self) -> Jet:
        """One over the field."""
        f = 1.0 / self.value
        return self.apply(f, -f.square(), 2.0 * f**3)

    def square(self) -> Jet:
        """Square."""
        return self * self


def coordinates(
    points: Tensor,
    names: Sequence[str],
    first: Sequence[str] = (),
    second: Sequence[str] = (),
) -> dict[str, Jet]:
    """Jets of the coordinates of points themselves.

    Parameters
    ----------
    points : Tensor (..., n, d)
    names : sequence of str
        Of the d columns.
    first, second : sequence of str
        Coordinates along which first, and also second, derivatives are carried.

    Returns
    -------
    dict of str to Jet (..., n)
        Of each column; those in `first` have the derivative 1 along themselves.
    """
    ones, twos = tuple(dict.fromkeys((*first, *second))), tuple(second)
    found = {}
    for name, column in zip(names, points.unbind(-1), strict=True):
        rest = column.new_zeros(len(ones) + len(twos), *column.shape)
        parts = torch.cat([column.unsqueeze(0), rest])
        if name in ones:
            parts[1 + ones.index(name)] = 1.0
        found[name] = Jet(parts, ones, twos)
    return found


def aligned(*jets: Jet) -> tuple[Jet, ...]:
    """The jets with the derivatives of all of them."""
    first = tuple(dict.fromkeys(name for jet in jets for name in jet.first))
    second = tuple(dict.fromkeys(name for jet in jets for name in jet.second))
    return tuple(jet.along(first, second) for jet in jets)


def stack(jets: Sequence[Jet], dim: int = -1) -> Jet:
    """Jets side by side along a new last dimension (or another from the end)."""
    if dim >= 0:
        raise ValueError("dim counts from the end, -1 is the last")
    whole = aligned(*jets)
    return whole[0].map_parts(torch.stack([jet.parts for jet in whole], dim))


def cat(jets: Sequence[Jet], dim: int = -1) -> Jet:
    """Jets joined along an existing dimension, counted from the end; others are broadcast."""
    if dim >= 0:
        raise ValueError("dim counts from the end, -1 is the last")
    whole = aligned(*jets)
    parts = [jet.parts.movedim(dim, 0) for jet in whole]
    shape = torch.broadcast_shapes(*(each.shape[1:] for each in parts))
    wide = [each.expand(len(each), *shape).movedim(0, dim) for each in parts]
    return whole[0].map_parts(torch.cat(wide, dim))


# -- the two operations that networks are made of, with their adjoints by hand ---------------------


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, pairs: tuple[tuple[int, int], ...]) -> Tensor:
        y = a[0].tanh()
        s = 1.0 - y * y
        out = a * s
        out[0] = y
        for two, one in pairs:
            out[two].addcmul_(y * s, a[one].square(), value=-2.0)
        ctx.save_for_backward(a, y, s)
        ctx.pairs = pairs
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        a, y, s = ctx.saved_tensors
        G = gradients[0]
        out = G * s
        ys = y * s
        if len(a) > 1:
            out[0].addcmul_(ys, (G[1:] * a[1:]).sum(0), value=-2.0)
        for two, one in ctx.pairs:
            t = G[two] * a[one]
            out[one].addcmul_(ys, t, value=-4.0)
            out[0].addcmul_((6.0 * y * y - 2.0) * s, t * a[one])
        return out, None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, pairs: tuple[tuple[int, int], ...]) -> Tensor:
        out = a * b[0]
        out[1:].addcmul_(b[1:], a[0].expand_as(b[1:]))
        for two, one in pairs:
            out[two].addcmul_(a[one], b[one], value=2.0)
        ctx.save_for_backward(a, b)
        ctx.pairs = pairs
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        a, b = ctx.saved_tensors
        G = gradients[0]
        need_a, need_b, _ = ctx.needs_input_grad
        left = _adjoint(G, b, ctx.pairs) if need_a else None
        right = _adjoint(G, a, ctx.pairs) if need_b else None
        return left, right, None


def _adjoint(G: Tensor, b: Tensor, pairs: tuple[tuple[int, int], ...]) -> Tensor:
    """Gradient of one factor of a product with the other, b."""
    out = G * b[0]
    if len(b) > 1:
        out[0] += (G[1:] * b[1:]).sum(0)
    for two, one in pairs:
        out[one].addcmul_(G[two], b[one], value=2.0)
    return out


def unit(jet: Jet, lower: float, upper: float) -> Jet:
    """Coordinate scaled from [lower, upper] to [-1, 1]."""
    if not (math.isfinite(upper - lower) and lower < upper):
        raise ValueError(f"lower must be below upper, found {lower} and {upper}")
    return (2.0 / (upper - lower)) * (jet - 0.5 * (lower + upper))
