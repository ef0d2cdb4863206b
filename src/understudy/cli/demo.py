"""``understudy demo``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli.options import Json, Quiet, Seed
from understudy.core.duration import parse_budget
from understudy.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from understudy.models.tabular.comparison import Comparison
    from understudy.models.tabular.fitted import FittedSurrogate

EXAMPLE = "[bold]Example[/]\n\nunderstudy demo --runs 200 --budget 60s"
_HELD_OUT = 0.05


def demo(
    runs: Annotated[int, typer.Option(min=40, help="Discharges to simulate.")] = 200,
    budget: Annotated[
        str, typer.Option("--budget", "-b", help="Time to spend on the fit.")
    ] = "60s",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write into.")] = Path(
        "demo-output"
    ),
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Simulate all runs anew, keep none.")
    ] = False,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Battery discharges, from simulation to report in two minutes."""
    parse_budget(budget)
    folder = _folder(output)
    table = _simulated(runs, seed, not no_cache, quiet)

    from understudy.cli.live import fit_live
    from understudy.cli.report import write_page
    from understudy.data.readers import write_table
    from understudy.models.tabular.comparison import compare_with_simulator, set_last_apart
    from understudy.simulate.battery import DischargeSimulator

    write_table(table, folder / "runs.csv")
    seen, unseen = set_last_apart(table, _HELD_OUT)
    targets = list(DischargeSimulator.outputs)
    model = fit_live(
        seen.drop(columns="seconds"),
        quiet,
        targets=targets,
        budget=budget,
        metric="nlpd",
        seed=seed,
    )
    model.save(folder / "model.us")
    write_page(model, folder / "report.html", quiet)
    outcome = compare_with_simulator(model, unseen, unseen["seconds"])
    if json:
        _print_json(folder, outcome, model)
    elif not quiet:
        _print_outcome(folder, outcome, model)


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {path} cannot be a folder: {error.strerror}") from error
    return path


def _simulated(runs: int, seed: int, cache: bool, quiet: bool) -> pd.DataFrame:
    from understudy.cli.console import counter
    from understudy.simulate.battery import discharge_runs

    with counter("Simulating battery discharges", not quiet) as progress:
        return discharge_runs(runs, seed=seed, cache=cache, progress=progress).dropna()


def _print_outcome(folder: Path, outcome: Comparison, model: FittedSurrogate) -> None:
    from understudy.cli.console import percent, print_table, records, say
    from understudy.cli.summary import print_file, print_scores

    print_scores(model)
    count = outcome.rows
    columns = {
        "target": "of the first",
        "simulated": "simulated",
        "predicted": "predicted",
        "interval": "90 % interval",
        "all": f"of {count} inside",
    }
    rows = [
        {**row, "interval": f"{row['lower_90']:.4g} to {row['upper_90']:.4g}", "all": row["inside"]}
        for row in records(outcome.first)
    ]
    print_table(
        rows, columns, f"{count} discharges that the surrogate has not seen:", left=("target",)
    )
    say(f"{percent(outcome.coverage_90)} of all held-out values lie in their 90 % intervals.")
    say(
        f"The solver takes {outcome.simulator_seconds:.2g} s a discharge, the surrogate "
        f"{1e6 * outcome.surrogate_seconds:,.0f} microseconds: {outcome.speed_up:,.0f} times "
        "faster."
    )
    say()
    for name in ("runs.csv", "model.us", "report.html"):
        print_file(folder / name)


def _print_json(folder: Path, outcome: Comparison, model: FittedSurrogate) -> None:
    from understudy.cli.console import print_json, records
    from understudy.cli.summary import as_json

    files = {name: str(folder / name) for name in ("runs.csv", "model.us", "report.html")}
    print_json(
        {
            "files": files,
            "held_out": outcome.rows,
            "first": records(outcome.first),
            "inside_90": outcome.coverage_90,
            "solver_seconds": outcome.simulator_seconds,
            "surrogate_seconds": outcome.surrogate_seconds,
            "speed_up": outcome.speed_up,
            "model": as_json(model),
        }
    )
