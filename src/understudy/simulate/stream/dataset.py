"""A buffer as a data set of PyTorch, for training loops of one's own."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import IterableDataset, get_worker_info

from understudy.core.errors import UserError
from understudy.simulate.stream.buffers import Buffer
from understudy.simulate.stream.samples import Batch, Sample, Windows


class BufferDataset(IterableDataset[Batch]):
    """Batches from a buffer until reception is over and all was used.

    A data loader over it has ``batch_size=None`` and no workers: each would have a copy of the
    buffer to itself.

    Parameters
    ----------
    buffer : Buffer
        That something else fills, such as an `understudy.simulate.stream.ensemble.Ensemble`.
    batch_size : int
    windows : Windows, optional
        Of the samples in the buffer.
    """

    def __init__(
        self, buffer: Buffer[Sample], batch_size: int, windows: Windows | None = None
    ) -> None:
        self.buffer, self.batch_size, self.windows = buffer, batch_size, windows or Windows()

    def __iter__(self) -> Iterator[Batch]:
        if get_worker_info() is not None:
            raise UserError("workers of a data loader cannot read a buffer; set num_workers=0")
        while samples := self.buffer.get(self.batch_size):
            yield Batch.of(samples, self.windows)
