"""A study in one thread, on a clock of its own: the same numbers on every machine.

Solvers together make a time step every ``frame_seconds`` of virtual time, in turns; the trainer
takes ``batch_seconds`` for a batch. Both wait for each other at the buffer as they would in
reality, and the waits are counted in virtual seconds. The ratio of the two sets how often elements
of a reservoir are used.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.simulate.stream.buffers import Buffer
from understudy.simulate.stream.intake import Intake, as_step
from understudy.simulate.stream.ledger import Ledger, Run, groups
from understudy.simulate.stream.samplers import ParameterSampler
from understudy.simulate.stream.samples import Sample, Windows
from understudy.simulate.stream.solver import StreamingSolver
from understudy.simulate.stream.wire import Step


@dataclass(frozen=True)
class VirtualClock:
    """Speeds of solvers and trainer.

    Parameters
    ----------
    frame_seconds : float
        Between time steps of all solvers together.
    batch_seconds : float
        Of a batch of training.
    """

    frame_seconds: float
    batch_seconds: float = 1.0

    def __post_init__(self) -> None:
        if not self.frame_seconds > 0 or not self.batch_seconds > 0:
            raise UserError(
                "seconds of a time step and of a batch must be positive, "
                f"found {self.frame_seconds:g} and {self.batch_seconds:g}"
            )


class VirtualEnsemble:
    """Solvers that are run in turns, between batches; see the module.

    Parameters
    ----------
    clock : VirtualClock
    solver, sampler, buffer, ledger, windows, workers, runs_per_job
        As of `understudy.simulate.stream.ensemble.Ensemble`.
    """

    def __init__(
        self,
        clock: VirtualClock,
        solver: StreamingSolver,
        sampler: ParameterSampler,
        buffer: Buffer[Sample],
        ledger: Ledger,
        windows: Windows,
        workers: int = 1,
        runs_per_job: int = 1,
    ) -> None:
        self.clock, self.solver, self.sampler, self.buffer = clock, solver, sampler, buffer
        self.ledger, self.windows, self.workers = ledger, windows, workers
        self.runs_per_job = runs_per_job
        self._made = self._trained = 0.0  # when the next step is there, and the trainer is free
        self._waits = [0.0, 0.0]
        self._jobs: deque[_Stream] = deque()
        self._pending: deque[tuple[_Stream, int, Step]] = deque()
        self._turns: list[list[Run]] = []
        self._waiting: set[int] = set()

    def start(self) -> None:
        """Begin the first runs; those of an earlier session go on where they were."""
        turns = self._turns or groups(self.ledger.runs.values(), self.runs_per_job)
        for runs in turns:
            self._jobs.append(self._stream(runs))
        self._catch_up()
        self._launch()

    def next_batch(self, count: int) -> list[Sample]:
        """Let the solvers run until the trainer's time has come, and give it a batch."""
        while not self.buffer.closed:
            if self._made <= self._trained and self._take():
                self._made += self.clock.frame_seconds
            elif self.buffer.closed or self.buffer.ready(count):
                break
            elif self._made > self._trained:
                self._waits[1] += self._made - self._trained
                self._trained = self._made
            else:
                raise RuntimeError("solvers and trainer wait for each other")
        batch = self.buffer.get(count)
        if self._made < self._trained and not self.buffer.closed:
            self._waits[0] += self._trained - self._made
            self._made = self._trained
        self._trained += self.clock.batch_seconds
        return batch

    @property
    def waits(self) -> tuple[float, float]:
        """Virtual seconds that solvers and trainer have waited."""
        return self._waits[0], self._waits[1]

    @property
    def seconds(self) -> float:
        """Virtual seconds so far."""
        return self._trained

    def processes(self) -> list[int]:
        """None: all happens in this process."""
        return []

    def close(self) -> None:
        """End reception."""
        self.buffer.close()

    def state_dict(self) -> dict[str, Any]:
        """Both clocks, and which runs are next; JSON."""
        return {
            "clocks": [self._made, self._trained],
            "waits": self._waits,
            "turns": [[run.number for run in job.runs] for job in self._jobs],
            "waiting": [stream.runs[row].number for stream, row, _ in self._pending],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned, with the ledger restored before."""
        self._made, self._trained = state["clocks"]
        self._waits = list(state["waits"])
        known = self.ledger.runs
        turns = [[known[n] for n in numbers if n in known] for numbers in state["turns"]]
        self._turns = [runs for runs in turns if runs]
        self._waiting = set(state["waiting"])

    # -- solvers ----------------------------------------------------------------------------------

    def _catch_up(self) -> None:
        """Compute again what an earlier session had computed and found no room for."""
        for stream in self._jobs:
            rows = [i for i, run in enumerate(stream.runs) if run.number in self._waiting]
            message = stream.next() if rows else None
            if message is not None:
                self._pending.extend((stream, row, message) for row in rows)

    def _take(self) -> bool:
        """Put the next time step of a run, if there is room for it."""
        while self._pending or self._advance():
            stream, row, message = self._pending[0]
            if not self.buffer.room():
                return False
            self._pending.popleft()
            if stream.intake.take(row, message):
                return True
        self.buffer.close()
        return False

    def _advance(self) -> bool:
        """Compute the next time step of the next job; False when all is done."""
        while self._jobs:
            stream = self._jobs[0]
            self._jobs.rotate(-1)
            message = stream.next()
            if message is not None:
                self._pending.extend((stream, row, message) for row in range(len(stream.runs)))
                return True
            self._jobs.remove(stream)
            self._complete(stream.runs)
            self._launch()
        return False

    def _complete(self, runs: list[Run]) -> None:
        for run in runs:
            if run.number in self.ledger.runs and run.steps:
                self.ledger.finish(run.number, self.sampler)
            elif run.number in self.ledger.runs:
                self.ledger.drop(run.number, "gave no field")

    def _launch(self) -> None:
        while len(self._jobs) < self.workers:
            runs = self.ledger.start(self.sampler, self.runs_per_job)
            if not runs:
                break
            self._jobs.append(self._stream(runs))

    def _stream(self, runs: list[Run]) -> _Stream:
        intake = Intake(runs, self.buffer, self.ledger, self.windows)
        return _Stream(self.solver, runs, intake, self.ledger)


class _Stream:
    """Time steps of the runs of a job; those that arrived in an earlier session only pass by."""

    def __init__(
        self, solver: StreamingSolver, runs: list[Run], intake: Intake, ledger: Ledger
    ) -> None:
        self.runs, self.intake, self._ledger = runs, intake, ledger
        self._steps = enumerate(self._solve(solver))
        for _ in range(min(run.steps for run in runs)):
            message = self.next()
            if message is not None:
                for row in range(len(runs)):
                    intake.take(row, message)

    def _solve(self, solver: StreamingSolver) -> Iterator[tuple[Tensor, Tensor]]:
        yield from solver.stream(torch.stack([run.codes for run in self.runs]))

    @torch.no_grad()
    def next(self) -> Step | None:
        """Next time step; None at the end, or when no run is left."""
        if not any(run.number in self._ledger.runs for run in self.runs):
            return None
        found = next(self._steps, None)
        return None if found is None else as_step(found[0], *found[1])
