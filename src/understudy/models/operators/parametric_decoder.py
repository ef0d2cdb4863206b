r"""A decoder from numbers to a field: where a source is, how fast it swings, and when.

.. math:: x_0 = W\, g(V \gamma(p) + v) + w, \qquad x_{l+1} = z_l + B_l' * g(B_l * z_l), \quad
    z_l = g(T_l * x_l), \qquad u = W_\text{out} * x_L

The numbers p, each as itself and as sines and cosines of it,

.. math:: \gamma(p) = (p, \sin 2^j \tfrac{\pi}{2} p, \cos 2^j \tfrac{\pi}{2} p)_{j < J},

lead by a perceptron to fields of few points, whose resolution L transposed convolutions T of
4 points double one after the other, each followed by two convolutions B of k points with a
shortcut; g = GELU. It is the second task of networks of waves to which one-way filters are put
after Boukraichi et al. (2023, arXiv 2304.04964), and is reconstructed: their text was not at hand.

All T and B may be rewritten as one-way filters (:mod:`understudy.nn.one_way_network`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.unet import Doubling, PaddedConv, numbers

_DOUBLING_POINTS = 4


class ParametricDecoder(FieldNetwork):
    """Fields of one size, in one to three dimensions, of numbers alone.

    As an operator it is a `FieldMap` from no fields: given ones are of shape ``(B, 0, *size)``.
    Numbers should be of a spread of some 1, as a `FieldMap` gives them.

    Parameters
    ----------
    num_params : int
        Numbers p.
    out_channels : int
    size : sequence of int
        Points of the field along each axis; what doubling gives beyond it is cut off.
    channels : int
        Width.
    levels : int
        L; the perceptron gives fields of size / 2^L points, rounded up, at least 2 a side.
    kernel : int
        Points a side of the convolutions B and of the last one, odd.
    hidden : int
        Width of the perceptron.
    waves : int
        J.
    """

    kind: ClassVar[str] = "parametric-decoder"
    frequencies: Tensor

    def __init__(
        self,
        num_params: int,
        out_channels: int,
        size: Sequence[int],
        channels: int = 32,
        levels: int = 3,
        kernel: int = 5,
        hidden: int = 64,
        waves: int = 4,
    ) -> None:
        super().__init__()
        if min(num_params, out_channels, channels, levels, hidden) < 1 or waves < 0:
            raise UserError(
                "a decoder needs at least one number, channel, level and hidden unit, and waves "
                "of at least 0"
            )
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(f"kernel must be odd, found {kernel}")
        if not 1 <= len(size) <= 3 or any(n <= 2**levels for n in size):
            raise UserError(
                f"size must be one to three numbers above {2**levels} for {levels} levels, "
                f"found {tuple(size)}"
            )
        self.settings = {
            "num_params": num_params,
            "out_channels": out_channels,
            "size": [int(n) for n in size],
            "channels": channels,
            "levels": levels,
            "kernel": kernel,
            "hidden": hidden,
            "waves": waves,
        }
        self.num_params, self.size, self.channels = num_params, tuple(size), channels
        dims = len(self.size)
        self.coarse = tuple(-(-n // 2**levels) for n in self.size)
        frequencies = math.pi / 2 * 2.0 ** torch.arange(waves)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.perceptron = nn.Sequential(
            nn.Linear(num_params * (1 + 2 * waves), hidden),
            nn.GELU(),
            nn.Linear(hidden, channels * math.prod(self.coarse)),
        )
        self.doublings = nn.ModuleList(Doubling(dims, channels, "zeros") for _ in range(levels))
        self.first = nn.ModuleList(
            PaddedConv(dims, channels, channels, kernel, "zeros") for _ in range(levels)
        )
        self.second = nn.ModuleList(
            PaddedConv(dims, channels, channels, kernel, "zeros").zeroed() for _ in range(levels)
        )
        self.project = PaddedConv(dims, channels, out_channels, kernel, "zeros")
        self._draw(dims)

    def _draw(self, dims: int) -> None:
        """Weights with which no layer changes the spread of a field much."""
        for doubling in self.doublings:
            assert isinstance(doubling, Doubling)
            # of the points of its kernel one in two meets a point of the output along each axis
            taps = self.channels * (_DOUBLING_POINTS // 2) ** dims
            nn.init.normal_(doubling.conv.weight, std=math.sqrt(2.0 / taps))
        for conv in self.first:
            assert isinstance(conv, PaddedConv)
            nn.init.kaiming_normal_(conv.conv.weight)
        for layer in self.perceptron:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        """``(B, 0, *size)`` and numbers ``(B, P)`` to fields ``(B, C_out, *size)``."""
        if tuple(u.shape[1:]) != (0, *self.size):
            raise UserError(
                f"a decoder of {self.size} points is given fields of shape {(0, *self.size)} and "
                f"makes its own of numbers, found {tuple(u.shape[1:])}"
            )
        x: Tensor = self.perceptron(self._waves(numbers(p, self.num_params)))
        x = x.reshape(-1, self.channels, *self.coarse)
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        for doubling, first, second in zip(self.doublings, self.first, self.second, strict=True):
            z = nn.functional.gelu(doubling(x))
            x = z + second(nn.functional.gelu(first(z)))
        out: Tensor = self.project(x)
        for axis, points in enumerate(self.size):
            out = out.narrow(2 + axis, 0, points)
        return out

    def _waves(self, p: Tensor) -> Tensor:
        angle = (p.unsqueeze(-1) * self.frequencies).flatten(1)
        return torch.cat([p, angle.sin(), angle.cos()], dim=1)
