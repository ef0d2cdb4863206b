"""Rows of a request as codes of a space: what is wrong is said by column and row.

`understudy.core.space.Space.encode` does the same for a DataFrame; this takes columns of JSON,
NumPy or Arrow, is stricter, and needs no pandas, which for one row would take most of the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from understudy.core.space import Categorical, Input, Space, nearest
from understudy.serve.refusal import Problem, Refusal, invalid

Column: TypeAlias = "Sequence[Any] | NDArray[Any]"

_PER_COLUMN = 5  # bad cells of a column that are described


@dataclass(frozen=True)
class Rows:
    """Coded rows.

    Parameters
    ----------
    X : ndarray (n, d)
        Codes of the space.
    outside : ndarray (n, d)
        Which cells lie outside the range that the model was fitted on.
    """

    X: NDArray[np.float64]
    outside: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.X)


def encode(space: Space, columns: Mapping[str, Column], most: int) -> Rows:
    """Codes of columns of equal length.

    Parameters
    ----------
    space : Space
    columns : mapping of str to column
        A column for each input and no other.
    most : int
        Rows that are accepted.

    Raises
    ------
    Refusal
        413 for too many rows; 422 for an unknown or missing column, columns that differ in length,
        no rows, or a cell that is empty, not a finite number or none of the choices.
    """
    problems = _names(space, columns)
    if problems:
        raise invalid(problems)
    lengths = {name: len(columns[name]) for name in space.names}
    n = lengths[space.names[0]]
    for name, length in lengths.items():
        if length != n:
            message = f"has {length} rows where column {space.names[0]!r} has {n}"
            raise invalid([Problem(name, message)])
    check_count(n, most)
    X = np.empty((n, len(space)))
    for j, item in enumerate(space):
        X[:, j] = _codes(item, columns[item.name], problems)
    if problems:
        raise invalid(problems)
    return Rows(X, space.outside(X))


def check_count(n: int, most: int) -> None:
    """Refuse no rows and too many."""
    if n == 0:
        raise invalid([Problem("rows", "there are no rows; give at least one")])
    if n > most:
        raise Refusal(413, "too_many_rows", f"{n:,} rows; at most {most:,} are accepted")


def named(cells: NDArray[np.bool_], names: Sequence[str]) -> list[str]:
    """Names of the marked inputs of each row (n, d), joined by commas."""
    texts = [""] * len(cells)
    for row in np.flatnonzero(cells.any(axis=1)):
        texts[row] = ", ".join(name for name, at in zip(names, cells[row], strict=True) if at)
    return texts


def _names(space: Space, columns: Mapping[str, Column]) -> list[Problem]:
    unknown = [name for name in columns if name not in space]
    missing = [name for name in space.names if name not in columns]
    return [
        *(Problem(f"{n[:80]}", f"is no input{nearest(n[:80], space.names)}") for n in unknown),
        *(Problem(name, "this column is missing") for name in missing),
    ]


def _codes(item: Input, column: Column, problems: list[Problem]) -> NDArray[np.float64]:
    """Codes (n,) of a column; bad cells are added to the problems and stay NaN."""
    codes = _choices(item, column) if isinstance(item, Categorical) else _numbers(column)
    bad = np.flatnonzero(~np.isfinite(codes))
    for row in bad[:_PER_COLUMN]:
        problems.append(Problem(item.name, _said(item, column[row]), int(row) + 1))
    if len(bad) > _PER_COLUMN:
        problems.append(Problem(item.name, f"and {len(bad) - _PER_COLUMN} more cells like these"))
    return codes


def _numbers(column: Column) -> NDArray[np.float64]:
    if isinstance(column, np.ndarray) and column.dtype.kind in "iuf":
        return column.astype(np.float64)
    return np.array([_number(cell) for cell in column], dtype=np.float64)


def _number(cell: Any) -> float:
    """A number as such; text, truth values and numbers beyond float64 are none."""
    if isinstance(cell, float | int) and not isinstance(cell, bool):
        try:
            return float(cell)
        except OverflowError:
            return np.inf
    return np.nan


def _choices(item: Categorical, column: Column) -> NDArray[np.float64]:
    cells = column.tolist() if isinstance(column, np.ndarray) else column
    found = [item.code(cell) for cell in cells]
    return np.array([np.nan if code is None else code for code in found], dtype=np.float64)


def _said(item: Input, cell: Any) -> str:
    if isinstance(cell, np.generic):
        cell = cell.item()
    if cell is None:
        found = "an empty cell"
    elif isinstance(cell, str):
        found = repr(cell[:40])
    elif isinstance(cell, bool):
        found = "true" if cell else "false"
    elif isinstance(cell, float):
        found = str(cell)
    else:
        found = str(cell)[:40] if isinstance(cell, int) else f"a {type(cell).__name__}"
    if isinstance(item, Categorical):
        listed = [repr(choice) for choice in item.choices[:8]]
        dots = ", ..." if len(item.choices) > 8 else ""
        return f"found {found}; the choices are {', '.join(listed)}{dots}"
    return f"found {found}; a finite number is expected"
