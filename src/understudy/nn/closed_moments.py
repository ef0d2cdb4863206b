r"""Second moments of ReLU and erf over two correlated Gaussians, in closed form.

For :math:`(u, u') \sim N(0, (k_1, k; k, k_2))` and :math:`\cos\theta = k / \sqrt{k_1 k_2}` (Cho &
Saul 2009; Williams 1997),

.. math:: E[\phi\phi'] = \frac{1}{2\pi} \sqrt{k_1 k_2}
          \left(\sin\theta + (\pi - \theta) \cos\theta\right), \qquad
          E[\dot\phi\dot\phi'] = \frac{\pi - \theta}{2\pi} \quad \text{(ReLU)},

.. math:: E[\phi\phi'] = \frac2\pi \arcsin \frac{2 k}{\sqrt{(1 + 2 k_1)(1 + 2 k_2)}}, \qquad
          E[\dot\phi\dot\phi'] = \frac{4/\pi}{\sqrt{(1 + 2 k_1)(1 + 2 k_2) - 4 k^2}}
          \quad \text{(erf)}.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _RectifiedMoment(torch.autograd.Function):
    r"""ReLU's :math:`E[\phi\phi']` of k(x, x'), k(x, x) and k(x', x'), which broadcast.

    Its derivatives, :math:`(\pi - \theta)/2\pi` and :math:`\sin\theta \sqrt{k(x', x')/k(x, x)} /
    4\pi`, are finite where the points coincide, unlike those of arccos.
    """

    @staticmethod
    def forward(ctx: Any, k: Tensor, k1: Tensor, k2: Tensor) -> Tensor:
        norm = (k1 * k2).sqrt()
        cosine = (k / norm).clamp(-1.0, 1.0)
        angle = torch.acos(cosine)
        sine = (1.0 - cosine.square()).sqrt()
        ctx.save_for_backward(angle, sine, k1, k2)
        return norm * (sine + (math.pi - angle) * cosine) / (2.0 * math.pi)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        angle, sine, k1, k2 = ctx.saved_tensors
        across = gradient * (math.pi - angle) / (2.0 * math.pi)
        shared = gradient * sine / (4.0 * math.pi)
        ratio = (k2 / k1).sqrt()
        return (
            across,
            (shared * ratio).sum_to_size(k1.shape),
            (shared / ratio).sum_to_size(k2.shape),
        )


class _RectifiedSlopeMoment(torch.autograd.Function):
    r"""ReLU's :math:`E[\dot\phi\dot\phi'] = (\pi - \theta) / 2\pi`.

    It has a cusp where points coincide; there the derivative is the mean of those of either side,
    which is zero.
    """

    @staticmethod
    def forward(ctx: Any, k: Tensor, k1: Tensor, k2: Tensor) -> Tensor:
        norm = (k1 * k2).sqrt()
        cosine = (k / norm).clamp(-1.0, 1.0)
        ctx.save_for_backward(cosine, norm, k1, k2)
        return 0.5 - torch.acos(cosine) / (2.0 * math.pi)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cosine, norm, k1, k2 = ctx.saved_tensors
        square = 1.0 - cosine.square()
        apart = square > 4.0 * torch.finfo(square.dtype).eps
        inverse = torch.where(apart, square, 1.0).rsqrt() * apart
        slope = gradient * inverse / (2.0 * math.pi)
        own = -0.5 * slope * cosine
        return (
            slope / norm,
            (own / k1).sum_to_size(k1.shape),
            (own / k2).sum_to_size(k2.shape),
        )


class _ErrorFunctionMoment(torch.autograd.Function):
    r"""erf's :math:`E[\phi\phi']`.

    With :math:`r^2 = (1 + 2k(x, x))(1 + 2k(x', x')) - 4k(x, x')^2`, the derivative in k(x, x') is
    :math:`4/(\pi r)`.
    """

    @staticmethod
    def forward(ctx: Any, k: Tensor, k1: Tensor, k2: Tensor) -> Tensor:
        a, b = 1.0 + 2.0 * k1, 1.0 + 2.0 * k2
        ctx.save_for_backward(k, a, b)
        return torch.asin((2.0 * k / (a * b).sqrt()).clamp(-1.0, 1.0)) * (2.0 / math.pi)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        k, a, b = ctx.saved_tensors
        root = (a * b - 4.0 * k.square()).clamp_min(1e-30).sqrt()
        across = gradient * 4.0 / (math.pi * root)
        return (
            across,
            (-across * k / a).sum_to_size(a.shape),
            (-across * k / b).sum_to_size(b.shape),
        )


def relu_moment(k: Tensor, k1: Tensor, k2: Tensor) -> Tensor:
    """Return E[relu(u) relu(u')] for covariance k and variances k1, k2, which broadcast."""
    return _RectifiedMoment.apply(k, k1, k2)


def relu_slope_moment(k: Tensor, k1: Tensor, k2: Tensor) -> Tensor:
    """Return the probability that both u and u' are positive; k, k1 and k2 broadcast."""
    return _RectifiedSlopeMoment.apply(k, k1, k2)


def erf_moment(k: Tensor, k1: Tensor, k2: Tensor) -> Tensor:
    """Return E[erf(u) erf(u')] for covariance k and variances k1, k2, which broadcast."""
    return _ErrorFunctionMoment.apply(k, k1, k2)


def erf_slope_moment(k: Tensor, k1: Tensor, k2: Tensor) -> Tensor:
    """Return E[erf'(u) erf'(u')] for covariance k and variances k1, k2, which broadcast."""
    square = (1.0 + 2.0 * k1) * (1.0 + 2.0 * k2) - 4.0 * k.square()
    return (4.0 / math.pi) * square.rsqrt()
