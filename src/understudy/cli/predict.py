"""``understudy predict``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli.options import Json, Model, Quiet, readable, writable

if TYPE_CHECKING:
    import pandas as pd

    from understudy.core.space import Space

EXAMPLE = "[bold]Example[/]\n\nunderstudy predict wing.us new.csv -o predictions.csv"
_MOST_WARNINGS = 5


def predict(
    model: Model,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Table with the input columns: CSV, TSV, Parquet or NPZ.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write (.csv, .tsv, .parquet); by default CSV is printed.",
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", "-k", help="Copy the columns of the table as well.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict the rows of a table, with calibrated intervals."""
    model, data = readable(model), readable(data)
    if output is not None:
        output = writable(output, "--output", others=(model, data))
    import pandas as pd

    import understudy
    from understudy.cli.console import print_json, records, say
    from understudy.data.readers import write_table

    surrogate = understudy.load(model)
    table = understudy.read_table(data)
    predictions = surrogate.predict_table(table)
    outside = predictions["extrapolation"].astype(str) != ""
    if not quiet:
        _warn(surrogate.space, table, predictions["extrapolation"])
        _warn_of_filled(predictions)
    if keep:
        clash = table.columns.intersection(predictions.columns)
        predictions = pd.concat([table.drop(columns=clash), predictions], axis=1)
    if output is not None:
        write_table(predictions, output)
    if json:
        head = {"rows": len(table), "extrapolating": int(outside.sum())}
        where = {"output": str(output)} if output else {"predictions": records(predictions)}
        print_json({**head, **where})
    elif output is None:
        predictions.to_csv(sys.stdout, index=False)
    elif not quiet:
        say(f"{output}: {len(table):,} rows, {int(outside.sum()):,} of them extrapolated")


def _warn(space: Space, table: pd.DataFrame, extrapolation: pd.Series) -> None:
    """Name the rows outside the training range, from 1, on the error stream."""
    from understudy.cli.console import say

    rows = [row for row, names in enumerate(extrapolation) if names]
    for row in rows[:_MOST_WARNINGS]:
        found = "; ".join(
            _found(space, table, row, name) for name in extrapolation.iloc[row].split(", ")
        )
        say(f"warning: row {row + 1} is outside the training range: {found}", stderr=True)
    if len(rows) > _MOST_WARNINGS:
        more = len(rows) - _MOST_WARNINGS
        say(f"warning: so are {more:,} more rows; see the column 'extrapolation'", stderr=True)


def _warn_of_filled(predictions: pd.DataFrame) -> None:
    """Count the rows with empty cells, on the error stream."""
    from understudy.cli.console import say

    count = int((predictions["filled_in"] != "").sum()) if "filled_in" in predictions else 0
    if count:
        rows = "1 row" if count == 1 else f"{count:,} rows"
        say(f"warning: empty cells of {rows} filled in; see the column 'filled_in'", stderr=True)


def _found(space: Space, table: pd.DataFrame, row: int, name: str) -> str:
    if name not in space or name not in table:
        return name
    lower, upper = space.bounds[:, space.names.index(name)].tolist()
    return f"{name} = {table[name].iloc[row]} (trained on {lower:g} to {upper:g})"
