"""Kuramoto-Sivashinsky waves at the steps of a model."""

from __future__ import annotations

import torch
from torch import Tensor

from understudy.reproduce.refined_steps.sizes import Budget
from understudy.simulate.pde.kuramoto_sivashinsky import KuramotoSivashinsky

STRIDE = 4  # outputs of the solver in a step of a model

Trajectories = tuple[Tensor, Tensor | None]
"""Fields ``(N, T, 1, n)`` and parameters ``(N, P)``."""


def trajectories(
    spent: Budget, runs: int, times: int, first_seed: int, device: torch.device
) -> Trajectories:
    """Fields at the steps of a model, ``(runs * STRIDE, times // STRIDE, 1, n)``, on the device.

    Each run gives a trajectory for each output with which it can begin. Parameters are the time
    step and the spacing, scaled to 0 to 10 as in the official code; none where neither varies.
    """
    low = torch.tensor([spent.length[0], spent.interval[0]], dtype=torch.float64)
    high = torch.tensor([spent.length[1], spent.interval[1]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(first_seed)
    drawn = low + (high - low) * torch.rand(runs, 2, generator=generator, dtype=torch.float64)
    seeds = first_seed + torch.arange(runs, dtype=torch.float64)
    codes = torch.stack((drawn[:, 0], drawn[:, 1], torch.ones_like(seeds), seeds), dim=1)
    with torch.device(device):
        solver = KuramotoSivashinsky(spent.points, times - 1, spent.transient)
        fields = solver.fields(codes.to(device))
    whole = fields[:, : times // STRIDE * STRIDE].unflatten(1, (-1, STRIDE))
    fields = whole.transpose(1, 2).flatten(0, 1)
    if spent.length[0] == spent.length[1]:
        return fields, None
    told = torch.stack((drawn[:, 1] - 0.15, drawn[:, 0] / spent.points - 0.2), dim=1) * 100.0
    return fields, told.float().repeat_interleave(STRIDE, dim=0)


def split(data: Trajectories, count: int) -> tuple[Trajectories, Trajectories]:
    """Some trajectories from the first on, and the rest."""
    fields, told = data
    if told is None:
        return (fields[:count], None), (fields[count:], None)
    return (fields[:count], told[:count]), (fields[count:], told[count:])


def first(data: Trajectories, count: int) -> Trajectories:
    """Some trajectories from the first on."""
    return split(data, count)[0]
