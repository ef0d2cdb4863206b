"""Effective draws per second of samplers on posteriors of Bayesian neural networks.

Networks with tanh and N(0, 1) priors on all weights, as those of arXiv 2305.20028, noise variance
0.01 of the standardised output. All samplers start from the same four positions and have the same
number of burn-in and kept draws, on two cores. What must be estimated are the function at 20 other
points and the log density; the effective number is the least over them, of bulk or tails.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from runner import (
    OURS,
    RESULTS,
    ROOT,
    THEIRS,
    Limits,
    hardware,
    last_line,
    load,
    run_limited,
    write,
)

CHAINS, CORES = 4, 2
FOLDER = RESULTS / "sampling"
PAGE = ROOT / "docs" / "benchmarks-sampling.md"
NOISE = 0.01
PHASES = ("burn_in", "sampling")


@dataclass(frozen=True)
class Posterior:
    """A network, and the function that it learns from some of its rows."""

    title: str
    sizes: tuple[int, ...]
    rows: int
    data: Callable[[int], tuple[np.ndarray, np.ndarray]]


def simulated(simulator: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs in the unit cube and outputs of a Latin hypercube of runs."""
    inputs = simulator.space.sample(count, seed=7, method="lhs")
    low, high = np.array([[part.lower, part.upper] for part in simulator.space.inputs]).T
    codes = simulator.space.encode(inputs)
    return (codes - low) / (high - low), simulator.run_many(inputs).to_numpy(dtype=float)


def borehole(count: int) -> tuple[np.ndarray, np.ndarray]:
    from understudy.simulate.functions import Borehole

    return simulated(Borehole(), count)


def branin(count: int) -> tuple[np.ndarray, np.ndarray]:
    from understudy.simulate.objectives import Branin

    return simulated(Branin(), count)


POSTERIORS = {
    "borehole": Posterior("borehole, 8-50-50-1", (8, 50, 50, 1), 100, borehole),
    "branin": Posterior("Branin, 2-20-20-1", (2, 20, 20, 1), 60, branin),
}


@dataclass(frozen=True)
class Method:
    """A sampler: the script that runs it, its environment, and its settings."""

    title: str
    script: str
    environment: Path
    method: str = "nuts"
    collapsed: bool = False
    dtype: str = "float64"
    chain_method: str = "parallel"
    threads: int = CORES
    processes: int = 1


ours = partial(Method, script="sampling.py", environment=OURS, method="hmc", threads=1)
numpyro = partial(Method, script="peers/run_numpyro.py", environment=THEIRS / "numpyro")
METHODS = {
    "understudy": ours("understudy", collapsed=True),
    "understudy-two-processes": ours("understudy, two processes", collapsed=True, processes=2),
    "understudy-all-weights": ours("understudy, all weights"),
    "numpyro-nuts": numpyro("NumPyro NUTS"),
    "numpyro-hmc": numpyro("NumPyro HMC", method="hmc"),
    "numpyro-nuts-collapsed": numpyro("NumPyro NUTS, output layer integrated out", collapsed=True),
    "understudy-float32": ours("understudy, float32", collapsed=True, dtype="float32"),
    "numpyro-nuts-float32": numpyro("NumPyro NUTS, float32", dtype="float32"),
    "pyro-nuts": Method("Pyro NUTS", "peers/run_pyro.py", THEIRS / "pyro", threads=1),
}


def question(posterior: Posterior, seed: int) -> dict[str, np.ndarray]:
    """Data, query points, and starts near modes."""
    import torch

    from understudy.nn.bayesian_mlp import FlatMLP
    from understudy.sample import maximise

    torch.set_num_threads(1)
    X, y = posterior.data(posterior.rows + 20)
    seen = slice(None, posterior.rows)
    y = (y - y[seen].mean(0)) / y[seen].std(0)
    task = {"x": X[seen], "y": y[seen], "at": X[posterior.rows :]}
    network = FlatMLP(posterior.sizes)
    first = network.initial(CHAINS, torch.Generator().manual_seed(seed))
    start = maximise(density(task, posterior.sizes, CHAINS), first, 300)
    return task | {"start": start.numpy(), "sizes": np.array(posterior.sizes)}


def density(
    task: dict[str, np.ndarray],
    sizes: tuple[int, ...],
    chains: int,
    collapsed: bool = False,
    dtype: str = "float64",
) -> Any:
    """Our log density of all weights, or of the hidden ones alone."""
    import torch

    from understudy.nn.bayesian_mlp import FlatMLP, GaussianJoint
    from understudy.nn.collapsed_mlp import CollapsedJoint

    exact = getattr(torch, dtype)
    x, y = (torch.from_numpy(task[name]).to(exact) for name in ("x", "y"))
    one = torch.ones(chains, dtype=exact)
    kind = CollapsedJoint if collapsed else GaussianJoint
    return kind(FlatMLP(sizes), x, y, one, NOISE * one)


def answer_ours(asked: str, answer: str) -> None:
    """Our sampler on a question, in the form of a peer's answer: in one process, or in several."""
    import torch

    import understudy

    with np.load(asked) as stored:
        task = {name: stored[name] for name in stored.files}
    settings = json.loads(str(task["settings"]))
    processes = settings["processes"]
    parts = np.array_split(task["start"], processes)
    arguments = [(task | {"start": part}, settings, k) for k, part in enumerate(parts)]
    with ProcessPoolExecutor(processes, mp_context=get_context("fork")) as pool:
        results = list(pool.map(some_chains, arguments))
    quantities = np.concatenate([q for q, _ in results], axis=1)
    reports = [report for _, report in results]
    report = {
        key: (max if key.endswith("wall_s") else sum)(r[key] for r in reports) for key in reports[0]
    }
    whole = density(task, tuple(task["sizes"].tolist()), CHAINS)
    report["acceptance"] /= processes
    report["energy_at_start"] = (-whole(torch.from_numpy(task["start"]))).tolist()
    report["versions"] = {"understudy": understudy.__version__, "torch": torch.__version__}
    np.savez(answer, quantities=quantities, report=json.dumps(report))


def some_chains(
    arguments: tuple[dict[str, np.ndarray], dict[str, Any], int],
) -> tuple[np.ndarray, dict[str, float]]:
    """Chains of one process: quantities (samples, chains, 21), and what they cost."""
    import torch

    from understudy.sample import HMC, Plan, resume, sample

    task, settings, part = arguments
    torch.set_num_threads(1)
    collapsed, dtype = settings["collapsed"], settings["dtype"]
    start = torch.from_numpy(task["start"]).to(getattr(torch, dtype))
    sizes = tuple(task["sizes"].tolist())
    target = density(task, sizes, len(start), collapsed, dtype)
    if collapsed:
        start = start[:, : target.hidden.dim]
    sampler = HMC(
        step_size=0.005,
        path_length=settings["path_length"],
        max_leapfrog=1000,
        target_acceptance=settings["target_acceptance"],
        jitter=0.5,
        shared=True,
    )
    seed = CORES * settings["seed"] + part
    sample(sampler, target, start, Plan(0, 1), seed)  # loads libraries before the clock starts
    marks = [now()]
    chains = sample(sampler, target, start, Plan(settings["burn_in"], 1), seed)
    marks.append(now())
    chains.plan = Plan(settings["burn_in"], settings["samples"])
    chains = resume(sampler, target, chains)
    theta = chains.draws
    if collapsed:
        generator = torch.Generator().manual_seed(seed)
        theta = torch.stack([target.complete(hidden, generator) for hidden in theta])
    marks.append(now())
    at = torch.from_numpy(task["at"])
    whole = density(task, sizes, len(start))
    quantities = [
        torch.cat([whole.network(each, at)[..., 0], -whole(each).unsqueeze(1)], dim=1)
        for each in theta.double()
    ]
    seconds = [np.subtract(end, begin) for begin, end in pairwise(marks)]
    statistics = chains.statistics
    report = {
        f"{name}_{kind}": float(value)
        for name, pair in zip(("burn_in", "sampling"), seconds, strict=True)
        for kind, value in zip(("wall_s", "cpu_s"), pair, strict=True)
    }
    steps = statistics["leapfrog_steps"]
    report["gradients"] = int(steps[settings["burn_in"] :].sum())
    report["burn_in_gradients"] = int(steps[: settings["burn_in"]].sum())
    report["acceptance"] = float(statistics["acceptance"][settings["burn_in"] :].mean())
    return torch.stack(quantities).numpy(), report


def now() -> tuple[float, float]:
    """Wall and CPU seconds."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), usage.ru_utime + usage.ru_stime


def run_script(
    method: Method, settings: dict[str, Any], task: dict[str, np.ndarray], timeout: float
) -> tuple[np.ndarray, dict[str, Any]] | str:
    """Quantities and report of one run, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = f"{folder}/question.npz", f"{folder}/answer.npz"
        np.savez(asked, settings=json.dumps(settings), **task)
        python = method.environment / "bin" / "python"
        command = [str(python), str(Path(__file__).parent / method.script), asked, answer]
        code, output = run_limited(command, Limits(timeout, method.threads))
        if code is None:
            return f"stopped after {timeout:g} s"
        if code:
            return last_line(output)
        with np.load(answer) as stored:
            return stored["quantities"], json.loads(str(stored["report"]))


def measure(
    name: str, posterior: str, seed: int, task: dict[str, np.ndarray], options: argparse.Namespace
) -> dict[str, Any]:
    """Record of one sampler on one posterior, in a process of its own."""
    method = METHODS[name]
    settings = {
        "prior_variance": 1.0,
        "noise_variance": NOISE,
        "target_acceptance": 0.8,
        "path_length": options.path_length,
        "burn_in": options.burn_in,
        "samples": options.samples,
        "seed": seed,
        "method": method.method,
        "collapsed": method.collapsed,
        "dtype": method.dtype,
        "chain_method": method.chain_method,
        "processes": method.processes,
    }
    record = {"sampler": name, "posterior": posterior, "seed": seed, "settings": settings}
    record |= {"hardware": hardware(CORES), "measured": time.strftime("%Y-%m-%d")}
    record["load_average"] = round(os.getloadavg()[0], 1)
    found = run_script(method, settings, task, options.timeout)
    if isinstance(found, str):
        return record | {"failed": found}
    quantities, report = found
    check_density(task, posterior, report.pop("energy_at_start"), method.dtype)
    return record | summary(quantities, report) | rounded(report)


def check_density(
    task: dict[str, np.ndarray], posterior: str, energy: list[float], dtype: str
) -> None:
    """Whether a peer's potential energies at the starts are ours up to a constant."""
    import torch

    whole = density(task, POSTERIORS[posterior].sizes, CHAINS)
    difference = np.array(energy) + whole(torch.from_numpy(task["start"])).numpy()
    if np.ptp(difference) > (1e-8 if dtype == "float64" else 0.05):
        raise SystemExit(f"the sampler has another density: differences {difference}")


def summary(quantities: np.ndarray, report: dict[str, Any]) -> dict[str, Any]:
    """Diagnostics of quantities (samples, chains, 21), and effective draws per cost."""
    import torch

    from understudy.sample import diagnose

    found = diagnose(torch.from_numpy(quantities))
    effective = torch.minimum(found.ess_bulk, found.ess_tail)
    least = float(effective.min())
    seconds = {kind: sum(report[f"{p}_{kind}"] for p in PHASES) for kind in ("wall_s", "cpu_s")}
    gradients = report["gradients"] + report["burn_in_gradients"]
    return rounded(
        {
            "r_hat": float(found.r_hat.max()),
            "least_ess": least,
            "median_ess": float(effective.median()),
            "log_density_ess": float(effective[-1]),
            "ess_per_cpu_s": least / seconds["cpu_s"],
            "ess_per_wall_s": least / seconds["wall_s"],
            "ess_per_cpu_s_after_burn_in": least / report["sampling_cpu_s"],
            "ess_per_1000_gradients": 1e3 * least / report["gradients"],
            "cpu_ms_per_gradient": 1e3 * seconds["cpu_s"] / gradients,
            "mean": quantities.mean((0, 1)).tolist(),
            "sd": quantities.std((0, 1)).tolist(),
        }
    )


def rounded(record: dict[str, Any]) -> dict[str, Any]:
    """The record with five figures of every number."""

    def short(value: Any) -> Any:
        return [short(v) for v in value] if isinstance(value, list) else float(f"{value:.5g}")

    return {
        key: short(value) if isinstance(value, float | list) else value
        for key, value in record.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samplers", default=",".join(METHODS))
    parser.add_argument("--posteriors", default=",".join(POSTERIORS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--burn-in", type=int, default=100)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--path-length", type=float, default=1.0)
    parser.add_argument("--timeout", type=float, default=900.0)
    parser.add_argument("--force", action="store_true", help="make runs again that have a file")
    parser.add_argument("--table", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    if options.table:
        from sampling_page import page

        PAGE.write_text(page(load(FOLDER), load(RESULTS / "ensemble"), POSTERIORS, METHODS))
        return
    for posterior in options.posteriors.split(","):
        for seed in map(int, options.seeds.split(",")):
            run_all(posterior, seed, options)


def run_all(posterior: str, seed: int, options: argparse.Namespace) -> None:
    """Every sampler on the same question, one after the other."""
    task = question(POSTERIORS[posterior], seed)
    for name in options.samplers.split(","):
        path = FOLDER / f"{posterior}-{name}-{seed}.json"
        if path.exists() and not options.force:
            continue
        record = measure(name, posterior, seed, task, options)
        write(path, record)
        shown = ("posterior", "seed", "sampler", "failed", "r_hat", "least_ess", "median_ess")
        costs = ("ess_per_cpu_s", "ess_per_wall_s", "ess_per_1000_gradients", "cpu_ms_per_gradient")
        print(json.dumps({key: record[key] for key in (*shown, *costs) if key in record}))
        sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1].endswith(".npz"):
        answer_ours(sys.argv[1], sys.argv[2])
    else:
        main()
