"""Devito: central differences compiled to C, one run after the other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from devito import Eq, Grid, Operator, TimeFunction, configuration, solve

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pulses import END, asked, exact, report, starts

configuration["log-level"] = "ERROR"


def make(setting: dict[str, Any]) -> Any:
    cells, steps = setting["cells"], setting["steps"]
    dt = END / steps
    grid = Grid(
        shape=(cells + 1, cells + 1), extent=(1.0, 1.0), dtype=getattr(np, setting["dtype"])
    )
    u = TimeFunction(name="u", grid=grid, time_order=2, space_order=2)
    step = Eq(u.forward, solve(u.dt2 - u.laplace, u.forward), subdomain=grid.interior)
    operator = Operator([step])
    # the second field, which a scheme of three times needs, is the closed form's
    first, second = starts(cells), exact(cells, dt)

    def run() -> np.ndarray:
        found = np.empty_like(first)
        for i in range(len(first)):
            u.data[:] = 0.0
            u.data[0], u.data[1] = first[i], second[i]
            operator.apply(time_m=1, time_M=steps - 1, dt=dt)
            found[i] = u.data[steps % 3]
        return found

    return run


if __name__ == "__main__":
    report(make, asked(), ("devito", "numpy"))
