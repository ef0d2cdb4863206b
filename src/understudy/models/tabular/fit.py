"""From a table of runs to a calibrated surrogate."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from understudy.core.duration import parse_budget
from understudy.core.errors import UserError
from understudy.core.progress import Listener
from understudy.data.readers import read_table
from understudy.data.table import Table, encode_new, prepare
from understudy.models.tabular.fitted import FittedSurrogate
from understudy.models.tabular.training import Unseen, chosen_candidates, split_table, train


def fit(
    data: pd.DataFrame | str | Path,
    targets: str | Sequence[str],
    *,
    inputs: str | Sequence[str] | None = None,
    drop: str | Sequence[str] = (),
    budget: float | str = 120.0,
    metric: str = "nlpd",
    calibration: str = "cross-validation",
    test: float | str | pd.DataFrame | Path | None = None,
    seed: int = 0,
    drop_invalid: bool = False,
    members: Sequence[str] | None = None,
    listener: Listener | None = None,
) -> FittedSurrogate:
    """Learn a calibrated surrogate from a table of runs.

    Parameters
    ----------
    data : DataFrame or path
        One run a row: input and target columns. Paths may be CSV, TSV, Parquet or NPZ.
    targets : str or sequence of str
        Columns to predict, numeric; one text may name several, as in ``"lift,drag"``.
    inputs : str or sequence of str, optional
        Columns to predict from; by default all that are neither targets nor dropped.
    drop : str or sequence of str
        Columns to leave out (identifiers, comments).
    budget : float or str
        Time limit in seconds, or as text: "90s", "2m", "1h".
    metric : {"nlpd", "rmse", "crps"}
        What selection minimises on unseen rows: negative log predictive density, root mean
        squared error, or continuous ranked probability score.
    calibration : {"cross-validation", "split"}
        Which unseen rows set the widths of intervals: every row, as predicted in cross-validation,
        or a fifth of the rows that nothing else is learnt from. The latter is split conformal
        prediction, which guarantees the coverage at the cost of those rows.
    test : float in (0, 1), path or DataFrame, optional
        Share of the rows, or a table, kept aside to score the result; not learnt from.
    seed : int
        Of every random choice; same seed, same result where the budget does not bind.
    drop_invalid : bool
        Drop rows with infinite values in place of refusing the table.
    members : sequence of str, optional
        Names of the candidates to consider; the whole portfolio by default.
    listener : callable, optional
        Receives a `Progress` at every step.

    Returns
    -------
    FittedSurrogate

    Raises
    ------
    UserError
        Where the table or an option cannot be used, with one sentence that says why.
    """
    seconds = parse_budget(budget)
    model = FittedSurrogate(
        budget=seconds, metric=metric, calibration=calibration, members=members, seed=seed
    )
    chosen_candidates(model)  # refuse what will not do before a long table is read
    source = str(Path(data).name) if isinstance(data, str | Path) else "DataFrame"
    frame = read_table(data) if isinstance(data, str | Path) else data
    columns = [str(name) for name in frame.columns]
    table = prepare(
        frame,
        column_names(targets, columns),
        None if inputs is None else column_names(inputs, columns),
        column_names(drop, columns),
        drop_invalid,
    )
    table, unseen = _split(table, test, seed)
    return train(model, table, unseen, listener, source)


def column_names(value: str | Sequence[str], columns: Sequence[str]) -> list[str]:
    """Names of columns given one by one or as text: ``a,b`` or ``"a,with comma",b``.

    A text that is the name of a column as it stands, commas and all, is that column.
    """
    names = []
    for text in [value] if isinstance(value, str) else [str(name) for name in value]:
        parts = [text] if text in columns else next(csv.reader([text], skipinitialspace=True), [])
        names += [part.strip() for part in parts if part.strip()]
    return names


def _split(
    table: Table, test: float | str | pd.DataFrame | Path | None, seed: int
) -> tuple[Table, Unseen | None]:
    if test is None:
        return table, None
    share = _share(test)
    if share is None:
        frame = test if isinstance(test, pd.DataFrame) else read_table(Path(str(test)))
        return table, _unseen(table, frame)
    count = round(share * len(table.X))
    if not 0.0 < share < 1.0 or count < 1 or len(table.X) - count < 5:
        raise UserError(
            f"test must leave rows on both sides, got {share} of {len(table.X)} rows; "
            "give a fraction such as 0.2 or a table"
        )
    return split_table(table, count, seed)


def _share(test: float | str | pd.DataFrame | Path) -> float | None:
    if isinstance(test, pd.DataFrame | Path):
        return None
    try:
        return float(test)
    except ValueError:
        return None


def _unseen(table: Table, frame: pd.DataFrame) -> Unseen:
    missing = [target for target in table.targets if target not in frame.columns]
    if missing:
        raise UserError(f"the test table has no column {missing[0]!r}")
    Y = frame[list(table.targets)].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    complete = np.isfinite(Y).all(axis=1)
    if not complete.any():
        raise UserError("no row of the test table has a number in every target")
    X = encode_new(table.space, table.fill, frame).X
    return Unseen(X[complete], Y[complete], np.flatnonzero(complete))
