"""Train an operator while the solver runs: nothing is stored but a buffer in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.loop import Event, cosine
from understudy.core.simulator import FieldSimulator
from understudy.core.space import Continuous, Integer, Space
from understudy.emulate.fields import conditions, simulated
from understudy.emulate.recipes import chosen, recipe
from understudy.emulate.run import BATCH, Emulation, Facts, Listener, Track, glance, tested
from understudy.models.operators.one_step import LearnedStepper
from understudy.simulate.pde.named import draw_parameters
from understudy.simulate.stream import (
    Batch,
    OnlineProgress,
    OnlineSettings,
    OnlineTrainer,
    ReservoirBuffer,
    UniformSampler,
    Windows,
)

HELD, VALIDATION = 48, 16
"""Runs that are simulated beforehand, and how many of them are for validation, not the test."""

_BUFFER_BYTES = 512 * 2**20
_MOST_SAMPLES, _LEAST_SAMPLES = 20_000, 256
_JOB = 8  # runs that a worker computes side by side


@dataclass
class Streamed:
    """A simulator whose inputs have other ranges or are fixed, at every so many of its times.

    Attributes
    ----------
    simulator : FieldSimulator
    space : Space
        Of the inputs that vary.
    fixed : mapping
        Values of the others.
    stride : int
    """

    simulator: FieldSimulator
    space: Space
    fixed: Mapping[str, float]
    stride: int

    @classmethod
    def of(
        cls,
        simulator: FieldSimulator,
        ranges: Mapping[str, tuple[float, float]],
        stride: int = 1,
    ) -> Streamed:
        """Simulator within some ranges; equal limits fix an input."""
        inputs, fixed = [], {}
        for item in simulator.space:
            low, high = ranges.get(item.name, (None, None))
            if low is None or high is None:
                inputs.append(item)
            elif low == high:
                fixed[item.name] = low
            elif isinstance(item, Integer):
                inputs.append(replace(item, lower=int(low), upper=int(high)))
            elif isinstance(item, Continuous):
                inputs.append(replace(item, lower=low, upper=high, log=item.log and low > 0))
        return cls(simulator, Space(tuple(inputs)), fixed, stride)

    def stream(self, params: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Times ``(B,)`` and fields ``(B, C, *space)`` of codes ``(B, d)`` of the inputs left."""
        for step, moment in enumerate(self.simulator.stream(self._whole(params))):
            if step % self.stride == 0:
                yield moment

    def _whole(self, codes: Tensor) -> Tensor:
        columns = []
        for item in self.simulator.space:
            if item.name in self.fixed:
                columns.append(codes.new_full((len(codes),), float(self.fixed[item.name])))
            else:
                columns.append(codes[:, self.space.names.index(item.name)])
        return torch.stack(columns, dim=1)


def emulate_online(
    simulator: FieldSimulator,
    source: str,
    model: str = "auto",
    budget: float = 600.0,
    *,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    stride: int = 1,
    workers: int = 1,
    executor: str = "local",
    seed: int = 0,
    device: str = "cpu",
    batch_size: int = BATCH,
    learning_rate: float = 1e-3,
    checkpoint: Path | None = None,
    listener: Listener | None = None,
) -> Emulation:
    """Train an operator on runs that are computed meanwhile (arXiv 2306.16133).

    48 runs of another seed are simulated first: 16 of them set the units of the network and choose
    the best weights, the others are the test.

    Parameters
    ----------
    simulator : FieldSimulator
        Over time; steady problems are solved faster than they are streamed.
    source : str
        Name of the equation.
    model : str
        See :mod:`understudy.emulate.recipes`.
    budget : float
        Seconds of training from the first batch on; what was trained before a checkpoint counts.
    ranges : mapping, optional
        Of inputs, in place of those of the simulator's space; equal limits fix one.
    stride : int
        A step is so many of the simulator's times.
    workers : int
        Solver processes.
    executor : {"local", "ray"}
    seed : int
    device : {"cpu", "cuda"}
    batch_size : int
    learning_rate : float
    checkpoint : Path, optional
        Of the whole study, written now and then; where it exists the study goes on from it.
    listener : callable, optional
    """
    torch.manual_seed(seed)
    ranges = ranges or {}
    table = draw_parameters(simulator, HELD, seed + 7919, ranges)
    data = simulated(simulator, table, source, stride)
    if data.steady:
        raise UserError(f"{source} has one field a run; --online is for fields over time")
    told = _told(simulator, ranges)
    data = replace(data, parameters=table[told].reset_index(drop=True).iloc[: len(data)])
    if data.dropped:
        raise UserError(
            f"{source}: {data.dropped} of {HELD} first runs diverged; narrow the ranges"
        )
    held, test = data[torch.arange(VALIDATION)], data[torch.arange(VALIDATION, HELD)]
    name = chosen(model, data)
    operator = recipe(name, data)
    assert isinstance(operator, LearnedStepper)
    operator.prepare(held.fields, held.numbers, device=device, **held.about)
    track = Track(budget, batch_size, listener, glance(operator, held))
    solver = Streamed.of(simulator, ranges, stride)
    trainer = _trainer(
        operator, solver, told, track, workers, executor, checkpoint, learning_rate, seed
    )
    if checkpoint is not None and checkpoint.exists():
        trainer.resume(checkpoint)
    validate = operator.validator(held.fields, held.numbers, seed)
    report = trainer.run(lambda _: validate())
    operator.network.eval()
    facts: Facts = {
        "train_runs": report.finished,
        "dropped_runs": len(report.dropped),
        "steps": report.batches,
        "seconds": report.seconds,
        "startup_seconds": report.startup_seconds,
        "interrupted": report.reason == "interrupt",
        "frames": report.frames,
        "streamed_megabytes": report.bytes_streamed / 1e6,
        "solver_wait": report.solver_wait,
        "trainer_wait": report.trainer_wait,
        "restarts": report.restarts,
    }
    return tested(operator, name, test, held, track, facts, seed)


def _told(simulator: FieldSimulator, ranges: Mapping[str, tuple[float, float]]) -> list[str]:
    """Inputs that the operator is told: those that vary and are no seeds."""
    example = draw_parameters(simulator, 16, 0, ranges)
    return [str(name) for name in conditions(simulator, example).columns]


def _trainer(
    operator: LearnedStepper,
    solver: Streamed,
    told: list[str],
    track: Track,
    workers: int,
    executor: str,
    checkpoint: Path | None,
    learning_rate: float,
    seed: int,
) -> OnlineTrainer:
    capacity = _capacity(operator)
    columns = [solver.space.names.index(name) for name in told]
    anneal, network = cosine(warmup=0.02, floor=0.01), operator.network

    def loss(_: Any, batch: Batch) -> Tensor:
        generator = torch.Generator(batch.after.device)
        generator.manual_seed(int(batch.steps.sum() + 7 * batch.runs.sum()))
        params = batch.codes[:, columns] if told else None
        value = operator.clip_loss(batch.after, params, generator, trainer.progress)
        return value.expand(len(batch))

    def tell(progress: OnlineProgress) -> None:
        event = Event(
            progress.batch,
            trainer.progress,
            progress.seconds,
            None if progress.validation is None else torch.tensor(progress.validation),
        )
        facts = {
            "runs": progress.finished,
            "buffer": progress.population / progress.capacity,
            "solver waited": progress.solver_wait,
            "trainer waited": progress.trainer_wait,
        }
        track(event, **({"dropped": progress.dropped} if progress.dropped else {}), **facts)

    adam = torch.optim.Adam(network.parameters(), lr=learning_rate, foreach=True)
    trainer = OnlineTrainer(
        network,
        solver,
        UniformSampler(solver.space, 104_729 + seed),
        ReservoirBuffer(capacity, min(capacity // 4, 4 * track.batch)),
        adam,
        loss=loss,
        max_simulations=10**7,
        workers=workers,
        settings=OnlineSettings(
            batch_size=track.batch,
            windows=Windows(0, operator.clip_length),
            max_seconds=track.budget,
            schedule=lambda _: anneal(trainer.progress),
            clip_norm=1.0,
            ema_decay=0.995,
            validate_every=50,
            runs_per_job=_JOB,
            executor="ray" if executor == "ray" else "local",
            checkpoint=checkpoint,
        ),
        listener=tell,
    )
    return trainer


def _capacity(operator: LearnedStepper) -> int:
    """Samples that half a gigabyte holds; samples that overlap share their fields."""
    size = 4 * len(operator.inputs)
    for n in operator.grid.shape:
        size *= n
    return max(_LEAST_SAMPLES, min(_MOST_SAMPLES, _BUFFER_BYTES // size))
