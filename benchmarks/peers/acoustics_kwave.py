"""k-Wave's k-space method in NumPy, run after run.

It has no walls but layers that absorb. Held walls are mirrors that turn pressure over, so the
square is given with its three images, four times as many nodes, and is periodic then. Its compiled
programs, which the import would fetch from the network, are not used.
"""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pulses import END, asked, report, starts


def _offline(*_: Any) -> None:
    raise TimeoutError  # which the package takes for a slow network, and goes on


urllib.request.urlretrieve = _offline

from kwave.kgrid import kWaveGrid  # noqa: E402
from kwave.kmedium import kWaveMedium  # noqa: E402
from kwave.ksensor import kSensor  # noqa: E402
from kwave.ksource import kSource  # noqa: E402
from kwave.kspaceFirstOrder import kspaceFirstOrder  # noqa: E402


def mirrored(u: np.ndarray) -> np.ndarray:
    """Fields ``(B, n + 1, n + 1)`` with odd images, one period ``(B, 2 n, 2 n)``."""
    for axis in (1, 2):
        u = np.concatenate([u, -np.flip(u, axis).take(range(1, u.shape[axis] - 1), axis)], axis)
    return u


def make(setting: dict[str, Any]) -> Any:
    cells, steps = setting["cells"], setting["steps"]
    n, dtype = 2 * cells, getattr(np, setting["dtype"])
    fields = mirrored(starts(cells))
    medium = kWaveMedium(sound_speed=1.0, density=1.0)
    sensor = kSensor()
    sensor.mask = np.zeros((n, n))
    sensor.mask[0, 0] = 1
    sensor.record = ["p_final"]

    def one(field: np.ndarray) -> np.ndarray:
        grid = kWaveGrid([n, n], [1.0 / cells, 1.0 / cells])
        grid.setTime(steps + 1, END / steps)
        source = kSource()
        source.p0 = field
        found = kspaceFirstOrder(
            *(grid, medium, source, sensor),
            **{"pml_inside": True, "pml_size": 2, "pml_alpha": 0.0},
            **{"smooth_p0": False, "dtype": dtype, "quiet": True},
        )
        return np.asarray(found["p_final"], dtype=float).reshape(n, n)[: cells + 1, : cells + 1]

    return lambda: np.stack([one(field) for field in fields])


if __name__ == "__main__":
    report(make, asked(), ("k-Wave-python", "numpy", "scipy"))
