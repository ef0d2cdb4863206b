"""Dense linear algebra that the standard libraries leave to their callers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor


def cholesky(matrix: Tensor) -> Tensor:
    r"""Lower Cholesky factor of symmetric matrices that rounding may have made indefinite.

    Where the factorisation fails, :math:`\epsilon I` is added with :math:`\epsilon` growing tenfold
    from :math:`10^{-10}` of the mean diagonal; the other matrices of the batch stay as they are.

    Parameters
    ----------
    matrix : Tensor (*batch, n, n)
        Symmetric, positive semi-definite up to rounding.

    Returns
    -------
    Tensor (*batch, n, n)
        Differentiable in ``matrix``.

    Raises
    ------
    ValueError
        If a matrix holds values that are not finite, or is far from positive semi-definite.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if not bool(failed.any()):
        return factor
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError("a covariance matrix holds values that are not finite")
    level = matrix.diagonal(dim1=-2, dim2=-1).mean(-1).abs()
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for exponent in range(-10, -2):
        jitter = torch.where(failed > 0, level * 10.0**exponent, torch.zeros_like(level))
        factor, still = torch.linalg.cholesky_ex(matrix + jitter[..., None, None] * eye)
        if not bool(still.any()):
            return factor
    raise ValueError("a covariance matrix is not positive semi-definite")


@contextmanager
def one_thread(when: bool = True) -> Iterator[None]:
    """Run the block on one thread: on small matrices a second only waits and burns time."""
    if not when:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _blas().limit(limits=1):
            yield
    finally:
        torch.set_num_threads(threads)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")
