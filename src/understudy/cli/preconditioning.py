"""A solver in training on the screen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from understudy.cli.display import Display

if TYPE_CHECKING:
    from rich.console import Group

    from understudy.core.loop import Event


class PreconditioningDisplay(Display):
    """Shows Ritz vectors, then steps: a bar on a terminal, a line now and then elsewhere.

    Parameters
    ----------
    budget : float
        Seconds of training.
    quiet : bool
        Show nothing.
    """

    def __init__(self, budget: float, quiet: bool = False) -> None:
        super().__init__(quiet)
        self._budget = budget
        self._share, self._stage, self._facts, self._said = 0.0, "Ritz vectors", "", -1
        self._start = time.monotonic()

    def ritz(self, done: int, total: int) -> None:
        """Take note of a Ritz vector."""
        self._show("Ritz vectors", done / max(total, 1), f"{done:,} of {total:,}")

    def step(self, event: Event) -> None:
        """Take note of a step."""
        loss = "" if event.score is None else f", best held-out loss {float(event.score):.4g}"
        share = min(event.seconds / self._budget, 1.0)
        self._show("Training", share, f"step {event.step:,}{loss}")

    def _show(self, stage: str, share: float, facts: str) -> None:
        if stage != self._stage:
            self._said = -1
        self._stage, self._share, self._facts = stage, share, facts
        if not self._lively and int(5 * share) > self._said:
            self._said = int(5 * share)
            self.say(f"{time.monotonic() - self._start:6.1f} s  {stage}: {facts}")

    def _render(self) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=1.0, completed=self._share, width=30)
        head.add_row(Text(self._stage, style="bold"), bar, Text(self._facts))
        hint = "Ctrl-C stops and keeps the best so far" if self._stage == "Training" else ""
        return Group(head, Text(hint, style="dim"))
