"""The deep conjugate direction method: exact facts, bad input, files, training."""

from __future__ import annotations

import itertools
import time
import timeit
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import LinearOperator, aslinearoperator, splu
from torch import Tensor

import understudy
from understudy.core import artifact
from understudy.core.differences import poisson_matrix
from understudy.core.errors import UserError
from understudy.core.linalg import one_thread
from understudy.core.linear_solver import SPDOperator, conjugate_gradients
from understudy.models.inverse.dcdm import (
    DEFAULT_TRAINING,
    DeepConjugateDirection,
    direction_loss,
    learn_solver,
    train_direction_network,
)
from understudy.models.inverse.direction_network import DirectionNetwork, parameter_count
from understudy.models.inverse.krylov import flexible_cg
from understudy.models.inverse.pretrained import pretrained
from understudy.models.inverse.ritz import RitzVectors
from understudy.simulate.pde.darcy import Darcy
from understudy.simulate.pde.heat import Heat
from understudy.simulate.pde.pressure import Smoke, obstacles, pressure_matrix

BRIEF = replace(DEFAULT_TRAINING, steps=30, validate_every=10)


def same(r: Tensor) -> Tensor:
    return r


def right_hand_sides(n: int, k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, k))


# -- exact facts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [1, 2])
def test_the_identity_network_gives_conjugate_gradients(q: int) -> None:
    A, b = poisson_matrix((10, 12)), right_hand_sides(120, 3)
    mine, reference = [], []
    solver = DeepConjugateDirection(same, q, (10, 12))
    solver.solve(A, b, tol=1e-10, maxiter=200, callback=mine.append)
    conjugate_gradients(A, b, tol=1e-10, callback=reference.append)
    assert len(mine) == len(reference)
    np.testing.assert_allclose(mine, reference, rtol=1e-8, atol=1e-10)


def test_the_exact_inverse_converges_in_one_step() -> None:
    A, b = poisson_matrix((8, 8)), right_hand_sides(64, 4)
    factors = splu(sp.csc_array(A))

    def inverse(r: Tensor) -> Tensor:
        return torch.from_numpy(factors.solve(r.reshape(len(r), -1).numpy().T).T.copy()).view_as(r)

    result = DeepConjugateDirection(inverse).solve(A, b, tol=1e-10)
    assert result.iterations.tolist() == [1, 1, 1, 1] and result.converged.all()


def test_the_error_in_the_norm_of_a_never_grows_with_an_untrained_network() -> None:
    torch.manual_seed(0)
    A, b = poisson_matrix((8, 8)), right_hand_sides(64, 2)
    exact, errors = np.linalg.solve(A.toarray(), b), []

    def watch(x: np.ndarray) -> None:
        errors.append(np.einsum("nk,nk->k", x - exact, A @ (x - exact)))

    DeepConjugateDirection(DirectionNetwork()).solve(A, b, maxiter=25, callback=watch)
    assert len(errors) == 25
    assert all(
        (after <= before * (1 + 1e-12)).all() for before, after in itertools.pairwise(errors)
    )


def test_the_length_of_the_right_hand_side_does_not_matter() -> None:
    torch.manual_seed(0)
    A, b, solver = (
        poisson_matrix((8, 8)),
        right_hand_sides(64, 1),
        DeepConjugateDirection(DirectionNetwork()),
    )
    small, large = (solver.solve(A, scale * b, maxiter=5).x / scale for scale in (1e-6, 1e6))
    np.testing.assert_allclose(small, large, rtol=1e-4, atol=1e-6)


def test_all_kinds_of_operators_give_the_same() -> None:
    A, b, solver = poisson_matrix((8, 8)), right_hand_sides(64, 2), DeepConjugateDirection(same)
    reference = solver.solve(A, b, tol=1e-10).x
    for kind in (aslinearoperator(A), lambda X: A @ X, SPDOperator(A), A.toarray()):
        np.testing.assert_allclose(solver.solve(kind, b, tol=1e-10).x, reference, atol=1e-9)


def test_one_right_hand_side_is_a_vector() -> None:
    b = right_hand_sides(64, 1)[:, 0]
    result = DeepConjugateDirection(same).solve(poisson_matrix((8, 8)), b)
    assert result.x.shape == (64,) and result.iterations.shape == ()
    assert result.residuals.shape == (int(result.iterations) + 1,)


def test_zero_is_solved_by_zero_without_asking_the_network() -> None:
    def never(r: Tensor) -> Tensor:
        raise AssertionError

    result = DeepConjugateDirection(never).solve(poisson_matrix((4, 4)), np.zeros(16))
    assert not result.x.any() and result.iterations == 0 and result.converged


def test_the_loss_is_zero_for_the_solution_and_one_for_a_useless_direction() -> None:
    A = poisson_matrix((6, 6))
    b = torch.nn.functional.normalize(torch.randn(5, 36, dtype=torch.float64), dim=1)
    solution = torch.from_numpy(np.linalg.solve(A.toarray(), b.numpy().T).T.copy())
    assert float(direction_loss(A, b, -3.0 * solution)) == pytest.approx(0.0, abs=1e-20)
    useless = torch.randn(5, 36, dtype=torch.float64)
    useless -= (useless * b).sum(1, keepdim=True) * b
    assert float(direction_loss(A, b, useless)) == pytest.approx(1.0)


def test_gradients_of_the_loss_are_right() -> None:
    A = poisson_matrix((3, 4))
    b = torch.randn(2, 12, dtype=torch.float64)
    y = torch.randn(2, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: direction_loss(A, b, y), y)


# -- the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"dimensions": 2}, 32_657),
        ({"dimensions": 3}, 97_457),
        ({"dimensions": 3, "fine": 2, "coarse": 5, "merged": 3}, 152_881),
    ],
)
def test_networks_have_the_weights_of_the_paper(settings: dict, count: int) -> None:
    assert parameter_count(DirectionNetwork(**settings)) == count


@pytest.mark.parametrize("shape", [(8, 8), (7, 10), (5, 9), (4, 5, 7)])
def test_any_grid_is_taken(shape: tuple[int, ...]) -> None:
    network = DirectionNetwork(len(shape))
    assert network(torch.randn(3, 1, *shape)).shape == (3, 1, *shape)


@pytest.mark.parametrize("shape", [(2, 1, 9, 12), (1, 1, 16, 16), (3, 1, 6, 7, 8)])
def test_without_gradients_the_directions_are_the_same(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network, r = DirectionNetwork(len(shape) - 2), torch.randn(shape)
    with_gradients = network(r).detach()
    with torch.no_grad():
        torch.testing.assert_close(network(r), with_gradients, rtol=1e-5, atol=1e-5)
        double = network.double()(r.double())
    torch.testing.assert_close(double.float(), with_gradients, rtol=1e-5, atol=1e-5)


def test_an_image_by_itself_costs_no_more_than_two() -> None:
    network, times = DirectionNetwork(3), []
    for count in (1, 2):
        r = torch.randn(count, 1, 24, 24, 24)
        with torch.no_grad(), one_thread():
            times.append(
                min(
                    timeit.repeat(
                        lambda r=r: network(r), timer=time.thread_time, number=1, repeat=5
                    )
                )
            )
    assert times[0] < 1.2 * times[1]  # left to PyTorch it takes 2.5 times as long


def test_other_shapes_are_refused() -> None:
    with pytest.raises(UserError, match=r"expected residuals \(B, 1, \*space\) in 2 dimensions"):
        DirectionNetwork(2)(torch.randn(3, 2, 8, 8))
    with pytest.raises(UserError, match="dimensions must be 2 or 3"):
        DirectionNetwork(1)


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("A", "b", "message"),
    [
        (np.ones((16, 15)), np.ones(16), "A must be square"),
        (poisson_matrix((4, 4)), np.full(16, np.nan), "b is not finite in row 0"),
        (poisson_matrix((3, 4)), np.ones(12), "12 unknowns are no square or cube in 2 dimensions"),
        (sp.eye_array(16) * -1.0, np.ones(16), "not positive definite"),
        (
            sp.csr_array(poisson_matrix((4, 4)) - 2.0 * sp.eye_array(16)),
            np.ones(16),
            "not positive def",
        ),
        (poisson_matrix((4, 4)), np.ones(15), "b has 15 rows, but A has 16"),
    ],
)
def test_bad_systems_are_refused(A: object, b: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DeepConjugateDirection(same).solve(A, b)


def test_bad_grids_and_settings_are_refused() -> None:
    with pytest.raises(UserError, match=r"the grid \(4, 5\) has 20 points, but A has 16 unknowns"):
        DeepConjugateDirection(same, grid_shape=(4, 5)).solve(poisson_matrix((4, 4)), np.ones(16))
    with pytest.raises(UserError, match="two or three sides of at least 4 points"):
        DeepConjugateDirection(same, grid_shape=(16,))
    with pytest.raises(UserError, match="q must be a whole number of at least 0"):
        DeepConjugateDirection(same, q=-1)


def test_a_network_that_says_nothing_or_nonsense_is_refused() -> None:
    A, b = poisson_matrix((4, 4)), np.ones(16)
    with pytest.raises(UserError, match="the direction is zero"):
        DeepConjugateDirection(lambda r: 0.0 * r).solve(A, b)
    with pytest.raises(UserError, match="directions that are not finite"):
        DeepConjugateDirection(lambda r: r * torch.nan).solve(A, b)
    with pytest.raises(UserError, match="the network gave the shape"):
        DeepConjugateDirection(lambda r: r[..., :2]).solve(A, b)


# -- trained --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> DeepConjugateDirection:
    plan = replace(DEFAULT_TRAINING, steps=150, validate_every=50)
    return replace(learn_solver(poisson_matrix((12, 12)), (12, 12), plan), grid_shape=None)


def test_a_trained_network_needs_fewer_iterations_and_reaches_any_tolerance(
    trained: DeepConjugateDirection,
) -> None:
    A, b = poisson_matrix((16, 16)), right_hand_sides(256, 4)
    few, many = trained.solve(A, b, tol=1e-4), conjugate_gradients(A, b, tol=1e-4)
    assert few.iterations.max() < many.iterations.min()
    tight = trained.solve(A, b, tol=1e-10)
    assert tight.converged.all()
    assert np.linalg.norm(b - A @ tight.x) < 1e-9 * np.linalg.norm(b)


def test_former_directions_help(trained: DeepConjugateDirection) -> None:
    A, b = poisson_matrix((24, 24)), right_hand_sides(576, 4)
    with_two, without = (replace(trained, q=q).solve(A, b).iterations.mean() for q in (2, 0))
    assert with_two < without


def test_in_16_bits_it_reaches_the_same_tolerance_in_a_few_more_iterations(
    trained: DeepConjugateDirection,
) -> None:
    A, b = poisson_matrix((16, 16)), right_hand_sides(256, 4)
    rounded = trained.in_bfloat16()
    result, exact = (x.solve(A, b, tol=1e-8, maxiter=300) for x in (rounded, trained))
    assert result.converged.all()
    assert not np.array_equal(result.x, exact.x)
    assert result.iterations.mean() < 1.5 * exact.iterations.mean()
    assert next(trained.model.parameters()).dtype is torch.float32
    with pytest.raises(UserError, match="only a network that is a module"):
        DeepConjugateDirection(same).in_bfloat16()


def test_it_is_a_preconditioner_for_flexible_conjugate_gradients(
    trained: DeepConjugateDirection,
) -> None:
    A, b = poisson_matrix((16, 16)), right_hand_sides(256, 2)
    M = trained.as_preconditioner(A, steps=2)
    assert isinstance(M, LinearOperator) and (M @ b[:, 0]).shape == (256,)
    result = flexible_cg(A, b, M, tol=1e-8)
    assert result.converged.all()
    assert result.iterations.max() < trained.solve(A, b, tol=1e-8).iterations.max()


def test_it_works_around_obstacles_and_in_closed_boxes(trained: DeepConjugateDirection) -> None:
    solid = obstacles((16, 16), 0.1, "discs", 1)
    for walls in (None, [(True, True), (True, True)]):
        A = pressure_matrix(solid, walls)
        b = A @ right_hand_sides(256, 2)
        result = trained.solve(A, b, tol=1e-8, maxiter=300)
        assert result.converged.all()
        np.testing.assert_allclose(A @ result.x, b, atol=1e-6)


def test_simulators_take_it(trained: DeepConjugateDirection) -> None:
    solver = replace(trained, tol=1e-9, maxiter=400)
    heat = {"initial": 300.0, "left": 100.0, "right": 500.0, "bottom": 200.0, "top": 250.0}
    torch.testing.assert_close(
        Heat(12, steps=2, solver=solver).fields(heat), Heat(12, steps=2).fields(heat)
    )
    torch.testing.assert_close(
        Darcy(12, solver=solver).fields({"seed": 0}), Darcy(12).fields({"seed": 0})
    )
    solid = obstacles((16, 16), 0.1, "boxes", 0)
    mine, reference = (list(Smoke(solid, solver=s).run(4))[-1] for s in (solver, "direct"))
    torch.testing.assert_close(mine.density, reference.density, rtol=0, atol=1e-6)


def test_a_solver_survives_its_file(trained: DeepConjugateDirection, tmp_path: Path) -> None:
    path = replace(trained, grid_shape=(16, 16), tol=1e-6).save(tmp_path / "a.us")
    again, b = understudy.load_solver(path), right_hand_sides(256, 2)
    assert (again.q, again.grid_shape, again.tol) == (2, (16, 16), 1e-6)
    assert again.facts == trained.facts and again.facts["loss"] < 0.1
    A = poisson_matrix((16, 16))
    np.testing.assert_array_equal(again.solve(A, b).x, trained.solve(A, b, tol=1e-6).x)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    other = artifact.write(tmp_path / "b.us", {"kind": "operator"}, {"w": torch.ones(1)})
    with pytest.raises(UserError, match="holds a 'operator', not a linear solver"):
        understudy.load_solver(other)
    broken = artifact.write(
        tmp_path / "c.us",
        {"kind": "linear solver", "network": {"dimensions": 2}, "grid": None},
        {"w": torch.ones(1)},
    )
    with pytest.raises(UserError, match="parts do not fit together"):
        understudy.load_solver(broken)
    with pytest.raises(UserError, match="only solvers with a DirectionNetwork"):
        DeepConjugateDirection(same).save(tmp_path / "d.us")


@pytest.mark.parametrize("optimizer", ["adam", "soap-kernels"])
def test_the_same_seed_trains_the_same_and_a_checkpoint_goes_on(
    optimizer: str, tmp_path: Path
) -> None:
    A = poisson_matrix((8, 8))
    ritz, state = RitzVectors.of(A, 30), tmp_path / "training.safetensors"
    brief = replace(BRIEF, optimizer=optimizer)

    def train(**changes: object) -> DirectionNetwork:
        torch.manual_seed(0)
        network = DirectionNetwork(2, channels=4)
        train_direction_network(A, ritz, network, (8, 8), replace(brief, **changes))
        return network

    def stop(event: object) -> None:
        if event.step == 20:
            raise KeyboardInterrupt

    whole = train()
    torch.manual_seed(0)
    plan = replace(brief, checkpoint=state)
    part = DirectionNetwork(2, channels=4)
    outcome = train_direction_network(A, ritz, part, (8, 8), plan, stop)
    assert outcome.reason == "interrupt" and outcome.steps == 20
    for again in (train(), train(checkpoint=state)):
        for a, b in zip(whole.parameters(), again.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_training_refuses_a_grid_that_does_not_fit() -> None:
    A = poisson_matrix((8, 8))
    with pytest.raises(UserError, match=r"the grid \(8, 9\) has 72 points, but A has 64"):
        train_direction_network(A, RitzVectors.of(A, 8), DirectionNetwork(), (8, 9), BRIEF)


# -- shipped --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "shape"), [("2d", (32, 32)), ("3d", (12, 12, 12))])
def test_shipped_networks_need_a_quarter_of_the_iterations(name: str, shape: tuple) -> None:
    A = poisson_matrix(shape)
    b = right_hand_sides(A.shape[0], 2)
    few, many = pretrained(name).solve(A, b), conjugate_gradients(A, b)
    assert few.converged.all()
    assert few.iterations.max() <= many.iterations.min() / (4 if name == "2d" else 2)


def test_there_is_no_other_shipped_network() -> None:
    with pytest.raises(UserError, match="no pre-trained network '4d'"):
        pretrained("4d")
