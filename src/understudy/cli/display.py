"""What shows long work while it runs: a live picture on a terminal, lines elsewhere."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Self

from understudy.cli.console import console, say

if TYPE_CHECKING:
    from rich.console import Group


class Display(AbstractContextManager["Display"]):
    """A picture on the error stream that is drawn anew four times a second, and lines above it.

    A subclass writes ``_render``, the picture.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._screen = console(stderr=True)
        self._lively = self._screen.is_terminal and not quiet

    def __enter__(self) -> Self:
        from rich.live import Live

        self._live = Live(
            get_renderable=self._render, console=self._screen, refresh_per_second=4, transient=True
        )
        if self._lively:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lively:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line above the picture."""
        if self._lively:
            self._screen.print(text, markup=False)
        elif not self._quiet:
            say(text, stderr=True)

    @abstractmethod
    def _render(self) -> Group:
        """Draw the picture as it is now."""
