"""Finite volumes and leapfrog of :mod:`understudy.simulate.acoustics`, all runs at once."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pulses import END, asked, report, starts
from understudy.data.rooms import Room
from understudy.simulate.acoustics.leapfrog import Leapfrog
from understudy.simulate.acoustics.mesh import RoomMesh


def make(setting: dict[str, Any]) -> Any:
    cells, steps = setting["cells"], setting["steps"]
    mesh = RoomMesh.of(Room.rectangle(1.0, 1.0), 1.0 / cells)
    dtype = getattr(torch, setting["dtype"])
    scheme = Leapfrog(mesh, [math.inf] * 4, 1.0, END / steps, dtype)
    start = torch.from_numpy(starts(cells)).flatten(1).to(dtype)

    @torch.no_grad()
    def run() -> np.ndarray:
        for p in scheme.march(start, steps):
            last = p
        return last.double().numpy().reshape(-1, cells + 1, cells + 1)

    return run


if __name__ == "__main__":
    report(make, asked(), ("torch", "numpy"))
