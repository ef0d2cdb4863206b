"""Measure ``understudy.fit`` against AutoEmulate, SMT's Kriging and a plain BoTorch GP.

    python benchmarks/fit.py                                  every missing run, then the tables
    python benchmarks/fit.py --peers understudy --force       our rows again
    python benchmarks/fit.py --max-rows 150 --datasets yacht  on 150 training rows
    python benchmarks/fit.py --table                          docs/benchmarks.md from the results

Each run is a subprocess in the peer's own environment and one JSON file in results/benchmarks/fit;
a run with a file is not made again, so a stopped benchmark goes on where it was.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import page
import runner
from datasets import DATASETS
from runner import OURS, THEIRS, Limits, Task, peer
from tables import METRICS, PEER_TITLES, Record, cell, cost_ratios, grid

PEERS = {
    "understudy": peer(OURS, "understudy", understudy=""),
    "autoemulate": peer(
        THEIRS / "autoemulate",
        "autoemulate",
        **{"autoemulate": "", "autoemulate-refit": "refit_"},
    ),
    "smt": peer(THEIRS / "smt", "smt", smt=""),
    "botorch": peer(THEIRS / "botorch", "botorch", botorch=""),
}
RESULTS = runner.RESULTS / "fit"


def chosen(text: str, known: dict) -> list[str]:
    """Names in a comma-separated list, checked against the known ones; all of them for ``all``."""
    names = list(known) if text == "all" else text.split(",")
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(known)}")
    return names


def line(record: Record) -> str:
    """One finished run in a line."""
    title = f"{record['dataset']} rows={record['rows']} seed={record['seed']} {record['peer']}"
    if "failed" in record:
        return f"{title}: {record['failed']}"
    names = ("r2", "nlpd", "coverage_90", "fit_cpu_s", "fit_wall_s", "peak_mib")
    return f"{title}: " + "  ".join(f"{name} {cell([record], METRICS[name])}" for name in names)


def show(records: list[Record], console: Console) -> None:
    """Print one table a metric, and the ratios of CPU time."""
    order = list(DATASETS)
    tables = {metric.title: grid(records, metric, order) for metric in METRICS.values()}
    tables["CPU time of the peer / ours"] = cost_ratios(records, order)
    for title, lines in tables.items():
        table = Table("data", *PEER_TITLES.values(), title=title)
        for cells in lines:
            table.add_row(*cells)
        console.print(table)


def main(
    peers: Annotated[str, typer.Option(help="Comma-separated, or all.")] = "all",
    datasets: Annotated[str, typer.Option(help="Comma-separated, or all.")] = "all",
    seeds: Annotated[str, typer.Option(help="Comma-separated.")] = "0,1,2",
    max_rows: Annotated[int | None, typer.Option(help="Train on at most this many rows.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that one run may take.")] = 3600.0,
    threads: Annotated[int, typer.Option(help="Threads of one run.")] = runner.THREADS,
    force: Annotated[bool, typer.Option(help="Make runs again that have a file.")] = False,
    results: Annotated[Path, typer.Option(help="Folder of the records.")] = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as JSON.")] = False,
    table: Annotated[bool, typer.Option(help="Only write docs/benchmarks.md.")] = False,
) -> None:
    """Measure `understudy fit` against its peers, or write the page of the results."""
    if table:
        others = (runner.load(runner.RESULTS / name) for name in ("gp", "scaling"))
        page.write(runner.ROOT / "docs" / "benchmarks.md", runner.load(results), *others)
        return
    console = Console(stderr=as_json)
    tasks = [
        Task(dataset, int(seed), max_rows)
        for seed in seeds.split(",")
        for dataset in chosen(datasets, DATASETS)
    ]
    wanted = {name: PEERS[name] for name in chosen(peers, PEERS)}
    for record in runner.run_all(tasks, wanted, results, Limits(timeout, threads), force):
        console.print(line(record), highlight=False, soft_wrap=True)
    records = runner.load(results)
    if as_json:
        print(json.dumps(records, indent=1))
    else:
        show(records, console)


if __name__ == "__main__":
    typer.run(main)
