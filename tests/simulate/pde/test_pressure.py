"""The pressure of flows around obstacles, and the solvers of implicit steps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from understudy.core.differences import face_differences
from understudy.core.errors import UserError
from understudy.core.linear_solver import SolveResult, conjugate_gradients
from understudy.simulate.pde.darcy import Darcy
from understudy.simulate.pde.heat import Heat
from understudy.simulate.pde.pressure import (
    Smoke,
    obstacles,
    openings,
    pressure_matrix,
)

CLOSED = [(True, True), (True, True)]
WALLS = {"left": 100.0, "right": 500.0}


@pytest.mark.parametrize("shape", [(5,), (4, 6), (3, 4, 5)])
def test_an_empty_box_has_second_differences(shape: tuple[int, ...]) -> None:
    A = pressure_matrix(np.zeros(shape, dtype=bool)).toarray()
    u = np.random.default_rng(0).standard_normal(shape)
    expected = 2.0 * len(shape) * u
    for axis in range(len(shape)):
        padded = np.moveaxis(np.pad(u, [(int(a == axis),) * 2 for a in range(len(shape))]), axis, 0)
        expected -= np.moveaxis(padded[2:] + padded[:-2], 0, axis)
    np.testing.assert_allclose((A @ u.ravel()).reshape(shape), expected, atol=1e-13)


def test_solid_cells_have_empty_rows_and_let_nothing_through() -> None:
    solid = np.zeros((5, 5), dtype=bool)
    solid[2, 1:4] = True
    A = pressure_matrix(solid).toarray()
    assert not A[solid.ravel()].any() and not A[:, solid.ravel()].any()
    above = np.ravel_multi_index((1, 2), (5, 5))
    assert A[above, above] == 3.0  # three open faces of four


def test_closed_boxes_keep_constants() -> None:
    A = pressure_matrix(obstacles((9, 8), 0.2, "boxes", 0), CLOSED)
    np.testing.assert_allclose(A @ np.ones(72), 0.0, atol=1e-14)


@pytest.mark.parametrize("kind", ["discs", "boxes", "blobs"])
@pytest.mark.parametrize("shape", [(40, 32), (14, 12, 16)])
def test_obstacles_fill_their_share(kind: str, shape: tuple[int, ...]) -> None:
    solid = obstacles(shape, 0.25, kind, 0)
    assert solid.shape == shape
    assert 0.249 <= solid.mean() < 0.32
    np.testing.assert_array_equal(solid, obstacles(shape, 0.25, kind, 0))
    assert (solid != obstacles(shape, 0.25, kind, 1)).any()


@pytest.mark.parametrize("walls", [None, CLOSED, [(True, False), (True, True)]])
def test_the_flow_has_no_divergence_and_none_through_solids(walls: object) -> None:
    solid = obstacles((20, 16), 0.15, "discs", 2)
    frames = list(Smoke(solid, walls, solver="cg").run(6, runs=3))
    last = frames[-1]
    flows = (last.u.reshape(3, -1).numpy().T, last.v.reshape(3, -1).numpy().T)
    left = sum(D.T @ f for D, f in zip(face_differences(solid.shape), flows, strict=True))
    assert np.abs(left).max() < 1e-8
    for w, f in zip(openings(solid, walls), flows, strict=True):
        assert not f[w.ravel() == 0.0].any()
    assert float(last.u.max()) > 0.05  # it rises
    A = pressure_matrix(solid, walls)
    np.testing.assert_allclose(A @ last.pressure, last.divergence, atol=1e-8)


def test_pockets_that_obstacles_enclose_are_no_trouble() -> None:
    solid = np.ones((12, 12), dtype=bool)
    solid[1:4, 1:4] = solid[6:11, 6:11] = False  # two rooms without air
    one, other = (list(Smoke(solid, solver=s).run(3))[-1] for s in ("direct", "cg"))
    torch.testing.assert_close(one.u, other.u, rtol=0, atol=1e-8)
    np.testing.assert_allclose(one.pressure, other.pressure, atol=1e-8)


def test_runs_of_smoke_do_not_know_of_each_other() -> None:
    solid = np.zeros((16, 16), dtype=bool)
    two, three = (list(Smoke(solid).run(4, runs=k))[-1].density for k in (3, 3))
    torch.testing.assert_close(two, three)
    assert not torch.equal(two[0], two[1])


def test_smoke_stays_between_none_and_its_source() -> None:
    frames = list(Smoke(obstacles((24, 24), 0.1)).run(15))
    assert all(float(f.density.min()) >= 0.0 and float(f.density.max()) <= 1.0 for f in frames)
    assert float(frames[-1].density.sum()) > float(frames[0].density.sum())


@pytest.mark.parametrize("solver", ["direct", "cg"])
@pytest.mark.parametrize("scheme", ["implicit_euler", "crank_nicolson"])
def test_heat_is_the_same_by_every_solver(solver: str, scheme: str) -> None:
    runs = pd.DataFrame({"initial": [150.0, 400.0], "left": 100.0, "right": [500.0, 300.0]})
    by_sines = Heat(20, 1, 5, scheme=scheme).fields(runs)
    torch.testing.assert_close(Heat(20, 1, 5, scheme=scheme, solver=solver).fields(runs), by_sines)
    plate = runs.assign(bottom=200.0, top=[100.0, 450.0])
    by_sines = Heat(9, 2, 5, scheme=scheme).fields(plate)
    torch.testing.assert_close(Heat(9, 2, 5, scheme=scheme, solver=solver).fields(plate), by_sines)


@pytest.mark.parametrize("solver", ["direct", "cg"])
@pytest.mark.parametrize("medium", ["smooth", "multiscale"])
def test_darcy_is_the_same_by_every_solver(solver: str, medium: str) -> None:
    runs = pd.DataFrame({"seed": [0, 1, 2]})
    torch.testing.assert_close(
        Darcy(12, medium, solver=solver).fields(runs), Darcy(12, medium).fields(runs)
    )


class Lazy:
    """Gives up on the second right-hand side."""

    def solve(self, A: object, b: np.ndarray, x0: object = None) -> SolveResult:
        found = conjugate_gradients(A, b, tol=1e-10)
        done = np.arange(b.shape[1]) != 1
        return SolveResult(found.x, found.residuals, found.iterations, done)


def test_a_run_that_does_not_converge_is_lost_alone() -> None:
    fields = Darcy(8, solver=Lazy()).fields(pd.DataFrame({"seed": [0, 1, 2]}))
    assert fields.isnan().flatten(1).any(1).tolist() == [False, True, False]
    runs = pd.DataFrame({"initial": [150.0, 400.0, 200.0], **WALLS})
    fields = Heat(8, 1, 3, solver=Lazy()).fields(runs)
    assert fields[:, 1:].isnan().flatten(1).all(1).tolist() == [False, True, False]


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UserError, match="solid must be booleans"):
        pressure_matrix(np.zeros((4, 4)))
    with pytest.raises(UserError, match="every cell is solid"):
        pressure_matrix(np.ones((4, 4), dtype=bool))
    with pytest.raises(UserError, match="walls must name 2 pairs"):
        pressure_matrix(np.zeros((4, 4), dtype=bool), [(True, True)])
    with pytest.raises(UserError, match="share must be between 0 and"):
        obstacles((8, 8), 1.0)
    with pytest.raises(UserError, match="kind must be discs, boxes or blobs"):
        obstacles((8, 8), 0.1, "stars")
    with pytest.raises(UserError, match="smoke is in two dimensions"):
        Smoke(np.zeros((4, 4, 4), dtype=bool))
    with pytest.raises(UserError, match="time_step must be positive"):
        Smoke(np.zeros((4, 4), dtype=bool), time_step=0.0)
    with pytest.raises(UserError, match="solver must be 'direct', 'cg' or an object"):
        Heat(8, solver="multigrid")
    with pytest.raises(UserError, match="'exact' is solved by sines only"):
        Heat(8, scheme="exact", solver="cg")
