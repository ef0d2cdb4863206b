"""Pyro's NUTS on the posterior of a Bayesian neural network: `run_pyro.py Q A`.

The question is that of `benchmarks/sampling.py`. Every chain is a process of its own, as Pyro runs
them, with one thread; the potential is traced by TorchScript before the clock starts.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer import MCMC, NUTS
from torch import Tensor


class Potential:
    """Potential energy of one chain's weights, traced at its first call; it counts its calls."""

    def __init__(self, task: dict[str, np.ndarray], settings: dict[str, Any]) -> None:
        self.sizes = tuple(int(width) for width in task["sizes"])
        dtype = getattr(torch, settings["dtype"])
        self.x, self.y, self.at = (torch.from_numpy(task[n]).to(dtype) for n in ("x", "y", "at"))
        self.prior, self.noise = settings["prior_variance"], settings["noise_variance"]
        self.calls, self.traced = 0, None

    def network(self, theta: Tensor, points: Tensor) -> Tensor:
        h, first = points, 0
        for layer, (i, o) in enumerate(pairwise(self.sizes)):
            weight = theta[first : first + i * o].reshape(i, o)
            h = torch.addmm(theta[first + i * o : first + (i + 1) * o], h, weight)
            h = torch.tanh(h) if layer < len(self.sizes) - 2 else h
            first += (i + 1) * o
        return h

    def energy(self, theta: Tensor) -> Tensor:
        error = self.y - self.network(theta, self.x)
        return 0.5 * ((error**2).sum() / self.noise + (theta**2).sum() / self.prior)

    def __call__(self, parameters: dict[str, Tensor]) -> Tensor:
        self.calls += 1
        if self.traced is None:
            example = parameters["theta"].detach().clone().requires_grad_()
            self.traced = torch.jit.trace(self.energy, example, check_trace=False)
        return self.traced(parameters["theta"])


def main(question: str, answer: str) -> None:
    with np.load(question) as stored:
        task = {name: stored[name] for name in stored.files}
    settings = json.loads(str(task["settings"]))
    torch.set_num_threads(1)
    potential = Potential(task, settings)
    start = torch.from_numpy(task["start"]).to(getattr(torch, settings["dtype"]))
    pyro.set_rng_seed(settings["seed"])
    kernel = NUTS(potential_fn=potential, target_accept_prob=settings["target_acceptance"])
    potential({"theta": start[0]})
    potential.calls = 0
    ends = {"Warmup": settings["burn_in"] - 1, "Sample": settings["samples"] - 1}
    with tempfile.TemporaryDirectory() as folder:

        def note(kernel: Any, _: Any, stage: str, i: int) -> None:
            """In the chain's process: what it has used by the end of a stage."""
            name, chain = stage.split(" ")
            if i != ends[name]:
                return
            seen = {"wall": time.perf_counter() - begin, "cpu": cpu_seconds()}
            seen |= {"calls": potential.calls}
            Path(folder, f"{name}-{chain}.json").write_text(json.dumps(seen))

        mcmc = MCMC(
            kernel,
            num_samples=settings["samples"],
            warmup_steps=settings["burn_in"],
            initial_params={"theta": start},
            num_chains=len(start),
            hook_fn=note,
            mp_context="fork",
            disable_progbar=True,
        )
        begin = time.perf_counter()
        mcmc.run()
        stages = [
            [json.loads(path.read_text()) for path in sorted(Path(folder).glob(f"{name}*.json"))]
            for name in ends
        ]
    warm, done = ({key: [s[key] for s in seen] for key in seen[0]} for seen in stages)
    burn_in = {"burn_in_wall_s": max(warm["wall"]), "burn_in_cpu_s": sum(warm["cpu"])}
    draws = mcmc.get_samples(group_by_chain=True)["theta"].transpose(0, 1)
    quantities = [
        [torch.cat([potential.network(theta, potential.at)[:, 0], potential.energy(theta)[None]])
         for theta in row] for row in draws
    ]  # fmt: skip
    report = {
        **burn_in,
        "sampling_wall_s": max(done["wall"]) - burn_in["burn_in_wall_s"],
        "sampling_cpu_s": sum(done["cpu"]) - burn_in["burn_in_cpu_s"],
        "gradients": sum(done["calls"]) - sum(warm["calls"]),
        "burn_in_gradients": sum(warm["calls"]),
        "energy_at_start": [float(potential.energy(theta)) for theta in start],
        "versions": {"pyro": pyro.__version__, "torch": torch.__version__},
    }
    stacked = torch.stack([torch.stack(row) for row in quantities])
    np.savez(answer, quantities=stacked.numpy(), report=json.dumps(report))


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
