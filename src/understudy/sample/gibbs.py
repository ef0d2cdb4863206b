r"""Sampling with auxiliary variables whose distribution given the position is known.

Positions :math:`\theta` and auxiliaries :math:`\lambda` have a joint density. By turns,
:math:`\lambda` is drawn from :math:`p(\lambda \mid \theta)`, and another sampler takes some steps
under :math:`p(\theta \mid \lambda)`, as Tran et al. (2022, arXiv 2011.12829) do with the precisions
of a hierarchical prior.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.sample.chains import Plan, State, Statistics
from understudy.sample.density import StochasticTarget
from understudy.sample.sghmc import SGHMC, SGHMCState


class ConditionalTarget(Protocol):
    """A density of positions and auxiliaries."""

    def auxiliary(self, position: Tensor, generator: torch.Generator) -> Tensor:
        """Draw auxiliaries (chains, k) given positions (chains, dim)."""
        ...

    def given(self, auxiliary: Tensor) -> StochasticTarget:
        """Density of positions given auxiliaries (chains, k)."""
        ...


@dataclass(frozen=True)
class GibbsState(State):
    """Where the chains are.

    Parameters
    ----------
    position : Tensor (chains, dim)
    inner : SGHMCState
        Of the sampler of positions.
    auxiliary : Tensor (chains, k)
    """

    inner: SGHMCState
    auxiliary: Tensor


@dataclass(frozen=True)
class Gibbs:
    """Stochastic-gradient HMC of positions, and exact draws of auxiliaries.

    Parameters
    ----------
    inner : SGHMC
    every : int
        Steps from one draw of the auxiliaries to the next; 20 to 1000 in the paper's experiments.
    """

    inner: SGHMC = field(default_factory=SGHMC)
    every: int = 20

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"auxiliaries are drawn every 1 or more steps, not {self.every}")

    @property
    def state_type(self) -> type[GibbsState]:
        """Class of the state."""
        return GibbsState

    def start(self, target: ConditionalTarget, position: Tensor) -> GibbsState:
        """State at positions (chains, dim); the first step draws the auxiliaries."""
        generator = torch.Generator(position.device).manual_seed(0)
        auxiliary = target.auxiliary(position, generator)
        return GibbsState(position, self.inner.start(target.given(auxiliary), position), auxiliary)

    def restart(self, target: ConditionalTarget, state: GibbsState) -> GibbsState:
        """State at the same positions under another target; what was adapted is kept."""
        return replace(state, inner=self.inner.restart(target.given(state.auxiliary), state.inner))

    def step(
        self,
        target: ConditionalTarget,
        state: GibbsState,
        step: int,
        plan: Plan,
        generator: torch.Generator,
    ) -> tuple[GibbsState, Statistics]:
        """One step of every chain; see `understudy.sample.chains.Sampler`."""
        auxiliary = state.auxiliary
        if step % self.every == 0:
            auxiliary = target.auxiliary(state.position, generator)
        inner, said = self.inner.step(target.given(auxiliary), state.inner, step, plan, generator)
        return GibbsState(inner.position, inner, auxiliary), said
