r"""Affine-invariant ensemble sampling by stretch moves (Goodman & Weare 2010).

An ensemble is W walkers :math:`X_k` with the same target :math:`\pi` in D dimensions. It is split
at random in two halves, and each in turn moves against the other: a walker draws a partner
:math:`X_j` from the other half and proposes

.. math:: Y = X_j + Z\,(X_k - X_j), \qquad
          g(z) \propto \frac{1}{\sqrt z} \text{ on } \left[\tfrac1a, a\right],

which is accepted with probability :math:`\min\{1, Z^{D-1}\, \pi(Y) / \pi(X_k)\}`. Half an ensemble
moves at once, as in emcee (Foreman-Mackey et al. 2013, arXiv 1202.3665), whose a = 2 is the
default; and so do any number of ensembles, each with a target of its own. No gradient is needed,
and no affine map of the target changes how well it is sampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.sample.chains import Plan, State, Statistics
from understudy.sample.density import LogDensity


@dataclass(frozen=True)
class EnsembleState(State):
    """Where the walkers are.

    Parameters
    ----------
    position : Tensor (ensembles * walkers, dim)
        Ensemble by ensemble.
    log_density : Tensor (ensembles * walkers,)
    """

    log_density: Tensor


@dataclass(frozen=True)
class EnsembleSampler:
    """Affine-invariant ensemble sampler.

    Parameters
    ----------
    walkers : int
        Of each ensemble: even, and more than the dimension. Twice the dimension is the least that
        is usual.
    stretch : float
        The largest stretch a, above 1.

    Notes
    -----
    The target is called with the moving half of every ensemble: with E W / 2 positions, those of
    the first ensemble first.
    """

    walkers: int
    stretch: float = 2.0

    def __post_init__(self) -> None:
        if self.walkers < 4 or self.walkers % 2:
            raise UserError(f"walkers must be an even number of at least 4, got {self.walkers}")
        if not 1.0 < self.stretch < math.inf:
            raise UserError(f"stretch must be above 1 and finite, got {self.stretch}")

    @property
    def state_type(self) -> type[EnsembleState]:
        """Class of the state."""
        return EnsembleState

    def start(self, target: LogDensity, position: Tensor) -> EnsembleState:
        """State at positions (ensembles * walkers, dim) in each of which the target is positive."""
        if len(position) % self.walkers or self.walkers <= position.shape[1]:
            raise UserError(
                f"{len(position)} positions in {position.shape[1]} dimensions are no ensembles of "
                f"{self.walkers} walkers: it takes a multiple of that many, more than dimensions"
            )
        first, second = self._halves(position)
        log_density = self._joined(target(_flat(first)), target(_flat(second)))
        bad = (~log_density.isfinite()).nonzero().flatten().tolist()
        if bad:
            raise UserError(f"the log density is not finite where walker {bad[0]} starts")
        return EnsembleState(position, log_density)

    def restart(self, target: LogDensity, state: EnsembleState) -> EnsembleState:
        """State at the same positions under another target."""
        return self.start(target, state.position)

    def step(
        self,
        target: LogDensity,
        state: EnsembleState,
        step: int,
        plan: Plan,
        generator: torch.Generator,
    ) -> tuple[EnsembleState, Statistics]:
        """One move of every walker; see `understudy.sample.chains.Sampler`."""
        position = state.position.unflatten(0, (-1, self.walkers)).clone()
        log_density = state.log_density.unflatten(0, (-1, self.walkers)).clone()
        accepted = torch.empty_like(log_density)
        device = position.device
        shuffled = torch.randperm(self.walkers, generator=generator, device=device)
        halves = shuffled.chunk(2)
        for here, there in (halves, halves[::-1]):
            moved, value, taken = self._move(
                target, position[:, here], log_density[:, here], position[:, there], generator
            )
            position[:, here], log_density[:, here], accepted[:, here] = moved, value, taken
        after = replace(state, position=_flat(position), log_density=_flat(log_density))
        return after, {"acceptance": _flat(accepted), "log_density": after.log_density}

    def _move(
        self,
        target: LogDensity,
        walkers: Tensor,
        log_density: Tensor,
        others: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Positions (E, W/2, D) after a stretch towards others, densities, and acceptance."""
        E, half, dim = walkers.shape
        u = torch.rand(
            (3, E, half), generator=generator, dtype=walkers.dtype, device=walkers.device
        )
        z = ((self.stretch - 1.0) * u[0] + 1.0).square() / self.stretch
        pick = (u[1] * half).long().clamp(max=half - 1)
        partner = others.gather(1, pick.unsqueeze(-1).expand_as(walkers))
        proposal = partner + z.unsqueeze(-1) * (walkers - partner)
        value = target(_flat(proposal)).view(E, half)
        gain = (dim - 1.0) * z.log() + value - log_density
        accepted = u[2].log() < gain  # false where the target is not a number
        return (
            torch.where(accepted.unsqueeze(-1), proposal, walkers),
            torch.where(accepted, value, log_density),
            accepted.to(value.dtype),
        )

    def _halves(self, position: Tensor) -> tuple[Tensor, Tensor]:
        first, second = position.unflatten(0, (-1, self.walkers)).chunk(2, dim=1)
        return first, second

    def _joined(self, first: Tensor, second: Tensor) -> Tensor:
        """Values (E * W,) of two halves (E * W / 2,)."""
        parts = [part.view(-1, self.walkers // 2) for part in (first, second)]
        return _flat(torch.cat(parts, dim=1))


def _flat(values: Tensor) -> Tensor:
    """Ensembles and walkers (E, W, ...) as one dimension."""
    return values.flatten(0, 1)
