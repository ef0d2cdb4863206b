"""Time and memory of ``understudy.fit`` from 100 to 100,000 rows and from 2 to 500 inputs.

    python benchmarks/scaling.py            every missing run, then the table
    python benchmarks/scaling.py --force    all of them again

The data are random smooth functions with 2 % noise and one output. Each run is a subprocess and one
JSON file in results/benchmarks/scaling.
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import runner
from fit import line
from runner import OURS, THREADS, Limits, Record, Task, peer
from tables import scaling_lines

PEERS = {"understudy": peer(OURS, "understudy", understudy="")}
RESULTS = runner.RESULTS / "scaling"
TEST_ROWS = 1.25  # a fifth of the rows is the test, so this many times the training rows
ROWS = (100, 1_000, 10_000, 100_000)
INPUTS = (2, 10, 50, 200, 500)
SIZES = [(n, 10) for n in ROWS] + [(1_000, d) for d in INPUTS if d != 10]
TASKS = [Task(f"smooth-{round(TEST_ROWS * n)}x{d}x1", 0, n) for n, d in SIZES]


def show(records: list[Record], console: Console) -> None:
    header, lines = scaling_lines(records)
    table = Table(*header, title="Scaling of understudy.fit")
    for cells in lines:
        table.add_row(*cells)
    console.print(table)


def main(
    timeout: Annotated[float, typer.Option(help="Seconds that one run may take.")] = 3600.0,
    threads: Annotated[int, typer.Option(help="Threads of one run.")] = THREADS,
    force: Annotated[bool, typer.Option(help="Make runs again that have a file.")] = False,
) -> None:
    """Measure time and memory against rows and inputs."""
    console = Console()
    for record in runner.run_all(TASKS, PEERS, RESULTS, Limits(timeout, threads), force):
        console.print(line(record), highlight=False, soft_wrap=True)
    show(runner.load(RESULTS), console)


if __name__ == "__main__":
    typer.run(main)
