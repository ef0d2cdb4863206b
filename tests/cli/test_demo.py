"""`understudy demo` goes from simulation to report."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from understudy.simulate import battery
from understudy.simulate.battery import DischargeSimulator

from .conftest import Program


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer in place of the solver, by smooth functions."""

    def discharge_runs(n: int, **options: object) -> pd.DataFrame:
        table = DischargeSimulator.space.sample(n)
        rate, porosity = table["c_rate"], table["negative_porosity"]
        for k, name in enumerate(DischargeSimulator.outputs):
            table[name] = 5.0 - 0.5 * rate + 0.1 * (k + 1) * porosity
        return table.assign(seconds=0.2)

    monkeypatch.setattr(battery, "discharge_runs", discharge_runs)


@pytest.mark.usefixtures("quick")
def test_the_demo_leaves_runs_model_and_report(program: Program, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    record = program("demo", "--runs", 60, "--budget", "1s", "-o", folder, "--json").record
    assert sorted(path.name for path in folder.iterdir()) == ["model.us", "report.html", "runs.csv"]
    assert len(pd.read_csv(folder / "runs.csv")) == 60
    assert record["held_out"] == 3
    assert record["speed_up"] == pytest.approx(0.2 / record["surrogate_seconds"])
    assert {row["target"] for row in record["first"]} == set(DischargeSimulator.outputs)
    for row in record["first"]:
        assert row["lower_90"] <= row["predicted"] <= row["upper_90"]
        assert np.isclose(row["predicted"], row["simulated"], rtol=0.05)


@pytest.mark.usefixtures("quick")
def test_the_demo_prints_predicted_against_simulated(program: Program, tmp_path: Path) -> None:
    done = program("demo", "--runs", 60, "--budget", "1s", "-o", tmp_path / "demo")
    assert done.code == 0, done.err
    for words in ("simulated", "predicted", "90 % interval", "times faster", "report.html"):
        assert words in done.out


def test_without_pybamm_the_demo_says_what_to_install(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pybamm", None)
    done = program("demo", "-o", tmp_path / "demo")
    assert done.code == 2
    assert done.err == (
        "error: the battery simulator needs pybamm, which is not installed: "
        "pip install 'understudy[battery]'\n"
    )
