"""An operator in training on the screen, and what Ctrl-C means during it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from understudy.cli.console import cell
from understudy.cli.display import Display

if TYPE_CHECKING:
    from rich.console import Group
    from torch import Tensor

    from understudy.emulate.run import Moment

_STAGES = {"train": "Training", "test": "Testing on unseen runs", "done": "Done"}
_SHADES = " ░▒▓█"
_LINES, _WIDTH = 8, 32


class EmulationDisplay(Display):
    """Shows each `Moment`: a live picture on a terminal, a line now and then elsewhere.

    Parameters
    ----------
    name : str
        What is emulated, by what.
    quiet : bool
        Show nothing.
    """

    def __init__(self, name: str, quiet: bool = False) -> None:
        super().__init__(quiet)
        self._name = name
        self._now: Moment | None = None
        self._since = time.monotonic()
        self._said = -1

    def __call__(self, moment: Moment) -> None:
        """Show this moment."""
        stage = self._now.stage if self._now else ""
        self._now, self._since = moment, time.monotonic()
        share = int(10 * moment.elapsed / max(moment.budget, 1e-9))
        if not self._lively and (share > self._said or moment.stage != stage):
            self._said = share
            self.say(f"{moment.elapsed:6.1f} s  {_STAGES[moment.stage]}: {_figures(moment)}")

    def _render(self) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        now = self._now
        if now is None:
            return Group(Text(f"Preparing {self._name}", style="bold"))
        elapsed = now.elapsed + (time.monotonic() - self._since if now.stage == "train" else 0.0)
        head = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=now.budget, completed=min(elapsed, now.budget), width=30)
        stage = Text(f"{_STAGES[now.stage]} {self._name}", style="bold")
        head.add_row(stage, bar, Text(f"{elapsed:.0f} of {now.budget:.0f} s"))
        lines: list[Any] = [head, Text(_figures(now))]
        if now.picture is not None:
            lines.append(Text(thumbnail(now.picture)))
        lines.append(Text("Ctrl-C stops and keeps the best so far", style="dim"))
        return Group(*lines)


def _figures(moment: Moment) -> str:
    parts = [f"step {moment.step:,}"]
    if moment.score is not None:
        parts.append(f"best score {cell(moment.score)}")
    if moment.samples_per_second:
        parts.append(f"{moment.samples_per_second:,.0f} samples/s")
    parts += [f"{name} {cell(value)}" for name, value in moment.facts.items()]
    return ", ".join(parts)


def thumbnail(picture: Tensor) -> str:
    """True and predicted fields ``(2, T, n)`` side by side in shades, time downwards."""
    step = max(1, -(-picture.shape[1] // _LINES))
    across = max(1, -(-picture.shape[2] // _WIDTH))
    small = picture[:, ::step, ::across]
    low, high = float(small[0].min()), float(small[0].max())
    level = ((small - low) / ((high - low) or 1.0) * len(_SHADES)).nan_to_num(0.0)
    shades = level.long().clamp(0, len(_SHADES) - 1)
    width = small.shape[2]
    rows = [
        "  ".join("".join(_SHADES[i] for i in half[row].tolist()) for half in shades)
        for row in range(small.shape[1])
    ]
    return "\n".join([f"{'true':<{width}}  predicted", *rows])
