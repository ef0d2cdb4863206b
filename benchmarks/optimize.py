"""Measure our search against BoTorch, Ax, Optuna, HEBO and random search.

    python benchmarks/optimize.py                              every missing run, then the tables
    python benchmarks/optimize.py --peers understudy --force   our runs again
    python benchmarks/optimize.py --table                      docs/benchmarks-search.md

On every problem, with every seed, all peers are told the same ten first runs (a scrambled Sobol
design) and then propose ten batches of five, one after the other: sixty evaluations. A peer is a
process in its own environment that is asked and told; the objective is evaluated here. Each run
leaves one JSON file in results/benchmarks/optimize; a run with a file is not made again. Where the
variable BENCH_PYTHON names an interpreter that has all packages, the peers run in that.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import runner
from problems import TASKS, Task
from runner import OURS, THEIRS, Record

FIRST, ROUNDS, BATCH = 10, 10, 5
RESULTS = runner.RESULTS / "optimize"
PAGE = runner.ROOT / "docs" / "benchmarks-search.md"
FIGURE = PAGE.with_suffix(".svg")


@dataclass(frozen=True)
class Peer:
    """A script of ``peers/`` with its arguments, in an environment, and what it can be asked."""

    title: str
    environment: Path
    script: str
    arguments: tuple[str, ...] = ()
    objectives: int = 99
    features: int = 10**9

    def suits(self, task: Task) -> bool:
        """Whether it takes so many objectives, and inputs after one-hot coding."""
        problem = task.problem
        wide = len(problem.space.feature_names) > self.features
        return len(problem.objectives) <= self.objectives and not wide

    @property
    def command(self) -> list[str]:
        script = runner.HERE / "peers" / f"search_{self.script}.py"
        python = os.environ.get("BENCH_PYTHON", str(self.environment / "bin" / "python"))
        return [python, str(script), *self.arguments]


PEERS = {
    "understudy": Peer("understudy", OURS, "understudy"),
    "understudy-pfn": Peer("understudy, PFN", OURS, "understudy", ("pfn",), features=10),
    "botorch": Peer("BoTorch", THEIRS / "botorch", "botorch"),
    "ax": Peer("Ax", THEIRS / "ax", "ax"),
    "optuna-gp": Peer("Optuna GP", OURS, "optuna", ("gp",)),
    "optuna-tpe": Peer("Optuna TPE", OURS, "optuna", ("tpe",)),
    "hebo": Peer("HEBO", THEIRS / "hebo", "hebo", objectives=1),
    "random": Peer("random", OURS, "random"),
}


class Process:
    """A peer that is asked and told."""

    def __init__(self, peer: Peer, problem: dict[str, Any], threads: int, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout
        self._process = subprocess.Popen(
            peer.command,
            env=runner.limited_environment(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        os.set_blocking(self._process.stderr.fileno(), False)
        self.versions = self.request(problem)["versions"]

    def request(self, message: dict[str, Any]) -> dict[str, Any]:
        print(json.dumps(message), file=self._process.stdin, flush=True)
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ, "answer")
            selector.register(self._process.stderr, selectors.EVENT_READ, "log")
            said = ""
            while True:
                left = self._deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("stopped at the time limit")
                for key, _ in selector.select(left):
                    if key.data == "answer":
                        line = self._process.stdout.readline()
                        if not line:
                            raise RuntimeError(runner.last_line(said + self._rest()))
                        return json.loads(line)
                    said = (said + self._rest())[-4000:]

    def _rest(self) -> str:
        try:
            return os.read(self._process.stderr.fileno(), 1 << 16).decode(errors="replace")
        except BlockingIOError:
            return ""

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def described(task: Task, seed: int) -> dict[str, Any]:
    """A problem as the peers read it."""
    inputs = []
    for item in task.problem.space:
        fields = {"log": False, **asdict(item)}
        fields["type"] = item.kind
        if "choices" in fields:
            fields["choices"] = list(fields["choices"])
        inputs.append(fields)
    return {
        "inputs": inputs,
        "objectives": [asdict(objective) for objective in task.problem.objectives],
        "reference_point": task.reference_point and list(task.reference_point),
        "seed": seed,
    }


def run(name: str, seed: int, peer: Peer, threads: int, timeout: float) -> Record:
    """One search: the loss (or minus the hypervolume) after every evaluation, and its cost."""
    task = TASKS[name]()
    plain = task.problem.space.sample(FIRST, seed=1000 + seed).to_dict("records")
    first = [{k: v.item() if hasattr(v, "item") else v for k, v in c.items()} for c in plain]
    process, seconds, cpu = None, [], []
    values = task.evaluate(first)
    try:
        process = Process(peer, described(task, seed), threads, timeout)
        process.request({"tell": list(zip(first, values, strict=True))})
        for _ in range(ROUNDS):
            answer = process.request({"ask": BATCH})
            found = task.evaluate(answer["configs"])
            process.request({"tell": list(zip(answer["configs"], found, strict=True))})
            values += found
            seconds.append(round(answer["wall_s"], 4))
            cpu.append(round(answer["cpu_s"], 4))
    except (RuntimeError, TimeoutError, BrokenPipeError) as error:
        return {"failed": str(error)}
    finally:
        if process is not None:
            process.close()
    return {
        "history": [float(f"{loss:.8g}") for loss in task.history(values)],
        "round_wall_s": seconds,
        "round_cpu_s": cpu,
        "versions": process.versions,
    }


def run_all(
    names: list[str], seeds: list[int], peers: dict[str, Peer], results: Path, options: Any
) -> Iterator[Record]:
    for seed in seeds:
        for name in names:
            for key, peer in peers.items():
                path = results / f"{name}-{seed}-{key}.json"
                if (path.exists() and not options["force"]) or not peer.suits(TASKS[name]()):
                    continue
                found = run(name, seed, peer, options["threads"], options["timeout"])
                facts = {"problem": name, "seed": seed, "peer": key}
                stamp = {
                    "hardware": runner.hardware(options["threads"]),
                    "measured": time.strftime("%Y-%m-%d"),
                }
                record = facts | found | stamp
                runner.write(path, record)
                yield record


def main(
    peers: Annotated[str, typer.Option(help="Comma-separated, or all.")] = "all",
    problems: Annotated[str, typer.Option(help="Comma-separated, or all.")] = "all",
    seeds: Annotated[str, typer.Option(help="Comma-separated.")] = "0,1,2,3,4,5,6,7,8,9",
    timeout: Annotated[float, typer.Option(help="Seconds that one run may take.")] = 3600.0,
    threads: Annotated[int, typer.Option(help="Threads of one run.")] = 1,
    force: Annotated[bool, typer.Option(help="Make runs again that have a file.")] = False,
    results: Annotated[Path, typer.Option(help="Folder of the records.")] = RESULTS,
    table: Annotated[bool, typer.Option(help="Only write the page of the results.")] = False,
) -> None:
    """Measure our search against its peers, or write the page of the results."""
    if not table:
        wanted = list(PEERS) if peers == "all" else peers.split(",")
        names = list(TASKS) if problems == "all" else problems.split(",")
        for name in [*wanted, *names]:
            if name not in PEERS and name not in TASKS:
                raise typer.BadParameter(f"{name!r} is neither a peer nor a problem")
        options = {"threads": threads, "timeout": timeout, "force": force}
        chosen = {name: PEERS[name] for name in wanted}
        for record in run_all(names, [int(s) for s in seeds.split(",")], chosen, results, options):
            title = f"{record['problem']} seed={record['seed']} {record['peer']}"
            if "failed" in record:
                print(f"{title}: {record['failed']}", flush=True)
                continue
            mean = np.mean(record["round_wall_s"]) / BATCH
            print(
                f"{title}: after {FIRST} {record['history'][FIRST - 1]:.5g}, "
                f"after {len(record['history'])} {record['history'][-1]:.5g}, "
                f"{mean:.2f} s a suggestion",
                flush=True,
            )
        return
    import search_page

    records = runner.load(results)
    FIGURE.write_text(search_page.rank_figure(records, PEERS))
    PAGE.write_text(search_page.page(records, PEERS, FIGURE.name))


if __name__ == "__main__":
    sys.exit(typer.run(main))
