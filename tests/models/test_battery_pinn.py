"""Networks of lithium-ion cells obey what they are asked to, and refuse what they cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

import understudy
from understudy.core.errors import UserError
from understudy.core.space import Continuous, Space
from understudy.data.cells import hassanaly2024
from understudy.models.physics import (
    P2DPINN,
    BatteryPINN,
    CellData,
    ChargeBalance,
    HierarchicalPINN,
    Jet,
    LithiumInventory,
    SaltBalance,
    Training,
    load_network,
)
from understudy.models.physics.battery import current_ratio, limited_sinh, overpotential
from understudy.models.physics.battery_p2d import _Depth
from understudy.models.physics.residuals import Collocation
from understudy.search.calibrate import calibrate, read_measurement
from understudy.search.priors import Uniform
from understudy.simulate.battery import SingleParticleModel

REFERENCE = {"negative_exchange_current": 0.5, "positive_diffusivity": 1.0}
THETA = torch.tensor([[2.0, 2.0], [0.5, 10.0]], dtype=torch.float64)
SHORT = Training(adam_steps=4, lbfgs_steps=2, points={"interior": 20, "boundary": 10}, batches=2)


def network(**of: Any) -> BatteryPINN:
    return BatteryPINN(hassanaly2024(), width=6, **of)


def p2d(**of: Any) -> P2DPINN:
    return P2DPINN(hassanaly2024(), width=6, **of)


@pytest.mark.parametrize("kinetics", ["linear", "butler-volmer"])
def test_the_first_voltage_is_that_of_the_kinetics_before_any_training(kinetics: Any) -> None:
    # 2C = 0.0378 A; j = I R / (3 eps A L); V = U_p - U_n + eta_p - eta_n at the first stoichiometry
    cell, found = hassanaly2024(), network(kinetics=kinetics).voltage(torch.zeros(1), THETA)
    thermal, potentials = 8.314462618 * 303.15 / 96485.33212, []
    factors = ((cell.negative, 1.0, THETA[:, 0]), (cell.positive, -1.0, torch.ones(2)))
    for side, sign, factor in factors:
        x = torch.tensor(side.stoichiometry, dtype=torch.float64)
        volume = side.active_fraction * side.thickness * cell.area
        ratio = sign * 0.0378 * side.radius / (3.0 * volume) / (side.exchange_current(x) * factor)
        eta = ratio if kinetics == "linear" else 2.0 * torch.asinh(0.5 * ratio)
        potentials.append(side.potential(x) + thermal * eta)
    assert torch.allclose(found[:, 0], potentials[1] - potentials[0], atol=1e-6)


def test_stoichiometries_start_where_the_cell_does() -> None:
    radius = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    found = network(seeds=(0, 1)).predict(torch.zeros(3), radius, THETA[:1].expand(3, 2))
    assert torch.allclose(found.stoichiometry["negative"], torch.tensor(0.91).double(), atol=1e-12)
    assert torch.allclose(found.stoichiometry["positive"], torch.tensor(0.39).double(), atol=1e-12)


def test_residuals_vanish_for_the_parabola_that_diffuses_steadily(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # x = x0 - 3 q t - (q / 2 d) (rho^2 - 1) solves x_t = d (x'' + 2 x' / rho), x'(1) = -q / d
    model = network()
    negative = model.scales.negative
    q, d = negative.flux, negative.diffusion

    def parabola(at: dict[str, Jet], theta: Tensor) -> Jet:
        rho = at["radius"]
        x = negative.start - 3.0 * q * at["time"] - (0.5 * q / d) * (rho.square() - 1.0)
        return x[:, None] * torch.ones(1, 2, 1, dtype=torch.float64)

    monkeypatch.setattr(model, "stoichiometry_fields", parabola)
    points = torch.tensor([[0.0, 2.0, 2.0, 0.7], [900.0, 1.0, 3.0, 0.2]], dtype=torch.float64)
    found = model.residuals(points)
    assert float(found["diffusion negative"].abs().max()) < 1e-9
    assert float(found["surface negative"].abs().max()) < 1e-9
    assert float(found["centre negative"].abs().max()) < 1e-9
    assert abs(float(found["kinetics negative"][0, 0])) < 1e-6  # at the start, x(1) = x0
    assert float(found["diffusion positive"].abs().max()) > 0.1


def test_training_lowers_the_loss_and_data_draw_the_voltage_near() -> None:
    solver = SingleParticleModel(kinetics="linear")
    times = torch.tensor(solver.times[::10], dtype=torch.float64)
    at = torch.cat([times[:, None], THETA[:1].expand(len(times), 2)], 1)
    data = CellData(at, solver.evaluate(THETA[:1])[0, ::10])
    model = network(gates=(1.0, 300.0))

    def error() -> float:
        return float((model.voltage(times, THETA[:1])[0] - data.voltage).detach().abs().mean())

    before = error()
    training = Training(
        adam_steps=80,
        lbfgs_steps=20,
        optimizer="soap",
        rate=1e-2,
        points={"interior": 20, "boundary": 10},
        batches=1,
        groups={"data": 1e4},
    )
    history = model.fit(training, data=data)
    assert error() < 0.2 * before
    assert float(history.losses[-1]) < 0.05 * float(history.losses[0])


def test_a_level_leaves_its_parent_as_it_is_and_starts_from_its_prediction() -> None:
    lower = network(reference=REFERENCE, seeds=(0, 1))
    upper = network(parent=lower, seeds=(0, 1))
    levels = HierarchicalPINN([lower, upper])
    levels.fit([SHORT, None])
    kept = [p.clone() for p in lower.parameters()]
    times = torch.tensor([100.0, 900.0], dtype=torch.float64)
    at_reference = torch.tensor([[0.5, 1.0]], dtype=torch.float64)
    for p in upper.potentials.last.parameters():
        p.data.zero_()
    assert torch.allclose(upper.voltage(times, THETA), lower.voltage(times, at_reference))
    levels.fit([None, SHORT])
    assert all(torch.equal(a, b) for a, b in zip(kept, lower.parameters(), strict=True))
    assert not torch.allclose(levels.voltage(times, THETA), lower.voltage(times, THETA))


def test_a_level_in_time_goes_on_from_its_parent_without_a_jump() -> None:
    early = network(duration=1350.0)
    late = network(parent=early, start=600.0)
    times = torch.tensor([300.0, 600.0 - 1e-6, 600.0, 600.0 + 1e-6], dtype=torch.float64)
    found, base = late.voltage(times, THETA), early.voltage(times, THETA)
    assert torch.allclose(found[:, :3], base[:, :3])
    assert torch.allclose(found[:, 3], found[:, 2], atol=1e-5)


@pytest.mark.parametrize("kind", ["spm", "levels", "p2d"])
def test_a_file_predicts_the_same_and_cannot_be_trained(kind: str, tmp_path: Path) -> None:
    model: Any = network(seeds=(0, 1), reference=REFERENCE if kind != "spm" else None)
    if kind == "levels":
        model = network(parent=model, seeds=(0, 1))
    if kind == "p2d":
        model = p2d(parent=model, seeds=(0, 1))
    again = load_network(model.save(tmp_path / "cell.us"))
    times = torch.tensor([0.0, 500.0], dtype=torch.float64)
    assert torch.equal(again.voltage(times, THETA), model.voltage(times, THETA))
    with pytest.raises(UserError, match="cannot be trained"):
        again.fit(SHORT)


def test_a_file_of_another_thing_is_refused(tmp_path: Path) -> None:
    path = network().save(tmp_path / "cell.us")
    from understudy.core import artifact

    stored = artifact.read(path)
    stored.manifest["network"]["width"] = 7
    artifact.write(path, stored.manifest, stored.tensors)
    with pytest.raises(UserError, match="do not fit together"):
        load_network(path)


def test_a_network_is_no_surrogate_of_a_table(tmp_path: Path) -> None:
    path = network().save(tmp_path / "cell.us")
    with pytest.raises(UserError, match="not a surrogate of a table"):
        understudy.load(path)


# -- calibration -----------------------------------------------------------------------------------


def measured(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"time": [100.0, 500.0, 900.0], "voltage": [4.0, 3.9, 3.8], **columns})


NAMES = ["negative_exchange_current", "positive_diffusivity"]


def test_calibration_finds_the_parameters_of_a_curve_of_the_network_itself() -> None:
    model = network(seeds=(0,))
    times = torch.linspace(50.0, 1300.0, 20, dtype=torch.float64)
    curve = model.voltage(times, THETA[:1])[0].detach()
    table = pd.DataFrame({"time": times.numpy(), "voltage": curve.numpy()})
    of, y = read_measurement(model, table, NAMES)
    priors = {
        "negative_exchange_current": Uniform(0.5, 4.0),
        "positive_diffusivity": Uniform(1, 10),
    }
    found = calibrate(of, y, priors, {"voltage": 0.003}, burn_in=60, samples=60)
    rows = found.table()
    assert bool((rows["lower_90"].to_numpy() <= 2.0).all())
    assert bool((rows["upper_90"].to_numpy() >= 2.0).all())


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (measured(time=[100.0, 500.0, 1400.0]), "1400 is outside 0 to 1350"),
        (measured(time=[100.0, 90.0, 900.0]), "must increase"),
        (measured(time=[None, None, None]), "column 'time' is empty"),
        (measured().drop(columns="time"), "neither a prior nor a column"),
    ],
)
def test_a_measurement_outside_the_box_is_refused(table: pd.DataFrame, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_measurement(network(), table, NAMES)


def test_millivolts_and_priors_of_other_things_are_recognised() -> None:
    priors = {
        "negative_exchange_current": Uniform(0.5, 4.0),
        "positive_diffusivity": Uniform(1, 10),
    }
    of, y = read_measurement(network(), measured(voltage=[4000.0, 3900.0, 3800.0]), NAMES)
    with pytest.raises(UserError, match="multiplied by 1000"):
        calibrate(of, y, priors, {"voltage": 0.003})
    with pytest.raises(UserError, match="is no input of the surrogate"):
        read_measurement(network(), measured(), ["porosity"])
    beyond = {**priors, "positive_diffusivity": Uniform(1.0, 20.0)}
    of, y = read_measurement(network(), measured(), NAMES)
    with pytest.raises(UserError, match="lies outside 1 to 10"):
        calibrate(of, y, beyond, {"voltage": 0.003})
    with pytest.raises(UserError, match="the prior excludes the data"):
        calibrate(of, 0.5 * y, priors, {"voltage": 0.003})


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "sentence"),
    [
        ({"current": -0.0378}, "the current of a discharge is positive"),
        ({"duration": 3000.0}, "would empty or overfill a particle"),
        ({"kinetics": "tafel"}, "kinetics is"),
        ({"parameters": Space((Continuous("positive_radius", 0.5, 2.0),))}, "takes no parameter"),
        ({"reference": {"positive_diffusivity": 1.0}}, "a value of each of"),
        ({"start": 100.0}, "needs a parent"),
    ],
)
def test_a_network_that_makes_no_sense_is_refused(of: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        network(**of)


def test_a_parent_of_another_cell_or_number_of_networks_is_refused() -> None:
    other = replace(hassanaly2024(), temperature=310.0)
    with pytest.raises(UserError, match="trained on another cell"):
        network(parent=BatteryPINN(other, width=6))
    with pytest.raises(UserError, match="need as many parents"):
        network(parent=network(seeds=(0, 1)), seeds=(0, 1, 2))
    with pytest.raises(UserError, match="the one before as its parent"):
        HierarchicalPINN([network(), network()])


@pytest.mark.parametrize(
    ("time", "theta", "radius", "sentence"),
    [
        (1400.0, (2.0, 2.0), 0.5, "time = 1400 is outside"),
        (100.0, (5.0, 2.0), 0.5, "negative_exchange_current = 5 is outside"),
        (100.0, (2.0, 0.5), 0.5, "positive_diffusivity = 0.5 is outside"),
        (100.0, (2.0, 2.0), 1.5, "a relative radius lies between"),
    ],
)
def test_questions_outside_the_box_are_refused(
    time: float, theta: tuple[float, float], radius: float, sentence: str
) -> None:
    rows = torch.tensor([theta], dtype=torch.float64)
    with pytest.raises(UserError, match=sentence):
        network().predict(torch.tensor([time]), torch.tensor([radius]), rows)


# -- pseudo-two-dimensional ------------------------------------------------------------------------


def test_the_sinh_goes_on_as_its_tangent_and_inverts() -> None:
    z = torch.tensor([-20.0, -3.0, 0.5, 10.0, 12.0], dtype=torch.float64)
    found = limited_sinh(z)
    assert torch.allclose(found[1:4], z[1:4].sinh())
    assert float(found[4] - found[3]) == pytest.approx(2.0 * torch.cosh(z[3]).item())
    eta = torch.tensor([-0.05, 0.02], dtype=torch.float64)
    ratio = current_ratio(eta, 0.026, "butler-volmer")
    assert torch.allclose(overpotential(ratio, 0.026, "butler-volmer"), eta)


def test_regularisers_ask_for_what_they_say() -> None:
    kinds = (ChargeBalance(), SaltBalance(), LithiumInventory())
    model = p2d(regularisers=kinds)
    where = Collocation(model.samplers(), {"interior": 4, "ends": 4, "integrals": 4}, batches=1)
    names = [term.name for term in model.terms(where.whole()) if term.group == "regularisation"]
    assert names == [
        *("charge balance negative", "charge balance positive", "salt balance"),
        *("inventory negative", "inventory positive"),
    ]
    start = torch.tensor([[[0.0, 2.0, 2.0, 0.5, 0.5]]], dtype=torch.float64)
    found = {t.name: float(t.residual.detach()) for t in model._integral(kinds[2], start)}
    assert found["inventory negative"] == pytest.approx(0.0, abs=1e-9)
    assert float(model._integral(kinds[1], start)[0].residual.detach()) == pytest.approx(0.0)


@pytest.fixture(scope="module")
def discharge() -> tuple[Tensor, dict[str, Tensor]]:
    """Fields of PyBaMM at the middle of three times a second apart."""
    pytest.importorskip("pybamm")
    from understudy.simulate.battery import PyBaMMCell

    times = torch.tensor([599.0, 600.0, 601.0], dtype=torch.float64)
    space = SingleParticleModel().space
    peer = PyBaMMCell(
        hassanaly2024(), "DFN", 0.0378, [0.01, *times.tolist()], space=space, tolerance=1e-9
    )
    return times, peer.fields({"negative_exchange_current": 2.0, "positive_diffusivity": 2.0})


def jet_of(values: Tensor, k: int, step: float) -> Jet:
    """Jet (1, 16) of one region's field, from rows (3, 60) a second apart."""
    own = values[:, 20 * k : 20 * (k + 1)]
    parts = [
        own[1, 2:-2],
        0.5 * (own[2, 2:-2] - own[0, 2:-2]),
        0.5 * (own[1, 3:-1] - own[1, 1:-3]) / step,
        (own[1, 3:-1] - 2.0 * own[1, 2:-2] + own[1, 1:-3]) / step**2,
    ]
    return Jet(torch.stack(parts).unsqueeze(1), ("time", "depth"), ("depth",))


def test_residuals_of_the_electrolyte_vanish_on_the_solution_of_pybamm(
    discharge: tuple[Tensor, dict[str, Tensor]],
) -> None:
    _, fields = discharge
    model, rows = p2d(), {name: value[1:] for name, value in fields.items()}
    salt = (rows["concentration"] / 1200.0).log()
    j = [
        rows[f"{side} current"] / s.density
        for side, s in zip(("negative", "positive"), model.scales.sides(), strict=True)
    ]
    found = model._salt_terms(
        _Depth(
            salt=[jet_of(salt, k, 0.05) for k in range(3)],
            electrolyte=[jet_of(rows["electrolyte"], k, 0.05) for k in range(3)],
            solid=[],
            current=[Jet(each[1, 2:-2].reshape(1, 1, -1)) for each in j],
        )
    )
    largest = {term.name: float(term.residual.abs().max()) for term in found}
    assert all(value < 0.05 for value in largest.values()), largest
    for each in j:  # and the mean over each electrode is that of the single particle
        assert float((each.mean(1) - 1.0).abs().max()) < 1e-3


def test_kinetics_are_those_of_pybamm(discharge: tuple[Tensor, dict[str, Tensor]]) -> None:
    _, fields = discharge
    model, cell = p2d(), hassanaly2024()
    salt, x = fields["concentration"][2, :20], fields["negative stoichiometry"][2]
    surface = 1.5 * x[-1] - 0.5 * x[-2]
    eta = -fields["electrolyte"][2, :20] - cell.negative.potential(surface)
    exchange = 2.0 * cell.negative.exchange_current(surface) * (salt / 1200.0).sqrt()
    carried = exchange * current_ratio(eta, model.scales.thermal, "butler-volmer")
    # the surface is extrapolated from the two outermost of 20 shells, hence the room
    assert torch.allclose(carried, fields["negative current"][2], atol=0.12, rtol=0.0)


def test_a_p2d_network_trains_saves_and_refuses() -> None:
    model = p2d(regularisers=(ChargeBalance(),), parent=network())
    training = Training(
        adam_steps=3, lbfgs_steps=2, points={"interior": 8, "ends": 4, "integrals": 4}, batches=2
    )
    history = model.fit(training)
    assert bool(torch.isfinite(history.losses).all())
    one = torch.tensor([100.0], dtype=torch.float64)
    half = torch.tensor([0.5], dtype=torch.float64)
    found = model.predict(one, half, THETA[:1], "positive", half)
    assert set(found) == {"salt", "electrolyte", "solid", "current", "stoichiometry"}
    with pytest.raises(UserError, match="region is one of"):
        model.predict(one, half, THETA[:1], "cathode")
    with pytest.raises(UserError, match="relative depth lies"):
        model.predict(one, half + 1.0, THETA[:1], "separator")
    with pytest.raises(UserError, match="has no electrolyte"):
        P2DPINN(replace(hassanaly2024(), electrolyte=None))
