"""Measure our Fourier neural operator beside those of other packages.

    python benchmarks/operators.py speed   time and memory, in turns with each peer
    python benchmarks/operators.py memory  memory again
    python benchmarks/operators.py page    docs/benchmarks-operators.md

Records are in results/benchmarks/operators. Each peer runs in its environment (benchmarks/setup.sh)
in one process with ours, on one thread; see benchmarks/peers/speed_operators.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import Annotated, Any

import numpy as np
import typer

import runner
from runner import ROOT, THEIRS, Record
from tables import markdown

RECORD = runner.RESULTS / "operators" / "speed.json"
PAGE = ROOT / "docs" / "benchmarks-operators.md"
START, END = "<!-- {}: written by python benchmarks/operators.py page -->", "<!-- end -->"
CASES = {"1d": "1-D, 128 points", "2d": "2-D, 64 x 64 points"}
PEERS = {
    "neuraloperator": ("neuraloperator", "FNO"),
    "physicsnemo": ("physicsnemo", "FNO"),
    "uno": ("neuraloperator", "U-NO"),
}
"""Environment, and what it is a network of."""

app = typer.Typer(add_completion=False, help=__doc__)


def asked(peer: str, *arguments: str) -> Record:
    """What the script prints in a peer's environment."""
    environment, _ = PEERS[peer]
    python = THEIRS / environment / "bin" / "python"
    script = runner.HERE / "peers" / "speed_operators.py"
    done = subprocess.run(
        [str(python), str(script), peer, *arguments],
        env=runner.limited_environment(1) | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {"failed": runner.last_line(done.stderr)}
    found: Record = json.loads(done.stdout.splitlines()[-1])
    return found


@app.command()
def speed(
    pairs: Annotated[int, typer.Option(help="Turns of each two networks.")] = 15,
    peers: Annotated[str, typer.Option(help="Peers, by commas.")] = ",".join(PEERS),
    cases: Annotated[str, typer.Option(help="Cases, by commas.")] = ",".join(CASES),
) -> None:
    """Time training steps and answers, and how much memory they take."""
    records = json.loads(RECORD.read_text())["records"] if RECORD.exists() else []
    for case in cases.split(","):
        for peer in peers.split(","):
            found = asked(peer, case, "times", str(pairs))
            if "failed" not in found:
                found |= memories(peer, case)
            found |= {"peer": peer, "case": case, "load": os.getloadavg()[0]}
            records = [r for r in records if (r["peer"], r["case"]) != (peer, case)] + [found]
            print(case, peer, found.get("failed") or line(found), flush=True)
            stamp = {"hardware": runner.hardware(1), "measured": time.strftime("%Y-%m-%d")}
            runner.write(RECORD, {**stamp, "records": records})


def memories(peer: str, case: str) -> Record:
    return {f"memory_{who}": asked(peer, case, "memory", who) for who in ("ours", "theirs")}


@app.command()
def memory() -> None:
    """Measure memory again and leave the times as they are."""
    found = json.loads(RECORD.read_text())
    for record in found["records"]:
        record |= memories(record["peer"], record["case"])
    runner.write(RECORD, found)


def ratios(record: Record, what: str) -> tuple[float, float, float]:
    """Median and quartiles over turns of the peer's time by ours."""
    mine, theirs = np.array(record[what]).T
    lower, median, upper = np.quantile(theirs / mine, [0.25, 0.5, 0.75])
    return median, lower, upper


def rates(record: Record, what: str) -> tuple[float, float]:
    """Samples a second of ours and the peer's, at the median time."""
    mine, theirs = np.median(record[what], axis=0)
    return record["batch"] / mine, record["batch"] / theirs


def line(record: Record) -> str:
    return " ".join(f"{what} {ratios(record, what)[0]:.2f}" for what in ("step_s", "answer_s"))


def speed_table(records: list[Record]) -> str:
    """A line a case and peer: samples a second of both, and their ratio."""
    head = ["", "beside", "weights, ours / its", "training: ours / its", "ratio"]
    head += ["answers: ours / its", "ratio"]
    lines = []
    for record in ordered(records):
        cells = ["{:,} / {:,}".format(*record["numbers"])]
        for what in ("step_s", "answer_s"):
            cells.append("{:.0f} / {:.0f}".format(*rates(record, what)))
            cells.append("**{:.2f}** ({:.2f}, {:.2f})".format(*ratios(record, what)))
        lines.append([CASES[record["case"]], title(record), *cells])
    return markdown(head, lines)


def memory_table(records: list[Record]) -> str:
    """A line a case and peer: megabytes of both."""
    head = ["", "beside", "training: ours / its", "ratio", "answers: ours / its", "ratio"]
    lines = []
    for record in ordered(records):
        cells = []
        for what in ("step_mb", "answer_mb"):
            mine, theirs = (record[f"memory_{who}"][what] for who in ("ours", "theirs"))
            cells += [f"{mine:.0f} / {theirs:.0f}", f"{theirs / mine:.2f}"]
        lines.append([CASES[record["case"]], title(record), *cells])
    return markdown(head, lines)


def ordered(records: list[Record]) -> list[Record]:
    places = [(case, peer) for case in CASES for peer in PEERS]
    measured = [r for r in records if "failed" not in r]
    return sorted(measured, key=lambda r: places.index((r["case"], r["peer"])))


def title(record: Record) -> str:
    return f"{record['package']}, {PEERS[record['peer']][1]}"


def verdict(record: dict[str, Any]) -> str:
    """Whether ours is as fast as each network with the same weights, in one sentence."""
    same = [r for r in ordered(record["records"]) if r["peer"] != "uno"]
    every = [ratios(r, what)[0] for r in same for what in ("step_s", "answer_s")]
    apart = max(r["apart"] for r in same)
    fact = "is not slower than any" if min(every) >= 1.0 else "is slower than some"
    return (
        f"Given the same weights, outputs agree to {apart:.0e}, and ours {fact}: median ratios are "
        f"{min(every):.2f} to {max(every):.2f}. {record['hardware']['processor']}, one thread, "
        f"{record['measured']}."
    )


@app.command()
def page() -> None:
    """Write the tables of docs/benchmarks-operators.md."""
    record = json.loads(RECORD.read_text())
    made = {
        "verdict": verdict(record) + "\n",
        "speed": speed_table(record["records"]),
        "memory": memory_table(record["records"]),
    }
    text = PAGE.read_text(encoding="utf-8")
    for name, part in made.items():
        before, rest = text.split(START.format(name), 1)
        text = f"{before}{START.format(name)}\n\n{part}\n{END}{rest.split(END, 1)[1]}"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    app()
