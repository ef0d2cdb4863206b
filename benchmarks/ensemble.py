"""Time of ten networks trained together against that of one, the same steps on the same rows.

Two questions: the networks alone, a stack of 1 or 10 as `DeepEnsemble` trains them (width 64, two
hidden layers, SOAP, batches of up to 512 rows); and the whole fit of a `DeepEnsemble` of 1 or 10
members, which trains networks on cross-validation folds besides. Runs of both sizes alternate, and
the median of their ratios counts.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor

from runner import RESULTS, hardware, write

MANY = 10
FOLDER = RESULTS / "ensemble"
INPUTS = 8


def rows(count: int) -> tuple[Tensor, Tensor]:
    """Inputs (n, 8) in the unit cube and a smooth output (n, 1)."""
    from datasets import smooth

    table = smooth(count, INPUTS, 1)
    return torch.from_numpy(table.X).float(), torch.from_numpy(table.Y).float()


def train_networks(count: int, x: Tensor, y: Tensor, steps: int) -> None:
    """Train a stack of networks as a committee does, without validation."""
    from understudy.core.loop import Settings, Trainer, cosine, shuffled_batches
    from understudy.models.tabular.committee import Recipe, Regressor
    from understudy.nn.soap import SOAP

    recipe = Recipe(members=count, steps=steps)
    network = Regressor(count, x.shape[1], y.shape[1], recipe.width, recipe.depth)
    size = min(recipe.batch, len(x))
    batches = shuffled_batches(len(x), size, 0, networks=count)

    def loss(step: int) -> Tensor:
        if len(x) <= recipe.batch:
            return recipe.loss(*network(x), y).mean((1, 2)).sum()
        chosen = batches(step)
        return recipe.loss(*network(x[chosen]), y[chosen]).mean((1, 2)).sum()

    optimizer = SOAP(network.parameters(), lr=recipe.learning_rate, every=20)
    schedule = cosine(warmup=0.05, flat=0.25)
    Trainer(network, optimizer, Settings(steps, schedule=schedule, clip_norm=None)).run(loss)


def fit_ensemble(count: int, x: Tensor, y: Tensor, steps: int) -> None:
    """Fit a whole deep ensemble, its cross-validation included."""
    from understudy.models.tabular.deep_ensemble import DeepEnsemble

    DeepEnsemble(members=count, max_steps=steps).fit(x.double().numpy(), y.double().numpy())


KINDS: dict[str, Callable[[int, Tensor, Tensor, int], None]] = {
    "networks": train_networks,
    "whole fit": fit_ensemble,
}


def seconds(run: Callable[[], None]) -> dict[str, float]:
    """Wall and CPU seconds of a run."""
    used, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    run()
    wall, now = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF)
    return {"wall_s": wall, "cpu_s": now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime}


def measure(kind: str, count: int, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """Record of one kind of training on so many rows with so many threads."""
    torch.set_num_threads(threads)
    x, y = rows(count)
    train = KINDS[kind]
    train(MANY, x, y, 5)
    pairs = [
        [seconds(lambda k=networks: train(k, x, y, options.steps)) for networks in (1, MANY)]
        for _ in range(options.repeats)
    ]
    record: dict[str, Any] = {"kind": kind, "rows": count, "networks": MANY, "threads": threads}
    record |= {"steps": options.steps, "repeats": options.repeats}
    for unit in ("wall_s", "cpu_s"):
        record[f"one_{unit}"] = round(median(one[unit] for one, _ in pairs), 4)
        record[f"many_{unit}"] = round(median(many[unit] for _, many in pairs), 4)
        record[f"ratio_{unit}"] = round(median(many[unit] / one[unit] for one, many in pairs), 3)
    return record | {"hardware": hardware(threads), "measured": time.strftime("%Y-%m-%d")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="150,1000")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for kind in KINDS:
        for count in map(int, options.rows.split(",")):
            for threads in map(int, options.threads.split(",")):
                record = measure(kind, count, threads, options)
                name = f"{kind.replace(' ', '-')}-{count}-{threads}.json"
                write(FOLDER / name, record)
                print(json.dumps({k: v for k, v in record.items() if k != "hardware"}), flush=True)


if __name__ == "__main__":
    main()
