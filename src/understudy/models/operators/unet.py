r"""U-Nets: fields at resolutions that halve on the way down and double on the way up.

:class:`UNet` is the conditioned U-Net of PDE-Refiner (Lippe et al. 2023, arXiv 2308.05732; Gupta &
Brandstetter 2022, arXiv 2209.15616), of blocks that keep what they are given,

.. math:: h = W_1\, g(N(x)) + V c, \qquad x \mapsto S x + W_2\, g(N(h)), \qquad
    c = \sum_i \mathrm{MLP}_i(\gamma(p_i))

with convolutions W of 3 points, g = GELU, N normalising all channels of a field together, S the
identity or a 1x1 convolution and :math:`W_2 = 0` at the start. A number :math:`p_i`, such as a
parameter of the equation or the index of a refinement, comes as sines and cosines

.. math:: \gamma(p) = (\cos(f_j p), \sin(f_j p))_j, \qquad f_j = 10000^{-j/J}

whose frequencies suit numbers of some size, 0 to 10 or 0 to 1000.

:class:`PlainUNet` is the U-Net with which data sets of equations are commonly published (Takamoto
et al. 2022, arXiv 2210.07182): two convolutions, batch normalisation and tanh a level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.models.operators.network import FieldNetwork

Padding = Literal["circular", "zeros"]

_CONVOLUTIONS: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}
_TRANSPOSED: dict[int, type[nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_MAX_POOLINGS = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_BATCH_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class PaddedConv(nn.Module):
    """Convolution whose input is continued by one layer's own padding; size is kept at stride 1.

    Parameters
    ----------
    dims : {1, 2, 3}
    inward, outward : int
        Channels.
    kernel : int
        Points along each axis; odd.
    padding : {"circular", "zeros"}
    stride, dilation : int
    """

    def __init__(
        self,
        dims: int,
        inward: int,
        outward: int,
        kernel: int = 3,
        padding: Padding = "circular",
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.margin = dilation * (kernel // 2)
        self.circular = padding == "circular"
        self.conv = _CONVOLUTIONS[dims](
            inward,
            outward,
            kernel,
            stride,
            padding=0 if self.circular else self.margin,
            dilation=dilation,
        )

    def zeroed(self) -> PaddedConv:
        """Return itself with all weights zero."""
        nn.init.zeros_(self.conv.weight)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Filter ``(B, inward, *space)`` to ``(B, outward, *space)``."""
        out: Tensor = self.conv(continued(x, self.margin) if self.circular else x)
        return out


def continued(x: Tensor, margin: int) -> Tensor:
    """Periodic field ``(B, C, *space)`` with so many more points at both ends of each axis."""
    if not margin:
        return x
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        ends = (x.narrow(axis, n - margin, margin), x, x.narrow(axis, 0, margin))
        x = torch.cat(ends, dim=axis)
    return x


class Doubling(nn.Module):
    """Transposed convolution of 4 points that doubles the resolution; periodic where asked."""

    def __init__(self, dims: int, channels: int, padding: Padding) -> None:
        super().__init__()
        self.circular = padding == "circular"
        margin = 3 if self.circular else 1
        self.conv = _TRANSPOSED[dims](channels, channels, 4, 2, padding=margin)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *space)`` to ``(B, C, *twice)``."""
        out: Tensor = self.conv(continued(x, 1) if self.circular else x)
        return out


class Conditioning(nn.Module):
    """The vector c ``(B, width)`` of numbers ``(B, P)``, by one perceptron for each.

    Parameters
    ----------
    numbers : int
        P.
    waves : int
        Sines and cosines of each number, together; even.
    width : int
    """

    frequencies: Tensor

    def __init__(self, numbers: int, waves: int, width: int) -> None:
        super().__init__()
        half = waves // 2
        frequencies = torch.exp(-math.log(1e4) * torch.arange(half, dtype=torch.float64) / half)
        self.register_buffer("frequencies", frequencies.float(), persistent=False)
        self.perceptrons = nn.ModuleList(
            nn.Sequential(nn.Linear(2 * half, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(numbers)
        )

    def forward(self, p: Tensor) -> Tensor:
        """Sum of what each number's perceptron says."""
        angle = p.unsqueeze(-1) * self.frequencies
        waves = torch.cat((angle.cos(), angle.sin()), dim=-1)
        parts = [mlp(waves[:, i]) for i, mlp in enumerate(self.perceptrons)]
        return torch.stack(parts).sum(0)


class ResidualBlock(nn.Module):
    """One block of :class:`UNet`; condition None is no condition."""

    def __init__(
        self, dims: int, inward: int, outward: int, condition: int | None, padding: Padding
    ) -> None:
        super().__init__()
        self.before = nn.GroupNorm(1, inward)
        self.first = PaddedConv(dims, inward, outward, 3, padding)
        self.between = nn.GroupNorm(1, outward)
        self.second = PaddedConv(dims, outward, outward, 3, padding).zeroed()
        self.told = None if condition is None else nn.Linear(condition, outward)
        same = inward == outward
        self.shortcut = nn.Identity() if same else PaddedConv(dims, inward, outward, 1, padding)

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        """``(B, inward, *space)`` to ``(B, outward, *space)`` under a condition ``(B, width)``."""
        h: Tensor = self.first(nn.functional.gelu(self.before(x)))
        if self.told is not None:
            told: Tensor = self.told(c)
            h = h + told.reshape(*told.shape, *[1] * (x.ndim - 2))
        out: Tensor = self.shortcut(x) + self.second(nn.functional.gelu(self.between(h)))
        return out


class UNet(FieldNetwork):
    """The conditioned U-Net of PDE-Refiner, for fields in one to three dimensions.

    Parameters
    ----------
    in_channels, out_channels : int
    dims : {1, 2, 3}
        Dimensions of space.
    num_params : int
        Numbers p that come with a field.
    hidden : int
        Channels at full resolution, a multiple of 8; 64 in the paper.
    multipliers : sequence of int
        By which channels grow from one level to the next, the first level's included; the
        resolution halves between levels. (1, 2, 2, 4) in the paper, of 64, 128, 256 and 1024
        channels.
    blocks : int
        A level on the way down; one more on the way up.
    padding : {"circular", "zeros"}
        Of every layer. In the official code the transposed convolutions are padded by zeros even
        so, which leaves a seam; here they are periodic too.
    """

    kind: ClassVar[str] = "unet"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dims: int = 1,
        num_params: int = 0,
        hidden: int = 64,
        multipliers: Sequence[int] = (1, 2, 2, 4),
        blocks: int = 2,
        padding: Padding = "circular",
    ) -> None:
        super().__init__()
        _check_layout(dims, padding)
        if hidden < 8 or hidden % 8:
            raise UserError(f"hidden must be a multiple of 8, found {hidden}")
        if not multipliers or min(multipliers) < 1 or blocks < 1:
            raise UserError(
                f"a U-Net needs multipliers and blocks of at least 1, found {tuple(multipliers)} "
                f"and {blocks}"
            )
        self.settings = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "dims": dims,
            "num_params": num_params,
            "hidden": hidden,
            "multipliers": list(multipliers),
            "blocks": blocks,
            "padding": padding,
        }
        self.num_params = num_params
        self.levels = len(multipliers)
        width = 4 * hidden
        self.condition = Conditioning(num_params, hidden, width) if num_params else None
        self._layout = (dims, width if num_params else None, padding)

        self.lift = PaddedConv(dims, in_channels, hidden, 3, padding)
        channels = hidden
        self.down, self.halvings = nn.ModuleList(), nn.ModuleList()
        for level, factor in enumerate(multipliers):
            sizes = [channels, *[channels * factor] * blocks]
            self.down.append(self._blocks(sizes[:-1], sizes[1:]))
            channels *= factor
            if level < self.levels - 1:
                self.halvings.append(PaddedConv(dims, channels, channels, 3, padding, stride=2))
        self.middle = self._blocks([channels] * 2, [channels] * 2)
        self.up, self.doublings = nn.ModuleList(), nn.ModuleList()
        for level, factor in reversed(list(enumerate(multipliers))):
            narrow = channels // factor
            inward = [2 * channels] * blocks + [channels + narrow]
            self.up.append(self._blocks(inward, [channels] * blocks + [narrow]))
            channels = narrow
            if level > 0:
                self.doublings.append(Doubling(dims, channels, padding))
        self.norm = nn.GroupNorm(8, hidden)
        self.project = PaddedConv(dims, hidden, out_channels, 3, padding).zeroed()

    def _blocks(self, inward: Sequence[int], outward: Sequence[int]) -> nn.ModuleList:
        dims, condition, padding = self._layout
        return nn.ModuleList(
            ResidualBlock(dims, i, o, condition, padding)
            for i, o in zip(inward, outward, strict=True)
        )

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        """``(B, C_in, *space)`` and numbers ``(B, P)`` to ``(B, C_out, *space)``."""
        _check_halves(u, self.levels - 1)
        c = None if self.condition is None else self.condition(numbers(p, self.num_params))
        x = self.lift(u)
        kept = [x]
        for level, blocks in enumerate(self.down):
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, c)
                kept.append(x)
            if level < self.levels - 1:
                x = self.halvings[level](x)
                kept.append(x)
        for block in self.middle:
            x = block(x, c)
        for level, blocks in enumerate(self.up):
            for block in blocks:  # type: ignore[attr-defined]
                x = block(torch.cat((x, kept.pop()), dim=1), c)
            if level < self.levels - 1:
                x = self.doublings[level](x)
        out: Tensor = self.project(nn.functional.gelu(self.norm(x)))
        return out


class _Pair(nn.Sequential):
    """Two convolutions, each normalised and squashed."""

    def __init__(self, dims: int, inward: int, outward: int, normalise: bool, padding: Padding):
        layers: list[nn.Module] = []
        for channels in (inward, outward):
            layers.append(PaddedConv(dims, channels, outward, 3, padding))
            layers += [_BATCH_NORMS[dims](outward)] if normalise else []
            layers.append(nn.Tanh())
        super().__init__(*layers)


class PlainUNet(FieldNetwork):
    """The U-Net of PDEBench: four halvings, tanh and batch normalisation.

    Numbers that come with a field are constant channels beside it.

    Parameters
    ----------
    in_channels, out_channels : int
    dims : {1, 2, 3}
        Dimensions of space.
    num_params : int
        Numbers p that come with a field.
    features : int
        Channels at full resolution, doubled at each level; 32 in the benchmark.
    halvings : int
        Of the resolution; 4 in the benchmark.
    batch_norm : bool
        Normalise over the batch, as the benchmark does.
    padding : {"circular", "zeros"}
        Zeros in the benchmark.
    """

    kind: ClassVar[str] = "plain-unet"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dims: int = 1,
        num_params: int = 0,
        features: int = 32,
        halvings: int = 4,
        batch_norm: bool = True,
        padding: Padding = "zeros",
    ) -> None:
        super().__init__()
        _check_layout(dims, padding)
        if features < 1 or halvings < 1:
            raise UserError(
                f"features and halvings must be at least 1, found {features} and {halvings}"
            )
        self.settings = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "dims": dims,
            "num_params": num_params,
            "features": features,
            "halvings": halvings,
            "batch_norm": batch_norm,
            "padding": padding,
        }
        self.num_params = num_params
        self.halvings = halvings
        widths = [features * 2**level for level in range(halvings + 1)]
        inward = [in_channels + num_params, *widths[:-1]]
        self.down = nn.ModuleList(
            _Pair(dims, a, b, batch_norm, padding) for a, b in zip(inward, widths, strict=True)
        )
        self.pool = _MAX_POOLINGS[dims](2)
        steps = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.doublings = nn.ModuleList(_TRANSPOSED[dims](wide, thin, 2, 2) for wide, thin in steps)
        self.up = nn.ModuleList(
            _Pair(dims, wide, thin, batch_norm, padding) for wide, thin in steps
        )
        self.project = _CONVOLUTIONS[dims](features, out_channels, 1)

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        """``(B, C_in, *space)`` and numbers ``(B, P)`` to ``(B, C_out, *space)``."""
        _check_halves(u, self.halvings)
        x = u if not self.num_params else beside(u, numbers(p, self.num_params))
        kept = []
        for level, pair in enumerate(self.down):
            x = pair(x if level == 0 else self.pool(x))
            kept.append(x)
        kept.pop()
        for double, pair in zip(self.doublings, self.up, strict=True):
            x = pair(torch.cat((double(x), kept.pop()), dim=1))
        out: Tensor = self.project(x)
        return out


def beside(u: Tensor, p: Tensor) -> Tensor:
    """Fields ``(B, C, *space)`` and numbers ``(B, P)`` as constant channels ``(B, C + P, ...)``."""
    constant = p.reshape(*p.shape, *[1] * (u.ndim - 2)).expand(-1, -1, *u.shape[2:])
    return torch.cat((u, constant), dim=1)


def numbers(p: Tensor | None, count: int) -> Tensor:
    """Return p, refused where it is not of shape ``(B, count)``."""
    if p is None or p.ndim != 2 or p.shape[1] != count:
        found = "none" if p is None else tuple(p.shape)
        raise UserError(f"the network needs numbers of shape (B, {count}), found {found}")
    return p


def _check_layout(dims: int, padding: str) -> None:
    if dims not in _CONVOLUTIONS:
        raise UserError(f"dims must be 1, 2 or 3, found {dims}")
    if padding not in ("circular", "zeros"):
        raise UserError(f"padding must be 'circular' or 'zeros', found {padding!r}")


def _check_halves(u: Tensor, halvings: int) -> None:
    multiple = 2**halvings
    if any(n % multiple for n in u.shape[2:]):
        raise UserError(
            f"a U-Net that halves the resolution {halvings} times needs a multiple of {multiple} "
            f"points along each axis, found {tuple(u.shape[2:])}"
        )
