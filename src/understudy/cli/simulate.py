"""``understudy simulate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli.options import Json, Quiet, Seed, writable
from understudy.core.errors import UserError

EXAMPLE = "[bold]Example[/]\n\nunderstudy simulate ks --n 256 --set viscosity=1 -o ks.h5"
STOPPED = 130


def simulate(
    equation: Annotated[
        str | None, typer.Argument(metavar="EQUATION", help="Its name; see --list.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HDF5 file to write or to go on with.")
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Runs in all.")] = 64,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            metavar="NAME=VALUE",
            help="An input (nu=1, or nu=0.1:2 for a range) or an option (points=128); repeatable.",
        ),
    ] = None,
    seed: Seed = 0,
    batch: Annotated[int, typer.Option(min=1, help="Runs that are computed together.")] = 16,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    list_all: Annotated[bool, typer.Option("--list", help="List the equations.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Simulate random runs of a differential equation into HDF5."""
    if list_all:
        _print_equations(json)
        return 0
    if equation is None:
        raise UserError("name an equation; --list shows them")
    if output is None:
        raise UserError("name a file to write with -o, such as runs.h5")
    output = writable(output, "--output")
    from understudy.cli.console import counter
    from understudy.cli.equation import simulator_of
    from understudy.simulate.pde.files import write_fields
    from understudy.simulate.pde.named import draw_parameters

    simulator, ranges = simulator_of(equation, settings or [])
    table = draw_parameters(simulator, n, seed, ranges)
    if force and output.exists():
        output.unlink()
    stored = [0]

    def note(done: int, total: int) -> None:
        stored[0] = done
        show(done, total)

    interrupted = False
    with counter(f"Simulating {equation}", not quiet) as show:
        try:
            write_fields(output, simulator, table, equation, batch, note)
        except KeyboardInterrupt:
            interrupted = True
    _print_result(output, stored[0], n, interrupted, json, quiet)
    return STOPPED if interrupted else 0


def _print_result(
    output: Path, stored: int, n: int, interrupted: bool, json: bool, quiet: bool
) -> None:
    from understudy.cli.console import print_json, say

    lost = _lost(output) if stored else 0
    if json:
        record = {"output": str(output), "runs": stored, "diverged": lost}
        print_json({**record, "interrupted": interrupted})
    elif interrupted:
        say(f"{output}: {stored:,} of {n:,} runs are kept; the same command goes on", stderr=True)
    elif not quiet:
        size = output.stat().st_size / 1e6
        gone = f", {lost:,} of them diverged" if lost else ""
        say(f"{output}: {stored:,} runs{gone} ({size:.1f} MB)")


def _lost(path: Path) -> int:
    import h5py

    with h5py.File(path, "r") as file:
        return int(file["diverged"][:].sum())


def _print_equations(json: bool) -> None:
    from understudy.cli.console import print_json, print_table
    from understudy.simulate.pde.named import EQUATIONS, named

    rows = []
    for name in EQUATIONS:
        simulator = named(name)
        rows.append(
            {
                "name": name,
                "grid": " x ".join(str(size) for size in simulator.grid.shape),
                "fields": ", ".join(simulator.channels),
                "inputs": ", ".join(simulator.space.names),
            }
        )
    if json:
        print_json({"equations": rows})
        return
    headings = {"name": "equation", "grid": "grid", "fields": "fields", "inputs": "inputs"}
    print_table(rows, headings, left=("name", "fields", "inputs"))
