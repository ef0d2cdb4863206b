"""From time steps to samples in the buffer: each once, and none of a run that diverges."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from understudy.simulate.stream.buffers import Buffer
from understudy.simulate.stream.ledger import Ledger, Run
from understudy.simulate.stream.samples import Assembler, Sample, Windows
from understudy.simulate.stream.wire import Step


class Intake:
    """Takes the time steps of one job, one attempt, in order.

    Parameters
    ----------
    runs : sequence of Run
        In the order of the rows of the steps.
    buffer : Buffer
    ledger : Ledger
    windows : Windows
    """

    def __init__(
        self, runs: Sequence[Run], buffer: Buffer[Sample], ledger: Ledger, windows: Windows
    ) -> None:
        self.runs, self._buffer, self._ledger = runs, buffer, ledger
        self._assemblers = [Assembler(run.number, run.codes, windows) for run in runs]

    def take(self, row: int, message: Step) -> bool:
        """Take one run's part of a time step; waits for room in the buffer.

        Returns
        -------
        bool
            Whether the time step was new.
        """
        number, ledger = self.runs[row].number, self._ledger
        if not bool(message.alive[row]):
            self._strike(number, message.step)
            return False
        # a copy: the other runs of the message shall not live as long as this one
        field = message.fields[row].clone() if len(message.fields) > 1 else message.fields[row]
        sample = self._assemblers[row].add(message.step, float(message.times[row]), field)
        size = field.numel() * field.element_size()
        with self._buffer.lock:
            if not ledger.awaits(number, message.step):
                return False
            if sample is None:
                return ledger.admit(number, message.step, size)
        return self._buffer.put(sample, lambda: ledger.admit(number, message.step, size))

    def _strike(self, number: int, step: int) -> None:
        with self._buffer.lock:
            if number in self._ledger.runs:
                discard(self._buffer, number)
                self._ledger.drop(number, f"diverged at step {step}")


def discard(buffer: Buffer[Sample], run: int) -> int:
    """Remove the samples of a run; returns how many."""
    return buffer.discard(lambda sample: sample.run == run)


def as_step(number: int, times: Tensor, fields: Tensor) -> Step:
    """Time step of fields ``(B, *shape)`` that were computed in this process."""
    single = fields.detach().float().clone()
    return Step(number, times.double(), single.flatten(1).isfinite().all(1), single)
