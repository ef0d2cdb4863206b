"""Checks of linear systems, conjugate gradients and the direct solver."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, aslinearoperator, cg

from understudy.core.errors import UserError
from understudy.core.linear_solver import (
    ConjugateGradients,
    DirectSolver,
    OperatorFamily,
    SPDOperator,
    conjugate_gradients,
    solver_of,
)


def poisson(n: int) -> sp.csr_array:
    """Second differences on n x n nodes inside a square."""
    line = sp.diags_array([-np.ones(n - 1), 2.0 * np.ones(n), -np.ones(n - 1)], offsets=[-1, 0, 1])
    one = sp.eye_array(n)
    return sp.csr_array(sp.kron(line, one) + sp.kron(one, line))


def closed(n: int) -> sp.csr_array:
    """Laplacian of a path of n points: constants are its null space."""
    d = sp.diags_array([-np.ones(n - 1), np.ones(n - 1)], offsets=[0, 1], shape=(n - 1, n))
    return sp.csr_array(d.T @ d)


def random_spd(n: int, seed: int) -> np.ndarray:
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]
    return Q @ np.diag(np.geomspace(1.0, 100.0, n)) @ Q.T


@given(n=st.integers(2, 20), k=st.integers(1, 4), seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_conjugate_gradients_solve_random_systems(n: int, k: int, seed: int) -> None:
    A, b = random_spd(n, seed), np.random.default_rng(seed + 1).standard_normal((n, k))
    result = conjugate_gradients(A, b, tol=1e-10)
    assert result.converged.all() and result.iterations.shape == (k,)
    np.testing.assert_allclose(result.x, np.linalg.solve(A, b), rtol=0, atol=1e-7)


def test_iterates_are_those_of_scipy() -> None:
    A, b = poisson(12), np.random.default_rng(0).standard_normal(144)
    expected, _ = cg(A, b, rtol=1e-30, maxiter=17)
    result = conjugate_gradients(A, b, tol=1e-30, maxiter=17)
    np.testing.assert_allclose(result.x, expected, rtol=1e-11, atol=1e-12)


def test_right_hand_sides_do_not_know_of_each_other() -> None:
    A, b = poisson(10), np.random.default_rng(0).standard_normal((100, 3))
    b[:, 1] = A @ np.ones(100) * 1e6
    together = conjugate_gradients(A, b, tol=1e-9)
    for column in range(3):
        alone = conjugate_gradients(A, b[:, column], tol=1e-9)
        assert alone.iterations == together.iterations[column]
        np.testing.assert_allclose(together.x[:, column], alone.x, rtol=1e-9, atol=1e-12)
    assert len(set(together.iterations.tolist())) > 1


def test_what_is_reported_is_the_residual() -> None:
    A, b = poisson(8), np.random.default_rng(0).standard_normal((64, 2))
    result = conjugate_gradients(A, b, tol=1e-6)
    true = np.linalg.norm(b - A @ result.x, axis=0) / np.linalg.norm(b, axis=0)
    assert (true < 1e-6).all()
    np.testing.assert_allclose(result.residuals[-1], true, rtol=1e-6)
    assert result.residuals.shape == (result.iterations.max() + 1, 2)


@pytest.mark.parametrize("make", [np.asarray, aslinearoperator, lambda A: lambda X: A @ X])
def test_all_kinds_of_operators_give_the_same(make: object) -> None:
    A, b = random_spd(30, 0), np.random.default_rng(0).standard_normal((30, 2))
    reference = conjugate_gradients(sp.csr_array(A), b, tol=1e-10).x
    np.testing.assert_allclose(conjugate_gradients(make(A), b, tol=1e-10).x, reference, atol=1e-9)


def test_preconditioners_may_be_linear_operators() -> None:
    A, b = random_spd(20, 0), np.random.default_rng(0).standard_normal((20, 2))
    M = LinearOperator((20, 20), matvec=lambda r: np.linalg.solve(A, r))
    assert conjugate_gradients(A, b, preconditioner=M).iterations.tolist() == [1, 1]


def test_a_family_has_a_matrix_for_each_right_hand_side() -> None:
    b = np.random.default_rng(0).standard_normal((40, 3))
    weights = np.random.default_rng(1).uniform(0.5, 50.0, (3, 40))
    family = OperatorFamily(lambda w, X: w.T * X, weights)
    result = conjugate_gradients(family, b, tol=1e-12)
    np.testing.assert_allclose(result.x, b / weights.T, rtol=1e-9)


def test_zero_right_hand_sides_are_solved_at_once() -> None:
    b = np.zeros((64, 2))
    b[3, 1] = 1.0
    result = conjugate_gradients(poisson(8), b)
    assert result.iterations[0] == 0 and result.converged.all() and not result.x[:, 0].any()
    assert conjugate_gradients(poisson(8), np.zeros(64)).residuals.tolist() == [0.0]


def test_constants_in_the_null_space_are_projected_out() -> None:
    A, b = closed(20), np.random.default_rng(0).standard_normal(20)
    for operator in (A, aslinearoperator(A), lambda X: A @ X):
        x = conjugate_gradients(operator, b, tol=1e-10).x
        assert abs(x.sum()) < 1e-10
        np.testing.assert_allclose(A @ x, b - b.mean(), atol=1e-8)


def test_each_closed_part_has_constants_of_its_own() -> None:
    A = sp.csr_array(sp.block_diag([closed(5), poisson(3), closed(7)]))
    b = np.random.default_rng(0).standard_normal(21)
    x = conjugate_gradients(A, b, tol=1e-10).x
    expected = b.copy()
    expected[:5] -= b[:5].mean()
    expected[14:] -= b[14:].mean()
    np.testing.assert_allclose(A @ x, expected, atol=1e-8)


def test_a_null_space_can_be_given() -> None:
    V = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 2)))[0]
    A = random_spd(12, 1)
    A = (np.eye(12) - V @ V.T) @ A @ (np.eye(12) - V @ V.T)
    b = np.random.default_rng(2).standard_normal(12)
    x = conjugate_gradients(SPDOperator(A, null_space=V), b, tol=1e-10).x
    np.testing.assert_allclose(A @ x, b - V @ V.T @ b, atol=1e-8)
    np.testing.assert_allclose(V.T @ x, 0.0, atol=1e-10)


def test_empty_rows_are_left_out() -> None:
    A = sp.csr_array(sp.block_diag([poisson(3), sp.csr_array((2, 2))]))
    b = np.append(np.arange(1.0, 10.0), [0.0, 0.0])
    for solve in (conjugate_gradients, DirectSolver().solve):
        x = solve(A, b).x
        assert not x[-2:].any()
        np.testing.assert_allclose(A @ x, b, atol=5e-3)
    with pytest.raises(UserError, match="row 10 of A is empty, but b is not 0 there"):
        conjugate_gradients(A, np.append(b[:-1], 1.0))


def test_a_start_is_taken() -> None:
    A, b = poisson(8), np.random.default_rng(0).standard_normal(64)
    near = np.linalg.solve(A.toarray(), b) + 1e-3
    result = conjugate_gradients(A, b, near, tol=1e-8)
    np.testing.assert_allclose(A @ result.x, b, atol=1e-8)


def test_the_direct_solver_solves_and_keeps_its_factors() -> None:
    A, b, solver = poisson(9), np.random.default_rng(0).standard_normal((81, 2)), DirectSolver()
    result = solver.solve(A, b)
    np.testing.assert_allclose(A @ result.x, b, atol=1e-12)
    factors = solver._known[2]
    solver.solve(A, b)
    assert solver._known[2] is factors
    parts = sp.csr_array(sp.block_diag([closed(5), poisson(3), closed(7)]))
    b = np.random.default_rng(0).standard_normal((21, 2))
    reference = conjugate_gradients(parts, b, tol=1e-12).x
    np.testing.assert_allclose(solver.solve(parts, b).x, reference, atol=1e-9)
    with pytest.raises(UserError, match="cannot take a null space that is given"):
        solver.solve(SPDOperator(closed(5), null_space=np.ones(5)), np.ones(5))
    with pytest.raises(UserError, match="needs a matrix"):
        solver.solve(SPDOperator(lambda X: 2 * X, 5), np.ones(5))


NAN = np.array([[1.0, np.nan], [np.nan, 1.0]])


@pytest.mark.parametrize(
    ("A", "b", "message"),
    [
        (np.ones((2, 3)), np.ones(2), "A must be square"),
        (aslinearoperator(np.ones((2, 3))), np.ones(2), "A must be square"),
        (np.eye(3), np.ones(2), "b has 2 rows, but A has 3"),
        (SPDOperator(np.eye(3)), np.ones(2), "b has 2 rows, but A has 3"),
        (np.array([[2.0, 1.0], [0.0, 2.0]]), np.ones(2), "A is not symmetric"),
        (lambda X: np.array([[2.0, 1.0], [0.0, 2.0]]) @ X, np.ones(2), "A is not symmetric"),
        (np.diag([1.0, -1.0]), np.ones(2), "entry 1 of its diagonal is -1"),
        (np.array([[1.0, 2.0], [2.0, 1.0]]), np.array([1.0, -1.0]), "not positive definite"),
        (lambda X: -X, np.ones(2), "not positive definite along a random vector"),
        (NAN, np.ones(2), "A holds values that are not finite"),
        (np.zeros((2, 2)), np.ones(2), "A has no entry that is not 0"),
        (np.eye(2) * 1j, np.ones(2), "A must hold real numbers"),
        (np.eye(2), np.array([1.0, np.nan]), "b is not finite in row 1"),
        (np.eye(2), np.array([1j, 1.0]), "b must be real numbers"),
        (np.eye(2), np.ones((2, 1, 1)), "b must be real numbers"),
        (np.eye(2), np.ones((2, 0)), "b has no right-hand side"),
        ("poisson", np.ones(2), "A must be a sparse matrix, a LinearOperator or a function"),
        (lambda X: X[:1], np.ones(2), "A gave the shape"),
    ],
)
def test_bad_systems_are_refused(A: object, b: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        conjugate_gradients(A, b)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UserError, match="tol must be between 0 and 1"):
        conjugate_gradients(np.eye(2), np.ones(2), tol=0.0)
    with pytest.raises(UserError, match="x0 must be finite"):
        conjugate_gradients(np.eye(2), np.ones(2), np.ones(3))
    with pytest.raises(UserError, match="name the size"):
        SPDOperator(lambda X: X)
    with pytest.raises(UserError, match="solver must be 'direct', 'cg' or an object"):
        solver_of("multigrid")


def test_solvers_by_name() -> None:
    assert isinstance(solver_of("cg"), ConjugateGradients)
    assert isinstance(solver_of("direct"), DirectSolver)
    own = ConjugateGradients(tol=1e-3)
    assert solver_of(own) is own
