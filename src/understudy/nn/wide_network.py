r"""Random networks of finite width whose read-out has a random scale.

Lee, Yun, Yang & Lee (2022, arXiv 2107.01408): hidden weights are :math:`N(0,
\sigma_w^2/\text{fan-in})`, hidden biases :math:`N(0, \sigma_b^2)`; the read-out has no bias and
weights :math:`N(0, s/n)` with one :math:`s \sim H` a network. As the width n grows the network
tends to the scale mixture :math:`f \mid s \sim GP(0, s k)`, :math:`k = E[\phi\phi']` in the last
hidden layer. It does so too after its read-out was trained by gradient descent on squared error,
which leads from :math:`f_0` to

.. math:: f(x) = f_0(x) + \hat k(x)^\top \hat K^{-1} (y - f_0(X)), \qquad
          \hat k(x, x') = \tfrac1n \phi(x)^\top \phi(x').
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from understudy.core.linalg import cholesky
from understudy.nn.gaussian_expectation import activation as describe
from understudy.nn.infinite_width import ActivationLike, nngp
from understudy.nn.scale_prior import ScalePrior


class Elementwise(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function."""
        return self.function(x)


def sample_wide_network(
    inputs: int,
    scale_prior: ScalePrior,
    *,
    width: int = 512,
    depth: int = 3,
    outputs: int = 1,
    activation: ActivationLike = "relu",
    weight_std: float = 1.0,
    bias_std: float = 0.0,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Draw a network of finite width, to be looked at or trained.

    An ensemble of heavy-tailed networks is several of them: each has a scale of its own.

    Parameters
    ----------
    inputs, outputs : int
    scale_prior : ScalePrior
        Prior H of the variance of the read-out's weights, drawn once.
    width, depth : int
        Units of a hidden layer, and hidden layers.
    activation : str, Module, callable or Activation
    weight_std, bias_std : float
        Of the hidden layers.
    generator : torch.Generator, optional

    Returns
    -------
    nn.Sequential
        Linear layers and activations, float32; the last layer has no bias.
    """
    phi, parts, fan = describe(activation), list[nn.Module](), inputs
    for _ in range(depth):
        layer = nn.Linear(fan, width)
        _normal(layer.weight, weight_std * fan**-0.5, generator)
        _normal(layer.bias, bias_std, generator)
        parts += [layer, Elementwise(phi.function)]
        fan = width
    last = nn.Linear(fan, outputs, bias=False)
    s = float(scale_prior.sample(1, generator))
    _normal(last.weight, math.sqrt(s / fan), generator)
    return nn.Sequential(*parts, last)


@torch.no_grad()
def _normal(parameter: Tensor, std: float, generator: torch.Generator | None) -> None:
    parameter.copy_(std * torch.randn(parameter.shape, generator=generator))


def sample_last_features(
    X: Tensor,
    networks: int,
    *,
    width: int = 512,
    depth: int = 3,
    activation: ActivationLike = "relu",
    weight_std: float = 1.0,
    bias_std: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Last hidden layers of many networks, as `sample_wide_network` draws them, at once.

    Given a layer :math:`\phi` (p, n), the units of the next are independent, and over the p points
    :math:`N(0, \sigma_b^2 + \sigma_w^2 \phi\phi^\top / n)` exactly: so they are drawn, without
    their n^2 weights.

    Parameters
    ----------
    X : Tensor (p, d), float64
        Points, fewer than units.
    networks : int
    width, depth, activation, weight_std, bias_std, generator
        As of `sample_wide_network`.

    Returns
    -------
    Tensor (networks, p, width)
    """
    phi, hidden = describe(activation), X.expand(networks, -1, -1)
    for _ in range(depth):
        K = weight_std**2 * (hidden @ hidden.mT) / hidden.shape[-1] + bias_std**2
        noise = torch.randn((networks, len(X), width), generator=generator, dtype=X.dtype)
        hidden = phi(cholesky(K) @ noise)
    return hidden


def last_feature_kernel(
    A: Tensor,
    B: Tensor,
    *,
    depth: int,
    activation: ActivationLike,
    weight_std: float,
    bias_std: float,
) -> Tensor:
    """Limit (p, q) of the kernel of the last hidden layer at A (p, d) and B (q, d)."""
    weight, bias = (torch.tensor(v**2, dtype=A.dtype) for v in (weight_std, bias_std))
    return (nngp(A, B, depth, activation, weight, bias) - bias) / weight


def train_readout(
    features: Tensor, at: Tensor, y: Tensor, f: Tensor, f_at: Tensor, jitter: float = 1e-10
) -> Tensor:
    """Values of networks at new points after their read-out was trained to interpolate.

    Parameters
    ----------
    features, at : Tensor (networks, p, n), (networks, q, n)
        Last hidden layers at training and at new points.
    y : Tensor (p,)
        Targets.
    f, f_at : Tensor (networks, p), (networks, q)
        Values at initialisation.

    Returns
    -------
    Tensor (networks, q)
        The limit of gradient descent on squared error with small steps.
    """
    n = features.shape[-1]
    K = features @ features.mT / n
    K = K + jitter * K.diagonal(dim1=-2, dim2=-1).mean() * torch.eye(len(y), dtype=K.dtype)
    step = torch.cholesky_solve((y - f).unsqueeze(-1), cholesky(K))
    return f_at + (at @ (features.mT @ step)).squeeze(-1) / n
