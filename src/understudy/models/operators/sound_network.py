"""Branch and trunk of the sound operator (Borrel-Jensen et al. 2024, arXiv 2308.05141)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from understudy.core.errors import UserError
from understudy.models.operators.deeponet import FourierFeatures, ModifiedMLP, PlainMLP


@dataclass(frozen=True)
class SoundSettings:
    """Shape of a sound operator.

    Parameters
    ----------
    num_basis : int
        Functions of the trunk.
    width, depth : int
        Of hidden layers of branch and trunk, 2 x 2048 in the paper's two dimensions.
    architecture : {"modified", "plain"}
    activation : str
        One of `nn.mlp.ACTIVATIONS`.
    frequencies : sequence of float, optional
        Of features, in Hz; a half, a quarter and a sixth of the highest of the pulse unless given,
        as in the paper, and none if empty.
    linear_encoders : bool
        Leave the sine out of the gates' encodings, as the weights published in 2023 do.
    time_scale : float
        Factor of :math:`ct/L`.
    sensors_per_wavelength : float
        Density of the sensors along an axis.
    parts : (int, int)
        Into how many boxes the room is cut along each axis, each with networks of its own.
    """

    num_basis: int = 100
    width: int = 2048
    depth: int = 2
    architecture: Literal["modified", "plain"] = "modified"
    activation: str = "sin"
    frequencies: Sequence[float] | None = None
    linear_encoders: bool = False
    time_scale: float = 0.5
    sensors_per_wavelength: float = 2.0
    parts: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        if min(self.num_basis, self.width, *self.parts) < 1 or len(self.parts) != 2:
            raise UserError("functions, width and parts of a sound operator are at least 1")
        if self.architecture not in ("modified", "plain"):
            raise UserError(f"architecture must be modified or plain, found {self.architecture!r}")
        if not self.time_scale > 0.0 or not self.sensors_per_wavelength > 0.0:
            raise UserError("time_scale and sensors_per_wavelength must be positive")
        if self.frequencies is not None:
            object.__setattr__(self, "frequencies", tuple(float(f) for f in self.frequencies))
            if not all(f > 0.0 for f in self.frequencies):
                raise UserError("frequencies of features must be positive")
        object.__setattr__(self, "parts", tuple(int(n) for n in self.parts))


class PulseNetwork(nn.Module):
    """Branch and trunk for one part of a room.

    Parameters
    ----------
    sensors : int
    frequencies : sequence of float
        Cycles a unit of a scaled coordinate.
    settings : SoundSettings
    """

    def __init__(self, sensors: int, frequencies: Sequence[float], settings: SoundSettings) -> None:
        super().__init__()
        self.features = FourierFeatures(frequencies)
        self.branch = _perceptron(sensors, settings)
        self.trunk = _perceptron(self.features.features(3), settings)
        self.bias = nn.Parameter(torch.zeros(()))

    def coefficients(self, u: Tensor) -> Tensor:
        """Branch ``(B, K)`` of pulses ``(B, S)`` in Pa."""
        out: Tensor = self.branch(0.5 * u)
        return out

    def basis(self, y: Tensor) -> Tensor:
        """Trunk ``(..., K)`` at scaled points ``(..., 3)``."""
        out: Tensor = self.trunk(self.features(y))
        return out

    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        """Pressure ``(B, M)`` of pulses ``(B, S)`` at scaled points ``(M, 3)``."""
        return self.coefficients(u) @ self.basis(y).T + self.bias


def _perceptron(inward: int, settings: SoundSettings) -> nn.Module:
    shape = (inward, settings.width, settings.depth, settings.num_basis, settings.activation)
    if settings.architecture == "plain":
        return PlainMLP(*shape)
    return ModifiedMLP(*shape, gate_first=True, linear_encoders=settings.linear_encoders)


class StackedNetworks(nn.Module):
    """Networks of several parts with every parameter stacked, ``(R, ...)``.

    Parameters
    ----------
    networks : sequence of PulseNetwork, R
    """

    def __init__(self, networks: Sequence[PulseNetwork]) -> None:
        super().__init__()
        stacked, _ = stack_module_state(list(networks))
        self.names = list(stacked)
        self.values = nn.ParameterList(nn.Parameter(v.detach().clone()) for v in stacked.values())
        self._template = [networks[0]]  # in a list, so that its weights are not trained

    def forward(self, u: Tensor, y: Tensor) -> Tensor:
        """Pressure ``(R, B, M)`` of pulses ``(B, S)`` at scaled points ``(R, M, 3)``."""

        def one(weights: dict[str, Tensor], at: Tensor) -> Tensor:
            out: Tensor = functional_call(self._template[0], weights, (u, at))
            return out

        weights = dict(zip(self.names, self.values, strict=True))
        if len(y) == 1:  # products of single matrices are a third faster than of stacks of one
            return one({name: value[0] for name, value in weights.items()}, y[0]).unsqueeze(0)
        out: Tensor = torch.vmap(one)(weights, y)
        return out

    def freeze(self, prefixes: Sequence[str]) -> None:
        """Leave parameters as they are whose names begin so."""
        for prefix in prefixes:
            if not any(name.startswith(prefix) for name in self.names):
                raise UserError(f"no parameter begins with {prefix!r}, which is to be frozen")
        for name, value in zip(self.names, self.values, strict=True):
            value.requires_grad_(not any(name.startswith(p) for p in prefixes))

    def unstack(self) -> list[dict[str, Tensor]]:
        """Weights of each network."""
        count = len(self.values[0])
        return [
            {n: v[r].detach().clone() for n, v in zip(self.names, self.values, strict=True)}
            for r in range(count)
        ]
