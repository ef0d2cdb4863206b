r"""Kernels of infinitely wide networks: at initialisation (NNGP) and in training (NTK).

Neal (1996), Cho & Saul (2009), Lee et al. (2018, arXiv 1711.00165), Jacot et al. (2018, arXiv
1806.07572); as a surrogate for Bayesian optimisation, "I-BNN", Li et al. (2024, arXiv 2305.20028).
For a fully connected network whose weights are :math:`N(0, \sigma_w^2/\text{fan-in})` and biases
:math:`N(0, \sigma_b^2)`, the covariance of a unit before its activation starts from

.. math:: k_0(x, x') = \sigma_b^2 + \sigma_w^2 \frac{x^\top x'}{d}, \qquad \Theta_0 = k_0

and passes each hidden layer by

.. math:: k_{l+1} = \sigma_b^2 + \sigma_w^2\, E[\phi(u)\phi(u')] + \gamma^2 k_l, \qquad
          (u, u') \sim N(0, k_l),
.. math:: \Theta_{l+1} = \sigma_b^2 + \sigma_w^2\, E[\phi(u)\phi(u')]
          + (\sigma_w^2\, E[\dot\phi(u)\dot\phi(u')] + \gamma^2)\, \Theta_l

with the expectations of `understudy.nn.pair_moments`, for any activation. The coefficient
:math:`\gamma` of a skip connection, :math:`z_{l+1} = \gamma z_l + b + W\phi(z_l)`, is 0 in a plain
network and 1 in a dense residual network; the read-out, which is the last of these layers, has
none. The tangent kernel is that of the parameterisation in which weights are standard normal and
scaled in the forward pass, as in neural-tangents. Convolutional networks are not covered.
"""

from __future__ import annotations

from typing import Any

import torch
from gpytorch.constraints import Positive
from gpytorch.kernels import Kernel
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.nn.gaussian_expectation import Activation
from understudy.nn.pair_moments import pair_moments

ActivationLike = str | nn.Module | Activation
"""A name of `understudy.nn.gaussian_expectation.NAMED`, or an elementwise activation."""


def propagate(
    k: Tensor,
    k1: Tensor,
    k2: Tensor,
    depth: int,
    activation: ActivationLike,
    weight_variance: Tensor,
    bias_variance: Tensor,
    skip: float = 0.0,
    tangent: bool = False,
) -> Tensor:
    r"""Pass a covariance through hidden layers.

    Parameters
    ----------
    k : Tensor (*batch, p, q)
        Covariances before the first hidden layer.
    k1, k2 : Tensor (*batch, p, 1), (*batch, 1, q)
        Variances of the p and of the q points there.
    depth : int
        Hidden layers.
    activation : str, Module, callable or Activation
    weight_variance, bias_variance : Tensor, broadcastable to (*batch, 1, 1)
    skip : float
        Coefficient :math:`\gamma` of the skip connections.
    tangent : bool
        The tangent kernel :math:`\Theta` instead of the covariance.

    Returns
    -------
    Tensor (*batch, p, q)
        Covariances, or tangent kernel, of the output.
    """
    moments, theta = pair_moments(activation), k
    for layer in range(depth):
        carried = skip**2 if layer < depth - 1 else 0.0
        fresh = bias_variance + weight_variance * moments.value(k, k1, k2)
        if tangent:
            theta = fresh + (weight_variance * moments.slope(k, k1, k2) + carried) * theta
        k = fresh + carried * k if carried else fresh
        k1 = bias_variance + weight_variance * moments.square(k1) + carried * k1
        k2 = bias_variance + weight_variance * moments.square(k2) + carried * k2
    return theta if tangent else k


def nngp(
    A: Tensor,
    B: Tensor,
    depth: int,
    activation: ActivationLike,
    weight_variance: Tensor,
    bias_variance: Tensor,
    skip: float = 0.0,
    tangent: bool = False,
) -> Tensor:
    """Kernel of an infinitely wide network, differentiable in everything.

    Parameters
    ----------
    A, B : Tensor (*batch, p, d), (*batch, q, d)
        Inputs.
    depth, activation, weight_variance, bias_variance, skip, tangent
        As in `propagate`.

    Returns
    -------
    Tensor (*batch, p, q)
    """
    scale = weight_variance / A.shape[-1]
    k1 = bias_variance + scale * A.square().sum(-1, keepdim=True)
    k2 = bias_variance + scale * B.square().sum(-1).unsqueeze(-2)
    k = bias_variance + scale * (A @ B.mT)
    layers = (depth, activation, weight_variance, bias_variance, skip, tangent)
    return propagate(k, k1, k2, *layers)


def ntk(
    A: Tensor,
    B: Tensor,
    depth: int,
    activation: ActivationLike,
    weight_variance: Tensor,
    bias_variance: Tensor,
    skip: float = 0.0,
) -> Tensor:
    """Tangent kernel (*batch, p, q) of an infinitely wide network; parameters as of `nngp`.

    That of ReLU has a cusp where points coincide; its gradient there is zero.
    """
    return nngp(A, B, depth, activation, weight_variance, bias_variance, skip, tangent=True)


def nngp_variance(
    A: Tensor,
    depth: int,
    activation: ActivationLike,
    weight_variance: Tensor,
    bias_variance: Tensor,
    skip: float = 0.0,
    tangent: bool = False,
) -> Tensor:
    """Diagonal (*batch, p) of `nngp` of A (*batch, p, d); variances broadcast to (*batch, 1)."""
    moments = pair_moments(activation)
    k = bias_variance + weight_variance * A.square().sum(-1) / A.shape[-1]
    theta = k
    for layer in range(depth):
        carried = skip**2 if layer < depth - 1 else 0.0
        fresh = bias_variance + weight_variance * moments.square(k)
        if tangent:
            theta = fresh + (weight_variance * moments.slope_square(k) + carried) * theta
        k = fresh + carried * k if carried else fresh
    return theta if tangent else k


class NNGPKernel(Kernel):
    """GPyTorch kernel of an infinitely wide fully connected network.

    Parameters
    ----------
    depth : int
        Hidden layers; 3 in Li et al. (2024).
    activation : str, Module, callable or Activation
        A name such as ``"relu"``, ``"erf"``, ``"tanh"`` or ``"gelu"``, or anything elementwise.
    weight_variance, bias_variance : float
        Starting values; 10 and 1.3 in Li et al. (2024), with a bias of 1.6 for many inputs.
    learnable : bool
        Whether the variances are parameters; the paper keeps them fixed.
    skip : float
        Coefficient of the skip connections: 1 for a dense residual network.
    """

    tangent = False

    has_lengthscale = False
    is_stationary = False

    def __init__(
        self,
        depth: int = 3,
        activation: ActivationLike = "relu",
        weight_variance: float = 10.0,
        bias_variance: float = 1.3,
        learnable: bool = True,
        skip: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if depth < 0:
            raise UserError(f"depth must be at least 0 hidden layers, got {depth}")
        pair_moments(activation)  # refuses what is no activation
        self.depth = depth
        self.activation = activation
        self.skip = skip
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
        layers, rest = (self.depth, self.activation), (self.skip, self.tangent)
        if not diag:
            return nngp(x1, x2, *layers, weight, bias, *rest)
        if torch.equal(x1, x2):
            return nngp_variance(x1, *layers, weight.squeeze(-1), bias.squeeze(-1), *rest)
        pairs = (x1.unsqueeze(-2), x2.unsqueeze(-2))
        inner = (weight.unsqueeze(-1), bias.unsqueeze(-1))
        return nngp(*pairs, *layers, *inner, *rest)[..., 0, 0]


class NTKKernel(NNGPKernel):
    """GPyTorch kernel of an infinitely wide network in training; parameters as of `NNGPKernel`."""

    tangent = True
