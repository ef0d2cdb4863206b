"""What a network answers, and how its answer is scored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.core.bars import BarDistribution

HeadName = Literal["bars", "binary", "classes", "gaussian"]


class Head(Protocol):
    """A reading of the network's outputs."""

    @property
    def name(self) -> HeadName:
        """What files call it."""
        ...

    @property
    def outputs(self) -> int:
        """Numbers that the network answers for a row."""
        ...

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Negative log density or probability of y (B, q), by logits (B, q, outputs)."""
        ...


@dataclass(frozen=True)
class Bars:
    """A bar distribution over fixed borders (B + 1,)."""

    borders: Tensor
    name: HeadName = "bars"

    @property
    def outputs(self) -> int:
        """Number of bars."""
        return len(self.borders) - 1

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Negative log density, (B, q)."""
        borders = self.borders.to(logits.device)
        return -BarDistribution.of(borders, logits.float()).log_density(y)


@dataclass(frozen=True)
class Binary:
    """The log odds of label 1."""

    name: HeadName = "binary"
    outputs: int = 1

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Binary cross-entropy, (B, q)."""
        odds = logits.float().squeeze(-1)
        return F.binary_cross_entropy_with_logits(odds, y.float(), reduction="none")


@dataclass(frozen=True)
class Classes:
    """Logits of several classes."""

    outputs: int
    name: HeadName = "classes"

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy, (B, q)."""
        return F.cross_entropy(logits.float().transpose(1, 2), y.long(), reduction="none")


@dataclass(frozen=True)
class Gaussian:
    """Mean and log variance of a normal: what bars are compared with."""

    name: HeadName = "gaussian"
    outputs: int = 2

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Negative log density, (B, q)."""
        mean, log_variance = logits.float().unbind(-1)
        log_variance = log_variance.clamp(-20.0, 20.0)
        square = (y - mean).square() * torch.exp(-log_variance)
        return 0.5 * (square + log_variance + math.log(2.0 * math.pi))
