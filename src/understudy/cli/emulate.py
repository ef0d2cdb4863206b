"""``understudy emulate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli.options import (
    Device,
    Json,
    Quiet,
    Seed,
    check_device,
    readable,
    saved,
    writable,
)
from understudy.core.duration import parse_budget
from understudy.core.errors import UserError

if TYPE_CHECKING:
    from understudy.emulate.fields import FieldSet
    from understudy.emulate.run import Emulation

EXAMPLE = "[bold]Example[/]\n\nunderstudy emulate ks --model pde-refiner --budget 10m -o ks.us"
STOPPED = 130
_RUNS = 128


def emulate(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="SOURCE",
            help="An equation (see understudy simulate --list), an HDF5 file, or a room (.toml).",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File (.us) to write.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Name of an operator; see --list.")
    ] = "auto",
    budget: Annotated[
        str, typer.Option("--budget", "-b", help="Time to train: 90, 90s, 2m or 1h.")
    ] = "5m",
    n: Annotated[
        int | None,
        typer.Option("--n", "-n", min=8, help="Runs to simulate, of an equation; else 128."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            metavar="NAME=VALUE",
            help="An input or option of the equation, as for simulate; repeatable.",
        ),
    ] = None,
    stride: Annotated[
        int, typer.Option(min=1, help="A step of the operator is so many of the solver's times.")
    ] = 1,
    online: Annotated[
        bool,
        typer.Option("--online", help="Train while the solver runs, from a buffer in memory."),
    ] = False,
    workers: Annotated[int, typer.Option(min=1, help="Solver processes, with --online.")] = 1,
    ray: Annotated[
        bool, typer.Option("--ray", help="Solvers as Ray actors, with --online.")
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="File of the state of --online; where it exists, training goes on from it."
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Page (.html) to write; beside the output by default."),
    ] = None,
    device: Device = "cpu",
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="List the operators.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Train an operator that stands in for a solver."""
    if list_all:
        _print_models(json)
        return 0
    if source is None:
        raise UserError("name an equation or a file; understudy simulate --list shows equations")
    if output is None:
        raise UserError("name a file to write with -o, such as ks.us")
    seconds = parse_budget(budget)
    output = writable(output, "--output", force)
    if Path(source).suffix.lower() == ".toml":
        given = (n, settings, checkpoint, report)
        if any(given) or online or ray or workers > 1 or stride > 1 or model != "auto":
            raise UserError(
                "of a room, only --output, --budget, --device, --seed and --force can be said; "
                f"the rest is in {source}"
            )
        from understudy.cli.emulating_room import room_emulated

        check_device(device)
        return room_emulated(readable(Path(source)), output, seconds, seed, device, json, quiet)
    page = writable(report or output.with_suffix(".html"), "--report", force)
    check_device(device)
    silent = quiet or json
    common = {"seed": seed, "device": device}
    if online:
        if n is not None:
            raise UserError(
                "--n is not for --online, which simulates as many runs as it can meanwhile; "
                "leave one of the two out"
            )
        if checkpoint is not None:
            checkpoint = writable(checkpoint, "--checkpoint")
        more = {"workers": workers, "executor": "ray" if ray else "local", "checkpoint": checkpoint}
        found = _online(source, settings or [], stride, model, seconds, silent, **common, **more)
    else:
        if checkpoint is not None or ray or workers > 1:
            raise UserError("--checkpoint, --ray and --workers are for --online")
        data = _data(source, n, settings or [], stride, seed, silent)
        found = _stored(data, model, seconds, silent, **common)
    saved(found.operator.save, output)  # type: ignore[attr-defined]
    _write_page(found, source, page)
    _print(found, output, page, json, quiet)
    return STOPPED if found.facts["interrupted"] else 0


def _stored(data: FieldSet, model: str, budget: float, quiet: bool, **options: Any) -> Emulation:
    from understudy.cli.emulating import EmulationDisplay
    from understudy.emulate.run import emulate

    with EmulationDisplay(f"{data.source} by {model}", quiet) as display:
        return emulate(data, model, budget, listener=display, **options)


def _online(
    source: str,
    settings: list[str],
    stride: int,
    model: str,
    budget: float,
    quiet: bool,
    **options: Any,
) -> Emulation:
    from understudy.cli.emulating import EmulationDisplay
    from understudy.cli.equation import simulator_of
    from understudy.emulate.fields import is_file
    from understudy.emulate.online import emulate_online

    if is_file(source):
        raise UserError("--online needs an equation that can be simulated; a file is complete")
    simulator, ranges = simulator_of(source, settings)
    with EmulationDisplay(f"{source} by {model}, online", quiet) as display:
        return emulate_online(
            *(simulator, source, model, budget),
            ranges=ranges,
            stride=stride,
            listener=display,
            **options,
        )


def _data(
    source: str, n: int | None, settings: list[str], stride: int, seed: int, quiet: bool
) -> FieldSet:
    from understudy.cli.console import counter
    from understudy.emulate.fields import from_file, is_file, simulated

    if is_file(source):
        if settings:
            raise UserError("--set is for equations; a file is as it is")
        if n is not None:
            raise UserError("--n is for equations; all runs of a file are taken")
        return from_file(readable(Path(source)), stride)
    from understudy.cli.equation import simulator_of
    from understudy.simulate.pde.named import draw_parameters

    simulator, ranges = simulator_of(source, settings)
    table = draw_parameters(simulator, n or _RUNS, seed, ranges)
    with counter(f"Simulating {source}", not quiet) as show:
        return simulated(simulator, table, source, stride, listener=show)


def _write_page(found: Emulation, source: str, page: Path) -> None:
    from understudy.report.operator import write_operator_report

    write_operator_report(
        found.evaluation,
        page,
        source=Path(source).name,
        model=found.model,
        channels=found.operator.outputs,
        given=found.operator.inputs,
        dt=getattr(found.operator, "dt", 0.0),
        curve=found.curve,
        facts=found.facts,
    )


def _print(found: Emulation, output: Path, page: Path, json: bool, quiet: bool) -> None:
    from understudy.cli.console import print_json, print_table, say
    from understudy.cli.summary import print_file

    scores = found.evaluation.scores()
    if json:
        print_json(
            {
                **{"output": str(output), "report": str(page), "model": found.model},
                **{"scores": scores, "facts": found.facts},
            }
        )
        return
    if quiet:
        return
    rows = [
        {"measure": _WORDS[name], "value": value}
        for name, value in scores.items()
        if name in _WORDS
    ]
    print_table(
        rows,
        {"measure": f"on {scores['test_runs']} unseen runs", "value": "value"},
        left=("measure",),
    )
    if found.facts["dropped_runs"]:
        say(f"{found.facts['dropped_runs']} runs diverged and were left out", stderr=True)
    if found.facts["interrupted"]:
        say("training was interrupted; the best state up to then is kept", stderr=True)
    print_file(output)
    print_file(page)


_WORDS = {
    "one_step_error": "relative error of a step",
    "rollout_nrmse": "normalised error of rollouts",
    "persistence_nrmse": "the same of no change",
    "horizon_mean": "time until correlation < 0.8, mean",
    "horizon_least": "the same, least",
    "rollout_time": "time of the test",
    "believed_horizon_mean": "time until its rollouts disagree",
    "horizon_rank_correlation": "rank correlation of both",
    "relative_error": "relative error, mean",
    "relative_error_median": "relative error, median",
    "relative_error_worst": "relative error, worst",
    "mean_field_error": "the same of the mean field",
}


def _print_models(json: bool) -> None:
    from understudy.cli.console import print_json, print_table
    from understudy.emulate.recipes import MAPS, STEPPERS

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "time": name in STEPPERS,
            "steady": name in MAPS,
        }
        for name in {**STEPPERS, **MAPS}
    ]
    if json:
        print_json({"operators": rows})
        return
    columns = {"name": "operator", "time": "fields over time", "steady": "steady problems"}
    print_table(rows, columns, left=("name",))
