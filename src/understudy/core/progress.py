"""What long work says of itself while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Standing:
    """One candidate in a running comparison.

    ``score`` is the cross-validated metric (lower is better), ``weight`` its share of the final
    stack; both None until known. ``status`` is waiting, running, done, stopped or failed.
    """

    name: str
    status: str = "waiting"
    score: float | None = None
    r2: float | None = None
    seconds: float = 0.0
    weight: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Progress:
    """A moment of a running job.

    ``stage`` is one of read, transform, candidates, stack, calibrate, test, sensitivity, done;
    ``elapsed`` and ``budget`` are seconds; ``standings`` the comparison so far.
    """

    stage: str
    elapsed: float
    budget: float
    message: str = ""
    standings: tuple[Standing, ...] = ()


Listener = Callable[[Progress], None]
"""Receives each `Progress`; raising KeyboardInterrupt in it stops the work and keeps the best."""
