"""Where chains may start: near a mode, found by Adam (Kingma & Ba 2015, arXiv 1412.6980)."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from understudy.sample.density import LogDensity, value_and_gradient


def maximise(
    log_density: LogDensity,
    position: Tensor,
    steps: int = 1000,
    learning_rate: float = 1e-2,
    max_seconds: float | None = None,
) -> Tensor:
    """Climb the log density of every chain by Adam.

    Parameters
    ----------
    log_density : callable (chains, dim) -> (chains,)
    position : Tensor (chains, dim)
    steps : int
    learning_rate : float
        About the length of a step in each coordinate.
    max_seconds : float, optional

    Returns
    -------
    Tensor (chains, dim)
        The best position met by each chain.
    """
    target = value_and_gradient(log_density)
    first, second = torch.zeros_like(position), torch.zeros_like(position)
    best, top = position.clone(), torch.full_like(position[:, 0], -torch.inf)
    begin = time.perf_counter()
    for t in range(1, steps + 2):
        value, gradient = target(position)
        better = value > top
        top = torch.where(better, value, top)
        best = torch.where(better.unsqueeze(1), position, best)
        if t > steps or (max_seconds is not None and time.perf_counter() - begin > max_seconds):
            break
        first.lerp_(gradient, 0.1)
        second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        scale = (second / (1.0 - 0.999**t)).sqrt_().add_(1e-8)
        position = position + learning_rate / (1.0 - 0.9**t) * first / scale
    return best
