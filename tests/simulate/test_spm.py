"""The single-particle model keeps every atom, agrees with exact solutions and refuses nonsense."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.space import Continuous, Space
from understudy.data.cells import FARADAY, Polynomial, Table
from understudy.simulate.battery import (
    Drive,
    PyBaMMCell,
    SingleParticleModel,
    hassanaly2024,
    read_cell,
)
from understudy.simulate.battery.spm import mesh_of

TIMES = (5.0, 60.0, 300.0, 900.0, 1350.0)
THETA = torch.tensor([[2.0, 2.0], [0.5, 1.0], [4.0, 10.0]], dtype=torch.float64)
AMPERES = 2.0 * 0.0189


def expected_mean(side: str, charge: Tensor) -> Tensor:
    """Mean stoichiometry after a charge [C] has left the cell: Faraday's law."""
    cell = hassanaly2024()
    electrode = getattr(cell, side)
    volume = electrode.active_fraction * electrode.thickness * cell.area
    change = charge / (FARADAY * volume * electrode.max_concentration)
    return electrode.stoichiometry + (-change if side == "negative" else change)


@pytest.mark.parametrize("side", ["negative", "positive"])
@pytest.mark.parametrize("shells", [8, 32])
def test_lithium_is_conserved_to_rounding(side: str, shells: int) -> None:
    model = SingleParticleModel(times=TIMES, shells=shells, step=60.0)
    solution = model.solve(THETA, profiles=True)
    mesh = mesh_of(getattr(model.cell, side), shells)
    mean = solution.profiles[side] @ mesh.mean
    assert torch.allclose(mean, expected_mean(side, AMPERES * solution.times), atol=1e-10, rtol=0)


def test_a_drive_conserves_lithium_and_returns_what_it_took() -> None:
    drive = Drive((100.0, 200.0, 400.0), (0.04, -0.04, 0.0))
    model = SingleParticleModel(current=drive, times=(100.0, 200.0, 400.0), step=20.0)
    solution = model.solve(THETA[:1], profiles=True)
    for side in ("negative", "positive"):
        mean = solution.profiles[side][0] @ mesh_of(getattr(model.cell, side)).mean
        charge = torch.tensor([4.0, 0.0, 0.0], dtype=torch.float64)
        assert torch.allclose(mean, expected_mean(side, charge), atol=1e-10, rtol=0)
    assert solution.voltage[0, 0] < solution.voltage[0, 2] < solution.voltage[0, 1]


def test_the_mean_anode_concentration_after_1350_s_is_that_of_the_charge_passed() -> None:
    # 0.91 * 30.53 kmol/m3 - 2 * 0.0189 A * 1350 s / (F * 0.543073 * 44 um * 1.4e-3 m2) = 11.973
    model = SingleParticleModel(times=(1350.0,))
    profile = model.solve(THETA[:1], profiles=True).profiles["negative"][0, 0]
    assert float(profile @ mesh_of(model.cell.negative).mean) * 30.53 == pytest.approx(
        11.973, abs=1e-3
    )


def sphere(tau: float) -> float:
    """Change at the surface of a sphere after a unit flux for tau (Crank 1975, equation 6.45)."""
    k = np.arange(1, 4000)
    root = (k + 0.5) * math.pi  # of tan(root) = root
    for _ in range(50):
        root = k * math.pi + np.arctan(root)
    return 3.0 * tau + 0.2 - 2.0 * float((np.exp(-(root**2) * tau) / root**2).sum())


@pytest.mark.parametrize("time", [2.0, 30.0, 300.0, 900.0])
def test_the_surface_of_a_sphere_with_constant_diffusivity_is_the_exact_one(time: float) -> None:
    model = SingleParticleModel(times=(time,), shells=64)
    electrode = model.cell.negative
    rate = 3e-14 / electrode.radius**2
    volume = electrode.active_fraction * electrode.thickness * model.cell.area
    flux = AMPERES / (3.0 * FARADAY * volume * electrode.max_concentration)
    exact = 0.91 - flux / rate * sphere(rate * time)
    found = float(model.solve(THETA[:1]).surface["negative"][0, 0])
    assert found == pytest.approx(exact, abs=2e-5)


def test_both_integrators_agree_where_the_diffusivity_is_constant() -> None:
    cell = hassanaly2024()
    constant = replace(cell, positive=replace(cell.positive, diffusivity=3e-15))
    stepped = replace(
        cell, positive=replace(cell.positive, diffusivity=lambda x: torch.full_like(x, 3e-15))
    )
    exact, found = (SingleParticleModel(c, times=TIMES).solve(THETA) for c in (constant, stepped))
    assert torch.allclose(found.voltage, exact.voltage, atol=1e-4, rtol=0)


def test_voltages_converge_to_a_tenth_of_a_millivolt_with_the_defaults() -> None:
    fine = SingleParticleModel(times=TIMES, shells=64, step=4.0).solve(THETA).voltage
    assert torch.allclose(SingleParticleModel(times=TIMES).solve(THETA).voltage, fine, atol=1e-4)


def test_errors_fall_as_the_square_of_the_step() -> None:
    def end(step: float) -> Tensor:
        return SingleParticleModel(times=(400.0,), shells=16, step=step).solve(THETA).voltage

    exact = end(2.0)
    coarse, fine = ((end(step) - exact).abs().max() for step in (50.0, 12.5))
    assert coarse / fine > 8.0


def test_gradients_are_those_of_finite_differences() -> None:
    names = ("negative_diffusivity", "positive_diffusivity", "positive_radius")
    space = Space(
        (
            *(Continuous(name, 0.5, 2.0) for name in names),
            Continuous("negative_stoichiometry", 0.8, 0.95),
        )
    )
    model = SingleParticleModel(times=(50.0, 200.0), space=space, shells=4, step=100.0)
    x = torch.tensor([[0.8, 1.2, 0.9, 0.9]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.evaluate(x).sum(), x)
    step = 1e-5 * torch.eye(4, dtype=torch.float64)
    with torch.no_grad():
        change = model.evaluate(x + step).sum(1) - model.evaluate(x - step).sum(1)
    assert torch.allclose(gradient[0], change / 2e-5, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("last", [1350.0, 3000.0])
def test_a_stream_gives_one_time_after_the_other_what_a_solution_holds(last: float) -> None:
    model = SingleParticleModel(times=(0.0, 60.0, last))
    whole = model.solve(THETA, profiles=True)
    moments = list(model.stream(THETA))
    assert [moment.time for moment in moments] == [0.0, 60.0, last]
    voltage = torch.stack([moment.voltage for moment in moments], 1)
    assert torch.allclose(voltage, whole.voltage, equal_nan=True, atol=1e-12)
    for side in ("negative", "positive"):
        shells = torch.stack([moment.profiles[side] for moment in moments], 1)
        assert torch.allclose(shells, whole.profiles[side], atol=1e-12)


def test_a_stream_of_other_parameters_is_refused() -> None:
    with pytest.raises(UserError, match="must have shape"):
        next(SingleParticleModel().stream(THETA[:, :1]))


def test_a_cell_in_a_batch_is_the_cell_alone() -> None:
    model = SingleParticleModel(times=TIMES)
    together = model.evaluate(THETA)
    alone = torch.cat([model.evaluate(row.unsqueeze(0)) for row in THETA])
    assert torch.allclose(together, alone, atol=1e-12)


def test_a_particle_that_runs_empty_is_flagged_and_has_no_voltage_from_then_on() -> None:
    model = SingleParticleModel(times=(600.0, 1350.0, 3000.0))
    solution = model.solve(THETA)
    assert not solution.finished.any()
    assert torch.isfinite(solution.voltage[:, 0]).all()
    assert torch.isnan(solution.voltage[:, 2]).all()


def test_linear_kinetics_agree_with_butler_volmer_for_small_currents() -> None:
    small = {"current": 1e-4, "times": (10.0, 100.0)}
    both = [
        SingleParticleModel(kinetics=law, **small).evaluate(THETA)  # type: ignore[arg-type]
        for law in ("linear", "butler-volmer")
    ]
    assert torch.allclose(*both, atol=1e-8)


def test_a_table_goes_through_a_cubic_and_a_polynomial_is_constant_outside() -> None:
    x = torch.linspace(0, 1, 50, dtype=torch.float64)
    nodes = torch.linspace(0, 1, 201, dtype=torch.float64)
    assert torch.allclose(Table(nodes**3 - nodes)(x), x**3 - x, atol=2e-6)
    ends = Polynomial((2.0, 1.0))(torch.tensor([-1.0, 2.0], dtype=torch.float64))
    assert ends.tolist() == [1.0, 3.0]


def test_curves_come_singly_and_in_tables() -> None:
    model = SingleParticleModel(times=TIMES)
    table = model.space.sample(3)
    times, many = model.curve(table)
    assert times.tolist() == list(TIMES) and many.shape == (3, 5)
    assert torch.allclose(model.curve(table.iloc[1])[1], many[1])
    assert model.run(table.iloc[1])["voltage_300s"] == pytest.approx(float(many[1, 2]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"current": -0.04}, "a constant current is a discharge and positive, found -0.04 A"),
        ({"times": ()}, "at least one"),
        ({"times": (5.0, 5.0)}, "times must increase"),
        ({"times": (-1.0, 5.0)}, "times must increase, from 0 or later"),
        ({"current": Drive((10.0,), (1.0,))}, "the drive ends at 10 s, before the last time"),
        ({"space": Space((Continuous("diffusivty", 1, 2),))}, "no parameter 'diffusivty'"),
        ({"space": Space((Continuous("positive_radius", -1, 2),))}, "must be a number above 0"),
        ({"kinetics": "tafel"}, "kinetics is"),
        ({"step": 0.0}, "step must be positive"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(change: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        SingleParticleModel(**change)


def test_parameters_outside_their_ranges_are_refused() -> None:
    model = SingleParticleModel(times=TIMES)
    table = pd.DataFrame({"negative_exchange_current": [2, 2], "positive_diffusivity": [2, 20]})
    with pytest.raises(UserError, match="row 2: positive_diffusivity = 20 is outside 1 to 10"):
        model.run_many(table)


def test_a_drive_without_order_is_refused() -> None:
    with pytest.raises(UserError, match="must increase"):
        Drive((10.0, 10.0), (1.0, 2.0))


def test_pybamm_cannot_vary_a_radius() -> None:
    space = Space((Continuous("positive_radius", 0.5, 2.0),))
    with pytest.raises(UserError, match="'positive_radius' cannot vary"):
        PyBaMMCell("Chen2020", space=space)


def test_finer_models_of_pybamm_need_an_electrolyte() -> None:
    cell = replace(hassanaly2024(), electrolyte=None)
    with pytest.raises(UserError, match="needs an electrolyte"):
        PyBaMMCell(cell, "DFN", space=SingleParticleModel().space)


def test_only_the_finest_model_has_fields_over_the_depth() -> None:
    with pytest.raises(UserError, match="only DFN has fields"):
        PyBaMMCell(hassanaly2024(), "SPM", space=SingleParticleModel().space).fields({})


@pytest.mark.slow
def test_voltages_are_those_of_pybamm() -> None:
    pytest.importorskip("pybamm")
    ours = SingleParticleModel(times=TIMES)
    peer = PyBaMMCell(
        ours.cell, current=AMPERES, times=TIMES, space=ours.space, points=120, tolerance=1e-9
    )
    table = pd.DataFrame(THETA.numpy(), columns=ours.space.names)
    assert np.abs(ours.run_many(table) - peer.run_many(table)).to_numpy().max() < 1e-4


@pytest.mark.slow
def test_a_drive_and_a_named_set_give_the_voltages_of_pybamm_too() -> None:
    pytest.importorskip("pybamm")
    space = Space(
        (
            Continuous("negative_stoichiometry", 0.5, 0.95),
            Continuous("positive_active_fraction", 0.8, 1.2),
            Continuous("negative_diffusivity", 0.8, 1.2),
        )
    )
    given = {
        "current": Drive((200.0, 400.0, 900.0), (5.0, -2.0, 3.0)),
        "times": (50.0, 190.0, 300.0, 800.0),
        "space": space,
    }
    table = pd.DataFrame([[0.8, 1.1, 0.9]], columns=space.names)
    ours = SingleParticleModel(read_cell("Chen2020"), **given).run_many(table)
    peer = PyBaMMCell("Chen2020", **given, points=120, tolerance=1e-8).run_many(table)
    assert np.abs(ours - peer).to_numpy().max() < 2e-4


@pytest.mark.slow
def test_electrolyte_lowers_the_voltage_of_finer_models() -> None:
    pytest.importorskip("pybamm")
    space = SingleParticleModel().space
    single, electrolyte, porous = (
        PyBaMMCell("Chen2020", model, times=(600.0, 1800.0), space=space).curve(
            {"negative_exchange_current": 1.0, "positive_diffusivity": 1.0}
        )[1]
        for model in ("SPM", "SPMe", "DFN")
    )
    assert (single > electrolyte).all()
    assert torch.allclose(electrolyte, porous, atol=0.02)


def test_a_set_that_pybamm_does_not_have_is_refused() -> None:
    pytest.importorskip("pybamm")
    with pytest.raises(UserError, match="no parameter set 'Chen2021'; did you mean 'Chen2020'"):
        read_cell("Chen2021")
