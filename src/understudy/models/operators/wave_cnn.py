r"""A residual convolutional network that carries waves on by one step.

.. math:: x_0 = W_\text{in} * [u, p], \qquad x_{l+1} = x_l + W_l' * g(W_l * x_l), \qquad
    v = W_\text{out} * x_L

with kernels of k points a side, as many channels throughout, g = GELU and :math:`W' = 0` at the
start. It is the network in which dense kernels are replaced by one-way filters in the study of
Boukraichi et al. (2023, arXiv 2304.04964), whose own architecture was not at hand: this one is
reconstructed, and keeps the resolution, so that a wave may cross :math:`(k - 1)(L + 1)` points a
step (half of the kernels on either side, 2 L + 2 of them).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.unet import PaddedConv, Padding, beside, numbers


class WaveCNN(FieldNetwork):
    """Residual network of dense convolutions in one to three dimensions.

    Parameters
    ----------
    in_channels, out_channels : int
    dims : {1, 2, 3}
    num_params : int
        Numbers p that come with a field, as constant fields beside it.
    channels : int
        Width; 32 in our reading.
    kernel : int
        Points a side, odd.
    blocks : int
        L; three of them make eight convolutions.
    padding : {"zeros", "circular"}
        Zeros suit a boundary that is held.

    Attributes
    ----------
    memory_format : torch.memory_format
        Of fields in two dimensions inside the network; channels last unless set, in which filters
        of one channel each are several times faster on processors.
    """

    kind: ClassVar[str] = "wave-cnn"
    memory_format: torch.memory_format = torch.channels_last

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dims: int = 2,
        num_params: int = 0,
        channels: int = 32,
        kernel: int = 5,
        blocks: int = 3,
        padding: Padding = "zeros",
    ) -> None:
        super().__init__()
        if min(channels, blocks, in_channels, out_channels) < 1:
            raise UserError("channels and blocks must be at least 1")
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(f"kernel must be odd, found {kernel}")
        self.settings = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "dims": dims,
            "num_params": num_params,
            "channels": channels,
            "kernel": kernel,
            "blocks": blocks,
            "padding": padding,
        }
        self.num_params = num_params
        self.lift = _conv(dims, in_channels + num_params, channels, kernel, padding)
        self.first = nn.ModuleList(
            _conv(dims, channels, channels, kernel, padding) for _ in range(blocks)
        )
        self.second = nn.ModuleList(
            _conv(dims, channels, channels, kernel, padding).zeroed() for _ in range(blocks)
        )
        self.project = _conv(dims, channels, out_channels, kernel, padding).zeroed()

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        """``(B, C_in, *space)`` and numbers ``(B, P)`` to ``(B, C_out, *space)``."""
        if self.num_params:
            u = beside(u, numbers(p, self.num_params))
        if u.ndim == 4:
            u = u.contiguous(memory_format=self.memory_format)
        x: Tensor = self.lift(u)
        for first, second in zip(self.first, self.second, strict=True):
            x = x + second(nn.functional.gelu(first(x)))
        return torch.as_tensor(self.project(x))


def _conv(dims: int, inward: int, outward: int, kernel: int, padding: Padding) -> PaddedConv:
    """Convolution with the start of He et al. (arXiv 1502.01852)."""
    made = PaddedConv(dims, inward, outward, kernel, padding)
    nn.init.kaiming_normal_(made.conv.weight)
    return made
