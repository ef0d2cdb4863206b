"""Time of our wave solver and of our one-way filters beside public ones.

    python benchmarks/waves.py solvers    a batch of pulses at equal error
    python benchmarks/waves.py filters    shared one-way filters and tensorly-torch's, in turns

Each writes a record to results/benchmarks/waves and prints a table. Peers have environments in
.bench (benchmarks/setup.sh).
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import typer

import runner
from runner import OURS, THEIRS, Record
from tables import markdown

RESULTS = runner.RESULTS / "waves"
TARGET = 0.01
CELLS = (64, 96, 128)
_SHORT = 0.5
"""Of the squares that a wave crosses in a step."""

Setting = dict[str, Any]


def families() -> dict[str, list[list[Setting]]]:
    """Settings of each solver from coarse to fine, in families that differ in one thing."""

    def finer(shares: float, **fixed: Any) -> list[Setting]:
        return [{"cells": n, "steps": round(n / shares), **fixed} for n in CELLS]

    dtypes = ("float32", "float64")
    return {
        "understudy": [finer(1.0, scheme="newmark"), finer(_SHORT, scheme="central")],
        "devito": [finer(_SHORT, dtype=d) for d in dtypes],
    }


def answers(name: str, settings: list[Setting]) -> tuple[list[Record], dict[str, str]]:
    """Error and seconds of each setting, and the versions."""
    environment = OURS if name == "understudy" else THEIRS / name
    script = runner.HERE / "peers" / f"wave_{name}.py"
    done = subprocess.run(
        [str(environment / "bin" / "python"), str(script), json.dumps(settings)],
        env=runner.limited_environment(1),
        capture_output=True,
        text=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    records = [line for line in lines if "error" in line]
    versions = next((line["versions"] for line in lines if "versions" in line), {})
    if len(records) < len(settings):
        said = runner.last_line(done.stderr)
        records.append({"failed": said, "setting": settings[len(records)]})
    return records, versions


def reached(records: list[Record]) -> Record | None:
    """Soonest record of an error at most the target."""
    good = [r for r in records if r.get("error", 1.0) <= TARGET]
    return min(good, key=lambda r: r["cpu_s"]) if good else None


app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def solvers() -> None:
    """Sweep all solvers and print the soonest setting of each."""
    found, versions = {}, {}
    for name, members in families().items():
        records: list[Record] = []
        for family in members:
            part, versions[name] = answers(name, family)
            records += part
        found[name] = records
    keep("solvers", {"target": TARGET, "sweeps": found, "versions": versions})
    rows = []
    for name, records in found.items():
        best = reached(records)
        if best is None:
            rows.append([name, "not reached", "", "", ""])
            continue
        times = [f"{best[key]:.3g} s" for key in ("cpu_s", "wall_s", "first_s")]
        rows.append([name, json.dumps(best["setting"]), f"{best['error']:.2g}", *times])
    heads = ["solver", "setting", "error", "processor", "wall", "first call with making ready"]
    print(markdown(heads, rows))


@app.command()
def filters() -> None:
    """Time our shared filters, tensorly-torch's and a dense convolution in turns."""
    environment = THEIRS / "tensorly-torch"
    done = subprocess.run(
        [
            str(environment / "bin" / "python"),
            str(runner.HERE / "peers" / "speed_filters.py"),
        ],
        env=runner.limited_environment(1) | {"PYTHONPATH": str(runner.ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    record = json.loads(done.stdout.splitlines()[-1])
    keep("filters", record)
    rows = [
        [
            *(f"{r['kernel']} x {r['kernel']}", str(r["rank"]), r["layout"], r["what"]),
            *(f"{r[f'{name}_ms']:.2f} ms" for name in ("ours", "theirs", "dense")),
        ]
        for r in record["rows"]
    ]
    heads = ["kernel", "terms", "layout", "what", "ours", "tensorly-torch", "dense"]
    print(markdown(heads, rows))


def keep(name: str, record: dict[str, Any]) -> None:
    about = {
        "hardware": runner.hardware(1),
        "load": os.getloadavg()[0],
        "measured": time.strftime("%Y-%m-%d"),
    }
    runner.write(Path(RESULTS / f"{name}.json"), record | about)


if __name__ == "__main__":
    app()
