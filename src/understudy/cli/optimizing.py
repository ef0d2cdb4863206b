"""A running study on the screen, and what Ctrl-C means during it."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from understudy.cli.console import cell, table_of
from understudy.cli.display import Display
from understudy.cli.trials import best_rows, standing

if TYPE_CHECKING:
    from rich.console import Group

    from understudy.search.coordinator import Moment
    from understudy.search.study import Study


class StudyDisplay(Display):
    """Shows each `Moment` of a study: a live table on a terminal, lines elsewhere.

    Parameters
    ----------
    study : Study
    quiet : bool
        Show nothing.
    """

    def __init__(self, study: Study, quiet: bool = False) -> None:
        super().__init__(quiet)
        self._study = study
        self._now: Moment | None = None
        self._rows: list[dict[str, Any]] = []
        self._standing = ""
        self._since = time.monotonic()

    def __call__(self, moment: Moment) -> None:
        """Show this moment."""
        if not self._quiet:
            self._rows = best_rows(self._study, 8) if self._lively else []
            self._standing = standing(self._study)
        self._now, self._since = moment, time.monotonic()
        if moment.news and (not self._lively or "failed" in moment.news):
            self.say(f"{moment.elapsed:6.1f} s  {moment.news}")

    def _render(self) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now = self._now
        if now is None:
            return Group(Text("Suggesting the first trial", style="bold"))
        elapsed = now.elapsed + time.monotonic() - self._since
        ended = now.count("done") + now.count("failed")
        head = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(now.budget, 1), completed=min(ended, now.budget), width=30)
        head.add_row(
            Text(f"Study {self._study.name}", style="bold"),
            bar,
            Text(f"{ended} of {now.budget} trials, {elapsed:.0f} s"),
        )
        lines: list[Any] = [head, Text(counts(now)), Text(self._standing)]
        if self._rows:
            lines.append(table_of(self._rows, {key: key for key in self._rows[0]}))
        lines.append(Text("Ctrl-C stops and keeps what is done", style="dim"))
        return Group(*lines)


def counts(moment: Moment) -> str:
    """Trials by state, and what a suggestion takes."""
    parts = [f"{moment.count(state)} {state}" for state in ("running", "failed", "done")]
    waiting = moment.count("waiting")
    parts += [f"{waiting} waiting"] if waiting else []
    if not math.isnan(moment.suggestion_seconds):
        parts.append(f"{cell(moment.suggestion_seconds)} s a suggestion")
    return ", ".join(parts)


class Interruption(AbstractContextManager["Interruption"]):
    """Ctrl-C, or the signal to end: once, stop and give back what runs; twice, end now.

    Parameters
    ----------
    say : callable
        Tells the user what happens.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.stop = threading.Event()
        self._say = say

    def __enter__(self) -> Interruption:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            numbers = (signal.SIGINT, signal.SIGTERM)
            self._previous = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *exception: object) -> None:
        if self._main:
            for number, handler in self._previous.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.stop.is_set():
            raise KeyboardInterrupt
        self.stop.set()
        self._say("stopping: running trials are given back (Ctrl-C again to end at once)")


def optimize_live(
    path: Path,
    quiet: bool,
    *,
    trials: int,
    parallel: int,
    storage: str,
    name: str | None,
    resume: bool,
    surrogate: str,
    timeout: float | None,
    kind: str,
    seed: int,
) -> tuple[Study, bool]:
    """Run a study with a display on the error stream; return it and whether it was stopped."""
    import optuna

    from understudy.core.executor import executor
    from understudy.search.bayesopt import BayesianSearcher
    from understudy.search.coordinator import Coordinator
    from understudy.search.optuna_sampler import UnderstudySampler
    from understudy.search.problem_file import read_problem
    from understudy.search.storage import Storage
    from understudy.search.study import open_study

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    file = read_problem(path)
    run = file.run if timeout is None else replace(file.run, timeout=timeout)
    BayesianSearcher(file.problem, seed, surrogate=surrogate)  # refuses a surrogate it has not got
    sampler = UnderstudySampler(file.problem, seed=seed, surrogate=surrogate)
    study = open_study(
        Storage(storage), name or file.name, file.problem, resume=resume, sampler=sampler
    )
    if trials == 0:
        return study, False
    running = executor("ray" if kind == "ray" else "local", parallel)
    # Ray takes the signal to end for itself, so that the handlers come after it.
    with running, StudyDisplay(study, quiet) as display, Interruption(display.say) as interruption:
        Coordinator(study, run, running, trials, display, interruption.stop).work()
    return study, interruption.stop.is_set()
