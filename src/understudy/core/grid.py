"""Points at which a field is sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from understudy.core.errors import UserError

Placement: TypeAlias = Literal["periodic", "cells", "interior"]
"""``periodic``: ends meet, the upper one is left out; ``cells``: centres of cells;
``interior``: nodes without those on the boundary."""


@dataclass(frozen=True)
class Grid:
    r"""Equally spaced points of a box.

    Along each axis they are

    .. math:: x_i = l + (i + o) h, \qquad i = 0, \dots, n - 1

    with :math:`h = (u - l)/n`, o = 0 on a periodic box and 1/2 at centres of cells, and with
    :math:`h = (u - l)/(n + 1)`, o = 1 at nodes inside.

    Parameters
    ----------
    shape : tuple of int
        Points along each axis.
    lower, upper : tuple of float
        Corners l and u of the box.
    placement : {"periodic", "cells", "interior"}
    """

    shape: tuple[int, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    placement: Placement = "periodic"

    def __post_init__(self) -> None:
        if any(n < 4 for n in self.shape):
            raise UserError(f"a grid needs at least 4 points along each axis, found {self.shape}")

    @classmethod
    def of(
        cls,
        *shape: int,
        lower: float = 0.0,
        upper: float = 1.0,
        placement: Placement = "periodic",
    ) -> Grid:
        """Grid of a box with equal sides."""
        d = len(shape)
        return cls(shape, (lower,) * d, (upper,) * d, placement)

    @property
    def lengths(self) -> tuple[float, ...]:
        """Sides of the box."""
        return tuple(u - low for low, u in zip(self.lower, self.upper, strict=True))

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance h of neighbours along each axis."""
        more = 1 if self.placement == "interior" else 0
        return tuple(s / (n + more) for s, n in zip(self.lengths, self.shape, strict=True))

    def axes(self) -> tuple[Tensor, ...]:
        """Coordinates along each axis, float64 ``(n,)``."""
        offset = {"periodic": 0.0, "cells": 0.5, "interior": 1.0}[self.placement]
        return tuple(
            low + h * (torch.arange(n, dtype=torch.float64) + offset)
            for low, h, n in zip(self.lower, self.spacing, self.shape, strict=True)
        )
