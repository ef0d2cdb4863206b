r"""Networks of jets: small tanh networks, many at once, and heads that keep gradients alive.

A parameter of E independent networks has E as its first dimension; network e is drawn from seed e
alone, whatever stands beside it. Features are jets (E, n, d), see `understudy.models.physics.jet`.

`GatedHeads` is the architecture of Wang, Teng & Perdikaris (2021, arXiv 2001.04536): with
:math:`U, V, H = \tanh(W_{u,v,h} x + b_{u,v,h})`, repeated,

.. math:: Z = \tanh(W H + b), \qquad H \leftarrow (1 - Z) \odot U + Z \odot V,

and a linear last layer. Kernels and biases start as :math:`N(0, 2/d)`, as in arXiv 2312.17329.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from understudy.models.physics.jet import Jet


class Affine(nn.Module):
    """E linear layers (E, d, o) of jets, in float64.

    Parameters
    ----------
    inputs, outputs : int
        d and o.
    generators : sequence of Generator
        One for each network.
    bias : bool
        Whether there is a bias (E, 1, o).
    heads : int
        Layers of each network, one behind the other along the first dimension: (E * heads, d, o).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        generators: Sequence[torch.Generator],
        bias: bool = True,
        heads: int = 1,
    ) -> None:
        super().__init__()

        def drawn(*shape: int, fan: int) -> nn.Parameter:
            each = [
                torch.randn(heads, *shape, generator=g, dtype=torch.float64) for g in generators
            ]
            return nn.Parameter(torch.cat(each) * math.sqrt(2.0 / fan))

        self.weight = drawn(inputs, outputs, fan=inputs)
        self.bias = drawn(1, outputs, fan=outputs) if bias else None

    def of(self, x: Tensor, head: int, heads: int) -> Tensor:
        """Values (E, n, o) of one layer of each network at features (E, n, d)."""
        out = x @ self.weight[head::heads]
        return out if self.bias is None else out + self.bias[head::heads]

    def forward(self, x: Jet) -> Jet:
        """Map features (E, n, d) to (E, n, o)."""
        return x.map_parts(cast(Tensor, _Affine.apply(x.parts, self.weight, self.bias)))


class _Affine(torch.autograd.Function):
    """Every part times the weight; the bias belongs to the value alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        out = x @ weight
        if bias is not None:
            out[0] += bias
        ctx.save_for_backward(x, weight)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        G = gradients[0]
        K, E, n, o = G.shape
        inward = G @ weight.mT if ctx.needs_input_grad[0] else None
        if inward is not None and x.shape[1] != E:
            inward = inward.sum(1, keepdim=True)
        left = x.expand(K, E, n, -1).permute(1, 3, 0, 2).reshape(E, -1, K * n)
        right = G.transpose(0, 1).reshape(E, K * n, o)
        bias = G[0].sum(1, keepdim=True) if ctx.needs_input_grad[2] else None
        return inward, left @ right, bias


class JetMLP(nn.Module):
    """E tanh networks of jets.

    Parameters
    ----------
    sizes : sequence of int
        Widths from input to output.
    seeds : sequence of int
        One for each network.
    """

    def __init__(self, sizes: Sequence[int], seeds: Sequence[int] = (0,)) -> None:
        super().__init__()
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.layers = nn.ModuleList(Affine(i, o, generators) for i, o in pairwise(sizes))

    def forward(self, x: Jet) -> Jet:
        """Outputs (E, n, o) at features (E, n, d) or, the same for all networks, (1, n, d)."""
        *inner, last = self.layers
        for layer in inner:
            x = layer(x).tanh()
        return cast(Jet, last(x))


class GatedHeads(nn.Module):
    """H networks from the same features to one output each, with gates between two of them.

    Parameters
    ----------
    inputs, width, heads : int
        Features, units of each layer, and outputs H.
    generators : sequence of Generator
        One for each of the E networks.
    gates : int
        Gated layers.
    bias : bool
        Whether the outputs have a bias.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        heads: int,
        generators: Sequence[torch.Generator],
        gates: int = 2,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.start = Affine(inputs, 3 * heads * width, generators)
        with torch.no_grad():  # each of the 3 H layers has its own number of units
            assert self.start.bias is not None
            self.start.bias.mul_(math.sqrt(3.0 * heads))
        self.gates = nn.ModuleList(
            Affine(width, width, generators, heads=heads) for _ in range(gates)
        )
        self.last = Affine(width, 1, generators, bias=bias, heads=heads)

    def values(self, x: Tensor, head: int) -> Tensor:
        """Values (E, n) of one output at features (E, n, d), for the cost of one."""
        h, w = self.heads, self.width
        E = len(self.start.weight)
        own = torch.arange(w, device=x.device) + head * w
        columns = torch.cat([own, own + h * w, own + 2 * h * w])
        assert self.start.bias is not None
        start = x @ self.start.weight[..., columns] + self.start.bias[..., columns]
        U, V, H = start.tanh().expand(E, -1, -1).split(w, -1)
        rise = V - U
        for gate in self.gates:
            H = U + cast(Affine, gate).of(H, head, h).tanh() * rise
        return self.last.of(H, head, h)[..., 0]

    def forward(self, x: Jet) -> Jet:
        """Outputs (E, H, n) at features (E, n, d).

        One network takes the features of several (a parent of many) one after the other.
        """
        K, E, n, d = x.parts.shape
        if len(self.start.weight) == 1 and E > 1:
            out = self(x.map_parts(x.parts.reshape(K, 1, E * n, d))).parts
            return x.map_parts(out.reshape(K, self.heads, E, n).transpose(1, 2))
        U, V, H = self._branches(self.start(x).tanh())
        rise = V - U
        for gate in self.gates:
            H = U + gate(H).tanh() * rise
        out = self.last(H).parts
        return x.map_parts(out.reshape(len(out), -1, self.heads, out.shape[-2]))

    def _branches(self, x: Jet) -> list[Jet]:
        """U, V and H, (E * heads, n, width) each."""
        K, E, n, _ = x.parts.shape
        parts = x.parts.reshape(K, E, n, 3, self.heads, self.width)
        parts = parts.permute(3, 0, 1, 4, 2, 5).reshape(3, K, E * self.heads, n, self.width)
        return [x.map_parts(each) for each in parts.unbind(0)]
