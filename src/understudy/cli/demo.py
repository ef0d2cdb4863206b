"""``understudy demo``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli.options import Json, Quiet, Seed
from understudy.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from understudy.models.tabular.fitted import FittedSurrogate

EXAMPLE = "[bold]Example[/]\n\nunderstudy demo --runs 200 --budget 60s"
_HELD_OUT = 0.05
_TIMED_ROWS = 1_000


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
    folder = _folder(output)
    table = _simulated(runs, seed, not no_cache, quiet)
    held = max(2, round(_HELD_OUT * len(table)))
    seen, unseen = table.iloc[:-held], table.iloc[-held:]
    table.to_csv(folder / "runs.csv", index=False)

    from understudy.cli.live import fit_live
    from understudy.report import write_report
    from understudy.simulate.battery import DischargeSimulator

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
    write_report(model, folder / "report.html")
    outcome = _compared(model, unseen)
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


def _compared(model: FittedSurrogate, unseen: pd.DataFrame) -> dict[str, Any]:
    """Predict the runs that were held out, and time both ways to know their outputs."""
    predictions = model.predict_table(unseen)
    surrogate = _seconds_a_row(model, unseen)
    solver = float(unseen["seconds"].median())
    rows, covered = [], 0
    for target in model.targets:
        simulated = unseen[target].to_numpy()
        lower, upper = (predictions[f"{target}_{end}_90"].to_numpy() for end in ("lower", "upper"))
        inside = int(((simulated >= lower) & (simulated <= upper)).sum())
        covered += inside
        rows.append(
            {
                "target": target,
                "simulated": float(simulated[0]),
                "predicted": float(predictions[f"{target}_mean"].iloc[0]),
                "lower_90": float(lower[0]),
                "upper_90": float(upper[0]),
                "inside": inside,
            }
        )
    return {
        "held_out": len(unseen),
        "first": rows,
        "inside_90": covered / (len(rows) * len(unseen)),
        "solver_seconds": solver,
        "surrogate_seconds": surrogate,
        "speed_up": solver / surrogate,
    }


def _seconds_a_row(model: FittedSurrogate, table: pd.DataFrame) -> float:
    """Median time of three predictions of many rows."""
    rows = model.space.encode(table).repeat(max(1, _TIMED_ROWS // len(table)), axis=0)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        model.predict(rows)
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[1] / len(rows)


def _print_outcome(folder: Path, outcome: dict[str, Any], model: FittedSurrogate) -> None:
    from understudy.cli.console import percent, print_table, say
    from understudy.cli.summary import print_file, print_scores

    print_scores(model)
    count = outcome["held_out"]
    columns = {
        "target": "of the first",
        "simulated": "simulated",
        "predicted": "predicted",
        "interval": "90 % interval",
        "all": f"of {count} inside",
    }
    rows = [
        {**row, "interval": f"{row['lower_90']:.4g} to {row['upper_90']:.4g}", "all": row["inside"]}
        for row in outcome["first"]
    ]
    print_table(
        rows, columns, f"{count} discharges that the surrogate has not seen:", left=("target",)
    )
    say(f"{percent(outcome['inside_90'])} of all held-out values lie in their 90 % intervals.")
    say(
        f"The solver takes {outcome['solver_seconds']:.2g} s a discharge, the surrogate "
        f"{1e6 * outcome['surrogate_seconds']:,.0f} microseconds: {outcome['speed_up']:,.0f} times "
        "faster."
    )
    say()
    for name in ("runs.csv", "model.us", "report.html"):
        print_file(folder / name)


def _print_json(folder: Path, outcome: dict[str, Any], model: FittedSurrogate) -> None:
    from understudy.cli.console import print_json
    from understudy.cli.summary import as_json

    files = {name: str(folder / name) for name in ("runs.csv", "model.us", "report.html")}
    print_json({"files": files, **outcome, "model": as_json(model)})
