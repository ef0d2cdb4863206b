"""The benchmark of wave solvers: its closed form on any grid, and what is kept of a failure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import pulses
import waves


@pytest.mark.parametrize("cells", [64, 96, 160])
def test_the_closed_form_is_the_same_on_every_grid(cells: int) -> None:
    """Whether or not the squares divide 256, by grids of which each has sines of its own."""
    assert np.abs(pulses.exact(cells, 0.0) - pulses.starts(cells)).max() < 1e-12
    step = cells // 32
    fine = pulses.exact(cells, 0.7)[:, ::step, ::step]
    coarse = pulses.exact(32, 0.7)
    assert np.abs(fine - coarse).max() < 1e-4 * np.abs(coarse).max()


def test_the_closed_form_solves_the_wave_equation() -> None:
    h, dt = 1.0 / 256, 1e-3
    before, now, after = (pulses.exact(256, 0.3 + k * dt)[0] for k in (-1, 0, 1))
    acceleration = (before - 2 * now + after)[1:-1, 1:-1] / dt**2
    neighbours = now[2:, 1:-1] + now[:-2, 1:-1] + now[1:-1, 2:] + now[1:-1, :-2]
    laplacian = (neighbours - 4 * now[1:-1, 1:-1]) / h**2
    assert np.linalg.norm(acceleration - laplacian) < 2e-3 * np.linalg.norm(laplacian)


def test_the_error_of_the_closed_form_is_nothing_and_other_grids_are_refused() -> None:
    assert pulses.error(pulses.exact(96, pulses.END)) < 1e-6
    with pytest.raises(ValueError, match="48 squares a side are no multiple of 32"):
        pulses.error(np.zeros((pulses.RUNS, 49, 49)))


def test_what_was_measured_before_a_failure_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = {"cells": 64}, {"cells": 96}
    line = json.dumps({"error": 0.1, "cpu_s": 1.0, "setting": first})

    def fails(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, f"{line}\n", "Traceback\nValueError: broken\n")

    monkeypatch.setattr(subprocess, "run", fails)
    records, versions = waves.answers("devito", [first, second])
    assert [r.get("error") for r in records] == [0.1, None]
    assert records[1]["setting"] == second and "broken" in records[1]["failed"]
    assert versions == {} and waves.reached(records) is None
