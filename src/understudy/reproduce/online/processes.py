"""Online training where solvers are real processes: rates, memory, files and killed workers."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from understudy.reproduce.online.networks import Problem, heat_problem
from understudy.reproduce.online.problems import Paced
from understudy.reproduce.online.setting import Size
from understudy.reproduce.online.training import USUAL, optimizer_of
from understudy.simulate.stream import (
    Batch,
    Buffer,
    FIFOBuffer,
    FIROBuffer,
    OnlineProgress,
    OnlineReport,
    OnlineSettings,
    OnlineTrainer,
    ReservoirBuffer,
    Sample,
    StreamingSolver,
    UniformSampler,
)

Watch = Callable[[OnlineProgress], None]


def _ends_after(seconds: float) -> Watch:
    """Ends a study so many seconds after its first batch."""

    def watch(progress: OnlineProgress) -> None:
        if progress.seconds > seconds:
            raise KeyboardInterrupt

    return watch


def _streamed(
    problem: Problem,
    solver: StreamingSolver,
    buffer: Buffer[Sample],
    seed: int,
    watch: Watch,
    batch: int,
    simulations: int = 100_000,
    **settings: Any,
) -> OnlineReport:
    """Train on runs of two real processes."""
    network = problem.made(seed)
    return OnlineTrainer(
        network,
        solver,
        UniformSampler(solver.space, seed),
        buffer,
        optimizer_of(network, USUAL),
        loss=problem.loss,
        max_simulations=simulations,
        workers=2,
        settings=OnlineSettings(batch_size=batch, progress_seconds=0.05, **settings),
        listener=watch,
    ).run()


def _trainer_rate(problem: Problem, batch: int, seed: int, batches: int = 50) -> float:
    """Batches a second without waiting."""
    network = problem.made(seed)
    optimizer, data = optimizer_of(network, USUAL), problem.fixed(2, seed)
    start = 0.0
    for count in range(batches + 5):
        if count == 5:
            start = time.perf_counter()
        rows = torch.randint(len(data), (batch,))
        loss = problem.loss(network, data[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return batches / (time.perf_counter() - start)


@dataclass(frozen=True)
class _FewNodes:
    """Loss of the first 16 nodes, so that a trainer is as fast as a stream."""

    loss: Any

    def __call__(self, network: nn.Module, batch: Batch) -> Tensor:
        return self.loss(network, replace(batch, after=batch.after.flatten(2)[..., :16]))


def rates_by_buffer(size: Size, seed: int) -> tuple[float, dict[str, float]]:
    """Batches a second of the trainer alone, and with each buffer and slow solvers.

    Two solver processes make a fifth of what the trainer could take.
    """
    problem, batch = heat_problem(size), size.ranking.batch
    alone = _trainer_rate(problem, batch, seed)
    pace = 5.0 / (alone * batch)
    rates: dict[str, float] = {}
    for name, buffer in (
        ("FIFO", FIFOBuffer[Sample](10 * batch)),
        ("FIRO", FIROBuffer[Sample](10 * batch, 2 * batch)),
        ("Reservoir", ReservoirBuffer[Sample](10 * batch, 2 * batch)),
    ):
        solver, watch = Paced(problem.solver, 2 * pace), _ends_after(size.slowed_seconds)
        report = _streamed(problem, solver, buffer, seed, watch, batch)
        rates[name] = report.batches / max(report.seconds, 1e-9)
    return alone, rates


@dataclass(frozen=True)
class LongStream:
    """What a stream ten times its buffer took.

    Parameters
    ----------
    capacity, held : int
        Of the buffer, and the most samples that it held.
    streamed, buffer : float
        Bytes that streamed, and of a full buffer.
    peak, grown : int
        Bytes by which resident memory rose, at most and at the end.
    written, others : int
        Bytes of the largest checkpoint, and other files in its folder.
    """

    capacity: int
    held: int
    streamed: float
    buffer: float
    peak: int
    grown: int
    written: int
    others: int


def long_stream(size: Size, seed: int) -> LongStream:
    """Stream ten times the buffer, with a checkpoint every second."""
    problem = heat_problem(replace(size, points=2 * size.points))
    small = Problem(problem.solver, _FewNodes(problem.loss), lambda: nn.Linear(6, 16), 0)
    capacity = max(size.streamed * problem.frames // 10, 20)
    memory: list[tuple[int, int]] = []
    written = [0]
    process = psutil.Process()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study"

        def watch(progress: OnlineProgress) -> None:
            memory.append((process.memory_info().rss, progress.population))
            if path.exists():
                written.append(path.stat().st_size)

        report = _streamed(
            small,
            problem.solver,
            FIROBuffer[Sample](capacity, capacity // 2, seed=seed),
            seed,
            watch,
            min(50, capacity),
            size.streamed,
            runs_per_job=5,
            checkpoint=path,
            checkpoint_seconds=1.0,
        )
        others = [name for name in os.listdir(folder) if name != path.name]
    return LongStream(
        capacity=capacity,
        held=max(population for _, population in memory),
        streamed=report.bytes_streamed,
        buffer=capacity * (report.bytes_streamed / max(report.frames, 1)),
        peak=max(resident for resident, _ in memory) - memory[0][0],
        grown=memory[-1][0] - memory[0][0],
        written=max(written),
        others=len(others),
    )


def fast_stream(size: Size, seed: int) -> OnlineReport:
    """Stream of solvers that are faster than the trainer, for some seconds."""
    problem = heat_problem(size)
    return _streamed(
        problem,
        problem.solver,
        ReservoirBuffer[Sample](1000, 200, seed),
        seed,
        _ends_after(size.slowed_seconds),
        size.heat.batch,
        runs_per_job=5,
    )


def stream_with_kills(size: Size, seed: int) -> tuple[int, OnlineReport]:
    """Kill a worker for one run in ten.

    Returns
    -------
    struck : int
        Processes that were killed.
    report : OnlineReport
    """
    problem, simulations = heat_problem(size), 10 * size.killed
    solver = Paced(problem.solver, 0.01)
    struck: set[int] = set()

    def watch(progress: OnlineProgress) -> None:
        due = len(struck) < size.killed and progress.finished >= 5 * len(struck)
        for worker in progress.processes[:1] if due else ():
            if worker not in struck:
                os.kill(worker, signal.SIGKILL)
                struck.add(worker)

    buffer = FIFOBuffer[Sample](2000)
    report = _streamed(problem, solver, buffer, seed, watch, 16, simulations)
    return len(struck), report
