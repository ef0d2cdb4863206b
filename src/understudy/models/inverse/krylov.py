r"""Conjugate directions and the preconditioners that a learnt direction has to beat.

**Truncated conjugate directions.** For any function f from residuals to directions

.. math:: d = f(r) - \sum_{j=1}^{q} p_j\, \frac{f(r) \cdot A p_j}{p_j \cdot A p_j}, \qquad
    x^+ = x + d\, \frac{d \cdot r}{d \cdot A d}, \qquad r = b - A x

with the last q directions :math:`p_j`. The error never grows in the norm of A, whatever f is, for
the step is a line search. With f the identity and :math:`q \ge 1` this is conjugate gradients, with
:math:`f = M^{-1}` for a fixed M preconditioned, for an f that varies flexible conjugate gradients
(Notay 2000, SIAM J. Sci. Comput. 22), and with a network the method of arXiv 2205.10763.

**Incomplete Cholesky without fill**, IC(0) (Meijerink & van der Vorst 1977): L has the pattern of
the lower half of A and

.. math:: L_{ij} = \Big(A_{ij} - \sum_{k<j} L_{ik} L_{jk}\Big) / L_{jj}, \qquad
    L_{ii} = \Big(A_{ii} - \sum_{k<i} L_{ik}^2\Big)^{1/2}

**Deflation** (Saad, Yeung, Erhel & Guyomarc'h 2000, SIAM J. Sci. Comput. 21): with W the Ritz
vectors of the smallest eigenvalues, iterate on the part of the problem that is A-orthogonal to W.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import splu

from understudy.core.errors import UserError
from understudy.core.linear_solver import (
    Array,
    Callback,
    Columns,
    Operator,
    Preconditioner,
    SolveResult,
    SPDOperator,
    as_function,
    check_curvature,
    descend,
    dot,
)

Direction = Callable[[Array], Array]
"""From residuals (n, k) to directions (n, k)."""

_BREAKDOWN = 1e-12
_FIRST_SHIFT, _MOST_SHIFTS = 1e-3, 24


def conjugate_directions(
    A: Operator,
    b: ArrayLike,
    direction: Direction,
    q: int = 2,
    x0: ArrayLike | None = None,
    tol: float = 1e-4,
    maxiter: int = 100,
    callback: Callback | None = None,
) -> SolveResult:
    r"""Iterate along conjugate directions that a function proposes.

    Parameters
    ----------
    A : operator
        Symmetric and positive definite; see :mod:`understudy.core.linear_solver`.
    b : array (n,) or (n, k)
        All right-hand sides advance together; one that is done is taken out.
    direction : callable (n, k) -> (n, k)
        The function f, of columns that do not know of each other. Lengths do not matter.
    q : int
        How many former directions the next is made conjugate to.
    x0 : array like b, optional
    tol : float in (0, 1)
        Norm of the residual over the first.
    maxiter : int
    callback : callable, optional

    Returns
    -------
    SolveResult

    Raises
    ------
    UserError
        If A or b will not do, or :math:`d \cdot A d` is not positive for a direction.
    """
    if q < 0 or maxiter < 0:
        raise UserError(f"q and maxiter must not be negative, found {q} and {maxiter}")
    columns = Columns(A, b, x0, tol, callback)
    past: list[tuple[Array, Array, Array]] = []
    while columns.left and columns.steps < maxiter:
        y = columns.A.project(direction(columns.r))
        d = y
        for p, Ap, pAp in past:
            d = d - p * (dot(y, Ap) / pAp)
        Ad = columns.A.apply(d)
        dAd = dot(d, Ad)
        check_curvature(columns, dAd)
        x = columns.x + d * (dot(d, columns.r) / dAd)
        r = columns.A.project(columns.b - columns.A.apply(x))
        past = [*past, (d, Ad, dAd)][max(len(past) + 1 - q, 0) :]
        stay = columns.advance(x, r)
        if stay is not None:
            past = [(p[:, stay], Ap[:, stay], pAp[stay]) for p, Ap, pAp in past]
    return columns.result()


def flexible_cg(
    A: Operator,
    b: ArrayLike,
    preconditioner: Preconditioner,
    x0: ArrayLike | None = None,
    tol: float = 1e-4,
    maxiter: int = 1000,
    truncation: int = 1,
    callback: Callback | None = None,
) -> SolveResult:
    """Conjugate gradients with a preconditioner that need be neither linear nor symmetric.

    Parameters
    ----------
    preconditioner : callable (n, k) -> (n, k) or LinearOperator
    truncation : int
        Directions that are kept; more help where the preconditioner varies much.
    """
    direction = as_function(preconditioner)
    return conjugate_directions(A, b, direction, truncation, x0, tol, maxiter, callback)


def deflated_cg(
    A: Operator,
    b: ArrayLike,
    W: ArrayLike,
    x0: ArrayLike | None = None,
    tol: float = 1e-4,
    maxiter: int = 10_000,
    preconditioner: Preconditioner | None = None,
    callback: Callback | None = None,
) -> SolveResult:
    r"""Conjugate gradients on the complement of some vectors, in which b is solved exactly.

    .. math:: x_0 \leftarrow x_0 + W (W^\top A W)^{-1} W^\top r_0, \qquad
        p = z + \beta p - W (W^\top A W)^{-1} (A W)^\top z

    Parameters
    ----------
    W : array (n, m)
        Such as Ritz vectors of the smallest eigenvalues, see
        :class:`understudy.models.inverse.ritz.RitzVectors`.
    preconditioner : callable (n, k) -> (n, k) or LinearOperator, optional
        Linear, symmetric and positive definite.
    """
    operator = SPDOperator.of(A, np.shape(b)[0] if np.ndim(b) else None)
    V = operator.project(np.asarray(W, dtype=np.float64).reshape(operator.n, -1))
    AV = operator.apply(V)
    gram = cho_factor(V.T @ AV)

    def inner(z: Array) -> Array:
        return np.asarray(V @ cho_solve(gram, AV.T @ z))

    B = operator.right_hand_sides(b)
    start = np.zeros_like(B) if x0 is None else np.asarray(x0, np.float64).reshape(B.shape)
    start = start + V @ cho_solve(gram, V.T @ (B - operator.apply(start)))
    # the tolerance is relative to the residual of x0, as in every other solver here
    columns = Columns(operator, b, x0, tol, callback)
    columns.begin(start.reshape(np.shape(b)))
    return descend(columns, preconditioner, maxiter, lambda z: z - inner(z))


def jacobi(A: Operator) -> Preconditioner:
    """Division by the diagonal of a matrix; empty rows stay 0."""
    operator = SPDOperator.of(A)
    if operator.matrix is None:
        raise UserError("Jacobi's preconditioner needs a matrix, not a function")
    diagonal = operator.matrix.diagonal()
    inverse = np.divide(1.0, diagonal, out=np.zeros_like(diagonal), where=diagonal != 0.0)
    return lambda r: inverse[:, None] * r


@dataclass(frozen=True)
class IncompleteCholesky:
    r"""The preconditioner :math:`(L L^\top)^{-1}` of IC(0), made by :meth:`of`.

    Parameters
    ----------
    L : csr_array (n, n)
        Lower factor; empty rows of A have 1 on its diagonal.
    shift : float
        What was added to A, over its diagonal.
    factors : SuperLU
        L again, as what solves with it.
    """

    L: sp.csr_array
    shift: float
    factors: Any

    @classmethod
    def of(cls, A: Operator) -> IncompleteCholesky:
        r"""Factor a matrix.

        Parameters
        ----------
        A : operator
            A matrix. Where :math:`L L^\top` breaks down, a growing multiple of the diagonal is
            added to A (Manteuffel 1980).
        """
        operator = SPDOperator.of(A)
        if operator.matrix is None:
            raise UserError("incomplete Cholesky needs a matrix, not a function")
        lower = sp.csr_array(sp.tril(operator.matrix, format="csr"))
        if operator.solid is not None:
            lower = sp.csr_array(lower + sp.diags_array(operator.solid.astype(np.float64)))
        lower.sort_indices()
        shift = 0.0
        plan = _Plan(lower)
        for _ in range(_MOST_SHIFTS):
            values = plan.factor(lower.data, shift)
            if values is not None:
                L = sp.csr_array((values, lower.indices, lower.indptr), shape=lower.shape)
                # with the natural order and no pivoting this only stores L, and solves with it
                factors = splu(
                    sp.csc_array(L),
                    permc_spec="NATURAL",
                    diag_pivot_thresh=0.0,
                    options={"SymmetricMode": True},
                )
                return cls(L, shift, factors)
            shift = max(_FIRST_SHIFT, 2.0 * shift)
        raise UserError("incomplete Cholesky broke down: A is far from positive definite")

    def __call__(self, r: Array) -> Array:
        """Apply to residuals ``(n, k)``."""
        return np.asarray(self.factors.solve(self.factors.solve(r), trans="T"))


class _Plan:
    """In which order the entries of L can be computed, whole fronts at a time.

    Entry (i, j) waits for (j, j) and for all (i, k), (j, k) with k < j. Entries are numbered as in
    the rows of the lower half, so that the last of each row is its diagonal.
    """

    def __init__(self, lower: sp.csr_array) -> None:
        n = lower.shape[0]
        self._row = np.repeat(np.arange(n), np.diff(lower.indptr))
        column = lower.indices.astype(np.int64)
        self._diagonal = lower.indptr[1:].astype(np.int64) - 1
        if (np.diff(lower.indptr) == 0).any() or (column[self._diagonal] != np.arange(n)).any():
            raise UserError("incomplete Cholesky needs an entry in every place of the diagonal")
        self._column, count = column, len(column)
        into, first, second = _products(self._row, column, n)
        below = np.flatnonzero(self._row != column)
        waits = [(into, first), (into, second), (below, self._diagonal[column[below]])]
        target = np.concatenate([t for t, _ in waits])
        source = np.concatenate([s for _, s in waits])
        order = np.argsort(source, kind="stable")
        self._followers = _Lists(target[order], source[order], count)
        self._waiting = np.bincount(target, minlength=count)
        order = np.argsort(into, kind="stable")
        self._first, self._second = first[order], second[order]
        self._terms = _Lists(np.arange(len(into)), into[order], count)

    def factor(self, values: Array, shift: float) -> Array | None:
        """Entries of L; None where a diagonal entry would be the root of what is not positive."""
        L, waiting = values.copy(), self._waiting.copy()
        L[self._diagonal] *= 1.0 + shift
        scale = np.abs(L[self._diagonal])
        front = np.flatnonzero(waiting == 0)
        while front.size:
            terms, owner = self._terms.of(front)
            product = L[self._first[terms]] * L[self._second[terms]]
            value = L[front] - np.bincount(owner, weights=product, minlength=len(front))
            pivot = self._row[front] == self._column[front]
            if (value[pivot] <= _BREAKDOWN * scale[self._row[front[pivot]]]).any():
                return None
            value[pivot] = np.sqrt(value[pivot])
            value[~pivot] /= L[self._diagonal[self._column[front[~pivot]]]]
            L[front] = value
            followers, _ = self._followers.of(front)
            np.subtract.at(waiting, followers, 1)
            front = np.unique(followers[waiting[followers] == 0])
        return L


class _Lists:
    """Items by the number of their owner, owners ascending."""

    def __init__(self, items: NDArray, owners: NDArray, count: int) -> None:
        self._items = items
        self._start = np.searchsorted(owners, np.arange(count + 1))

    def of(self, owners: NDArray) -> tuple[NDArray, NDArray]:
        """Items of some owners, and the place of each one's owner among them."""
        start, length = self._start[owners], self._start[owners + 1] - self._start[owners]
        place = np.repeat(np.arange(len(owners)), length)
        within = np.arange(len(place)) - np.repeat(np.cumsum(length) - length, length)
        return self._items[start[place] + within], place


def _products(row: NDArray, column: NDArray, n: int) -> tuple[NDArray, NDArray, NDArray]:
    """Entries (i, j) of the pattern, and for each product L_ik L_jk the numbers of its factors."""
    order = np.argsort(column, kind="stable")  # column by column, rows ascending
    order = order[row[order] != column[order]]
    by_column = _Lists(order, column[order], n)
    # pairs of entries of one column: the second in a row that is not above
    first_of, place = by_column.of(column[order])
    i, j = row[first_of], row[order][place]
    keep = i >= j
    first, second, i, j = first_of[keep], order[place][keep], i[keep], j[keep]
    number = row.astype(np.int64) * n + column
    at = np.searchsorted(number, i.astype(np.int64) * n + j)
    at = np.minimum(at, len(number) - 1)
    held = number[at] == i.astype(np.int64) * n + j
    return at[held], first[held], second[held]
