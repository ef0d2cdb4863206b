"""From a solver or a file to an operator that has been checked."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from understudy.core.errors import UserError
from understudy.core.operator import Stepper
from understudy.emulate.evaluation import MapEvaluation, RolloutEvaluation, evaluate
from understudy.emulate.fields import FieldSet, from_file, is_file, simulated
from understudy.emulate.recipes import MAPS, STEPPERS, recipe
from understudy.emulate.run import Moment, emulate
from understudy.models.operators.stored import load_operator
from understudy.report.operator import write_operator_report
from understudy.simulate.pde.files import write_fields
from understudy.simulate.pde.named import draw_parameters, named


@pytest.fixture(scope="module")
def advection() -> FieldSet:
    simulator = named("advection", points=64)
    return simulated(simulator, draw_parameters(simulator, 24), "advection", stride=2)


@pytest.fixture(scope="module")
def darcy() -> FieldSet:
    simulator = named("darcy", points=16)
    return simulated(simulator, draw_parameters(simulator, 16), "darcy")


def test_runs_come_with_all_that_describes_them(advection, darcy):
    assert advection.fields.shape[0] == 24 and advection.fields.shape[2:] == (1, 64)
    assert not advection.steady
    assert "seed" not in advection.parameters.columns
    assert darcy.steady and darcy.given is not None and darcy.given_channels == ("coefficient",)
    parts = advection.split(1)
    assert sum(map(len, parts)) == 24
    rows = torch.cat([part.fields for part in parts]).flatten(1)
    assert len(rows.unique(dim=0)) == 24


def test_a_file_gives_the_same_runs(tmp_path, advection):
    simulator = named("advection", points=64)
    table = draw_parameters(simulator, 24)
    write_fields(tmp_path / "runs.h5", simulator, table, "advection")
    data = from_file(tmp_path / "runs.h5", stride=2)
    assert torch.equal(data.fields, advection.fields)
    assert data.dt == pytest.approx(advection.dt)
    assert data.grid.shape == advection.grid.shape
    assert data.grid.lower == pytest.approx(advection.grid.lower)
    assert data.grid.upper == pytest.approx(advection.grid.upper)
    pd.testing.assert_frame_equal(data.parameters, advection.parameters)
    assert is_file(str(tmp_path / "runs.h5")) and is_file("other.hdf5") and not is_file("ks")


def test_a_file_of_another_program_is_read_as_pdebench_lays_it_out(tmp_path):
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["tensor"] = np.random.default_rng(0).normal(size=(9, 5, 16)).astype(np.float32)
        file["x-coordinate"] = (np.arange(16) + 0.5) / 16
        file["t-coordinate"] = np.arange(6) * 0.1
    data = from_file(tmp_path / "p.h5")
    assert data.grid.placement == "cells"
    assert (data.grid.lower, data.grid.upper) == (pytest.approx((0.0,)), pytest.approx((1.0,)))
    assert data.dt == pytest.approx(0.1)
    assert data.numbers is None


def test_diverged_runs_are_left_out_and_counted(tmp_path):
    fields = np.ones((10, 4, 16), dtype=np.float32)
    fields[3, 2:] = np.nan
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["tensor"], file["t-coordinate"] = fields, np.arange(4)
        file["x-coordinate"] = np.arange(16) / 16
    data = from_file(tmp_path / "p.h5")
    assert (len(data), data.dropped) == (9, 1)
    with h5py.File(tmp_path / "p.h5", "r+") as file:
        file["tensor"][:] = np.nan
    with pytest.raises(UserError, match="every run diverged"):
        from_file(tmp_path / "p.h5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t-coordinate": np.array([0.0, 1.0, 3.0, 4.0])}, "equally spaced and grow"),
        ({"t-coordinate": np.zeros(4)}, "equally spaced and grow"),
        ({"x-coordinate": np.arange(16.0) ** 2}, "points along an axis"),
        ({"tensor": np.ones((10, 1, 16), dtype=np.float32)}, "nothing to predict"),
        ({"t-coordinate": np.array([0.0, np.nan, 2.0, 3.0])}, "times must be finite"),
        ({"x-coordinate": np.full(16, np.nan)}, "points along an axis"),
        ({"x-coordinate": None}, "no data set 'x-coordinate'"),
        ({"t-coordinate": None}, "no data set 't-coordinate'"),
        ({"t-coordinate": np.arange(3.0)}, r"4 times, 't-coordinate' is of shape \(3,\)"),
        ({"x-coordinate": np.arange(9.0)}, r"'x-coordinate' should be of shape \(16,\)"),
        ({"tensor": np.ones((10, 4), dtype=np.float32)}, "should be of shape .runs, times"),
        ({"tensor": np.ones((10, 4, 16, 16))}, "no data set 'y-coordinate'"),
        ({"tensor": np.full((10, 4, 16), b"a")}, "holds no numbers"),
        ({"parameters/nu": np.arange(5.0)}, r"'parameters/nu' should be of shape \(10,\)"),
        ({"tensor": None, "tensor/u": np.ones(3)}, r"found \(\)"),
    ],
)
def test_files_that_cannot_be_learnt_are_refused(tmp_path, change, message):
    content = {
        "tensor": np.ones((10, 4, 16), dtype=np.float32),
        "t-coordinate": np.arange(4.0),
        "x-coordinate": np.arange(16.0) / 16,
        **change,
    }
    with h5py.File(tmp_path / "p.h5", "w") as file:
        for name, value in content.items():
            if value is not None:
                file[name] = value
    with pytest.raises(UserError, match=message):
        from_file(tmp_path / "p.h5")


@pytest.mark.parametrize("model", STEPPERS)
def test_every_stepper_is_trained_rolled_out_and_kept(model, advection, tmp_path):
    found = emulate(advection, model, 0.5, batch_size=4)
    assert found.facts["steps"] >= 1
    assert isinstance(found.evaluation, RolloutEvaluation)
    scores = found.evaluation.scores()
    assert 0 <= scores["horizon_least"] <= scores["horizon_mean"] <= scores["rollout_time"] * 1.001
    operator = found.operator
    assert isinstance(operator, Stepper)
    operator.save(tmp_path / "o.us")
    back = load_operator(tmp_path / "o.us")
    assert back.test_errors == pytest.approx(found.evaluation.nrmse.tolist())
    start = advection.fields[:2, 0]
    numbers = None if advection.numbers is None else advection.numbers[:2]
    assert torch.equal(back.rollout(start, 2, numbers), operator.rollout(start, 2, numbers))


@pytest.mark.parametrize("model", MAPS)
def test_every_map_is_trained_and_kept(model, darcy, tmp_path):
    found = emulate(darcy, model, 0.5)
    assert isinstance(found.evaluation, MapEvaluation)
    assert found.evaluation.scores()["relative_error"] > 0
    found.operator.save(tmp_path / "o.us")
    back = load_operator(tmp_path / "o.us")
    assert torch.equal(back.predict(darcy.given), found.operator.predict(darcy.given))


def test_a_perfect_operator_scores_perfectly(advection):
    class Exact(Stepper):
        grid, dt = advection.grid, advection.dt
        inputs = outputs = advection.channels
        parameters = tuple(advection.parameters.columns)

        def _advance(self, past, params, generators):
            gap = (advection.fields - past[0]).flatten(2).norm(dim=2)
            found = [(advection.fields - u).flatten(2).norm(dim=2).argmin() for u in past]
            del gap
            last = advection.fields.shape[1]
            rows = [(int(i) // last, min(int(i) % last + 1, last - 1)) for i in found]
            return torch.stack([advection.fields[r, t] for r, t in rows])[:, None]

    test = advection.split(0)[2]
    found = evaluate(Exact(), test, test)
    assert found.one_step == 0.0
    assert float(found.nrmse.max()) == 0.0
    assert found.horizon.tolist() == pytest.approx([found.end] * len(test))
    assert float(found.persistence[-1]) > 0.1


def test_an_interrupt_keeps_the_best(advection):
    def stop(moment: Moment) -> None:
        raise KeyboardInterrupt

    found = emulate(advection, "dilated", 60.0, listener=lambda m: m.stage == "train" and stop(m))
    assert found.facts["interrupted"] and found.facts["seconds"] < 30


def test_models_are_named_in_errors(advection, darcy):
    with pytest.raises(UserError, match="no model 'fnoo'; did you mean 'fno'"):
        recipe("fnoo", advection)
    with pytest.raises(UserError, match="pde-refiner is not for one field a run"):
        recipe("pde-refiner", darcy)
    with pytest.raises(UserError, match="at least 8 are needed"):
        emulate(advection[torch.arange(5)], "fno", 1.0)


def test_pages_hold_what_was_found(advection, darcy, tmp_path):
    for data, model in ((advection, "pde-refiner"), (darcy, "fno")):
        found = emulate(data, model, 0.3)
        page = write_operator_report(
            found.evaluation,
            tmp_path / f"{model}.html",
            source="<b>" + data.source,
            model=found.model,
            channels=data.channels,
            given=data.given_channels,
            dt=data.dt,
            curve=found.curve,
            facts=found.facts,
        )
        text = page.read_text()
        assert "<b>" + data.source not in text
        assert f"emulated by {model}" in text
