"""MgNO and its rivals, each of no fewer weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.core.cost import count_parameters
from understudy.models.operators.fno import FNO, Pointwise, SpectralConv
from understudy.models.operators.mgno import HelmholtzMgNO, MgNO, Padding
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.unet import PlainUNet
from understudy.reproduce.elliptic.setting import Size


def mgno(size: Size, padding: Padding = "zeros", levels: int | None = None) -> MgNO:
    """MgNO with one step a level on the way down, and two on the coarsest."""
    cycle = [(1, 0)] * ((levels or size.levels) - 1) + [(2, 0)]
    return MgNO(1, 1, size.width, size.depth, cycle, padding_mode=padding, restrict="rhs")


def helmholtz_mgno(size: Size) -> HelmholtzMgNO:
    """MgNO as the paper has it for Helmholtz' equation, of a scale's points and width."""
    cycle = [(1, 0)] * (min(size.levels, 5) - 1) + [(2, 0)]
    points = (size.points, size.points)
    return HelmholtzMgNO(1, 1, points, size.helmholtz_width, size.helmholtz_depth, cycle)


def network_of(name: str, size: Size, weights: int = 0) -> FieldNetwork:
    """MgNO, or another network of no fewer weights.

    Parameters
    ----------
    name : {"MgNO", "FNO", "U-Net", "U-NO"}
    size : Size
    weights : int
        Of which a network has no fewer; 0 stands for those of MgNO.
    """
    if name == "MgNO":
        return mgno(size)
    modes = size.modes
    make: dict[str, Callable[[int], FieldNetwork]] = {
        "FNO": lambda w: FNO(1, 1, (modes, modes), w, projection=64, padding=0.25),
        "U-Net": lambda w: PlainUNet(1, 1, 2, features=w, halvings=3, batch_norm=False),
        "U-NO": lambda w: UNO(1, 1, min(modes, size.points // 4), w),
    }
    return _no_smaller(make[name], weights or count_parameters(mgno(size)))


def _no_smaller(make: Callable[[int], FieldNetwork], weights: int) -> FieldNetwork:
    """The first network of rising width that has at least so many weights."""
    width = 1
    while count_parameters(network := make(width)) < weights:
        width += 1
    return network


class UNO(FieldNetwork):
    """A U-shaped neural operator in the manner of U-NO (arXiv 2204.11127).

    Spectral layers whose grids halve twice on the way down and double on the way up, channels
    growing as grids shrink, with the fields of the way down beside those of the way up.
    """

    kind = "u-no"

    def __init__(self, in_channels: int, out_channels: int, modes: int, width: int) -> None:
        super().__init__()
        self.settings = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "modes": modes,
            "width": width,
        }
        half = modes // 2
        self.lift = Pointwise(in_channels + 2, width)
        # (inward, outward, frequencies, change of resolution)
        self.layout = (
            (width, 2 * width, modes, 0.5),
            (2 * width, 4 * width, half, 0.5),
            (4 * width, 2 * width, half // 2, 2.0),
            (4 * width, width, half, 2.0),
        )
        self.spectral = nn.ModuleList(SpectralConv(i, o, (m, m)) for i, o, m, _ in self.layout)
        self.pointwise = nn.ModuleList(Pointwise(i, o) for i, o, _, _ in self.layout)
        self.project = nn.ModuleList([Pointwise(2 * width, 64), Pointwise(64, out_channels)])

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        """Solutions ``(B, out_channels, n, n)`` of coefficients ``(B, in_channels, n, n)``."""
        axes = [torch.arange(n, dtype=u.dtype, device=u.device) / n for n in u.shape[2:]]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(u), -1, -1, -1)
        v = self.lift(torch.cat([u, grid], dim=1))
        kept: list[Tensor] = []
        for spectral, pointwise, (_, _, _, factor) in zip(
            self.spectral, self.pointwise, self.layout, strict=True
        ):
            kept.append(v)
            v = F.gelu(spectral(v, add=pointwise(v)))
            v = F.interpolate(v, scale_factor=factor, mode="bilinear")
            if factor > 1:
                v = torch.cat([v, kept[len(self.layout) - len(kept)]], dim=1)
        hidden, out = self.project
        return torch.as_tensor(out(F.gelu(hidden(v))))
