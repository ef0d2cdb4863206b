"""Time of our solver of sound in rooms beside public ones.

    python benchmarks/acoustics.py              all solvers, one after the other
    python benchmarks/acoustics.py deepwave     one again, beside what was measured of the others

A batch of 16 pulses in a square whose walls hold no pressure (pulses.py), which every solver here
can do: at equal grid and steps, and at equal error, between the
two grids around it. A record goes to results/benchmarks/acoustics.
Peers have environments in .bench, of benchmarks/{devito,deepwave,k-wave-python}.txt; Deepwave's
has PyTorch as well.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import runner
from runner import OURS, THEIRS, Record
from solvers import at_error
from tables import markdown

PATH = runner.RESULTS / "acoustics" / "solvers.json"
TARGET = 0.01
CELLS = (32, 64, 128)
EQUAL = {"cells": 128, "steps": 256, "dtype": "float32"}

SCRIPTS = {
    "understudy": (OURS, "acoustics_understudy"),
    "deepwave": (THEIRS / "deepwave", "acoustics_deepwave"),
    "devito": (THEIRS / "devito", "wave_devito"),
    "k-Wave": (THEIRS / "k-wave-python", "acoustics_kwave"),
}

Setting = dict[str, Any]


def families() -> dict[str, list[list[Setting]]]:
    """Settings of each solver from coarse to fine; the very first is that of equal grid and steps.

    k-Wave has none such: mirrors make its grid four times as large.

    Steps are near the limit of each scheme: ours and other five-point stencils cross 0.7 squares,
    Deepwave's of fourth order 0.5; k-Wave's are exact in time for a uniform medium.
    """

    def finer(share: float, cells: Sequence[int] = CELLS, **fixed: Any) -> list[Setting]:
        return [{"cells": n, "steps": round(n / share), **fixed} for n in cells]

    single, double = {"dtype": "float32"}, {"dtype": "float64"}
    return {
        "understudy": [[EQUAL], finer(0.7, **single), finer(0.7, **double)],
        "deepwave": [[{**EQUAL, "order": 2}]]
        + [finer(share, order=order, **single) for order, share in ((2, 0.5), (4, 0.5))],
        "devito": [[EQUAL], finer(0.7, **single)],
        "k-Wave": [finer(1.0, (32,), **single)],
    }


def answers(name: str, asked: list[Setting]) -> tuple[list[Record], dict[str, str]]:
    """Error and seconds of each setting, and the versions."""
    environment, script = SCRIPTS[name]
    done = subprocess.run(
        [
            str(environment / "bin" / "python"),
            str(runner.HERE / "peers" / f"{script}.py"),
            json.dumps(asked),
        ],
        env=runner.limited_environment(1),
        capture_output=True,
        text=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return [{"failed": runner.last_line(done.stderr), "setting": asked[0]}], {}
    return lines[:-1], lines[-1]["versions"]


def at_target(records: list[Record]) -> Record | None:
    """Seconds at the target, between two settings of a family, linear in the logarithms."""
    done = [r for r in records if "error" in r]
    for i, record in enumerate(done):
        if record["error"] <= TARGET:
            pair = done[max(i - 1, 0) : i + 1]
            seconds = {
                key: at_error(pair, [r[key] for r in pair], TARGET) for key in ("cpu_s", "wall_s")
            }
            return {**record, "error": min(TARGET, pair[0]["error"]), **seconds}
    return None


def soonest(found: list[list[Record]]) -> Record | None:
    """The family that reaches the target in the least processor time."""
    reached = [record for family in found if (record := at_target(family)) is not None]
    return min(reached, key=lambda r: r["cpu_s"]) if reached else None


def row(name: str, record: Record | None) -> list[str]:
    if record is None:
        return [name, "not reached", "", "", ""]
    if "failed" in record:
        return [name, record["failed"], "", "", ""]
    s = record["setting"]
    said = f"{s['cells']} x {s['cells']}, {s['steps']} steps, {s['dtype']}"
    said += f", order {s['order']}" if "order" in s else ""
    return [
        *(name, said, f"{record['error']:.2g}"),
        *(f"{record[key]:.3g} s" for key in ("cpu_s", "wall_s")),
    ]


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Solvers; all by default.")] = None,
) -> None:
    """Sweep solvers and print both tables."""
    known = json.loads(PATH.read_text()) if names and PATH.exists() else {}
    sweeps: dict[str, list[list[Record]]] = known.get("sweeps", {})
    versions = known.get("versions", {})
    for name, members in families().items():
        if names and name not in names:
            continue
        sweeps[name] = []
        for family in members:
            records, versions[name] = answers(name, family)
            sweeps[name].append(records)
            print(name, *(row(name, r)[1:] for r in records), sep="\n  ", flush=True)
    record = {
        **{"target": TARGET, "sweeps": sweeps, "versions": versions},
        **{"hardware": runner.hardware(1), "load": os.getloadavg()[0]},
        "measured": time.strftime("%Y-%m-%d"),
    }
    runner.write(PATH, record)
    heads = ["solver", "setting", "error", "processor", "wall"]
    print(
        markdown(
            heads, [row(name, found[0][0]) for name, found in sweeps.items() if len(found) > 1]
        )
    )
    print(markdown(heads, [row(name, soonest(found)) for name, found in sweeps.items()]))


if __name__ == "__main__":
    typer.run(main)
