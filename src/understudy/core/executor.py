"""Functions run elsewhere: in processes of this machine, or wherever Ray has room.

One switch, :func:`executor`, chooses between the two; both give the same results, in the order of
what was submitted, because a task carries its own seed and every worker computes on one thread.

A local worker is a fresh process (spawned, so nothing is shared with this one) and the leader of
its own process group, with all programs that it starts. Hence a terminal's Ctrl-C reaches only
this process; a task that overruns its time, or is given up, ends with its programs; and when this
process is killed, so are its workers, at once. A worker that is killed from outside fails its own
task only, and is replaced.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import pickle
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from understudy.core.errors import UserError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

T = TypeVar("T")
Kind = Literal["local", "ray"]
_CLUSTER_SECONDS = 5.0  # after which it is asked whether the cluster is still there

_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_CLOSING_SECONDS = 5.0


class TaskError(Exception):
    """A task raised; the message is the exception's, ``details`` its traceback."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class TaskTimeoutError(Exception):
    """A task took longer than it was given, and was ended."""


class ClusterLostError(UserError):
    """The cluster that runs the tasks cannot be reached any more."""


class WorkerLostError(Exception):
    """A worker died under its task: killed, out of memory, or crashed."""


class Executor(AbstractContextManager["Executor"], ABC):
    """Runs functions in up to ``workers`` processes; closed at the end of its ``with`` block."""

    workers: int

    @abstractmethod
    def submit(
        self, function: Callable[..., T], *arguments: Any, timeout: float | None = None
    ) -> Future[T]:
        """Run a function elsewhere.

        Parameters
        ----------
        function : callable
            Of a module, so that it can be named to another process; so are its arguments.
        *arguments
        timeout : float, optional
            Seconds from its start after which the task is ended.

        Returns
        -------
        Future
            Fails with `TaskError`, `TaskTimeoutError` or `WorkerLostError`; others go on.
        """

    @abstractmethod
    def close(self) -> None:
        """End the workers with what they run; what has not finished is cancelled."""

    def map(self, function: Callable[..., T], items: Iterable[Any]) -> list[T]:
        """Results of a function of each item, in the order of the items; the first failure raises.

        Parameters
        ----------
        function : callable
        items : iterable
            One argument each; a random function is given its seed in it.
        """
        futures = [self.submit(function, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    def __exit__(self, *exception: object) -> None:
        self.close()


def executor(kind: Kind = "local", workers: int = 1) -> Executor:
    """Executor of a kind.

    Parameters
    ----------
    kind : {"local", "ray"}
        Processes of this machine, or Ray: a cluster that RAY_ADDRESS names, else this machine.
    workers : int
        Tasks that run at the same time.
    """
    if workers < 1:
        raise UserError(f"an executor needs at least one worker, not {workers}")
    if kind == "local":
        return LocalExecutor(workers)
    if kind == "ray":
        return RayExecutor(workers)
    raise UserError(f"an executor is 'local' or 'ray', not {kind!r}")


# -- processes of this machine ----------------------------------------------------------------


@dataclass
class _Task:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    timeout: float | None
    future: Future[Any] = field(default_factory=Future)


class LocalExecutor(Executor):
    """Tasks in spawned processes; a thread of this process watches over each."""

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._slots = [_Slot(self._tasks, self._closed, number) for number in range(workers)]
        atexit.register(self.close)  # before multiprocessing waits for what is never to end

    def submit(
        self, function: Callable[..., T], *arguments: Any, timeout: float | None = None
    ) -> Future[T]:
        """Run a function in the next process that is free; see `Executor.submit`."""
        if self._closed.is_set():
            raise RuntimeError("the executor is closed")
        task = _Task(function, arguments, timeout)
        self._tasks.put(task)
        for slot in self._slots:
            slot.start()
        return task.future

    def close(self) -> None:
        """End the processes, with all programs that they started."""
        if self._closed.is_set():
            return
        self._closed.set()
        atexit.unregister(self.close)
        for slot in self._slots:
            slot.wake()
        for slot in self._slots:
            slot.join()
        with suppress(queue.Empty):
            while True:
                left = self._tasks.get_nowait()
                if left is not None:
                    left.future.cancel()


class _Slot:
    """One worker at a time, and the thread that gives it tasks."""

    def __init__(
        self, tasks: queue.SimpleQueue[_Task | None], closed: threading.Event, number: int
    ) -> None:
        self._tasks, self._closed = tasks, closed
        self._wake_read, self._wake_write = multiprocessing.Pipe(duplex=False)
        self._thread = threading.Thread(
            target=self._serve, name=f"understudy-worker-{number}", daemon=True
        )
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def start(self) -> None:
        if self._thread.ident is None:
            self._thread.start()

    def wake(self) -> None:
        self._tasks.put(None)
        self._wake_write.send_bytes(b"end")

    def join(self) -> None:
        if self._thread.ident is not None:
            self._thread.join()
        self._wake_read.close()
        self._wake_write.close()

    def _serve(self) -> None:
        while not self._closed.is_set():
            task = self._tasks.get()
            if task is None or not task.future.set_running_or_notify_cancel():
                continue
            try:
                result = self._run(task)
            except BaseException as error:
                task.future.set_exception(error)
            else:
                task.future.set_result(result)
        self._end()

    def _run(self, task: _Task) -> Any:
        from multiprocessing.connection import wait

        try:
            order = pickle.dumps((task.function, task.arguments))
        except Exception as error:
            raise TaskError(f"the task cannot be sent to another process: {error}") from error
        process, pipe = self._worker()
        with suppress(OSError):  # a worker that is gone already is noticed below
            pipe.send_bytes(order)
        ready = wait([pipe, process.sentinel, self._wake_read], task.timeout)
        if self._wake_read in ready:
            raise CancelledError
        if not ready:
            self._end()
            raise TaskTimeoutError(f"took longer than {task.timeout:g} s")
        try:
            state, content = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            process.join()
            code = process.exitcode
            self._end()
            raise WorkerLostError(f"its process {_ending(code)}") from None
        if state == "failed":
            raise TaskError(*content)
        return content

    def _worker(self) -> tuple[SpawnProcess, Connection]:
        if self._process is not None and self._pipe is not None and self._process.is_alive():
            return self._process, self._pipe
        self._end()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=False)
        self._process.start()
        theirs.close()
        return self._process, self._pipe

    def _end(self) -> None:
        """End the worker and its programs: asked first, then killed."""
        if self._process is None or self._pipe is None:
            return
        _signal_group(self._process, signal.SIGTERM)
        self._process.join(_CLOSING_SECONDS)
        _signal_group(self._process, getattr(signal, "SIGKILL", signal.SIGTERM))
        self._process.join()
        self._process.close()
        self._pipe.close()
        self._process = self._pipe = None


def _signal_group(process: SpawnProcess, number: int) -> None:
    """Signal a worker and every program that it started."""
    if process.pid is None:
        return
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        elif process.is_alive():
            process.terminate()
    with suppress(ProcessLookupError):  # before it has become the leader of its group
        if process.is_alive():
            os.kill(process.pid, number)


def _ending(code: int | None) -> str:
    """Say how a process ended."""
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


# -- inside a worker ---------------------------------------------------------------------------


def _work(pipe: Connection) -> None:
    """Run what comes through the pipe until it closes."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    use_one_thread()
    while True:
        try:
            order = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        pipe.send_bytes(_answer(order))


def _answer(order: bytes) -> bytes:
    try:
        function, arguments = pickle.loads(order)
        return pickle.dumps(("done", function(*arguments)))
    except Exception as error:
        return pickle.dumps(("failed", _explained(error)))


def _explained(error: Exception) -> tuple[str, str]:
    """Message on one line, and traceback, of the exception that is handled."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}".rstrip(": "), traceback.format_exc()


def _leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _die_with_parent() -> None:
    """End this worker and its programs when the process that started it is gone."""
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()
    if parent is None:
        return
    wait([parent.sentinel])
    if hasattr(os, "killpg"):
        os.killpg(os.getpgid(0), signal.SIGKILL)
    os._exit(1)


def use_one_thread() -> None:
    """Keep the numerical libraries of this process, loaded or yet to be, to one thread."""
    for variable in _ONE_THREAD:
        os.environ[variable] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "threadpoolctl" in sys.modules:
        sys.modules["threadpoolctl"].threadpool_limits(1)


# -- Ray ---------------------------------------------------------------------------------------


class RayExecutor(Executor):
    """Tasks of one processor each on a Ray cluster, or on this machine's own Ray."""

    def __init__(self, workers: int = 1) -> None:
        try:
            import ray
        except ImportError as error:
            raise UserError(
                "the executor 'ray' needs Ray, which the extra 'scale' brings: "
                "pip install 'understudy[scale]'"
            ) from error
        self.workers, self._ray = workers, ray
        self._ours = not ray.is_initialized()
        if self._ours:
            _start_ray(workers)
        self._address = str(ray.get_runtime_context().gcs_address)
        self._room = threading.BoundedSemaphore(workers)
        self._references: set[Any] = set()
        self._running: set[Future[Any]] = set()
        self._closed = self._lost = False
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def submit(
        self, function: Callable[..., T], *arguments: Any, timeout: float | None = None
    ) -> Future[T]:
        """Run a function where Ray has room; see `Executor.submit`."""
        if self._closed:
            raise RuntimeError("the executor is closed")
        future: Future[T] = Future()
        watch = threading.Thread(
            target=self._follow, args=(future, function, arguments, timeout), daemon=True
        )
        watch.start()
        return future

    def close(self) -> None:
        """Cancel what runs; end Ray if it was started here."""
        if self._closed:
            return
        self._closed = True
        self._ended.set()
        if self._lost:  # Ray would wait for its cluster, or crash, at the end of the program
            sys.excepthook = sys.__excepthook__
            atexit.register(_leave_ray)
            return
        for reference in list(self._references):
            self._ray.cancel(reference, force=True)
        if self._ours:
            self._ray.shutdown()

    def _follow(
        self,
        future: Future[Any],
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
        timeout: float | None,
    ) -> None:
        with self._room:
            if self._closed or not future.set_running_or_notify_cancel():
                future.cancel()
                return
            self._running.add(future)
            with suppress(InvalidStateError):  # failed already, as the cluster was lost
                try:
                    result = self._run(function, arguments, timeout)
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
            self._running.discard(future)

    def _run(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], timeout: float | None
    ) -> Any:
        errors = self._ray.exceptions
        remote = self._ray.remote(num_cpus=1, max_retries=0)(_on_ray)
        reference = remote.remote(function, arguments)
        self._references.add(reference)
        try:
            state, content = self._ray.get(reference, timeout=timeout)
        except errors.GetTimeoutError:
            self._ray.cancel(reference, force=True)
            raise TaskTimeoutError(f"took longer than {timeout:g} s") from None
        except errors.TaskCancelledError:
            raise CancelledError from None
        except errors.RayError as error:
            if self._closed:
                raise CancelledError from None
            first = str(error).strip().split("\n", 1)[0]
            raise WorkerLostError(f"its process on Ray was lost: {first}") from None
        finally:
            self._references.discard(reference)
        if state == "failed":
            raise TaskError(*content)
        return content

    def _watch(self) -> None:
        """Fail what runs once the cluster is gone, for which Ray itself would wait a minute."""
        while not self._ended.wait(_CLUSTER_SECONDS):
            if _answers(self._address):
                continue
            self._lost = True
            lost = ClusterLostError(f"the Ray cluster at {self._address} does not answer any more")
            for future in list(self._running):
                with suppress(InvalidStateError):
                    future.set_exception(lost)
            return


def _leave_ray() -> None:
    """End a program whose cluster is gone, without what Ray does at the end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _answers(address: str) -> bool:
    """Whether something listens there, asked three times within some seconds."""
    host, _, port = address.rpartition(":")
    for _ in range(3):
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=2.0):
            return True
        time.sleep(0.5)
    return False


def _start_ray(workers: int) -> None:
    import logging

    import ray

    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    address = os.environ.get("RAY_ADDRESS")
    if address:
        try:
            ray.init(**quiet)
        except ConnectionError as error:
            raise UserError(
                f"no Ray cluster answers at {address}, which RAY_ADDRESS names"
            ) from error
    else:
        ray.init(num_cpus=workers, include_dashboard=False, **quiet)


def _on_ray(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[str, Any]:
    use_one_thread()
    try:
        return "done", function(*arguments)
    except Exception as error:
        return "failed", _explained(error)
