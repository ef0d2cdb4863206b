"""Runs of the peers: one subprocess and one JSON file each, so that what was stopped goes on."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets import Split, split, table
from scores import scores

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = ROOT / "results" / "benchmarks"
THREADS = 2  # of a run, unless the command line says otherwise

Record = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """A script that answers tasks, its Python, and the variants (name: prefix) that it gives."""

    python: Path
    script: Path
    variants: Mapping[str, str]


def peer(environment: Path, script: str, **variants: str) -> Peer:
    """A script of ``peers/`` in an environment, with its variants."""
    return Peer(environment / "bin" / "python", HERE / "peers" / f"run_{script}.py", variants)


OURS = ROOT / ".venv"
THEIRS = ROOT / ".bench"


@dataclass(frozen=True)
class Task:
    """One data set, one seed, and how many training rows (None: all of the 80 %)."""

    dataset: str
    seed: int
    rows: int | None = None

    def path(self, peer: str, folder: Path) -> Path:
        rows = "all" if self.rows is None else str(self.rows)
        return folder / f"{self.dataset}-{rows}-{self.seed}-{peer}.json"

    def split(self) -> Split:
        return split(table(self.dataset), self.seed, self.rows)


@dataclass(frozen=True)
class Limits:
    """What one run may take: seconds of wall time, and threads."""

    timeout: float = 3600.0
    threads: int = THREADS


def hardware(threads: int) -> dict[str, Any]:
    """Processor, cores and threads used."""
    names = (
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    return {
        "processor": next(names, platform.processor()),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": platform.system(),
        "python": platform.python_version(),
    }


def limited_environment(threads: int) -> dict[str, str]:
    """Environment of a subprocess that may use so many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return os.environ | dict.fromkeys(names, str(threads)) | {"MPLBACKEND": "Agg"}


def run_limited(command: list[str], limits: Limits) -> tuple[int | None, str]:
    """Exit code (None: stopped at the time limit) and the end of what was written."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            env=limited_environment(limits.threads),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(limits.timeout)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            code = None
        log.seek(0)
        return code, log.read()[-2000:].strip()


def answer_of(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Arrays of one variant: those that start with its prefix, without it."""
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}


def variant_cost(report: Record, prefix: str) -> dict[str, float]:
    """Cost of a variant: that of the first answer, and what the variant took on top."""
    cost = dict(report["cost"])
    for kind in ("wall_s", "cpu_s"):
        cost[f"fit_{kind}"] += report["details"].get(f"{prefix}{kind}", 0.0) if prefix else 0.0
    return {name: round(value, 3) for name, value in cost.items()}


def last_line(output: str) -> str:
    return next(reversed(output.splitlines()), "ended without a word")


def evaluate(task: Task, peer: Peer, data: Split, limits: Limits) -> dict[str, Record]:
    """Records of every variant that one run of the peer's script gives."""
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder) / "task.npz", Path(folder) / "answer.npz"
        np.savez(question, **vars(data), seed=task.seed)
        command = [str(peer.python), str(peer.script), str(question), str(answer)]
        code, output = run_limited(command, limits)
        if code != 0 or not answer.exists():
            reason = f"stopped after {limits.timeout:g} s" if code is None else last_line(output)
            return {name: {"failed": reason} for name in peer.variants}
        with np.load(answer) as stored:
            results = {name: stored[name] for name in stored.files}
    report = json.loads(str(results.pop("report")))
    return {
        name: {
            "scores": scores(answer_of(results, prefix), data.Y_train, data.Y_test),
            "cost": variant_cost(report, prefix),
            "details": report["details"],
            "versions": report["versions"],
        }
        for name, prefix in peer.variants.items()
    }


def write(path: Path, record: Record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    temporary.replace(path)


def missing(task: Task, peer: Peer, folder: Path) -> bool:
    """Whether any answer that the peer's run gives has no file yet."""
    return not all(task.path(name, folder).exists() for name in peer.variants)


def pending(
    tasks: list[Task], peers: Mapping[str, Peer], folder: Path, force: bool
) -> Iterator[tuple[Task, Peer]]:
    """Runs still to be made, task by task: those without a file, or all of them with ``force``."""
    for task in tasks:
        for peer in peers.values():
            if force or missing(task, peer, folder):
                yield task, peer


def run(task: Task, peer: Peer, folder: Path, limits: Limits) -> list[Record]:
    """Run one peer on one task and write its records."""
    data = task.split()
    shape = {
        "n_train": len(data.X_train),
        "n_test": len(data.X_test),
        "inputs": data.X_train.shape[1],
        "outputs": data.Y_train.shape[1],
    }
    records = []
    for variant, result in evaluate(task, peer, data, limits).items():
        facts = {"peer": variant, **asdict(task), **shape}
        stamp = {"hardware": hardware(limits.threads), "measured": time.strftime("%Y-%m-%d")}
        records.append(facts | result | stamp)
        write(task.path(variant, folder), records[-1])
    return records


def run_all(
    tasks: list[Task], peers: Mapping[str, Peer], folder: Path, limits: Limits, force: bool = False
) -> Iterator[Record]:
    """Make the pending runs one after the other; every record is on disk before it is given."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the run in hand ends as well
    for task, peer in pending(tasks, peers, folder, force):
        yield from run(task, peer, folder, limits)


def load(folder: Path) -> list[Record]:
    """All records of a folder, in the order of their file names."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
