"""What every simulator of fields keeps to: batches, seeds, streams, refusals, lost runs."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from understudy.core.errors import UserError
from understudy.core.simulator import FieldSimulator, diverged
from understudy.simulate.pde import EQUATIONS, Burgers, KuramotoSivashinsky, NavierStokes, named
from understudy.simulate.pde.named import draw_parameters

SMALL = {
    "advection": {"points": 32, "steps": 3},
    "burgers": {"points": 16, "steps": 2, "refinement": 2, "duration": 0.2},
    "combined": {"points": 16, "steps": 2, "duration": 0.2},
    "ks": {"points": 64, "steps": 2, "transient": 2},
    "fisher": {"points": 32, "steps": 2},
    "fitzhugh": {"points": 16, "steps": 2, "duration": 0.2},
    "heat1d": {"points": 8, "steps": 3},
    "heat2d": {"points": 8, "steps": 3},
    "darcy": {"points": 16},
    "darcy-rough": {"points": 16},
    "darcy-multiscale": {"points": 16},
    "helmholtz": {"points": 56},
    "navier-stokes": {"points": 16, "steps": 2, "substeps": 20, "interval": 0.2},
    "compressible": {"points": 32, "steps": 2, "duration": 0.1},
    "shallow-water": {"points": 16, "steps": 2, "duration": 0.2},
    "kolmogorov": {"points": 16, "steps": 2, "substeps": 10, "interval": 0.1},
    "wave": {"points": 15, "steps": 2, "duration": 0.2, "substeps": 2},
    "driven-wave": {"points": 15, "steps": 2, "duration": 0.2, "substeps": 2},
    "elastic-wave": {"points": 11, "steps": 2, "duration": 0.1, "substeps": 2},
}


@pytest.fixture(params=list(EQUATIONS))
def simulator(request) -> FieldSimulator:
    return named(request.param, **SMALL[request.param])


def test_each_run_of_a_batch_is_what_it_is_alone(simulator):
    table = draw_parameters(simulator, 3, seed=1)
    together = simulator.fields(table)
    assert together.dtype == torch.float32
    times = simulator.times(table)
    assert together.shape == (3, times.shape[1], len(simulator.channels), *simulator.grid.shape)
    assert not diverged(together).any()
    for i in range(3):
        alone = simulator.fields(table.iloc[[i]])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=2e-5, atol=2e-6)


def test_same_parameters_give_the_same_fields_and_other_ones_others(simulator):
    table = draw_parameters(simulator, 2, seed=2)
    first = simulator.fields(table)
    assert torch.equal(first, simulator.fields(table))
    assert not torch.allclose(first[0], first[1], rtol=1e-3)


def test_the_stream_is_the_trajectory_and_starts_at_the_initial_field(simulator):
    table = draw_parameters(simulator, 2, seed=3)
    fields = simulator.fields(table)
    for k, (t, field) in enumerate(simulator.stream(table)):
        assert torch.equal(t, simulator.times(table)[:, k])
        assert torch.equal(field, fields[:, k])
    if fields.shape[1] > 1:
        torch.testing.assert_close(simulator.initial(table).float(), fields[:, 0])


def test_summaries_are_those_of_the_last_field(simulator):
    table = draw_parameters(simulator, 2, seed=4)
    summaries = simulator.run_many(table)
    last = simulator.fields(table)[:, -1].double()
    name = simulator.channels[-1]
    expected = last[:, -1].flatten(1).square().mean(1).sqrt()
    assert summaries[f"{name}_rms"].to_list() == pytest.approx(expected.tolist(), rel=1e-6)
    assert simulator.run(table.iloc[0].to_dict()) == pytest.approx(summaries.iloc[0].to_dict())


def test_a_run_goes_on_from_a_field_of_another():
    simulator = NavierStokes(points=16, steps=2, interval=0.2, substeps=20)
    table = draw_parameters(simulator, 2)
    fields = simulator.fields(table)
    on = simulator.fields(table, start=fields[:, 1])
    torch.testing.assert_close(on[:, 1], fields[:, 2], rtol=1e-4, atol=1e-5)


def test_a_finer_computation_starts_from_the_interpolated_field():
    coarse = KuramotoSivashinsky(points=64, steps=1, transient=0)
    fine = KuramotoSivashinsky(points=64, steps=1, transient=0, refinement=2)
    params = {"length": 64.0, "time_step": 0.2, "viscosity": 1.0, "seed": 5}
    start = coarse.initial(params)
    torch.testing.assert_close(fine.fields(params, start), coarse.fields(params, start))


def test_gradients_reach_parameters_and_first_fields():
    simulator = Burgers(points=16, steps=1, refinement=1, duration=0.05, flux="spectral")
    codes = torch.tensor([[2.0, 1.0]], dtype=torch.float64, requires_grad=True)
    start = simulator.initial(codes).detach().requires_grad_()
    simulator.fields(codes, start)[:, -1].square().sum().backward()
    energy = []
    for viscosity in (1.999, 2.001):
        fields = simulator.fields(torch.tensor([[viscosity, 1.0]]).double(), start.detach())
        energy.append(float(fields[:, -1].double().square().sum()))
    assert float(codes.grad[0, 0]) == pytest.approx((energy[1] - energy[0]) / 0.002, rel=1e-2)
    assert float(start.grad.abs().min()) > 0.0


def test_a_run_that_diverges_is_flagged_and_stops_no_other():
    simulator = KuramotoSivashinsky(points=64, steps=4, transient=0, substeps=1)
    good = {"length": 64.0, "time_step": 0.1, "viscosity": 1.0, "seed": 1}
    table = pd.DataFrame([good, good])
    start = simulator.initial(table)
    start[1] *= 1e4
    fields = simulator.fields(table, start)
    assert diverged(fields).tolist() == [False, True]
    assert torch.equal(fields[:1], simulator.fields(good, start[:1]))
    assert fields[1, -1].isnan().all()


@pytest.mark.parametrize(("scheme", "stable"), [("runge-kutta", 16), ("adams", 100)])
def test_steps_are_refused_where_they_are_unstable(scheme: str, stable: int) -> None:
    def burgers(substeps: int) -> Burgers:
        return Burgers(64, 1, 1, 1.0, substeps, flux="spectral", scheme=scheme)

    run = {"viscosity": 0.01, "seed": 1}
    x = burgers(1).grid.axes()[0]
    start = 0.5 + 1e-3 * torch.sin(2.0 * torch.pi * x)[None, None]
    truth = burgers(400).fields(run, start)
    error = burgers(stable).fields(run, start) - truth
    assert float(error.norm() / truth.norm()) < 1e-3
    with pytest.raises(UserError, match=r"run 1: the time step is unstable.*more substeps"):
        burgers(stable // 2).fields(run, start)


def test_bad_parameters_are_refused_in_one_sentence():
    ks = {"length": 64.0, "time_step": 0.2, "viscosity": 1.0, "seed": 1}
    with pytest.raises(UserError, match=r"'viscosity' of run 1 must be positive, found -1"):
        KuramotoSivashinsky().fields({**ks, "viscosity": -1.0})
    with pytest.raises(UserError, match="16 points are too few for length 64"):
        KuramotoSivashinsky(points=16).fields(ks)
    with pytest.raises(UserError, match="input 'seed' is missing"):
        Burgers().fields({"viscosity": 0.1})
    with pytest.raises(UserError, match=r"cross 3.* cells a time step.*use more substeps"):
        Burgers(points=32, steps=10, duration=2.0, refinement=1, substeps=1).fields(
            {"viscosity": 0.1, "seed": 0}, torch.full((1, 1, 32), 0.5)
        )
    with pytest.raises(UserError, match=r"start must be of shape \(1, 1, 32\)"):
        Burgers(points=32).fields({"viscosity": 0.1, "seed": 0}, torch.zeros(1, 32))
    with pytest.raises(UserError, match="even number of points, found"):
        Burgers(points=33)
    with pytest.raises(UserError, match="flux must be"):
        Burgers(flux="upwind")
    with pytest.raises(UserError, match="at least 6 are needed"):
        named("helmholtz", points=32)
    with pytest.raises(UserError, match=r"no equation 'burger'; did you mean 'burgers'?"):
        named("burger")
    with pytest.raises(UserError, match=r"ks has no option 'point'; did you mean 'points'?"):
        named("ks", point=3)
    with pytest.raises(UserError, match="no input 'nu'"):
        draw_parameters(Burgers(), 2, ranges={"nu": (0.0, 1.0)})


def test_inputs_can_be_fixed_and_their_ranges_narrowed():
    simulator = KuramotoSivashinsky()
    table = draw_parameters(simulator, 50, ranges={"viscosity": (1.0, 1.0), "length": (60.0, 61.0)})
    assert set(table["viscosity"]) == {1.0}
    assert table["length"].between(60.0, 61.0).all()
    assert table["seed"].nunique() == 50
