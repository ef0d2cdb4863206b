"""Trajectories in HDF5, laid out as PDEBench's are (Takamoto et al. 2022, arXiv 2210.07182).

=================  ==================  =============================================================
data set           shape               holds
=================  ==================  =============================================================
``tensor``         (N, T + 1, *space)  the field, where there is one; else a data set a channel
``x-coordinate``   (n,)                points along the first axis; ``y-coordinate`` the second
``t-coordinate``   (T + 1,)            times; (N, T + 1) where runs differ
``nu``             (N, *space)         the coefficient of Darcy flow, ``speed`` that of waves
=================  ==================  =============================================================

Ours add a group ``parameters`` with a value a run of each input, ``diverged`` (N,), and attributes
that say what was computed and how many runs are there, so that an interrupted file goes on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.simulator import FieldSimulator, diverged

_STORED = {"vx": "Vx", "vy": "Vy", "coefficient": "nu"}
_AXES = ("x-coordinate", "y-coordinate", "z-coordinate")
_OURS = "understudy"
_DONE = "done"
_SPARE = 2**20  # bytes for what HDF5 adds

Listener = Callable[[int, int], None]
"""Is told how many runs of how many are stored."""


@dataclass(frozen=True)
class FieldData:
    """What a file holds.

    Attributes
    ----------
    fields : Tensor (N, T + 1, C, *space), float32
    channels : tuple of str
    times : Tensor (T + 1,) or (N, T + 1), float64
    axes : tuple of Tensor (n,), float64
    parameters : DataFrame (N, d)
        Empty for files that hold none.
    inputs : dict of Tensor (N, *space), float32
    diverged : Tensor (N,), bool
    """

    fields: Tensor
    channels: tuple[str, ...]
    times: Tensor
    axes: tuple[Tensor, ...]
    parameters: pd.DataFrame
    inputs: dict[str, Tensor]
    diverged: Tensor


def write_fields(
    path: Path,
    simulator: FieldSimulator,
    table: pd.DataFrame,
    equation: str = "",
    batch: int = 16,
    listener: Listener | None = None,
) -> int:
    """Simulate the rows of a table into a file, batch by batch, from where it ends.

    Parameters
    ----------
    path : Path
        A file of the same runs, or of the first of them, is continued.
    simulator : FieldSimulator
    table : DataFrame (N, d)
        Of its inputs.
    equation : str
        What the file says of itself; a file that says otherwise is not continued.
    batch : int
        Runs at a time. Ctrl-C loses those of the current batch only.
    listener : callable, optional

    Returns
    -------
    int
        Runs that were there before.
    """
    h5py = _h5py()
    if batch < 1:
        raise UserError(f"batch must be at least 1, found {batch}")
    simulator.values(table)
    try:
        with _opened(h5py, path, "a") as file:
            return _continue(file, path, simulator, table, equation, batch, listener)
    except OSError as error:  # of the file, as long as it is written and when it is closed
        reason = str(error).partition("error message = '")[2].partition("'")[0]
        raise UserError(
            f"{path} could not be written to its end{reason and f': {reason}'}; "
            "the file may be damaged, so start it anew"
        ) from error


def _continue(
    file: Any,
    path: Path,
    simulator: FieldSimulator,
    table: pd.DataFrame,
    equation: str,
    batch: int,
    listener: Listener | None,
) -> int:
    before = _stored(file, path, simulator, table, equation) if len(file.attrs) or len(file) else 0
    if not before and _OURS not in file.attrs:
        file.attrs[_OURS], file.attrs[_DONE] = _description(simulator, equation), 0
    for first in range(before, len(table), batch):
        if listener:
            listener(first, len(table))
        _append(file, simulator, table.iloc[first : first + batch], first)
    if listener:
        listener(len(table), len(table))
    return before


def read_fields(path: Path | str, runs: slice | None = None) -> FieldData:
    """Fields and all that belongs to them; also of files of PDEBench.

    Parameters
    ----------
    path : path
    runs : slice, optional
        Which runs, all by default.
    """
    h5py, chosen, path = _h5py(), runs or slice(None), Path(path)
    if not path.exists():
        raise UserError(f"{path}: there is no such file")
    with _opened(h5py, path, "r") as file:
        names = _channels(file, path)
        _check_layout(h5py, file, path, names)
        if runs is None and _DONE in file.attrs:  # a batch that was cut off does not count
            chosen = slice(int(file.attrs[_DONE]))
        fields = torch.stack([_tensor(file[name], chosen) for name in names], dim=2)
        space = fields.shape[3:]
        given = {
            name: _tensor(item, chosen)
            for name, item in file.items()
            if name not in names and isinstance(item, h5py.Dataset) and item.shape[1:] == space
        }
        group = file.get("parameters", {})
        parameters = pd.DataFrame({name: group[name][chosen] for name in group})
        t = torch.from_numpy(np.asarray(file["t-coordinate"], dtype=np.float64))
        times = t[chosen] if t.ndim == 2 else t[: fields.shape[1]]
        axes = tuple(
            torch.from_numpy(np.asarray(file[name], dtype=np.float64))
            for name in _AXES[: len(space)]
        )
    return FieldData(fields, names, times, axes, parameters, given, diverged(fields))


def _append(file: Any, simulator: FieldSimulator, rows: pd.DataFrame, first: int) -> None:
    """Store runs from the row ``first`` on; they count once all of them is there."""
    with torch.no_grad():
        fields = simulator.fields(rows)
        inputs = simulator.inputs(rows)
    _require_space(Path(file.filename), [fields, *inputs.values()], first)
    times = simulator.times(rows)
    only = len(simulator.channels) == 1
    for c, name in enumerate(simulator.channels):
        _put(file, "tensor" if only else _STORED.get(name, name), fields[:, :, c], first)
    for name, field in inputs.items():
        _put(file, _STORED.get(name, name), field.float(), first)
    for name in simulator.space.names:
        _put(file, f"parameters/{name}", torch.from_numpy(rows[name].to_numpy().copy()), first)
    _put(file, "diverged", diverged(fields), first)
    if not first:
        for name, axis in zip(_AXES, simulator.grid.axes(), strict=False):
            file[name] = axis.numpy()
    if "time_step" in simulator.space:
        _put(file, "t-coordinate", times, first)
    elif not first:
        file["t-coordinate"] = times[0].numpy()
    file.flush()
    file.attrs[_DONE] = first + len(rows)
    file.flush()


def _require_space(path: Path, stored: list[Tensor], before: int) -> None:
    """Refuse to go on where the disk is nearly full: HDF5 damages files that it cannot write."""
    wanted = sum(value.numel() * 4 for value in stored) + _SPARE
    free = shutil.disk_usage(path.parent).free
    if free < wanted:
        raise UserError(
            f"the disk of {path} has {free / 1e6:.1f} MB left, and the next runs take "
            f"{wanted / 1e6:.1f} MB; the {before:,} runs that are there are kept"
        )


def _put(file: Any, name: str, values: Tensor, first: int) -> None:
    shape, array = tuple(values.shape), values.numpy()
    if name not in file:
        file.create_dataset(
            name, shape, array.dtype, chunks=(1, *shape[1:]), maxshape=(None, *shape[1:])
        )
    data = file[name]
    data.resize(first + len(values), axis=0)
    data[first:] = array


def _stored(
    file: Any, path: Path, simulator: FieldSimulator, table: pd.DataFrame, equation: str
) -> int:
    """Runs that a file has of a table; another file is refused."""
    found = file.attrs.get(_OURS)
    if found is None:
        raise UserError(f"{path} is a file of something else; name another")
    if found != _description(simulator, equation):
        raise UserError(
            f"{path} holds runs of {json.loads(found)['equation']!r} with other settings; "
            "name another file, or replace it"
        )
    done = int(file.attrs[_DONE])
    both = min(done, len(table))
    for name in simulator.space.names if both else ():
        if not np.array_equal(file[f"parameters/{name}"][:both], table[name].to_numpy()[:both]):
            raise UserError(
                f"{path} holds runs with other values of {name!r} (another seed or another range); "
                "name another file, or replace it"
            )
    return done


def _description(simulator: FieldSimulator, equation: str) -> str:
    settings = {
        name: value
        for name, value in vars(simulator).items()
        if isinstance(value, int | float | str) and not name.startswith("_")
    }
    grid = {"shape": simulator.grid.shape, "placement": simulator.grid.placement}
    record = {"equation": equation, "settings": settings, "grid": grid}
    return json.dumps(record, sort_keys=True)


def _channels(file: Any, path: Path) -> tuple[str, ...]:
    """Data sets that hold fields over time."""
    if "tensor" in file:
        return ("tensor",)
    space = sum(name in file for name in _AXES)
    names = tuple(
        name for name, item in file.items() if len(getattr(item, "shape", ())) == space + 2
    )
    if not space or not names or "t-coordinate" not in file:
        raise UserError(f"{path} has no fields as PDEBench lays them out")
    return names


def _check_layout(h5py: Any, file: Any, path: Path, names: tuple[str, ...]) -> None:
    """Refuse data sets that are missing, are no numbers, or do not fit one another."""
    shape: tuple[int, ...] = getattr(file[names[0]], "shape", ())
    axes = _AXES[: len(shape) - 2]
    if not 3 <= len(shape) <= 2 + len(_AXES) or 0 in shape:
        raise UserError(
            f"{path}: {names[0]!r} should be of shape (runs, times, points along each axis), "
            f"found {shape}"
        )
    group = file.get("parameters", {})
    inside = {f"parameters/{name}": group[name] for name in group}
    for name in (*names, *axes, "t-coordinate", *inside):
        item = file.get(name)
        if not isinstance(item, h5py.Dataset):
            raise UserError(f"{path} has no data set {name!r}, which PDEBench's layout needs")
        if item.dtype.kind not in "fiub":
            raise UserError(f"{path}: {name!r} holds no numbers")
    wanted = {name: shape for name in names}
    wanted |= {axis: (n,) for axis, n in zip(axes, shape[2:], strict=True)}
    wanted |= {name: shape[:1] for name in inside if _DONE not in file.attrs}
    for name, size in wanted.items():
        if file[name].shape != size:
            raise UserError(f"{path}: {name!r} should be of shape {size}, found {file[name].shape}")
    times = file["t-coordinate"].shape
    if times != shape[:2] and (len(times) != 1 or times[0] < shape[1]):
        raise UserError(f"{path}: fields have {shape[1]} times, 't-coordinate' is of shape {times}")


def _tensor(data: Any, runs: slice) -> Tensor:
    return torch.from_numpy(np.asarray(data[runs], dtype=np.float32))


def _opened(h5py: Any, path: Path, mode: str) -> Any:
    try:
        return h5py.File(path, mode)
    except OSError as error:
        raise UserError(f"{path} is not an HDF5 file, or a damaged one") from error


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            "HDF5 files need h5py: install it with pip install 'understudy[fields]'"
        ) from error
    return h5py
