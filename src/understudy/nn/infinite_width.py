r"""Infinitely wide Bayesian networks are Gaussian processes: their kernels in closed form.

Neal (1996), Cho & Saul (2009), Lee et al. (2018, arXiv 1711.00165); as a surrogate for Bayesian
optimisation, "I-BNN", Li et al. (2024, arXiv 2305.20028). For a fully connected network whose
weights are :math:`N(0, \sigma_w^2/\text{fan-in})` and biases :math:`N(0, \sigma_b^2)`, the
covariance of a unit before its activation starts from

.. math:: k_0(x, x') = \sigma_b^2 + \sigma_w^2 \frac{x^\top x'}{d}

and passes each hidden layer :math:`\phi` by :math:`k_{l+1} = \sigma_b^2 + \sigma_w^2\,
E[\phi(u)\phi(u')]`, :math:`(u, u') \sim N(0, k_l)`, where, with :math:`c = k(x, x') /
\sqrt{k(x, x)\, k(x', x')} = \cos\theta`,

.. math:: E[\phi\phi'] = \frac{1}{2\pi} \sqrt{k(x, x)\, k(x', x')}
          \left(\sin\theta + (\pi - \theta) \cos\theta\right) \quad \text{(ReLU)},

.. math:: E[\phi\phi'] = \frac2\pi \arcsin \frac{2 k(x, x')}
          {\sqrt{(1 + 2 k(x, x))(1 + 2 k(x', x'))}} \quad \text{(erf)}.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from gpytorch.constraints import Positive
from gpytorch.kernels import Kernel
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


def erf_moment(k: Tensor, k1: Tensor, k2: Tensor) -> Tensor:
    """Return E[erf(u) erf(u')] for covariance k and variances k1, k2, which broadcast."""
    return _ErrorFunctionMoment.apply(k, k1, k2)


def _relu_variance(k: Tensor) -> Tensor:
    return 0.5 * k


def _erf_variance(k: Tensor) -> Tensor:
    return torch.asin(2.0 * k / (1.0 + 2.0 * k)) * (2.0 / math.pi)


ACTIVATIONS: dict[
    str, tuple[Callable[[Tensor, Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]
] = {"relu": (relu_moment, _relu_variance), "erf": (erf_moment, _erf_variance)}


def propagate(
    k: Tensor,
    k1: Tensor,
    k2: Tensor,
    depth: int,
    activation: str,
    weight_variance: Tensor,
    bias_variance: Tensor,
) -> Tensor:
    """Pass a covariance through hidden layers.

    Parameters
    ----------
    k : Tensor (*batch, p, q)
        Covariances before the first hidden layer.
    k1, k2 : Tensor (*batch, p, 1), (*batch, 1, q)
        Variances of the p and of the q points there.
    depth : int
        Hidden layers.
    activation : {"relu", "erf"}
    weight_variance, bias_variance : Tensor, broadcastable to (*batch, 1, 1)

    Returns
    -------
    Tensor (*batch, p, q)
        Covariances of the output.
    """
    moment, variance = ACTIVATIONS[activation]
    for _ in range(depth):
        k = bias_variance + weight_variance * moment(k, k1, k2)
        k1 = bias_variance + weight_variance * variance(k1)
        k2 = bias_variance + weight_variance * variance(k2)
    return k


def nngp(
    A: Tensor,
    B: Tensor,
    depth: int,
    activation: str,
    weight_variance: Tensor,
    bias_variance: Tensor,
) -> Tensor:
    """Kernel of an infinitely wide network, differentiable in everything.

    Parameters
    ----------
    A, B : Tensor (*batch, p, d), (*batch, q, d)
        Inputs.
    depth, activation, weight_variance, bias_variance
        As in `propagate`.

    Returns
    -------
    Tensor (*batch, p, q)
    """
    scale = weight_variance / A.shape[-1]
    k1 = bias_variance + scale * A.square().sum(-1, keepdim=True)
    k2 = bias_variance + scale * B.square().sum(-1).unsqueeze(-2)
    k = bias_variance + scale * (A @ B.mT)
    return propagate(k, k1, k2, depth, activation, weight_variance, bias_variance)


def nngp_variance(
    A: Tensor, depth: int, activation: str, weight_variance: Tensor, bias_variance: Tensor
) -> Tensor:
    """Diagonal (*batch, p) of `nngp` of A (*batch, p, d); variances broadcast to (*batch, 1)."""
    k = bias_variance + weight_variance * A.square().sum(-1) / A.shape[-1]
    variance = ACTIVATIONS[activation][1]
    for _ in range(depth):
        k = bias_variance + weight_variance * variance(k)
    return k


class NNGPKernel(Kernel):
    """GPyTorch kernel of an infinitely wide fully connected network.

    Parameters
    ----------
    depth : int
        Hidden layers; 3 in Li et al. (2024).
    activation : {"relu", "erf"}
    weight_variance, bias_variance : float
        Starting values; 10 and 1.3 in Li et al. (2024), with a bias of 1.6 for many inputs.
    learnable : bool
        Whether the variances are parameters; the paper keeps them fixed.
    """

    has_lengthscale = False
    is_stationary = False

    def __init__(
        self,
        depth: int = 3,
        activation: str = "relu",
        weight_variance: float = 10.0,
        bias_variance: float = 1.3,
        learnable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if depth < 0 or activation not in ACTIVATIONS:
            accepted = ", ".join(ACTIVATIONS)
            raise ValueError(
                f"depth must be at least 0 and activation one of {accepted}, "
                f"got {depth} and {activation!r}"
            )
        self.depth = depth
        self.activation = activation
        for name, value in (("weight", weight_variance), ("bias", bias_variance)):
            raw = torch.nn.Parameter(torch.zeros(*self.batch_shape, 1, 1), learnable)
            self.register_parameter(f"raw_{name}_variance", raw)
            self.register_constraint(f"raw_{name}_variance", Positive())
            self.initialize(**{f"{name}_variance": value})

    @classmethod
    def li(cls, many_inputs: bool = False, **kwargs: Any) -> NNGPKernel:
        """Return the fixed kernel of Li et al. (2024): depth 3, ReLU."""
        return cls(bias_variance=1.6 if many_inputs else 1.3, learnable=False, **kwargs)

    @property
    def weight_variance(self) -> Tensor:
        """Variance of a weight times its fan-in, (*batch, 1, 1)."""
        return self.raw_weight_variance_constraint.transform(self.raw_weight_variance)

    @weight_variance.setter
    def weight_variance(self, value: Tensor | float) -> None:
        self._set("weight", value)

    @property
    def bias_variance(self) -> Tensor:
        """Variance of a bias, (*batch, 1, 1)."""
        return self.raw_bias_variance_constraint.transform(self.raw_bias_variance)

    @bias_variance.setter
    def bias_variance(self, value: Tensor | float) -> None:
        self._set("bias", value)

    def _set(self, name: str, value: Tensor | float) -> None:
        raw = getattr(self, f"raw_{name}_variance")
        constraint = getattr(self, f"raw_{name}_variance_constraint")
        wanted = torch.as_tensor(value).to(raw)
        self.initialize(**{f"raw_{name}_variance": constraint.inverse_transform(wanted)})

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **params: Any) -> Tensor:
        """Covariances (*batch, p, q) of x1 (*batch, p, d) with x2, or their diagonal."""
        weight, bias = self.weight_variance, self.bias_variance
        if not diag:
            return nngp(x1, x2, self.depth, self.activation, weight, bias)
        if torch.equal(x1, x2):
            return nngp_variance(
                x1, self.depth, self.activation, weight.squeeze(-1), bias.squeeze(-1)
            )
        pairs = (x1.unsqueeze(-2), x2.unsqueeze(-2))
        inner = (weight.unsqueeze(-1), bias.unsqueeze(-1))
        return nngp(*pairs, self.depth, self.activation, *inner)[..., 0, 0]
