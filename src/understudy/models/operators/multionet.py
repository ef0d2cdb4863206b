r"""MultiONet, a DeepONet all layers of which speak (Zang & Koutsourelakis 2025, arXiv 2502.06250).

A DeepONet (arXiv 1910.03193) is the inner product of the last layers of two perceptrons, one of the
point x and one of a vector :math:`\beta` that stands for the input function. Here every hidden
layer contributes,

.. math:: G(\beta)(x) = b + \frac1l \sum_{k=1}^{l} w_k\, \langle t_k(x), g_k(\beta) \rangle, \qquad
          t_k = \sigma(A_k t_{k-1} + a_k), \quad g_k = \sigma(B_k g_{k-1} + b_k),

after first layers :math:`t_0 = \sigma(A_0 x + a_0)`, :math:`g_0 = \sigma(B_0 \beta + b_0)` that
only lead to the width h. The numbers :math:`w_k` and b start from zero. With the last k alone it is
a DeepONet of the same size.

As :math:`G(\beta)(x) = b + c(\beta) \cdot \varphi(x)` with :math:`l h` functions
:math:`\varphi = (t_1, \dots, t_l)` of the point alone, these are computed once for all
:math:`\beta`, their gradients in x too, by the chain rule from layer to layer.

**Several outputs** (:class:`VectorMultiONet`). Each number of :math:`\beta` goes through the same
layers by itself, and what it says is weighed at the end,

.. math:: G_o(\beta)(x) = b_o + \sum_{m=1}^{d} V_{om}\, \frac1l \sum_{k=1}^{l}
          \langle t_k(x), g_k(\beta_m) \rangle,

so that outputs have all functions of the point in common.

Activations of the paper: :math:`\tanh(\sin \pi(z + 1)) + z`, :math:`\mathrm{silu}(\sin \pi(z + 1))
+ z` (its exact form is our reading) and :math:`\mathrm{silu}(z) + z`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.models.operators.network import FieldNetwork

Function = Callable[[Tensor], Tensor]


def tanh_sin(z: Tensor) -> Tensor:
    r""":math:`\tanh(\sin \pi(z + 1)) + z`."""
    return torch.tanh(torch.sin(math.pi * (z + 1.0))) + z


def silu_sin(z: Tensor) -> Tensor:
    r""":math:`\mathrm{silu}(\sin \pi(z + 1)) + z`."""
    return F.silu(torch.sin(math.pi * (z + 1.0))) + z


def silu_id(z: Tensor) -> Tensor:
    r""":math:`\mathrm{silu}(z) + z`."""
    return F.silu(z) + z


def _tanh_sin_slope(z: Tensor) -> Tensor:
    phase = math.pi * (z + 1.0)
    return (1.0 - torch.tanh(torch.sin(phase)).square()) * (math.pi * torch.cos(phase)) + 1.0


def _silu_sin_slope(z: Tensor) -> Tensor:
    phase = math.pi * (z + 1.0)
    return _silu_slope(torch.sin(phase)) * (math.pi * torch.cos(phase)) + 1.0


def _silu_id_slope(z: Tensor) -> Tensor:
    return _silu_slope(z) + 1.0


def _silu_slope(z: Tensor) -> Tensor:
    gate = torch.sigmoid(z)
    return gate * (1.0 + z * (1.0 - gate))


ACTIVATIONS: dict[str, tuple[Function, Function]] = {
    "tanh-sin": (tanh_sin, _tanh_sin_slope),
    "silu-sin": (silu_sin, _silu_sin_slope),
    "silu-id": (silu_id, _silu_id_slope),
}
"""Functions and their slopes."""


class LayerPairs(nn.Module):
    """Layers of the point and of the vector, all but the first of which speak."""

    last_only = False

    def __init__(self, x_dim: int, latent_dim: int, hidden: Sequence[int], activation: str) -> None:
        super().__init__()
        if min(x_dim, latent_dim) < 1 or not hidden or len(set(hidden)) > 1 or hidden[0] < 1:
            raise UserError(
                "a MultiONet needs x, a latent vector and at least one layer, all layers of one "
                f"width, found {x_dim}, {latent_dim} and {list(hidden)}"
            )
        if activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise UserError(f"activation must be one of {known}, found {activation!r}")
        self.activation, self.slope = ACTIVATIONS[activation]
        self.x_dim = x_dim
        width = hidden[0]
        self.x_net = _layers((x_dim, width, *hidden))
        self.latent_net = _layers((latent_dim, width, *hidden))

    def basis(self, x: Tensor) -> Tensor:
        r"""Functions :math:`\varphi` ``(N, l h)`` at points ``(N, x_dim)``."""
        return torch.cat(self._kept(self._through(self.x_net, x)), -1)

    def basis_with_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""Functions ``(N, l h)`` and their gradients ``(x_dim, N, l h)`` at points ``(N, d)``."""
        h = x
        rates = torch.eye(self.x_dim, dtype=x.dtype, device=x.device).unsqueeze(1)
        values, gradients = [], []
        for layer in self.x_net:
            assert isinstance(layer, nn.Linear)
            z = layer(h)
            h = self.activation(z)
            rates = F.linear(rates, layer.weight) * self.slope(z)
            values.append(h)
            gradients.append(rates)
        return torch.cat(self._kept(values[1:]), -1), torch.cat(self._kept(gradients[1:]), -1)

    def _through(self, layers: nn.ModuleList, h: Tensor) -> list[Tensor]:
        found = []
        for layer in layers:
            h = self.activation(layer(h))
            found.append(h)
        return found[1:]

    def _kept(self, layers: list[Tensor]) -> list[Tensor]:
        return layers[-1:] if self.last_only else layers


class MultiONet(LayerPairs):
    r"""Functions of x, given by a vector :math:`\beta`.

    Parameters
    ----------
    x_dim, latent_dim : int
        Numbers of x and of :math:`\beta`.
    hidden : sequence of int
        Widths of the l layers that contribute, all the same; six of 80 in the paper.
    activation : str
        One of :data:`ACTIVATIONS`.
    last_only : bool
        Whether only the last layer contributes: a DeepONet.
    """

    def __init__(
        self,
        x_dim: int,
        latent_dim: int,
        hidden: Sequence[int] = (80,) * 6,
        activation: str = "tanh-sin",
        last_only: bool = False,
    ) -> None:
        super().__init__(x_dim, latent_dim, hidden, activation)
        self.last_only = last_only
        self.w = nn.Parameter(torch.zeros(1 if last_only else len(hidden)))
        self.b = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, beta: Tensor) -> Tensor:
        r"""Values ``(B, N)`` at points ``(N, x_dim)`` for vectors ``(B, latent_dim)``."""
        return self.combine(self.coefficients(beta), self.basis(x))

    def combine(self, c: Tensor, phi: Tensor) -> Tensor:
        """Values ``(B, N)`` of coefficients ``(B, l h)`` and functions ``(N, l h)``."""
        return torch.addmm(self.b, c, phi.mT)

    def coefficients(self, beta: Tensor) -> Tensor:
        r"""Factors :math:`c(\beta)` ``(B, l h)`` of the functions."""
        g = torch.stack(self._kept(self._through(self.latent_net, beta)), -2)
        return (g * (self.w / len(self.w)).unsqueeze(-1)).flatten(-2)


class VectorMultiONet(LayerPairs):
    r"""Several functions of x, given by a vector :math:`\beta`, see the module.

    Parameters
    ----------
    x_dim, latent_dim, out_dim : int
        Numbers of x, of :math:`\beta` and of outputs.
    hidden, activation
        As of :class:`MultiONet`.
    """

    def __init__(
        self,
        x_dim: int,
        latent_dim: int,
        out_dim: int,
        hidden: Sequence[int] = (80,) * 6,
        activation: str = "tanh-sin",
    ) -> None:
        super().__init__(x_dim, 1, hidden, activation)
        self.out = nn.Linear(latent_dim, out_dim)

    def forward(self, x: Tensor, beta: Tensor) -> Tensor:
        r"""Values ``(B, out_dim, N)`` at points ``(N, x_dim)`` for vectors ``(B, latent_dim)``."""
        return self.coefficients(beta) @ self.basis(x).mT + self.out.bias.unsqueeze(-1)

    def coefficients(self, beta: Tensor) -> Tensor:
        """Factors ``(B, out_dim, l h)`` of the functions."""
        layers = self._through(self.latent_net, beta.unsqueeze(-1))
        return self.out.weight @ torch.cat(layers, -1) / len(layers)


def _layers(sizes: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))


def cell_points(shape: Sequence[int]) -> Tensor:
    """Centres ``(prod(shape), d)`` of the cells of the unit box, float64, the last axis fastest."""
    axes = Grid.of(*shape, placement="cells").axes()
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)


class FieldMultiONet(FieldNetwork):
    r"""A MultiONet as a map of fields, whose :math:`\beta` is the input field at its cells.

    For supervised training by `FieldMap`; it is asked at the centres of the cells.

    Parameters
    ----------
    in_channels, out_channels : int
    sensors : sequence of int
        Cells along each axis.
    hidden, activation, last_only
        As of :class:`MultiONet`; each output channel has one of its own.
    shared : bool
        Whether one :class:`VectorMultiONet` gives all output channels. Its memory grows with the
        number of cells times layers times width.
    """

    kind = "multionet"
    points: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        sensors: Sequence[int],
        hidden: Sequence[int] = (80,) * 6,
        activation: str = "tanh-sin",
        last_only: bool = False,
        shared: bool = False,
    ) -> None:
        super().__init__()
        if shared and last_only:
            raise UserError("a MultiONet with shared outputs speaks from all layers")
        if min(in_channels, out_channels) < 1:
            raise UserError("a MultiONet of fields has at least one channel in and out")
        self.settings = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "sensors": [int(n) for n in sensors],
            "hidden": [int(n) for n in hidden],
            "activation": activation,
            "last_only": last_only,
            "shared": shared,
        }
        self.sensors, self.in_channels = tuple(sensors), in_channels
        self.register_buffer("points", cell_points(sensors).float(), persistent=False)
        seen = in_channels * len(self.points)
        dims = len(self.sensors)
        self.shared = shared
        self.outputs = nn.ModuleList(
            [VectorMultiONet(dims, seen, out_channels, hidden, activation)]
            if shared
            else [MultiONet(dims, seen, hidden, activation, last_only) for _ in range(out_channels)]
        )

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        """Fields ``(B, out_channels, *sensors)`` of fields ``(B, in_channels, *sensors)``."""
        if tuple(u.shape[1:]) != (self.in_channels, *self.sensors):
            raise UserError(
                f"fields of shape {(self.in_channels, *self.sensors)} expected, "
                f"found {tuple(u.shape[1:])}"
            )
        beta = u.flatten(1)
        values: Tensor
        if self.shared:
            values = self.outputs[0](self.points, beta)
        else:
            values = torch.stack([output(self.points, beta) for output in self.outputs], 1)
        return values.unflatten(2, self.sensors)
