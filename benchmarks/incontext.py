"""Measure the shipped in-context networks: against a fitted process, and their speed.

    python benchmarks/incontext.py accuracy   150 rows of real tables, five splits
    python benchmarks/incontext.py speed      100 rows, 1000 questions, 10 inputs; pfns and TabPFN
    python benchmarks/incontext.py page       the tables of docs/systems/pfn.md

Records are in results/benchmarks/incontext. Speeds of other packages are those of their networks
with random weights, in the environment .bench/pfns (benchmarks/setup.sh), one thread each.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import torch
import typer

import incontext_page
import runner
from datasets import Split, split, table
from runner import OURS, THEIRS, Record
from scores import scores
from understudy.core.linalg import one_thread
from understudy.models.incontext.estimators import PFNRegressor
from understudy.models.incontext.pretrained import pretrained
from understudy.models.tabular.exact_gp import ExactGP

RESULTS = runner.RESULTS / "incontext"
ROWS = 150
SETS = (
    "yacht",
    "energy",
    "concrete",
    "engineering1",
    "borehole",
    "projectile",
    "wing-weight",
    "kin8nm",
    "power-plant",
)
"""Tables of at most 10 inputs."""

PEERS: dict[str, Callable[[], Any]] = {"in-context": PFNRegressor, "exact-gp": ExactGP}
CONTEXT, QUESTIONS, INPUTS = 100, 1000, 10

app = typer.Typer(add_completion=False, help=__doc__)


# -- accuracy -----------------------------------------------------------------------------------


def answer(model: Any, data: Split) -> dict[str, np.ndarray]:
    """Mean, density, score and central 90 % interval at the test rows."""
    observed = torch.as_tensor(data.Y_test)
    predictive = model.predictive(data.X_test)
    exact = model.bars(data.X_test) if isinstance(model, PFNRegressor) else predictive
    lower, upper = exact.quantile(torch.tensor([0.05, 0.95], dtype=torch.float64))
    found = {
        "mean": predictive.mean,
        "sd": predictive.sd,
        "log_density": exact.log_density(observed),
        "crps": predictive.crps(observed),
        "lower_90": lower,
        "upper_90": upper,
    }
    return {name: value.double().numpy() for name, value in found.items()}


def compared(name: str, seed: int) -> list[Record]:
    """Records of both on one split."""
    data = split(table(name), seed, ROWS)
    records = []
    for peer, make in PEERS.items():
        start = time.process_time()
        given = answer(make().fit(data.X_train, data.Y_train), data)
        seconds = time.process_time() - start
        scored = scores(given, data.Y_train, data.Y_test)
        means = {metric: float(np.mean(values)) for metric, values in scored.items()}
        records.append({"dataset": name, "seed": seed, "peer": peer, "cpu_s": seconds, **means})
    return records


@app.command()
def accuracy(seeds: Annotated[int, typer.Option(help="Splits of every table.")] = 5) -> None:
    """Compare the shipped regression network with our exact process."""
    warm = np.random.default_rng(0).random((20, 2))
    records: list[Record] = []
    with one_thread():
        for make in PEERS.values():
            make().fit(warm, warm[:, :1]).predict(warm)  # libraries are loaded and not measured
        for name in SETS:
            for seed in range(seeds):
                records += compared(name, seed)
            print(name, *(line(records, name, peer) for peer in PEERS), sep="  ", flush=True)
    stamp = {"rows": ROWS, "hardware": runner.hardware(1), "measured": time.strftime("%Y-%m-%d")}
    runner.write(RESULTS / "accuracy.json", {**stamp, "records": records})


def line(records: list[Record], name: str, peer: str) -> str:
    metrics = ("r2", "nlpd", "coverage_90", "cpu_s")
    figures = [incontext_page.figure(records, name, peer, metric, 3) for metric in metrics]
    return " ".join([peer, *figures])


# -- speed --------------------------------------------------------------------------------------


def repeated(compute: Callable[[], object], repeats: int) -> dict[str, float]:
    """Least wall and processor milliseconds of a call."""
    wall, cpu = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        compute()
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    return {"wall_ms": 1e3 * min(wall), "cpu_ms": 1e3 * min(cpu)}


@app.command()
def speed(threads: Annotated[int, typer.Option(help="Of our network.")] = 1) -> None:
    """Time an answer of the shipped network, and the networks of other packages."""
    model = pretrained("regression")
    generator = torch.Generator().manual_seed(0)

    def draw(tasks: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = torch.rand(tasks, CONTEXT + QUESTIONS, INPUTS, generator=generator)
        y = torch.randn(tasks, CONTEXT, generator=generator)
        return x[:, :CONTEXT], y, x[:, CONTEXT:]

    one, many = draw(1), draw(100)
    read = model.read(*one[:2])

    def questions() -> None:
        with torch.no_grad():
            _ = model.answer(read, one[2]).mean

    def batch() -> None:
        for at in range(0, 100, 10):
            _ = model.predict(*(part[at : at + 10] for part in many)).mean

    found: dict[str, Any] = {}
    torch.set_num_threads(threads)
    name = f"`PFN`, {threads} thread{'s' * (threads > 1)}"
    found[name] = repeated(lambda: model.predict(*one).mean, 10)
    found[f"{name}, rows read before"] = repeated(questions, 10)
    found[f"{name}, 100 data sets"] = repeated(batch, 1)
    found |= others()
    stamp = {"hardware": runner.hardware(threads), "measured": time.strftime("%Y-%m-%d")}
    runner.write(RESULTS / "speed.json", {**stamp, "times": found})
    print(json.dumps(found, indent=1))


def others() -> dict[str, Any]:
    """Times that the scripts for other packages print, each in its environment."""
    found: dict[str, Any] = {}
    scripts = (
        (OURS, "speed_understudy"),
        (THEIRS / "pfns", "speed_pfns"),
        (THEIRS / "pfns", "speed_tabpfn"),
    )
    for environment, script in scripts:
        command = [str(environment / "bin" / "python"), str(runner.HERE / "peers" / f"{script}.py")]
        done = subprocess.run(
            command, env=runner.limited_environment(1), capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            found |= json.loads(done.stdout.splitlines()[-1])
        else:
            found[script] = {"failed": runner.last_line(done.stderr)}
    return found


@app.command()
def page() -> None:
    """Write the tables and the figure of docs/systems/pfn.md."""
    incontext_page.write(RESULTS)


if __name__ == "__main__":
    app()
