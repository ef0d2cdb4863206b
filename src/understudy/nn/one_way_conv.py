r"""Convolutions whose kernels are products of one-way filters, from the start.

Boukraichi, Akkari, Casenave & Ryckelynck 2023, *A priori compression of convolutional neural
networks for wave simulators* (arXiv 2304.04964). The kernel of output o of a convolution is a
tensor with a way for the channels and one for each axis, :math:`C \times k_1 \times \dots
\times k_d`. Here it is never stored: its factors are the parameters, and are learnt as such,

.. math:: K_o = \sum_{r=1}^R a_o^r \otimes u_o^{r,1} \otimes \dots \otimes u_o^{r,d}

with :math:`a \in \mathbb R^C`, :math:`u^i \in \mathbb R^{k_i}`, which are
:math:`O R (C + \sum k_i)` numbers in place of :math:`O C \prod k_i`. A product of filters is a
chain of convolutions with nothing between: one point wide over the channels, then each of R O
channels by itself along one axis after the other, then the sum over r.

That filters of one way take the place of kernels of several is what the paper's abstract says.
Its text was not at hand: the three modes, where the sum over r is, and the initialisation are
reconstructed. ``per_filter`` is the equation above. ``shared`` has R terms for all outputs,

.. math:: K = \sum_{r=1}^R o_r \otimes a_r \otimes u_r^1 \otimes \dots \otimes u_r^d,

which are :math:`R (C + O + \sum k_i)` numbers. ``spatial`` separates the axes only: d dense
convolutions along one axis each, by way of R O channels.

*Order.* Filters of a chain commute. Channels come first: to filter each of C channels R O times
before they are summed is C times the work, unless the stride is larger than the kernel. Among the
axes that one comes first that leaves fewer points for the next.

*Which way.* The chain needs few multiplications and much memory traffic; the kernel can as well be
composed of its factors, and one dense convolution made with it (``composed``): the same function,
for the time of the dense one. In training on processors that is the faster way from some four
terms on.

*Start.* A product of d + 1 factors of PyTorch's usual spread would all but vanish. With
:math:`\operatorname{Var} a = g^2/(C R)` and :math:`\operatorname{Var} u^i = 1/k_i` the kernel has
the variance :math:`g^2/(C \prod k_i)` of He et al. (2015, arXiv 1502.01852), :math:`g^2 = 2`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any, ClassVar, Literal, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.core.errors import UserError
from understudy.nn.canonical import compose, decompose

Mode: TypeAlias = Literal["per_filter", "shared", "spatial"]
Extent: TypeAlias = int | Sequence[int]
Margin: TypeAlias = int | Sequence[int] | Literal["same", "valid"]
Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d
TransposedConvolution: TypeAlias = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d

MODES = ("per_filter", "shared", "spatial")
PADDINGS = ("zeros", "reflect", "replicate", "circular")

_DENSE: dict[int, type[Convolution]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, type[TransposedConvolution]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}
_GAIN = math.sqrt(2.0)


class _OneWay(nn.Module):
    """What all convolutions of one-way filters share; see the module."""

    dims: ClassVar[int]
    transposed: ClassVar[bool]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Extent,
        rank: int,
        mode: Mode,
        stride: Extent,
        padding: Margin,
        dilation: Extent,
        bias: bool,
        padding_mode: str,
        output_padding: Extent,
        composed: bool,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = _extents(kernel_size, self.dims, "kernel_size", 1)
        self.stride = _extents(stride, self.dims, "stride", 1)
        self.dilation = _extents(dilation, self.dims, "dilation", 1)
        self.output_padding = _extents(output_padding, self.dims, "output_padding", 0)
        self.padding_mode, self.rank, self.mode = padding_mode, rank, mode
        self.composed = composed
        self.margins = self._margins(padding)
        self._check()
        self.axes = self._cheapest_order()
        self.factors = nn.ParameterList(torch.empty(shape) for shape in self._shapes())
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.reset_parameters()

    def _margins(self, padding: Margin) -> tuple[tuple[int, int], ...]:
        """Points before and after each axis."""
        if padding == "same":
            if max(self.stride) > 1:
                raise UserError("padding 'same' is for stride 1")
            spans = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return tuple((span // 2, span - span // 2) for span in spans)
        if isinstance(padding, str):
            if padding != "valid":
                raise UserError(f"padding is 'same', 'valid' or numbers, found {padding!r}")
            padding = 0
        return tuple((p, p) for p in _extents(padding, self.dims, "padding", 0))

    def _check(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"mode must be one of {', '.join(MODES)}, found {self.mode!r}")
        if self.padding_mode not in PADDINGS:
            known = ", ".join(PADDINGS)
            raise UserError(f"padding_mode must be one of {known}, found {self.padding_mode!r}")
        if self.mode == "spatial" and self.dims == 1:
            raise UserError("along one axis there is nothing for mode 'spatial' to separate")
        for name in ("in_channels", "out_channels", "rank"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, found {getattr(self, name)}")
        most = largest_rank(self.in_channels, self.out_channels, self.kernel_size, self.mode)
        if self.rank > most:
            size = " x ".join(map(str, self.kernel_size))
            warnings.warn(
                f"rank {self.rank} is more than the {most} with which mode {self.mode!r} has every "
                f"kernel of {size} points from {self.in_channels} to {self.out_channels} channels; "
                "the rest is wasted",
                stacklevel=4,
            )

    # -- the factors ----------------------------------------------------------------------------

    def _cheapest_order(self) -> tuple[int, ...]:
        """Axes in the order with the fewest multiplications where there are 64 points a side."""

        def work(order: tuple[int, ...]) -> float:
            size, total = [64.0] * self.dims, 0.0
            for axis in order:
                before = math.prod(size)
                size[axis] = max(self._size_after(size[axis], axis), 1.0)
                # a transposed filter has its k products at each point that it is given
                points = before if self.transposed else math.prod(size)
                total += points * self.kernel_size[axis]
            return total

        return min(permutations(range(self.dims)), key=work)

    def _size_after(self, size: float, axis: int) -> float:
        span = self.dilation[axis] * (self.kernel_size[axis] - 1) - sum(self.margins[axis])
        if self.transposed:
            return (size - 1) * self.stride[axis] + span + self.output_padding[axis] + 1
        return (size - span - 1) // self.stride[axis] + 1

    def _shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the factors: channels, then the axes in their order, then outputs if shared."""
        C, O, R = self.in_channels, self.out_channels, self.rank
        ways = [self.kernel_size[axis] for axis in self.axes]
        if self.mode == "per_filter":
            return [(R, O, C), *((R, O, k) for k in ways)]
        if self.mode == "shared":
            return [(R, C), *((R, k) for k in ways), (R, O)]
        widths = [C, *[R * O] * (self.dims - 1), O]
        return [(widths[i + 1], widths[i], k) for i, k in enumerate(ways)]

    @torch.no_grad()
    def reset_parameters(self, gain: float = _GAIN) -> None:
        """Draw factors with which the kernel has variance gain^2 / (C prod k); the bias is zero.

        Of the points of a transposed kernel one in stride meets a point of the output along each
        axis, so k counts as k / stride.
        """
        per = self.stride if self.transposed else (1,) * self.dims
        taps = [self.kernel_size[axis] / per[axis] for axis in self.axes]
        if self.mode == "spatial":
            fans = [f.shape[1] * k for f, k in zip(self.factors, taps, strict=True)]
        else:
            fans = [self.in_channels * self.rank, *taps]
            if self.mode == "shared":
                fans = [self.in_channels, *taps, self.rank]
        fans[0] /= gain**2
        for factor, fan in zip(self.factors, fans, strict=True):
            factor.normal_(0.0, fan**-0.5)
        if self.bias is not None:
            self.bias.zero_()

    @torch.no_grad()
    def balance(self) -> Self:
        """Make the factors of each term equally long; the function stays the same.

        Products do not say how long their factors are. Where one has grown at the expense of
        another, a step of the same length means much for one and little for the other.
        """
        together = self.mode == "spatial"
        lengths = [f.norm() if together else f.norm(dim=-1, keepdim=True) for f in self.factors]
        mean = torch.stack(lengths).log().mean(0).exp()
        for factor, length in zip(self.factors, lengths, strict=True):
            factor.mul_(torch.where(mean > 0, mean / length, 1.0))
        return self

    def kernel(self) -> Tensor:
        """Dense kernel ``(O, C, *kernel_size)`` whose parts the factors are."""
        if self.mode == "per_filter":
            K = compose([f.transpose(0, 1) for f in self.factors])
        elif self.mode == "shared":
            ways = [f.unsqueeze(0) for f in self.factors]
            K = compose([ways[-1], *ways[:-1]])[0]
        else:
            K = self.factors[0]
            for factor in list(self.factors)[1:]:
                K = torch.einsum("mc...,omk->oc...k", K, factor)
        # the axes of K are in the order of the chain
        return K.permute(0, 1, *(2 + self.axes.index(axis) for axis in range(self.dims)))

    # -- the chain ------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Filter ``(B, C, *space)`` to ``(B, O, *space')`` as the dense convolution would."""
        if self.composed:
            return self._convolved(x, self.kernel(), self.bias, tuple(range(self.dims)))
        if self.mode == "spatial":
            for axis, weight in zip(self.axes, self.factors, strict=True):
                bias = self.bias if axis == self.axes[-1] else None
                x = self._convolved(x, self._along(axis, weight), bias, (axis,))
            return x
        channels = self.factors[0].flatten(0, -2)
        x = self._mixed(x, channels, None)
        single = self.mode == "per_filter" and self.rank == 1
        for axis, factor in zip(self.axes, list(self.factors)[1 : self.dims + 1], strict=True):
            weight = self._along(axis, factor.reshape(len(channels), 1, -1))
            bias = self.bias if single and axis == self.axes[-1] else None
            x = self._convolved(x, weight, bias, (axis,), groups=len(channels))
        if single:
            return x
        if self.mode == "shared":
            return self._mixed(x, self.factors[-1].mT, self.bias)
        terms = x.chunk(self.rank, dim=1)
        out = terms[0] if self.bias is None else terms[0] + self.bias.view(-1, *[1] * self.dims)
        for term in terms[1:]:
            out = out + term
        return out

    def _along(self, axis: int, weight: Tensor) -> Tensor:
        """Kernel ``(out, in, 1, .., k, .., 1)`` along one axis of a weight ``(out, in, k)``."""
        shape = [weight.shape[2] if i == axis else 1 for i in range(self.dims)]
        return weight.reshape(*weight.shape[:2], *shape)

    def _mixed(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Mix channels by a matrix ``(out, in)``."""
        return _CONVOLVE[self.dims](x, weight.reshape(*weight.shape, *[1] * self.dims), bias)

    def _convolved(
        self,
        x: Tensor,
        kernel: Tensor,
        bias: Tensor | None,
        axes: tuple[int, ...],
        groups: int = 1,
    ) -> Tensor:
        """Filter along some axes by a kernel ``(out, in / groups, ...)``."""

        def only(values: Sequence[int], other: int) -> list[int]:
            return [values[i] if i in axes else other for i in range(self.dims)]

        stride, dilation = only(self.stride, 1), only(self.dilation, 1)
        before = only([left for left, _ in self.margins], 0)
        if self.transposed:
            # PyTorch keeps inputs first there
            weight = kernel.transpose(0, 1) if groups == 1 else kernel
            more = only(self.output_padding, 0)
            return _TRANSPOSE[self.dims](x, weight, bias, stride, before, more, groups, dilation)
        if self.padding_mode != "zeros" or any(left != right for left, right in self.margins):
            ends = [self.margins[i] if i in axes else (0, 0) for i in reversed(range(self.dims))]
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, [n for pair in ends for n in pair], mode)
            before = [0] * self.dims
        return _CONVOLVE[self.dims](x, kernel, bias, stride, before, dilation, groups)

    # -- dense and back -------------------------------------------------------------------------

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
        See :mod:`understudy.nn.one_way_conv`.
    stride, dilation : int or one an axis
    padding : int, one an axis, "same" or "valid"
    bias : bool
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
    composed : bool
        Compose the kernel and make one dense convolution, in place of the chain of filters.

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
        composed: bool = False,
    ) -> None:
        layout = (stride, padding, dilation, bias, padding_mode, 0, composed)
        super().__init__(in_channels, out_channels, kernel_size, rank, mode, *layout)


class _Transposed(_OneWay):
    """Transposed convolution of one-way filters, as decoders have; padded by zeros.

    Parameters
    ----------
    in_channels, out_channels, kernel_size, rank, mode, stride, dilation, bias, composed
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
        composed: bool = False,
    ) -> None:
        layout = (stride, padding, dilation, bias, "zeros", output_padding, composed)
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


def largest_rank(
    in_channels: int, out_channels: int, kernel_size: Sequence[int], mode: Mode
) -> int:
    """Terms with which every kernel can be had; more are wasted, and mostly fewer suffice.

    A tensor is a sum of as many products as its entries by its longest way.
    """
    if mode == "spatial":
        sizes = [in_channels, *kernel_size]
        halves = (
            min(math.prod(sizes[: i + 1]), out_channels * math.prod(sizes[i + 1 :]))
            for i in range(1, len(kernel_size))
        )
        return -(-max(halves, default=1) // out_channels)
    ways = [in_channels, *kernel_size, *([out_channels] if mode == "shared" else [])]
    return math.prod(ways) // max(ways)


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


def _extents(value: Extent, dims: int, name: str, least: int) -> tuple[int, ...]:
    """One number an axis."""
    each = (value,) * dims if isinstance(value, int) else tuple(int(v) for v in value)
    if len(each) != dims or min(each) < least:
        raise UserError(f"{name} must be {dims} numbers of at least {least}, found {value}")
    return each
