r"""Posterior of a network's hidden layers, its output layer integrated out.

Given the hidden layers :math:`\theta`, a network with a Gaussian likelihood and prior is a linear
regression on its last features :math:`\Phi = [h_\theta(X), 1]`, (n, k), so its output layer
:math:`V` has a normal distribution with

.. math:: A = \Phi^T \Phi / \sigma^2 + I / \tau^2, \qquad \hat V = A^{-1} \Phi^T Y / \sigma^2

and with residuals :math:`R = Y - \Phi \hat V` and m outputs

.. math:: \log p(Y \mid \theta) = -\tfrac12 \big[ |R|^2 / \sigma^2 + |\hat V|^2 / \tau^2
          + m \log |A| + m k \log \tau^2 + m n \log 2\pi\sigma^2 \big]

.. math:: \nabla_\Phi \log p(Y \mid \theta)
          = \big[ R \hat V^T - m\, \Phi A^{-1} \big] / \sigma^2

Features may turn as long as some output layer still fits the data, so this density is far less
stiff than that of all weights, and leapfrog steps are several times longer. Exact draws of
:math:`V` given :math:`\theta` complete draws of :math:`\theta` to draws of all weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from understudy.nn.bayesian_mlp import (
    BACKWARD,
    FlatMLP,
    Pullback,
    activated,
)

_LOG_2PI = math.log(2.0 * math.pi)


@dataclass(frozen=True)
class OutputLayer:
    """What data say of the output layer given the hidden ones, in double precision.

    Parameters
    ----------
    features : Tensor (chains, n, k)
        Last features, that of the bias included; 0 for rows that a chain does not see.
    targets : Tensor (chains, n, m)
        Outputs, likewise.
    factor : Tensor (chains, k, k)
        Lower Cholesky factor of the layer's precision.
    inverse : Tensor (chains, k, k)
        Inverse of the precision: the layer's covariance.
    mean : Tensor (chains, k, m)
    """

    features: Tensor
    targets: Tensor
    factor: Tensor
    inverse: Tensor
    mean: Tensor

    def draw(self, generator: torch.Generator) -> Tensor:
        """Weights and biases (chains, k, m), one draw a chain."""
        noise = torch.randn(
            self.mean.shape, generator=generator, dtype=self.mean.dtype, device=self.mean.device
        )
        return self.mean + torch.linalg.solve_triangular(self.factor.mT, noise, upper=True)


@dataclass(frozen=True)
class CollapsedJoint:
    """Log joint density of data and hidden weights, with noise and prior variances given.

    The arguments are those of `understudy.nn.bayesian_mlp.GaussianJoint`, whose density this is
    with the output layer integrated out.

    Parameters
    ----------
    network : FlatMLP
        With a hidden layer at least.
    x : Tensor (n, d)
    y : Tensor (n, m)
    prior_variance, noise_variance : Tensor (chains,)
    weight : Tensor (chains, n), optional
        1 for the rows that a chain sees, 0 for the others; all by default.
    """

    network: FlatMLP
    x: Tensor
    y: Tensor
    prior_variance: Tensor
    noise_variance: Tensor
    weight: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.network.sizes) < 3:
            raise ValueError(f"a network without hidden layers has none left: {self.network.sizes}")

    @cached_property
    def hidden(self) -> FlatMLP:
        """Network from the inputs to the last hidden layer before its activation."""
        return replace(self.network, sizes=self.network.sizes[:-1])

    def __call__(self, theta: Tensor) -> Tensor:
        """Log joint density (chains,) at hidden weights theta (chains, dim); not differentiable."""
        return self.value_and_gradient(theta)[0]

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Log joint densities (chains,) and gradients (chains, dim) at hidden weights theta."""
        h, pullback = self._last_hidden(theta)
        layer, m = self._output_layer(h), self.y.shape[1]
        residual = layer.targets - torch.bmm(layer.features, layer.mean)
        logs = layer.factor.diagonal(dim1=1, dim2=2).log().sum(1)
        squares = torch.linalg.vecdot(theta, theta).double() + _squares(layer.mean)
        misfit = _squares(residual) * self._half_precisions[0] + squares * self._half_precisions[1]
        value = self._constant - misfit - m * logs
        pull = torch.baddbmm(
            torch.bmm(residual, layer.mean.mT), layer.features, layer.inverse, alpha=-m
        )
        gradient = pullback((pull[..., :-1] * self._pull).to(theta))
        return value.to(theta), gradient.addcmul_(theta, self._shrink.to(theta))

    def complete(self, theta: Tensor, generator: torch.Generator) -> Tensor:
        """All weights (chains, network.dim): hidden ones theta, and a draw of the output layer."""
        drawn = self._output_layer(self._last_hidden(theta)[0]).draw(generator)
        return torch.cat([theta, drawn.flatten(1).to(theta)], dim=1)

    def _last_hidden(self, theta: Tensor) -> tuple[Tensor, Pullback]:
        """Last hidden layer (chains, n, k - 1) and the pullback of gradients in it."""
        z, pullback = self.hidden.vjp(theta, self.x)
        h = activated(z, self.network.activation)
        backward = BACKWARD[self.network.activation]
        return h, lambda cotangent: pullback(backward(cotangent, h))

    def _output_layer(self, h: Tensor) -> OutputLayer:
        k, y = self.network.sizes[-2] + 1, self._bias_and_targets
        h = h.double() if self._fed == 1.0 else h.double() * self._fed
        both = torch.cat([h, y], dim=2)
        if self.weight is not None:
            both = both * self.weight.double().unsqueeze(2)
        features, targets = both[..., :k], both[..., k:]
        products = torch.bmm(features.mT, both).div_(self._noise)
        precision = products[..., :k]
        precision.diagonal(dim1=1, dim2=2).sub_(self._shrink)
        factor = torch.linalg.cholesky_ex(precision).L
        inverse = torch.cholesky_inverse(factor)
        return OutputLayer(
            features, targets, factor, inverse, torch.bmm(inverse, products[..., k:])
        )

    @cached_property
    def _constant(self) -> Tensor:
        """What the log density (chains,) has that does not depend on weights."""
        rows = len(self.x) if self.weight is None else self.weight.double().sum(1)
        noise, prior = self._noise.flatten().log(), self._prior.flatten().log()
        m, k = self.y.shape[1], self.network.sizes[-2] + 1
        of_data = m * (k * prior + rows * (_LOG_2PI + noise))
        return -0.5 * (of_data + self.hidden.dim * (_LOG_2PI + prior))

    @cached_property
    def _fed(self) -> float:
        """Factor of the last features: 1, or the root of their number where weights are scaled."""
        one = torch.ones(1, self.network.dim, dtype=torch.float64)
        return float(self.network.layers(self.network.plain(one))[-1][0][0, 0, 0])

    @cached_property
    def _bias_and_targets(self) -> Tensor:
        """Column of ones and the outputs, (chains, n, 1 + m)."""
        both = torch.cat([torch.ones_like(self.y[:, :1]), self.y], dim=1).double()
        return both.expand(len(self._noise), -1, -1)

    @cached_property
    def _noise(self) -> Tensor:
        return self.noise_variance.double()[:, None, None]

    @cached_property
    def _prior(self) -> Tensor:
        return self.prior_variance.double()[:, None, None]

    @cached_property
    def _pull(self) -> Tensor:
        return self._fed / self._noise

    @cached_property
    def _shrink(self) -> Tensor:
        return -1.0 / self._prior[..., 0]

    @cached_property
    def _half_precisions(self) -> tuple[Tensor, Tensor]:
        """Halves of the precisions (chains,) of noise and prior."""
        return 0.5 / self._noise.flatten(), 0.5 / self._prior.flatten()


def _squares(values: Tensor) -> Tensor:
    """Sum of squares (chains,) of values (chains, ...)."""
    values = values.flatten(1)
    return torch.linalg.vecdot(values, values)
