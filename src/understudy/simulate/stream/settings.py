"""How a study is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from understudy.simulate.stream.samples import Windows
from understudy.simulate.stream.virtual import VirtualClock


@dataclass(frozen=True)
class OnlineSettings:
    """How a study is run.

    Parameters
    ----------
    batch_size : int
    windows : Windows
        Single fields for direct networks, pairs or longer ones for autoregressive networks.
    max_batches : int, optional
        Ends the study before all runs have finished; a reservoir has no other bound.
    max_seconds : float, optional
        From the first batch on; the start of the solvers is not counted.
    schedule : callable (batch) -> float, optional
        Learning-rate factor, by batch since the total is not known, see
        `understudy.simulate.stream.losses.halving`.
    clip_norm, ema_decay
        See `understudy.core.loop.Settings`.
    validate_every : int
        Batches.
    patience : int, optional
        Validations without improvement after which the study ends.
    runs_per_job : int
        Runs that a worker computes side by side: for solvers that are fast in batches.
    restarts : int
        How often a job whose worker died, or that raised, is started again with its parameters.
    executor : {"local", "ray"}
    clock : VirtualClock, optional
        Run all in one thread, reproducibly; see `understudy.simulate.stream.virtual`.
    checkpoint : path, optional
        File of the whole study; goes on from it with :meth:`OnlineTrainer.resume`.
    checkpoint_seconds : float
    progress_seconds : float
        Between two calls of the listener.
    device, precision : str
        See `understudy.core.loop.Settings`.
    """

    batch_size: int = 10
    windows: Windows = field(default_factory=Windows)
    max_batches: int | None = None
    max_seconds: float | None = None
    schedule: Callable[[int], float] | None = None
    clip_norm: float | None = None
    ema_decay: float | None = None
    validate_every: int = 500
    patience: int | None = None
    runs_per_job: int = 1
    restarts: int = 3
    executor: Literal["local", "ray"] = "local"
    clock: VirtualClock | None = None
    checkpoint: str | Path | None = None
    checkpoint_seconds: float = 60.0
    progress_seconds: float = 0.5
    device: str = "cpu"
    precision: str = "32-true"
