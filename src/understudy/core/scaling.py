"""Affine changes of units."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scaling:
    r"""Affine change of units :math:`z = (x - \mathrm{shift}) / \mathrm{scale}`.

    Parameters
    ----------
    shift, scale : Tensor
        That broadcast against what is scaled.
    """

    shift: Tensor
    scale: Tensor

    @classmethod
    def of(cls, values: Tensor, dims: tuple[int, ...]) -> Scaling:
        """Mean and standard deviation over some dimensions, kept with size 1."""
        shift, spread = values.mean(dims, keepdim=True), values.std(dims, keepdim=True)
        return cls(shift, torch.where(spread > 1e-12, spread, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Scaled values."""
        return (x - self.shift) / self.scale

    def inverse(self, z: Tensor) -> Tensor:
        """Values of scaled ones."""
        return z * self.scale + self.shift

    def to(self, device: torch.device | str) -> Scaling:
        """Copy on a device."""
        return Scaling(self.shift.to(device), self.scale.to(device))
