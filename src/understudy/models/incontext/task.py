"""Data sets drawn from a prior: what in-context networks are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class TaskBatch:
    """A batch of B data sets of N rows.

    Parameters
    ----------
    x : Tensor (B, N, features)
        Inputs; those a data set does not use are 0.
    y : Tensor (B, N)
        Outcomes as they are observed, with their noise; 0 or 1, or the number of a class, where
        outcomes are classes.
    target : Tensor (B, N)
        What is to be predicted: y, or the function without its noise.
    used : Tensor (B,), optional
        Number of inputs that a data set uses, the first ones; all where not given.
    """

    x: Tensor
    y: Tensor
    target: Tensor
    used: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)


class Prior(Protocol):
    """A distribution over data sets that can be drawn from.

    Everything is drawn on the generator's device, all data sets at once.
    """

    @property
    def features(self) -> int:
        """Inputs of a row, padding included."""
        ...

    def sample(self, batch: int, rows: int, generator: torch.Generator) -> TaskBatch:
        """Draw data sets of ``rows`` rows."""
        ...


@dataclass(frozen=True)
class PriorMixture:
    """Data sets from several priors, in fixed shares of every batch.

    Parameters
    ----------
    priors : sequence of Prior
    shares : sequence of float
        Positive; they need not sum to 1.
    """

    priors: Sequence[Prior]
    shares: Sequence[float]

    @property
    def features(self) -> int:
        """The most inputs that any of them has."""
        return max(prior.features for prior in self.priors)

    def sample(self, batch: int, rows: int, generator: torch.Generator) -> TaskBatch:
        """Draw data sets of ``rows`` rows, in random order."""
        total, sizes, left = sum(self.shares), [], batch
        for share in self.shares[:-1]:
            sizes.append(min(round(batch * share / total), left))
            left -= sizes[-1]
        sizes.append(left)
        parts = [
            prior.sample(size, rows, generator)
            for prior, size in zip(self.priors, sizes, strict=True)
            if size
        ]
        return concatenated(parts, self.features)


def concatenated(parts: Sequence[TaskBatch], features: int) -> TaskBatch:
    """Return the data sets of several batches, padded to the same number of inputs."""

    def padded(x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x, (0, features - x.shape[-1]))

    def used(part: TaskBatch) -> Tensor:
        if part.used is not None:
            return part.used
        return torch.full((len(part),), part.x.shape[-1], device=part.x.device)

    return TaskBatch(
        torch.cat([padded(part.x) for part in parts]),
        torch.cat([part.y for part in parts]),
        torch.cat([part.target for part in parts]),
        torch.cat([used(part) for part in parts]),
    )
