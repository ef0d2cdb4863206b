"""``understudy compress``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli.options import Json, Model, Quiet, Seed, names, readable, saved, writable
from understudy.core.duration import parse_budget
from understudy.core.errors import UserError

if TYPE_CHECKING:
    from understudy.compress import Compression
    from understudy.emulate.fields import FieldSet
    from understudy.models.operators.field_map import FieldMap
    from understudy.models.operators.one_step import LearnedStepper

EXAMPLE = (
    "[bold]Example[/]\n\nunderstudy compress wave.us --a-priori --rank 2 -d runs.h5 -o small.us"
)
STOPPED = 130


def compress(
    model: Model,
    a_priori: Annotated[
        bool,
        typer.Option(
            "--a-priori", help="Train the compressed network afresh instead of truncating it."
        ),
    ] = False,
    rank: Annotated[int, typer.Option("--rank", "-r", min=1, help="Terms of each kernel.")] = 1,
    mode: Annotated[
        str, typer.Option(help="per_filter, shared (one set of terms) or spatial.")
    ] = "per_filter",
    skip: Annotated[
        list[str] | None,
        typer.Option(help="Convolutions to leave: first, last or names, with * for any part."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="HDF5 file of runs, to train and to test on."),
    ] = None,
    budget: Annotated[
        str, typer.Option("--budget", "-b", help="Time to train, with --a-priori.")
    ] = "5m",
    batch: Annotated[int, typer.Option(min=1, help="Fields at a time for which to time.")] = 1,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File (.us) to write.")
    ] = None,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Rewrite an operator's convolutions as one-way filters."""
    model = readable(model)
    data = None if data is None else readable(data)
    if a_priori and output is not None and data is None:
        raise UserError("filters a priori have to be trained before they are kept; name --data")
    if output is not None:
        output = writable(output, "--output", force, [model, *([data] if data else [])])
    seconds = parse_budget(budget)
    from understudy.compress.a_priori import example_inputs, rebuilt
    from understudy.emulate.fields import from_file
    from understudy.nn.one_way_network import OneWayPlan

    skipped = tuple(names(skip)) or ("first", "last")
    dense = _operator(model)
    plan = OneWayPlan(rank, mode, skipped)  # type: ignore[arg-type]
    small, report = rebuilt(dense, plan, "fresh" if a_priori else "truncated")
    runs = None if data is None else from_file(data)
    if runs is not None:
        _check(dense, runs)
    rows = report.measured(*example_inputs(dense, batch))
    stopped, scores = False, {}
    if runs is not None:
        if a_priori:
            stopped = _trained(small, runs, seconds, seed, quiet or json)
        scores = _scores({"dense": dense, "one-way": small}, runs, seed)
    if output is not None:
        saved(small.save, output)
    _print(report, rows, scores, output, json, quiet)
    return STOPPED if stopped else 0


def _operator(path: Path) -> LearnedStepper | FieldMap:
    """Read an operator; one whose network is none of fields is refused."""
    from understudy import load_operator
    from understudy.models.operators.field_map import FieldMap
    from understudy.models.operators.one_step import LearnedStepper

    found = load_operator(path)
    if not isinstance(found, LearnedStepper | FieldMap):
        raise UserError(f"{path} holds a {found.model!r}, which has no convolutions to rewrite")
    return found


def _check(operator: LearnedStepper | FieldMap, runs: FieldSet) -> None:
    """Refuse runs that are not of what the operator stands in for."""
    given = runs.given_channels if runs.steady else runs.channels
    if (given, runs.channels) != (operator.inputs, operator.outputs):
        raise UserError(
            f"the runs have the fields {', '.join(runs.channels)}, the operator was made for "
            f"{', '.join(operator.outputs)}"
        )
    if runs.grid.shape != operator.grid.shape:
        raise UserError(
            f"the runs have {runs.grid.shape} points, the operator {operator.grid.shape}"
        )
    if tuple(map(str, runs.parameters.columns)) != operator.parameters:
        raise UserError(
            f"the runs differ by {', '.join(map(str, runs.parameters.columns)) or 'no parameter'}, "
            f"the operator is told {', '.join(operator.parameters) or 'none'}"
        )


def _trained(
    operator: LearnedStepper | FieldMap, runs: FieldSet, budget: float, seed: int, quiet: bool
) -> bool:
    """Train on the runs; whether it was interrupted."""
    from understudy.cli.emulating import EmulationDisplay
    from understudy.emulate.run import emulate_with

    with EmulationDisplay(f"{runs.source} by one-way filters", quiet) as display:
        found = emulate_with(operator, "one-way", runs, budget, seed=seed, listener=display)
    return bool(found.facts["interrupted"])


def _scores(
    operators: dict[str, LearnedStepper | FieldMap], runs: FieldSet, seed: int
) -> dict[str, dict[str, Any]]:
    """Scores of each operator on the runs that are kept for the test."""
    from understudy.emulate.evaluation import evaluate

    train, _, test = runs.split(seed)
    return {name: evaluate(op, test, train, seed).scores() for name, op in operators.items()}


def _print(
    report: Compression,
    rows: list[dict[str, Any]],
    scores: dict[str, dict[str, Any]],
    output: Path | None,
    json: bool,
    quiet: bool,
) -> None:
    from understudy.cli.console import print_json, print_table, say
    from understudy.cli.summary import print_file

    if json:
        print_json(
            {
                "output": None if output is None else str(output),
                "plan": report.plan.describe(),
                "layers": rows,
                "left": report.left,
                "scores": scores,
            }
        )
        return
    if quiet:
        return
    print_table(rows, _COLUMNS, left=("layer",))
    for name, why in report.left.items():
        say(f"  {name} stays: {why}")
    if scores:
        measures = [name for name in _MEASURES if name in scores["dense"]]
        both = [
            {"measure": _MEASURES[m], **{who: found[m] for who, found in scores.items()}}
            for m in measures
        ]
        title = f"on {scores['dense']['test_runs']} runs for the test"
        print_table(
            both,
            {"measure": title, "dense": "dense", "one-way": "one-way"},
            left=("measure",),
        )
    if output is not None:
        print_file(output)


_COLUMNS = {
    "layer": "convolution",
    "parameters_before": "parameters",
    "parameters_after": "one-way",
    "ratio": "ratio",
    "macs_before": "MACs",
    "macs_after": "one-way",
    "ms_before": "ms",
    "ms_after": "one-way",
}
_MEASURES = {
    "one_step_error": "relative error of a step",
    "rollout_nrmse": "normalised error of rollouts",
    "horizon_mean": "time until correlation < 0.8, mean",
    "relative_error": "relative error, mean",
    "relative_error_worst": "relative error, worst",
}
