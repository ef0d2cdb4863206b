"""``understudy optimize``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli.options import Json, Quiet, Seed, readable, writable
from understudy.core.duration import parse_budget
from understudy.core.errors import UserError

if TYPE_CHECKING:
    from understudy.search.study import Study

EXAMPLE = (
    "[bold]Example[/]\n\nunderstudy optimize problem.toml --trials 60 --parallel 2 "
    "--report study.html"
)
STORAGE = "sqlite:///study.db"
FAILED, STOPPED = 1, 130


class Where(StrEnum):
    """What runs trials."""

    LOCAL = "local"
    RAY = "ray"


def optimize(
    problem: Annotated[
        Path,
        typer.Argument(
            metavar="PROBLEM",
            help="TOML file of inputs, objectives and how to run them.",
            show_default=False,
        ),
    ],
    trials: Annotated[
        int, typer.Option("--trials", "-n", min=0, help="Trials of the study in all.")
    ] = 60,
    parallel: Annotated[
        int, typer.Option("--parallel", "-p", min=1, help="Trials that run at a time here.")
    ] = 1,
    storage: Annotated[
        str, typer.Option(help="Database: an SQLite file, or postgresql://... to share.")
    ] = STORAGE,
    name: Annotated[
        str | None, typer.Option(help="Of the study; by default that of the problem.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a study, also from another machine.")
    ] = False,
    surrogate: Annotated[
        str, typer.Option(help="What to learn from trials with; the portfolio chooses by itself.")
    ] = "portfolio",
    timeout: Annotated[
        str | None,
        typer.Option(help="Time a trial may take: 90s, 2m or 1h; by default as in the problem."),
    ] = None,
    executor: Annotated[Where, typer.Option(help="What runs trials.")] = Where.LOCAL,
    seed: Seed = 0,
    report: Annotated[
        Path | None, typer.Option("--report", help="Also write an HTML report there.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Find the inputs at which something expensive is best."""
    problem = readable(problem)
    if report is not None:
        report = writable(report, "--report", others=(problem,))
    seconds = None if timeout is None else _seconds(timeout)
    from understudy.cli.optimizing import optimize_live

    study, interrupted = optimize_live(
        problem,
        quiet,
        trials=trials,
        parallel=parallel,
        storage=storage,
        name=name,
        resume=resume,
        surrogate=surrogate,
        timeout=seconds,
        kind=executor.value,
        seed=seed,
    )
    if report is not None:
        _write_page(study, report, quiet)
    if json:
        _print_json(study, report, interrupted)
    elif not quiet:
        from understudy.cli.trials import print_study

        print_study(study, problem, storage, name, report, interrupted)
    return _code(study, trials, interrupted)


def _seconds(timeout: str) -> float:
    try:
        return parse_budget(timeout)
    except UserError:
        raise UserError(
            f"--timeout is a positive time such as 90s, 2m or 1h, found {timeout!r}"
        ) from None


def _code(study: Study, trials: int, interrupted: bool) -> int:
    """Done where there is a result or none was asked for."""
    if not trials or any(trial.state == "done" for trial in study.trials()):
        return 0
    return STOPPED if interrupted else FAILED


def _write_page(study: Study, path: Path, quiet: bool) -> None:
    from understudy.cli.console import say
    from understudy.report.study import write_study_report

    if not quiet:
        say("Writing the report", stderr=True)
    write_study_report(study, path)


def _print_json(study: Study, report: Path | None, interrupted: bool) -> None:
    from understudy.cli.console import print_json
    from understudy.cli.trials import as_json

    print_json({**as_json(study), "interrupted": interrupted, "report": report and str(report)})
