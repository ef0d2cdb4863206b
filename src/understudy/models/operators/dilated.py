r"""A residual convolutional network that sees far by dilation, at one resolution.

.. math:: x \mapsto x + W_2\, g(W_1 *_d x + V c), \qquad d = 1, 2, 4, 8, 4, 2, 1, \dots

with convolutions of 3 points whose first is spread by d, g = GELU and :math:`W_2 = 0` at the start;
the condition c is that of :mod:`~understudy.models.operators.unet`. No layer halves the resolution
or averages over the field, so any size will do and what is small stays visible; dilated residual
networks for flows are from Stachenfeld et al. (2022, arXiv 2112.15275).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.unet import Conditioning, PaddedConv, Padding, numbers

DILATIONS = (1, 2, 4, 8, 4, 2)
KERNEL = 3


class _Block(nn.Module):
    def __init__(
        self, dims: int, channels: int, dilation: int, condition: int | None, padding: Padding
    ) -> None:
        super().__init__()
        self.first = PaddedConv(dims, channels, channels, KERNEL, padding, dilation=dilation)
        self.told = None if condition is None else nn.Linear(condition, channels)
        self.second = PaddedConv(dims, channels, channels, KERNEL, padding).zeroed()

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        h: Tensor = self.first(x)
        if self.told is not None:
            told: Tensor = self.told(c)
            h = h + told.reshape(*told.shape, *[1] * (x.ndim - 2))
        out: Tensor = x + self.second(nn.functional.gelu(h))
        return out


class DilatedResNet(FieldNetwork):
    """Dilated residual network for fields in one to three dimensions.

    Parameters
    ----------
    in_channels, out_channels : int
    dims : {1, 2, 3}
        Dimensions of space.
    num_params : int
        Numbers p that come with a field.
    channels, blocks : int
        Width and depth; 40 and 7 suit a processor.
    padding : {"circular", "zeros"}
        Fields have at least 8 points along each axis.
    """

    kind: ClassVar[str] = "dilated"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dims: int = 1,
        num_params: int = 0,
        channels: int = 40,
        blocks: int = 7,
        padding: Padding = "circular",
    ) -> None:
        super().__init__()
        if channels < 1 or blocks < 1:
            raise UserError(
                f"channels and blocks must be at least 1, found {channels} and {blocks}"
            )
        self.settings = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "dims": dims,
            "num_params": num_params,
            "channels": channels,
            "blocks": blocks,
            "padding": padding,
        }
        self.num_params = num_params
        self.condition = Conditioning(num_params, 64, 2 * channels) if num_params else None
        width = 2 * channels if num_params else None
        self.lift = PaddedConv(dims, in_channels, channels, KERNEL, padding)
        self.blocks = nn.ModuleList(
            _Block(dims, channels, DILATIONS[i % len(DILATIONS)], width, padding)
            for i in range(blocks)
        )
        self.project = PaddedConv(dims, channels, out_channels, KERNEL, padding).zeroed()

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        """``(B, C_in, *space)`` and numbers ``(B, P)`` to ``(B, C_out, *space)``."""
        smallest = max(DILATIONS) * (KERNEL // 2)
        if min(u.shape[2:]) < smallest:
            raise UserError(
                f"the dilated network needs at least {smallest} points along each axis, found "
                f"{tuple(u.shape[2:])}"
            )
        c = None if self.condition is None else self.condition(numbers(p, self.num_params))
        x = self.lift(u)
        for block in self.blocks:
            x = block(x, c)
        out: Tensor = self.project(nn.functional.gelu(x))
        return out
