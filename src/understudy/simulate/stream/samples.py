"""What is learned from: single fields, or windows of consecutive fields, of streamed runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from understudy.core.errors import UserError


class Sample(NamedTuple):
    """Consecutive fields of a run.

    Parameters
    ----------
    run : int
        Number of the run.
    step : int
        Of the last of the fields, counted from 0.
    t : float
        Time of the last of the fields.
    codes : Tensor (d,)
        Parameters of the run, float64.
    fields : tuple of Tensor (*shape)
        Oldest first, float32. Samples that overlap share them.
    """

    run: int
    step: int
    t: float
    codes: Tensor
    fields: tuple[Tensor, ...]


@dataclass(frozen=True)
class Windows:
    """How many fields make a sample.

    Parameters
    ----------
    history : int
        Fields that are given: 0 for direct models (parameters, t) -> u(t), 1 for autoregressive
        ones u(t) -> u(t + 1), more for networks that look back.
    bundle : int
        Fields that follow, to be predicted at once.
    """

    history: int = 0
    bundle: int = 1

    def __post_init__(self) -> None:
        if self.history < 0 or self.bundle < 1:
            raise UserError(
                "history must be at least 0 and bundle at least 1, "
                f"found {self.history} and {self.bundle}"
            )

    def __len__(self) -> int:
        return self.history + self.bundle


class Assembler:
    """Samples of one run from its fields as they come.

    Parameters
    ----------
    run : int
    codes : Tensor (d,)
    windows : Windows
    """

    def __init__(self, run: int, codes: Tensor, windows: Windows) -> None:
        self.run, self.codes = run, codes
        self._last: deque[Tensor] = deque(maxlen=len(windows))

    def add(self, step: int, t: float, field: Tensor) -> Sample | None:
        """Sample that ends with this field; None while there are too few fields."""
        self._last.append(field)
        if len(self._last) < (self._last.maxlen or 1):
            return None
        return Sample(self.run, step, t, self.codes, tuple(self._last))


@dataclass(frozen=True)
class Batch:
    """Samples side by side.

    Parameters
    ----------
    runs, steps : LongTensor (B,)
    times : Tensor (B,)
        Of the last field of each sample, float64.
    codes : Tensor (B, d)
        Parameters, float64.
    before : Tensor (B, history, *shape)
    after : Tensor (B, bundle, *shape)
    """

    runs: Tensor
    steps: Tensor
    times: Tensor
    codes: Tensor
    before: Tensor
    after: Tensor

    @classmethod
    def of(cls, samples: Sequence[Sample], windows: Windows) -> Batch:
        """Batch of samples."""
        stacked = torch.stack([field for sample in samples for field in sample.fields])
        whole = stacked.unflatten(0, (len(samples), len(windows)))
        return cls(
            torch.tensor([sample.run for sample in samples]),
            torch.tensor([sample.step for sample in samples]),
            torch.tensor([sample.t for sample in samples], dtype=torch.float64),
            torch.stack([sample.codes for sample in samples]),
            whole[:, : windows.history],
            whole[:, windows.history :],
        )

    def __len__(self) -> int:
        return len(self.runs)

    def __getitem__(self, rows: slice | Tensor) -> Batch:
        return Batch(*(getattr(self, item.name)[rows] for item in fields(self)))

    def chunks(self, size: int) -> Iterator[Batch]:
        """Yield consecutive parts of at most that many samples."""
        for start in range(0, len(self), size):
            yield self[start : start + size]

    def to(self, device: torch.device) -> Batch:
        """Copy on a device; times and codes become float32 where it has no float64."""
        if device.type == "cpu":
            return self
        held = self if device.type != "mps" else self._single()
        return Batch(*(getattr(held, item.name).to(device) for item in fields(held)))

    def _single(self) -> Batch:
        return replace(self, times=self.times.float(), codes=self.codes.float())
