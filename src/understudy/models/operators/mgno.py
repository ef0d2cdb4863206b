r"""MgNO: layers whose weights are multigrid V-cycles (He, Liu & Xu 2024, arXiv 2310.19809).

A layer of a network between functions is that of a dense network between numbers, with operators
between functions as its weights,

.. math:: u_i \leftarrow \sigma\Big(\sum_j W_{ij} u_j + B_{ij}\Big), \qquad i = 1, \dots, n

All W of a layer together are one V-cycle of n channels, which solves nothing but has the form of
a solver: on a level l with smoothing :math:`S_l`, operator :math:`A_l` and right-hand side f,

.. math:: u \leftarrow u + S_l (f - A_l u)

as often as that level has steps on the way down, then to the next, of half as many points,

.. math:: f \leftarrow R_l (f - A'_l u) \ \text{or}\ f \leftarrow R_l f, \qquad u \leftarrow \Pi_l u

and back, :math:`u_l \leftarrow u_l + P_l u_{l+1}`, with more steps. S, A, A' are convolutions of
three points, R and :math:`\Pi` such ones of stride two, P a transposed one; every step and level
has its own. Nothing in a cycle has a bias or an activation: it is *linear* in f, a dense
operator of some thousand weights. What lies outside the box, which the padding says, is how the
boundary conditions enter: zeros for Dirichlet's, reflection for Neumann's, a circle for a period.
B is a pointwise map of the layer's input with a constant.

The paper restricts the residual; what its authors published restricts f, by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.models.operators.network import FieldNetwork

Padding: TypeAlias = Literal["zeros", "reflect", "replicate", "circular"]
Restriction: TypeAlias = Literal["residual", "rhs"]
Levels: TypeAlias = Sequence[Sequence[int]]

PADDINGS = ("zeros", "reflect", "replicate", "circular")

DARCY_LEVELS = ((1, 0), (1, 0), (1, 0), (1, 0), (1, 0), (2, 0))
"""Steps before and after the coarse levels, by level, with which the paper solves Darcy's flow."""

STEPPING_LEVELS = ((1, 0), (1, 0), (1, 0), (2, 0), (2, 0))
"""For the Navier-Stokes equations on 64 x 64 points."""

_CONVOLUTIONS: dict[int, type[nn.Conv1d] | type[nn.Conv2d]] = {1: nn.Conv1d, 2: nn.Conv2d}
_TRANSPOSED: dict[int, type[nn.ConvTranspose1d] | type[nn.ConvTranspose2d]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
}
_ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh}


class MultigridConv(nn.Module):
    r"""One V-cycle: a linear operator between fields, of all scales.

    Parameters
    ----------
    in_channels, channels : int or sequence of int
        Functions of f and of u, at every level or by level.
    levels : sequence of (int, int)
        Steps on the way down and on the way up, by level, the finest first. The first level needs
        a step on the way down; the last one has no way up.
    dims : {1, 2}
    size : sequence of int, optional
        Points along each axis. Where a level has an even number, P has four points a side, where
        odd, three; fields of other sizes that are even and odd at the same levels are taken as
        well. Without a size all but the last level must be even.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
    restrict : {"residual", "rhs"}
        What goes down: the residual, as in the paper, or f.
    padded_transfer : bool
        Whether R, :math:`\Pi` and P see one point beyond the boundary. If not, a level of n points
        has :math:`\lfloor (n - 1)/2 \rfloor` points below it, else :math:`\lceil n/2 \rceil`.
    bias : bool
        Of S and A; makes the cycle affine.
    normalise : bool
        Layer normalisation of channels and space after each correction from below; needs a size
        and is not linear.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        channels: int | Sequence[int],
        levels: Levels = DARCY_LEVELS,
        *,
        dims: int = 2,
        size: Sequence[int] | None = None,
        padding_mode: Padding = "zeros",
        restrict: Restriction = "residual",
        padded_transfer: bool = True,
        bias: bool = False,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        _check_cycle(levels, dims, size, padding_mode, restrict)
        if normalise and size is None:
            raise UserError("a cycle with layer normalisation needs its size")
        depth = len(levels)
        c_f, c_u = _by_level(in_channels, depth), _by_level(channels, depth)
        self.levels = tuple((int(down), int(up)) for down, up in levels)
        self.dims, self.padding_mode, self.margin = dims, padding_mode, int(padded_transfer)
        self.sizes = None if size is None else self._sizes(tuple(size))
        convolution = _CONVOLUTIONS[dims]

        def same(inward: int, outward: int, bias: bool = bias) -> nn.Module:
            return convolution(inward, outward, 3, 1, 1, bias=bias, padding_mode=padding_mode)

        def coarser(inward: int, outward: int) -> nn.Module:
            return convolution(
                inward, outward, 3, 2, self.margin, bias=False, padding_mode=padding_mode
            )

        steps = [(level, down + up) for level, (down, up) in enumerate(self.levels)]
        self.S = nn.ModuleList(
            nn.ModuleList(same(c_f[l], c_u[l]) for _ in range(count)) for l, count in steps
        )
        # the very first step starts from u = 0 and needs no A
        self.A = nn.ModuleList(
            nn.ModuleList(same(c_u[l], c_f[l]) for _ in range(count - (l == 0)))
            for l, count in steps
        )
        below = range(depth - 1)
        self.R = nn.ModuleList(coarser(c_f[l], c_f[l + 1]) for l in below)
        self.Pi = nn.ModuleList(coarser(c_u[l], c_u[l + 1]) for l in below)
        self.P = nn.ModuleList(
            _Prolongation(c_u[l + 1], c_u[l], dims, self._kernel(l), padding_mode, self.margin)
            for l in below
        )
        self.residual = (
            nn.ModuleList(same(c_u[l], c_f[l], False) for l in below)
            if restrict == "residual"
            else None
        )
        self.norms = (
            nn.ModuleList(nn.LayerNorm((c_u[l], *self.sizes[l])) for l in below)
            if normalise and self.sizes is not None
            else None
        )

    def forward(self, f: Tensor) -> Tensor:
        """Fields u ``(B, channels, *space)`` of f ``(B, in_channels, *space)``."""
        sizes = self._sizes(tuple(f.shape[2:]))
        if any(self._kernel(l, sizes) != self._kernel(l) for l in range(len(sizes) - 1)):
            raise UserError(self._mismatch(sizes[0]))
        u: Tensor | None = None
        stack: list[tuple[Tensor, Tensor]] = []
        for l, (down, _) in enumerate(self.levels):
            for k in range(down):
                u = self._step(l, k, u, f)
            assert u is not None
            stack.append((u, f))
            if l < len(self.R):
                f = self.R[l](f if self.residual is None else f - self.residual[l](u))
                u = self.Pi[l](u)
        for l in reversed(range(len(self.R))):
            fine, f = stack[l]
            u = fine + self.P[l](u)
            if self.norms is not None:
                u = self.norms[l](u)
            down, up = self.levels[l]
            for k in range(down, down + up):
                u = self._step(l, k, u, f)
        assert u is not None
        return u

    def _step(self, l: int, k: int, u: Tensor | None, f: Tensor) -> Tensor:
        smooth = self.S[l][k]  # type: ignore[index]
        if u is None:
            return torch.as_tensor(smooth(f))
        operator = self.A[l][k - (l == 0)]  # type: ignore[index]
        return u + torch.as_tensor(smooth(f - operator(u)))

    def _sizes(self, size: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Points along each axis, by level."""
        sizes = [size]
        while len(sizes) < len(self.levels) and min(sizes[-1]) >= 2:
            sizes.append(tuple(_coarse(n, self.margin) for n in sizes[-1]))
        fits = len(sizes) - (min(sizes[-1]) < 2)
        if fits < len(self.levels):
            raise UserError(
                f"a grid of {' x '.join(map(str, size))} points has at most {max(fits, 1)} levels "
                f"of two points and more, found {len(self.levels)}"
            )
        return sizes

    def _kernel(self, l: int, sizes: list[tuple[int, ...]] | None = None) -> tuple[int, ...]:
        """Points of P below a level, along each axis."""
        sizes = sizes or self.sizes
        return (4,) * self.dims if sizes is None else tuple(3 + (n % 2 == 0) for n in sizes[l])

    def _mismatch(self, size: tuple[int, ...]) -> str:
        given = " x ".join(map(str, size))
        if self.sizes is None:
            even = 2 ** (len(self.levels) - 1)
            return (
                f"a cycle of {len(self.levels)} levels without a size takes multiples of {even} "
                f"points, found {given}; build it with size={list(size)}"
            )
        made = " x ".join(map(str, self.sizes[0]))
        return (
            f"a cycle made for {made} points takes sizes that are even and odd at the same levels "
            f"only, found {given}"
        )


class _Prolongation(nn.Module):
    """Transposed convolution to the size of the finer level, continued as `padding_mode` says."""

    def __init__(
        self,
        inward: int,
        outward: int,
        dims: int,
        kernel: tuple[int, ...],
        padding_mode: Padding,
        margin: int,
    ) -> None:
        super().__init__()
        self.continued = (1,) * (2 * dims) if margin and padding_mode != "zeros" else None
        self.padding_mode = padding_mode
        # a point more at either end makes two more, besides the one that a transfer is padded by
        cut = 3 if self.continued else margin
        self.transposed = _TRANSPOSED[dims](
            inward,
            outward,
            kernel,  # type: ignore[arg-type]
            2,
            cut,
            bias=False,
        )

    def forward(self, u: Tensor) -> Tensor:
        if self.continued is not None:
            u = nn.functional.pad(u, self.continued, self.padding_mode)
        return torch.as_tensor(self.transposed(u))


class MgNO(FieldNetwork):
    """Layers of V-cycles, then a linear combination of their functions.

    Parameters
    ----------
    in_channels, out_channels : int
    width : int
        Functions n of a layer; 24 for Darcy's flow and 32 for time stepping in the paper.
    depth : int
        Layers; 5 in the paper, 4 for media that are not smooth.
    levels, size, padding_mode, restrict
        Of each cycle, see :class:`MultigridConv`.
    dims : {1, 2}
    activation : {"gelu", "relu", "tanh"}
    pointwise : bool
        Whether a layer has B; without it the first one loses what is finer than its stencils.
    residual : bool
        Add the output to the last `out_channels` of the input, as a time step does in the paper.
    norm : {None, "layer"}
        ``"layer"`` is the paper's time stepping: cycles with bias and layer normalisation, which
        ties the network to its size.
    """

    kind: ClassVar[str] = "mgno"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 24,
        depth: int = 5,
        levels: Levels = DARCY_LEVELS,
        size: Sequence[int] | None = None,
        padding_mode: Padding = "zeros",
        restrict: Restriction = "residual",
        dims: int = 2,
        activation: str = "gelu",
        pointwise: bool = True,
        residual: bool = False,
        norm: Literal["layer"] | None = None,
    ) -> None:
        super().__init__()
        _check_network(in_channels, out_channels, width, depth)
        if activation not in _ACTIVATIONS:
            known = ", ".join(_ACTIVATIONS)
            raise UserError(f"activation must be one of {known}, found {activation!r}")
        if norm not in (None, "layer"):
            raise UserError(f"norm must be None or 'layer', found {norm!r}")
        if residual and out_channels > in_channels:
            raise UserError(
                f"{out_channels} functions cannot be added to {in_channels}: a residual network "
                "has at least as many inputs as outputs"
            )
        self.settings = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "width": width,
            "depth": depth,
            "levels": [list(level) for level in levels],
            "size": None if size is None else list(size),
            "padding_mode": padding_mode,
            "restrict": restrict,
            "dims": dims,
            "activation": activation,
            "pointwise": pointwise,
            "residual": residual,
            "norm": norm,
        }
        inward = [in_channels] + [width] * (depth - 1)
        self.cycles = nn.ModuleList(
            MultigridConv(
                c,
                width,
                levels,
                dims=dims,
                size=size,
                padding_mode=padding_mode,
                restrict=restrict,
                bias=norm is not None,
                normalise=norm is not None,
            )
            for c in inward
        )
        convolution = _CONVOLUTIONS[dims]
        self.pointwise = (
            nn.ModuleList(convolution(c, width, 1) for c in inward) if pointwise else None
        )
        self.combine = convolution(width, out_channels, 1, bias=False)
        self.activation = _ACTIVATIONS[activation]()
        self.added = out_channels if residual else 0

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:  # noqa: D102
        _check_input(u, p, self.settings["in_channels"], self.settings["dims"])
        h = u
        for i, cycle in enumerate(self.cycles):
            layer = cycle(h)
            if self.pointwise is not None:
                layer = layer + self.pointwise[i](h)
            h = self.activation(layer)
        out = torch.as_tensor(self.combine(h))
        return u[:, -self.added :] + out if self.added else out


class HelmholtzMgNO(FieldNetwork):
    r"""The paper's network for Helmholtz' equation: coarser levels have more functions.

    Level l has (l + 1) n functions, R, :math:`\Pi` and P are not padded, each layer is followed by
    layer normalisation, and the output is a V-cycle as well. That a layer has the
    pointwise B is our reading.

    Parameters
    ----------
    in_channels, out_channels : int
    size : sequence of int
        Points along each axis; 101 x 101 in the paper.
    width : int
        Functions n of the finest level; 20 in the paper.
    depth : int
        Layers before the output; 4 in the paper.
    levels, padding_mode, restrict
        Of each cycle, see :class:`MultigridConv`; reflection stands for a boundary without flux.
    """

    kind: ClassVar[str] = "mgno-helmholtz"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: Sequence[int],
        width: int = 20,
        depth: int = 4,
        levels: Levels = ((1, 0), (1, 0), (1, 0), (1, 0), (2, 0)),
        padding_mode: Padding = "reflect",
        restrict: Restriction = "residual",
    ) -> None:
        super().__init__()
        _check_network(in_channels, out_channels, width, depth)
        self.settings = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "size": list(size),
            "width": width,
            "depth": depth,
            "levels": [list(level) for level in levels],
            "padding_mode": padding_mode,
            "restrict": restrict,
        }
        dims = len(size)

        def cycle(inward: int, outward: int) -> MultigridConv:
            grows = range(1, len(levels) + 1)
            return MultigridConv(
                [l * inward for l in grows],
                [l * outward for l in grows],
                levels,
                dims=dims,
                size=size,
                padding_mode=padding_mode,
                restrict=restrict,
                padded_transfer=False,
            )

        inward = [in_channels] + [width] * (depth - 1)
        self.cycles = nn.ModuleList(cycle(c, width) for c in inward)
        self.pointwise = nn.ModuleList(_CONVOLUTIONS[dims](c, width, 1) for c in inward)
        self.norms = nn.ModuleList(nn.LayerNorm((width, *size)) for _ in inward)
        self.out = cycle(width, out_channels)

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:  # noqa: D102
        size = tuple(self.settings["size"])
        _check_input(u, p, self.settings["in_channels"], len(size))
        if tuple(u.shape[2:]) != size:
            raise UserError(
                f"this network is made for {' x '.join(map(str, size))} points, found "
                f"{' x '.join(map(str, u.shape[2:]))}"
            )
        for cycle, pointwise, norm in zip(self.cycles, self.pointwise, self.norms, strict=True):
            u = norm(nn.functional.gelu(cycle(u) + pointwise(u)))
        return torch.as_tensor(self.out(u))


def _coarse(n: int, margin: int) -> int:
    """Points of the next level: those of a convolution of three points and stride two."""
    return (n + 2 * margin - 3) // 2 + 1


def _by_level(channels: int | Sequence[int], depth: int) -> list[int]:
    listed = [channels] * depth if isinstance(channels, int) else [int(c) for c in channels]
    if len(listed) != depth or min(listed) < 1:
        raise UserError(f"each of {depth} levels needs at least one channel, found {channels}")
    return listed


def _check_cycle(
    levels: Levels, dims: int, size: Sequence[int] | None, padding_mode: str, restrict: str
) -> None:
    if not levels or any(len(level) != 2 or min(level) < 0 for level in levels):
        raise UserError(
            "levels must be pairs of numbers of steps, down and up, at least 0, found "
            f"{[list(level) for level in levels]}"
        )
    if levels[0][0] < 1:
        raise UserError("the first level needs at least one step on the way down")
    if levels[-1][1]:
        raise UserError(f"the last level has no way up, found {levels[-1][1]} steps on it")
    if dims not in _CONVOLUTIONS:
        raise UserError(f"multigrid cycles have 1 or 2 dimensions of space, found {dims}")
    if size is not None and len(size) != dims:
        raise UserError(f"size must have {dims} numbers of points, found {list(size)}")
    if padding_mode not in PADDINGS:
        raise UserError(
            f"padding_mode must be one of {', '.join(PADDINGS)}, found {padding_mode!r}"
        )
    if restrict not in ("residual", "rhs"):
        raise UserError(f"restrict must be 'residual' or 'rhs', found {restrict!r}")


def _check_network(in_channels: int, out_channels: int, width: int, depth: int) -> None:
    if min(in_channels, out_channels, width, depth) < 1:
        raise UserError(
            "channels, width and depth must be at least 1, found "
            f"{in_channels} and {out_channels}, {width}, {depth}"
        )


def _check_input(u: Tensor, p: Tensor | None, channels: int, dims: int) -> None:
    if p is not None and p.numel():
        raise UserError("this network takes no parameters; give them as fields of their own")
    if u.ndim != 2 + dims or u.shape[1] != channels:
        raise UserError(
            f"fields must be of shape (B, {channels}, *space) with {dims} dimensions of space, "
            f"found {tuple(u.shape)}"
        )
