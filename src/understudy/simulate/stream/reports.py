"""What a study says: while it runs, to a listener, and at its end."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from understudy.simulate.stream.ledger import DroppedRun


@dataclass(frozen=True)
class OnlineProgress:
    """A moment of a study, as a listener is told.

    Parameters
    ----------
    batch, samples : int
        Batches and samples that were learned from.
    seconds : float
        Since the first batch.
    loss : float
        Of training, averaged over the last batches.
    validation : float or None
        Last validation score.
    samples_per_second : float
    solver_wait, trainer_wait : float
        Seconds that all solvers together, and the trainer, waited for each other since the first
        batch; on a virtual clock in its seconds.
    population, unseen, capacity : int
        Samples in the buffer, those not used yet, and how many fit.
    finished, running, simulations : int
        Runs.
    frames, bytes_streamed : int
        Time steps, each counted once.
    dropped, restarts : int
        Runs that were struck out, and jobs that were started again.
    processes : tuple of int
        Of the workers that stream just now.
    """

    batch: int
    samples: int
    seconds: float
    loss: float
    validation: float | None
    samples_per_second: float
    solver_wait: float
    trainer_wait: float
    population: int
    unseen: int
    capacity: int
    finished: int
    running: int
    simulations: int
    frames: int
    bytes_streamed: int
    dropped: int
    restarts: int
    processes: tuple[int, ...]


Listener: TypeAlias = Callable[[OnlineProgress], None]
"""Receives each `OnlineProgress`; raising KeyboardInterrupt in it ends the study and keeps it."""


@dataclass(frozen=True)
class Score:
    """A validation: batch, seconds since the first one, mean loss since the last, and score."""

    batch: int
    seconds: float
    loss: float
    validation: float


@dataclass(frozen=True)
class OnlineReport:
    """What a study did.

    Parameters
    ----------
    reason : str
        ``"drained"`` (all runs finished, all samples used), ``"steps"``, ``"seconds"``,
        ``"patience"`` or ``"interrupt"``.
    history : tuple of Score
    repetitions : dict of int to int
        How many samples were used 0, 1, 2, ... times.
    batches, samples : int
    seconds, startup_seconds : float
        From the first batch on, and before it.
    solver_wait, trainer_wait : float
        Seconds of waiting for each other after the first batch, all solvers together.
    frames, bytes_streamed, finished, restarts : int
    dropped : tuple of DroppedRun
    warnings : tuple of str
        Such as a checkpoint that could not be written.
    """

    reason: str
    history: tuple[Score, ...]
    repetitions: dict[int, int]
    batches: int
    samples: int
    seconds: float
    startup_seconds: float
    solver_wait: float
    trainer_wait: float
    frames: int
    bytes_streamed: int
    finished: int
    restarts: int
    dropped: tuple[DroppedRun, ...]
    warnings: tuple[str, ...]

    @property
    def samples_per_second(self) -> float:
        """Throughput of training."""
        return self.samples / max(self.seconds, 1e-9)

    @property
    def best(self) -> float:
        """Lowest validation score; NaN without one."""
        return min((score.validation for score in self.history), default=math.nan)
