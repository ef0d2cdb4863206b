"""Finite elements on triangles of :class:`understudy.simulate.wave.WaveFEM2D`, all runs at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pulses import END, asked, report, starts
from understudy.simulate.wave import WaveFEM2D


def make(setting: dict[str, Any]) -> Any:
    cells, steps = setting["cells"], setting["steps"]
    solver = WaveFEM2D(cells)
    u0 = starts(cells).reshape(-1, (cells + 1) ** 2)

    def run() -> np.ndarray:
        dt, scheme = END / steps, setting["scheme"]
        u, _ = solver.solve(u0, dt=dt, steps=steps, every=steps, scheme=scheme)
        return u[-1].reshape(-1, cells + 1, cells + 1)

    return run


if __name__ == "__main__":
    report(make, asked(), ("scikit-fem", "scipy", "numpy"))
