"""A hundred synthetic cells calibrated at once, through the single-particle model itself.

The cell is that of Hassanaly et al. but with a constant diffusivity of 1e-15 m2/s in the positive
particles, discharged at 2C; a discharge has 30 voltages with noise of 3 mV. The factors of the
exchange current of the negative electrode and of both diffusivities are drawn from uniform priors
over their ranges and inferred. Counted are the ranks of the truths among 63 draws (chi-square of
8 bins) and how many 90 % intervals hold them.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

import numpy as np
import torch

from runner import RESULTS, hardware
from understudy.core.space import Continuous, Space
from understudy.search.calibrate import CurveModel, simulation_based_calibration
from understudy.search.priors import Uniform
from understudy.simulate.battery import SingleParticleModel, hassanaly2024

RANGES = {
    "negative_exchange_current": (0.5, 4.0),
    "positive_diffusivity": (1.0, 10.0),
    "negative_diffusivity": (0.5, 2.0),
}
NOISE = 3e-3


def model() -> CurveModel:
    """Discharge curve of the cell."""
    cell = hassanaly2024()
    cell = replace(cell, positive=replace(cell.positive, diffusivity=1e-15))
    space = Space(tuple(Continuous(name, *ends) for name, ends in RANGES.items()))
    times = np.linspace(10.0, 1350.0, 30)
    return CurveModel(SingleParticleModel(cell, times=times, space=space, shells=16))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    priors = {name: Uniform(*ends) for name, ends in RANGES.items()}
    begin = time.process_time()
    found = simulation_based_calibration(
        *(model(), priors, {"voltage": NOISE}, options.cells),
        burn_in=200,
        samples=500,
        seed=options.seed,
    )
    table = found.table()
    record = {
        "cells": options.cells,
        "seed": options.seed,
        "noise_V": NOISE,
        "parameters": table.to_dict("records"),
        "intervals_that_cover": float(found.covered.double().mean()),
        "median_r_hat": float(found.r_hat.median()),
        "largest_r_hat": float(found.r_hat.max()),
        "cpu_s": time.process_time() - begin,
        "hardware": hardware(1),
    }
    folder = RESULTS / "battery"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=2)
    (folder / f"calibration-{options.seed}.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
