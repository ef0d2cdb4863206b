r"""DeepONet (Lu et al. 2021, arXiv 1910.03193), an operator whose output can be asked anywhere.

A branch network sees the input field at fixed sensors, a trunk network the point y of the question,

.. math:: (Gu)_c(y) = \sum_{k=1}^{K} B_{ck}(u)\, T_k(y) + b_c .

:class:`ModifiedMLP` is the perceptron of Wang, Wang & Perdikaris (2021, arXiv 2103.10974), in which
two encodings of the input gate every layer,

.. math::

    U = \sigma(W_U x + b_U), \quad V = \sigma(W_V x + b_V), \quad H_1 = \sigma(W_1 x + b_1), \\
    Z = \sigma(W_k H_k + b_k), \qquad H_{k + 1} = Z \odot U + (1 - Z) \odot V .

(The paper has U and V the other way round, which is another name for the same network.) With sines
for :math:`\sigma` weights start as in Sitzmann et al. (2020, arXiv 2006.09661). A factor
:math:`\omega_0` on :math:`W x` belongs to that: in every hidden layer there and in
:class:`PlainMLP`, in the first alone with gates, as in Borrel-Jensen et al. (2024, arXiv
2308.05141).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.models.operators.fno import check_inputs
from understudy.models.operators.network import FieldNetwork
from understudy.nn.mlp import ACTIVATIONS

Architecture = Literal["modified", "plain"]


class FourierFeatures(nn.Module):
    r"""Waves of each coordinate beside the coordinates.

    .. math:: y \mapsto (y, \cos 2\pi f_1 y, \sin 2\pi f_1 y, \cos 2\pi f_2 y, \dots)

    Parameters
    ----------
    frequencies : sequence of float
        Cycles a unit of a coordinate, perhaps none.
    """

    frequencies: Tensor

    def __init__(self, frequencies: Sequence[float] = ()) -> None:
        super().__init__()
        values = torch.tensor([float(f) for f in frequencies])
        self.register_buffer("frequencies", values, persistent=False)

    def features(self, coordinates: int) -> int:
        """Numbers that come of so many coordinates."""
        return coordinates * (1 + 2 * len(self.frequencies))

    def forward(self, y: Tensor) -> Tensor:
        """``(..., d)`` to ``(..., d (1 + 2 F))``."""
        phase = 2.0 * math.pi * (y.unsqueeze(-2) * self.frequencies.to(y)[:, None])
        waves = torch.stack([phase.cos(), phase.sin()], dim=-2)  # (..., F, 2, d)
        return torch.cat([y, waves.flatten(-3)], dim=-1)


class PlainMLP(nn.Module):
    """Perceptron with an affine last layer.

    Parameters
    ----------
    inward, width, depth, outward : int
        Inputs, units and number of hidden layers, outputs.
    activation : str
        One of `nn.mlp.ACTIVATIONS`; ``"sin"`` starts as a sine network.
    omega : float
        Factor on products of weights and inputs of hidden layers with ``"sin"``; 30 as in
        2006.09661.
    """

    def __init__(
        self,
        inward: int,
        width: int,
        depth: int,
        outward: int,
        activation: str = "tanh",
        omega: float = 30.0,
    ) -> None:
        super().__init__()
        check_perceptron(depth, activation)
        self.activation = ACTIVATIONS[activation]
        self.omega = omega if activation == "sin" else 1.0
        sizes = [inward, *[width] * depth, outward]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        start(self.layers[:1], activation, first=True, omega=omega)
        start(self.layers[1:], activation, first=False, omega=omega)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., inward)`` to ``(..., outward)``."""
        *hidden, last = self.layers
        for layer in hidden:
            x = self.activation(scaled_affine(layer, x, self.omega))
        out: Tensor = last(x)
        return out


class ModifiedMLP(nn.Module):
    """Perceptron whose layers are gated by two encodings of the input, arXiv 2103.10974.

    Parameters
    ----------
    inward, width, depth, outward : int
        Inputs, units and number of hidden layers, the one of :math:`H_1` among them, outputs.
    activation : str
        One of `nn.mlp.ACTIVATIONS`; ``"sin"`` starts as a sine network.
    omega : float
        Factor on :math:`W_1 x` with ``"sin"``, not on the encodings.
    gate_first : bool
        Gate :math:`H_1` too, as Borrel-Jensen et al. (2024, arXiv 2308.05141) do.
    linear_encoders : bool
        Leave the activation out of U and V.
    """

    def __init__(
        self,
        inward: int,
        width: int,
        depth: int,
        outward: int,
        activation: str = "tanh",
        omega: float = 30.0,
        gate_first: bool = False,
        linear_encoders: bool = False,
    ) -> None:
        super().__init__()
        check_perceptron(depth, activation)
        self.activation, self.gate_first = ACTIVATIONS[activation], gate_first
        self.linear_encoders = linear_encoders
        self.omega = omega if activation == "sin" else 1.0
        self.encoders = nn.ModuleList(nn.Linear(inward, width) for _ in range(2))
        sizes = [inward, *[width] * depth, outward]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        start([*self.encoders, self.layers[0]], activation, first=True, omega=omega)
        start(self.layers[1:], activation, first=False, omega=omega)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., inward)`` to ``(..., outward)``."""
        first, *inner, last = self.layers
        U, V = (encoder(x) for encoder in self.encoders)
        if not self.linear_encoders:
            U, V = self.activation(U), self.activation(V)
        H = self.activation(scaled_affine(first, x, self.omega))
        if self.gate_first:
            H = torch.lerp(V, U, H)
        for layer in inner:
            H = torch.lerp(V, U, self.activation(layer(H)))
        out: Tensor = last(H)
        return out


def scaled_affine(layer: nn.Module, x: Tensor, factor: float) -> Tensor:
    """Affine layer with its product, not its bias, times a factor."""
    assert isinstance(layer, nn.Linear)
    weight = layer.weight if factor == 1.0 else factor * layer.weight
    return nn.functional.linear(x, weight, layer.bias)


def start(layers: Iterable[nn.Module], activation: str, first: bool, omega: float) -> None:
    """Draw weights: Glorot's normal ones, or those of sine networks; biases are zero."""
    for layer in layers:
        assert isinstance(layer, nn.Linear)
        nn.init.zeros_(layer.bias)
        if activation != "sin":
            nn.init.xavier_normal_(layer.weight)
            continue
        inward = layer.in_features
        bound = 1.0 / inward if first else math.sqrt(6.0 / inward) / omega
        nn.init.uniform_(layer.weight, -bound, bound)


def check_perceptron(depth: int, activation: str) -> None:
    """Refuse a perceptron without hidden layers or with an unknown activation."""
    if depth < 1:
        raise UserError(f"a perceptron needs at least one hidden layer, found {depth}")
    if activation not in ACTIVATIONS:
        raise UserError(f"activation must be one of {', '.join(ACTIVATIONS)}, found {activation!r}")


class DeepONet(FieldNetwork):
    """Branch and trunk; as a network of fields, it is asked at the points of a grid.

    Parameters
    ----------
    in_channels, out_channels : int
    sensors : sequence of int
        Points along each axis at which input fields are given.
    num_basis : int
        K, functions of the trunk; each output channel has its own coefficients.
    width, depth : int
        Of branch and trunk.
    architecture : {"modified", "plain"}
        :class:`ModifiedMLP` or :class:`PlainMLP`, for both.
    activation : str
        One of `nn.mlp.ACTIVATIONS`.
    frequencies : sequence of float
        Cycles a box of :class:`FourierFeatures` of the trunk, perhaps none.
    num_params : int
        Parameters of the equation, further inputs of the branch. With none, parameters that are
        given are not looked at.
    """

    kind = "deeponet"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        sensors: Sequence[int],
        num_basis: int = 100,
        width: int = 128,
        depth: int = 4,
        architecture: Architecture = "modified",
        activation: str = "tanh",
        frequencies: Sequence[float] = (),
        num_params: int = 0,
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels, num_basis, width, *sensors) < 1 or num_params < 0:
            raise UserError("channels, sensors, functions and width of a DeepONet are at least 1")
        if architecture not in _PERCEPTRONS:
            known = ", ".join(_PERCEPTRONS)
            raise UserError(f"architecture must be one of {known}, found {architecture!r}")
        self.settings = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "sensors": [int(n) for n in sensors],
            "num_basis": num_basis,
            "width": width,
            "depth": depth,
            "architecture": architecture,
            "activation": activation,
            "frequencies": [float(f) for f in frequencies],
            "num_params": num_params,
        }
        self.in_channels, self.out_channels = in_channels, out_channels
        self.sensors, self.num_params = tuple(sensors), num_params
        perceptron = _PERCEPTRONS[architecture]
        seen = in_channels * math.prod(sensors) + num_params
        self.branch = perceptron(seen, width, depth, out_channels * num_basis, activation)
        self.features = FourierFeatures(frequencies)
        asked = self.features.features(len(self.sensors))
        self.trunk = perceptron(asked, width, depth, num_basis, activation)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        """Fields ``(B, out_channels, *space)`` on the grid of fields ``(B, in_channels, *space)``.

        Coordinates are i/n along each axis.
        """
        axes = [torch.arange(n, dtype=u.dtype, device=u.device) / n for n in self.sensors]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
        return self.at(points, u, p).unflatten(2, self.sensors)

    def at(self, points: Tensor, u: Tensor, p: Tensor | None = None) -> Tensor:
        """Outputs at points anywhere.

        Parameters
        ----------
        points : Tensor (M, d) or (B, M, d)
            Coordinates in [0, 1], the same for all fields, which costs least, or for each.
        u : Tensor (B, in_channels, *sensors)
        p : Tensor (B, num_params), optional

        Returns
        -------
        Tensor (B, out_channels, M)
        """
        basis = self.trunk(self.features(2.0 * points - 1.0))
        weights = self.coefficients(u, p)
        return torch.matmul(weights, basis.transpose(-1, -2)) + self.bias[:, None]

    def coefficients(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        """Weights ``(B, out_channels, num_basis)`` of the trunk's functions."""
        check_inputs(u, p, self.in_channels, self.num_params, len(self.sensors))
        if tuple(u.shape[2:]) != self.sensors:
            raise UserError(
                f"fields at {self.sensors} sensors expected, found {tuple(u.shape[2:])}"
            )
        seen = u.flatten(1)
        if p is not None and self.num_params:
            seen = torch.cat([seen, p.to(u)], dim=1)
        out: Tensor = self.branch(seen)
        return out.unflatten(1, (self.out_channels, -1))


_PERCEPTRONS: dict[str, type[ModifiedMLP] | type[PlainMLP]] = {
    "modified": ModifiedMLP,
    "plain": PlainMLP,
}
