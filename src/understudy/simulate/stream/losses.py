r"""Losses of streamed samples, scaled by ranges that are known beforehand.

Data seen so far say little of data to come, so nothing is normalised by statistics: parameters by
their space, times by the duration, fields by the range that the user states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from understudy.core.space import Space
from understudy.simulate.stream.samples import Batch

SampleLoss: TypeAlias = Callable[[nn.Module, Batch], Tensor]
"""Loss ``(B,)`` of each sample of a batch under a network."""


@dataclass(frozen=True)
class DirectLoss:
    r"""Mean squared error of direct networks :math:`f(x, t) \approx u(t)`.

    The network takes ``(B, f + 1)``: the features of the parameters (the unit cube, one-hot for
    choices) and t divided by the duration, float32. It gives the whole field, in any shape with as
    many numbers.

    Parameters
    ----------
    space : Space
    duration : float
    lower, upper : float
        Range of the fields, which becomes [0, 1].
    """

    space: Space
    duration: float
    lower: float
    upper: float

    def inputs(self, codes: Tensor, times: Tensor) -> Tensor:
        """What the network takes ``(B, f + 1)``, of codes ``(B, d)`` and times ``(B,)``."""
        unit = self.space.features(codes)
        return torch.cat([unit, times[:, None] / self.duration], dim=1).float()

    def __call__(self, network: nn.Module, batch: Batch) -> Tensor:
        """Loss ``(B,)``, in units of the range squared."""
        predicted = network(self.inputs(batch.codes, batch.times)).flatten(1)
        wanted = (batch.after.flatten(1) - self.lower) / (self.upper - self.lower)
        return (predicted - wanted).square().mean(1)

    @torch.no_grad()
    def predict(self, network: nn.Module, codes: Tensor, times: Tensor) -> Tensor:
        """Fields ``(B, n)`` in their own units."""
        flat = network(self.inputs(codes, times)).flatten(1)
        return self.lower + (self.upper - self.lower) * flat


@dataclass(frozen=True)
class NextStepLoss:
    r"""Mean squared error of networks from fields to the next ones.

    The network takes ``(B, history * C, *space)`` and parameters in the unit cube ``(B, P)``, and
    gives ``(B, bundle * C, *space)``; fields are :math:`(u - c)/s`.

    Parameters
    ----------
    centre, scale : float
    space : Space, optional
        Without it the network is given no parameters.
    names : tuple of str, optional
        Inputs of the space that the network is given, where not all; a seed says nothing.
    """

    centre: float = 0.0
    scale: float = 1.0
    space: Space | None = None
    names: tuple[str, ...] | None = None

    def __call__(self, network: nn.Module, batch: Batch) -> Tensor:
        """Loss ``(B,)``, in units of the scale squared."""
        before, after = ((f.flatten(1, 2) - self.centre) / self.scale for f in _both(batch))
        if self.space is None:
            predicted = network(before)
        else:
            predicted = network(before, self._told(self.space, batch.codes))
        return (predicted - after).square().flatten(1).mean(1)

    def _told(self, space: Space, codes: Tensor) -> Tensor:
        unit = space.to_unit(codes).float()
        if self.names is None:
            return unit
        return unit[:, [space.names.index(name) for name in self.names]]


def _both(batch: Batch) -> tuple[Tensor, Tensor]:
    return batch.before, batch.after


def halving(every: int = 6250, until: int = 31_250) -> Callable[[int], float]:
    """Learning-rate factor by batch: halved at every multiple, up to the last (arXiv 2306.16133).

    Parameters
    ----------
    every, until : int
        Batches; 6250 and 31,250 in the heat study.
    """
    return lambda batch: 0.5 ** (min(batch, until) // every)
