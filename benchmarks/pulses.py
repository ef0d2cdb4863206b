r"""Pulses in a square of speed 1 whose rim is held, in closed form, and how they are timed.

With :math:`u_0 = \sum a_{kl} \sin(\pi k x) \sin(\pi l y)` at rest every mode swings by itself,
:math:`u = \sum a_{kl} \cos(\pi \sqrt{k^2 + l^2} t) \sin(\pi k x) \sin(\pi l y)`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

import numpy as np
from scipy.fft import dstn, idstn

RUNS, BASE, END, WIDTH = 16, 32, 1.0, 0.08
"""Runs of a batch; errors are taken at the nodes of that many squares a side, at that time."""


def starts(cells: int) -> np.ndarray:
    """First displacements ``(RUNS, cells + 1, cells + 1)``."""
    draw = np.random.default_rng(0)
    x0, y0 = draw.uniform(0.3, 0.7, (2, RUNS, 1))
    s = np.linspace(0.0, 1.0, cells + 1)
    along = [np.exp(-((s - centre) ** 2) / (2 * WIDTH**2)) for centre in (x0, y0)]
    u = along[0][:, :, None] * along[1][:, None, :]
    u[:, [0, -1]] = u[:, :, [0, -1]] = 0.0
    return u


def exact(cells: int, t: float) -> np.ndarray:
    """Displacements at a time, by sines of a grid of at least 256 squares."""
    fine = cells * -(-256 // cells)
    k = np.arange(1, fine)
    inner = dstn(starts(fine)[:, 1:-1, 1:-1], type=1, axes=(1, 2))
    swung = inner * np.cos(np.pi * t * np.sqrt(k[:, None] ** 2 + k**2))
    u = np.pad(idstn(swung, type=1, axes=(1, 2)), ((0, 0), (1, 1), (1, 1)))
    return u[:, :: fine // cells, :: fine // cells]


def error(u: np.ndarray) -> float:
    """Relative error of all runs together at the coarse nodes, of fields on any grid of them."""
    step, rest = divmod(u.shape[1] - 1, BASE)
    if rest:
        raise ValueError(f"{u.shape[1] - 1} squares a side are no multiple of {BASE}")
    true = exact(BASE, END)
    return float(np.linalg.norm(u[:, ::step, ::step] - true) / np.linalg.norm(true))


Make = Callable[[dict[str, Any]], Callable[[], np.ndarray]]
"""From a setting (cells, steps and what a solver has) a run that gives the last fields."""


def report(make: Make, settings: Iterable[dict[str, Any]], packages: tuple[str, ...]) -> None:
    """Print error and least seconds of each setting, one JSON text a line; then the versions."""
    for setting in settings:
        began = time.perf_counter()
        run = make(setting)
        found = run()
        first = time.perf_counter() - began
        took = [_seconds(run) for _ in range(3 if first < 20 else 1)]
        record = {"error": error(found), "wall_s": min(w for w, _ in took), "first_s": first}
        record |= {"cpu_s": min(c for _, c in took), "setting": setting}
        print(json.dumps(record), flush=True)
    print(json.dumps({"versions": {name: version(name) for name in packages}}), flush=True)


def _seconds(run: Callable[[], np.ndarray]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def asked() -> list[dict[str, Any]]:
    """Settings of the command line."""
    return json.loads(sys.argv[1])
