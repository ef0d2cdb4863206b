r"""Hamiltonian Monte Carlo (Duane et al. 1987; Neal 2011, arXiv 1206.1901), many chains at once.

With momentum :math:`p \sim N(0, I)`, :math:`H = -\log\pi(\theta) + \tfrac12 |p|^2`, and scales
:math:`s` (all 1, or the deviations found in the burn-in, which is a diagonal mass
:math:`M = s^{-2}`), a leapfrog step is

.. math:: p &\leftarrow p + \tfrac{\epsilon}{2}\, s \odot \nabla\log\pi(\theta) \\
          \theta &\leftarrow \theta + \epsilon\, s \odot p \\
          p &\leftarrow p + \tfrac{\epsilon}{2}\, s \odot \nabla\log\pi(\theta)

and after :math:`L = \min(L_{max}, \lceil \text{path} / \epsilon \rceil)` of them the end is
accepted with probability :math:`\min(1, e^{H_0 - H_L})`; NaN counts as rejection. In the burn-in
dual averaging adapts :math:`\epsilon`, and the path is halved where it would take more than
:math:`L_{max}` steps (Li, Rudner & Wilson 2024, arXiv 2305.20028, whose defaults these are).

Every chain has its own step size, number of steps and decision; all take a leapfrog step together,
and one that has made all of its own stands still while the others go on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.sample.chains import Plan, State, Statistics
from understudy.sample.density import LogDensity, ValueAndGradient, value_and_gradient
from understudy.sample.dual_averaging import DualAveraging

DIVERGENCE = 1000.0
"""Rise of the energy along a path from which it counts as divergent."""


@dataclass(frozen=True)
class Moments:
    """Running moments of the positions of each chain (Welford 1962).

    Parameters
    ----------
    mean, squares : Tensor (chains, dim)
        Mean, and sum of squared deviations from it.
    count : Tensor ()
    """

    mean: Tensor
    squares: Tensor
    count: Tensor

    @classmethod
    def start(cls, position: Tensor) -> Moments:
        """Of no positions yet."""
        return cls(torch.zeros_like(position), torch.zeros_like(position), position.new_zeros(()))

    def update(self, position: Tensor) -> Moments:
        """With one more position (chains, dim)."""
        count = self.count + 1.0
        away = position - self.mean
        mean = self.mean + away / count
        return Moments(mean, self.squares + away * (position - mean), count)

    def scale(self, shared: bool) -> Tensor:
        """Deviations (chains, dim), or (1, dim) of all chains together, drawn a little to 0.03."""
        squares, count = self.squares, self.count
        if shared:
            between = self.count * (self.mean - self.mean.mean(0)).square()
            squares, count = (squares + between).sum(0, keepdim=True), count * len(squares)
        variance = squares / (count - 1.0).clamp_min(1.0)
        return (count / (count + 5.0) * variance + 1e-3 * 5.0 / (count + 5.0)).sqrt()


@dataclass(frozen=True)
class HMCState(State):
    """Where the chains are and what they have adapted.

    Parameters
    ----------
    position, gradient : Tensor (chains, dim)
    log_density : Tensor (chains,)
    step_size : DualAveraging
    path_length : Tensor (chains,)
    scale : Tensor (chains, dim), (1, dim) or (1, 1)
        Deviations by which momenta and steps are scaled.
    moments : Moments
        Of the positions in the present window of the burn-in; empty without mass adaptation.
    """

    log_density: Tensor
    gradient: Tensor
    step_size: DualAveraging
    path_length: Tensor
    scale: Tensor
    moments: Moments


@dataclass(frozen=True)
class HMC:
    """Hamiltonian Monte Carlo with dual averaging.

    Parameters
    ----------
    step_size : float
        To begin with; kept if there is no burn-in.
    path_length : float
        Step size times number of steps; in units of the scales where the mass is adapted.
    max_leapfrog : int
        Steps in a path at most.
    target_acceptance : float in (0, 1)
    jitter : float in [0, 1)
        Each path is longer or shorter by a factor uniform in 1 ± jitter, the same for all chains,
        so that no period of the target goes with the path.
    mass : {"identity", "diagonal"}
        Whether the burn-in estimates the deviation of every coordinate, in windows that double in
        length, as Stan does (Carpenter et al. 2017).
    shared : bool
        Whether all chains adapt one step size and one mass together. They then take equally many
        steps, so none waits for another, and the mass is estimated from all of them: the better
        choice where chains have the same target.
    """

    step_size: float = 0.02
    path_length: float = 0.08
    max_leapfrog: int = 200
    target_acceptance: float = 0.8
    jitter: float = 0.0
    mass: Literal["identity", "diagonal"] = "identity"
    shared: bool = False

    def __post_init__(self) -> None:
        if not (0.0 < self.step_size < math.inf and 0.0 < self.path_length < math.inf):
            raise UserError(
                "step_size and path_length must be positive, got "
                f"{self.step_size} and {self.path_length}"
            )
        if not 0.0 < self.target_acceptance < 1.0:
            raise UserError(f"target_acceptance must be in (0, 1), got {self.target_acceptance}")
        if not 0.0 <= self.jitter < 1.0:
            raise UserError(f"jitter must be in [0, 1), got {self.jitter}")
        if self.mass not in ("identity", "diagonal"):
            raise UserError(f'mass must be "identity" or "diagonal", got {self.mass!r}')
        if self.max_leapfrog < 1:
            raise UserError(f"max_leapfrog must be at least 1, got {self.max_leapfrog}")

    @property
    def state_type(self) -> type[HMCState]:
        """Class of the state."""
        return HMCState

    def start(self, target: LogDensity, position: Tensor) -> HMCState:
        """State at positions (chains, dim) with nothing adapted."""
        value, gradient = value_and_gradient(target)(position)
        _require_finite(value)
        log_step = torch.full_like(value, math.log(self.step_size))
        seen = position if self.mass == "diagonal" else position[:, :0]
        return HMCState(
            position=position,
            log_density=value,
            gradient=gradient,
            step_size=DualAveraging.start(log_step),
            path_length=torch.full_like(value, self.path_length),
            scale=torch.ones_like(position[:1, :1]),
            moments=Moments.start(seen),
        )

    def restart(self, target: LogDensity, state: HMCState) -> HMCState:
        """State at the same positions under another target, with what was adapted."""
        value, gradient = value_and_gradient(target)(state.position)
        _require_finite(value)
        return replace(
            state,
            log_density=value,
            gradient=gradient,
            step_size=DualAveraging.start(state.step_size.log_average),
            moments=Moments.start(state.moments.mean),
        )

    def step(
        self,
        target: LogDensity,
        state: HMCState,
        step: int,
        plan: Plan,
        generator: torch.Generator,
    ) -> tuple[HMCState, Statistics]:
        """One path of every chain, accepted or not; see `understudy.sample.chains.Sampler`."""
        adapting = step < plan.burn_in
        log_step = state.step_size.log_step if adapting else state.step_size.log_average
        epsilon, path = log_step.exp(), state.path_length
        momentum = _like(state.position, generator, torch.randn)
        uniforms = _like(state.log_density.new_empty(len(epsilon) + 1), generator, torch.rand)
        if self.jitter:
            path = path * (1.0 + self.jitter * (2.0 * uniforms[0] - 1.0))
        steps = (path / epsilon).ceil().clamp(1, self.max_leapfrog)
        end = leapfrog(
            value_and_gradient(target),
            Phase(state.position, momentum, state.log_density, state.gradient),
            epsilon.unsqueeze(1) * state.scale,
            steps,
        )
        before, after = _energy(state.log_density, momentum), _energy(end.log_density, end.momentum)
        acceptance = (before - after).clamp(max=0.0).exp().nan_to_num(nan=0.0)
        accepted = uniforms[1:] < acceptance
        chosen = accepted.unsqueeze(1)
        moved = replace(
            state,
            position=torch.where(chosen, end.position, state.position),
            log_density=torch.where(accepted, end.log_density, state.log_density),
            gradient=torch.where(chosen, end.gradient, state.gradient),
        )
        if adapting:
            moved = self._adapted(moved, acceptance, step, plan)
        return moved, {
            "acceptance": acceptance,
            "energy": torch.where(accepted, after, before),
            "log_density": moved.log_density,
            "leapfrog_steps": steps,
            "divergent": ~(after - before <= DIVERGENCE),
        }

    def _adapted(self, state: HMCState, acceptance: Tensor, step: int, plan: Plan) -> HMCState:
        if self.shared:
            acceptance = acceptance.mean().expand_as(acceptance)
        averaging = state.step_size.update(acceptance, self.target_acceptance)
        too_long = state.path_length / averaging.log_step.exp() > self.max_leapfrog
        path = torch.where(too_long, 0.5 * state.path_length, state.path_length)
        state = replace(state, step_size=averaging, path_length=path)
        if self.mass == "identity":
            return state
        first, ends = windows(plan.burn_in)
        if not ends or not first <= step <= ends[-1]:
            return state
        state = replace(state, moments=state.moments.update(state.position))
        if step not in ends:
            return state
        return replace(
            state,
            scale=state.moments.scale(self.shared),
            step_size=DualAveraging.start(averaging.log_step),
            path_length=torch.full_like(path, self.path_length),
            moments=Moments.start(state.position),
        )


@dataclass(frozen=True)
class Phase:
    """A point of every chain in phase space.

    Parameters
    ----------
    position, momentum : Tensor (chains, dim)
    log_density : Tensor (chains,)
    gradient : Tensor (chains, dim)
    """

    position: Tensor
    momentum: Tensor
    log_density: Tensor
    gradient: Tensor


def leapfrog(target: ValueAndGradient, start: Phase, rate: Tensor, steps: Tensor) -> Phase:
    """Follow the Hamiltonian flow of every chain.

    Parameters
    ----------
    target : callable
        Log density with gradient.
    start : Phase
    rate : Tensor, broadcastable to (chains, dim)
        Step size times scale.
    steps : Tensor (chains,)
        Number of steps of each chain, at least 1.
    """
    fewest, most = int(steps.min()), int(steps.max())
    position, gradient, value = start.position, start.gradient, start.log_density
    momentum = torch.addcmul(start.momentum, rate, gradient, value=0.5)
    for i in range(1, most + 1):
        drift = rate if i <= fewest else rate * (i <= steps).unsqueeze(1)
        position = torch.addcmul(position, drift, momentum)
        value, gradient = target(position)
        kick = rate
        if i >= fewest:  # half a kick at a chain's end, none after it
            kick = rate * (0.5 * (i == steps) + 1.0 * (i < steps)).to(rate).unsqueeze(1)
        momentum.addcmul_(kick, gradient)
    return Phase(position, momentum, value, gradient)


@lru_cache(maxsize=64)
def windows(burn_in: int) -> tuple[int, tuple[int, ...]]:
    """First step at which positions count for the mass, and the last step of each window.

    A buffer of 75 steps comes first, then windows of 25, 50, 100, ... steps, the last of which
    reaches to 50 steps before the end; a short burn-in has 15 %, 75 % and 10 %, and below 20 steps
    there is no window.
    """
    if burn_in < 20:
        return 0, ()
    first, last, size = 75, 50, 25
    if first + size + last > burn_in:
        first, last = int(0.15 * burn_in), int(0.1 * burn_in)
        size = burn_in - first - last
    ends, at = [], first
    while at < burn_in - last:
        left = burn_in - last - at
        size = size if left >= 3 * size else left
        at += size
        ends.append(at - 1)
        size *= 2
    return first, tuple(ends)


def _energy(log_density: Tensor, momentum: Tensor) -> Tensor:
    return 0.5 * momentum.square().sum(1) - log_density


def _like(tensor: Tensor, generator: torch.Generator, draw: object) -> Tensor:
    return draw(  # type: ignore[operator]
        tensor.shape, generator=generator, dtype=tensor.dtype, device=tensor.device
    )


def _require_finite(log_density: Tensor) -> None:
    bad = (~torch.isfinite(log_density)).nonzero().flatten().tolist()
    if bad:
        raise UserError(f"the log density is not finite where chain {bad[0]} starts")
