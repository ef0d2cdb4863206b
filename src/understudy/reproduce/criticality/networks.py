"""Perceptrons of many seeds and variances in one batch, and what depth does to their signals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from understudy.nn.gaussian_expectation import activation
from understudy.reproduce.criticality.setting import Budget


@dataclass
class Networks:
    """B perceptrons as batched parameters.

    Parameters
    ----------
    phi : callable
        The activation.
    weights : list of Tensor (B, in, out)
    biases : list of Tensor (B, 1, out)
    """

    phi: Callable[[Tensor], Tensor]
    weights: list[Tensor]
    biases: list[Tensor]

    @classmethod
    def draw(
        cls,
        phi: Callable[[Tensor], Tensor],
        sizes: Sequence[int],
        C_b: Sequence[float],
        C_W: Sequence[float],
        seeds: Sequence[int],
    ) -> Networks:
        """Networks of variances C_b and C_W (B,), the first layer's being 0 and 1."""
        b, w = (torch.tensor(v).sqrt().view(-1, 1, 1) for v in (C_b, C_W))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]

        def normal(*shape: int) -> Tensor:
            return torch.stack([torch.randn(*shape, generator=g) for g in generators])

        weights, biases = [], []
        for layer, (n, after) in enumerate(pairwise(sizes)):
            first = layer == 0
            scale = torch.ones_like(w) if first else w
            weights.append((scale * normal(n, after) / math.sqrt(n)).requires_grad_())
            biases.append((normal(1, after) * (0.0 * b if first else b)).requires_grad_())
        return cls(phi, weights, biases)

    def preactivations(self, x: Tensor) -> list[Tensor]:
        """Of every layer (B, m, out), at inputs (m, d) or (B, m, d)."""
        h = x.expand(len(self.weights[0]), *x.shape) if x.ndim == 2 else x
        found = []
        for W, b in zip(self.weights, self.biases, strict=True):
            found.append(torch.baddbmm(b, h, W))
            h = self.phi(found[-1])
        return found


def depth_changes(
    name: str, C_b: float, C_W: float, K1: float, budget: Budget, seed: int
) -> tuple[float, float]:
    """Last over first layer: ensemble mean of K, and of the squared gradient norm.

    Parameters
    ----------
    name : str
        Of an activation.
    C_b, C_W : float
        Variances of biases and weights.
    K1 : float
        Variance of the first layer.
    budget : Budget
    seed : int
    """
    n, B = 100, budget.deep_networks
    start = 10_000 * seed
    networks = Networks.draw(
        activation(name).function,
        [n] * (budget.deep + 1),
        [C_b] * B,
        [C_W] * B,
        range(start, start + B),
    )
    generator = torch.Generator().manual_seed(seed)
    x = F.normalize(torch.randn(1, n, generator=generator)) * math.sqrt(n * K1)
    z = networks.preactivations(x)
    direction = torch.randn(z[-1].shape, generator=generator)
    ends = [networks.weights[1], networks.weights[-1]]
    gradients = torch.autograd.grad((direction * z[-1]).sum(), ends)
    K = [float(layer.detach().double().square().mean()) for layer in (z[0], z[-1])]
    squares = [float(g.double().square().sum() / B) for g in gradients]
    return K[1] / K[0], squares[1] / squares[0]
