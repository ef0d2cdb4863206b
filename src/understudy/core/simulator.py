"""Where the truth comes from: something with named inputs that can be run for named outputs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import pandas as pd
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.space import Space, nearest

Parameters: TypeAlias = Mapping[str, Any] | pd.DataFrame | Tensor
"""Of one run, of a run a row, or the codes ``(B, d)`` of these."""


_SMALL = 1 << 15  # numbers of a batch, below which threads wait for one another


class Simulator(ABC):
    """Runs for one set of parameters at a time.

    Attributes
    ----------
    space : Space
        The inputs and the ranges in which the simulator is meant to be run.
    outputs : tuple of str
        Names of what a run gives.
    """

    space: Space
    outputs: tuple[str, ...]

    @abstractmethod
    def run(self, params: Mapping[str, Any] | pd.Series) -> dict[str, float]:
        """Outputs for one value of each input.

        Parameters
        ----------
        params : mapping or row of a DataFrame
            Value of each input by name.
        """

    def run_many(self, df: pd.DataFrame) -> pd.DataFrame:
        """Outputs for each row of a table of inputs ``(n, d)``: a table ``(n, m)``, same index."""
        rows = [self.run(row) for row in df.to_dict("records")]
        return pd.DataFrame(rows, index=df.index, columns=list(self.outputs))

    def _complete(self, params: Mapping[str, Any] | pd.Series) -> dict[str, Any]:
        """Parameters by name; an unknown or a missing one is refused."""
        given = {str(name): value for name, value in params.items()}
        for name in given:
            if name not in self.space:
                raise UserError(f"no input {name!r}{nearest(name, self.space.names)}")
        for name in self.space.names:
            if name not in given:
                raise UserError(f"input {name!r} is missing; needed are {self.space.names}")
        return given


class BatchedSimulator(Simulator):
    """Runs for many parameters at once, in one tensor computation."""

    @abstractmethod
    def evaluate(self, X: Tensor) -> Tensor:
        """Outputs ``(..., m)`` of codes ``(..., d)``, see :meth:`Space.encode`."""

    def run(self, params: Mapping[str, Any] | pd.Series) -> dict[str, float]:  # noqa: D102
        row = pd.DataFrame([self._complete(params)])
        return {name: float(value) for name, value in self.run_many(row).iloc[0].items()}

    def run_many(self, df: pd.DataFrame) -> pd.DataFrame:  # noqa: D102
        Y = self.evaluate(torch.from_numpy(self.space.encode(df)))
        return pd.DataFrame(Y.numpy(), index=df.index, columns=list(self.outputs))


class FieldSimulator(Simulator):
    """Runs of a partial differential equation: fields on a grid, at one or several times.

    Runs of a batch do not know of each other: each is what it would be alone. A run that leaves
    the finite numbers is NaN from then on and stops no other, see :func:`diverged`. Fields are
    computed in float64, unless a simulator is asked for single precision, and given in float32.
    Codes and starts may carry gradients.

    Attributes
    ----------
    grid : Grid
        Where fields are sampled.
    channels : tuple of str
        Names of the fields.
    """

    grid: Grid
    channels: tuple[str, ...]

    @abstractmethod
    def times(self, params: Parameters) -> Tensor:
        """Times ``(B, T + 1)``, float64, at which :meth:`stream` gives fields."""

    @abstractmethod
    def initial(self, params: Parameters) -> Tensor:
        """First fields ``(B, C, *space)``, float64, drawn by the seeds among the parameters."""

    @abstractmethod
    def _march(self, values: dict[str, Tensor], start: Tensor | None) -> Iterator[Tensor]:
        """Fields ``(B, C, *space)``, float64, one for each time, from ``(B,)`` of each input.

        Without a start, the seeds among the inputs draw one.
        """

    def inputs(self, params: Parameters) -> dict[str, Tensor]:
        """Fields ``(B, *space)`` that are given rather than computed, such as coefficients."""
        return {}

    def stream(
        self, params: Parameters, start: Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Times ``(B,)`` and fields ``(B, C, *space)``, as they are computed; nothing is kept.

        Parameters
        ----------
        params : mapping, DataFrame (B, d) or codes Tensor (B, d)
        start : Tensor (B, C, *space), optional
            First fields in place of those that the seeds draw.
        """
        codes = self._codes(params)
        values = self.values(codes)
        times = self._times(codes, values)
        runs = len(times)
        begin = None if start is None else self._checked(start, runs)
        small = runs * len(self.channels) * math.prod(self.grid.shape) < _SMALL
        threads = torch.get_num_threads()
        march = self._march(values, begin)
        lost: Tensor | None = None
        for t in times.T:
            torch.set_num_threads(1 if small else threads)
            try:
                single = next(march).to(torch.float32)
                if lost is not None or not math.isfinite(single.sum().item()):
                    now = ~single.detach().flatten(1).isfinite().all(1).cpu()
                    lost = now if lost is None else lost | now
                    gone = lost.to(single.device).reshape(-1, *[1] * (single.ndim - 1))
                    single = torch.where(gone, torch.nan, single)
            finally:
                torch.set_num_threads(threads)
            yield t, single

    def fields(self, params: Parameters, start: Tensor | None = None) -> Tensor:
        """Trajectories ``(B, T + 1, C, *space)``, float32; the arguments are those of stream."""
        return torch.stack([field for _, field in self.stream(params, start)], dim=1)

    def values(self, params: Parameters) -> dict[str, Tensor]:
        """Value ``(B,)``, float64, of each input, checked."""
        codes = self._codes(params)
        if codes.ndim != 2 or codes.shape[1] != len(self.space) or not len(codes):
            raise UserError(
                f"parameters must be of shape (B, {len(self.space)}) with B at least 1, "
                f"found {tuple(codes.shape)}"
            )
        values = dict(zip(self.space.names, codes.to(torch.float64).unbind(-1), strict=True))
        self._check(values)
        return values

    def _times(self, codes: Tensor, values: dict[str, Tensor]) -> Tensor:
        """Times of checked values, which need not be checked again."""
        return self.times(codes)

    def _codes(self, params: Parameters) -> Tensor:
        if isinstance(params, Tensor):
            return params
        table = params if isinstance(params, pd.DataFrame) else None
        if table is None:
            table = pd.DataFrame([self._complete(params)])
        return torch.from_numpy(self.space.encode(table))

    def _check(self, values: dict[str, Tensor]) -> None:
        """Refuse values with which the equation or its discretisation makes no sense."""

    def _checked(self, start: Tensor, runs: int) -> Tensor:
        expected = (runs, len(self.channels), *self.grid.shape)
        if tuple(start.shape) != expected:
            raise UserError(
                f"start must be of shape {expected} (runs, channels, space), "
                f"found {tuple(start.shape)}"
            )
        return start.to(torch.float64)

    @property
    def outputs(self) -> tuple[str, ...]:  # type: ignore[override]
        """Mean, root mean square and largest magnitude of each field at the end."""
        return tuple(f"{c}_{what}" for c in self.channels for what in ("mean", "rms", "peak"))

    def run(self, params: Mapping[str, Any] | pd.Series) -> dict[str, float]:  # noqa: D102
        row = pd.DataFrame([self._complete(params)])
        return {name: float(value) for name, value in self.run_many(row).iloc[0].items()}

    @torch.no_grad()
    def run_many(self, df: pd.DataFrame) -> pd.DataFrame:
        """Summaries ``(n, 3 C)`` of the last fields; NaN where a run diverged."""
        for _, field in self.stream(df):
            last = field
        flat = last.double().flatten(2)
        summary = [flat.mean(-1), flat.square().mean(-1).sqrt(), flat.abs().amax(-1)]
        table = torch.stack(summary, dim=-1).flatten(1).cpu().numpy()
        return pd.DataFrame(table, index=df.index, columns=list(self.outputs))


def diverged(fields: Tensor) -> Tensor:
    """Which runs ``(B,)`` of trajectories ``(B, ...)`` left the finite numbers."""
    return ~fields.flatten(1).isfinite().all(1)
