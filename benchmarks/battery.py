"""Single-particle model against PyBaMM's: voltage, lithium kept, and cells in a second.

Accuracy: the largest difference of voltages over the parameters' ranges, ours with its defaults
against PyBaMM's SPM with 240 points in a particle and a tolerance of 1e-9. Throughput: 1,000 sets
of parameters in one batch, against PyBaMM's runs one after another with its own defaults (20
points, tolerance 1e-6), its model built and compiled beforehand; CPU seconds of one thread. The two
take turns, seven times, and the least time of each counts: other work on a machine only adds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from runner import RESULTS, hardware
from understudy.core.space import Continuous, Space
from understudy.simulate.battery import PyBaMMCell, SingleParticleModel, hassanaly2024, read_cell
from understudy.simulate.battery.spm import mesh_of

FOLDER = RESULTS / "battery"
MANY, SINGLE, ROUNDS = 1000, 20, 7
CASES = {
    "hassanaly2024": (2.0, 1350.0),
    "Chen2020": (1.0, 3000.0),
    "Marquis2019": (1.0, 3000.0),
}


def space(name: str) -> Space:
    """What varies: as in the paper, or exchange current and diffusivity by a factor of two."""
    if name == "hassanaly2024":
        return SingleParticleModel().space
    return Space(
        (
            Continuous("negative_exchange_current", 0.5, 2.0),
            Continuous("positive_diffusivity", 0.5, 2.0),
        )
    )


def cpu_seconds(run: Callable[[], Any]) -> float:
    """CPU seconds of a call."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def measure(name: str) -> dict[str, Any]:
    """Figures of one cell."""
    rate, last = CASES[name]
    cell = hassanaly2024() if name == "hassanaly2024" else read_cell(name)
    given = {
        "current": rate * cell.capacity,
        "times": np.linspace(last / 100.0, last, 100),
        "space": space(name),
    }
    ours = SingleParticleModel(cell, **given)
    known = cell if name == "hassanaly2024" else name
    fine = PyBaMMCell(known, **given, points=240, tolerance=1e-9)
    plain = PyBaMMCell(known, **given)
    few = ours.space.sample(10, seed=1)
    difference = np.abs(ours.run_many(few) - fine.run_many(few)).to_numpy()
    table = ours.space.sample(MANY, seed=2)
    rows = table.head(SINGLE * ROUNDS).to_dict("records")
    plain.run(rows[0])
    batches, singles = [], []
    for k in range(ROUNDS):
        batches.append(cpu_seconds(lambda: ours.run_many(table)))
        part = rows[SINGLE * k : SINGLE * (k + 1)]
        singles.append(cpu_seconds(lambda part=part: [plain.run(row) for row in part]) / SINGLE)
    batch, single = min(batches), min(singles)
    codes = torch.from_numpy(ours.space.encode(table)).requires_grad_()
    gradient = cpu_seconds(lambda: ours.evaluate(codes).sum().backward())
    return {
        "largest_difference_mV": 1e3 * float(np.nanmax(difference)),
        "compared_voltages": int(np.isfinite(difference).sum()),
        "lithium_error": lithium(ours, codes.detach()[:100]),
        "batch_of_1000_cpu_s": batch,
        "batch_with_gradient_cpu_s": gradient,
        "pybamm_one_run_cpu_s": single,
        "times_faster": MANY * single / batch,
    }


def lithium(model: SingleParticleModel, X: torch.Tensor) -> float:
    """Largest departure of a mean stoichiometry from Faraday's law."""
    solution = model.solve(X, profiles=True)
    amperes, errors = model.current.amperes[0], []
    for side, sign in (("negative", -1.0), ("positive", 1.0)):
        electrode = getattr(model.cell, side)
        volume = electrode.active_fraction * electrode.thickness * model.cell.area
        charge = amperes * solution.times / (96485.33212 * volume * electrode.max_concentration)
        mean = solution.profiles[side] @ mesh_of(electrode, model.shells).mean
        errors.append((mean - electrode.stoichiometry - sign * charge).abs().max())
    return float(torch.stack(errors).max())


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", nargs="*", default=list(CASES))
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in parser.parse_args().cells:
        record = {"cell": name, **measure(name), "hardware": hardware(1)}
        text = json.dumps(record, indent=2)
        (FOLDER / f"spm-{name}.json").write_text(text + "\n", encoding="utf-8")
        print(text, flush=True)


if __name__ == "__main__":
    main()
