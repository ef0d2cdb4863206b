"""Lanczos' method and the law of training residuals."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import eigh_tridiagonal

from understudy.core.differences import poisson_matrix
from understudy.core.errors import UserError
from understudy.models.inverse.ritz import RitzVectors, lanczos


@given(n=st.integers(2, 40), share=st.floats(0.1, 1.0), seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_vectors_are_orthonormal_and_make_a_tridiagonal(n: int, share: float, seed: int) -> None:
    M = np.random.default_rng(seed).standard_normal((n, n))
    A = M @ M.T + np.eye(n)
    found = lanczos(A, max(1, round(share * n)), seed)
    m = len(found.alpha)
    np.testing.assert_allclose(found.W.T @ found.W, np.eye(m), atol=1e-12)
    T = np.diag(found.alpha) + np.diag(found.beta, 1) + np.diag(found.beta, -1)
    np.testing.assert_allclose(found.W.T @ A @ found.W, T, atol=1e-8 * np.abs(A).max())


def test_all_steps_give_every_eigenvalue_as_often_as_it_is() -> None:
    # the eigenvalues of a square are double, and a Krylov space holds each only once
    A = poisson_matrix((12, 12))
    found = lanczos(A, 144)
    np.testing.assert_allclose(
        eigh_tridiagonal(found.alpha, found.beta)[0], np.linalg.eigvalsh(A.toarray()), atol=1e-10
    )
    assert (found.beta == 0.0).any()


def test_extremes_are_not_found_twice() -> None:
    A = sp.diags_array(np.concatenate([np.linspace(0.0, 1.0, 300) + 0.01, [50.0]]))
    values = eigh_tridiagonal(*(lambda f: (f.alpha, f.beta))(lanczos(A, 120)))[0]
    assert (values > 40.0).sum() == 1


def test_it_ends_where_a_is_used_up() -> None:
    A = sp.csr_array(sp.block_diag([poisson_matrix((3, 3)), sp.csr_array((5, 5))]))
    assert len(lanczos(A, 14).alpha) == 9
    with pytest.raises(UserError, match="at least 1 step"):
        lanczos(A, 0)


def test_ritz_vectors_are_eigenvectors_when_all_are_asked_for() -> None:
    A = poisson_matrix((6, 7))
    found = RitzVectors.of(A, 42)
    Z = found.vectors.double().numpy()
    np.testing.assert_allclose(A @ Z, Z * found.values, atol=1e-5)
    np.testing.assert_array_equal(found.lowest(3), Z[:, :3])


def test_null_space_and_empty_rows_have_no_vector() -> None:
    d = sp.diags_array([-np.ones(9), np.ones(9)], offsets=[0, 1], shape=(9, 10))
    A = sp.csr_array(sp.block_diag([sp.csr_array(d.T @ d), sp.csr_array((3, 3))]))
    found = RitzVectors.of(A, 13)
    assert len(found.values) == 9
    np.testing.assert_allclose(found.vectors[:10].sum(0), 0.0, atol=1e-5)
    assert not found.vectors[10:].any()


def test_residuals_have_unit_length_and_nine_times_more_of_the_low_half() -> None:
    found = RitzVectors.of(poisson_matrix((10, 10)), 100)
    assert found.boosted == 55  # half of 100, and a twentieth
    b = found.draw(4000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(b.norm(dim=1), torch.ones(4000))
    c = (b @ found.vectors).square().mean(0)
    assert float(c[:55].mean() / c[55:].mean()) == pytest.approx(81.0, rel=0.05)


def test_the_same_seed_gives_the_same_residuals() -> None:
    first, second = (
        RitzVectors.of(poisson_matrix((8, 8)), 30, seed=4).draw(5, torch.Generator().manual_seed(1))
        for _ in range(2)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(UserError, match="boost must be positive"):
        RitzVectors.of(poisson_matrix((4, 4)), 5, boost=0.0)
    with pytest.raises(UserError, match="no Ritz value of at least 100"):
        RitzVectors.of(poisson_matrix((4, 4)), 5, smallest=100.0)
