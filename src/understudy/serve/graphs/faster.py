"""ONNX Runtime in place of PyTorch, up to as many rows as it is the faster of the two.

The graph is made by a process of its own, at low priority, so that a service answers from the
first moment and is not slowed by the making. It is used once it agrees with PyTorch.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.models.tabular.conformal import LEVELS
from understudy.models.tabular.fitted import FittedSurrogate
from understudy.serve.graphs.onnx_file import PARITY, digest, run, session
from understudy.serve.graphs.tabular import parity

TRIED = (1, 16, 256, 4096)
"""Numbers of rows at which the two are timed."""

QUICK = 1e-3
"""Seconds of a prediction that is made where the request is read, rather than handed over."""

_MAKING = (
    "import sys; from understudy.serve.graphs.files import export; export(sys.argv[1], sys.argv[2])"
)
_PATIENCE = 600.0  # seconds for a graph to be made
_LONG = 0.5  # seconds of a prediction beyond which no larger ones are timed


@dataclass(frozen=True)
class FasterGraph:
    """The graph of a surrogate, and up to how many rows it is used.

    Parameters
    ----------
    session : InferenceSession
    targets : tuple of str
    rows : int
        0 where PyTorch is always faster.
    speedup : tuple of float
        Seconds of PyTorch over those of ONNX Runtime, at 1, 16, ... rows as far as was timed.
    quick : int
        Up to how many rows it takes less than `QUICK` seconds.
    """

    session: Any
    targets: tuple[str, ...]
    rows: int
    speedup: tuple[float, ...]
    quick: int = 0

    @classmethod
    def of(cls, surrogate: FittedSurrogate, session: Any) -> FasterGraph:
        """Time both, and see up to how many rows the graph is faster.

        Raises
        ------
        ValueError
            The graph does not say what the surrogate says.
        """
        apart = parity(surrogate, session)
        if not apart <= PARITY:
            raise ValueError(f"the graph differs by {apart:.1e}")
        whole = cls(session, surrogate.targets, sys.maxsize, ())
        ratios: list[float] = []
        quick = 0
        for rows in TRIED:
            X = surrogate.space.encode(surrogate.space.sample(rows, seed=rows, method="random"))
            theirs = _seconds(partial(surrogate.columns, X))
            own = _seconds(partial(whole.columns, X, LEVELS))
            quick = rows if own < QUICK else quick
            ratios.append(theirs / own)
            if ratios[-1] < 1.0 or theirs > _LONG:
                break
        won = [rows for rows, ratio in zip(TRIED, ratios, strict=False) if ratio >= 1.0]
        most = won[-1] if won else 0
        return cls(session, surrogate.targets, most, tuple(ratios), min(quick, most))

    def suits(self, rows: int, levels: Sequence[float]) -> bool:
        """Whether it is the faster one for so many rows, and has these intervals."""
        return rows <= self.rows and all(level in LEVELS for level in levels)

    def columns(self, X: NDArray[np.float64], levels: Sequence[float]) -> dict[str, NDArray[Any]]:
        """Predictions at X (n, d) code units by the names of columns, as the surrogate's own."""
        mean, sd, lower, upper = run(self.session, [X])
        at = [(f"{100 * level:.6g}", LEVELS.index(level)) for level in levels]
        columns = {}
        for j, target in enumerate(self.targets):
            columns[f"{target}_mean"] = mean[:, j]
            columns[f"{target}_sd"] = sd[:, j]
            for name, k in at:
                columns[f"{target}_lower_{name}"] = lower[:, j, k]
                columns[f"{target}_upper_{name}"] = upper[:, j, k]
        return columns


def beside(path: Path) -> Any | None:
    """Open the graph that `understudy export` left beside a ``.us`` file; None if of another.

    Parameters
    ----------
    path : Path
        Of the ``.us`` file; the graph has its name with ``.onnx``, and its digest in the metadata.
    """
    graph = path.with_suffix(".onnx")
    if not graph.is_file():
        return None
    opened = session(graph.read_bytes())
    told = opened.get_modelmeta().custom_metadata_map
    return opened if told.get("understudy.source") == digest(path) else None


class Making:
    """A process that makes the graph of a ``.us`` file.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="understudy-")
        self._target = Path(self._folder.name) / "graph.onnx"
        command = [sys.executable, "-c", _MAKING, str(path), str(self._target)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        with suppress(OSError, AttributeError):
            nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)
            os.setpriority(os.PRIO_PROCESS, self._process.pid, nice)

    def session(self) -> Any | None:
        """Wait for the graph and open it; None where there is none."""
        try:
            if self._process.wait(_PATIENCE) == 0:
                return session(self._target.read_bytes())
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.stop()
        return None

    def stop(self) -> None:
        """End the process, whatever it has done."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()


def _seconds(work: Callable[[], Any], least: int = 3) -> float:
    """Shortest of some runs; a few more where they are short."""
    work()
    taken: list[float] = []
    until = time.perf_counter() + 0.03
    while len(taken) < least or (time.perf_counter() < until and len(taken) < 50):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
        if taken[-1] > _LONG:
            break
    return min(taken)
