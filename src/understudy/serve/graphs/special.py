r"""Functions that ONNX Runtime does not have in double precision, made of those that it has.

The error function is that of Shepherd & Laframboise (1981): with :math:`t = (x - c)/(x + c)`,

.. math:: \operatorname{erfc}(x) = e^{-x^2}\, \frac{P(t)}{1 + 2x}, \qquad x \ge 0,

with a polynomial P, interpolated here at Chebyshev points to double precision. The arc sine is
refined from single precision by steps of Newton's method, on :math:`|s| \le \sqrt{1/2}`, and
elsewhere by

.. math:: \arccos x = 2 \arcsin \sqrt{(1 - x)/2}, \qquad x \ge 0 .
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

_CENTRE = 3.75
_DEGREE = 24
_FARTHEST = 26.0  # beyond it erfc is 0 in double precision


@cache
def _coefficients() -> tuple[float, ...]:
    """Coefficients of P, from the constant on."""
    from scipy.special import erfcx

    def scaled(t: np.ndarray) -> np.ndarray:
        x = _CENTRE * (1.0 + t) / (1.0 - t)
        return (1.0 + 2.0 * x) * erfcx(x)

    last = (_FARTHEST - _CENTRE) / (_FARTHEST + _CENTRE)
    series = np.polynomial.Chebyshev.interpolate(scaled, _DEGREE, domain=[-1.0, last])
    return tuple(series.convert(kind=np.polynomial.Polynomial).coef.tolist())


def erfc(x: Tensor) -> Tensor:
    """Complementary error function, elementwise; within 1e-14."""
    a = x.abs().clamp(max=_FARTHEST)
    t = (a - _CENTRE) / (a + _CENTRE)
    *rest, p = _coefficients()
    value = torch.full_like(t, p)
    for coefficient in reversed(rest):
        value = value * t + coefficient
    value = torch.exp(-a * a) * value / (1.0 + 2.0 * a)
    return torch.where(x < 0, 2.0 - value, value)


def ndtr(z: Tensor) -> Tensor:
    """Distribution function of the standard normal, elementwise."""
    return 0.5 * erfc(-math.sqrt(0.5) * z)


def acos(x: Tensor) -> Tensor:
    """Arc cosine of numbers between -1 and 1, elementwise."""
    s = (0.5 * (1.0 - x.abs())).clamp_min(0.0).sqrt()
    half = torch.asin(s.float()).to(s.dtype)
    for _ in range(2):
        half = half - (torch.sin(half) - s) / torch.cos(half)
    return torch.where(x < 0, math.pi - 2.0 * half, 2.0 * half)


def asin(x: Tensor) -> Tensor:
    """Arc sine of numbers between -1 and 1, elementwise."""
    return 0.5 * math.pi - acos(x)


def softplus(x: Tensor) -> Tensor:
    """Logarithm of 1 + exp(x), elementwise."""
    return x.clamp_min(0.0) + torch.log(1.0 + torch.exp(-x.abs()))


def _doubled(function: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """A decomposition of double precision only."""

    def decomposed(x: Tensor, *defaults: Any) -> Any:
        return function(x) if x.dtype == torch.float64 else NotImplemented

    return decomposed


def decompositions() -> dict[Any, Callable[..., Any]]:
    """What stands for operators of PyTorch in double precision, for `run_decompositions`."""
    aten = torch.ops.aten
    return {
        aten.erf.default: _doubled(lambda x: 1.0 - erfc(x)),
        aten.erfc.default: _doubled(erfc),
        aten.special_ndtr.default: _doubled(ndtr),
        aten.acos.default: _doubled(acos),
        aten.asin.default: _doubled(asin),
        aten.softplus.default: _doubled(softplus),
    }
