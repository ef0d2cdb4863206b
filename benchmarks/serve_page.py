"""Write docs/benchmarks-serve.md from results/benchmarks/serve.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
NAMES = {
    "understudy-onnx": "Understudy, ONNX Runtime",
    "mlflow-onnx": "MLflow, ONNX Runtime",
    "bentoml-onnx": "BentoML, ONNX Runtime",
    "bentoml-onnx-batching": "BentoML, ONNX Runtime, adaptive batching",
    "understudy-torch": "Understudy, PyTorch",
    "mlflow-torch": "MLflow, PyTorch",
    "bentoml-torch": "BentoML, PyTorch",
}


def table(found: dict[str, Any], connections: str) -> list[str]:
    lines = [
        "| server | requests a second | p50, ms | p95, ms | p99, ms | processor, ms a request |"
    ]
    lines += ["|---|---|---|---|---|---|"]
    for system, by in found.items():
        run = by.get(connections)
        if run:
            cells = [f"{run['requests_per_second']:,.0f}"]
            cells += [f"{run[f'p{p}_ms']:,.1f}" for p in (50, 95, 99)]
            cells += [f"{run['processor_ms']:.2f}"]
            lines.append(f"| {NAMES[system]} | {' | '.join(cells)} |")
    return lines


def verdict(found: dict[str, Any]) -> list[str]:
    """Where the service is ahead at p99, and where it is not."""
    lines = []
    for engine, name in (("onnx", "ONNX Runtime"), ("torch", "PyTorch")):
        own = found.get(f"understudy-{engine}")
        for connections in own or ():
            rest = {
                NAMES[system]: by[connections]["p99_ms"]
                for system, by in found.items()
                if engine in system and not system.startswith("understudy") and connections in by
            }
            if not rest:
                continue
            best = min(rest, key=lambda key: rest[key])
            mine = own[connections]["p99_ms"]
            said = "ahead" if mine < rest[best] else "behind"
            lines.append(
                f"- {name}, {connections} connection{'s' if connections != '1' else ''}: {said} at "
                f"p99, {mine:.1f} ms against {rest[best]:.1f} ms of {best}."
            )
    return lines


def page() -> str:
    record = json.loads((ROOT / "results" / "benchmarks" / "serve.json").read_text())
    lines = [
        "# Benchmarks of serving",
        "",
        "Requests of one row over a loopback socket, by `understudy serve`, by MLflow's own server "
        "(`mlflow models serve`) and by BentoML, each with one worker on the same fitted model.",
        "",
        "## What is compared",
        "",
        "The model is a stack of a polynomial, a Gaussian process and a deep ensemble of the "
        "borehole function (8 inputs, 200 rows). With ONNX Runtime all servers evaluate the same "
        "`.onnx` file by [`understudy export`](export.md), with PyTorch the same `.us` file, on "
        "one thread. Every answer has the mean, the deviation and the 90 % interval. Connections "
        "are kept open and ask again as soon as they are answered, with rows that differ.",
        "",
        "The work around the model is not the same: Understudy takes rows by name, checks every "
        "cell, marks extrapolation, counts and logs each request; MLflow takes a table by name; "
        "BentoML takes and gives plain lists of numbers, which is the least of the three. BentoML "
        "is measured without and with its adaptive batching.",
        "",
        f"{record['machine']}. All servers run at the same time and are asked in turn, in bursts "
        f"of {record['seconds']:g} s, {record['rounds']} times; figures are medians. "
        "Client and servers share the machine, with a load of "
        f"{record['load']:.0f}: compare servers, not absolute times. Connecting is part of a "
        "burst. Processor time is of the server and its workers; it depends least on what else "
        "runs.",
        "",
    ]
    for connections in ("1", "8", "64"):
        lines += [f"## {connections} connection{'s' if connections != '1' else ''}", ""]
        lines += [*table(record["one_row"], connections), ""]
    lines += ["## Ahead or behind", "", *verdict(record["one_row"]), ""]
    lines += [
        "An earlier measurement beside much other work, before loaded packages were kept out of "
        "garbage collection, had us behind BentoML with adaptive batching at 64 connections, 320 "
        "against 254 ms.",
        "",
    ]
    if "bulk" in record:
        bulk = dict(record["bulk"])
        rows = bulk.pop("rows")
        lines += [f"## {rows:,} rows in a request", "", "| server | sent as | rows a second |"]
        lines += ["|---|---|---|"]
        lines += [
            f"| {NAMES[system]} | `{run['kind']}` | {run['rows_per_second']:,.0f} |"
            for system, run in bulk.items()
        ]
        lines += ["", "Each in the fastest kind of body that the server takes of those tried.", ""]
    if "soak" in record:
        soak = record["soak"]
        lines += [
            "## Memory",
            "",
            f"{soak['minutes']:g} minutes of 8 connections, {soak['requests']:,} predictions, and "
            "refused requests between them: the median resident size was "
            f"{soak['first_quarter_mib']:.0f} MiB in the first quarter and "
            f"{soak['last_quarter_mib']:.0f} MiB in the last "
            f"({soak['growth_mib']:+.1f} MiB).",
            "",
        ]
    lines += [
        "## Measure again",
        "",
        "```bash",
        "make bench-setup",
        ".venv/bin/python benchmarks/serve.py measure --seconds 2 --rounds 3",
        ".venv/bin/python benchmarks/serve.py bulk",
        ".venv/bin/python benchmarks/serve.py soak",
        ".venv/bin/python benchmarks/serve_page.py",
        "```",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    (ROOT / "docs" / "benchmarks-serve.md").write_text(page())
