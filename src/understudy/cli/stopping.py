"""What Ctrl-C means during a fit: once, keep the best so far; twice, give up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType

from understudy.core.progress import Progress

_COMPARING = "candidates"
_BEFORE = ("read", "transform")


class Stopping(AbstractContextManager["Stopping"]):
    """Handles SIGINT by the stage that a fit is in, of which it must be told.

    Before the comparison there is nothing to keep, and Ctrl-C ends the program. During it the
    comparison ends, and what finished is kept. After it the fit is nearly done and goes on.

    Parameters
    ----------
    say : callable
        Tells the user what happens.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._stage, self._pressed = say, _BEFORE[0], 0

    def __enter__(self) -> Stopping:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._main:
            signal.signal(signal.SIGINT, self._previous)

    def __call__(self, progress: Progress) -> None:
        """Take note of the stage."""
        self._stage = progress.stage

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._pressed += 1
        if self._pressed > 1 or self._stage in _BEFORE:
            raise KeyboardInterrupt
        if self._stage == _COMPARING:
            self._say("stopping: the best so far is kept (Ctrl-C again to give up)")
            raise KeyboardInterrupt
        self._say("nearly done: finishing (Ctrl-C again to give up)")
