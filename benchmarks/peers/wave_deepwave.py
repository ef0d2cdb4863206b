"""Deepwave: central differences in C under PyTorch, all runs at once as shots."""

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
    cells, steps = setting["cells"], setting["steps"]
    dt, dtype = END / steps, getattr(torch, setting["dtype"])
    speed = torch.ones(cells - 1, cells - 1, dtype=dtype)
    inner = torch.from_numpy(starts(cells)[:, 1:-1, 1:-1]).to(dtype)
    before = torch.from_numpy(exact(cells, dt)[:, 1:-1, 1:-1]).to(dtype)  # u(-dt) = u(dt)

    def run() -> np.ndarray:
        with torch.no_grad():
            wavefield = deepwave.scalar(
                *(speed, 1.0 / cells, dt),
                nt=steps,
                pml_width=0,
                accuracy=setting["order"],
                wavefield_0=inner,
                wavefield_m1=before,
                max_vel=1.0,
            )[0]
        return np.pad(wavefield.numpy(), ((0, 0), (1, 1), (1, 1)))

    return run


if __name__ == "__main__":
    report(make, asked(), ("deepwave", "torch"))
