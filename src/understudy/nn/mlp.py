"""Many small networks evaluated as one: multilayer perceptrons stacked along a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "tanh": torch.tanh,
    "sin": torch.sin,
}


class BatchedMLP(nn.Module):
    r"""B independent multilayer perceptrons with one matrix product a layer.

    .. math:: h_0 = x,\quad h_{l+1} = \sigma(h_l W_l + b_l),\quad f(x) = h_L W_L + b_L

    with :math:`W_l` of shape (B, in, out), so a layer of all networks is one batched product.

    Parameters
    ----------
    networks : int
        Number of networks, B.
    sizes : sequence of int
        Widths from input to output, (d, h_1, ..., o).
    activation : str
        One of `ACTIVATIONS`.
    gain : float
        Weights are drawn from :math:`N(0, \text{gain}^2/\text{in})`; :math:`\sqrt 2` is He's
        (2015, arXiv 1502.01852). Biases are uniform in :math:`\pm 1/\sqrt{\text{in}}`.
    last_gain : float
        The gain of the last layer; small values start from a constant function.
    seed : int
        Of the initial weights.
    """

    def __init__(
        self,
        networks: int,
        sizes: Sequence[int],
        activation: str = "silu",
        gain: float = math.sqrt(2.0),
        last_gain: float = 1.0,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation must be one of {known}, got {activation!r}")
        self.sizes = tuple(sizes)
        self.activation = ACTIVATIONS[activation]
        generator = torch.Generator().manual_seed(seed)
        gains = [gain] * (len(sizes) - 2) + [last_gain]
        pairs = list(pairwise(sizes))
        self.weights = nn.ParameterList(
            torch.randn(networks, i, o, generator=generator, dtype=dtype) * (g / math.sqrt(i))
            for (i, o), g in zip(pairs, gains, strict=True)
        )
        self.biases = nn.ParameterList(
            (2.0 * torch.rand(networks, 1, o, generator=generator, dtype=dtype) - 1.0)
            / math.sqrt(i)
            for i, o in pairs
        )

    def forward(self, x: Tensor, which: slice = slice(None)) -> Tensor:
        """Outputs (B, n, o) at shared inputs (n, d) or one set a network, (B, n, d)."""
        h = self.features(x, which)
        return torch.baddbmm(self.biases[-1][which], h, self.weights[-1][which])

    def features(self, x: Tensor, which: slice = slice(None)) -> Tensor:
        """Last hidden layer (B, n, h), of some of the networks if asked."""
        h = x.expand(len(self.weights[0][which]), *x.shape) if x.ndim == 2 else x
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = self.activation(torch.baddbmm(bias[which], h, weight[which]))
        return h
