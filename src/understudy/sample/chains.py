"""Run a sampler, stop it, keep it on disk and go on, with the same draws as if it had not stopped.

A sampler is settings and two functions, ``start`` and ``step``; its state is tensors. The loop here
does the rest: it burns in, thins, watches the clock, reports, and catches an interrupt.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, get_type_hints

import torch
from torch import Tensor

from understudy.core.artifact import read, write
from understudy.core.errors import UserError
from understudy.core.progress import Listener, Progress

REPORT_SECONDS = 0.2
"""Least time between two reports to a listener."""

Statistics = dict[str, Tensor]
"""What a step says of itself, one number a chain."""

S = TypeVar("S", bound="State")


@dataclass(frozen=True)
class State:
    """Where the chains are, and all else that their next step depends on.

    Parameters
    ----------
    position : Tensor (chains, dim)
    """

    position: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """All fields by name; those of a field that is a dataclass itself as ``field.name``."""
        return _flat(self)

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Self:
        """Return the state that `tensors` described."""
        return _restored(cls, tensors, "")


def _flat(record: Any, prefix: str = "") -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for part in fields(record):
        value = getattr(record, part.name)
        name = f"{prefix}{part.name}"
        found |= _flat(value, f"{name}.") if is_dataclass(value) else {name: value}
    return found


def _restored(kind: Any, tensors: dict[str, Tensor], prefix: str) -> Any:
    hints = get_type_hints(kind)
    values = {}
    for part in fields(kind):
        name, hint = f"{prefix}{part.name}", hints[part.name]
        values[part.name] = (
            _restored(hint, tensors, f"{name}.") if is_dataclass(hint) else tensors[name].clone()
        )
    return kind(**values)


@dataclass(frozen=True)
class Plan:
    """How long to sample and what to keep.

    Parameters
    ----------
    burn_in : int
        Steps at first, whose positions are dropped; samplers adapt in them.
    samples : int
        Positions to keep of each chain.
    thin : int
        Steps from one kept position to the next.
    """

    burn_in: int
    samples: int
    thin: int = 1

    def __post_init__(self) -> None:
        if self.burn_in < 0 or self.samples < 1 or self.thin < 1:
            raise UserError(
                "a plan needs burn_in >= 0, samples >= 1 and thin >= 1, got "
                f"{self.burn_in}, {self.samples} and {self.thin}"
            )

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.burn_in + self.samples * self.thin

    def keeps(self, step: int) -> bool:
        """Whether the position after this step, counted from 0, is kept."""
        return step >= self.burn_in and (step - self.burn_in + 1) % self.thin == 0


@dataclass(frozen=True)
class CyclicalPlan(Plan):
    """Keeps positions of the sampling part of each cycle.

    Parameters
    ----------
    cycle : int
        Steps in a cycle.
    silent : int
        First steps of a cycle that are not kept.
    """

    cycle: int = 2
    silent: int = 0

    @property
    def steps(self) -> int:
        """Steps in all: whole cycles."""
        return self.samples // ((self.cycle - self.silent) // self.thin) * self.cycle

    def keeps(self, step: int) -> bool:
        """Whether the position after this step is kept."""
        at = step % self.cycle - self.silent
        return at >= 0 and (at + 1) % self.thin == 0


_PLANS = {kind.__name__: kind for kind in (Plan, CyclicalPlan)}


class Sampler(Protocol[S]):
    """Settings of a Markov kernel."""

    def start(self, target: Any, position: Tensor) -> S:
        """State at positions (chains, dim)."""
        ...

    def restart(self, target: Any, state: S) -> S:
        """State at the same positions under another target; what was adapted is kept."""
        ...

    def step(
        self, target: Any, state: S, step: int, plan: Plan, generator: torch.Generator
    ) -> tuple[S, Statistics]:
        """State after the step of that number, and what there is to say of it."""
        ...

    @property
    def state_type(self) -> type[S]:
        """Class of the state."""
        ...


@dataclass
class Chains:
    """What has been sampled, and all that is needed to go on.

    Parameters
    ----------
    plan : Plan
    state : State
        After the last step made.
    random : ByteTensor
        State of the random generator then.
    step : int
        Steps made.
    seconds : float
        Time taken by them.
    kept : list of Tensor (chains, dim)
    records : list of dict
        Statistics of each step.
    interrupted : bool
        Whether the last run was cut by Ctrl-C.
    """

    plan: Plan
    state: State
    random: Tensor
    step: int = 0
    seconds: float = 0.0
    kept: list[Tensor] = field(default_factory=list)
    records: list[Statistics] = field(default_factory=list)
    interrupted: bool = False

    @property
    def draws(self) -> Tensor:
        """Kept positions, (samples, chains, dim)."""
        if not self.kept:
            return self.state.position.new_zeros(0, *self.state.position.shape)
        return torch.stack(self.kept)

    @property
    def statistics(self) -> Statistics:
        """Statistics of all steps, burn-in included, each (steps, chains)."""
        names = self.records[0] if self.records else {}
        return {name: torch.stack([record[name] for record in self.records]) for name in names}

    @property
    def finished(self) -> bool:
        """Whether the plan has been carried out."""
        return self.step >= self.plan.steps

    def save(self, path: str | Path, sampler: Sampler[Any]) -> Path:
        """Write a ``.us`` file that `load` reads."""
        manifest = {
            "kind": "chains",
            "sampler": type(sampler).__name__,
            "settings": _settings(sampler),
            "plan": {"kind": type(self.plan).__name__, **asdict(self.plan)},
            "step": self.step,
            "seconds": self.seconds,
        }
        tensors = {f"state.{name}": value for name, value in self.state.tensors().items()}
        tensors |= {f"statistics.{name}": value for name, value in self.statistics.items()}
        return write(path, manifest, {**tensors, "draws": self.draws, "random": self.random})

    @classmethod
    def load(cls, path: str | Path, sampler: Sampler[Any]) -> Chains:
        """Read what `save` wrote, for a sampler with the same settings."""
        stored = read(path)
        manifest, tensors = stored.manifest, stored.tensors
        if manifest.get("kind") != "chains":
            raise UserError(f"{path} holds a {manifest.get('kind')}, not chains")
        if (manifest["sampler"], manifest["settings"]) != (
            type(sampler).__name__,
            _settings(sampler),
        ):
            raise UserError(
                f"{path} was sampled by {manifest['sampler']} with {manifest['settings']}; "
                f"it cannot go on by {type(sampler).__name__} with {_settings(sampler)}"
            )
        state = sampler.state_type.from_tensors(_under("state.", tensors))
        statistics = _under("statistics.", tensors)
        steps, plan = int(manifest["step"]), dict(manifest["plan"])
        return cls(
            plan=_PLANS[plan.pop("kind")](**plan),
            state=state,
            random=tensors["random"],
            step=steps,
            seconds=float(manifest["seconds"]),
            kept=list(tensors["draws"]),
            records=[{k: v[i] for k, v in statistics.items()} for i in range(steps)],
        )


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _settings(sampler: Sampler[Any]) -> str:
    return repr(sampler)


def sample(
    sampler: Sampler[Any],
    target: Any,
    start: Tensor | State,
    plan: Plan,
    seed: int | torch.Generator = 0,
    max_seconds: float | None = None,
    listener: Listener | None = None,
) -> Chains:
    """Sample a density by many chains.

    Parameters
    ----------
    sampler : HMC, SGHMC or SGLD
    target : callable (chains, dim) -> (chains,), or Minibatch
        Log density; see `understudy.sample.density`.
    start : Tensor (chains, dim), or State
        Where the chains start. The state of earlier chains is a warm start: what they had adapted
        is kept.
    plan : Plan
    seed : int or torch.Generator
        Same seed, same chains. A generator is not advanced; its state is the start.
    max_seconds : float, optional
        Time at most. A burn-in that takes half of it ends there, and sampling begins.
    listener : callable, optional
        Receives `Progress`. An interrupt, raised there or by Ctrl-C, keeps what is sampled.

    Returns
    -------
    Chains
    """
    if isinstance(start, State):
        state = sampler.restart(target, start)
    else:
        state = sampler.start(target, _checked(start))
    device = state.position.device
    if isinstance(seed, torch.Generator):
        random = seed.get_state()
    else:
        random = torch.Generator(device).manual_seed(seed).get_state()
    return resume(sampler, target, Chains(plan, state, random), max_seconds, listener)


def resume(
    sampler: Sampler[Any],
    target: Any,
    chains: Chains,
    max_seconds: float | None = None,
    listener: Listener | None = None,
) -> Chains:
    """Go on with chains until their plan is carried out, the time is up, or an interrupt.

    The chains given are left as they are. Where a larger plan is wanted, replace theirs first.
    """
    chains = replace(
        chains, kept=list(chains.kept), records=list(chains.records), interrupted=False
    )
    generator = torch.Generator(chains.state.position.device)
    generator.set_state(chains.random)
    report = _Reporter(listener, max_seconds)
    begin = time.perf_counter()
    before = chains.seconds
    try:
        while not chains.finished and not _out_of_time(chains, begin, max_seconds):
            state, record = sampler.step(target, chains.state, chains.step, chains.plan, generator)
            chains.state, chains.random = state, generator.get_state()
            chains.records.append(record)
            if chains.plan.keeps(chains.step):
                chains.kept.append(state.position)
            chains.step += 1
            chains.seconds = before + time.perf_counter() - begin
            report(chains)
    except KeyboardInterrupt:
        chains.interrupted = True
    return chains


def _out_of_time(chains: Chains, begin: float, max_seconds: float | None) -> bool:
    """Whether to stop; where the burn-in has had its half of the time, it ends here."""
    if max_seconds is None:
        return False
    elapsed = time.perf_counter() - begin
    if chains.step < chains.plan.burn_in and elapsed >= 0.5 * max_seconds:
        chains.plan = replace(chains.plan, burn_in=chains.step)
    return elapsed >= max_seconds and len(chains.kept) >= 2


class _Reporter:
    """Tells a listener, not too often."""

    def __init__(self, listener: Listener | None, max_seconds: float | None) -> None:
        self._listener, self._last = listener, -math.inf
        self._budget = math.inf if max_seconds is None else max_seconds

    def __call__(self, chains: Chains) -> None:
        now = time.perf_counter()
        if self._listener is None or (
            now - self._last < REPORT_SECONDS and not chains.finished and chains.step > 1
        ):
            return
        self._last = now
        plan, step = chains.plan, chains.step
        burning = step <= plan.burn_in and plan.burn_in > 0
        done, of = (step, plan.burn_in) if burning else (step - plan.burn_in, plan.samples)
        done = done if burning else done // plan.thin
        said = f"{'burn-in' if burning else 'sampling'} {done} of {of}"
        acceptance = chains.records[-1].get("acceptance")
        if acceptance is not None:
            said += f", acceptance {float(acceptance.mean()):.2f}"
        self._listener(Progress("sample", chains.seconds, self._budget, said))


def _checked(position: Tensor) -> Tensor:
    if position.ndim != 2 or not position.dtype.is_floating_point:
        raise UserError(
            "chains start at a floating-point tensor (chains, dim), got shape "
            f"{tuple(position.shape)} of {position.dtype}"
        )
    if not bool(torch.isfinite(position).all()):
        raise UserError("chains must start at finite positions")
    return position.detach().clone()
