"""``understudy extrapolate``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli.options import Json, Quiet, names, readable, writable
from understudy.core.errors import UserError

if TYPE_CHECKING:
    from understudy.search.curve_table import Outlook

EXAMPLE = "[bold]Example[/]\n\nunderstudy extrapolate curves.csv --horizon 100 -o curves.html"
_PAGES = (".html", ".htm")
_TABLES = (".csv", ".tsv", ".parquet", ".pq")


def extrapolate(
    curves: Annotated[
        Path,
        typer.Argument(
            metavar="CURVES",
            help="Table with a column a run and a row an epoch: CSV, TSV, Parquet or NPZ.",
            show_default=False,
        ),
    ],
    horizon: Annotated[
        int | None,
        typer.Option(
            "--horizon",
            "-n",
            help="Last epoch to predict; by default that of the longest curve, or 100.",
        ),
    ] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--columns", "-c", help="Curves to take, a,b; all if none.")
    ] = None,
    minimize: Annotated[
        bool, typer.Option("--minimize", help="Small values are good, as of a loss.")
    ] = False,
    range_: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--range",
            metavar="LOW HIGH",
            help="Limits of the metric; by default 0 1, or of a loss 0 and none.",
        ),
    ] = None,
    delta: Annotated[
        float, typer.Option(help="Chance of a new best value below which a run can be stopped.")
    ] = 0.05,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Page with plots (.html) or table of the forecasts (.csv) to write.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict how training runs will go on, from their curves."""
    curves = readable(curves)
    if output is not None:
        output = _output(output, curves)
    if not 0.0 < delta < 1.0:
        raise UserError(f"--delta is a probability between 0 and 1, found {delta:g}")
    import understudy
    from understudy.search.curve_table import default_horizon, outlooks, read_curves

    found = read_curves(understudy.read_table(curves), names(columns))
    horizon = default_horizon(found) if horizon is None else horizon
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        told = outlooks(found, horizon, _normaliser(range_, minimize), minimize=minimize)
    if not quiet:
        _warn(said)
    if output is not None:
        _write(told, output, curves.name, horizon, minimize, delta)
    if json:
        _print_json(told, horizon, delta, output)
    elif not quiet:
        _print(told, horizon, delta, output)


def _output(path: Path, curves: Path) -> Path:
    if path.suffix.lower() not in (*_PAGES, *_TABLES):
        accepted = ", ".join((*_PAGES[:1], *_TABLES[:3]))
        raise UserError(
            f"--output {path}: can write {accepted}, found {path.suffix or 'no suffix'}"
        )
    return writable(path, "--output", others=(curves,))


def _normaliser(limits: tuple[float, float] | None, minimize: bool) -> Any:
    if limits is None:
        return None
    from understudy.models.incontext.curve_normaliser import CurveNormaliser

    low, high = limits
    if not low < high:
        raise UserError(f"--range takes a lower and a higher limit, found {low:g} and {high:g}")
    return CurveNormaliser.between(low, high, minimize)


def _warn(said: Sequence[warnings.WarningMessage]) -> None:
    from understudy.cli.console import say

    for text in dict.fromkeys(str(one.message) for one in said):
        say(f"warning: {text}", stderr=True)


def _write(
    told: Sequence[Outlook], path: Path, source: str, horizon: int, minimize: bool, delta: float
) -> None:
    if path.suffix.lower() in _PAGES:
        from understudy.report.curves import write_curves_report

        write_curves_report(
            told, path, source=source, horizon=horizon, minimize=minimize, delta=delta
        )
        return
    import pandas as pd

    from understudy.data.readers import write_table

    tables = [(one.name, one.forecast.table()) for one in told if one.forecast is not None]
    for name, table in tables:
        table.insert(0, "curve", name)
    write_table(pd.concat([table for _, table in tables], ignore_index=True), path)


def _print_json(told: Sequence[Outlook], horizon: int, delta: float, output: Path | None) -> None:
    from understudy.cli.console import print_json, records
    from understudy.report.curves import summary

    lines = summary(told, delta)
    for line, one in zip(lines, told, strict=True):
        line["forecast"] = [] if one.forecast is None else records(one.forecast.table())
    print_json({"horizon": horizon, "curves": lines, "output": output and str(output)})


def _print(told: Sequence[Outlook], horizon: int, delta: float, output: Path | None) -> None:
    from understudy.cli.console import percent, print_table, say
    from understudy.cli.summary import print_file
    from understudy.report.curves import summary

    lines = summary(told, delta)
    for line in lines:
        if line["chance"] is not None:
            line["chance"] = percent(line["chance"])
    headings = {
        "curve": "curve",
        "epochs": "epochs",
        "last": "last",
        "lower": "5 %",
        "median": f"at epoch {horizon}",
        "upper": "95 %",
        "chance": "new best",
        "verdict": "verdict",
    }
    print_table(lines, headings, left=("curve", "verdict"))
    say(f"'stop' where the chance of a new best value is at most {percent(delta)}")
    if output is not None:
        print_file(output)
