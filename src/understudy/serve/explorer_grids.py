"""Lines and planes through a point: the rows that slices and maps are predicted from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.core.space import Categorical, Input, Integer, Space
from understudy.serve.batching import Arrays
from understudy.serve.hosted import plain

Floats = NDArray[np.float64]

DIGITS = 7
"""Significant digits of numbers that are only drawn."""


def axis(item: Input, points: int, here: float) -> Floats:
    """Codes of an input to predict at, over its range and, where it lies beyond, up to ``here``.

    Parameters
    ----------
    item : Input
    points : int
        Of a real number, evenly spaced on its scale; of a whole one at most; of a choice all.
    here : float
        Present code.
    """
    if isinstance(item, Categorical):
        return np.arange(len(item.choices), dtype=np.float64)
    log = not isinstance(item, Integer) and item.log
    beyond = [here] if here > 0 or not log else []
    lower, upper = min(item.lower, *beyond, item.upper), max(item.upper, *beyond, item.lower)
    if log:
        return np.geomspace(lower, upper, points)
    if isinstance(item, Integer):
        return np.unique(np.round(np.linspace(lower, upper, points)))
    return np.linspace(lower, upper, points)


@dataclass(frozen=True)
class Slices:
    """A point and lines through it.

    Parameters
    ----------
    space : Space
    at : ndarray (d,)
        Codes of the point.
    inputs : tuple of str
        Along which lines go.
    points : int
        Of each line.
    """

    space: Space
    at: Floats
    inputs: tuple[str, ...]
    points: int

    def axes(self) -> list[Floats]:
        """Codes along each line."""
        names = self.space.names
        return [
            axis(self.space[name], self.points, float(self.at[names.index(name)]))
            for name in self.inputs
        ]

    def rows(self) -> Floats:
        """The point, then the points of each line, (1 + sum of lengths, d)."""
        parts = [self.at[None]]
        for name, codes in zip(self.inputs, self.axes(), strict=True):
            line = np.tile(self.at, (len(codes), 1))
            line[:, self.space.names.index(name)] = codes
            parts.append(line)
        return np.concatenate(parts)

    def record(self, columns: Arrays, outputs: tuple[str, ...], level: float) -> list[Any]:
        """What is predicted along each line, of rows as by `rows`."""
        found, start = [], 1
        for name, codes in zip(self.inputs, self.axes(), strict=True):
            part = slice(start, start + len(codes))
            start += len(codes)
            curves = {output: curve(columns, output, level, part) for output in outputs}
            values = values_of(self.space[name], codes)
            found.append({"input": name, "values": values, "outputs": curves})
        return found


def plane(space: Space, at: Floats, names: tuple[str, str], points: int) -> tuple[Any, Any, Floats]:
    """Codes along two inputs (k,), (l,), and the rows of their plane (l k, d), row by row of y."""
    j, k = (space.names.index(name) for name in names)
    x, y = (axis(space[name], points, float(at[i])) for name, i in zip(names, (j, k), strict=True))
    rows = np.tile(at, (len(x) * len(y), 1))
    rows[:, j], rows[:, k] = np.tile(x, len(y)), np.repeat(y, len(x))
    return x, y, rows


def curve(columns: Arrays, output: str, level: float, part: slice) -> dict[str, list[Any]]:
    """Mean and ends of the interval of an output over some rows."""
    percent = f"{100 * level:.6g}"
    keys = {"mean": "mean", "lower": f"lower_{percent}", "upper": f"upper_{percent}"}
    return {key: shortened(columns[f"{output}_{suffix}"][part]) for key, suffix in keys.items()}


def shortened(values: Floats) -> list[Any]:
    """Numbers with few digits; None for those that are not finite."""
    return [float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None for v in values.tolist()]


def values_of(item: Input, codes: Floats) -> list[Any]:
    """Values of an input by their codes."""
    if isinstance(item, Categorical):
        return [item.choices[int(code)] for code in codes]
    if isinstance(item, Integer):
        return [int(code) for code in codes]
    return [plain(code) for code in codes]
