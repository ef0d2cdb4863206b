"""Conjugate directions, incomplete Cholesky and deflation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.differences import poisson_matrix
from understudy.core.errors import UserError
from understudy.core.linear_solver import SPDOperator, conjugate_gradients
from understudy.models.inverse.krylov import (
    IncompleteCholesky,
    conjugate_directions,
    deflated_cg,
    flexible_cg,
    jacobi,
)
from understudy.simulate.pde.pressure import obstacles, pressure_matrix


def dense_ic0(A: np.ndarray) -> np.ndarray:
    """Row by row, as in a textbook."""
    n = len(A)
    L = np.zeros_like(A)
    for i in range(n):
        for j in range(i + 1):
            if A[i, j] == 0.0:
                continue
            rest = A[i, j] - L[i, :j] @ L[j, :j]
            L[i, j] = np.sqrt(rest) if i == j else rest / L[j, j]
    return L


def random_sparse_spd(n: int, seed: int) -> sp.csr_array:
    draw = np.random.default_rng(seed)
    M = sp.random_array((n, n), density=min(1.0, 4.0 / n), rng=draw)
    M = M + M.T
    return sp.csr_array(M + sp.diags_array(np.abs(M).sum(axis=1) + 0.1))


@given(n=st.integers(1, 40), seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_incomplete_cholesky_is_that_of_a_textbook(n: int, seed: int) -> None:
    A = random_sparse_spd(n, seed)
    np.testing.assert_allclose(
        IncompleteCholesky.of(A).L.toarray(), dense_ic0(A.toarray()), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("shape", [(7, 6), (4, 5, 3)])
def test_incomplete_cholesky_of_poisson_agrees_with_a_on_its_pattern(shape: tuple) -> None:
    A = poisson_matrix(shape)
    L = IncompleteCholesky.of(A).L
    pattern = A.toarray() != 0.0
    np.testing.assert_allclose((L @ L.T).toarray()[pattern], A.toarray()[pattern], atol=1e-14)
    assert set(zip(*L.nonzero(), strict=True)) == set(zip(*sp.tril(A).nonzero(), strict=True))


def test_incomplete_cholesky_without_fill_is_exact_on_a_line() -> None:
    A = poisson_matrix((30,))
    r = np.random.default_rng(0).standard_normal((30, 3))
    np.testing.assert_allclose(IncompleteCholesky.of(A)(r), np.linalg.solve(A.toarray(), r))


def test_incomplete_cholesky_shifts_what_breaks_down() -> None:
    # Kershaw's example: positive definite, but the factors without fill are not real
    A = np.array([[3, -2, 0, 2], [-2, 3, -2, 0], [0, -2, 3, -2], [2, 0, -2, 3]], dtype=float)
    assert np.linalg.eigvalsh(A).min() > 0
    found = IncompleteCholesky.of(A)
    assert found.shift > 0 and np.isfinite(found.L.data).all()


def test_preconditioners_leave_solid_cells_alone_and_save_iterations() -> None:
    solid = obstacles((24, 24), 0.2, "discs", 0)
    A = pressure_matrix(solid)
    b = A @ np.random.default_rng(0).standard_normal((576, 2))
    plain = conjugate_gradients(A, b, tol=1e-8)
    for M, most in ((IncompleteCholesky.of(A), 0.6), (jacobi(A), 1.05)):
        result = conjugate_gradients(A, b, tol=1e-8, preconditioner=M)
        np.testing.assert_allclose(A @ result.x, b, atol=1e-6)
        assert not result.x[solid.ravel()].any()
        assert result.iterations.max() <= most * plain.iterations.max()


def test_preconditioners_need_a_matrix() -> None:
    A = SPDOperator(lambda X: 2.0 * X, 5)
    with pytest.raises(UserError, match="needs a matrix"):
        jacobi(A)
    with pytest.raises(UserError, match="needs a matrix"):
        IncompleteCholesky.of(A)


@given(n=st.integers(3, 15), q=st.integers(0, 3), seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_the_error_never_grows_in_the_norm_of_a(n: int, q: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    Q = np.linalg.qr(draw.standard_normal((n, n)))[0]
    A = Q @ np.diag(np.geomspace(1.0, 1e3, n)) @ Q.T
    b = draw.standard_normal((n, 2))
    exact, errors = np.linalg.solve(A, b), [np.inf * np.ones(2)]

    def watch(x: np.ndarray) -> None:
        e = x - exact
        errors.append(np.einsum("nk,nk->k", e, A @ e))

    def nonsense(r: np.ndarray) -> np.ndarray:
        return np.abs(r) ** 0.3 + draw.standard_normal(r.shape)

    conjugate_directions(A, b, nonsense, q, tol=1e-12, maxiter=20, callback=watch)
    scale = np.einsum("nk,nk->k", exact, A @ exact)
    assert all((b <= a * (1 + 1e-9) + 1e-12 * scale).all() for a, b in itertools.pairwise(errors))


@pytest.mark.parametrize("q", [1, 2, 5])
def test_the_residual_itself_as_direction_gives_conjugate_gradients(q: int) -> None:
    A, b = poisson_matrix((10, 10)), np.random.default_rng(0).standard_normal((100, 3))
    mine, reference = [], []
    conjugate_directions(A, b, lambda r: r, q, maxiter=20, tol=1e-12, callback=mine.append)
    conjugate_gradients(A, b, maxiter=20, tol=1e-12, callback=reference.append)
    np.testing.assert_allclose(mine, reference, rtol=1e-9, atol=1e-12)


def test_a_fixed_preconditioner_gives_preconditioned_conjugate_gradients() -> None:
    A, b = poisson_matrix((8, 9)), np.random.default_rng(0).standard_normal((72, 2))
    M = IncompleteCholesky.of(A)
    flexible = flexible_cg(A, b, M, tol=1e-8)
    fixed = conjugate_gradients(A, b, tol=1e-8, preconditioner=M)
    np.testing.assert_array_equal(flexible.iterations, fixed.iterations)
    np.testing.assert_allclose(flexible.x, fixed.x, atol=1e-8)


def test_full_conjugacy_ends_after_as_many_steps_as_unknowns() -> None:
    draw = np.random.default_rng(0)
    A, b = np.diag(np.geomspace(1.0, 100.0, 9)), draw.standard_normal(9)
    directions = iter(draw.standard_normal((12, 9, 1)))
    result = conjugate_directions(A, b, lambda r: next(directions), q=9, tol=1e-8, maxiter=12)
    assert result.iterations == 9 and result.converged


def test_deflation_by_eigenvectors_takes_their_eigenvalues_out() -> None:
    values = np.concatenate([[1e-4, 1e-3], np.linspace(1.0, 2.0, 38)])
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 40)))[0]
    A, b = Q @ np.diag(values) @ Q.T, np.random.default_rng(1).standard_normal((40, 2))
    deflated = deflated_cg(A, b, Q[:, :2], tol=1e-8)
    np.testing.assert_allclose(A @ deflated.x, b, atol=1e-6)
    assert deflated.iterations.max() <= 14  # condition 2
    assert conjugate_gradients(A, b, tol=1e-8).iterations.max() > deflated.iterations.max()


def test_deflation_with_all_vectors_is_exact() -> None:
    A, b = poisson_matrix((4, 4)), np.random.default_rng(0).standard_normal(16)
    result = deflated_cg(A, b, np.eye(16), maxiter=0)
    np.testing.assert_allclose(A @ result.x, b, atol=1e-12)


def test_a_direction_of_no_use_is_refused() -> None:
    with pytest.raises(UserError, match=r"the direction is zero: d\.Ad = 0 in iteration 1"):
        conjugate_directions(np.eye(4), np.ones(4), lambda r: 0.0 * r)
    with pytest.raises(UserError, match="must not be negative"):
        conjugate_directions(np.eye(4), np.ones(4), lambda r: r, q=-1)
