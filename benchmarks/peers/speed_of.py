"""Least time of a network's answer, as JSON: 100 rows, 1000 questions, 10 inputs, 1000 bars.

Run by ``benchmarks/incontext.py`` in the environment of each package, with random weights.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from importlib.metadata import version

import torch

CONTEXT, QUESTIONS, INPUTS, BARS = 100, 1000, 10, 1000
SIZES = {"width": 192, "depth": 6, "heads": 3, "hidden": 384}


def main(
    package: str,
    what: str,
    answer: Callable[[torch.Tensor, torch.Tensor], object],
    repeats: int = 5,
) -> None:
    """Time ``answer`` of rows x (1, 1100, 10) and outcomes y (1, 100)."""
    torch.manual_seed(0)
    x, y = torch.rand(1, CONTEXT + QUESTIONS, INPUTS), torch.randn(1, CONTEXT)
    wall, cpu = [], []
    with torch.inference_mode():
        answer(x, y)
        for _ in range(repeats):
            start = time.perf_counter(), time.process_time()
            answer(x, y)
            wall.append(time.perf_counter() - start[0])
            cpu.append(time.process_time() - start[1])
    name = f"{package} {version(package)}, {what}, {torch.get_num_threads()} thread"
    print(json.dumps({name: {"wall_ms": 1e3 * min(wall), "cpu_ms": 1e3 * min(cpu)}}))
