"""Convolutions of one-way filters, in the place of PyTorch's and back again.

See :mod:`understudy.nn.one_way_filters` for what they are (arXiv 2304.04964).
"""

from __future__ import annotations

import math
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.core.errors import UserError
from understudy.nn.canonical import decompose
from understudy.nn.one_way_filters import Extent, Margin, Mode, OneWayFilters, Way

Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d
TransposedConvolution: TypeAlias = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d

_DENSE: dict[int, type[Convolution]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, type[TransposedConvolution]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


class _OneWay(OneWayFilters):
    """Filters that are exchanged for a dense convolution, and it for them."""

    @torch.no_grad()
    def to_dense(self) -> Convolution | TransposedConvolution:
        """Convolution of PyTorch's own with the same function."""
        even = all(left == right for left, right in self.margins)
        layout: dict[str, Any] = {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "padding": tuple(left for left, _ in self.margins) if even else "same",
            "dilation": self.dilation,
            "bias": self.bias is not None,
            "padding_mode": self.padding_mode,
        }
        dense: Convolution | TransposedConvolution
        if self.transposed:
            layout["output_padding"] = self.output_padding
            dense = _TRANSPOSED[self.dims](**layout)
            dense.to(self.factors[0])
            dense.weight.copy_(self.kernel().transpose(0, 1))
        else:
            dense = _DENSE[self.dims](**layout)
            dense.to(self.factors[0])
            dense.weight.copy_(self.kernel())
        if dense.bias is not None and self.bias is not None:
            dense.bias.copy_(self.bias)
        return dense

    @classmethod
    def like(cls, conv: nn.Module, rank: int = 1, mode: Mode = "per_filter") -> Self:
        """One-way filters in the place of a dense convolution, untrained.

        Channels, kernel, stride, padding and dilation are the same, and so are the spread of the
        kernel's weights and the bias, so that a fresh network starts where it would have started.
        Where all weights are zero, those of the last factor are.

        Raises
        ------
        UserError
            If it has groups, or is no convolution of so many dimensions.
        """
        new = cls._of_layout(conv, rank, mode)
        weight = new._dense_weight(conv)
        spread = float(weight.square().mean().sqrt())
        taps = math.prod(new.kernel_size) / (math.prod(new.stride) if cls.transposed else 1)
        new.reset_parameters(spread * math.sqrt(new.in_channels * taps) or 1.0)
        with torch.no_grad():
            if not spread:
                new.factors[-1].zero_()
            if new.bias is not None:
                new.bias.copy_(conv.bias)  # type: ignore[arg-type]
        return new.to(weight)

    @classmethod
    @torch.no_grad()
    def from_dense(
        cls,
        conv: nn.Module,
        rank: int = 1,
        mode: Mode = "per_filter",
        sweeps: int = 100,
        seed: int = 0,
    ) -> Self:
        """Approximate a trained dense convolution: compression a posteriori.

        Each kernel, or all of them together, is decomposed by alternating least squares from a
        HOSVD (:mod:`understudy.nn.canonical`); axes alone by singular values.

        Parameters
        ----------
        conv : nn.Conv1d, nn.Conv2d, nn.Conv3d or their transposes
        rank, mode
        sweeps : int
            Of the alternating least squares, at most.
        seed : int
        """
        new = cls._of_layout(conv, rank, mode)
        weight = new._dense_weight(conv)
        K = weight.permute(0, 1, *(2 + axis for axis in new.axes))
        if mode == "per_filter":
            found = [f.transpose(0, 1) for f in decompose(K, rank, sweeps, seed=seed)]
        elif mode == "shared":
            outputs, *ways = (f[0] for f in decompose(K.unsqueeze(0), rank, sweeps, seed=seed))
            found = [*ways, outputs]
        else:
            found = _separated(K, new.rank * new.out_channels)
        for factor, values in zip(new.factors, found, strict=True):
            factor.copy_(values)
        if new.bias is not None:
            new.bias.copy_(conv.bias)  # type: ignore[arg-type]
        return new.to(weight).balance()

    @classmethod
    def _of_layout(cls, conv: nn.Module, rank: int, mode: Mode) -> Self:
        """One of the channels, kernel, stride, padding and dilation of a dense convolution."""
        kind = _TRANSPOSED[cls.dims] if cls.transposed else _DENSE[cls.dims]
        if not isinstance(conv, kind):
            raise UserError(
                f"{cls.__name__} takes the place of {kind.__name__}, found {type(conv).__name__}"
            )
        if conv.groups > 1:
            raise UserError(
                f"a convolution of {conv.groups} groups filters channels apart already; "
                "one-way filters take the place of those of one group"
            )
        layout: dict[str, Any] = {
            "rank": rank,
            "mode": mode,
            "stride": conv.stride,
            "padding": conv.padding,
            "dilation": conv.dilation,
            "bias": conv.bias is not None,
        }
        layout |= (
            {"output_padding": conv.output_padding}
            if cls.transposed
            else {"padding_mode": conv.padding_mode}
        )
        return cls(conv.in_channels, conv.out_channels, conv.kernel_size, **layout)

    def _dense_weight(self, conv: nn.Module) -> Tensor:
        """Kernel ``(O, C, *kernel_size)`` of a dense convolution."""
        weight: Tensor = conv.weight.detach()  # type: ignore[operator]
        return weight.transpose(0, 1) if self.transposed else weight

    def extra_repr(self) -> str:
        """Layout, as it is printed."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"rank={self.rank}, mode={self.mode!r}, stride={self.stride}"
        )


class _Forward(_OneWay):
    """Convolution of one-way filters.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or one an axis
    rank : int
        Terms R: of every output's kernel, of all outputs together (``shared``), or channels
        between the axes over outputs (``spatial``).
    mode : {"per_filter", "shared", "spatial"}
        See :mod:`understudy.nn.one_way_filters`.
    stride, dilation : int or one an axis
    padding : int, one an axis, "same" or "valid"
    bias : bool
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
    way : {"auto", "chain", "recomputed", "composed"}
        How the same function is computed, see :mod:`understudy.nn.one_way_filters`.

    Raises
    ------
    UserError
        A mode, size or padding that cannot be.

    Warns
    -----
    UserWarning
        More terms than any kernel needs.
    """

    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Extent,
        rank: int = 1,
        mode: Mode = "per_filter",
        stride: Extent = 1,
        padding: Margin = 0,
        dilation: Extent = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        way: Way = "auto",
    ) -> None:
        layout = (stride, padding, dilation, bias, padding_mode, 0, way)
        super().__init__(in_channels, out_channels, kernel_size, rank, mode, *layout)


class _Transposed(_OneWay):
    """Transposed convolution of one-way filters, as decoders have; padded by zeros.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, rank, mode, stride, dilation, bias, way
        As of the convolution.
    padding : int or one an axis
        Points cut from both ends.
    output_padding : int or one an axis
        Points added to one end.
    """

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Extent,
        rank: int = 1,
        mode: Mode = "per_filter",
        stride: Extent = 1,
        padding: Extent = 0,
        output_padding: Extent = 0,
        dilation: Extent = 1,
        bias: bool = True,
        way: Way = "auto",
    ) -> None:
        layout = (stride, padding, dilation, bias, "zeros", output_padding, way)
        super().__init__(in_channels, out_channels, kernel_size, rank, mode, *layout)


class OneWayConv1d(_Forward):  # noqa: D101
    __doc__ = _Forward.__doc__
    dims = 1


class OneWayConv2d(_Forward):  # noqa: D101
    __doc__ = _Forward.__doc__
    dims = 2


class OneWayConv3d(_Forward):  # noqa: D101
    __doc__ = _Forward.__doc__
    dims = 3


class OneWayConvTranspose1d(_Transposed):  # noqa: D101
    __doc__ = _Transposed.__doc__
    dims = 1


class OneWayConvTranspose2d(_Transposed):  # noqa: D101
    __doc__ = _Transposed.__doc__
    dims = 2


class OneWayConvTranspose3d(_Transposed):  # noqa: D101
    __doc__ = _Transposed.__doc__
    dims = 3


OneWay: TypeAlias = _Forward | _Transposed
"""Any of these."""

ONE_WAY: dict[type[nn.Module], type[OneWay]] = {
    nn.Conv1d: OneWayConv1d,
    nn.Conv2d: OneWayConv2d,
    nn.Conv3d: OneWayConv3d,
    nn.ConvTranspose1d: OneWayConvTranspose1d,
    nn.ConvTranspose2d: OneWayConvTranspose2d,
    nn.ConvTranspose3d: OneWayConvTranspose3d,
}
"""What takes the place of each of PyTorch's convolutions."""


def _separated(K: Tensor, width: int) -> list[Tensor]:
    """Factors ``(out, in, k)`` of a chain of axes, by singular values one axis after the other.

    Of kernels ``(O, C, k_1, ..., k_d)``; the channels between are filled up with zeros.
    """
    *_, last = K.shape
    O, C = K.shape[:2]
    rest = K.double().movedim(0, -1).flatten(1)  # (C, k_1 ... k_d O)
    factors, inward = [], C
    for k in K.shape[2:-1]:
        U, s, V = torch.linalg.svd(rest.reshape(inward * k, -1), full_matrices=False)
        keep = min(width, len(s))
        left = (U[:, :keep] * s[:keep]).T.reshape(keep, inward, k)
        factors.append(F.pad(left, (0, 0, 0, 0, 0, width - keep)))
        rest, inward = F.pad(V[:keep], (0, 0, 0, width - keep)), width
    factors.append(rest.reshape(inward, last, O).permute(2, 0, 1))
    return factors
