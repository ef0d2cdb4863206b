"""A running fit on the screen: stage, time and the comparison so far."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.cli.console import say, table_of
from understudy.cli.display import Display
from understudy.cli.stopping import Stopping
from understudy.core.progress import Progress, Standing

if TYPE_CHECKING:
    from pandas import DataFrame
    from rich.console import Group
    from rich.table import Table

    from understudy.models.tabular.fitted import FittedSurrogate

STAGES = {
    "read": "Reading the table",
    "transform": "Choosing output transforms",
    "candidates": "Comparing models",
    "stack": "Combining models",
    "calibrate": "Calibrating intervals",
    "test": "Scoring unseen rows",
    "sensitivity": "Computing sensitivities",
    "done": "Done",
}
_COLUMNS = {"name": "model", "status": "", "score": "score", "r2": "R2", "seconds": "seconds"}


class FitDisplay(Display):
    """Shows each `Progress`: a live table on a terminal, lines elsewhere, nothing when quiet.

    Parameters
    ----------
    metric : str
        What the score is.
    quiet : bool
        Show nothing.
    """

    def __init__(self, metric: str, quiet: bool = False) -> None:
        super().__init__(quiet)
        self._metric = metric
        self._now = Progress("read", 0.0, 0.0)
        self._since = time.monotonic()
        self._said: set[tuple[str, ...]] = set()

    def __call__(self, progress: Progress) -> None:
        """Show this moment."""
        self._now, self._since = progress, time.monotonic()
        if not self._lively and not self._quiet:
            self._say_news(progress)

    def _say_news(self, progress: Progress) -> None:
        at = f"{progress.elapsed:6.1f} s  "
        if (progress.stage,) not in self._said:
            self._said.add((progress.stage,))
            say(f"{at}{STAGES.get(progress.stage, progress.stage)}", stderr=True)
        for standing in progress.standings:
            news = (standing.name, standing.status)
            if standing.status not in ("waiting", "running") and news not in self._said:
                self._said.add(news)
                say(f"{at}  {self._line(standing)}", stderr=True)

    def _line(self, standing: Standing) -> str:
        if standing.score is None:
            return f"{standing.name}: {standing.status}: {standing.reason}".rstrip(": ")
        return f"{standing.name}: {self._metric} {standing.score:.4g}, {standing.seconds:.1f} s"

    def _render(self) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now = self._now
        elapsed = now.elapsed + time.monotonic() - self._since
        head = Table.grid(padding=(0, 2))
        stage = Text(STAGES.get(now.stage, now.stage), style="bold")
        if now.budget > 0:
            bar = ProgressBar(total=now.budget, completed=min(elapsed, now.budget), width=30)
            head.add_row(stage, bar, Text(f"{elapsed:.0f} of {now.budget:.0f} s"))
        else:
            head.add_row(stage, Text(f"{elapsed:.0f} s"))
        hint = Text("Ctrl-C stops and keeps the best so far", style="dim")
        return Group(head, self._table(), hint) if now.standings else Group(head)

    def _table(self) -> Table:
        ranked = sorted(
            self._now.standings, key=lambda s: (s.score is None, s.score if s.score else 0.0)
        )
        rows = [
            {
                "name": s.name,
                "status": f"{s.status}: {s.reason}".rstrip(": "),
                "score": s.score,
                "r2": s.r2,
                "seconds": round(s.seconds, 1) if s.seconds else None,
            }
            for s in ranked
        ]
        columns = {**_COLUMNS, "score": self._metric}
        return table_of(rows, columns, left=("name", "status"))


def fit_live(data: DataFrame | Path, quiet: bool, **options: Any) -> FittedSurrogate:
    """Fit with a display on the error stream, in which Ctrl-C keeps the best so far.

    Parameters
    ----------
    data : DataFrame or path
    quiet : bool
        Show nothing.
    **options
        Of `understudy.fit`.
    """
    with FitDisplay(options["metric"], quiet) as display, Stopping(display.say) as stopping:
        display(Progress("read", 0.0, 0.0))
        import understudy

        def listen(progress: Progress) -> None:
            stopping(progress)
            display(progress)

        return understudy.fit(data, listener=listen, **options)
