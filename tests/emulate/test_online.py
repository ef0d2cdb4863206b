"""Operators trained while the solver runs."""

from __future__ import annotations

import pickle

import pytest
import torch

from understudy.core.errors import UserError
from understudy.emulate.online import Streamed, emulate_online
from understudy.emulate.run import Moment
from understudy.models.operators.one_step import LearnedStepper
from understudy.simulate.pde.named import named


def test_a_simulator_is_streamed_within_ranges_and_at_some_of_its_times():
    simulator = named("ks", points=32, steps=6, transient=2)
    solver = Streamed.of(simulator, {"viscosity": (1.0, 1.0), "length": (60.0, 62.0)}, stride=3)
    assert solver.space.names == ["length", "time_step", "seed"]
    assert solver.space["length"].lower == 60.0 and solver.space["length"].upper == 62.0
    whole = torch.tensor([[61.0, 0.2, 1.0, 5.0]], dtype=torch.float64)
    found = list(pickle.loads(pickle.dumps(solver)).stream(whole[:, [0, 1, 3]]))
    wanted = list(simulator.stream(whole))[::3]
    assert len(found) == 3
    for (t, field), (t_wanted, field_wanted) in zip(found, wanted, strict=True):
        assert torch.equal(t, t_wanted) and torch.equal(field, field_wanted)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["dilated", "pde-refiner"])
def test_an_operator_learns_while_runs_stream(model, tmp_path):
    simulator = named("advection", points=32, steps=10)
    told: list[Moment] = []
    found = emulate_online(
        *(simulator, "advection", model, 15.0),
        stride=2,
        batch_size=8,
        checkpoint=tmp_path / "study",
        listener=told.append,
    )
    assert isinstance(found.operator, LearnedStepper)
    assert found.operator.parameters == ("speed",)
    assert found.facts["train_runs"] > 0 and found.facts["frames"] > 0
    assert found.facts["steps"] > 5
    assert found.evaluation.scores()["test_runs"] == 32
    assert found.operator.test_errors == pytest.approx(found.evaluation.nrmse.tolist())
    assert [moment.stage for moment in told[-2:]] == ["test", "done"]
    assert found.facts["startup_seconds"] > 0
    assert any("buffer" in moment.facts for moment in told)
    before = found.facts["steps"]
    again = emulate_online(
        *(simulator, "advection", model, 15.0),
        stride=2,
        batch_size=8,
        checkpoint=tmp_path / "study",
    )
    assert again.facts["steps"] > before


def test_what_cannot_be_streamed_is_refused():
    with pytest.raises(UserError, match="--online is for fields over time"):
        emulate_online(named("darcy", points=8), "darcy", budget=1.0)
    with pytest.raises(UserError, match="no model 'fnoo'"):
        emulate_online(named("advection", points=32, steps=4), "advection", "fnoo", 1.0)
