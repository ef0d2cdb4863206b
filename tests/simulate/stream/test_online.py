"""Training on streamed runs on a virtual clock: exact counts, same numbers, whole checkpoints."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from understudy.core.errors import UserError
from understudy.core.space import Continuous, Space
from understudy.simulate.pde import Heat
from understudy.simulate.stream import (
    BreedSampler,
    Buffer,
    BufferDataset,
    DirectLoss,
    FIFOBuffer,
    FIROBuffer,
    NextStepLoss,
    OnlineProgress,
    OnlineReport,
    OnlineSettings,
    OnlineTrainer,
    ReservoirBuffer,
    UniformSampler,
    VirtualClock,
    Windows,
    halving,
    validation_batch,
)
from understudy.simulate.stream import checkpoint as files
from understudy.simulate.stream.losses import SampleLoss

HEAT = Heat(points=4, steps=9)


class Decay:
    """u = exp(-k t), in five steps; NaN from the third on where k is above 0.7."""

    space = Space((Continuous("k", 0.0, 1.0),))

    def stream(self, params: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(5):
            t = torch.full((len(params),), float(step), dtype=torch.float64)
            field = torch.exp(-params * t[:, None])
            yield t, torch.where((params > 0.7) & (step >= 2), torch.nan, field)


def network(inputs: int = 6, outputs: int = 16) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs))


def trainer(
    buffer: Buffer | None = None,
    simulations: int = 12,
    model: nn.Module | None = None,
    loss: SampleLoss | None = None,
    **settings: object,
) -> OnlineTrainer:
    mine = OnlineSettings(
        **{"batch_size": 5, "clock": VirtualClock(0.25), "validate_every": 7} | settings
    )
    return OnlineTrainer(
        network() if model is None else model,
        HEAT,
        UniformSampler(HEAT.space, 1),
        ReservoirBuffer(40, 10, seed=2) if buffer is None else buffer,
        loss=loss or DirectLoss(HEAT.space, 0.09, 100.0, 500.0),
        max_simulations=simulations,
        workers=3,
        settings=mine,
    )


def weights(study: OnlineTrainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in study.model.parameters()])


def comparable(report: OnlineReport) -> OnlineReport:
    """Without what depends on the machine."""
    history = tuple(replace(score, seconds=0.0) for score in report.history)
    return replace(report, seconds=0.0, startup_seconds=0.0, history=history)


VALIDATION = validation_batch(HEAT, UniformSampler(HEAT.space, 9), 4)


@pytest.mark.parametrize(
    "buffer",
    [lambda: FIFOBuffer(40), lambda: FIROBuffer(40, 10), lambda: ReservoirBuffer(40, 10)],
)
def test_every_time_step_of_every_run_is_learned_from(buffer):
    report = trainer(buffer()).run()
    assert report.reason == "drained"
    assert report.frames == 12 * 10 and report.finished == 12
    assert report.bytes_streamed == 120 * 16 * 4
    assert sum(report.repetitions.values()) == 120 and 0 not in report.repetitions
    assert sum(uses * n for uses, n in report.repetitions.items()) == report.samples


def test_the_same_seeds_give_the_same_study():
    first, second = trainer(), trainer()
    reports = [study.run(VALIDATION) for study in (first, second)]
    assert comparable(reports[0]) == comparable(reports[1])
    assert torch.equal(weights(first), weights(second))


def test_a_network_learns():
    history = trainer(simulations=100, batch_size=16).run(VALIDATION).history
    assert history[-1].validation < 0.2 * history[0].validation


def test_the_clock_sets_how_often_a_sample_is_used():
    slow, fast = (trainer(clock=VirtualClock(s)).run() for s in (2.0, 0.2))
    assert slow.samples > 3 * fast.samples
    fifo = trainer(FIFOBuffer(40), clock=VirtualClock(2.0)).run()
    assert fifo.samples == 120
    assert fifo.trainer_wait > 100 and slow.trainer_wait < fifo.trainer_wait / 2
    assert trainer(FIFOBuffer(10), clock=VirtualClock(0.02)).run().solver_wait > 10


def test_a_run_that_diverges_leaves_no_sample_and_is_replaced():
    buffer: ReservoirBuffer = ReservoirBuffer(500, 1)
    study = OnlineTrainer(
        network(2, 1),
        Decay(),
        UniformSampler(Decay.space, 0),
        buffer,
        loss=DirectLoss(Decay.space, 4.0, 0.0, 1.0),
        max_simulations=20,
        workers=2,
        settings=OnlineSettings(batch_size=2, clock=VirtualClock(0.01), max_batches=1),
    )
    study._ensemble.start()
    while study._ensemble._take():
        pass
    held = {sample.run for sample in buffer.state_dict()["items"]}
    gone = study.ledger.dropped
    assert study.ledger.finished == 20 and len(buffer) == 20 * 5
    assert gone and not held & {run.run for run in gone}
    assert all(run.codes[0] > 0.7 and run.reason == "diverged at step 2" for run in gone)
    assert buffer.repetitions[0] == 2 * len(gone)  # their first two steps, unused


def test_a_space_where_every_run_diverges_ends_the_study_with_a_sentence():
    study = OnlineTrainer(
        network(2, 1),
        Decay(),
        UniformSampler(Space((Continuous("k", 0.8, 1.0),)), 0),
        FIFOBuffer(50),
        loss=DirectLoss(Decay.space, 4.0, 0.0, 1.0),
        settings=OnlineSettings(batch_size=20, clock=VirtualClock(1.0)),
    )
    with pytest.raises(UserError, match="20 runs in a row were dropped"):
        study.run()


def test_autoregressive_windows_hold_consecutive_fields():
    seen = []

    class Recording(NextStepLoss):
        def __call__(self, model, batch):
            seen.append(batch)
            return super().__call__(model, batch)

    windows = Windows(history=2, bundle=3)
    report = OnlineTrainer(
        nn.Conv2d(2, 3, 1),
        HEAT,
        UniformSampler(HEAT.space),
        FIROBuffer(20, 5),
        loss=Recording(300.0, 100.0),
        max_simulations=4,
        settings=OnlineSettings(batch_size=4, windows=windows, clock=VirtualClock(0.1)),
    ).run()
    assert sum(report.repetitions.values()) == 4 * 6 and report.frames == 4 * 10
    for batch in seen:
        for i in range(len(batch)):
            truth = HEAT.fields(batch.codes[i : i + 1])[0]
            end = int(batch.steps[i]) + 1
            given = torch.cat([batch.before[i], batch.after[i]])
            assert torch.equal(given, truth[end - 5 : end])


def test_jobs_of_several_runs_bring_the_same_samples():
    def held(runs_per_job: int) -> set[tuple[int, int, float]]:
        buffer: FIFOBuffer = FIFOBuffer(200)
        study = trainer(buffer, 7, runs_per_job=runs_per_job)
        study._ensemble.start()
        while study._ensemble._take():
            pass
        return {(s.run, s.step, float(s.fields[0].sum())) for s in buffer.state_dict()["items"]}

    assert held(1) == held(3) and len(held(3)) == 70


def test_breed_hears_of_runs_while_it_trains():
    sampler = BreedSampler(HEAT.space, seed=0, period=5)
    study = trainer(simulations=30)
    study.sampler = study._ensemble.sampler = sampler
    study.run()
    assert sampler.share > 0.15


def test_the_learning_rate_is_halved_by_batches():
    rate = halving(every=10, until=25)
    assert [rate(batch) for batch in (0, 9, 10, 20, 25, 1000)] == [1, 1, 0.5, 0.25, 0.25, 0.25]
    study = trainer(schedule=halving(3, 6), max_batches=7)
    study.run()
    assert study._loop.optimizer.param_groups[0]["lr"] == pytest.approx(0.25e-3)


def test_a_data_loader_reads_a_buffer_until_it_is_empty():
    buffer: FIROBuffer = FIROBuffer(200, 10)
    study = trainer(buffer, 3)
    study._ensemble.start()
    while study._ensemble._take():
        pass
    batches = list(DataLoader(BufferDataset(buffer, 8), batch_size=None))
    assert [len(batch) for batch in batches] == [8, 8, 8, 6]
    assert (
        len({(int(r), int(s)) for b in batches for r, s in zip(b.runs, b.steps, strict=True)}) == 30
    )


# -- listener and Ctrl-C --------------------------------------------------------------------------


def test_a_listener_hears_what_goes_on():
    heard: list[OnlineProgress] = []
    study = trainer(progress_seconds=0.0)
    study.listener = heard.append
    report = study.run(VALIDATION)
    assert [p.batch for p in heard[:-1]] == list(range(1, report.batches + 1))
    assert all(p.population <= p.capacity == 40 and p.unseen <= p.population for p in heard)
    assert heard[-1].finished == 12 and heard[-1].validation == report.history[-1].validation
    assert heard[3].loss > 0 and heard[3].samples == 20 and heard[3].samples_per_second > 0


def test_an_interrupt_keeps_the_weights_and_writes_a_checkpoint(tmp_path):
    path = tmp_path / "study"

    def interrupt(progress: OnlineProgress) -> None:
        if progress.batch == 12:
            raise KeyboardInterrupt

    study = trainer(checkpoint=path, progress_seconds=0.0)
    study.listener = interrupt
    report = study.run(VALIDATION)
    assert report.reason == "interrupt" and report.batches == 12 and len(report.history) == 1

    going_on, never_stopped = trainer(), trainer()
    going_on.resume(path)
    final = going_on.run(VALIDATION)
    assert comparable(final) == comparable(never_stopped.run(VALIDATION))
    assert torch.equal(weights(going_on), weights(never_stopped))


# -- checkpoints ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 4, 9, 23])
@pytest.mark.parametrize(("runs_per_job", "history"), [(1, 0), (2, 0), (1, 2)])
@pytest.mark.parametrize("buffer", [lambda: FIFOBuffer(6), lambda: ReservoirBuffer(30, 5, seed=4)])
def test_a_study_that_goes_on_ends_as_if_it_had_not_stopped(
    tmp_path, stop, runs_per_job, history, buffer
):
    path = tmp_path / "study"
    settings = {"runs_per_job": runs_per_job, "clock": VirtualClock(0.1)}
    if history:
        settings |= {"windows": Windows(history), "loss": NextStepLoss(300.0, 100.0)}

    def made(**more: object) -> OnlineTrainer:
        torch.manual_seed(0)
        model = nn.Conv2d(history, 1, 1) if history else None
        return trainer(buffer(), model=model, **settings, **more)

    made(checkpoint=path, max_batches=stop).run()
    again, straight = made(), made()
    again.resume(path)
    assert comparable(again.run()) == comparable(straight.run())
    assert torch.equal(weights(again), weights(straight))


def test_a_checkpoint_holds_shared_fields_once(tmp_path):
    study = trainer(windows=Windows(3, 1), max_batches=1)
    study._ensemble.start()
    for _ in range(20):
        study._ensemble._take()
    study._checkpoint(tmp_path / "study")
    _, tensors = files.read(tmp_path / "study")
    fields = [name for name in tensors if name.startswith("field.")]
    assert len(tensors["samples.runs"]) == 20 - 3 * 3  # of three runs, not the first three steps
    assert len(fields) == 20


def test_a_full_disk_leaves_the_last_checkpoint_and_the_study_goes_on(tmp_path):
    path = tmp_path / "study"
    trainer(checkpoint=path, max_batches=3).run()
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (1000, hard)
    )  # a file beyond that fails to be written
    try:
        study = trainer(checkpoint=path)
        report = study.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert report.reason == "drained"
    assert report.warnings and os.strerror(errno.EFBIG) in report.warnings[0]
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["study"]
    trainer().resume(path)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "study"
    with pytest.raises(UserError, match="there is no checkpoint"):
        trainer().resume(path)
    trainer(checkpoint=path, max_batches=2).run()
    whole = path.read_bytes()
    for content in (b"", b"noise" * 50, whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read"):
            trainer().resume(path)


def test_a_checkpoint_of_another_study_is_refused(tmp_path):
    path = tmp_path / "study"
    trainer(checkpoint=path, max_batches=2).run()
    with pytest.raises(UserError, match="its batch_size is 5, here 6"):
        trainer(batch_size=6).resume(path)
    with pytest.raises(UserError, match="ReservoirBuffer of capacity 40"):
        trainer(FIFOBuffer(40)).resume(path)


def test_the_only_file_is_the_checkpoint(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer(checkpoint="study").run(VALIDATION)
    assert os.listdir(tmp_path) == ["study"]


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(UserError, match="batch_size"):
        trainer(FIFOBuffer(4))
    with pytest.raises(UserError, match="max_simulations"):
        trainer(simulations=0)
    with pytest.raises(UserError, match="history"):
        Windows(history=-1)
    with pytest.raises(UserError, match="positive"):
        VirtualClock(0.0)


def test_seconds_count_from_the_first_batch_on(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    study = trainer(max_seconds=10.0)
    take = study._ensemble.next_batch

    def slow_at_first(count):
        now[0] += 1.0 if now[0] else 100.0
        return take(count)

    study._ensemble.next_batch = slow_at_first
    report = study.run()
    assert report.reason == "seconds"
    assert (report.startup_seconds, report.seconds, report.batches) == (100.0, 10.0, 11)
    assert study.progress == 1.0
