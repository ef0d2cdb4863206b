"""The reproductions of networks for battery cells run, and measure what they say."""

from __future__ import annotations

import math

import pytest
import torch

from understudy.core.systems import find
from understudy.reproduce import Scale, pinn_battery_p2d, pinn_battery_spm
from understudy.reproduce.battery import curves as measuring
from understudy.reproduce.battery.curves import CORNERS, GridPosterior, blend, box_grid, modes
from understudy.reproduce.battery.discharges import corner_data, further_runs
from understudy.search.measurement import Checks
from understudy.simulate.battery import SingleParticleModel

SPM = SingleParticleModel(times=(50.0, 400.0, 1000.0), kinetics="linear")


@pytest.fixture(scope="module")
def curves() -> torch.Tensor:
    return SPM.evaluate(torch.tensor(CORNERS, dtype=torch.float64))


@pytest.mark.parametrize("slug", ["pinn-battery-spm", "pinn-battery-p2d"])
def test_the_systems_are_implemented(slug: str) -> None:
    assert find(slug).implemented


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "claims"), [(pinn_battery_spm, 15), (pinn_battery_p2d, 15)], ids=["spm", "p2d"]
)
def test_every_claim_is_measured_at_smoke_scale(module: object, claims: int) -> None:
    pytest.importorskip("pybamm")
    found = module.run(Scale.SMOKE, seed=3)  # type: ignore[attr-defined]
    assert len({claim.statement + claim.metric for claim in found}) == len(found) == claims
    assert all(math.isfinite(claim.measured) for claim in found)
    assert found[0].seeds == (3, 4)


def test_interpolations_go_through_the_corners(curves: torch.Tensor) -> None:
    corners = torch.tensor(CORNERS, dtype=torch.float64)
    for rival in (blend(curves), modes(curves)):
        assert torch.allclose(rival(corners)[0], curves, atol=1e-12)


def test_modes_of_the_right_features_are_nearer_than_a_bilinear_blend(
    curves: torch.Tensor,
) -> None:
    theta = torch.tensor([[2.0, 2.0], [1.0, 4.0]], dtype=torch.float64)
    exact = SPM.evaluate(theta)
    near, far = ((r(theta)[0] - exact).abs().mean() for r in (modes(curves), blend(curves)))
    assert near < 0.5 * far


def test_a_grid_posterior_of_a_line_is_the_exact_one() -> None:
    # y = 1e-3 * first parameter at 9 times, noise 3 mV: sd = 3 / sqrt(9) = 1, cut to the box
    theta = box_grid(141)
    mean = 1e-3 * theta[:, :1].expand(-1, 9)
    found = GridPosterior.of(torch.full((9,), 2e-3).double(), mean, torch.zeros(1), theta)
    z = torch.linspace(0.5, 4.0, 100_001).double() - 2.0
    density = torch.exp(-0.5 * z.square())
    exact = float((density * (z + 2.0)).sum() / density.sum())
    assert float(found.mean[0]) == pytest.approx(exact, abs=5e-3)
    assert float(found.mean[1]) == pytest.approx(5.5, abs=1e-9)
    assert found.holds(torch.tensor([2.0, 5.5])) and not found.holds(torch.tensor([4.0, 5.5]))


def test_modes_of_more_discharges_are_nearer_and_errors_shrink_with_them() -> None:
    runs = further_runs(SPM, 20, seed=0)
    low, high = torch.tensor(CORNERS[0]), torch.tensor(CORNERS[3])
    assert bool(((runs.theta > low) & (runs.theta < high)).all())
    corners = torch.tensor(CORNERS, dtype=torch.float64)
    few = modes(SPM.evaluate(corners))
    many = modes(torch.cat([SPM.evaluate(corners), runs.y]), torch.cat([corners, runs.theta]))
    fresh = further_runs(SPM, 20, seed=1)
    found = measuring.errors_of({"few": few, "many": many}, fresh)
    assert float(found["many"].size.mean()) < float(found["few"].size.mean())


def test_a_known_error_moves_and_widens_a_grid_posterior() -> None:
    # y = 1e-3 (first parameter - 1) is predicted as 1e-3 times it, so the mean comes out 1 too
    # low; knowing the error in runs puts it right
    def wrong(theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = 1e-3 * theta[:, :1].expand(-1, 100)
        return mean, torch.zeros_like(mean)

    theta, run = box_grid(41), measuring.drawn(20, seed=2)
    wave = 2e-4 * torch.randn(20, 1, generator=torch.Generator().manual_seed(0)).double()
    y = 1e-3 * (run[:, :1] - 1.0).expand(-1, 100) + wave
    error = measuring.errors_of({"wrong": wrong}, Checks(run, y))["wrong"]
    data = torch.full((100,), 1.2e-3).double()
    alone, helped = (GridPosterior.of(data, *wrong(theta), theta, e) for e in (None, error))
    assert float(alone.mean[0]) == pytest.approx(1.2, abs=0.05)
    assert float(helped.mean[0]) == pytest.approx(2.2, abs=0.1)
    # 3 mV / sqrt(100) = 0.3, and 0.2 beside it
    assert float(helped.sd[0]) == pytest.approx(math.hypot(0.3, 0.2), abs=0.06)


def test_data_of_the_corners_are_those_of_the_solver() -> None:
    model = SingleParticleModel(kinetics="linear", shells=32)
    data = corner_data(model, inside=20, seed=0)
    assert data.at.shape == (100, 3) and data.inside is not None
    assert torch.equal(data.at[0, 1:], torch.tensor(CORNERS[0], dtype=torch.float64))
    voltage = model.evaluate(torch.tensor(CORNERS, dtype=torch.float64))
    assert torch.allclose(data.voltage.reshape(4, 25), voltage[:, ::4])
    assert bool(((data.inside[:, -1] > 0.0) & (data.inside[:, -1] < 1.0)).all())


def test_squares_of_discharges_hold_as_many_as_they_say() -> None:
    theta, shown = pinn_battery_p2d._squares()
    assert {side: int(mask.sum()) for side, mask in shown.items()} == {2: 4, 3: 9, 4: 16}
    assert len(theta) == 21
    corners = {tuple(row) for row in theta[shown[2] > 0].tolist()}
    assert corners == set(CORNERS)


def test_seconds_are_the_median_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 5.0, 10.0, 11.0, 20.0, 23.0])
    monkeypatch.setattr(measuring.time, "process_time", lambda: next(ticks))
    assert measuring.seconds_of(lambda: None, rounds=3) == 3.0
