"""A table of learning curves, and what is to come of each.

A column is a run and a row an epoch; cells below a curve's last value are empty. A column named
epoch or step numbers the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from understudy.core.errors import UserError
from understudy.core.space import nearest
from understudy.models.incontext.curve_normaliser import CurveNormaliser
from understudy.models.incontext.curve_prior import EPOCHS
from understudy.models.incontext.lcpfn import LCPFN, CurveForecast, checked_curve

COUNTERS = ("epoch", "step")


@dataclass(frozen=True)
class Outlook:
    """A curve and what is to come of it.

    Parameters
    ----------
    name : str
    observed : array (T,)
    forecast : CurveForecast or None
        None where the curve has reached the horizon.
    chance : float
        Largest probability, over the epochs to come, of a value that is better than the best of all
        curves so far; 0 where none is to come.
    """

    name: str
    observed: NDArray[np.float64]
    forecast: CurveForecast | None
    chance: float


def read_curves(table: pd.DataFrame, columns: Sequence[str] = ()) -> dict[str, NDArray[np.float64]]:
    """Curves of a table by the names of their columns.

    Parameters
    ----------
    table : DataFrame
        As `understudy.read_table` gives it.
    columns : sequence of str
        Names of those wanted; all by default.

    Raises
    ------
    UserError
        If a column is unknown, holds a cell that is no number, is empty or has a gap, or rows are
        not numbered one by one.
    """
    numbered = [name for name in table.columns if name.lower() in COUNTERS]
    for name in numbered:
        _check_numbers(name, table[name])
    names = [name for name in table.columns if name not in numbered]
    unknown = [name for name in columns if name not in names]
    if unknown:
        raise UserError(f"there is no curve {unknown[0]!r}{nearest(unknown[0], names)}")
    wanted = list(columns) or names
    if not wanted:
        raise UserError("the table has no curve: beside epochs it needs a column for each run")
    return {name: _curve(name, table[name]) for name in wanted}


def outlooks(
    curves: dict[str, NDArray[np.float64]],
    horizon: int | None = None,
    normaliser: CurveNormaliser | None = None,
    *,
    minimize: bool = False,
    model: LCPFN | None = None,
) -> list[Outlook]:
    """Extrapolate the curves that have not reached the horizon.

    Parameters
    ----------
    curves : dict of array (T,)
    horizon : int, optional
        See `default_horizon`.
    normaliser : CurveNormaliser, optional
    minimize : bool
    model : LCPFN, optional
        The shipped network by default.

    Raises
    ------
    UserError
        If a curve cannot be extrapolated, or all have reached the horizon; names the column.
    """
    horizon = default_horizon(curves) if horizon is None else horizon
    longest = max(len(values) for values in curves.values())
    going = {name: values for name, values in curves.items() if len(values) < horizon}
    if not going:
        raise UserError(
            f"the horizon {horizon} is in the past: every curve has that many epochs already, the "
            f"longest {longest}"
        )
    for name, values in going.items():
        _check(name, values, normaliser, minimize)
    found = (model or LCPFN()).extrapolate_many(
        list(going.values()), horizon, normaliser, minimize=minimize
    )
    forecasts = dict(zip(going, found, strict=True))
    down = normaliser.minimize if normaliser else minimize
    best = (min if down else max)(
        float(values.min() if down else values.max()) for values in curves.values()
    )
    return [
        Outlook(name, values, forecasts.get(name), _chance(forecasts.get(name), best))
        for name, values in curves.items()
    ]


def default_horizon(curves: dict[str, NDArray[np.float64]]) -> int:
    """Last epoch of the longest curve where some are shorter; else 100, or twice their length."""
    lengths = {len(values) for values in curves.values()}
    longest = max(lengths)
    if len(lengths) > 1:
        return longest
    return EPOCHS if longest < EPOCHS else 2 * longest


def _check(
    name: str,
    values: NDArray[np.float64],
    normaliser: CurveNormaliser | None,
    minimize: bool,
) -> None:
    try:
        checked_curve(values, normaliser, minimize)
    except UserError as error:
        raise UserError(f"column {name!r}: {error}") from None


def _chance(forecast: CurveForecast | None, best: float) -> float:
    return 0.0 if forecast is None else float(forecast.prob_better(best).max())


def _curve(name: str, column: pd.Series) -> NDArray[np.float64]:
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = (numbers.isna() & column.notna()).to_numpy()
    if wrong.any():
        at = int(wrong.argmax())
        raise UserError(f"column {name!r}, row {at + 1}: {column.iloc[at]!r} is no number")
    values = numbers.to_numpy(np.float64)
    (known,) = np.nonzero(~np.isnan(values))
    if len(known) == 0:
        raise UserError(f"column {name!r} is empty: a curve needs at least one value")
    values = values[: known[-1] + 1]
    if np.isnan(values).any():
        at = int(np.isnan(values).argmax())
        raise UserError(
            f"column {name!r}, row {at + 1} is empty, but the curve goes on below: values of all "
            "epochs are needed"
        )
    return values


def _check_numbers(name: str, column: pd.Series) -> None:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    expected = np.arange(len(numbers)) + (0 if numbers[0] == 0 else 1)
    wrong = numbers != expected
    if wrong.any():
        at = int(wrong.argmax())
        raise UserError(
            f"column {name!r}, row {at + 1}: found {column.iloc[at]}, expected {expected[at]}; "
            "rows are epochs, numbered one by one"
        )
