r"""Fourier neural operator (Li et al. 2021, arXiv 2010.08895).

Fields are lifted to `width` channels, go through blocks

.. math:: v_{l+1} = \sigma\bigl(\mathcal F^{-1}(R_l \cdot \mathcal F v_l) + W_l v_l + b_l\bigr)

and are projected to the outputs. :math:`R_l` has a complex matrix for each of the lowest
frequencies and is zero above, so the weights do not depend on the number of points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from understudy.core.errors import UserError
from understudy.models.operators.network import FieldNetwork

_MATRIX_MODES = 40
"""So many frequencies of an axis are found faster by a matrix product than by a real FFT and the
complex one of its gradient; both give the same numbers."""

_PROJECTED = 2**20
"""Numbers of the projection's hidden layer that are held at once. It is the widest: kept in a
cache, and computed again for the gradient, it costs less than memory for all of it."""


class SpectralConv(nn.Module):
    r"""Linear map of fields that acts on each low frequency by a complex matrix of channels.

    .. math:: (\mathcal K v)(x) = \mathcal F^{-1}\bigl(R_k\, (\mathcal F v)_k\bigr)(x)

    Along the last axis the frequencies 0 to m - 1 are kept, along every other -m to m - 1, which
    is all of a real field that is needed (2010.08895, section 4).

    Parameters
    ----------
    in_channels, out_channels : int
    modes : sequence of int
        Number of frequencies m along each axis of space; as many as there are axes.

    Attributes
    ----------
    weight : Tensor (K, in_channels, out_channels, 2)
        Real and imaginary part of R for each of the kept frequencies, whose order is that of
        `kept`, negative ones last. Entries start uniform in [0, 1/(in out)).
    kept : tuple of int
        (2 m_1, ..., 2 m_{d-1}, m_d); K is the product.
    bias : Tensor (out_channels,) or None
        Added to every channel.
    """

    def __init__(
        self, in_channels: int, out_channels: int, modes: Sequence[int], bias: bool = False
    ) -> None:
        super().__init__()
        self.modes = tuple(int(m) for m in modes)
        if not 1 <= len(self.modes) <= 3 or min(self.modes) < 1:
            raise UserError(f"modes must be 1 to 3 positive numbers, one an axis, found {modes}")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kept = (*(2 * m for m in self.modes[:-1]), self.modes[-1])
        size = (math.prod(self.kept), in_channels, out_channels, 2)
        self.weight = nn.Parameter(torch.rand(size) / (in_channels * out_channels))
        self.bias = nn.Parameter(_uniform((out_channels,), in_channels)) if bias else None

    def forward(self, v: Tensor, add: Tensor | None = None) -> Tensor:
        """Fields ``(B, out_channels, *space)`` of ``(B, in_channels, *space)``.

        Parameters
        ----------
        add : Tensor (B, out_channels, *space), optional
            Fields to which the result is added, in place where that costs less.
        """
        space = v.shape[2:]
        check_points(self.modes, space)
        spectrum = _low_frequencies(v, self.modes).flatten(2).permute(2, 0, 1).contiguous()
        mixed = _ComplexProduct.apply(spectrum, torch.view_as_complex(self.weight))
        if self.bias is not None:
            mixed[0] += self.bias * math.prod(space)  # a constant is the frequency 0
        mixed = mixed.permute(1, 2, 0).unflatten(2, self.kept)
        return _from_frequencies(mixed, self.modes, space, add)


class _ComplexProduct(torch.autograd.Function):
    """Batched product of contiguous complex matrices.

    That of PyTorch conjugates lazily in its gradient, which makes its products fall back on one
    call a matrix; conjugates of the small factors keep them batched.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return torch.bmm(a, b)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        g = gradients[0].contiguous()
        along = torch.bmm(torch.conj_physical(g), b.transpose(1, 2))
        return torch.conj_physical(along), torch.bmm(torch.conj_physical(a).transpose(1, 2), g)


def check_points(modes: Sequence[int], space: Sequence[int]) -> None:
    """Refuse fields with too few points, or axes, for their frequencies.

    Raises
    ------
    UserError
        If the last of `space` is below 2(m - 1) or another below 2m.
    """
    if len(space) != len(modes):
        raise UserError(f"{len(modes)} axes of space are needed, found {len(space)}")
    needed = [*(2 * m for m in modes[:-1]), max(2 * (modes[-1] - 1), 1)]
    if any(n < least for n, least in zip(space, needed, strict=True)):
        raise UserError(
            f"{tuple(modes)} frequencies need at least {tuple(needed)} points, found {tuple(space)}"
        )


def _low_frequencies(v: Tensor, modes: Sequence[int]) -> Tensor:
    """Complex ``(B, C, *kept)``; each axis is cut before the next is transformed."""
    m = modes[-1]
    if m <= _MATRIX_MODES:
        analysis, _ = _fourier_matrices(v.shape[-1], m, v.dtype, v.device)
        s = torch.view_as_complex((v @ analysis).unflatten(-1, (m, 2)))
    else:
        s = torch.fft.rfft(v)[..., :m]
    for axis, m in zip(range(2, 1 + len(modes)), modes[:-1], strict=True):
        s, n = torch.fft.fft(s, dim=axis), s.shape[axis]
        s = torch.cat([s.narrow(axis, 0, m), s.narrow(axis, n - m, m)], dim=axis)
    return s


def _from_frequencies(
    s: Tensor, modes: Sequence[int], space: Sequence[int], add: Tensor | None
) -> Tensor:
    """Fields ``(B, C, *space)`` of complex ``(B, C, *kept)``."""
    for axis, m in zip(range(2, 1 + len(modes)), modes[:-1], strict=True):
        gap = (*s.shape[:axis], space[axis - 2] - 2 * m, *s.shape[axis + 1 :])
        parts = [s.narrow(axis, 0, m), s.new_zeros(gap), s.narrow(axis, m, m)]
        s = torch.fft.ifft(torch.cat(parts, dim=axis), dim=axis)
    m, n = modes[-1], space[-1]
    if m > _MATRIX_MODES:
        v = torch.fft.irfft(s, n=n)
        return v if add is None else v + add
    rows = torch.view_as_real(s.resolve_conj().contiguous()).reshape(-1, 2 * m)
    _, synthesis = _fourier_matrices(n, m, rows.dtype, rows.device)
    v = rows @ synthesis if add is None else add.view(-1, n).addmm_(rows, synthesis)
    return v.view(*s.shape[:2], *space)


@lru_cache(maxsize=64)
def _fourier_matrices(
    n: int, m: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    r"""Of a real line: points to frequencies ``(n, 2m)``, and back ``(2m, n)``.

    Columns are :math:`\cos` and :math:`-\sin` of :math:`2\pi k x/n` in turns; on the way back each
    frequency stands for its negative one as well.
    """
    with torch.inference_mode(False):  # tensors made inside it could not serve a gradient later
        x, k = torch.arange(n).unsqueeze(1), torch.arange(m)
        phase = (x * k % n).double() * (2.0 * math.pi / n)
        waves = torch.stack([phase.cos(), -phase.sin()], dim=2)  # (n, m, 2)
        alone = (k == 0) | (2 * k == n)
        share = (2.0 - alone.double()) / n
        back = (waves * share[:, None]).reshape(n, 2 * m).T.contiguous()
        return waves.reshape(n, 2 * m).to(device, dtype), back.to(device, dtype)


class FNO(FieldNetwork):
    r"""Fourier neural operator in one to three dimensions.

    Lifting is one affine map of channels, projection two with a GELU between; the last block has
    no activation. On periodic grids without grid channels the network commutes with shifts.

    Parameters
    ----------
    in_channels, out_channels : int
    modes : sequence of int
        Frequencies kept along each axis, see :class:`SpectralConv`; their number is the
        dimension of space. 16 in one dimension and 12 in two are the paper's.
    width : int
        Channels of the blocks; 64 in one dimension and 32 in two are the paper's.
    depth : int
        Number of blocks.
    projection : int
        Width of the hidden layer of the projection.
    grid_channels : bool
        Give the network the coordinates i/n as further inputs.
    padding : int or float
        Zeros put after the end of each axis between lifting and projection, for fields that are
        not periodic: a number of points, or below 1 a share of the axis.
    num_params : int
        Parameters of the equation; each is one more input channel, constant over space. With none,
        parameters that are given are not looked at.
    """

    kind = "fno"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        modes: Sequence[int],
        width: int = 64,
        depth: int = 4,
        projection: int = 128,
        grid_channels: bool = True,
        padding: float = 0,
        num_params: int = 0,
    ) -> None:
        super().__init__()
        if min(in_channels, out_channels, width, depth, projection) < 1 or num_params < 0:
            raise UserError("channels, width, depth and projection of an FNO must be at least 1")
        if padding < 0:
            raise UserError(f"padding must not be negative, found {padding}")
        self.settings = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "modes": [int(m) for m in modes],
            "width": width,
            "depth": depth,
            "projection": projection,
            "grid_channels": grid_channels,
            "padding": padding,
            "num_params": num_params,
        }
        self.in_channels, self.num_params, self.padding = in_channels, num_params, padding
        self.grid_channels = grid_channels
        given = in_channels + num_params + (len(modes) if grid_channels else 0)
        self.lift = Pointwise(given, width)
        self.spectral = nn.ModuleList(SpectralConv(width, width, modes, True) for _ in range(depth))
        self.pointwise = nn.ModuleList(Pointwise(width, width, False) for _ in range(depth))
        self.project = nn.ModuleList([Pointwise(width, projection)])
        self.project.append(Pointwise(projection, out_channels))

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        """Fields ``(B, out_channels, *space)`` of fields and parameters ``(B, num_params)``."""
        check_inputs(u, p, self.in_channels, self.num_params, len(self.settings["modes"]))
        space = u.shape[2:]
        v = self._pad(self.lift(self._inputs(u, p)))
        for number, (spectral, pointwise) in enumerate(
            zip(self.spectral, self.pointwise, strict=True), start=1
        ):
            v = spectral(v, add=pointwise(v))
            if number < len(self.spectral):
                v = F.gelu(v)
        return self._projected(self._crop(v, space))

    def _projected(self, v: Tensor) -> Tensor:
        """Outputs of the blocks' result, for a few fields at a time where they are large."""
        hidden, out = self.project

        def project(part: Tensor) -> Tensor:
            result: Tensor = out(F.gelu(hidden(part)))
            return result

        fields = max(1, _PROJECTED // (self.settings["projection"] * v[0, 0].numel()))
        if torch.compiler.is_compiling() or fields >= len(v):  # a graph has any number of fields
            return project(v)
        if not torch.is_grad_enabled():
            return torch.cat([project(part) for part in v.split(fields)])
        again: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
        return torch.cat([checkpoint(project, part, **again) for part in v.split(fields)])

    def _inputs(self, u: Tensor, p: Tensor | None) -> Tensor:
        """Fields, parameters and coordinates side by side."""
        space, parts = u.shape[2:], [u]
        if p is not None and self.num_params:
            parts.append(p.to(u)[(..., *[None] * len(space))].expand(-1, -1, *space))
        if self.grid_channels:
            axes = [torch.arange(n, dtype=u.dtype, device=u.device) / n for n in space]
            grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
            parts.append(grid.expand(u.shape[0], *grid.shape))
        return torch.cat(parts, dim=1) if len(parts) > 1 else u

    def _crop(self, v: Tensor, space: Sequence[int]) -> Tensor:
        for axis, n in enumerate(space, start=2):
            v = v.narrow(axis, 0, n)
        return v

    def _pad(self, v: Tensor) -> Tensor:
        if not self.padding:
            return v
        space = reversed(v.shape[2:])
        after = (round(self.padding * n) if self.padding < 1 else int(self.padding) for n in space)
        return F.pad(v, [size for points in after for size in (0, points)])


class Pointwise(nn.Module):
    """Affine map of the channels at every point, as a batched matrix product.

    Parameters
    ----------
    in_channels, out_channels : int
    bias : bool
        The weight (out_channels, in_channels) and the bias start as those of `nn.Linear`.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(_uniform((out_channels, in_channels), in_channels))
        self.bias = nn.Parameter(_uniform((out_channels,), in_channels)) if bias else None

    def forward(self, v: Tensor) -> Tensor:
        """Fields ``(B, out_channels, *space)`` of ``(B, in_channels, *space)``."""
        rows = v.flatten(2)
        weight = self.weight.expand(v.shape[0], *self.weight.shape)
        if self.bias is None:
            out = torch.bmm(weight, rows)
        else:
            out = torch.baddbmm(self.bias[:, None], weight, rows)
        return out.unflatten(2, v.shape[2:])


def _uniform(size: tuple[int, ...], inward: int) -> Tensor:
    """Uniform numbers between -1 and 1, over the root of the number of inputs."""
    return (2.0 * torch.rand(size) - 1.0) / math.sqrt(inward)


def check_inputs(
    u: Tensor, p: Tensor | None, in_channels: int, num_params: int, dimension: int
) -> None:
    """Refuse fields and parameters that a network was not made for.

    Raises
    ------
    UserError
        If `u` is not ``(B, in_channels, *space)`` or `p` is not ``(B, num_params)``.
    """
    if u.ndim != 2 + dimension or u.shape[1] != in_channels:
        raise UserError(
            f"fields must have {in_channels} channels and {dimension} axes of space, "
            f"found shape {tuple(u.shape)}"
        )
    runs = u.shape[0]
    found = (runs, 0) if p is None else tuple(p.shape)
    if num_params and found != (runs, num_params):
        raise UserError(f"parameters must have shape {(runs, num_params)}, found {found}")
