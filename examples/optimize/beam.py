"""A cantilever of hollow rectangular section under a load at its tip.

A stand-in for a solver that takes hours: it reads its inputs from a JSON file and prints its
outcomes as the last line. Euler-Bernoulli beam: deflection F L^3 / (3 E I), largest stress
F L (h / 2) / I.
"""

import json
import sys
from pathlib import Path

LENGTH, FORCE = 1500.0, 2500.0  # mm, N
MATERIALS = {  # Young's modulus and yield stress in MPa, density in kg/mm^3
    "steel": (210_000.0, 350.0, 7.85e-6),
    "aluminium": (70_000.0, 240.0, 2.70e-6),
    "titanium": (114_000.0, 880.0, 4.43e-6),
}


def beam(width: float, height: float, wall: float, material: str) -> dict[str, float]:
    modulus, strength, density = MATERIALS[material]
    inner_width, inner_height = width - 2 * wall, height - 2 * wall
    if min(inner_width, inner_height) <= 0:
        raise ValueError("the walls are thicker than the beam")
    area = width * height - inner_width * inner_height
    inertia = (width * height**3 - inner_width * inner_height**3) / 12
    return {
        "mass": density * area * LENGTH,
        "deflection": FORCE * LENGTH**3 / (3 * modulus * inertia),
        "safety": strength * inertia / (FORCE * LENGTH * height / 2),
    }


if __name__ == "__main__":
    print("assembling", flush=True)
    print(json.dumps(beam(**json.loads(Path(sys.argv[1]).read_text()))))
