r"""Multilayer perceptrons with all weights in one vector, and what data say of those weights.

The vector :math:`\theta` of a network is :math:`W_0, b_0, W_1, b_1, \ldots`, each flattened by
rows. Many networks are a matrix (chains, dim), and a layer of all of them is one batched product.
With a Gaussian likelihood and prior,

.. math:: \log p(y, \theta) = -\tfrac12 \sum_i w_i \left[ |y_i - f_\theta(x_i)|^2 / \sigma^2
          + m \log 2\pi\sigma^2 \right] - \tfrac12 \left[ |\theta|^2 / \tau^2
          + D \log 2\pi\tau^2 \right]

where :math:`w_i` is 1 for the rows that a chain sees and 0 for the others, so that chains on
different folds of a table, or under different priors, go together. Gradients are written out:
they take two thirds of the time that autograd does on small networks.

A `Joint` is a likelihood and a prior; priors over whole layers are in
`understudy.nn.layer_priors`. `GaussianJoint` is the one above.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from understudy.nn.mlp import ACTIVATIONS

_LOG_2PI = math.log(2.0 * math.pi)

BACKWARD: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tanh": torch.ops.aten.tanh_backward,
    "relu": lambda delta, h: delta.mul_(h > 0.0),
}
"""Gradients in activations and the activations to gradients before them; may overwrite those."""

Pullback = Callable[[Tensor], Tensor]
"""Gradients (chains, n, o) in the outputs to gradients (chains, dim) in the weights."""


def activated(z: Tensor, activation: str) -> Tensor:
    r"""Activations of z, which is overwritten where nothing asks for its gradient.

    Then :math:`\tanh z = 2 / (1 + e^{-2z}) - 1`, which takes a third of the time of PyTorch's.
    """
    if activation == "tanh" and not z.requires_grad:
        return z.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)
    return ACTIVATIONS[activation](z)


@dataclass(frozen=True)
class FlatMLP:
    """Architecture of a multilayer perceptron whose weights are given as one vector.

    Parameters
    ----------
    sizes : tuple of int
        Widths from input to output, (d, h_1, ..., o).
    activation : str
        One of `understudy.nn.mlp.ACTIVATIONS`; gradients are fastest for tanh and relu.
    """

    sizes: tuple[int, ...]
    activation: str = "tanh"

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation must be one of {known}, got {self.activation!r}")

    @property
    def dim(self) -> int:
        """Number of weights and biases."""
        return sum((i + 1) * o for i, o in pairwise(self.sizes))

    def layers(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Views of theta (chains, dim): weights (chains, in, out) and biases (chains, 1, out)."""
        chains, shapes = len(theta), _layer_shapes(self.sizes)
        parts = torch.split_with_sizes(theta, [i * o for i, o in shapes], dim=1)
        views = [part.view(chains, i, o) for part, (i, o) in zip(parts, shapes, strict=True)]
        return list(zip(views[::2], views[1::2], strict=True))

    def initial(
        self,
        chains: int,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        r"""Weights (chains, dim), uniform in :math:`\pm 1/\sqrt{\text{in}}`, PyTorch's default."""
        theta = torch.rand(
            chains, self.dim, generator=generator, dtype=dtype, device=generator.device
        )
        theta.mul_(2.0).sub_(1.0)
        for (weight, bias), fed in zip(self.layers(theta), self.sizes, strict=False):
            weight.div_(math.sqrt(fed))
            bias.div_(math.sqrt(fed))
        return theta

    def plain(self, theta: Tensor) -> Tensor:
        """Weights (chains, dim) of the `FlatMLP` of the same sizes that is the same function."""
        return theta

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs (chains, n, o) at shared inputs (n, d) or one set a chain, (chains, n, d)."""
        return self._outputs(self.layers(theta), x)[-1]

    def vjp(self, theta: Tensor, x: Tensor) -> tuple[Tensor, Pullback]:
        """Outputs (chains, n, o), and what turns gradients in them into gradients in theta."""
        if self.activation not in BACKWARD:
            return self._vjp_by_autograd(theta, x)
        weights, backward = self.layers(theta), BACKWARD[self.activation]
        values = self._outputs(weights, x)

        def pullback(cotangent: Tensor) -> Tensor:
            gradient = torch.empty_like(theta)
            into, delta = self.layers(gradient), cotangent
            for layer in reversed(range(len(weights))):
                torch.bmm(values[layer].mT, delta, out=into[layer][0])
                torch.sum(delta, 1, keepdim=True, out=into[layer][1])
                if layer:
                    delta = backward(torch.bmm(delta, weights[layer][0].mT), values[layer])
            return gradient

        return values[-1], pullback

    def _outputs(self, layers: list[tuple[Tensor, Tensor]], x: Tensor) -> list[Tensor]:
        """Input, hidden layers and output."""
        chains = len(layers[0][0])
        values = [x.expand(chains, *x.shape) if x.ndim == 2 else x]
        for weight, bias in layers[:-1]:
            values.append(activated(torch.baddbmm(bias, values[-1], weight), self.activation))
        weight, bias = layers[-1]
        return [*values, torch.baddbmm(bias, values[-1], weight)]

    def _vjp_by_autograd(self, theta: Tensor, x: Tensor) -> tuple[Tensor, Pullback]:
        with torch.enable_grad():
            leaf = theta.detach().requires_grad_()
            output = self._outputs(self.layers(leaf), x)[-1]
        return output.detach(), lambda cotangent: torch.autograd.grad(output, leaf, cotangent)[0]


@lru_cache(maxsize=64)
def _layer_shapes(sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Shapes of weights and biases by turns, in their order in theta."""
    return [shape for i, o in pairwise(sizes) for shape in ((i, o), (1, o))]


@dataclass(frozen=True)
class ScaledMLP(FlatMLP):
    r"""Multilayer perceptron whose weights are divided by the root of their fan-in.

    .. math:: z = x W / \sqrt{n_{\text{in}}} + b

    (the parameterisation of the neural tangent kernel), so that weights of order one make outputs
    of order one at any width, and priors of layers are comparable.
    """

    def plain(self, theta: Tensor) -> Tensor:
        """Weights (chains, dim) of the `FlatMLP` of the same sizes that is the same function."""
        return theta * self._scale(theta)

    def initial(
        self,
        chains: int,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float64,
    ) -> Tensor:
        """Weights (chains, dim) of functions that `FlatMLP.initial` would draw."""
        theta = super().initial(chains, generator, dtype)
        return theta / self._scale(theta)

    def vjp(self, theta: Tensor, x: Tensor) -> tuple[Tensor, Pullback]:
        """Outputs (chains, n, o), and what turns gradients in them into gradients in theta."""
        scale = self._scale(theta)
        output, pullback = super().vjp(theta * scale, x)
        return output, lambda cotangent: pullback(cotangent).mul_(scale)

    def __call__(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs (chains, n, o) at shared inputs (n, d) or one set a chain, (chains, n, d)."""
        return super().__call__(self.plain(theta), x)

    def _scale(self, like: Tensor) -> Tensor:
        """Factor (dim,) of each coordinate."""
        return _fan_in_scale(self, like.dtype, like.device)


@lru_cache(maxsize=64)
def _fan_in_scale(network: FlatMLP, dtype: torch.dtype, device: torch.device) -> Tensor:
    scale = torch.ones(1, network.dim, dtype=dtype, device=device)
    for (weight, _), fed in zip(network.layers(scale), network.sizes, strict=False):
        weight.fill_(fed**-0.5)
    return scale[0]


# -- priors and likelihoods ---------------------------------------------------------------------


class Prior(Protocol):
    """Log density of weights with its gradient."""

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log densities (chains,) at theta (chains, dim), differentiable in theta."""
        ...

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Log densities (chains,) at theta (chains, dim), and gradients (chains, dim)."""
        ...


@dataclass(frozen=True)
class IsotropicPrior:
    """Weights that are independent N(0, variance), with a variance for each chain.

    Parameters
    ----------
    variance : Tensor (chains,)
    """

    variance: Tensor

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log densities (chains,) at theta (chains, dim), differentiable in theta."""
        squares = theta.square().sum(1)
        return -0.5 * (squares / self.variance + theta.shape[1] * (_LOG_2PI + self.variance.log()))

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Log densities (chains,) at theta (chains, dim), and gradients (chains, dim)."""
        return self.log_prob(theta), -theta / self.variance.unsqueeze(1)


@dataclass(frozen=True)
class DiagonalPrior:
    """Weights that are independent and normal about zero, each with a variance of its own.

    Parameters
    ----------
    variance : Tensor (dim,) or (chains, dim)
    """

    variance: Tensor

    def log_prob(self, theta: Tensor) -> Tensor:
        """Log densities (chains,) at theta (chains, dim), differentiable in theta."""
        return self.value_and_gradient(theta)[0]

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Log densities (chains,) at theta (chains, dim), and gradients (chains, dim)."""
        gradient = -theta / self.variance
        logs = (_LOG_2PI + self.variance.log()).sum(-1)
        return 0.5 * ((theta * gradient).sum(1) - logs), gradient


@dataclass(frozen=True)
class GaussianLikelihood:
    """Log likelihood of weights, with the noise variance given.

    Parameters
    ----------
    network : FlatMLP
    x : Tensor (n, d)
    y : Tensor (n, m)
    noise_variance : Tensor (chains,)
    weight : Tensor (chains, n), optional
        1 for the rows that a chain sees, 0 for the others; all by default.
    """

    network: FlatMLP
    x: Tensor
    y: Tensor
    noise_variance: Tensor
    weight: Tensor | None = None

    def __call__(self, theta: Tensor) -> Tensor:
        """Log likelihoods (chains,) at theta (chains, dim), differentiable in theta."""
        error = self.y - self.network(theta, self.x)
        return self._value(error, error * self._precision())

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Log likelihoods (chains,) at theta (chains, dim), and gradients (chains, dim)."""
        output, pullback = self.network.vjp(theta, self.x)
        error = self.y - output
        scaled = error * self._precision()
        return self._value(error, scaled), pullback(scaled)

    def _precision(self) -> Tensor:
        precision = 1.0 / self.noise_variance[:, None, None]
        return precision if self.weight is None else self.weight.unsqueeze(2) * precision

    def _value(self, error: Tensor, scaled: Tensor) -> Tensor:
        rows = len(self.x) if self.weight is None else self.weight.sum(1)
        constant = rows * self.y.shape[1] * (_LOG_2PI + self.noise_variance.log())
        return -0.5 * ((error * scaled).sum((1, 2)) + constant)


@dataclass(frozen=True)
class Joint:
    """Log joint density of data and weights: a likelihood and a prior.

    Parameters
    ----------
    likelihood : GaussianLikelihood
    prior : Prior
    """

    likelihood: GaussianLikelihood
    prior: Prior

    def __call__(self, theta: Tensor) -> Tensor:
        """Log joint density (chains,) at theta (chains, dim), differentiable in theta."""
        return self.likelihood(theta) + self.prior.log_prob(theta)

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Log joint densities (chains,) and gradients (chains, dim)."""
        value, gradient = self.likelihood.value_and_gradient(theta)
        prior, pull = self.prior.value_and_gradient(theta)
        return value + prior, gradient.add_(pull)


@dataclass(frozen=True)
class GaussianJoint:
    """Log joint density of data and weights, with noise and prior variances given.

    Parameters
    ----------
    network : FlatMLP
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

    def __call__(self, theta: Tensor) -> Tensor:
        """Log joint density (chains,) at theta (chains, dim), differentiable in theta."""
        return self._joint(theta)

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Log joint densities (chains,) and gradients (chains, dim)."""
        return self._joint.value_and_gradient(theta)

    @property
    def _joint(self) -> Joint:
        likelihood = GaussianLikelihood(
            self.network, self.x, self.y, self.noise_variance, self.weight
        )
        return Joint(likelihood, IsotropicPrior(self.prior_variance))


# -- estimates from some of the rows --------------------------------------------------------------


class MinibatchLikelihood(Protocol):
    """Log likelihood of weights, estimated from rows, for `understudy.sample.Minibatch`."""

    @property
    def network(self) -> FlatMLP:
        """Architecture; its weights are the first coordinates of a position."""
        ...

    def value_and_gradient(self, position: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates (chains,), and gradients (chains, dim), from rows ``chosen`` (chains, b)."""
        ...


@dataclass(frozen=True)
class MinibatchGaussian:
    """Gaussian likelihood with the noise variance given, estimated from some rows.

    Parameters
    ----------
    network : FlatMLP
    x : Tensor (n, d)
    y : Tensor (n, m)
    noise_variance : float
    rows : LongTensor (chains, r)
        Rows that each chain sees, then anything.
    counts : LongTensor (chains,)
        How many those are.
    """

    network: FlatMLP
    x: Tensor
    y: Tensor
    noise_variance: float
    rows: Tensor
    counts: Tensor

    def split(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (..., dim) and log noise variances (..., m)."""
        shape = (*position.shape[:-1], self.y.shape[1])
        return position, position.new_full(shape, math.log(self.noise_variance))

    def value_and_gradient(self, position: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates (chains,) of the log likelihood and (chains, dim) of its gradient."""
        at = self.rows.gather(1, chosen)
        factor = (self.counts / chosen.shape[1]).to(position)[:, None, None]
        output, pullback = self.network.vjp(position, self.x[at])
        error = self.y[at] - output
        scaled = error * (factor / self.noise_variance)
        constant = self.counts * self.y.shape[1] * (_LOG_2PI + math.log(self.noise_variance))
        return -0.5 * ((error * scaled).sum((1, 2)) + constant), pullback(scaled)


@dataclass(frozen=True)
class MinibatchSoftmax:
    r"""Likelihood of classes, :math:`p(c \mid x) \propto e^{f_c(x)}`, estimated from some rows.

    Parameters
    ----------
    network : FlatMLP
    x : Tensor (n, d)
    classes : LongTensor (n,)
        Codes from 0 to the network's outputs less one.
    """

    network: FlatMLP
    x: Tensor
    classes: Tensor

    def value_and_gradient(self, position: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates (chains,) of the log likelihood and (chains, dim) of its gradient."""
        output, pullback = self.network.vjp(position, self.x[chosen])
        factor, true = len(self.x) / chosen.shape[1], self.classes[chosen].unsqueeze(2)
        logs = output.log_softmax(2)
        cotangent = logs.exp().neg_().scatter_add_(2, true, torch.ones_like(true).to(logs))
        value = factor * logs.gather(2, true).sum((1, 2))
        return value, pullback(cotangent.mul_(factor))


@dataclass(frozen=True)
class MinibatchNoisyGaussian:
    r"""Gaussian likelihood with the logarithm of each output's noise variance as a last coordinate.

    The prior of :math:`\log\sigma^2_j` is normal about :math:`\log` of ``noise_mean`` with variance
    ``noise_spread``, and is part of the estimate.

    Parameters
    ----------
    network : FlatMLP
    x : Tensor (n, d)
    y : Tensor (n, m)
    rows : LongTensor (chains, r)
        Rows that each chain sees, then anything.
    counts : LongTensor (chains,)
        How many those are.
    noise_mean, noise_spread : float
    """

    network: FlatMLP
    x: Tensor
    y: Tensor
    rows: Tensor
    counts: Tensor
    noise_mean: float = 1e-6
    noise_spread: float = 0.01

    def split(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (..., dim) and log noise variances (..., m)."""
        return position[..., : self.network.dim], position[..., self.network.dim :]

    def value_and_gradient(self, position: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates (chains,) of the log density of data and noise, and (chains, dim) gradients."""
        theta, log_noise = self.split(position)
        at = self.rows.gather(1, chosen)
        factor = (self.counts / chosen.shape[1]).to(position)[:, None]
        output, pullback = self.network.vjp(theta, self.x[at])
        error = self.y[at] - output
        scaled = error * (factor * (-log_noise).exp()).unsqueeze(1)
        squares = (error * scaled).sum(1)
        away = (log_noise - math.log(self.noise_mean)) / self.noise_spread
        counts = self.counts.to(position)[:, None]
        noise_gradient = 0.5 * (squares - counts) - away
        value = -0.5 * (squares + counts * (_LOG_2PI + log_noise)).sum(1)
        value = value - 0.5 * self.noise_spread * away.square().sum(1)
        return value, torch.cat([pullback(scaled), noise_gradient], dim=1)


@dataclass(frozen=True)
class MinibatchJoint:
    """Log joint density of data and weights, estimated from some rows of each chain.

    Parameters
    ----------
    likelihood : MinibatchLikelihood
    prior : Prior
        Of the weights; whatever else is in a position is the likelihood's.
    """

    likelihood: MinibatchLikelihood
    prior: Prior

    def __call__(self, position: Tensor, chosen: Tensor) -> Tensor:
        """Estimates (chains,) of the log joint density from rows ``chosen`` (chains, batch)."""
        return self.value_and_gradient(position, chosen)[0]

    def value_and_gradient(self, position: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Estimates (chains,) of the log joint density and (chains, dim) of its gradient."""
        value, gradient = self.likelihood.value_and_gradient(position, chosen)
        weights = self.likelihood.network.dim
        prior, pull = self.prior.value_and_gradient(position[:, :weights])
        gradient[:, :weights] += pull
        return value + prior, gradient
