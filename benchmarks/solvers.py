"""Time of our PDE solvers and of public ones at equal error.

    python benchmarks/solvers.py measure ks                sweep all solvers, then time them
    python benchmarks/solvers.py measure ks --threads 2    the same settings on two cores
    python benchmarks/solvers.py measure ks --again understudy   sweep this one only, time all
    python benchmarks/solvers.py page                      docs/benchmarks-solvers.md

Without names, all problems of equations.py. A record a problem and number of threads goes to
results/benchmarks/solvers. Peers have environments in .bench (benchmarks/setup.sh).
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import runner
import solvers_page
from equations import PROBLEMS, Problem, equation_of, heat
from runner import OURS, THEIRS, Record

RESULTS = runner.RESULTS / "solvers"
TARGETS = (1e-3, 1e-6)
ROUND = 0.02  # seconds of a solver's turn, of whose calls the least counts
LONGEST = 2.0  # seconds of a run, after which a sweep is not refined
_XLA = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

Setting = dict[str, Any]
Family = list[Setting]
"""Settings from coarse to fine that differ in one thing."""


@dataclass(frozen=True)
class Solver:
    environment: Path
    script: str


SOLVERS = {
    "understudy": Solver(OURS, "solve_understudy"),
    "stepping": Solver(OURS, "solve_understudy"),  # without what only one equation allows
    "exponax": Solver(THEIRS / "exponax", "solve_exponax"),
    "jax-cfd": Solver(THEIRS / "jax-cfd", "solve_jax_cfd"),
    "scipy": Solver(OURS, "solve_scipy"),
    "py-pde": Solver(THEIRS / "py-pde", "solve_py_pde"),
}


# -- what is swept ------------------------------------------------------------------------------


def families(name: str) -> dict[str, list[Family]]:
    """Families of every solver for a problem.

    Solvers that take one run after the other are left out where runs are many.
    """
    if equation_of(name) != name:
        found = families(equation_of(name))
        batched = ("understudy", "stepping", "exponax", "jax-cfd")
        return {peer: found[peer] for peer in batched if peer in found}
    if name == "advection":
        one = [[{"points": n, "steps": 1}] for n in (32,)]
        scipy = [[tolerance(64, "DOP853", r) for r in (1e-4, 1e-7)]]
        jax = [[{"points": 32, "steps": 1, "dtype": d}] for d in ("float32", "float64")]
        return {"understudy": one, "exponax": jax, "scipy": scipy}
    if name == "heat1d":
        counts = (15, 31, 63, 127, 255, 511, 1023)
        scipy = [[tolerance(n, m, 1e-7) for n in counts] for m in ("BDF", "Radau", "LSODA")]
        loose = [[tolerance(n, "BDF", 1e-4) for n in counts[:4]]]
        return {
            "understudy": [[{"points": n, "steps": 1} for n in counts]],
            "scipy": scipy[:2] + loose,
        }
    steps, ours, theirs, differences = {
        "ks": ((70, 100, 140, 200, 400, 800, 1600), (96, 128), (128, 192), (256,)),
        "burgers": ((20, 40, 56, 70, 100, 140, 200), (128, 192), (192, 256), (256, 512)),
        "fisher": ((6, 10, 20, 40, 80), (32, 64), (32, 64), (128, 256, 512)),
        "kolmogorov": ((20, 40, 80, 160), (64, 96), (64, 96), ()),
    }[name]
    coarse = ours[:0] if name == "kolmogorov" else ours[:-1]
    kinds = [(ours[0], "single"), *((n, "double") for n in (*coarse, ours[-1]))]
    own = [
        [{"points": n, "steps": k, "precision": p, "scheme": scheme} for k in steps]
        for n, p in kinds
        for scheme in ("runge-kutta", "adams")
    ]
    others = theirs[1:] if name == "kolmogorov" else theirs
    dtypes = [(theirs[0], "float32"), *((n, "float64") for n in others)]
    jax = [[{"points": n, "steps": k, "dtype": d} for k in steps] for n, d in dtypes]
    found = {"understudy": own, "exponax": jax}
    if name in ("burgers", "fisher"):
        exact = name == "burgers"
        grids, counts = ((64, 128), (1,)) if exact else ((32, 64), (1, 2, 4))
        scheme = "exact" if exact else "splitting"
        closed = [[{"points": n, "steps": k, "scheme": scheme} for k in counts] for n in grids]
        found |= {"understudy": closed, "stepping": own}
    if name in ("ks", "kolmogorov"):
        found["jax-cfd"] = jax[:2]
    methods = ("RK45", "DOP853") if name == "kolmogorov" else ("RK45", "DOP853", "LSODA")
    found["scipy"] = [
        [tolerance(n, method, r) for r in (1e-3, 1e-5, 1e-7)]
        for n in theirs[:1]
        for method in methods
    ]
    if differences:
        found["py-pde"] = [[{"points": n, "rtol": 1e-5} for n in differences]]
    return found


def tolerance(points: int, method: str, rtol: float) -> Setting:
    return {"points": points, "method": method, "rtol": rtol}


# -- solvers as processes -----------------------------------------------------------------------


class Process:
    """A solver that answers; see peers/solve_dialogue.py."""

    def __init__(self, solver: Solver, threads: int) -> None:
        python = solver.environment / "bin" / "python"
        script = runner.HERE / "peers" / f"{solver.script}.py"
        environment = runner.limited_environment(threads)
        if threads == 1:
            environment |= {"XLA_FLAGS": _XLA}
        self.process = subprocess.Popen(
            [str(python), str(script)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.versions = self._line().get("versions", {})

    def ask(self, **request: Any) -> Record:
        self.process.stdin.write(json.dumps(request) + "\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        return self._line()

    def _line(self) -> Record:
        text = self.process.stdout.readline()  # type: ignore[union-attr]
        return json.loads(text) if text else {"failed": "the process ended"}

    def close(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait()


def solved(process: Process, name: str, setting: Setting) -> tuple[Record, np.ndarray | None]:
    """Answer of a solver, and its fields at the base nodes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fields.npy"
        reply = process.ask(problem=name, setting=setting, answer=str(path))
        return reply, None if "failed" in reply else PROBLEMS[name].sampled(np.load(path))


def distance(u: np.ndarray, exact: np.ndarray) -> float:
    """Relative L2 error of all runs together."""
    return float(np.linalg.norm(u - exact) / np.linalg.norm(exact))


# -- the truth ----------------------------------------------------------------------------------

FINEST = {
    "ks": (256, 6400),
    "burgers": (512, 2000),
    "fisher": (256, 800),
    "kolmogorov": (128, 100),
}


def truth(name: str, problem: Problem, processes: dict[str, Process]) -> tuple[np.ndarray, float]:
    """Fields at the base nodes, and how far a fine run of ours is from them.

    In closed form where there is one, else by exponax in float64 on a grid and with steps far finer
    than any that is timed.
    """
    base, end = problem.base, problem.constants["duration"]
    if name == "heat1d":
        exact, ours = heat(np.arange(1, base + 1) / (base + 1), end), {"points": 4095, "steps": 1}
    elif name == "advection":
        waves = np.fft.rfft(problem.start(4 * base))
        turn = np.exp(-2j * np.pi * np.arange(waves.shape[-1]) * problem.constants["speed"] * end)
        exact, ours = problem.sampled(np.fft.irfft(waves * turn)), {"points": 64, "steps": 1}
    else:
        points, steps = FINEST[equation_of(name)]
        fine = {"points": points, "steps": steps, "dtype": "float64"}
        reply, found = solved(processes["exponax"], name, fine)
        if found is None:
            raise SystemExit(f"no reference of {name}: {reply['failed']}")
        exact = found
        ours = {"points": points // 2, "steps": steps // 2, "scheme": "adams"}
    _, again = solved(processes["understudy"], name, ours)
    return exact, distance(again, exact) if again is not None else np.nan


# -- measuring ----------------------------------------------------------------------------------


def swept(process: Process, name: str, exact: np.ndarray, family: Family) -> Iterator[Record]:
    """Error and cost of each setting of a family, until runs take too long."""
    for setting in family:
        reply, found = solved(process, name, setting)
        if found is None:
            yield {"setting": setting, "failed": reply["failed"]}
            continue
        error = distance(found, exact)
        seconds = {key: reply[key][0] for key in ("wall_s", "cpu_s")}
        yield {"setting": setting, "error": error, "first_s": reply["first_s"], **seconds}
        finished = np.isfinite(error) and error < TARGETS[-1] / 3
        if finished or seconds["cpu_s"] > LONGEST:
            return


def chosen(sweeps: Sequence[Sequence[Record]], target: float) -> list[Record]:
    """The two neighbours in a family between which the target is reached the soonest.

    One where a family reaches it at once, none where nothing does.
    """
    best: tuple[float, list[Record]] = (np.inf, [])
    for sweep in sweeps:
        done = [record for record in sweep if np.isfinite(record.get("error", np.nan))]
        for i, record in enumerate(done):
            if record["error"] > target:
                continue
            pair = done[max(i - 1, 0) : i + 1]
            cost = at_error(pair, [r["cpu_s"] for r in pair], target)
            best = min(best, (cost, pair), key=lambda b: b[0])
            break
    return best[1]


def hopeless(
    pairs: dict[str, list[Record]], before: dict[str, Record], target: float
) -> dict[str, Record]:
    """What a record says of solvers that are more than ten times slower than the fastest."""
    cost = {p: at_error(pair, [r["cpu_s"] for r in pair], target) for p, pair in pairs.items()}
    slow = [p for p in cost if cost[p] > 10.0 * min(cost.values())]
    return {peer: before[peer] for peer in slow if peer in before}


def at_error(pair: Sequence[Record], seconds: Sequence[float], target: float) -> float:
    """Seconds at the target between two settings, linear in the logarithms."""
    if len(pair) == 1:
        return seconds[0]
    (e0, e1), (t0, t1) = (np.log([r["error"] for r in pair]), np.log(seconds))
    share = np.clip((np.log(target) - e0) / (e1 - e0), 0.0, 1.0)
    return float(np.exp(t0 + share * (t1 - t0)))


def in_turns(
    processes: dict[str, Process],
    name: str,
    pairs: dict[str, list[Record]],
    target: float,
    rounds: int,
) -> dict[str, Record]:
    """Seconds of each solver at a target in every round, in which all take their turns."""
    found: dict[str, Record] = {
        peer: {"settings": [r["setting"] for r in pair], "errors": [r["error"] for r in pair]}
        | {"first_s": pair[-1]["first_s"], "wall_s": [], "cpu_s": []}
        for peer, pair in pairs.items()
    }
    seconds: dict[str, list[dict[str, list[float]]]] = {peer: [] for peer in pairs}
    for place in (0, 1):
        at = {peer: pair[min(place, len(pair) - 1)] for peer, pair in pairs.items()}
        for peer, record in at.items():
            solved(processes[peer], name, record["setting"])
        times = {peer: {"wall_s": [], "cpu_s": []} for peer in pairs}
        for _, peer in itertools.product(range(rounds), pairs):
            few = at[peer]["cpu_s"] > 1.0 and len(times[peer]["cpu_s"]) >= 2
            calls = int(np.clip(ROUND / at[peer]["cpu_s"], 1, 20))
            reply = times[peer] if few else processes[peer].ask(time=calls)
            for key, values in times[peer].items():
                values.append(min(reply[key][-calls:]))
        for peer in pairs:
            seconds[peer].append(times[peer])
    for peer, pair in pairs.items():
        for key in ("wall_s", "cpu_s"):
            both = zip(*(part[key] for part in seconds[peer][-len(pair) :]), strict=True)
            found[peer][key] = [at_error(pair, times, target) for times in both]
    return found


app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def measure(
    names: Annotated[list[str] | None, typer.Argument(help="Problems; all by default.")] = None,
    threads: Annotated[int, typer.Option(help="Of every solver.")] = 1,
    rounds: Annotated[int, typer.Option(help="In which solvers are timed in turns.")] = 7,
    again: Annotated[list[str] | None, typer.Option(help="Sweep these only.")] = None,
) -> None:
    """Sweep all solvers on problems, then time the best settings of each in turns.

    With more threads than one, settings are those that one thread found; with ``--again``, those of
    other solvers are what the record says, and so are times of those ten times slower than the
    fastest.
    """
    for name in names or list(PROBLEMS):
        problem, swept_families = PROBLEMS[name], families(name)
        processes = {
            peer: Process(SOLVERS[peer], threads) for peer in {**swept_families, "exponax": []}
        }
        exact, agreement = truth(name, problem, processes) if threads == 1 else (None, None)
        sweeps, before = {}, {}
        if threads > 1 or again:
            sweeps = json.loads((RESULTS / f"{name}-1.json").read_text())["sweeps"]
        if again:
            before = json.loads((RESULTS / f"{name}-{threads}.json").read_text())["targets"]
        for peer in again or ():
            sweeps.pop(peer, None)
        for peer, members in swept_families.items():
            if peer not in sweeps:
                sweeps[peer] = [list(swept(processes[peer], name, exact, f)) for f in members]
            print(name, peer, *(line(sweeps[peer], target) for target in TARGETS), flush=True)
        results = {}
        for target in TARGETS:
            pairs = {peer: chosen(found, target) for peer, found in sweeps.items()}
            reached = {peer: pair for peer, pair in pairs.items() if pair}
            old = hopeless(reached, before.get(f"{target:g}", {}), target)
            timed = {peer: pair for peer, pair in reached.items() if peer not in old}
            results[f"{target:g}"] = in_turns(processes, name, timed, target, rounds) | old
        record = {
            "problem": name,
            "title": problem.title,
            "equation": problem.equation,
            "runs": len(problem.start(problem.base)),
            "agreement": agreement,
            "targets": results,
            "sweeps": sweeps if threads == 1 else {},
            "solvers": list(swept_families),
            "versions": {peer: process.versions for peer, process in processes.items()},
            "hardware": runner.hardware(threads),
            "load": os.getloadavg()[0],
            "measured": time.strftime("%Y-%m-%d"),
        }
        runner.write(RESULTS / f"{name}-{threads}.json", record)
        for process in processes.values():
            process.close()


def line(sweeps: Sequence[Sequence[Record]], target: float) -> str:
    pair = chosen(sweeps, target)
    if not pair:
        return f"{target:g}: not reached;"
    cost = at_error(pair, [r["cpu_s"] for r in pair], target)
    return f"{target:g}: {1e3 * cost:.2f} ms with {pair[-1]['setting']};"


@app.command()
def page() -> None:
    """Write docs/benchmarks-solvers.md from the records."""
    records = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    solvers_page.write(runner.ROOT / "docs" / "benchmarks-solvers.md", records)


if __name__ == "__main__":
    app()
