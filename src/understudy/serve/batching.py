"""Requests that wait at the same time are predicted together.

A surrogate takes little longer for a hundred rows than for one. One thread a model takes what
waits, up to a number of rows, predicts it at once and hands out the parts. While it predicts, the
next requests gather by themselves; only where the last batch held more than one request does it
also wait a few milliseconds for others: a client that is alone never waits for company.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Arrays: TypeAlias = Mapping[str, NDArray[np.float64]]
"""Arrays whose first dimension is rows."""

Compute: TypeAlias = Callable[[Hashable, NDArray[np.float64]], Arrays]
"""Predicts rows (n, d) in the way that a key names."""


@dataclass(frozen=True)
class _Job:
    key: Hashable
    X: NDArray[np.float64]
    future: Future[Arrays] = field(default_factory=Future)


class Batcher:
    """One worker thread that predicts what waits together.

    Parameters
    ----------
    compute : callable
        Of a key and rows X (n, d): arrays with n rows each. Rows must not know of each other.
    rows : int
        Rows of a batch; a single request may have more.
    seconds : float
        Wait for more requests, where the last batch held several.
    observe : callable
        Told of the rows of each batch.
    """

    def __init__(
        self,
        compute: Compute,
        rows: int,
        seconds: float,
        observe: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._compute, self._rows, self._seconds, self._observe = compute, rows, seconds, observe
        self._waiting: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._held: _Job | None = None  # did not fit into the last batch
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, key: Hashable, X: NDArray[np.float64]) -> Future[Arrays]:
        """Hand in rows (n, d); a future that is cancelled before its turn is passed over."""
        job = _Job(key, X)
        self._waiting.put(job)
        return job.future

    def close(self) -> None:
        """Finish what was handed in and end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        patience = 0.0
        while (first := self._next()) is not None:
            batch, go_on = self._gathered(first, patience)
            patience = self._seconds if len(batch) > 1 else 0.0
            self._answer(batch)
            if not go_on:
                return

    def _next(self) -> _Job | None:
        job, self._held = self._held, None
        return self._waiting.get() if job is None else job

    def _gathered(self, first: _Job, patience: float) -> tuple[list[_Job], bool]:
        """Jobs of the same key up to the number of rows, and whether there may be more to come."""
        batch, rows, until = [first], len(first.X), time.monotonic() + patience
        while rows < self._rows:
            try:
                job = self._waiting.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                return batch, False
            if job.key != first.key or rows + len(job.X) > self._rows:
                self._held = job
                break
            batch.append(job)
            rows += len(job.X)
        return batch, True

    def _answer(self, batch: list[_Job]) -> None:
        batch = [job for job in batch if job.future.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            X = batch[0].X if len(batch) == 1 else np.concatenate([job.X for job in batch])
            self._observe(len(X))
            found = self._compute(batch[0].key, X)
            ends = np.cumsum([len(job.X) for job in batch])
            for job, end in zip(batch, ends.tolist(), strict=True):
                part = slice(end - len(job.X), end)
                job.future.set_result({name: array[part] for name, array in found.items()})
        except BaseException as error:
            for job in batch:
                if not job.future.done():
                    job.future.set_exception(error)
