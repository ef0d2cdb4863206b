r"""Adaptive stochastic-gradient Hamiltonian Monte Carlo (Springenberg et al. 2016, "Bohamiann").

Chen, Fox & Guestrin (2014, arXiv 1402.4102) with the step of every coordinate from statistics of
its gradient :math:`\nabla` (of minus the log density, estimated from a few rows). In the burn-in,
with :math:`r = 1/(\tau + 1)` before :math:`\tau` changes,

.. math:: \tau &\leftarrow \tau - \tau\, g^2 / (v + \varepsilon) + 1 \\
          g &\leftarrow g - r g + r \nabla \\
          v &\leftarrow v - r v + r \nabla^2

and always, with :math:`w = 1/(\sqrt v + \varepsilon)`, step :math:`\eta` and friction
:math:`\alpha`,

.. math:: \sigma^2 &= \max(2\eta^2\alpha w - \eta^4,\ 10^{-16}) \\
          m &\leftarrow m - \eta^2 w \nabla - \alpha m + \sigma\,\xi, \qquad \xi \sim N(0, I) \\
          \theta &\leftarrow \theta + m .

The term :math:`\eta^4` is the noise that the rows themselves bring, as :math:`\eta^4 w^2 v`. In the
stationary state the variance of :math:`\theta` is that of the density to first order in
:math:`\alpha` and :math:`\eta^2`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.sample.chains import Plan, State, Statistics
from understudy.sample.density import StochasticTarget, stochastic_gradient


@dataclass(frozen=True)
class SGHMCState(State):
    """Where the chains are, and the statistics of their gradients.

    Parameters
    ----------
    position, momentum : Tensor (chains, dim)
    tau, mean, square : Tensor (chains, dim)
        Window of the averages, mean gradient :math:`g` and mean squared gradient :math:`v`.
    """

    momentum: Tensor
    tau: Tensor
    mean: Tensor
    square: Tensor


@dataclass(frozen=True)
class SGHMC:
    r"""Adaptive stochastic-gradient HMC.

    Parameters
    ----------
    learning_rate : float
        :math:`\eta`; 1e-2 as in arXiv 2305.20028.
    friction : float in (0, 1)
        :math:`\alpha`, the decay of the momentum in a step; 0.05 likewise.
    epsilon : float
        Keeps denominators from zero.
    """

    learning_rate: float = 1e-2
    friction: float = 0.05
    epsilon: float = 1e-16

    def __post_init__(self) -> None:
        if not self.learning_rate > 0.0:
            raise UserError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0.0 < self.friction < 1.0:
            raise UserError(f"friction must be in (0, 1), got {self.friction}")

    @property
    def state_type(self) -> type[SGHMCState]:
        """Class of the state."""
        return SGHMCState

    def start(self, target: StochasticTarget, position: Tensor) -> SGHMCState:
        """State at positions (chains, dim), at rest."""
        one = torch.ones_like(position)
        return SGHMCState(position, torch.zeros_like(position), one, one, one)

    def restart(self, target: StochasticTarget, state: SGHMCState) -> SGHMCState:
        """State at the same positions under another target, with the statistics so far."""
        return replace(state, tau=torch.ones_like(state.tau))

    def step(
        self,
        target: StochasticTarget,
        state: SGHMCState,
        step: int,
        plan: Plan,
        generator: torch.Generator,
    ) -> tuple[SGHMCState, Statistics]:
        """One step of every chain; see `understudy.sample.chains.Sampler`."""
        value, ascent = stochastic_gradient(target, state.position, generator)
        gradient = ascent.neg()
        if step < plan.burn_in:
            state = self._adapted(state, gradient)
        eta, alpha = self.learning_rate, self.friction
        weight = 1.0 / (state.square.sqrt() + self.epsilon)
        variance = (2.0 * eta**2 * alpha * weight - eta**4).clamp_min(1e-16)
        noise = torch.randn(
            gradient.shape, generator=generator, dtype=gradient.dtype, device=gradient.device
        )
        momentum = (1.0 - alpha) * state.momentum - eta**2 * weight * gradient
        momentum = momentum + variance.sqrt() * noise
        moved = replace(state, position=state.position + momentum, momentum=momentum)
        return moved, {"log_density": value}

    def _adapted(self, state: SGHMCState, gradient: Tensor) -> SGHMCState:
        tau, mean, square = state.tau, state.mean, state.square
        rate = 1.0 / (tau + 1.0)
        return replace(
            state,
            tau=tau - tau * mean.square() / (square + self.epsilon) + 1.0,
            mean=mean - rate * mean + rate * gradient,
            square=square - rate * square + rate * gradient.square(),
        )
