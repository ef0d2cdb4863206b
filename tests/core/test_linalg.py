"""Factors of matrices that rounding spoils."""

import pytest
import torch

from understudy.core.linalg import cholesky, one_thread


def test_definite_matrices_are_factored_as_they_are():
    A = torch.randn(3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    K = A @ A.mT + torch.eye(5)
    assert torch.equal(cholesky(K), torch.linalg.cholesky(K))


def test_a_singular_matrix_of_a_batch_is_jittered_alone():
    good, singular = torch.eye(4).double(), torch.ones(4, 4).double() - 1e-12 * torch.eye(4)
    factor = cholesky(torch.stack([good, singular]))
    assert torch.equal(factor[0], good)
    assert torch.allclose(factor[1] @ factor[1].mT, singular, atol=1e-6)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [(-torch.eye(3), "not positive semi-definite"), (torch.full((3, 3), torch.nan), "not finite")],
)
def test_hopeless_matrices_are_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        cholesky(matrix)


def test_threads_come_back_after_the_block():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
