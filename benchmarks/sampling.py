"""Effective draws per second of samplers on the posterior of one Bayesian neural network.

The net is 8-50-50-1 with tanh, as one of arXiv 2305.20028, on 100 runs of the borehole function;
prior N(0, 1) on all 3,051 weights, noise variance 0.01 of the standardised output. All samplers
start from the same four positions and have the same burn-in. What must be estimated are the
function at 20 other points and the log density; the effective number is the least over them, of
bulk or tails. NumPyro needs an environment of its own: ``python -m venv .bench/numpyro`` and
``.bench/numpyro/bin/pip install numpyro``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from peers.run_numpyro import cpu_seconds
from runner import RESULTS, ROOT, THEIRS, hardware, limited_environment, write

CHAINS = 4
SIZES = (8, 50, 50, 1)
METHODS: dict[str, dict[str, Any]] = {
    "understudy-hmc": {"method": "ours", "mass": "diagonal"},
    "understudy-hmc-identity": {"method": "ours", "mass": "identity"},
    "numpyro-nuts": {"method": "nuts", "chain_method": "parallel"},
    "numpyro-nuts-vectorized": {"method": "nuts", "chain_method": "vectorized"},
    "numpyro-hmc": {"method": "hmc", "chain_method": "parallel"},
    "numpyro-hmc-vectorized": {"method": "hmc", "chain_method": "vectorized"},
}


def question(seed: int) -> dict[str, np.ndarray]:
    """Data, query points, and starts near modes."""
    import torch

    from understudy.nn.bayesian_mlp import FlatMLP
    from understudy.sample import maximise
    from understudy.simulate.functions import Borehole

    simulator = Borehole()
    inputs = simulator.space.sample(120, seed=7, method="lhs")
    codes = simulator.space.encode(inputs)
    outputs = simulator.run_many(inputs).to_numpy(dtype=float)
    low, high = codes.min(0), codes.max(0)
    X = (codes - low) / (high - low)
    y = (outputs - outputs[:100].mean(0)) / outputs[:100].std(0)
    network = FlatMLP(SIZES)
    start = network.initial(CHAINS, torch.Generator().manual_seed(seed))
    target = density(X[:100], y[:100])
    start = maximise(target, start, 300)
    return {"x": X[:100], "y": y[:100], "at": X[100:], "start": start.numpy()}


def density(x: np.ndarray, y: np.ndarray) -> Any:
    import torch

    from understudy.nn.bayesian_mlp import FlatMLP, GaussianJoint

    one = torch.ones(CHAINS, dtype=torch.float64)
    return GaussianJoint(FlatMLP(SIZES), torch.from_numpy(x), torch.from_numpy(y), one, 0.01 * one)


def ours(question_path: str, answer: str) -> None:
    """Our sampler on a question, in the form of a peer's answer."""
    import torch

    import understudy
    from understudy.sample import HMC, Plan, sample

    with np.load(question_path) as stored:
        task = {name: stored[name] for name in stored.files}
    settings = json.loads(str(task["settings"]))
    torch.set_num_threads(settings["threads"])
    target = density(task["x"], task["y"])
    sampler = HMC(
        step_size=0.005,
        path_length=settings["path_length"],
        max_leapfrog=1000,
        target_acceptance=settings["target_acceptance"],
        jitter=0.5,
        mass=settings["mass"],
        shared=True,
    )
    plan = Plan(settings["burn_in"], settings["samples"])
    marks: dict[int, tuple[float, float]] = {}
    begin, cpu = time.perf_counter(), cpu_seconds()

    def clock(progress: Any) -> None:
        if "burn-in" in progress.message:
            marks[0] = (time.perf_counter(), cpu_seconds())

    chains = sample(sampler, target, torch.from_numpy(task["start"]), plan, settings["seed"],
                    listener=clock)  # fmt: skip
    end, end_cpu = time.perf_counter(), cpu_seconds()
    middle, middle_cpu = marks[0]
    at = torch.from_numpy(task["at"])
    values = torch.stack([target.network(theta, at)[..., 0] for theta in chains.draws])
    statistics = chains.statistics
    after = slice(plan.burn_in, None)
    quantities = torch.cat([values, -statistics["log_density"][after].unsqueeze(2)], dim=2)
    report = {
        "burn_in_wall_s": middle - begin,
        "burn_in_cpu_s": middle_cpu - cpu,
        "sampling_wall_s": end - middle,
        "sampling_cpu_s": end_cpu - middle_cpu,
        "gradients": int(statistics["leapfrog_steps"][after].sum()),
        "burn_in_gradients": int(statistics["leapfrog_steps"][: plan.burn_in].sum()),
        "acceptance": float(statistics["acceptance"][after].mean()),
        "versions": {"understudy": understudy.__version__, "torch": torch.__version__},
    }
    np.savez(answer, quantities=quantities.numpy(), report=json.dumps(report))


def measure(name: str, task: dict[str, np.ndarray], options: argparse.Namespace) -> dict[str, Any]:
    """One sampler in a process of its own."""
    import torch

    from understudy.sample import diagnose

    settings = {
        "prior_variance": 1.0,
        "noise_variance": 0.01,
        "target_acceptance": 0.8,
        "path_length": options.path_length,
        "burn_in": options.burn_in,
        "samples": options.samples,
        "seed": options.seed,
        "threads": options.threads,
        **METHODS[name],
    }
    mine = settings["method"] == "ours"
    python = ROOT / ".venv" if mine else THEIRS / "numpyro"
    script = Path(__file__) if mine else Path(__file__).parent / "peers" / "run_numpyro.py"
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = f"{folder}/question.npz", f"{folder}/answer.npz"
        np.savez(asked, settings=json.dumps(settings), sizes=np.array(SIZES), **task)
        command = [str(python / "bin" / "python"), str(script), asked, answer]
        environment = limited_environment(options.threads)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            return {"sampler": name, "failed": done.stderr.strip().splitlines()[-1]}
        with np.load(answer) as stored:
            quantities, report = stored["quantities"], json.loads(str(stored["report"]))
    found = diagnose(torch.from_numpy(quantities))
    effective = torch.minimum(found.ess_bulk, found.ess_tail)
    least, median = float(effective.min()), float(effective.median())
    seconds = {
        kind: report[f"burn_in_{kind}"] + report[f"sampling_{kind}"] for kind in ("wall_s", "cpu_s")
    }
    return {
        "sampler": name,
        "settings": settings,
        "r_hat": round(float(found.r_hat.max()), 4),
        "least_ess": round(least, 1),
        "median_ess": round(median, 1),
        "ess_per_cpu_s": round(least / seconds["cpu_s"], 3),
        "ess_per_wall_s": round(least / seconds["wall_s"], 3),
        "ess_per_cpu_s_after_burn_in": round(least / report["sampling_cpu_s"], 3),
        "ess_per_1000_gradients": round(1e3 * least / report["gradients"], 3),
        "mean": quantities.mean((0, 1)).round(4).tolist(),
        "sd": quantities.std((0, 1)).round(4).tolist(),
        **{key: round(v, 3) if isinstance(v, float) else v for key, v in report.items()},
        "hardware": hardware(options.threads),
        "measured": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samplers", default=",".join(METHODS))
    parser.add_argument("--burn-in", type=int, default=500)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--path-length", type=float, default=1.5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    task = question(options.seed)
    for name in options.samplers.split(","):
        record = measure(name, task, options)
        write(RESULTS / "sampling" / f"{name}-{options.seed}.json", record)
        shown = ("sampler", "failed", "r_hat", "least_ess", "median_ess", "acceptance")
        costs = ("ess_per_cpu_s", "ess_per_wall_s", "ess_per_1000_gradients")
        print(json.dumps({key: record[key] for key in (*shown, *costs) if key in record}))


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1].endswith(".npz"):
        ours(sys.argv[1], sys.argv[2])
    else:
        main()
