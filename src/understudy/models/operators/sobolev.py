r"""Losses that see derivatives too.

In Fourier space (He, Liu & Xu 2024, arXiv 2310.19809), with :math:`\hat u(\kappa)` the coefficients
of a field on its box, taken as periodic,

.. math:: \|u\|_{H^s}^2 = \sum_\kappa w(\kappa)^2\, |\hat u(\kappa)|^2, \qquad
    w(\kappa)^2 = \sum_{j=0}^{s} |\kappa|^{2j}

where whole wavenumbers of :math:`|\kappa| \ge \kappa_{\max}` have w = 1: the finest scales are
noise of the grid, but not unseen. By differences, with no wrap at the ends,

.. math:: \|u\|_{1,h}^2 = \lambda\, \|u\|^2 + \sum_i \|\partial_i^h u\|^2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from understudy.core.errors import UserError

Reduction: TypeAlias = Literal["sum", "mean", "none"]


class SobolevLoss(nn.Module):
    r"""Norm of an error in :math:`H^s`, over that of the truth.

    Parameters
    ----------
    order : int
        s, at least 0; with 0 it is a relative :math:`L^2` error.
    relative : bool
    largest : float
        Wavenumbers from which on derivatives are not looked at; 20 in the paper.
    reduction : {"sum", "mean", "none"}
        Over the batch; the paper sums.
    """

    def __init__(
        self,
        order: int = 1,
        relative: bool = True,
        largest: float = 20.0,
        reduction: Reduction = "sum",
    ) -> None:
        super().__init__()
        if order < 0:
            raise UserError(f"the order of a Sobolev norm must be at least 0, found {order}")
        self.order, self.relative, self.largest = order, relative, largest
        self.reduction: Reduction = reduction

    def norm(self, u: Tensor) -> Tensor:
        """Norms ``(B,)`` of fields ``(B, C, *space)``."""
        space = u.shape[2:]
        modes = torch.fft.rfftn(u, dim=tuple(range(2, u.ndim)), norm="forward")
        power = modes.real.square() + modes.imag.square()
        return (self._weights(space, u) * power).flatten(1).sum(1).sqrt()

    def forward(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """Loss of fields ``(B, C, *space)``: a scalar, or ``(B,)`` without reduction."""
        error = self.norm(predicted - truth)
        return _reduced(error / self.norm(truth) if self.relative else error, self.reduction)

    def _weights(self, space: Sequence[int], like: Tensor) -> Tensor:
        """Squares of w, twice where a mode stands for its mirror image as well."""
        axes = [torch.fft.fftfreq(n, 1.0 / n, device=like.device) for n in space[:-1]]
        last = torch.arange(space[-1] // 2 + 1, dtype=torch.float32, device=like.device)
        square = torch.zeros((), device=like.device)
        for k in torch.meshgrid(*axes, last, indexing="ij"):
            square = square + k**2
        square = torch.where(square >= self.largest**2, 0.0, square)
        powers = torch.stack([square**j for j in range(1, self.order + 1)] or [0.0 * square])
        mirrored = (last > 0) & (2 * last != space[-1])
        return ((1.0 + powers.sum(0)) * (1.0 + mirrored)).to(like)


class DifferenceLoss(nn.Module):
    r"""Norm of an error and of its differences, without a wrap at the ends.

    Parameters
    ----------
    spacing : sequence of float
        Distance of neighbours along each axis.
    weight : float
        Lambda, at least 0; 10 where the paper trains on Helmholtz' equation.
    relative : bool
        Over the same norm of the truth; not so in the paper.
    reduction : {"sum", "mean", "none"}
        Over the batch.
    """

    def __init__(
        self,
        spacing: Sequence[float],
        weight: float = 1.0,
        relative: bool = True,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if not all(h > 0 for h in spacing):
            raise UserError(f"spacings must be positive, found {tuple(spacing)}")
        self.spacing, self.weight, self.relative = tuple(spacing), weight, relative
        self.reduction: Reduction = reduction

    def norm(self, u: Tensor) -> Tensor:
        """Norms ``(B,)`` of fields ``(B, C, *space)``: roots of integrals over the box."""
        if u.ndim != 2 + len(self.spacing):
            raise UserError(
                f"fields with {len(self.spacing)} axes of space are expected, found {u.ndim - 2}"
            )
        total = self.weight * u.square().flatten(1).sum(1)
        for axis, h in enumerate(self.spacing, start=2):
            total = total + (u.diff(dim=axis) / h).square().flatten(1).sum(1)
        return (total * torch.tensor(self.spacing).prod()).sqrt()

    def forward(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """Loss of fields ``(B, C, *space)``: a scalar, or ``(B,)`` without reduction."""
        error = self.norm(predicted - truth)
        return _reduced(error / self.norm(truth) if self.relative else error, self.reduction)


def _reduced(values: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "none":
        return values
    return values.sum() if reduction == "sum" else values.mean()
