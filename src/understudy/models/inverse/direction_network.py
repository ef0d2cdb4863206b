r"""The network of arXiv 2205.10763: from a residual on a grid to a direction of search.

Convolutions of three points a side, zero-padded, with 16 channels. With r the residual,

.. math:: a = \sigma(K K_0 r), \qquad a \leftarrow a + \sigma(K \sigma(K a)), \qquad
    b = \sigma(K a)

on the grid, where each K is another convolution and :math:`\sigma` a ReLU; then pairs
:math:`p \leftarrow p + \sigma(K \sigma(K p))` on a grid of half as many points; the result, every
point twice a side, is added to b; pairs again; and one linear map of the channels. Biases make it
nonlinear in the length of r: it is meant for residuals of unit length. It has no layer of fixed
size, and takes grids of any size; odd sides are padded with zeros.

Where no gradient is asked for, a CPU convolves by oneDNN with the ReLU in the same pass. PyTorch by
itself leaves one image of up to some 32 x 32 x 32 points to a routine that is 5 to 10 times slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.core.errors import UserError

_ONEDNN = (torch.float32, torch.bfloat16)
_CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}


class DirectionNetwork(nn.Module):
    """Directions ``(B, 1, *space)`` of residuals ``(B, 1, *space)`` of unit length.

    Parameters
    ----------
    dimensions : {2, 3}
    channels : int
    fine : int
        Pairs of convolutions on the grid before it is halved; 1 for 64 points a side in the paper,
        2 for 128.
    coarse : int
        Pairs on the halved grid; 3 and 5.
    merged : int
        Pairs on the grid afterwards; 2 and 3.
    """

    def __init__(
        self,
        dimensions: int = 2,
        channels: int = 16,
        fine: int = 1,
        coarse: int = 3,
        merged: int = 2,
    ) -> None:
        super().__init__()
        if dimensions not in _CONV:
            raise UserError(f"dimensions must be 2 or 3, found {dimensions}")
        if min(channels, fine, coarse, merged) < 1:
            raise UserError("channels, fine, coarse and merged must be at least 1")
        self.settings: dict[str, Any] = {
            "dimensions": dimensions,
            "channels": channels,
            "fine": fine,
            "coarse": coarse,
            "merged": merged,
        }
        self.dimensions = dimensions
        convolution = _CONV[dimensions]

        def pairs(count: int) -> nn.ModuleList:
            return nn.ModuleList(
                convolution(channels, channels, 3, padding=1) for _ in range(2 * count)
            )

        self.lift = convolution(1, channels, 3, padding=1)
        self.enter = convolution(channels, channels, 3, padding=1)
        self.fine, self.coarse, self.merged = pairs(fine), pairs(coarse), pairs(merged)
        self.leave = convolution(channels, channels, 3, padding=1)
        self.project = convolution(channels, 1, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Conv3d):
                nn.init.xavier_uniform_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        last = torch.channels_last if dimensions == 2 else torch.channels_last_3d
        cast(Any, self).to(memory_format=last)  # halves the time of a convolution of few channels

    def forward(self, r: Tensor) -> Tensor:
        """See the module."""
        if r.ndim != self.dimensions + 2 or r.shape[1] != 1:
            raise UserError(
                f"expected residuals (B, 1, *space) in {self.dimensions} dimensions, "
                f"found {tuple(r.shape)}"
            )
        sides = r.shape[2:]
        odd = [extra for n in reversed(sides) for extra in (0, n % 2)]
        r = F.pad(r, odd) if any(odd) else r
        a = _convolved(self.enter, _convolved(self.lift, r), relu=True)
        b = _convolved(self.leave, _residual_pairs(self.fine, a), relu=True)
        p = _residual_pairs(self.coarse, _halved(b))
        u = _residual_pairs(self.merged, F.interpolate(p, scale_factor=2, mode="nearest") + b)
        out = _convolved(self.project, u)
        for axis, n in enumerate(sides, start=2):
            out = out.narrow(axis, 0, n)
        return out


def _residual_pairs(layers: nn.ModuleList, a: Tensor) -> Tensor:
    """Apply pairs of convolutions; what enters a pair is added after its last activation."""
    pairs: Sequence[nn.Module] = list(layers)
    for first, second in zip(pairs[::2], pairs[1::2], strict=True):
        a = _convolved(second, _convolved(first, a, relu=True), relu=True) + a
    return a


def _halved(b: Tensor) -> Tensor:
    """Mean of the points of each square or cube of two a side."""
    if b.dtype is torch.bfloat16:  # in three dimensions a CPU cannot
        return _halved(b.float()).bfloat16()
    return (F.avg_pool2d if b.ndim == 4 else F.avg_pool3d)(b, 2)


def _convolved(layer: nn.Module, a: Tensor, relu: bool = False) -> Tensor:
    """Convolve, and take the ReLU."""
    if torch.is_grad_enabled() or not _has_onednn(a):
        return F.relu(layer(a)) if relu else layer(a)
    conv, ones = cast(nn.Conv2d, layer), [1] * (a.ndim - 2)
    fused = torch.ops.mkldnn._convolution_pointwise
    activation = "relu" if relu else "none"
    found: Tensor = fused(
        a, conv.weight, conv.bias, conv.padding, ones, ones, 1, activation, [], ""
    )
    return found


def _has_onednn(a: Tensor) -> bool:
    usable = torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
    return usable and a.device.type == "cpu" and a.dtype in _ONEDNN


def parameter_count(network: nn.Module) -> int:
    """Number of weights and biases."""
    return sum(p.numel() for p in network.parameters())
