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

*Which way.* The same function is computed in three ways. The ``chain`` needs few multiplications
and much memory traffic, and in training keeps the input of each filter for the gradient. It can be
``recomputed``, term by term, when the gradient is asked for, so that only the input of the layer
is kept. Or the kernel is ``composed`` of its factors, and one dense convolution made with it,
which keeps as much and takes the time of the dense one. ``auto`` is the chain without gradients;
with them it is the faster one of the two that keep no more than a dense layer. On a processor a
term costs what some 400 multiply-accumulates at each point do, whatever its filters, because it
waits for memory, and a dense layer what :math:`C \prod k_i + 280` do (measured on one core, with
16 and 32 channels and 3 to 7 points a side).

*Start.* A product of d + 1 factors of PyTorch's usual spread would all but vanish. With
:math:`\operatorname{Var} a = g^2/(C R)` and :math:`\operatorname{Var} u^i = 1/k_i` the kernel has
the variance :math:`g^2/(C \prod k_i)` of He et al. (2015, arXiv 1502.01852), :math:`g^2 = 2`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import ClassVar, Literal, Self, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from understudy.core.errors import UserError
from understudy.nn.canonical import compose

Mode: TypeAlias = Literal["per_filter", "shared", "spatial"]
Way: TypeAlias = Literal["auto", "chain", "recomputed", "composed"]
Extent: TypeAlias = int | Sequence[int]
Margin: TypeAlias = int | Sequence[int] | Literal["same", "valid"]
MODES = ("per_filter", "shared", "spatial")
WAYS = ("auto", "chain", "recomputed", "composed")
PADDINGS = ("zeros", "reflect", "replicate", "circular")

_CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}
_GAIN = math.sqrt(2.0)
_TERM, _LAYER = 400, 280
"""Multiply-accumulates at a point of an output that take as long as a term, and as a layer."""


class OneWayFilters(nn.Module):
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
        way: Way,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = extents(kernel_size, self.dims, "kernel_size", 1)
        self.stride = extents(stride, self.dims, "stride", 1)
        self.dilation = extents(dilation, self.dims, "dilation", 1)
        self.output_padding = extents(output_padding, self.dims, "output_padding", 0)
        self.padding_mode, self.rank, self.mode = padding_mode, rank, mode
        self.way: Way = way
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
        return tuple((p, p) for p in extents(padding, self.dims, "padding", 0))

    def _check(self) -> None:
        if self.mode not in MODES:
            raise UserError(f"mode must be one of {', '.join(MODES)}, found {self.mode!r}")
        if self.way not in WAYS:
            raise UserError(f"way must be one of {', '.join(WAYS)}, found {self.way!r}")
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

    # -- the function ---------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Filter ``(B, C, *space)`` to ``(B, O, *space')`` as the dense convolution would."""
        way = self._way()
        if way == "composed":
            return self._convolved(x, self.kernel(), self.bias, tuple(range(self.dims)))

        def part(bias: Tensor | None, *factors: Tensor) -> Tensor:
            if way == "chain":
                return self._chain(x, bias, *factors)
            kept: Tensor = checkpoint(
                self._chain, x, bias, *factors, use_reentrant=False, preserve_rng_state=False
            )
            return kept

        if self.mode != "per_filter":
            return part(self.bias, *self.factors)
        # term by term, what is between the filters stays in the cache
        out = part(self.bias, *(f[0] for f in self.factors))
        for r in range(1, self.rank):
            out = out + part(None, *(f[r] for f in self.factors))
        return out

    def _way(self) -> Way:
        if self.way != "auto":
            return self.way
        if not torch.is_grad_enabled() or not self.training:
            return "chain"
        return "recomputed" if self.recomputing_is_faster() else "composed"

    def recomputing_is_faster(self) -> bool:
        """Whether in training the chain, recomputed, takes less time than a dense convolution."""
        dense = self.in_channels * math.prod(self.kernel_size)
        if self.mode == "spatial":
            # dense along one axis each; what is recomputed is a third of a step of training
            chain = sum(f.numel() for f in self.factors) / self.out_channels
            return 4 * chain < 3 * dense
        terms = self.rank if self.mode == "per_filter" else self.rank / self.out_channels
        return terms * _TERM < dense + _LAYER

    def _chain(self, x: Tensor, bias: Tensor | None, *factors: Tensor) -> Tensor:
        """One filter after the other: those of one term, of all that are shared, or dense ones."""
        shared, last = self.mode == "shared", self.axes[-1]
        if self.mode == "spatial":
            ways, groups = factors, 1
        else:
            x, groups = self._mixed(x, factors[0], None), len(factors[0])
            ways = tuple(f.unsqueeze(1) for f in factors[1 : self.dims + 1])
        for axis, weight in zip(self.axes, ways, strict=True):
            own = bias if axis == last and not shared else None
            x = self._convolved(x, self._along(axis, weight), own, (axis,), groups)
        return self._mixed(x, factors[-1].mT, bias) if shared else x

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


def extents(value: Extent, dims: int, name: str, least: int) -> tuple[int, ...]:
    """One number an axis."""
    each = (value,) * dims if isinstance(value, int) else tuple(int(v) for v in value)
    if len(each) != dims or min(each) < least:
        raise UserError(f"{name} must be {dims} numbers of at least {least}, found {value}")
    return each
