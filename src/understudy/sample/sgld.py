r"""Stochastic-gradient Langevin dynamics, with constant or cyclical steps.

Welling & Teh (2011): with :math:`\xi \sim N(0, I)`,

.. math:: \theta \leftarrow \theta + \alpha_k \nabla\log\pi(\theta) + \sqrt{2\alpha_k}\,\xi .

Zhang et al. (2020, arXiv 1902.03932): K steps are M cycles, in each of which the step falls
from :math:`\alpha_0` to 0,

.. math:: \alpha_k = \frac{\alpha_0}{2} \left[\cos\!\left(\pi\,
          \frac{(k - 1) \bmod \lceil K/M \rceil}{\lceil K/M \rceil}\right) + 1\right] .

The first part of a cycle, up to a fraction :math:`\beta`, explores: no noise, so that the chain
falls into another mode. The rest of it samples there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.sample.chains import CyclicalPlan, Plan, State, Statistics
from understudy.sample.density import StochasticTarget, stochastic_gradient


class Steps(Protocol):
    """Step sizes by number of the step."""

    def size(self, step: int) -> float:
        """Step size of the step of that number, counted from 0."""
        ...

    def explores(self, step: int) -> bool:
        """Whether that step is without noise."""
        ...


@dataclass(frozen=True)
class ConstantSteps:
    r"""The same step size throughout.

    On :math:`N(0, \sigma^2)` the stationary variance is :math:`\sigma^2/(1 - \alpha/2\sigma^2)`.

    Parameters
    ----------
    step_size : float
    """

    step_size: float

    def size(self, step: int) -> float:
        """Step size."""
        return self.step_size

    def explores(self, step: int) -> bool:
        """Never."""
        return False


@dataclass(frozen=True)
class CyclicalSteps:
    """Cosine cycles of exploration and sampling.

    Parameters
    ----------
    step_size : float
        At the start of a cycle.
    cycle : int
        Steps in a cycle.
    exploration : float in [0, 1)
        Fraction of a cycle without noise.
    """

    step_size: float
    cycle: int
    exploration: float = 0.8

    def __post_init__(self) -> None:
        if self.cycle < 2 or not self.step_size > 0.0:
            raise UserError(
                "a cycle has at least 2 steps and a positive step size, got "
                f"{self.cycle} and {self.step_size}"
            )
        if not 0.0 <= self.exploration < 1.0:
            raise UserError(f"exploration must be in [0, 1), got {self.exploration}")

    def size(self, step: int) -> float:
        """Step size of the step of that number."""
        return 0.5 * self.step_size * (math.cos(math.pi * self._part(step)) + 1.0)

    def explores(self, step: int) -> bool:
        """Whether that step is in the first part of its cycle."""
        return self._part(step) < self.exploration

    def plan(self, cycles: int, thin: int = 1) -> CyclicalPlan:
        """Plan of that many cycles, of which every ``thin``-th step that samples is kept."""
        silent = sum(self.explores(step) for step in range(self.cycle))
        return CyclicalPlan(0, cycles * ((self.cycle - silent) // thin), thin, self.cycle, silent)

    def _part(self, step: int) -> float:
        return (step % self.cycle) / self.cycle


@dataclass(frozen=True)
class SGLDState(State):
    """Where the chains are."""


@dataclass(frozen=True)
class SGLD:
    """Stochastic-gradient Langevin dynamics.

    Parameters
    ----------
    steps : ConstantSteps or CyclicalSteps
        The latter has a `CyclicalSteps.plan` of its own.
    """

    steps: Steps

    @property
    def state_type(self) -> type[SGLDState]:
        """Class of the state."""
        return SGLDState

    def start(self, target: StochasticTarget, position: Tensor) -> SGLDState:
        """State at positions (chains, dim)."""
        return SGLDState(position)

    def restart(self, target: StochasticTarget, state: SGLDState) -> SGLDState:
        """State at the same positions under another target."""
        return state

    def step(
        self,
        target: StochasticTarget,
        state: SGLDState,
        step: int,
        plan: Plan,
        generator: torch.Generator,
    ) -> tuple[SGLDState, Statistics]:
        """One step of every chain; see `understudy.sample.chains.Sampler`."""
        value, gradient = stochastic_gradient(target, state.position, generator)
        size = self.steps.size(step)
        position = state.position + size * gradient
        if not self.steps.explores(step):
            noise = torch.randn(
                gradient.shape, generator=generator, dtype=gradient.dtype, device=gradient.device
            )
            position = position + math.sqrt(2.0 * size) * noise
        return SGLDState(position), {"log_density": value}
