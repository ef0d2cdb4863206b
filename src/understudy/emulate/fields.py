"""What an operator is to learn: runs of an equation, or of a file, with all that describes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.grid import Grid, Placement
from understudy.core.simulator import FieldSimulator, diverged
from understudy.models.operators.one_step import About

Count = Callable[[int, int], None]
"""Is told how many runs of how many are there."""

_TIME_STEP = "time_step"


@dataclass(frozen=True)
class FieldSet:
    """Runs on one grid.

    Attributes
    ----------
    fields : Tensor (N, T, C, *space), float32
        Without runs that diverged.
    given : Tensor (N, G, *space), float32, optional
        Fields that were given rather than computed.
    parameters : DataFrame (N, P)
        Numbers of the equation that differ between runs.
    dt : float
        Time between two fields, the mean where runs differ; 0 for steady problems.
    grid : Grid
    channels, given_channels : tuple of str
    source : str
        Where they are from.
    dropped : int
        Runs left out because they diverged.
    """

    fields: Tensor
    given: Tensor | None
    parameters: pd.DataFrame
    dt: float
    grid: Grid
    channels: tuple[str, ...]
    given_channels: tuple[str, ...]
    source: str
    dropped: int = 0

    @property
    def steady(self) -> bool:
        """Whether there is one field a run."""
        return self.fields.shape[1] == 1

    @property
    def numbers(self) -> Tensor | None:
        """Parameters ``(N, P)``, float64; None where there are none."""
        if not self.parameters.shape[1]:
            return None
        return torch.from_numpy(self.parameters.to_numpy(np.float64).copy())

    @property
    def about(self) -> About:
        """What an operator over time is told beside fields and numbers."""
        return {
            "dt": self.dt,
            "grid": self.grid,
            "channels": self.channels,
            "parameters": [str(name) for name in self.parameters.columns],
        }

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, rows: Tensor) -> FieldSet:
        """Return some of the runs."""
        return replace(
            self,
            fields=self.fields[rows],
            given=None if self.given is None else self.given[rows],
            parameters=self.parameters.iloc[rows.numpy()].reset_index(drop=True),
        )

    def split(self, seed: int = 0) -> tuple[FieldSet, FieldSet, FieldSet]:
        """Shuffled runs to train on, to validate by (a tenth) and to test by (a fifth, up to 64).

        Raises
        ------
        UserError
            If there are fewer than 8 runs.
        """
        if len(self) < 8:
            raise UserError(f"{self.source}: {len(self)} usable runs; at least 8 are needed")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        test = min(max(len(self) // 5, 1), 64)
        held = max(len(self) // 10, 1)
        return self[order[test + held :]], self[order[test : test + held]], self[order[:test]]


def simulated(
    simulator: FieldSimulator,
    table: pd.DataFrame,
    source: str,
    stride: int = 1,
    batch: int = 16,
    listener: Count | None = None,
) -> FieldSet:
    """Runs of a simulator, one for each row of a table of its inputs.

    Parameters
    ----------
    simulator : FieldSimulator
    table : DataFrame (N, d)
    source : str
        Name of the equation.
    stride : int
        Fields are kept at every so many of the simulator's times.
    batch : int
        Runs at a time.
    listener : callable, optional
    """
    parts, given = [], []
    with torch.no_grad():
        for first in range(0, len(table), batch):
            if listener is not None:
                listener(first, len(table))
            rows = table.iloc[first : first + batch]
            kept = [f for i, (_, f) in enumerate(simulator.stream(rows)) if i % stride == 0]
            parts.append(torch.stack(kept, dim=1))
            given.append(simulator.inputs(rows))
    if listener is not None:
        listener(len(table), len(table))
    names = tuple(given[0])
    fixed = [torch.cat([part[name].float() for part in given]) for name in names]
    return _usable(
        torch.cat(parts),
        torch.stack(fixed, dim=1) if names else None,
        conditions(simulator, table),
        _spacing(simulator.times(table)[:, ::stride], source),
        simulator.grid,
        simulator.channels,
        names,
        source,
    )


def conditions(simulator: FieldSimulator, table: pd.DataFrame) -> pd.DataFrame:
    """Inputs ``(N, P)`` of runs that an operator is told: those that differ and are no seeds."""
    told = [name for name in simulator.space.names if not _is_seed(name)]
    return _varying(table[told])


def from_file(path: Path, stride: int = 1) -> FieldSet:
    """Runs of an HDF5 file, ours or PDEBench's.

    Parameters
    ----------
    path : Path
    stride : int
        Every so many times are kept.
    """
    from understudy.simulate.pde.files import read_fields

    data = read_fields(path)
    fields = data.fields[:, ::stride]
    times = data.times[..., ::stride]
    names = tuple(data.inputs)
    given = torch.stack([data.inputs[name] for name in names], dim=1) if names else None
    parameters = data.parameters.reindex(range(len(fields)))
    told = parameters[[c for c in parameters.columns if not _is_seed(str(c))]]
    dt = _spacing(times.reshape(-1, times.shape[-1]), str(path))
    grid = _grid(path, data.axes)
    return _usable(fields, given, _varying(told), dt, grid, data.channels, names, path.name)


def is_file(source: str) -> bool:
    """Whether a source is meant as a file rather than as an equation."""
    return Path(source).suffix.lower() in (".h5", ".hdf5", ".hdf") or Path(source).exists()


def _usable(
    fields: Tensor,
    given: Tensor | None,
    parameters: pd.DataFrame,
    dt: float,
    grid: Grid,
    channels: tuple[str, ...],
    names: tuple[str, ...],
    source: str,
) -> FieldSet:
    lost = diverged(fields)
    everything = FieldSet(fields, given, parameters, dt, grid, channels, names, source)
    if fields.shape[1] == 1 and given is None:
        raise UserError(
            f"{source}: there is one time only and no given field, so there is nothing to predict"
        )
    if not bool(lost.any()):
        return everything
    if bool(lost.all()):
        raise UserError(f"{source}: every run diverged")
    return replace(everything[(~lost).nonzero().flatten()], dropped=int(lost.sum()))


def _is_seed(name: str) -> bool:
    return name == "seed" or name.endswith("_seed")


def _varying(table: pd.DataFrame) -> pd.DataFrame:
    table = table.reset_index(drop=True)
    return table[[name for name in table.columns if table[name].nunique() > 1]]


def _spacing(times: Tensor, source: str) -> float:
    """Mean time between fields ``(N, T)``; unequal steps within a run are refused."""
    if times.shape[1] < 2:
        return 0.0
    if not bool(times.isfinite().all()):
        raise UserError(f"{source}: times must be finite")
    steps = times.diff(dim=1)
    mean = steps.mean(dim=1, keepdim=True)
    if bool((mean <= 0).any()) or float(((steps - mean) / mean).abs().max()) > 1e-3:
        raise UserError(f"{source}: times must be equally spaced and grow within each run")
    return float(mean.mean())


def _grid(path: Path, axes: tuple[Tensor, ...]) -> Grid:
    """Grid of a file: what it says of itself, else centres of cells, as in PDEBench."""
    import h5py

    with h5py.File(path, "r") as file:
        said: Mapping[str, Any] = json.loads(file.attrs.get("understudy", "{}"))
    placement: Placement = said.get("grid", {}).get("placement", "cells")
    offset = {"periodic": 0.0, "cells": 0.5, "interior": 1.0}[placement]
    end = {"periodic": 1.0, "cells": 0.5, "interior": 1.0}[placement]
    shape, lower, upper = [], [], []
    for axis in axes:
        steps = axis.diff()
        if len(axis) < 2:
            raise UserError(f"{path}: at least two points along each axis are needed")
        if not float((steps / steps.mean() - 1.0).abs().max()) <= 1e-3:
            raise UserError(f"{path}: points along an axis must be equally spaced")
        h = float(steps.mean())
        shape.append(len(axis))
        lower.append(float(axis[0]) - offset * h)
        upper.append(float(axis[-1]) + end * h)
    return Grid(tuple(shape), tuple(lower), tuple(upper), placement)
