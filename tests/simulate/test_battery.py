"""Discharges behave as a cell does, are kept between calls, and send nothing anywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from understudy.core.errors import UserError
from understudy.simulate.battery import DischargeSimulator, discharge, discharge_runs

CELL = {
    "c_rate": 1.0,
    "negative_porosity": 0.25,
    "positive_porosity": 0.335,
    "negative_diffusivity": 3.3e-14,
    "positive_diffusivity": 4e-15,
}


class Counted(DischargeSimulator):
    """Answers at once and counts; stands in for the solver."""

    made = 0
    fails_at: int | None = None

    def run(self, params: Any) -> dict[str, float]:
        if Counted.made == Counted.fails_at:
            raise KeyboardInterrupt
        Counted.made += 1
        return dict.fromkeys(self.outputs, float(params["c_rate"]))

    def build(self) -> None:
        pass

    @property
    def settings(self) -> dict[str, Any]:
        return {"name": "counted"}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Counted]:
    monkeypatch.setattr(discharge, "DischargeSimulator", Counted)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Counted, "made", 0)
    monkeypatch.setattr(Counted, "fails_at", None)
    return Counted


@pytest.fixture(scope="module")
def cell() -> DischargeSimulator:
    pytest.importorskip("pybamm")
    return DischargeSimulator()


# -- the solver -----------------------------------------------------------------------------------


def test_the_measured_cell_gives_its_capacity_at_one_c(cell: DischargeSimulator) -> None:
    # Golden: 3555.5 s at 5 A to 2.5 V, by the Doyle-Fuller-Newman model of PyBaMM 26.10 with the
    # parameter set as it is, in which each active material fills what its porosity leaves.
    run = cell.run(CELL)
    assert run["capacity_Ah"] == pytest.approx(4.938, abs=0.01)
    assert run["energy_Wh"] == pytest.approx(run["mean_voltage_V"] * run["capacity_Ah"])
    assert run["voltage_10_V"] > run["voltage_50_V"] > run["voltage_90_V"] > 2.5
    assert run["slope_V_per_Ah"] < 0


def test_a_faster_discharge_delivers_less(cell: DischargeSimulator) -> None:
    slow, fast = (cell.run({**CELL, "c_rate": rate}) for rate in (0.5, 2.0))
    assert fast["capacity_Ah"] < slow["capacity_Ah"]
    assert fast["mean_voltage_V"] < slow["mean_voltage_V"]


def test_a_run_that_the_solver_cannot_finish_gives_nan(cell: DischargeSimulator) -> None:
    run = cell.run({**CELL, "c_rate": 100.0})
    assert set(run) == set(cell.outputs)
    assert all(np.isnan(value) for value in run.values())


def test_an_unknown_parameter_is_refused_with_the_nearest_name(cell: DischargeSimulator) -> None:
    with pytest.raises(UserError, match=r"'crate'.*'c_rate'"):
        cell.run({**CELL, "crate": 1.0})


def test_pybamm_is_used_without_telemetry_and_without_a_connection() -> None:
    pytest.importorskip("pybamm")
    code = """
import socket
def refuse(*args): raise SystemExit(f"connected to {args}")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from understudy.simulate.battery import discharge
pybamm = discharge.import_pybamm()
assert pybamm.config.check_opt_out() and pybamm.telemetry._posthog.disabled
pybamm.telemetry.capture("simulation-solved")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_without_pybamm_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pybamm", None)
    with pytest.raises(UserError, match=r"pip install 'understudy\[battery\]'"):
        DischargeSimulator().run(CELL)


# -- runs that are kept ---------------------------------------------------------------------------


def test_runs_are_made_once(counted: type[Counted]) -> None:
    first, second = discharge_runs(6), discharge_runs(6)
    assert counted.made == 6
    pd.testing.assert_frame_equal(first, second)


def test_more_runs_add_to_those_that_were_kept(counted: type[Counted]) -> None:
    few, many = discharge_runs(4), discharge_runs(9)
    assert counted.made == 9
    pd.testing.assert_frame_equal(few, many.head(4))


def test_another_seed_makes_other_runs(counted: type[Counted]) -> None:
    assert not discharge_runs(4, seed=0).equals(discharge_runs(4, seed=1))
    assert counted.made == 8


def test_without_cache_nothing_is_kept(counted: type[Counted], tmp_path: Path) -> None:
    discharge_runs(3, cache=False)
    assert not list(tmp_path.rglob("*.csv"))


def test_an_interruption_keeps_the_finished_runs(counted: type[Counted]) -> None:
    counted.fails_at = 3
    with pytest.raises(KeyboardInterrupt):
        discharge_runs(5)
    counted.fails_at = None
    assert len(discharge_runs(5)) == 5
    assert counted.made == 5


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b + b"1,2\n", lambda b: b"\xff" + b]
)
def test_a_damaged_line_is_made_again(counted: type[Counted], tmp_path: Path, damage: Any) -> None:
    whole = discharge_runs(4).drop(columns="seconds")
    (path,) = tmp_path.rglob("*.csv")
    path.write_bytes(damage(path.read_bytes()))
    for _ in range(2):
        pd.testing.assert_frame_equal(discharge_runs(4).drop(columns="seconds"), whole)
    assert counted.made <= 5


def test_progress_counts_up_to_all_runs(counted: type[Counted]) -> None:
    seen: list[tuple[int, int]] = []
    discharge_runs(3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_a_number_of_runs_below_one_is_refused() -> None:
    with pytest.raises(UserError, match="at least 1, got 0"):
        discharge_runs(0)
