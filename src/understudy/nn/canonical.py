r"""Canonical polyadic decomposition of many tensors at once, by alternating least squares.

.. math:: T \approx \sum_{r=1}^R a^1_r \otimes a^2_r \otimes \dots \otimes a^d_r

All factors but one given, the one is the solution of a linear least squares problem,

.. math:: A^m = T_{(m)} K \left(\textstyle\bigodot_{j \ne m} A^{jT} A^j\right)^{+},

with :math:`T_{(m)}` the tensor as a matrix of its mode m, K the columnwise Kronecker product of the
other factors and the product of their Gram matrices taken entry by entry. A sweep solves for each
mode in turn and never raises the error. The start are leading singular vectors of
:math:`T_{(m)}` (the factors of a HOSVD), filled up at random where R is larger than a mode. See
Kolda & Bader, *Tensor decompositions and applications*, SIAM Review 51 (2009), sections 3.4, 4.2.
"""

from __future__ import annotations

import torch
from torch import Tensor

_RIDGE = 1e-12
"""Of the Gram matrix, over its mean diagonal; redundant terms make it singular."""


def decompose(
    tensors: Tensor, rank: int, sweeps: int = 100, tolerance: float = 1e-9, seed: int = 0
) -> list[Tensor]:
    """Factors of each tensor of a batch.

    Parameters
    ----------
    tensors : Tensor (B, n_1, ..., n_d)
        With d at least 2; computed in float64.
    rank : int
        Terms R.
    sweeps : int
        At most.
    tolerance : float
        Sweeps end when no squared error falls by more than this share of the tensor's square.
    seed : int
        Of what is filled up.

    Returns
    -------
    list of Tensor (B, R, n_m), one for each mode
        In the dtype of the tensors.
    """
    T = tensors.double()
    d = T.ndim - 1
    if d == 2:
        return [factor.to(tensors.dtype) for factor in _of_matrices(T, rank)]
    generator = torch.Generator().manual_seed(seed)
    unfolded = [T.movedim(m + 1, 1).flatten(2) for m in range(d)]
    factors = [_leading(U, rank, generator) for U in unfolded]
    square = T.flatten(1).square().sum(1).clamp_min(torch.finfo(T.dtype).tiny)
    last = torch.full_like(square, torch.inf)
    for _ in range(sweeps):
        for m in range(d):
            others = [factors[j] for j in range(d) if j != m]
            gram = torch.ones(len(T), rank, rank, dtype=T.dtype, device=T.device)
            for A in others:
                gram = gram * (A @ A.mT)
            size = gram.diagonal(dim1=1, dim2=2).mean(1)
            eye = torch.eye(rank, dtype=T.dtype, device=T.device)
            gram = gram + (_RIDGE * size + torch.finfo(T.dtype).tiny)[:, None, None] * eye
            factors[m] = torch.linalg.solve(gram, _products(others) @ unfolded[m].mT)
            if m < d - 1:  # lengths are kept by the last one
                length = factors[m].norm(dim=2, keepdim=True)
                factors[m] = factors[m] / torch.where(length > 0, length, 1.0)
        error = (T - compose(factors)).flatten(1).square().sum(1)
        if bool(((last - error) <= tolerance * square).all()):
            break
        last = error
    return [factor.to(tensors.dtype) for factor in factors]


def compose(factors: list[Tensor]) -> Tensor:
    """Tensors ``(B, n_1, ..., n_d)`` of factors ``(B, R, n_m)``."""
    shape = (len(factors[0]), *(A.shape[2] for A in factors))
    return (factors[0].mT @ _products(factors[1:])).reshape(shape)


def _products(factors: list[Tensor]) -> Tensor:
    """Outer products ``(B, R, n_2 * ... * n_d)`` of each term."""
    out = factors[0]
    for A in factors[1:]:
        out = (out.unsqueeze(3) * A.unsqueeze(2)).flatten(2)
    return out


def _of_matrices(T: Tensor, rank: int) -> list[Tensor]:
    """Best terms of matrices, by their singular values; zeros beyond their rank."""
    U, s, V = torch.linalg.svd(T, full_matrices=False)
    root = s[:, :rank].sqrt().unsqueeze(2)
    pair = [root * U.mT[:, :rank], root * V[:, :rank]]
    missing = rank - pair[0].shape[1]
    return [torch.nn.functional.pad(A, (0, 0, 0, max(missing, 0))) for A in pair]


def _leading(U: Tensor, rank: int, generator: torch.Generator) -> Tensor:
    """Leading left singular vectors ``(B, R, n)`` of matrices ``(B, n, N)``, filled up."""
    vectors = torch.linalg.svd(U, full_matrices=False)[0].mT[:, :rank]
    missing = rank - vectors.shape[1]
    if missing <= 0:
        return vectors
    extra = torch.randn(len(U), missing, U.shape[1], dtype=U.dtype, generator=generator)
    return torch.cat([vectors, extra.to(U.device)], dim=1)
