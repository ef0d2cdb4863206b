"""What a solver has to offer, and how a worker runs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from understudy.core.space import Space
from understudy.simulate.stream.wire import Address, Line


class StreamingSolver(Protocol):
    """Something whose runs give fields one time after the other.

    Every `understudy.core.simulator.FieldSimulator` is one, and
    `understudy.simulate.stream.external.ExternalSolver` makes one of any program. To be run in
    other processes it has to be picklable.
    """

    @property
    def space(self) -> Space:
        """Inputs of a run."""

    def stream(self, params: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Times ``(B,)`` and fields ``(B, *shape)`` of runs of codes ``(B, d)``, step by step."""


@torch.no_grad()
def stream_job(
    solver: Any, codes: list[list[float]], address: Address, secret: bytes, job: int, attempt: int
) -> int:
    """Run solver for some runs side by side, and send every time step.

    Parameters
    ----------
    solver : StreamingSolver
    codes : list (B, d)
    address, secret
        Of the study.
    job, attempt : int

    Returns
    -------
    int
        Time steps sent.
    """
    line = Line(address, secret, job, attempt)
    steps = 0
    for times, fields in solver.stream(torch.tensor(codes, dtype=torch.float64)):
        alive = line.send(steps, times, fields)
        steps += 1
        if not alive:
            break
    line.end(steps)
    return steps
