"""Runs of a solver in other processes, that stream into a buffer while a network trains.

Every job is a task of an executor: local processes or Ray. A worker that dies, or a job that
raises, is started again with the same parameters; the ledger sees to it that every time step enters
the buffer once. A thread for each worker receives, and waits where the buffer has no room; then
the worker waits as well, since its socket fills.
"""

from __future__ import annotations

import secrets
import socket
import threading
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from understudy.core.executor import ClusterLostError, Executor, executor
from understudy.simulate.stream.buffers import Buffer, BufferClosedError
from understudy.simulate.stream.intake import Intake, discard
from understudy.simulate.stream.ledger import Ledger, Run, groups
from understudy.simulate.stream.samplers import ParameterSampler
from understudy.simulate.stream.samples import Sample, Windows
from understudy.simulate.stream.solver import StreamingSolver, stream_job
from understudy.simulate.stream.wire import (
    SECRET_BYTES,
    Address,
    LostConnectionError,
    messages,
    welcome,
)

_GREETING_SECONDS = 30.0


@dataclass
class _Job:
    """Runs that one worker computes side by side."""

    number: int
    runs: list[Run]
    attempt: int = 0
    process: int | None = None
    line: socket.socket | None = None
    done: bool = False
    reasons: list[str] = field(default_factory=list)


class Ensemble:
    """Keeps workers busy until all runs have finished.

    Parameters
    ----------
    solver : StreamingSolver
    sampler : ParameterSampler
    buffer : Buffer
    ledger : Ledger
    windows : Windows
    workers : int
        Processes.
    runs_per_job : int
        Runs that a worker computes side by side, as one batch of the solver.
    restarts : int
        How often a job is started again before its runs are dropped.
    kind : {"local", "ray"}
    """

    def __init__(
        self,
        solver: StreamingSolver,
        sampler: ParameterSampler,
        buffer: Buffer[Sample],
        ledger: Ledger,
        windows: Windows,
        workers: int = 1,
        runs_per_job: int = 1,
        restarts: int = 3,
        kind: Literal["local", "ray"] = "local",
    ) -> None:
        self.solver, self.sampler, self.buffer = solver, sampler, buffer
        self.ledger, self.windows, self.workers = ledger, windows, workers
        self.runs_per_job, self.restarts, self.kind = runs_per_job, restarts, kind
        self.error: BaseException | None = None
        self._jobs: dict[int, _Job] = {}
        self._begun = 0
        self._closing = False
        self._secret = secrets.token_bytes(SECRET_BYTES)
        self._threads: list[threading.Thread] = []
        self._executor: Executor | None = None
        self._server: socket.socket | None = None

    # -- what the trainer calls -------------------------------------------------------------------

    def start(self) -> None:
        """Start the workers; runs of an earlier session that had not finished come first."""
        self._executor = executor(self.kind, self.workers)
        self._server = socket.create_server((_host(self.kind), 0))
        self._spawn(self._accept)
        with self.buffer.lock:
            for runs in groups(self.ledger.runs.values(), self.runs_per_job):
                self._begin(runs)
            self._launch()

    def next_batch(self, count: int) -> list[Sample]:
        """Samples from the buffer; none when all runs have finished and all was used."""
        batch = self.buffer.get(count)
        if self.error is not None:
            raise self.error
        return batch

    @property
    def waits(self) -> tuple[float, float]:
        """Seconds that solvers, all together, and trainer have waited."""
        return self.buffer.put_wait, self.buffer.get_wait

    def processes(self) -> list[int]:
        """Process numbers of the workers that stream just now."""
        with self.buffer.lock:
            return [job.process for job in self._jobs.values() if job.process is not None]

    def state_dict(self) -> dict[str, Any]:
        """Nothing beyond the ledger: jobs in flight are started again."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on; see `state_dict`."""

    def close(self) -> None:
        """End the workers, wherever they are."""
        with self.buffer.lock:
            self._closing = True
            self.buffer.close()
            lines = [job.line for job in self._jobs.values() if job.line is not None]
        if self._executor is not None:
            self._executor.close()
        for line in lines:
            _shut(line)
        if self._server is not None:
            with suppress(OSError):  # wakes the thread that accepts
                socket.create_connection(self._address, timeout=1.0).close()
            self._server.close()
        for thread in self._threads:
            thread.join(timeout=5.0)

    # -- jobs -------------------------------------------------------------------------------------

    @property
    def _address(self) -> Address:
        assert self._server is not None
        host, port = self._server.getsockname()[:2]
        return host, port

    def _launch(self) -> None:
        """Begin jobs until every worker has one, or no run is due. Called under the lock."""
        while not self._closing and len(self._jobs) < self.workers:
            runs = self.ledger.start(self.sampler, self.runs_per_job)
            if not runs:
                break
            self._begin(runs)
        if self.ledger.over:
            self.buffer.close()

    def _begin(self, runs: list[Run]) -> None:
        job = _Job(self._begun, runs)
        self._begun += 1
        self._jobs[job.number] = job
        self._submit(job)

    def _submit(self, job: _Job) -> None:
        assert self._executor is not None
        job.attempt += 1
        job.process = None
        codes = [run.codes.tolist() for run in job.runs]
        order = (self.solver, codes, self._address, self._secret, job.number, job.attempt)
        future = self._executor.submit(stream_job, *order)
        attempt = job.attempt
        future.add_done_callback(lambda ended: self._ended(job, attempt, ended))

    def _ended(self, job: _Job, attempt: int, future: Future[int]) -> None:
        """Start a job again whose worker failed."""
        if future.cancelled() or isinstance(future.exception(), CancelledError | None):
            return
        with self._guarded():
            if self._closing or job.done or job.attempt != attempt:
                return
            error = future.exception()
            if isinstance(error, ClusterLostError):
                raise error
            job.reasons.append(str(error))
            if job.line is not None:
                _shut(job.line)
            if job.attempt <= self.restarts:
                self.ledger.restarts += 1
                self._submit(job)
                return
            self._give_up(job)
            self._launch()

    def _give_up(self, job: _Job) -> None:
        job.done = True
        self._jobs.pop(job.number, None)
        for run in job.runs:
            discard(self.buffer, run.number)
            self.ledger.drop(run.number, f"failed {job.attempt} times: {job.reasons[-1]}")

    def _complete(self, job: _Job) -> None:
        """All steps of a job are here. Called under the lock."""
        if job.done:
            return
        job.done = True
        self._jobs.pop(job.number, None)
        for run in job.runs:
            if run.number not in self.ledger.runs:
                continue
            if run.steps:
                self.ledger.finish(run.number, self.sampler)
            else:
                self.ledger.drop(run.number, "gave no field")
        self._launch()

    # -- threads ----------------------------------------------------------------------------------

    def _spawn(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads = [old for old in self._threads if old.is_alive()] + [thread]
        thread.start()

    def _accept(self) -> None:
        assert self._server is not None
        while not self._closing:
            try:
                line, _ = self._server.accept()
            except OSError:
                return
            self._spawn(self._receive, line)

    def _receive(self, line: socket.socket) -> None:
        """Take in what one worker sends for one job."""
        gone = suppress(LostConnectionError, BufferClosedError, OSError)
        with gone, line, line.makefile("rb", buffering=0) as source, self._guarded(False):
            line.settimeout(_GREETING_SECONDS)
            number, attempt, process = welcome(source, self._secret)
            line.settimeout(None)
            with self.buffer.lock:
                job = self._jobs.get(number)
                if job is None or job.attempt != attempt:
                    return
                job.process, job.line = process, line
            intake = Intake(job.runs, self.buffer, self.ledger, self.windows)
            for message in messages(source):
                for row in range(len(message.fields)):
                    intake.take(row, message)
            with self.buffer.lock:
                if job.attempt == attempt:
                    self._complete(job)

    def _guarded(self, locked: bool = True) -> _Guard:
        return _Guard(self, locked)


class _Guard:
    """Holds the lock; what is raised ends the study, and the trainer is told."""

    def __init__(self, ensemble: Ensemble, locked: bool) -> None:
        self._ensemble, self._locked = ensemble, locked

    def __enter__(self) -> None:
        if self._locked:
            self._ensemble.buffer.lock.acquire()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        expected = (LostConnectionError, BufferClosedError, OSError)
        failed = error is not None and not isinstance(error, expected)
        if failed and self._ensemble.error is None:
            self._ensemble.error = error
            self._ensemble.buffer.close()
        if self._locked:
            self._ensemble.buffer.lock.release()
        return failed


def _shut(line: socket.socket) -> None:
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


def _host(kind: str) -> str:
    """Where workers find the training: this machine, or its address on a Ray cluster."""
    if kind == "local":
        return "127.0.0.1"
    import ray

    return str(ray.util.get_node_ip_address())
