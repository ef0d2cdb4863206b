"""Measure our exact GP against BoTorch's ``fit_gpytorch_mll`` on the same model.

    python benchmarks/gp.py            every missing run, then the table
    python benchmarks/gp.py --force    all of them again

Both have a Matern-5/2 kernel with one length-scale an input and BoTorch's dimension-scaled prior;
ours learns an output scale as well. Each run is a subprocess in the project's environment and one
JSON file in results/benchmarks/gp.
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import runner
from fit import line
from runner import OURS, Limits, Record, Task, peer
from tables import gp_lines

PEERS = {
    "exact-gp": peer(OURS, "exact_gp", **{"exact-gp": ""}),
    "botorch-matern": peer(OURS, "botorch_matern", **{"botorch-matern": ""}),
}
RESULTS = runner.RESULTS / "gp"
TASKS = [
    Task("smooth-1141x9x6", 0, 141),
    Task("smooth-1326x45x20", 0, 326),
    *(
        Task(name, seed, 300)
        for name in ("yacht", "energy", "concrete", "engineering1", "cardiac1", "wine-quality-red")
        for seed in (0, 1, 2)
    ),
]


def show(records: list[Record], console: Console) -> None:
    header, lines = gp_lines(records)
    table = Table(*header, title="Exact GP against BoTorch")
    for cells in lines:
        table.add_row(*cells)
    console.print(table)


def main(
    timeout: Annotated[float, typer.Option(help="Seconds that one run may take.")] = 3600.0,
    threads: Annotated[int, typer.Option(help="Threads of one run.")] = 1,
    peers: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(PEERS),
    force: Annotated[bool, typer.Option(help="Make runs again that have a file.")] = False,
) -> None:
    """Measure our exact GP against BoTorch's."""
    console = Console()
    wanted = {name: PEERS[name] for name in peers.split(",")}
    for record in runner.run_all(TASKS, wanted, RESULTS, Limits(timeout, threads), force):
        console.print(line(record), highlight=False, soft_wrap=True)
    show(runner.load(RESULTS), console)


if __name__ == "__main__":
    typer.run(main)
