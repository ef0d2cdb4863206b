"""Elastic waves by finite elements: closed forms, orders, both speeds, energy, limits."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from understudy.core.errors import UserError
from understudy.simulate.elastic import ElasticFEM2D
from understudy.simulate.pde.elastic_wave import ElasticWave
from understudy.simulate.pde.named import draw_parameters

pytest.importorskip("skfem")
PRESSURE, SHEAR = 1.9, 1.1
PI = math.pi
_SCHEMES = ("newmark", "central")


def solid(cells: int, boundary: str, pressure: float = PRESSURE) -> ElasticFEM2D:
    return ElasticFEM2D(cells, pressure, SHEAR, density=2.0, boundary=boundary)


def pressure_mode(solver: ElasticFEM2D) -> np.ndarray:
    """Gradient of cos(pi x) cos(pi y), which slides along all rims."""
    x, y = PI * solver.nodes.T
    return np.stack([np.sin(x) * np.cos(y), np.cos(x) * np.sin(y)])


def shear_mode(solver: ElasticFEM2D) -> np.ndarray:
    """Rotation of sin(pi x) sin(pi y), which slides along all rims."""
    x, y = PI * solver.nodes.T
    return np.stack([np.sin(x) * np.cos(y), -np.cos(x) * np.sin(y)])


def lame_mode(solver: ElasticFEM2D) -> np.ndarray:
    """Lame's mode of a square: no divergence, and no traction on any rim."""
    x, y = PI * solver.nodes.T
    return np.stack([np.cos(x) * np.sin(y), -np.sin(x) * np.cos(y)])


MODES = {
    "pressure": (pressure_mode, "sliding", PRESSURE),
    "shear": (shear_mode, "sliding", SHEAR),
    "lame": (lame_mode, "free", SHEAR),
}


def deviation(cells: int, kind: str, scheme: str) -> float:
    """From the mode that swings with frequency sqrt(2) pi c, at time 0.3."""
    shape, boundary, speed = MODES[kind]
    solver = solid(cells, boundary)
    mode = shape(solver)
    steps = 2 * cells
    u, _ = solver.solve(mode, dt=0.3 / steps, steps=steps, every=steps, scheme=scheme)
    return float(np.abs(u[-1] - mode * math.cos(math.sqrt(2.0) * PI * speed * 0.3)).max())


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("scheme", _SCHEMES)
def test_standing_waves_are_approached_with_second_order(scheme: str, kind: str) -> None:
    coarse, fine, finest = (deviation(cells, kind, scheme) for cells in (8, 16, 32))
    assert finest < 0.015
    assert coarse / fine > 3.2
    assert fine / finest > 3.6


@pytest.mark.parametrize("scheme", _SCHEMES)
def test_a_held_rim_is_approached_with_second_order(scheme: str) -> None:
    r"""Of u = cos(w t) (s, s), s = sin sin, with the force that it takes.

    With a = pi^2: div sigma = -a ((3 mu + lam) s - (mu + lam) cos cos) in both components.
    """
    w = 3.0
    errors = []
    for cells in (8, 16, 32):
        solver = solid(cells, "zero")
        x, y = PI * solver.nodes.T
        s, c = np.sin(x) * np.sin(y), np.cos(x) * np.cos(y)
        mu, stiff = SHEAR**2, PRESSURE**2
        push = PI**2 * ((stiff + mu) * s - (stiff - mu) * c) - w**2 * s
        force = np.stack([push, push])
        steps = 2 * cells
        u, _ = solver.solve(
            np.stack([s, s]),
            dt=0.4 / steps,
            steps=steps,
            every=steps,
            scheme=scheme,
            load=lambda t, force=force: math.cos(w * t) * force,
        )
        errors.append(float(np.sqrt(np.mean((u[-1] - math.cos(w * 0.4) * s) ** 2))))
    assert errors[-1] < 0.01
    assert errors[0] / errors[1] > 3.2
    assert errors[1] / errors[2] > 3.6


def bump(solver: ElasticFEM2D, width: float = 0.08) -> np.ndarray:
    """Gradient of a Gaussian in the middle."""
    r = solver.nodes - 0.5
    g = np.exp(-(r**2).sum(axis=1) / (2 * width**2))
    return -(r * g[:, None]).T


def turned(u: np.ndarray) -> np.ndarray:
    return np.stack([-u[1], u[0]])


def front(solver: ElasticFEM2D, u: np.ndarray) -> float:
    """Mean distance from the middle of the squared displacement."""
    weight = (u**2).sum(axis=0)
    return float((np.linalg.norm(solver.nodes - 0.5, axis=1) * weight).sum() / weight.sum())


@pytest.mark.parametrize(("start", "speed"), [("gradient", PRESSURE), ("rotation", SHEAR)])
def test_both_kinds_of_waves_run_at_their_speeds(start: str, speed: float) -> None:
    solver = solid(64, "free")
    first = bump(solver, 0.06) if start == "gradient" else turned(bump(solver, 0.06))
    dt = 0.3 / speed / 60
    u, _ = solver.solve(first, dt=dt, steps=60, every=20)
    went = front(solver, u[3]) - front(solver, u[2])
    assert went / (20 * dt) == pytest.approx(speed, rel=0.03)


def test_a_shear_wave_is_a_pressure_wave_turned_on_a_slower_clock() -> None:
    """Both are scalar waves of a potential, until they meet the rim."""
    solver = solid(48, "free")
    run = {"steps": 40, "every": 40}
    fast, _ = solver.solve(bump(solver), dt=0.12 / PRESSURE / 40, **run)
    slow, _ = solver.solve(turned(bump(solver)), dt=0.12 / SHEAR / 40, **run)
    gap = np.linalg.norm(turned(fast[-1]) - slow[-1]) / np.linalg.norm(slow[-1])
    assert gap < 0.05


@pytest.mark.parametrize("boundary", ["zero", "free", "sliding"])
def test_newmark_conserves_energy_at_any_step(boundary: str) -> None:
    draw = np.random.default_rng(0)
    c = draw.uniform(0.7, 1.3, 17**2)
    solver = ElasticFEM2D(16, 1.7 * c, c, draw.uniform(1.0, 3.0, 17**2), boundary)
    u, v = solver.solve(bump(solver), dt=20.0 * solver.largest_step, steps=50)
    energy = solver.energy(u, v)
    np.testing.assert_allclose(energy, energy[0], rtol=1e-10)


def test_central_differences_keep_energy_within_bounds() -> None:
    solver = solid(16, "free")
    u, v = solver.solve(bump(solver), dt=0.5 * solver.largest_step, steps=400, scheme="central")
    energy = solver.energy(u, v, "central")
    assert np.abs(energy / energy[0] - 1.0).max() < 0.1
    assert abs(energy[-100:].mean() / energy[:100].mean() - 1.0) < 0.01


def test_a_step_above_the_limit_is_refused_with_the_limit_and_would_blow_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    solver = solid(12, "zero")
    limit = solver.largest_step
    with pytest.raises(UserError, match=rf"which bear {limit:.3g} on this mesh"):
        solver.solve(bump(solver), dt=1.02 * limit, steps=1, scheme="central")
    u, _ = solver.solve(bump(solver), dt=0.99 * limit, steps=300, scheme="central")
    assert np.abs(u[-1]).max() < 1.0
    monkeypatch.setitem(solver.__dict__, "largest_step", math.inf)
    u, _ = solver.solve(bump(solver), dt=1.02 * limit, steps=400, scheme="central")
    assert np.abs(u[-1]).max() > 1e3


def test_rigid_motions_of_a_free_solid_go_on_for_ever() -> None:
    solver = solid(6, "free")
    ones = np.ones(49)
    still = np.stack([0 * ones, 0 * ones])
    u, v = solver.solve(still, np.stack([ones, -2 * ones]), dt=0.1, steps=10)
    np.testing.assert_allclose(v, np.broadcast_to(v[0], v.shape), atol=1e-10)
    np.testing.assert_allclose(u[-1], v[0], atol=1e-10)


def test_lames_parameters_are_speeds_and_a_density_only_scales_forces() -> None:
    rho = 2.5
    mu = rho * SHEAR**2
    named = ElasticFEM2D.of_lame(6, rho * PRESSURE**2 - 2 * mu, mu, rho)
    by_speed = ElasticFEM2D(6, PRESSURE, SHEAR, rho)
    np.testing.assert_allclose(named.stiffness.toarray(), by_speed.stiffness.toarray())
    light = ElasticFEM2D(6, PRESSURE, SHEAR)
    run = {"dt": 0.02, "steps": 10}
    np.testing.assert_allclose(
        by_speed.solve(bump(light), **run)[0], light.solve(bump(light), **run)[0], atol=1e-12
    )


@pytest.mark.parametrize("scheme", _SCHEMES)
def test_solids_and_runs_of_a_batch_do_not_know_of_each_other(scheme: str) -> None:
    draw = np.random.default_rng(2)
    c = draw.uniform(0.7, 1.3, (3, 49))
    starts = draw.normal(size=(3, 4, 2, 49))
    run = {"dt": 0.01, "steps": 7, "scheme": scheme}
    together = ElasticFEM2D(6, 2 * c, c, boundary="sliding").solve(starts, **run)
    for i in range(3):
        alone = ElasticFEM2D(6, 2 * c[i], c[i], boundary="sliding").solve(starts[i], **run)
        for part, whole in zip(alone, together, strict=True):
            np.testing.assert_allclose(whole[:, i], part, atol=1e-12)


def test_the_energy_of_a_homogeneous_strain_is_its_closed_form() -> None:
    """Of u = (a x, b y) it is (lam (a + b)^2 + 2 mu (a^2 + b^2)) / 2 on the unit square."""
    lam, mu, a, b = 1.4, 0.6, 0.3, -0.2
    solver = ElasticFEM2D.of_lame(5, lam, mu)
    u = np.stack([a * solver.nodes[:, 0], b * solver.nodes[:, 1]])
    expected = (lam * (a + b) ** 2 + 2 * mu * (a**2 + b**2)) / 2
    assert float(solver.energy(u, 0 * u)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: ElasticFEM2D(8, 2, 1, boundary="open"), "boundary must be one of zero, free"),
        (lambda: ElasticFEM2D(4, 1.1, 1.0), r"more than sqrt\(4/3\) times shear_speed"),
        (lambda: ElasticFEM2D(4, 2.0, np.ones(3)), r"shear_speed has shape \(3,\)"),
        (lambda: ElasticFEM2D(4, 2.0, 1.0, -1.0), "density must be positive"),
        (lambda: ElasticFEM2D(4, 2 * np.ones((2, 25)), np.ones((3, 25))), "as many everywhere"),
        (lambda: ElasticFEM2D.of_lame(4, 1.0, 0.0), "lame_mu and 3 lame_lambda"),
        (lambda: solid(4, "free").solve(np.ones(50), dt=1, steps=1), r"\(..., 2, 25\), found"),
        (lambda: ElasticWave(medium="rocky"), "medium must be"),
        (lambda: ElasticWave(boundary="open"), "boundary must be one of"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(build, words: str) -> None:
    with pytest.raises(UserError, match=words):
        build()


def test_oblique_rims_do_not_slide() -> None:
    import skfem

    circle = skfem.MeshTri.init_circle(2)
    ElasticFEM2D(circle, 2.0, 1.0, boundary="free")
    with pytest.raises(UserError, match="rims that are oblique"):
        ElasticFEM2D(circle, 2.0, 1.0, boundary="sliding")


# -- the simulator ----------------------------------------------------------------------------

SMALL = {"points": 11, "steps": 3, "duration": 0.15, "substeps": 4}


def test_a_push_starts_along_its_angle_and_is_at_rest() -> None:
    run = {"x": 0.5, "y": 0.5, "width": 0.1, "angle": PI / 6}
    run |= {"pressure_speed": 1.8, "shear_speed": 1.0}
    first = ElasticWave(**SMALL).initial(run)[0]
    middle = first[:, 5, 5]
    assert middle[:2].tolist() == pytest.approx([math.cos(PI / 6), 0.5])
    assert not first[2:].any()


def test_a_push_along_the_other_axis_is_the_mirrored_run() -> None:
    """The mesh is its own mirror image in the diagonal."""
    run = {"x": 0.4, "y": 0.6, "width": 0.1, "pressure_speed": 1.8, "shear_speed": 1.0}
    simulator = ElasticWave(**SMALL)
    one = simulator.fields({**run, "angle": 0.0})
    other = simulator.fields({**run, "x": 0.6, "y": 0.4, "angle": PI / 2})
    torch.testing.assert_close(one[:, :, 0], other[:, :, 1].mT, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("medium", ["uniform", "random"])
def test_a_run_goes_on_from_a_field_of_another(medium: str) -> None:
    simulator = ElasticWave(**SMALL, medium=medium)
    table = draw_parameters(simulator, 2, seed=4)
    fields = simulator.fields(table)
    on = simulator.fields(table, start=fields[:, 1])
    torch.testing.assert_close(on[:, 2], fields[:, 3], rtol=1e-3, atol=2e-3)
    with pytest.raises(UserError, match="gone on from"):
        ElasticWave(**SMALL, medium=medium, boundary="free").fields(table, start=fields[:, 1])


def test_a_random_solid_is_a_channel_that_stays_and_has_one_ratio_of_speeds() -> None:
    simulator = ElasticWave(**SMALL, medium="random")
    table = draw_parameters(simulator, 2, seed=5)
    fields = simulator.fields(table)
    assert simulator.channels[-1] == "shear_speed"
    assert torch.equal(fields[:, 0, 4], fields[:, -1, 4])
    given = simulator.inputs(table)
    torch.testing.assert_close(given["pressure_speed"], math.sqrt(3.0) * given["shear_speed"])


def test_rims_make_a_difference_once_waves_have_met_them() -> None:
    run = {"x": 0.5, "y": 0.5, "width": 0.08, "angle": 0.3}
    run |= {"pressure_speed": 1.8, "shear_speed": 1.0}
    sizes = {"points": 15, "steps": 4, "duration": 0.6, "substeps": 4}
    paths = [ElasticWave(**sizes, boundary=b).fields(run) for b in ("zero", "free", "sliding")]
    for one, other in itertools.combinations(paths, 2):
        assert (one[:, 1] - other[:, 1]).norm() < 0.15 * one[:, 1].norm()
        assert (one[:, 4] - other[:, 4]).norm() > 0.3 * one[:, 4].norm()
