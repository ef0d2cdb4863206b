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
    """Pre-activations (networks, width) of each layer in turn, in single precision."""
    for z, _ in _weighted_layers(ensemble, networks, generator, torch.float32):
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
    eye = torch.eye(ensemble.width)
    H = torch.zeros(0)
    before = torch.zeros(0)
    for z, W in _weighted_layers(ensemble, networks, generator, torch.float32):
        if W is None:
            H = (lam_b + lam_W * squared_input) * eye.expand(networks, -1, -1)
        else:
            slope = W * ensemble.phi.derivative(before).unsqueeze(-2)
            own = lam_b + lam_W * ensemble.phi(before).square().mean(-1)
            H = torch.baddbmm(own[:, None, None] * eye, slope @ H, slope.mT)
        before = z
        yield z, H


def _weighted_layers(
    ensemble: Ensemble, networks: int, generator: torch.Generator, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor | None]]:
    n = ensemble.width

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    z = math.sqrt(ensemble.K1) * normal(networks, n)
    yield z, None
    for _ in range(ensemble.depth - 1):
        W = normal(networks, n, n) * math.sqrt(ensemble.C_W / n)
        bias = math.sqrt(ensemble.C_b) * normal(networks, n)
        passed = torch.bmm(W, ensemble.phi(z).unsqueeze(-1)).squeeze(-1)
        z = passed + bias + ensemble.gamma * z
        yield z, W


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
