"""Requests that wait together are predicted together, each gets its own part, and none is lost."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from concurrent.futures import CancelledError

import numpy as np
import pytest

from understudy.serve.batching import Batcher


class Machine:
    """Doubles rows, when it is let."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.calls: list[tuple[Hashable, int]] = []

    def __call__(self, key: Hashable, X: np.ndarray) -> dict[str, np.ndarray]:
        self.begun.release()
        assert self.go.acquire(timeout=30)
        self.calls.append((key, len(X)))
        if key == "bad":
            raise RuntimeError("no")
        return {"double": 2.0 * X[:, 0]}


def rows(*values: float) -> np.ndarray:
    return np.array(values, dtype=float).reshape(-1, 1)


def held(machine: Machine, rows_at_once: int = 100) -> tuple[Batcher, object]:
    """A batcher whose thread is busy with one row."""
    batcher = Batcher(machine, rows_at_once, 0.0)
    first = batcher.submit("a", rows(0))
    assert machine.begun.acquire(timeout=30)
    return batcher, first


def let_all(machine: Machine) -> None:
    machine.go.release(1000)


def test_what_waits_is_predicted_at_once_and_handed_out() -> None:
    machine = Machine()
    batcher, _ = held(machine)
    futures = [batcher.submit("a", rows(*range(n))) for n in (1, 3, 2)]
    let_all(machine)
    batcher.close()
    assert machine.calls == [("a", 1), ("a", 6)]
    assert [f.result()["double"].tolist() for f in futures] == [[0], [0, 2, 4], [0, 2]]


def test_a_batch_has_one_key_and_a_number_of_rows_at_most() -> None:
    machine = Machine()
    batcher, _ = held(machine, rows_at_once=4)
    futures = [
        batcher.submit(k, rows(*range(n)))
        for k, n in (("a", 2), ("a", 2), ("a", 1), ("b", 1), ("a", 9))
    ]
    let_all(machine)
    batcher.close()
    assert machine.calls == [("a", 1), ("a", 4), ("a", 1), ("b", 1), ("a", 9)]
    assert [len(f.result()["double"]) for f in futures] == [2, 2, 1, 1, 9]


def test_a_failure_is_that_of_its_batch_only() -> None:
    machine = Machine()
    batcher, _ = held(machine)
    bad, good = batcher.submit("bad", rows(1)), batcher.submit("a", rows(1))
    let_all(machine)
    batcher.close()
    with pytest.raises(RuntimeError, match="no"):
        bad.result()
    assert good.result()["double"].tolist() == [2.0]


def test_what_was_given_up_is_passed_over() -> None:
    machine = Machine()
    batcher, _ = held(machine)
    gone, kept = batcher.submit("a", rows(1, 2)), batcher.submit("a", rows(3))
    assert gone.cancel()
    let_all(machine)
    batcher.close()
    assert machine.calls[1] == ("a", 1)
    assert kept.result()["double"].tolist() == [6.0]
    with pytest.raises(CancelledError):
        gone.result()
