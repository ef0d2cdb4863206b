"""Which runs there are, and how far each one's time steps have arrived."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.simulate.stream.samplers import ParameterSampler


@dataclass(frozen=True)
class DroppedRun:
    """A run whose samples were removed: its number, parameters (codes), steps and the reason."""

    run: int
    codes: tuple[float, ...]
    steps: int
    reason: str


@dataclass
class Run:
    """A run in flight: its number, codes (d,) and how many of its steps have arrived."""

    number: int
    codes: Tensor
    steps: int = 0


@dataclass
class Ledger:
    """Book of the runs; whoever uses it holds the lock of the buffer.

    A time step is known by its run and its number, and accepted once, in order: what a run that
    was started again sends again is not.

    Parameters
    ----------
    simulations : int
        Runs to finish.
    most_failures : int
        Runs dropped in a row, before any other finished, after which the study gives up.
    """

    simulations: int
    most_failures: int = 20
    runs: dict[int, Run] = field(default_factory=dict)
    started: int = 0
    finished: int = 0
    frames: int = 0
    bytes: int = 0
    restarts: int = 0
    dropped: list[DroppedRun] = field(default_factory=list)
    failures: int = 0

    @property
    def due(self) -> int:
        """Runs to be started."""
        return self.simulations - self.finished - len(self.runs)

    @property
    def over(self) -> bool:
        """Whether all runs have finished."""
        return self.finished >= self.simulations

    def start(self, sampler: ParameterSampler, count: int) -> list[Run]:
        """Begin up to so many runs with fresh parameters."""
        count = min(count, self.due)
        if count < 1:
            return []
        runs = [Run(self.started + i, codes) for i, codes in enumerate(sampler.draw(count))]
        self.started += count
        self.runs |= {run.number: run for run in runs}
        return runs

    def awaits(self, run: int, step: int) -> bool:
        """Whether that time step is the next of the run."""
        return run in self.runs and self.runs[run].steps == step

    def admit(self, run: int, step: int, size: int) -> bool:
        """Count a time step of so many bytes, if it is the next of its run."""
        if not self.awaits(run, step):
            return False
        self.runs[run].steps += 1
        self.frames += 1
        self.bytes += size
        return True

    def finish(self, run: int, sampler: ParameterSampler) -> None:
        """Close a run that has sent all of its steps."""
        if self.runs.pop(run, None) is not None:
            self.finished += 1
            self.failures = 0
            sampler.finished(run)

    def drop(self, run: int, reason: str) -> None:
        """Strike out a run; another one is due in its place.

        Raises
        ------
        UserError
            Too many in a row.
        """
        gone = self.runs.pop(run, None)
        if gone is None:
            return
        self.dropped.append(DroppedRun(run, tuple(gone.codes.tolist()), gone.steps, reason))
        self.failures += 1
        if self.failures >= self.most_failures:
            raise UserError(f"{self.failures} runs in a row were dropped; the last one {reason}")

    def state_dict(self) -> dict[str, Any]:
        """The book as JSON."""
        return {
            "simulations": self.simulations,
            "runs": [[run.number, run.codes.tolist(), run.steps] for run in self.runs.values()],
            "dropped": [asdict(run) for run in self.dropped],
            **{name: getattr(self, name) for name in _COUNTS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned; more runs may be wanted by now."""
        self.runs = {
            number: Run(number, torch.tensor(codes, dtype=torch.float64), steps)
            for number, codes, steps in state["runs"]
        }
        self.dropped = [
            DroppedRun(item["run"], tuple(item["codes"]), item["steps"], item["reason"])
            for item in state["dropped"]
        ]
        for name in _COUNTS:
            setattr(self, name, state[name])


_COUNTS = ("started", "finished", "frames", "bytes", "restarts", "failures")


def groups(runs: Iterable[Run], size: int) -> list[list[Run]]:
    """Runs in lists of at most that many."""
    listed = list(runs)
    return [listed[i : i + size] for i in range(0, len(listed), size)]
