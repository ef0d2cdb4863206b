"""``understudy fit``."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli.options import (
    Json,
    Quiet,
    Seed,
    names,
    readable,
    saved,
    share_or_readable,
    writable,
)
from understudy.core.duration import parse_budget
from understudy.core.errors import UserError

if TYPE_CHECKING:
    from understudy.models.tabular.fitted import FittedSurrogate

EXAMPLE = (
    "[bold]Example[/]\n\nunderstudy fit runs.csv --targets drag,lift --drop id --budget 2m "
    "-o wing.us"
)


class Calibration(StrEnum):
    """Which unseen rows set the widths of intervals."""

    CROSS_VALIDATION = "cross-validation"
    SPLIT = "split"


class Metric(StrEnum):
    """What selection minimises on rows that a model has not seen."""

    NLPD = "nlpd"
    RMSE = "rmse"
    CRPS = "crps"


def fit(
    runs: Annotated[
        Path,
        typer.Argument(
            metavar="RUNS", help="Table of runs: CSV, TSV, Parquet or NPZ.", show_default=False
        ),
    ],
    targets: Annotated[
        list[str],
        typer.Option("--targets", "-t", help="Columns to predict: a,b.", show_default=False),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--inputs", "-i", help="Columns to predict from; by default all others."),
    ] = None,
    drop: Annotated[
        list[str] | None, typer.Option("--drop", help="Columns to leave out, such as an id.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .us file to write.")] = Path(
        "model.us"
    ),
    budget: Annotated[
        str, typer.Option("--budget", "-b", help="Time to spend: 90, 90s, 2m or 1h.")
    ] = "120s",
    metric: Annotated[Metric, typer.Option(help="What to choose models by.")] = Metric.NLPD,
    calibration: Annotated[
        Calibration, typer.Option(help="Rows that set interval widths; split: a fifth, set aside.")
    ] = Calibration.CROSS_VALIDATION,
    test: Annotated[
        str | None,
        typer.Option("--test", help="Rows to score on: a share such as 0.2, or a table."),
    ] = None,
    seed: Seed = 0,
    drop_invalid: Annotated[
        bool, typer.Option("--drop-invalid", help="Leave out rows with infinite values.")
    ] = False,
    members: Annotated[
        list[str] | None, typer.Option("--members", help="Models to consider; by default all.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Processor threads; by default as PyTorch chooses.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Also write an HTML report there.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Learn a calibrated surrogate from a table of runs."""
    runs = readable(runs)
    test = test and share_or_readable(test)
    tables = [runs] if test is None else [runs, Path(test)]
    output = writable(output, "--output", force, tables)
    if report is not None:
        report = writable(report, "--report", force, [*tables, output])
    parse_budget(budget)
    candidates = names(members)
    if members and not candidates:
        raise UserError("--members names no model")
    if threads is not None:
        _use_threads(threads)
    from understudy.cli.live import fit_live

    model = fit_live(
        runs,
        quiet,
        targets=targets,
        inputs=inputs or None,
        drop=drop or (),
        budget=budget,
        metric=metric.value,
        calibration=calibration.value,
        test=test,
        seed=seed,
        drop_invalid=drop_invalid,
        members=candidates or None,
    )
    saved(model.save, output)
    if report is not None:
        from understudy.cli.report import write_page

        write_page(model, report, quiet)
    if json:
        _print_json(model, output, report)
    elif not quiet:
        _print_summary(model, output, report)


def _use_threads(threads: int) -> None:
    """Limit the numerical libraries, which read the environment when they load."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)
    import torch

    torch.set_num_threads(threads)


def _print_json(model: FittedSurrogate, output: Path, report: Path | None) -> None:
    from understudy.cli.console import print_json
    from understudy.cli.summary import as_json

    print_json({"output": str(output), "report": report and str(report), **as_json(model)})


def _print_summary(model: FittedSurrogate, output: Path, report: Path | None) -> None:
    from understudy.cli.console import say
    from understudy.cli.summary import print_file, print_leaderboard, print_notes, print_scores

    if model.settings.get("interrupted"):
        say("Stopped early: the best so far was kept.")
    print_leaderboard(model)
    print_scores(model)
    print_notes(model)
    print_file(output)
    if report is not None:
        print_file(report)
    say()
    say("Next:")
    if report is None:
        say(f"  understudy report {output} -o {output.with_suffix('.html')}")
    say(f"  understudy predict {output} new.csv -o predictions.csv")
