"""``understudy precondition``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    from understudy.core.linear_solver import SPDOperator
    from understudy.models.inverse.comparison import Timing
    from understudy.models.inverse.dcdm import DeepConjugateDirection

EXAMPLE = (
    "[bold]Example[/]\n\nunderstudy precondition poisson.npz --grid 64,64 --budget 5m -o poisson.us"
)
STOPPED = 130


def precondition(
    matrix: Annotated[
        Path,
        typer.Argument(
            metavar="MATRIX",
            help="Sparse matrix: .npz of SciPy or .mtx of Matrix Market.",
            show_default=False,
        ),
    ],
    grid: Annotated[
        str, typer.Option("--grid", "-g", help="Sides of the grid of unknowns: 64,64.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File (.us) to write.")],
    budget: Annotated[
        str, typer.Option("--budget", "-b", help="Time to train: 90, 90s, 2m or 1h.")
    ] = "5m",
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of training at most; as many as fit by default."),
    ] = None,
    ritz: Annotated[
        int | None,
        typer.Option(min=1, help="Ritz vectors; 800 by default, or as many as fit into 2 GiB."),
    ] = None,
    tol: Annotated[
        float, typer.Option(help="Tolerance of the comparison with other solvers.")
    ] = 1e-4,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="File of the state; where it exists, training goes on from it."),
    ] = None,
    device: Device = "cpu",
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Learn to solve linear systems with a matrix of one's own."""
    matrix = readable(matrix)
    sides = _sides(grid)
    seconds = parse_budget(budget)
    output = writable(output, "--output", force, [matrix])
    if not 0.0 < tol < 1.0:
        raise UserError(f"--tol must be between 0 and 1, found {tol:g}")
    if checkpoint is not None and not checkpoint.exists():
        checkpoint = writable(checkpoint, "--checkpoint", others=[matrix, output])
    A = _checked(matrix, sides, device)
    solver = _learnt(A, sides, seconds, steps, ritz, checkpoint, device, seed, quiet or json)
    saved(solver.save, output)
    interrupted = solver.facts["reason"] == "interrupt"
    rows = [] if interrupted else _compared(A, solver, tol)
    _print(solver, rows, tol, output, json, quiet)
    return STOPPED if interrupted else 0


def _sides(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise UserError(
            f"--grid is two or three whole numbers such as 64,64, found {text!r}"
        ) from None


def _checked(path: Path, sides: tuple[int, ...], device: str) -> SPDOperator:
    import math

    from understudy.core.linear_solver import SPDOperator
    from understudy.data.matrices import read_matrix
    from understudy.models.inverse.dcdm import checked_grid

    checked_grid(sides)
    check_device(device)
    A = SPDOperator(read_matrix(path))
    if math.prod(sides) != A.n:
        raise UserError(
            f"--grid {','.join(map(str, sides))} has {math.prod(sides)} points, but {path} has "
            f"{A.n} rows"
        )
    return A


def _learnt(
    A: SPDOperator,
    sides: tuple[int, ...],
    seconds: float,
    steps: int | None,
    ritz: int | None,
    checkpoint: Path | None,
    device: str,
    seed: int,
    quiet: bool,
) -> DeepConjugateDirection:
    from dataclasses import replace

    from understudy.cli.preconditioning import PreconditioningDisplay
    from understudy.models.inverse.dcdm import DEFAULT_TRAINING, learn_solver

    plan = replace(
        DEFAULT_TRAINING,
        steps=steps or 10**9,
        max_seconds=seconds,
        checkpoint=checkpoint,
        device=device,
        seed=seed,
    )
    with PreconditioningDisplay(seconds, quiet) as display:
        return learn_solver(A, sides, plan, ritz, listener=display.step, ritz_listener=display.ritz)


def _compared(A: SPDOperator, solver: DeepConjugateDirection, tol: float) -> list[Timing]:
    import numpy as np

    from understudy.models.inverse.comparison import compare

    white = A.project(np.random.default_rng(0).standard_normal((A.n, 1)))
    return compare(A, white, solver, tol)


def _print(
    solver: DeepConjugateDirection,
    rows: list[Timing],
    tol: float,
    output: Path,
    json: bool,
    quiet: bool,
) -> None:
    from dataclasses import asdict

    from understudy.cli.console import print_json, print_table, say
    from understudy.cli.summary import print_file

    facts = {name: value for name, value in solver.facts.items() if name != "log"}
    if json:
        print_json(
            {"output": str(output), **facts, "tol": tol, "comparison": [asdict(r) for r in rows]}
        )
        return
    if quiet:
        return
    if rows:
        columns = {
            "name": f"to {tol:g}, white noise",
            "iterations": "iterations",
            "setup": "set-up s",
            "seconds": "seconds",
            "converged": "converged",
        }
        print_table([asdict(row) for row in rows], columns, left=("name",))
    loss = facts.get("loss")
    if loss is not None:
        say(f"held-out loss {loss:.4g} after {facts['steps']:,} steps (0 is exact, 1 useless)")
    if facts["reason"] == "interrupt":
        say("training was interrupted; the best state up to then is kept", stderr=True)
    print_file(output)
