r"""A block that tells any network from fields to fields which equation it stands in for.

Takamoto, Alesiani & Niepert (2023, arXiv 2304.14118). Channel attention by the parameters p of an
equation guesses the next fields from the last ones x,

.. math::

    z &= g(W_5 * x), \qquad e_i = B_i\, g(A_i p + a_i) + b_i, \quad i = 0, 1, 2 \\
    h &= e_0 \odot \mathrm{up}_4\, F^{-1} R\, F\, \mathrm{mean}_4\, z + e_1 \odot W_1 z
        + e_2 \odot (w_5 * z) + W_1' z \\
    \hat u &= x + \mathrm{LN}(W_1'' g(h)) \quad\text{or, in two dimensions,}\quad
    \hat u = x \odot (1 + \mathrm{LN}(W_1'' g(h)))

with g = GELU, W of 5 points or 1, w a depthwise convolution, R a matrix for each of the lowest
modes, :math:`e_i` a number a channel, and LN a normalisation over space, affine in each point,
which ties the block to one resolution. The three branches see the whole domain, one point and its
neighbours. The network behind it sees :math:`[x; \hat u]` and gives as many channels, which a
last convolution of 1 point brings to the next fields.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.models.operators.fno import SpectralConv
from understudy.models.operators.network import FieldNetwork, Records
from understudy.models.operators.unet import Padding, beside, numbers

Combination: TypeAlias = Literal["add", "multiply"]
ParameterScale: TypeAlias = Literal["identity", "fraction"]
"""``identity``: p; ``fraction``: p / (1 + p), which is the sigmoid of log p."""

POOLING = 4
_MODES = {1: 16, 2: 9}
_CONVOLUTIONS: dict[int, type[nn.Conv1d] | type[nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}
_POOLINGS = {1: nn.AvgPool1d, 2: nn.AvgPool2d}


class CAPE(nn.Module):
    """The block: a guess of the next fields from the last ones and the parameters.

    Defaults are those of the paper's code where nothing else is said.

    Parameters
    ----------
    in_channels : int
        Fields C.
    num_params : int
        Numbers P that are told of an equation.
    spatial_shape : sequence of int
        Points along one or two axes, multiples of 4; the block takes no other resolution.
    width : int
        Channels w; even.
    kernel_size : int
        Of the local convolutions; odd.
    modes : int, optional
        Fourier modes along each axis of the global branch, 16 in one dimension and 9 in two. Where
        the field, averaged over 4 points, has fewer, that many are used and a warning says so.
    future_steps : int
        Fields m, of times to come, that are guessed.
    combine : {"add", "multiply"}, optional
        How the guess goes out from x; by default ``"add"`` in one dimension, else ``"multiply"``.
    padding : {"circular", "zeros"}
        ``"zeros"`` is the paper's, which makes an edge where a periodic domain has none.
    parameter_scale : {"identity", "fraction"}, optional
        What the parameters are turned into; by default ``"identity"`` in one dimension, else
        ``"fraction"``.
    """

    def __init__(
        self,
        in_channels: int,
        num_params: int,
        spatial_shape: Sequence[int],
        width: int = 64,
        kernel_size: int = 5,
        modes: int | None = None,
        future_steps: int = 1,
        combine: Combination | None = None,
        padding: Padding = "circular",
        parameter_scale: ParameterScale | None = None,
    ) -> None:
        super().__init__()
        shape, plane = tuple(spatial_shape), len(spatial_shape) == 2
        _check_shape(shape)
        _check_counts(in_channels, num_params, width, kernel_size, future_steps)
        self.combine = combine or ("multiply" if plane else "add")
        self.scale: ParameterScale = parameter_scale or ("fraction" if plane else "identity")
        _check_choices(self.combine, padding, self.scale)
        modes = _available(_MODES[len(shape)] if modes is None else modes, shape)
        self.in_channels, self.num_params = in_channels, num_params
        self.spatial_shape, self.future_steps = shape, future_steps
        self.settings = {
            "in_channels": in_channels,
            "num_params": num_params,
            "spatial_shape": list(shape),
            "width": width,
            "kernel_size": kernel_size,
            "modes": modes,
            "future_steps": future_steps,
            "combine": self.combine,
            "padding": padding,
            "parameter_scale": self.scale,
        }
        half, conv = width // 2, _CONVOLUTIONS[len(shape)]
        local: dict[str, Any] = {
            "padding": kernel_size // 2,
            "padding_mode": padding,
            "bias": False,
        }
        self.attention = nn.ModuleList(_embedding(num_params, half, width) for _ in range(3))
        self.lift = conv(in_channels, half, kernel_size, **local)
        self.pool = _POOLINGS[len(shape)](POOLING)
        self.spectral = SpectralConv(half, width, _frequencies(modes, shape))
        self.pointwise = conv(half, width, 1)
        self.depthwise = conv(width, width, kernel_size, groups=width, **local)
        self.direct = conv(half, width, 1)
        self.project = conv(width, in_channels * future_steps, 1)
        self.norm = nn.LayerNorm(shape)

    def forward(self, u: Tensor, p: Tensor | None) -> Tensor:
        """Guess ``(B, m C, *space)``, time by time, of fields ``(B, C, *space)`` and p ``(B, P)``.

        Raises
        ------
        UserError
            If the resolution is not the block's, or the parameters do not fit.
        """
        if tuple(u.shape[1:]) != (self.in_channels, *self.spatial_shape):
            raise UserError(
                f"this block takes fields of shape (B, {self.in_channels}, "
                f"{', '.join(map(str, self.spatial_shape))}), found {tuple(u.shape)}"
            )
        p = scaled(numbers(p, self.num_params), self.scale)
        e = [embed(p).flatten(1)[(..., *[None] * (u.ndim - 2))] for embed in self.attention]
        z = nn.functional.gelu(self.lift(u))
        near = self.depthwise(z.repeat_interleave(2, dim=1))
        h = torch.addcmul(self._at_a_point(z, e[1].flatten(1)), e[2], near)
        h = _add_to_blocks(h, e[0] * self.spectral(self.pool(z)))
        g: Tensor = self.norm(self.project(nn.functional.gelu(h)))
        x = u.repeat(1, self.future_steps, *[1] * (u.ndim - 2))
        return x + g if self.combine == "add" else x * (1.0 + g)

    def _at_a_point(self, z: Tensor, e: Tensor) -> Tensor:
        """Gated and ungated map of channels, ``(B, w, *space)``, as one matrix for each field."""
        gate = e.unsqueeze(2)
        weight = gate * self.pointwise.weight.flatten(1) + self.direct.weight.flatten(1)
        bias = gate * self._bias(self.pointwise) + self._bias(self.direct)
        return torch.baddbmm(bias, weight, z.flatten(2)).unflatten(2, z.shape[2:])

    @staticmethod
    def _bias(convolution: nn.Module) -> Tensor:
        bias = convolution.bias
        assert isinstance(bias, Tensor)
        return bias.unsqueeze(1)


class ParameterConditioned(FieldNetwork):
    """Any network from fields to fields, behind the block; arXiv 2304.14118.

    Parameters
    ----------
    base : FieldNetwork
        Of (1 + m) C channels in and out; it is not told the parameters itself.
    cape : CAPE
        The block, for C fields and m times to come.
    """

    kind: ClassVar[str] = "cape"
    records: ClassVar[Records] = {"cape": CAPE}

    def __init__(self, base: FieldNetwork, cape: CAPE) -> None:
        super().__init__()
        wide = (1 + cape.future_steps) * cape.in_channels
        _check_base(base, wide, wide)
        self.base, self.cape = base, cape
        self.project = _CONVOLUTIONS[len(cape.spatial_shape)](wide, cape.in_channels, 1)
        self.settings = {"base": base.describe(), "cape": cape.settings}

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        """Next fields ``(B, C, *space)`` of fields ``(B, C, *space)`` and p ``(B, P)``."""
        return self.with_guess(u, p)[0]

    def with_guess(self, u: Tensor, p: Tensor | None) -> tuple[Tensor, Tensor]:
        """Next fields ``(B, C, *space)`` and the block's guess ``(B, m C, *space)``."""
        guess = self.cape(u, p)
        return self.project(self.base(torch.cat((u, guess), dim=1))), guess


class ConcatParameters(FieldNetwork):
    """The usual way to tell a network parameters: a constant channel for each.

    Parameters
    ----------
    base : FieldNetwork
        Of C + P channels in.
    num_params : int
        Numbers P that are told of an equation.
    parameter_scale : {"identity", "fraction"}
        What the parameters are turned into, see :class:`CAPE`.
    """

    kind: ClassVar[str] = "concat-parameters"

    def __init__(
        self, base: FieldNetwork, num_params: int, parameter_scale: ParameterScale = "identity"
    ) -> None:
        super().__init__()
        if num_params < 1:
            raise UserError(f"num_params must be at least 1, found {num_params}")
        _check_choices("add", "zeros", parameter_scale)
        self.base, self.num_params = base, num_params
        self.scale: ParameterScale = parameter_scale
        self.settings = {
            "base": base.describe(),
            "num_params": num_params,
            "parameter_scale": parameter_scale,
        }

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        """``(B, C, *space)`` and numbers ``(B, P)`` to ``(B, C_out, *space)``."""
        known = scaled(numbers(p, self.num_params), self.scale)
        out: Tensor = self.base(beside(u, known))
        return out


def scaled(p: Tensor, scale: ParameterScale) -> Tensor:
    """Parameters of any shape on the scale that a network is told.

    Raises
    ------
    UserError
        If one is negative where p / (1 + p) is taken.
    """
    if scale == "identity":
        return p
    low = float(p.detach().min())
    if low < 0.0:
        raise UserError(f"parameters on the scale {scale!r} must be at least 0, found {low:g}")
    return p / (1.0 + p)


def _add_to_blocks(h: Tensor, far: Tensor) -> Tensor:
    """Add each value of a coarse field to a block of 4 points along each axis of a fine one."""
    blocks = [size for n in far.shape[2:] for size in (n, POOLING)]
    once = [size for n in far.shape[2:] for size in (n, 1)]
    return (h.reshape(*h.shape[:2], *blocks) + far.reshape(*far.shape[:2], *once)).reshape(h.shape)


def _embedding(num_params: int, half: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(num_params, half), nn.GELU(), nn.Linear(half, width))


def _available(modes: int, shape: tuple[int, ...]) -> int:
    """Modes, or as many as the averaged field has."""
    if modes < 1:
        raise UserError(f"modes must be at least 1, found {modes}")
    most = min(shape) // POOLING // 2 + 1
    if modes > most:
        warnings.warn(
            f"a field of {' x '.join(map(str, shape))} points, averaged over {POOLING}, has {most} "
            f"modes, so {most} are used instead of {modes}",
            stacklevel=3,
        )
    return min(modes, most)


def _frequencies(modes: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Modes along each axis: those of either sign are all there at half as many as points.

    The paper's 9 of either sign, of 16 points, are these 8: two are weighted twice there, and one
    of the weights is not read.
    """
    return (*(min(modes, n // POOLING // 2) for n in shape[:-1]), modes)


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) not in _CONVOLUTIONS:
        raise UserError(f"the block has one or two dimensions of space, found {len(shape)}")
    if any(n < 2 * POOLING or n % POOLING for n in shape):
        raise UserError(
            f"the block needs a multiple of {POOLING} points along each axis, at least "
            f"{2 * POOLING}, found {shape}"
        )


def _check_counts(
    in_channels: int, num_params: int, width: int, kernel_size: int, future_steps: int
) -> None:
    counts = {"in_channels": in_channels, "num_params": num_params, "future_steps": future_steps}
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"{name} must be at least 1, found {count}")
    if width < 2 or width % 2:
        raise UserError(f"width must be even and at least 2, found {width}")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise UserError(f"kernel_size must be odd, found {kernel_size}")


def _check_choices(combine: str, padding: str, scale: str) -> None:
    choices = {
        "combine": (combine, ("add", "multiply")),
        "padding": (padding, ("circular", "zeros")),
        "parameter_scale": (scale, ("identity", "fraction")),
    }
    for name, (found, accepted) in choices.items():
        if found not in accepted:
            raise UserError(f"{name} must be one of {', '.join(accepted)}, found {found!r}")


def _check_base(base: FieldNetwork, inward: int, outward: int) -> None:
    for name, wanted in (("in_channels", inward), ("out_channels", outward)):
        found = base.settings.get(name, wanted)
        if found != wanted:
            raise UserError(f"the network behind the block needs {name} {wanted}, found {found}")
