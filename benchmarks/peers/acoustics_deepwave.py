"""Deepwave's central differences in C under PyTorch, all runs at once.

Without absorbing layers its fields are zero beyond the grid, so the grid is the nodes within. What
it gives after nt steps is the field at step nt - 1. It takes smaller steps of its own where a step
crosses more than 0.6 squares, for which the fields given here would not do.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import deepwave
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pulses import END, asked, exact, report, starts


def make(setting: dict[str, Any]) -> Any:
    cells, steps, dtype = setting["cells"], setting["steps"], getattr(torch, setting["dtype"])
    dt = END / steps
    speed = torch.ones(cells - 1, cells - 1, dtype=dtype)
    # the scheme wants two fields; a pulse at rest is at -dt what it is at dt
    now, before = (
        torch.from_numpy(u[:, 1:-1, 1:-1]).to(dtype) for u in (starts(cells), exact(cells, dt))
    )

    def run() -> np.ndarray:
        with torch.no_grad():
            found = deepwave.scalar(
                *(speed, 1.0 / cells, dt),
                **{"nt": steps + 1, "pml_width": 0, "accuracy": setting["order"], "max_vel": 1.0},
                **{"wavefield_0": now, "wavefield_m1": before},
            )
        return np.pad(found[0].numpy(), ((0, 0), (1, 1), (1, 1)))

    return run


if __name__ == "__main__":
    report(make, asked(), ("deepwave", "torch"))
