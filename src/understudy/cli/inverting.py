"""A prior in training, and an image in reconstruction, on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from understudy.cli.console import cell
from understudy.cli.display import Display

if TYPE_CHECKING:
    from rich.console import Group

    from understudy.core.loop import Event
    from understudy.models.inverse.plug_and_play import Moment
    from understudy.models.inverse.proximal_matching import Stage

_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40


class PriorDisplay(Display):
    """Shows the steps of a training: its stage, how long it will take, and its score.

    Parameters
    ----------
    schedule : sequence of Stage
    quiet : bool
        Show nothing.
    """

    def __init__(self, schedule: Sequence[Stage], quiet: bool = False) -> None:
        super().__init__(quiet)
        self._stages = [(stage.steps, _stage_name(stage)) for stage in schedule]
        self._steps = sum(steps for steps, _ in self._stages)
        self._now: Event | None = None
        self._first: tuple[int, float] | None = None
        self._said = -1

    def __call__(self, event: Event) -> None:
        """Show this step."""
        self._now = event
        self._first = self._first or (event.step - 1, 0.0)
        tenth = 10 * event.step // self._steps
        if not self._lively and tenth > self._said:
            self._said = tenth
            self.say(f"{event.seconds:7.1f} s  {self._words(event)}")

    def _words(self, event: Event) -> str:
        score = "" if event.score is None else f", best loss {cell(float(event.score))}"
        left = (self._steps - event.step) * event.seconds / max(event.step, 1)
        return (
            f"step {event.step:,} of {self._steps:,}, {self._stage(event.step)}{score}, "
            f"about {left:.0f} s left"
        )

    def _stage(self, step: int) -> str:
        for steps, name in self._stages:
            if step <= steps:
                return name
            step -= steps
        return self._stages[-1][1]

    def _render(self) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        if self._now is None:
            return Group(Text("Preparing", style="bold"))
        return Group(
            Text("Training a proximal network", style="bold"),
            ProgressBar(total=self._steps, completed=self._now.step, width=_WIDTH),
            Text(self._words(self._now)),
            Text("Ctrl-C stops and keeps the best so far", style="dim"),
        )


def _stage_name(stage: Stage) -> str:
    gamma = getattr(stage.loss, "gamma", None)
    return "absolute error" if gamma is None else f"proximal matching, gamma {gamma:.3g}"


class InversionDisplay(Display):
    """Shows the change of an image from one iteration to the next, and the misfit of the data.

    Parameters
    ----------
    name : str
        What is done.
    quiet : bool
        Show nothing.
    """

    def __init__(self, name: str, quiet: bool = False) -> None:
        super().__init__(quiet)
        self._name = name
        self._residuals: list[float] = []
        self._now: Moment | None = None

    def __call__(self, moment: Moment) -> None:
        """Show this iteration."""
        self._now = moment
        self._residuals.append(float(moment.residual.max()))
        every = max(1, moment.of // 10)
        if not self._lively and (moment.iteration % every == 0 or moment.iteration == 1):
            self.say(self._words(moment))

    def _words(self, moment: Moment) -> str:
        return (
            f"iteration {moment.iteration} of {moment.of}: change {self._residuals[-1]:.2e}, "
            f"misfit {float(moment.misfit.max()):.3g}"
        )

    def _render(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        if self._now is None:
            return Group(Text(f"Preparing {self._name}", style="bold"))
        return Group(
            Text(self._name, style="bold"),
            Text(self._words(self._now)),
            Text(f"change, logarithmic {sparkline(self._residuals)}"),
        )


def sparkline(values: Sequence[float]) -> str:
    """Logarithms of the last positive values as bars."""
    import math

    logs = [math.log10(max(value, 1e-12)) for value in values[-_WIDTH:]]
    low, high = min(logs), max(logs)
    span = (high - low) or 1.0
    return "".join(_BARS[round((len(_BARS) - 1) * (v - low) / span)] for v in logs)
