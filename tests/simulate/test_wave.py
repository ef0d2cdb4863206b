"""Waves by finite elements: closed forms, orders, energy, limits, and the simulator of them."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from understudy.core.errors import UserError
from understudy.simulate.pde.driven_wave import DrivenWave
from understudy.simulate.pde.named import draw_parameters
from understudy.simulate.pde.wave import Wave
from understudy.simulate.wave import WaveFEM2D

pytest.importorskip("skfem")
SPEED = 1.3
SHAPES = {"zero": np.sin, "free": np.cos}


def standing(solver: WaveFEM2D) -> np.ndarray:
    """Lowest mode of the square; it swings with frequency sqrt(2) pi c."""
    x, y = solver.nodes.T
    shape = SHAPES[solver.boundary]
    return shape(math.pi * x) * shape(math.pi * y)


def deviation(cells: int, scheme: str, boundary: str) -> float:
    """From the closed form at time 0.4, with a step in proportion to the mesh."""
    solver = WaveFEM2D(cells, SPEED, boundary)
    mode = standing(solver)
    steps = 2 * cells
    u, _ = solver.solve(mode, dt=0.4 / steps, steps=steps, every=steps, scheme=scheme)
    return float(np.abs(u[-1] - mode * math.cos(math.sqrt(2.0) * math.pi * SPEED * 0.4)).max())


@pytest.mark.parametrize("boundary", ["zero", "free"])
@pytest.mark.parametrize("scheme", ["newmark", "central"])
def test_a_standing_wave_is_approached_with_second_order(scheme: str, boundary: str) -> None:
    errors = [deviation(cells, scheme, boundary) for cells in (8, 16, 32)]
    assert errors[-1] < 0.005
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine > 3.3


def test_time_steps_converge_with_second_order_on_a_fixed_mesh() -> None:
    solver = WaveFEM2D(8)
    mode = standing(solver)
    finest = solver.solve(mode, dt=0.5 / 2048, steps=2048, every=2048)[0][-1]
    errors = [
        np.abs(solver.solve(mode, dt=0.5 / n, steps=n, every=n)[0][-1] - finest).max()
        for n in (8, 16, 32)
    ]
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4.0, rel=0.05)


def pulse(solver: WaveFEM2D) -> np.ndarray:
    return np.exp(-((solver.nodes - 0.4) ** 2).sum(axis=1) / (2 * 0.08**2))


def test_newmark_conserves_energy_at_any_step() -> None:
    draw = np.random.default_rng(0)
    solver = WaveFEM2D(16, draw.uniform(0.7, 1.3, 17**2), "free")
    u, v = solver.solve(pulse(solver), dt=20.0 * solver.largest_step, steps=50)
    energy = solver.energy(u, v)
    np.testing.assert_allclose(energy, energy[0], rtol=1e-10)


def test_central_differences_keep_energy_within_bounds_up_to_their_limit() -> None:
    solver = WaveFEM2D(16)
    u, v = solver.solve(pulse(solver), dt=0.5 * solver.largest_step, steps=400, scheme="central")
    energy = solver.energy(u, v, "central")
    assert np.abs(energy / energy[0] - 1.0).max() < 0.1


def test_a_step_above_the_limit_is_refused_and_would_blow_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    solver = WaveFEM2D(16)
    limit = solver.largest_step
    assert limit == pytest.approx(1 / 16 / math.sqrt(2.0), rel=0.02)
    with pytest.raises(UserError, match=r"is unstable with central differences, which bear 0\.04"):
        solver.solve(pulse(solver), dt=1.02 * limit, steps=1, scheme="central")
    u, _ = solver.solve(pulse(solver), dt=0.99 * limit, steps=300, scheme="central")
    assert np.abs(u[-1]).max() < 2.0
    monkeypatch.setitem(solver.__dict__, "largest_step", math.inf)
    u, _ = solver.solve(pulse(solver), dt=1.02 * limit, steps=300, scheme="central")
    assert np.abs(u[-1]).max() > 1e3


def test_both_schemes_approach_one_solution_in_a_medium_that_varies() -> None:
    gaps = []
    for cells in (24, 48):
        speed = 1.0 + 0.2 * np.sin(5.0 * np.linspace(0.0, 1.0, cells + 1))
        solver = WaveFEM2D(cells, np.repeat(speed, cells + 1))
        times = {"dt": 0.2 / cells, "steps": cells, "every": cells}
        one, other = (solver.solve(pulse(solver), **times, scheme=s)[0][-1] for s in _SCHEMES)
        gaps.append(np.linalg.norm(one - other) / np.linalg.norm(one))
    assert gaps[1] < 0.06
    assert gaps[0] / gaps[1] > 3.0


_SCHEMES = ("newmark", "central")


@pytest.mark.parametrize("scheme", _SCHEMES)
def test_media_and_runs_of_a_batch_do_not_know_of_each_other(scheme: str) -> None:
    draw = np.random.default_rng(2)
    speeds = draw.uniform(0.7, 1.3, (3, 11**2))
    starts = draw.normal(size=(3, 2, 11**2))
    together = WaveFEM2D(10, speeds).solve(starts, dt=0.01, steps=7, scheme=scheme)
    for i, speed in enumerate(speeds):
        alone = WaveFEM2D(10, speed).solve(starts[i], dt=0.01, steps=7, scheme=scheme)
        for part, whole in zip(alone, together, strict=True):
            np.testing.assert_allclose(whole[:, i, :, :], part, atol=1e-12)


@pytest.mark.parametrize("scheme", _SCHEMES)
def test_fields_kept_now_and_then_are_those_of_every_step(scheme: str) -> None:
    solver = WaveFEM2D(10)

    def load(t: float) -> np.ndarray:
        return math.sin(5.0 * t) * standing(solver)

    run = {"dt": 0.02, "steps": 12, "scheme": scheme, "load": load}
    each = solver.solve(pulse(solver), **run)
    some = solver.solve(pulse(solver), every=3, **run)
    for part, whole in zip(some, each, strict=True):
        np.testing.assert_allclose(part, whole[::3], atol=1e-12)


@pytest.mark.parametrize("scheme", _SCHEMES)
def test_a_steady_load_bends_the_membrane_to_poissons_equation(scheme: str) -> None:
    """From rest u swings about f / (2 pi^2), which f = sin sin bends it to, with sqrt(2) pi."""
    solver = WaveFEM2D(32)
    f = standing(solver)
    u, _ = solver.solve(0 * f, dt=0.005, steps=100, every=100, scheme=scheme, load=lambda t: f)
    expected = (1.0 - math.cos(math.sqrt(2.0) * math.pi * 0.5)) * f / (2.0 * math.pi**2)
    np.testing.assert_allclose(u[-1], expected, atol=5e-3 * expected.max())


def test_a_mesh_of_ones_own_is_taken() -> None:
    import skfem

    solver = WaveFEM2D(skfem.MeshTri.init_circle(3), boundary="free")
    ones = np.ones(len(solver.nodes))
    u, _ = solver.solve(ones, dt=0.1, steps=5)
    np.testing.assert_allclose(u, 1.0)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: WaveFEM2D(8, boundary="open"), "boundary must be 'zero' or 'free'"),
        (lambda: WaveFEM2D(1), "at least 2 squares a side"),
        (lambda: WaveFEM2D(4, np.ones(3)), r"speed has shape \(3,\), the mesh has 25 nodes"),
        (lambda: WaveFEM2D(4, -1.0), "speed must be positive"),
        (lambda: WaveFEM2D(4).solve(np.ones(3), dt=1, steps=1), r"shape \(..., 25\), found \(3,\)"),
        (lambda: WaveFEM2D(4).solve(np.ones(25), dt=0, steps=1), "dt must be positive"),
        (lambda: WaveFEM2D(4).solve(np.ones(25), dt=1, steps=1, scheme="x"), "scheme must be"),
        (lambda: Wave(medium="rocky"), "medium must be"),
        (lambda: Wave(substeps=0), "substeps and refinement must be at least 1"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(build, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build()


def test_without_scikit_fem_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skfem", None)
    with pytest.raises(UserError, match=r"understudy\[fields\]"):
        WaveFEM2D(4)


# -- the simulator ----------------------------------------------------------------------------

SMALL = {"points": 15, "steps": 3, "duration": 0.3, "substeps": 4}


@pytest.mark.parametrize("medium", ["uniform", "random"])
def test_each_run_is_what_it_is_alone(medium: str) -> None:
    simulator = Wave(**SMALL, medium=medium)
    table = draw_parameters(simulator, 3, seed=1)
    together = simulator.fields(table)
    assert together.shape == (3, 4, len(simulator.channels), 15, 15)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], simulator.fields(table.iloc[[i]]))
    torch.testing.assert_close(simulator.initial(table).float(), together[:, 0])


def test_a_random_medium_is_a_channel_that_stays() -> None:
    simulator = Wave(**SMALL, medium="random")
    table = draw_parameters(simulator, 4, seed=2)
    fields = simulator.fields(table)
    torch.testing.assert_close(fields[:, 0, 2], simulator.inputs(table)["speed"].float())
    assert torch.equal(fields[:, 0, 2], fields[:, -1, 2])
    assert 0.7 <= float(fields[:, 0, 2].min()) < 0.9 < 1.1 < float(fields[:, 0, 2].max()) <= 1.3


def test_runs_of_one_speed_are_those_of_several() -> None:
    """Runs in the same medium share a factored matrix, others are blocks of one."""
    simulator = Wave(**SMALL)
    same = draw_parameters(simulator, 2, seed=3, ranges={"speed": (1.1, 1.1)})
    other = same.iloc[[0]].assign(speed=0.8)
    torch.testing.assert_close(
        simulator.fields(same)[0], simulator.fields(pd.concat([same, other]))[0]
    )


@pytest.mark.parametrize("medium", ["uniform", "random"])
def test_a_run_goes_on_from_a_field_of_another(medium: str) -> None:
    simulator = Wave(**SMALL, medium=medium)
    table = draw_parameters(simulator, 2, seed=4)
    fields = simulator.fields(table)
    on = simulator.fields(table, start=fields[:, 1])
    torch.testing.assert_close(on[:, 2], fields[:, 3], rtol=1e-3, atol=2e-3)


def test_a_faster_medium_is_a_faster_clock() -> None:
    slow = Wave(points=31, steps=2, duration=0.4, substeps=32)
    fast = Wave(points=31, steps=2, duration=0.2, substeps=32)
    run = {"x": 0.4, "y": 0.6, "width": 0.08}
    u, w = slow.fields({**run, "speed": 0.6}), fast.fields({**run, "speed": 1.2})
    torch.testing.assert_close(u[:, :, 0], w[:, :, 0], rtol=1e-4, atol=1e-5)


def test_a_finer_mesh_is_sampled_at_the_same_points() -> None:
    coarse, fine = (Wave(points=31, steps=1, duration=0.2, refinement=r) for r in (1, 2))
    run = {"x": 0.5, "y": 0.5, "width": 0.08, "speed": 1.0}
    torch.testing.assert_close(coarse.initial(run), fine.initial(run))
    gap = (coarse.fields(run) - fine.fields(run))[:, 1, 0].norm()
    assert 0 < float(gap / fine.fields(run)[:, 1, 0].norm()) < 0.1


def test_a_pulse_of_no_width_is_refused() -> None:
    with pytest.raises(UserError, match="'width' of run 1 must be positive"):
        Wave().fields({"x": 0.5, "y": 0.5, "width": 0.0, "speed": 1.0})


# -- a membrane that is driven ------------------------------------------------------------------

DRIVEN = {"points": 31, "steps": 2, "duration": 0.25, "substeps": 40, "width": 0.1}


def test_a_driven_membrane_follows_its_modes() -> None:
    """Of the load f(x) sin(W t) mode k swings as f_k (w sin W t - W sin w t) / (w (w^2 - W^2))."""
    run = {"x": 0.45, "y": 0.6, "frequency": 1.5}
    found = DrivenWave(**DRIVEN).fields(run)[0, :, 0].double().numpy()
    s = np.linspace(0.0, 1.0, 33)[1:-1]
    k = np.arange(1, 32)
    sines = np.sin(math.pi * k[:, None] * s)  # (modes, points)
    width = DRIVEN["width"]
    along = [
        np.exp(-((s - centre) ** 2) / (2 * width**2)) / (math.sqrt(2 * math.pi) * width)
        for centre in (run["x"], run["y"])
    ]
    f = np.multiply.outer(*(2.0 / 32 * sines @ part for part in along))
    w = math.pi * np.sqrt(k[:, None] ** 2 + k**2)
    W = 2 * math.pi * run["frequency"]
    for t, field in zip((0.125, 0.25), found[1:], strict=True):
        swing = f * (w * np.sin(W * t) - W * np.sin(w * t)) / (w * (w**2 - W**2))
        expected = sines.T @ swing @ sines
        assert np.linalg.norm(field - expected) < 0.02 * np.linalg.norm(expected)


def test_a_driven_membrane_starts_at_rest_and_only_there() -> None:
    simulator = DrivenWave(**DRIVEN)
    run = {"x": 0.5, "y": 0.5, "frequency": 1.0}
    assert not simulator.fields(run)[:, 0].any()
    with pytest.raises(UserError, match="cannot be gone on from"):
        simulator.fields(run, start=torch.ones(1, 2, 31, 31))
    with pytest.raises(UserError, match="width must be positive"):
        DrivenWave(width=0.0)
    with pytest.raises(UserError, match="'frequency' of run 1 must be positive"):
        simulator.fields(run | {"frequency": 0.0})
