"""Runs in other processes: each time step once, whatever becomes of a worker."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.core.space import Continuous, Space
from understudy.simulate.stream import (
    Buffer,
    DirectLoss,
    FIFOBuffer,
    OnlineProgress,
    OnlineReport,
    OnlineSettings,
    OnlineTrainer,
    ReservoirBuffer,
    UniformSampler,
    Windows,
)
from understudy.simulate.stream.ensemble import Ensemble
from understudy.simulate.stream.ledger import Ledger

SPACE = Space((Continuous("k", 0.0, 1.0),))


class Steps:
    """Thirty steps of k + step, each after a pause."""

    def __init__(self, pause: float = 0.0, steps: int = 30, size: int = 8) -> None:
        self.space, self.pause, self.steps, self.size = SPACE, pause, steps, size

    def stream(self, params: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(self.steps):
            time.sleep(self.pause)
            t = torch.full((len(params),), float(step), dtype=torch.float64)
            yield t, (params + step).expand(-1, self.size)


class Mortal(Steps):
    """Kills its process at step 10, at the first attempt of every run."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder

    def stream(self, params: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        name = os.path.join(self.folder, str(float(params[0, 0])))
        for step, found in enumerate(super().stream(params)):
            if step == 10 and not os.path.exists(name):
                Path(name).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield found


class Faulty(Steps):
    """Raises at step 3 where k is above a half."""

    def stream(self, params: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for step, found in enumerate(super().stream(params)):
            if step == 3 and float(params[0, 0]) > 0.5:
                raise ArithmeticError("no convergence")
            yield found


def network(size: int = 8) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, size)


def study(
    solver: Steps,
    buffer: Buffer,
    simulations: int,
    workers: int = 2,
    listener=None,
    **settings: object,
) -> OnlineTrainer:
    return OnlineTrainer(
        network(solver.size),
        solver,
        UniformSampler(SPACE, 1),
        buffer,
        loss=DirectLoss(SPACE, 30.0, 0.0, 31.0),
        max_simulations=simulations,
        workers=workers,
        settings=OnlineSettings(**{"batch_size": 4} | settings),
        listener=listener,
    )


def used_once_or_more(report: OnlineReport, frames: int) -> bool:
    return sum(report.repetitions.values()) == frames and 0 not in report.repetitions


def received(solver: Steps, simulations: int, restarts: int = 3) -> tuple[Ledger, Buffer]:
    """All that arrives, in a buffer that takes it all."""
    ledger, buffer = Ledger(simulations), FIFOBuffer(10_000)
    ensemble = Ensemble(solver, UniformSampler(SPACE, 1), buffer, ledger, Windows(), 1, 1, restarts)
    ensemble.start()
    try:
        with buffer.lock:
            assert buffer.lock.wait_for(lambda: buffer.closed, timeout=60.0)
    finally:
        ensemble.close()
    return ledger, buffer


def test_streamed_runs_arrive_whole_and_in_order():
    ledger, buffer = received(Steps(), 6)
    samples = buffer.get(6 * 30)
    codes = UniformSampler(SPACE, 1).draw(6)
    for run in range(6):
        mine = [sample for sample in samples if sample.run == run]
        assert [sample.step for sample in mine] == list(range(30))
        assert torch.equal(mine[0].codes, codes[run])
        assert all(torch.equal(s.fields[0], (codes[run] + s.step).float().expand(8)) for s in mine)
    assert ledger.frames == 180 and ledger.restarts == 0


@pytest.mark.slow
def test_killed_workers_start_again_with_the_same_parameters_and_no_step_comes_twice(tmp_path):
    ledger, buffer = received(Mortal(str(tmp_path)), 2)
    samples = buffer.get(2 * 30)
    assert Counter((s.run, s.step) for s in samples) == {
        (run, step): 1 for run in range(2) for step in range(30)
    }
    assert len(os.listdir(tmp_path)) == 2 == ledger.restarts
    codes = UniformSampler(SPACE, 1).draw(2)
    assert all(torch.equal(s.codes, codes[s.run]) for s in samples)
    assert not ledger.dropped


@pytest.mark.slow
def test_a_run_that_keeps_failing_is_dropped_with_its_samples_and_replaced():
    ledger, buffer = received(Faulty(), 6, restarts=1)
    samples = buffer.get(len(buffer))
    assert len(samples) == 6 * 30 and all(float(s.codes) <= 0.5 for s in samples)
    assert ledger.dropped and ledger.restarts == len(ledger.dropped)
    assert all(run.codes[0] > 0.5 for run in ledger.dropped)
    assert "failed 2 times: ArithmeticError: no convergence" in ledger.dropped[0].reason


@pytest.mark.slow
def test_a_solver_that_never_works_ends_the_study_with_its_reason():
    solver = Faulty()
    solver.space = Space((Continuous("k", 0.6, 1.0),))
    trainer = study(solver, FIFOBuffer(200), 5, restarts=0, batch_size=150)
    trainer.sampler = trainer._ensemble.sampler = UniformSampler(solver.space)
    with pytest.raises(UserError, match="no convergence"):
        trainer.run()


def test_a_stranger_who_does_not_know_the_secret_is_sent_away():
    ensemble = Ensemble(Steps(), UniformSampler(SPACE, 1), FIFOBuffer(500), Ledger(3), Windows())
    ensemble.start()
    try:
        with socket.create_connection(ensemble._address, timeout=10.0) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n" + bytes(60))
            with suppress(ConnectionResetError):
                assert stranger.recv(1) == b""
    finally:
        ensemble.close()
    assert ensemble.error is None and ensemble.ledger.frames == 0


@pytest.mark.slow
def test_solvers_wait_for_a_slow_trainer_and_memory_stays_bounded():
    heard: list[OnlineProgress] = []

    def slow(progress: OnlineProgress) -> None:
        heard.append(progress)
        time.sleep(0.01)

    trainer = study(
        Steps(), FIFOBuffer(20), 20, listener=slow, progress_seconds=0.0, runs_per_job=2
    )
    report = trainer.run()
    assert report.frames == 600 and used_once_or_more(report, 600)
    assert max(p.population for p in heard) <= 20
    assert report.solver_wait > 0.5


@pytest.mark.slow
def test_a_trainer_with_a_reservoir_does_not_wait_for_slow_solvers():
    report = study(Steps(0.02, steps=20), ReservoirBuffer(50, 4, seed=0), 2).run()
    assert used_once_or_more(report, 40)
    assert report.trainer_wait < 0.4 * report.seconds and report.samples > 5 * 40


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_and_a_checkpoint_goes_on(tmp_path):
    path = tmp_path / "checkpoint"
    workers: set[int] = set()

    def interrupt(progress: OnlineProgress) -> None:
        workers.update(progress.processes)
        if progress.frames > 60:
            raise KeyboardInterrupt

    first = study(
        Steps(0.001), ReservoirBuffer(40, 5, seed=1), 12, checkpoint=path, progress_seconds=0.0
    )
    first.listener = interrupt
    stopped = first.run()
    assert stopped.reason == "interrupt" and 60 < stopped.frames < 360
    assert workers and not any(alive(process) for process in workers)

    second = study(Steps(), ReservoirBuffer(40, 5, seed=1), 12)
    second.resume(path)
    report = second.run()
    assert report.reason == "drained" and report.frames == 360 and report.finished == 12
    assert used_once_or_more(report, 360)
    assert report.batches > stopped.batches


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_workers_killed_every_few_seconds_lose_nothing_and_double_nothing():
    ended = threading.Event()
    killed = 0
    trainer = study(Steps(0.01, steps=100), FIFOBuffer(300), 40, restarts=20)

    def monkey() -> None:
        nonlocal killed
        while killed < 4 and not ended.wait(2.5):
            for process in trainer._ensemble.processes()[:1]:
                os.kill(process, signal.SIGKILL)
                killed += 1

    thread = threading.Thread(target=monkey)
    thread.start()
    try:
        report = trainer.run()
    finally:
        ended.set()
        thread.join()
    assert killed >= 3 and report.restarts >= 3
    assert report.frames == 40 * 100 and report.repetitions == {1: 4000}
    assert report.finished == 40 and not report.dropped


@pytest.mark.slow
def test_ray_streams_the_same_samples(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else a busy machine starves its workers
    report = study(Steps(), ReservoirBuffer(40, 5, seed=1), 6, executor="ray").run()
    assert report.frames == 180 and used_once_or_more(report, 180)


LOST_CLUSTER = """
import os, subprocess, sys
from tests.simulate.stream.test_processes import FIFOBuffer, Steps, study

def end_cluster(progress):
    if progress.frames >= 100:
        subprocess.run(["pkill", "-9", "-P", str(os.getpid()), "gcs_server"])

def endless():
    return study(
        Steps(0.01, steps=50), FIFOBuffer(300), 100_000, executor="ray", listener=end_cluster,
        progress_seconds=0.5, checkpoint=sys.argv[1], checkpoint_seconds=0.5,
    )

if __name__ == "__main__":
    endless().run()
"""


@pytest.mark.slow
def test_a_cluster_that_vanishes_ends_the_study_in_a_sentence_and_leaves_its_checkpoint(tmp_path):
    pytest.importorskip("ray")
    path = tmp_path / "study.ck"
    script = tmp_path / "lost.py"
    script.write_text(LOST_CLUSTER)
    found = os.environ | {"RAY_worker_niceness": "0", "PYTHONPATH": os.getcwd()}
    command = [sys.executable, str(script), str(path)]
    done = subprocess.run(command, env=found, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1
    assert "ClusterLostError: the Ray cluster at" in done.stderr, done.stderr[-2000:]
    again = study(Steps(steps=50), FIFOBuffer(300), 100_000, checkpoint=path)
    again.resume(path)
    assert again._progress().frames >= 50
