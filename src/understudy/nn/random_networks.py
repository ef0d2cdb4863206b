r"""Ensembles of random multilayer perceptrons, drawn and measured layer by layer.

.. math:: z^{(l+1)} = b + W \phi(z^{(l)}) + \gamma z^{(l)}, \quad b_i \sim N(0, C_b), \quad
          W_{ij} \sim N(0, C_W / n)

for one input, whose first layer is exactly :math:`N(0, K^{(1)})`. The neural tangent kernel of the
units of a layer, :math:`H_{ij} = \sum_\mu \lambda_\mu\, \partial_\mu z_i\, \partial_\mu z_j`,
follows from that of the one before, for each network,

.. math:: H'_{ij} = \delta_{ij} \left(\lambda_b + \frac{\lambda_W}{n} |\phi|^2\right)
          + (W \phi')\, H\, (W \phi')^\top .
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.nn.gaussian_expectation import Activation


@dataclass(frozen=True)
class Ensemble:
    """How to draw networks.

    Parameters
    ----------
    phi : Activation
    C_b, C_W : float
        Variance of a bias, and of a weight times its fan-in.
    width, depth : int
        Units of every layer, and layers.
    K1 : float
        Variance of a first-layer unit.
    gamma : float
        Residual coefficient.
    """

    phi: Activation
    C_b: float
    C_W: float
    width: int
    depth: int
    K1: float = 1.0
    gamma: float = 0.0


def layers(ensemble: Ensemble, networks: int, generator: torch.Generator) -> Iterator[Tensor]:
    r"""Pre-activations (networks, width) of each layer in turn, in single precision.

    Given a layer, the weighted sums into the next are independent Gaussians of variance
    :math:`C_b + C_W |\phi|^2 / n`, exactly; so they are drawn without their n^2 weights.
    """
    z = math.sqrt(ensemble.K1) * torch.randn(networks, ensemble.width, generator=generator)
    yield z
    for _ in range(ensemble.depth - 1):
        square = ensemble.phi(z).square().mean(-1, keepdim=True)
        noise = torch.randn(z.shape, generator=generator)
        z = (ensemble.C_b + ensemble.C_W * square).sqrt() * noise + ensemble.gamma * z
        yield z


def tangent_layers(
    ensemble: Ensemble,
    networks: int,
    generator: torch.Generator,
    squared_input: float,
    lam_b: float = 0.0,
    lam_W: float = 1.0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pre-activations (networks, n) and tangent kernels (networks, n, n) of each layer in turn.

    ``squared_input`` is the mean square of the input's entries; residual networks are not covered.
    """
    n, eye = ensemble.width, torch.eye(ensemble.width)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    z = math.sqrt(ensemble.K1) * normal(networks, n)
    H = (lam_b + lam_W * squared_input) * eye.expand(networks, -1, -1)
    yield z, H
    for _ in range(ensemble.depth - 1):
        W = normal(networks, n, n) * math.sqrt(ensemble.C_W / n)
        value, slope = ensemble.phi(z), W * ensemble.phi.derivative(z).unsqueeze(-2)
        own = lam_b + lam_W * value.square().mean(-1)
        H = torch.baddbmm(own[:, None, None] * eye, slope @ H, slope.mT)
        bias = math.sqrt(ensemble.C_b) * normal(networks, n)
        z = torch.bmm(W, value.unsqueeze(-1)).squeeze(-1) + bias
        yield z, H


def pair_mean(a: Tensor, b: Tensor) -> Tensor:
    """Mean of a_i b_j over i != j, (networks,), of a and b (networks, n)."""
    n = a.shape[-1]
    return (a.sum(-1) * b.sum(-1) - (a * b).sum(-1)) / (n * (n - 1))


def pair_covariance(a: Tensor, b: Tensor) -> float:
    """Covariance of a_i and b_j, i != j, over the networks: unbiased.

    Parameters
    ----------
    a, b : Tensor (networks, n)
        Exchangeable over the n units.
    """
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    networks = len(a)
    error_of_the_means = (a.mean(-1) * b.mean(-1)).sum() / (networks * (networks - 1))
    return float(pair_mean(a, b).mean() + error_of_the_means)
