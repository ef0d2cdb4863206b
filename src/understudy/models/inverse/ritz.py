r"""Ritz vectors by Lanczos' method, and the residuals that a direction network is trained on.

From a random start w_1 = A x, m steps

.. math:: \beta_{j+1} w_{j+1} = A w_j - \alpha_j w_j - \beta_j w_{j-1}

each orthogonalised anew against all earlier w, give a tridiagonal T with
:math:`T = Q \,\mathrm{diag}(\lambda)\, Q^\top` and Ritz vectors :math:`Z = W Q`, in rising order of
:math:`\lambda`. Without orthogonalising again, the extremes of the spectrum come out many times.

Training residuals are :math:`b = \sum_j c_j z_j`, of unit length, with :math:`c_j \sim N(0, 1)`,
nine times larger for :math:`j < m/2 + \theta`: random vectors are nearly all high frequency,
residuals of a solver that works are not (arXiv 2205.10763).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.linear_solver import Array, Operator, SPDOperator

_BREAKDOWN = 1e-10


@dataclass(frozen=True)
class Lanczos:
    r"""Orthonormal vectors W ``(n, m)`` with :math:`W^\top A W = T`, T tridiagonal.

    Parameters
    ----------
    W : array (n, m)
    alpha : array (m,)
        Diagonal of T.
    beta : array (m - 1,)
        Beside it; 0 where the iteration had used up a space and began another.
    """

    W: Array
    alpha: Array
    beta: Array


def lanczos(
    A: Operator,
    steps: int,
    seed: int = 0,
    size: int | None = None,
    listener: Callable[[int, int], None] | None = None,
) -> Lanczos:
    """Lanczos' method with full orthogonalisation, twice a step.

    It ends before `steps` where the vectors span all that A does not take to 0.

    Parameters
    ----------
    A : operator
        Symmetric; see :mod:`understudy.core.linear_solver`.
    steps : int
        m; memory is m n, work m^2 n.
    seed : int
        Of the start.
    size : int, optional
        Number of unknowns, for a function.
    listener : callable (done, total), optional
    """
    operator = SPDOperator.of(A, size)
    if steps < 1:
        raise UserError(f"Lanczos' method needs at least 1 step, found {steps}")
    draw = np.random.default_rng(seed)
    steps = min(steps, operator.n)
    rows = np.empty((steps, operator.n))  # W transposed: a row a step
    alpha, beta = np.zeros(steps), np.zeros(steps)
    w = operator.apply(operator.project(draw.standard_normal((operator.n, 1))))[:, 0]
    rows[0], largest = w / np.linalg.norm(w), 0.0
    for j in range(steps):
        if listener is not None:
            listener(j, steps)
        v = operator.apply(rows[j][:, None])[:, 0]
        alpha[j] = rows[j] @ v
        v = _orthogonal(v, rows[: j + 1])
        beta[j] = np.linalg.norm(v)
        largest = max(largest, abs(alpha[j]), beta[j])
        if j + 1 == steps:
            break
        if beta[j] <= _BREAKDOWN * largest:
            beta[j] = 0.0
            fresh = operator.project(draw.standard_normal((operator.n, 1)))[:, 0]
            v = _orthogonal(fresh, rows[: j + 1])
            if np.linalg.norm(v) <= _BREAKDOWN * np.linalg.norm(fresh):
                rows, alpha, beta = rows[: j + 1], alpha[: j + 1], beta[: j + 1]
                break
        rows[j + 1] = v / np.linalg.norm(v)
    return Lanczos(rows.T, alpha, beta[:-1])


def _orthogonal(v: Array, rows: Array) -> Array:
    """Vector without its components along orthonormal rows; the second pass mends rounding."""
    for _ in range(2):
        v = v - rows.T @ (rows @ v)
    return v


@dataclass(frozen=True)
class RitzVectors:
    """Approximate eigenvectors of A, and the law of training residuals.

    Parameters
    ----------
    values : array (r,)
        Ritz values, ascending; those below `smallest` are left out.
    vectors : Tensor (n, r), float32
    boosted : int
        How many of the lowest have larger coefficients.
    boost : float
        By which factor; 1 makes all alike.
    """

    values: Array
    vectors: Tensor
    boosted: int
    boost: float = 9.0

    @classmethod
    def of(
        cls,
        A: Operator,
        num_ritz: int = 800,
        theta: int | None = None,
        boost: float = 9.0,
        seed: int = 0,
        size: int | None = None,
        smallest: float = 1e-8,
        listener: Callable[[int, int], None] | None = None,
    ) -> RitzVectors:
        """Compute them by Lanczos' method.

        Parameters
        ----------
        A : operator
        num_ritz : int
            m; 10,000 in the paper, for 64^3 and 128^3 unknowns.
        theta : int, optional
            m/20 by default: the paper's 500 of 10,000.
        boost : float
        seed : int
        size : int, optional
            Number of unknowns, for a function.
        smallest : float
            Ritz values below it belong to the null space.
        listener : callable (done, total), optional
        """
        if not boost > 0.0:
            raise UserError(f"boost must be positive, found {boost:g}")
        found = lanczos(A, num_ritz, seed, size, listener)
        values, Q = eigh_tridiagonal(found.alpha, found.beta)
        kept = values >= smallest
        if not kept.any():
            raise UserError(f"A has no Ritz value of at least {smallest:g}")
        m = len(values)
        boosted = m // 2 + (m // 20 if theta is None else theta)
        Z = torch.from_numpy((found.W @ Q[:, kept]).astype(np.float32))
        return cls(values[kept], Z, min(boosted, int(kept.sum())), boost)

    def lowest(self, count: int) -> Array:
        """Vectors ``(n, count)`` of the smallest values, for deflation."""
        return self.vectors[:, :count].double().numpy()

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Training residuals ``(count, n)`` of unit length."""
        c = torch.randn(count, self.vectors.shape[1], generator=generator)
        c[:, : self.boosted] *= self.boost
        return torch.nn.functional.normalize(c @ self.vectors.T, dim=1)
