"""What the commands print: tables and JSON on standard output, all else on the error stream."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Row = Mapping[str, Any]


def console(stderr: bool = False) -> Console:
    """Rich console of the standard or error stream; plain text where that is no terminal."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def say(text: str = "", stderr: bool = False) -> None:
    """Print a line as it is: no markup, no wrapping."""
    print(text, file=sys.stderr if stderr else sys.stdout, flush=stderr)


def print_json(record: Mapping[str, Any]) -> None:
    """Print one object of strict JSON; numbers that are not finite become null."""
    print(json.dumps(_strict(record), indent=2, ensure_ascii=False, allow_nan=False))


def records(table: Any) -> list[dict[str, Any]]:
    """Rows of a DataFrame."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def print_table(
    rows: Iterable[Row], columns: Mapping[str, str], title: str = "", left: Sequence[str] = ()
) -> None:
    """Print rows under headings.

    Parameters
    ----------
    rows : iterable of mapping
    columns : mapping
        Heading of each key that is shown, in order.
    title : str
        Line above the table.
    left : sequence of str
        Keys that hold text.
    """
    screen = console()
    table = table_of(rows, columns, left)
    if not screen.is_terminal:
        screen.width = max(screen.width, screen.measure(table).maximum)
    if title:
        say(title)
    screen.print(table)
    say()


def table_of(rows: Iterable[Row], columns: Mapping[str, str], left: Sequence[str] = ()) -> Table:
    """Rich table of rows under headings; keys in ``left`` hold text."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for at, (key, heading) in enumerate(columns.items()):
        justify: Literal["left", "right"] = "left" if key in left else "right"
        table.add_column(heading, justify=justify, no_wrap=at == 0)
    for row in rows:
        table.add_row(*(Text(cell(row.get(key))) for key in columns))
    return table


def cell(value: Any) -> str:
    """Text of a value: four significant digits for numbers, a dash for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def percent(value: float) -> str:
    """Text of a share."""
    return "-" if math.isnan(value) else f"{100.0 * value:.1f} %"


def counter(text: str, shown: bool) -> AbstractContextManager[Any]:
    """Progress bar on the error stream: gives a function of (done, total)."""
    return _Counter(text) if shown else nullcontext(lambda done, total: None)


class _Counter(AbstractContextManager[Any]):
    def __init__(self, text: str) -> None:
        self._text, self._said = text, -1

    def __enter__(self) -> Any:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as Remaining

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
        screen = console(stderr=True)
        self._bar = Progress(*columns, console=screen, disable=not screen.is_terminal)
        self._bar.start()
        self._task = self._bar.add_task(self._text, total=None)
        return self._show

    def _show(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)
        quarter = 4 * done // total
        if self._bar.disable and quarter > self._said:
            say(f"{self._text}: {done} of {total}", stderr=True)
            self._said = quarter

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(inner) for inner in value]
    if hasattr(value, "item") and not isinstance(value, str):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
