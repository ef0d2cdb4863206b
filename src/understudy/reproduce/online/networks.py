"""Solvers, and networks that are to stand in for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from understudy.models.operators.fno import FNO
from understudy.models.operators.mp_pde import MPPDE
from understudy.reproduce.online.problems import Lorenz
from understudy.reproduce.online.setting import Size
from understudy.simulate.pde import CombinedEquation, Heat
from understudy.simulate.stream import (
    Batch,
    DirectLoss,
    NextStepLoss,
    StreamingSolver,
    UniformSampler,
    Windows,
    validation_batch,
)
from understudy.simulate.stream.losses import SampleLoss

_HEAT_RANGE = (100.0, 500.0)
"""Of temperatures, by which fields are scaled."""


@dataclass(frozen=True)
class Problem:
    """A solver, and a network that is to stand in for it.

    Parameters
    ----------
    solver : StreamingSolver
    loss : callable
        Of a network on a batch, one value a sample.
    network : callable
        Makes an untrained network.
    frames : int
        Times of a run, with the first.
    windows : Windows
        Times that are one sample.
    """

    solver: StreamingSolver
    loss: SampleLoss
    network: Callable[[], nn.Module]
    frames: int
    windows: Windows = field(default_factory=Windows)

    @property
    def samples(self) -> int:
        """Samples of a run."""
        return self.frames - len(self.windows) + 1

    def fixed(self, runs: int, seed: int) -> Batch:
        """All samples of so many uniform runs."""
        return validation_batch(
            self.solver, UniformSampler(self.solver.space, seed), runs, self.windows
        )

    def made(self, seed: int) -> nn.Module:
        """Untrained network, the same for the same seed."""
        torch.manual_seed(seed)
        return self.network()


def heat_problem(size: Size) -> Problem:
    """Temperatures of any time from the parameters and the time, by a perceptron."""
    solver = Heat(points=size.points, steps=size.steps)

    def network() -> nn.Module:
        return _perceptron(6, size.width, size.points**2)

    loss = DirectLoss(solver.space, size.steps * solver.time_step, *_HEAT_RANGE)
    return Problem(solver, loss, network, size.steps + 1)


def _perceptron(inputs: int, width: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, outputs),
    )


def _waves(size: Size, network: Callable[[], nn.Module]) -> Problem:
    solver = CombinedEquation(points=size.waves, steps=size.steps, refinement=1)
    loss = NextStepLoss(space=solver.space, names=("alpha", "beta", "gamma"))
    windows = Windows(size.window, size.window)
    return Problem(solver, loss, network, size.steps + 1, windows)


def fno_problem(size: Size) -> Problem:
    """A window of the combined equation from the one before, by a Fourier neural operator."""
    modes = (size.waves // 4,)
    return _waves(
        size,
        lambda: FNO(size.window, size.window, modes=modes, width=size.fno_width, num_params=3),
    )


def mp_pde_problem(size: Size) -> Problem:
    """The same by a message-passing solver."""
    width, depth = size.mp_pde_width, size.mp_pde_depth
    return _waves(
        size,
        lambda: MPPDE(
            size.window, size.window, width=width, depth=depth, residual=True, num_params=3
        ),
    )


def lorenz_problem() -> Problem:
    """States of the Lorenz system at any time from its parameters, by a small perceptron."""
    solver = Lorenz()
    loss = DirectLoss(solver.space, solver.duration, -40.0, 40.0)
    return Problem(solver, loss, lambda: _perceptron(4, 64, 3), solver.steps + 1)
