r"""Symmetric positive-definite systems :math:`A x = b`: what a solver is given and gives.

An operator is anything that multiplies: a SciPy sparse matrix, a dense one, a ``LinearOperator``, a
function from arrays (n, k) to arrays (n, k) such as a stencil, or an :class:`OperatorFamily`, which
has another operator for each right-hand side. :class:`SPDOperator` checks it once. What has no
inverse is solved on the complement of its null space:

- rows without entries (cells inside a solid) are left out: x is 0 there, and b has to be;
- constants that A takes to 0, on a connected part of a sparse matrix or everywhere, are projected
  out of b and of x, as is a null space that is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import LinearOperator, splu

from understudy.core.errors import UserError

Array: TypeAlias = NDArray[np.float64]
Product = Callable[[Array], Array]
Preconditioner: TypeAlias = Callable[[Array], Array] | LinearOperator
"""From residuals (n, k) to what stands for :math:`A^{-1}` of them."""
Callback = Callable[[Array], None]
"""Is given the iterate, in the shape of b, after every iteration."""
Operator: TypeAlias = Any
"""Sparse or dense matrix, LinearOperator, function, :class:`OperatorFamily` or SPDOperator."""

_SYMMETRY = 1e-8
_NULL = 1e-10


@dataclass(frozen=True)
class SolveResult:
    r"""Solution and course of an iteration; ``*k`` is ``()`` for one right-hand side.

    Parameters
    ----------
    x : array (n, *k)
    residuals : array (T + 1, *k)
        :math:`\|r_i\|/\|r_0\|`; once a right-hand side is done, its last one.
    iterations : array of int (*k)
    converged : array of bool (*k)
    """

    x: Array
    residuals: Array
    iterations: NDArray[np.int64]
    converged: NDArray[np.bool_]


class LinearSolver(Protocol):
    """What solves an SPD system; simulators take any."""

    def solve(self, A: Operator, b: ArrayLike, x0: ArrayLike | None = None) -> SolveResult:
        """Solve for b ``(n,)`` or ``(n, k)``."""


@dataclass(frozen=True)
class OperatorFamily:
    """An operator for each right-hand side.

    Parameters
    ----------
    apply : callable (coefficients (k, ...), X (n, k)) -> (n, k)
        Product of each column with its own operator.
    coefficients : array (k, ...)
    """

    apply: Callable[[NDArray, Array], Array]
    coefficients: NDArray


class SPDOperator:
    """An operator that was checked, as far as that is cheap, with its null space.

    Parameters
    ----------
    A : operator
    size : int, optional
        Number n of unknowns, where the operator does not say.
    null_space : array (n, m), optional
        Vectors that A takes to 0; found by itself where they are constants.

    Attributes
    ----------
    n : int
    matrix : csr_array or None
        The matrix, of a sparse or dense one.
    solid : array of bool (n,) or None
        Rows without entries.

    Raises
    ------
    UserError
        If A is not square, symmetric, finite or of that size, or has no positive diagonal.
    """

    def __init__(
        self, A: Operator, size: int | None = None, null_space: ArrayLike | None = None
    ) -> None:
        self.matrix: sp.csr_array | None = None
        self.solid: NDArray[np.bool_] | None = None
        self._family: OperatorFamily | None = None
        self._null: Any = None
        if sp.issparse(A) or isinstance(A, np.ndarray):
            self._take_matrix(A, size)
        else:
            self._take_product(A, size)
        if null_space is not None:
            self._null = self._orthonormal(null_space)

    @classmethod
    def of(cls, A: Operator, size: int | None = None) -> SPDOperator:
        """Return A if it was checked before, else check it."""
        if not isinstance(A, SPDOperator):
            return cls(A, size)
        if size is not None and size != A.n:
            raise UserError(f"b has {size} rows, but A has {A.n}")
        return A

    def _take_matrix(self, A: Any, size: int | None) -> None:
        matrix = sp.csr_array(A)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise UserError(f"A must be square, found the shape {matrix.shape}")
        if matrix.dtype.kind not in "fiub":
            raise UserError(f"A must hold real numbers, found {matrix.dtype}")
        matrix = matrix.astype(np.float64)
        matrix.eliminate_zeros()
        if size is not None and matrix.shape[0] != size:
            raise UserError(f"b has {size} rows, but A has {matrix.shape[0]}")
        if not np.isfinite(matrix.data).all():
            raise UserError("A holds values that are not finite")
        largest = np.abs(matrix.data).max(initial=0.0)
        if largest == 0.0:
            raise UserError("A has no entry that is not 0")
        if np.abs((matrix - matrix.T).data).max(initial=0.0) > _SYMMETRY * largest:
            raise UserError("A is not symmetric")
        self.n, self.matrix, self._product = matrix.shape[0], matrix, _product(matrix)
        filled = np.diff(matrix.indptr) > 0
        diagonal = matrix.diagonal()
        if (bad := np.flatnonzero(filled & (diagonal <= 0.0))).size:
            raise UserError(
                f"A is not positive definite: entry {bad[0]} of its diagonal is "
                f"{diagonal[bad[0]]:g}"
            )
        self.solid = None if filled.all() else ~filled
        self._null = _constants(matrix, filled)

    def _take_product(self, A: Any, size: int | None) -> None:
        if isinstance(A, LinearOperator):
            if A.shape[0] != A.shape[1]:
                raise UserError(f"A must be square, found the shape {A.shape}")
            if size is not None and A.shape[0] != size:
                raise UserError(f"b has {size} rows, but A has {A.shape[0]}")
            size, self._product = A.shape[0], A.matmat
        elif isinstance(A, OperatorFamily):
            self._family = A
        elif callable(A):
            self._product = A
        else:
            raise UserError(
                "A must be a sparse matrix, a LinearOperator or a function, "
                f"found {type(A).__name__}"
            )
        if size is None:
            raise UserError("a function does not say how many unknowns it has: name the size")
        self.n = size
        self._probe(1 if self._family is None else len(self._family.coefficients))

    def _probe(self, columns: int) -> None:
        """Check products with random vectors, and with a constant one."""
        u, v = np.random.default_rng(0).standard_normal((2, self.n, columns))
        Au, Av, Ac = (self.apply(x) for x in (u, v, np.ones((self.n, columns))))
        if not np.isfinite(Au).all():
            raise UserError("A times a finite vector is not finite")
        scale = np.sqrt(dot(Au, Au) * dot(v, v)).max()
        if np.abs(dot(v, Au) - dot(u, Av)).max() > _SYMMETRY * scale:
            raise UserError("A is not symmetric")
        if (dot(u, Au) <= 0.0).any():
            raise UserError("A is not positive definite along a random vector")
        if (np.sqrt(dot(Ac, Ac)) <= _NULL * np.sqrt(dot(Au, Au))).all():
            self._null = np.full((self.n, 1), 1.0 / math.sqrt(self.n))

    def _orthonormal(self, null_space: ArrayLike) -> Array:
        V = np.asarray(null_space, dtype=np.float64)
        V = V[:, None] if V.ndim == 1 else V
        if V.ndim != 2 or V.shape[0] != self.n or not np.isfinite(V).all():
            raise UserError(f"null_space must be finite and ({self.n}, m), found {V.shape}")
        return np.asarray(np.linalg.qr(V)[0])

    @property
    def held(self) -> NDArray[np.int64] | None:
        """An unknown of each closed part of a sparse matrix; None where there are other nulls."""
        if self._null is None:
            return np.zeros(0, dtype=np.int64)
        return np.asarray(self._null.argmax(axis=0)).ravel() if sp.issparse(self._null) else None

    def apply(self, X: Array) -> Array:
        """Product ``(n, k)`` with vectors ``(n, k)``."""
        AX = (
            self._product(X)
            if self._family is None
            else self._family.apply(self._family.coefficients, X)
        )
        if np.shape(AX) != X.shape:
            raise UserError(f"A gave the shape {np.shape(AX)} for vectors of shape {X.shape}")
        return np.asarray(AX, dtype=np.float64)

    def take(self, columns: NDArray) -> SPDOperator:
        """Operator for some right-hand sides only: another one of a family, else this one."""
        if self._family is None:
            return self
        less = object.__new__(SPDOperator)
        less.__dict__ = dict(self.__dict__)
        less._family = OperatorFamily(self._family.apply, self._family.coefficients[columns])
        return less

    def project(self, X: Array) -> Array:
        """Part of vectors ``(n, k)`` on which A can be inverted."""
        if self.solid is not None:
            X = np.where(self.solid[:, None], 0.0, X)
        return X if self._null is None else X - self._null @ (self._null.T @ X)

    def right_hand_sides(self, b: ArrayLike) -> Array:
        """Right-hand sides ``(n, k)``, checked and projected."""
        B = np.asarray(b)
        if B.dtype.kind not in "fiub" or B.ndim not in (1, 2):
            raise UserError(f"b must be real numbers (n,) or (n, k), found {B.dtype} {B.shape}")
        if B.shape[0] != self.n:
            raise UserError(f"b has {B.shape[0]} rows, but A has {self.n}")
        B = B.astype(np.float64).reshape(self.n, -1)
        if not B.shape[1]:
            raise UserError("b has no right-hand side")
        if not np.isfinite(B).all():
            raise UserError(f"b is not finite in row {np.flatnonzero(~np.isfinite(B).all(1))[0]}")
        if self.solid is not None and B[self.solid].any():
            row = np.flatnonzero(self.solid)[B[self.solid].any(1)][0]
            raise UserError(f"row {row} of A is empty, but b is not 0 there: no x solves it")
        return self.project(B)


def _product(matrix: sp.csr_array) -> Product:
    def product(X: Array) -> Array:
        if X.shape[1] == 1:  # faster than a product with a matrix of one column
            return np.asarray(matrix @ X[:, 0])[:, None]
        return np.asarray(matrix @ X)

    return product


def _constants(matrix: sp.csr_array, filled: NDArray[np.bool_]) -> sp.csr_array | None:
    """Unit vectors, constant on a part that is not connected to others, which A takes to 0."""
    surplus = np.abs(matrix @ np.ones(matrix.shape[0])) > _NULL * matrix.diagonal()
    if surplus[filled].all():
        return None
    parts, label = connected_components(matrix, directed=False)
    held = np.bincount(label, weights=surplus | ~filled, minlength=parts) > 0
    free = np.flatnonzero(~held)
    if not free.size:
        return None
    count = np.bincount(label, minlength=parts)
    rows = np.flatnonzero(~held[label])
    columns = np.searchsorted(free, label[rows])
    values = 1.0 / np.sqrt(count[label[rows]])
    return sp.csr_array((values, (rows, columns)), shape=(matrix.shape[0], free.size))


def dot(X: Array, Y: Array) -> Array:
    """Inner products ``(k,)`` of the columns of arrays ``(n, k)``."""
    if X.shape[1] == 1:
        return np.array([X[:, 0] @ Y[:, 0]])
    return np.asarray(np.einsum("nk,nk->k", X, Y))


class Columns:
    r"""Right-hand sides that an iteration works on; one that is done is taken out.

    Attributes
    ----------
    A : SPDOperator
        For those under way.
    b, x, r : array (n, k)
        Right-hand side, iterate and residual of those under way.
    steps : int
    """

    def __init__(
        self, A: Operator, b: ArrayLike, x0: ArrayLike | None, tol: float, callback: Callback | None
    ) -> None:
        if not 0.0 < tol < 1.0:
            raise UserError(f"tol must be between 0 and 1, found {tol:g}")
        shape = np.shape(b)
        self._whole = SPDOperator.of(A, shape[0] if shape else None)
        self.b = self._whole.right_hand_sides(b)
        self.x = np.zeros_like(self.b) if x0 is None else self._start(x0, shape)
        self.A, self._shape, self._tol, self._callback = self._whole, shape, tol, callback
        self.r = self.A.project(self.b - self.A.apply(self.x)) if x0 is not None else self.b.copy()
        k = self.b.shape[1]
        self._going, self._x, self.steps = np.arange(k), self.x.copy(), 0
        self._scale = np.sqrt(dot(self.r, self.r))
        self._iterations, self._converged = np.zeros(k, dtype=np.int64), self._scale == 0.0
        self._residuals = [np.where(self._converged, 0.0, 1.0)]
        self._keep(~self._converged)

    def _start(self, x0: ArrayLike, shape: tuple[int, ...]) -> Array:
        x = np.asarray(x0, dtype=np.float64)
        if x.shape != shape or not np.isfinite(x).all():
            raise UserError(f"x0 must be finite and of the shape {shape} of b, found {x.shape}")
        return self._whole.project(x.reshape(self.b.shape))

    def begin(self, x0: Array) -> None:
        """Go on from other iterates, of all right-hand sides; the tolerance stays as it is."""
        start = self._start(x0, self._shape)
        self.x = start[:, self._going]
        self.r = self.A.project(self.b - self.A.apply(self.x))

    @property
    def left(self) -> bool:
        """Whether any is under way."""
        return self._going.size > 0

    def advance(self, x: Array, r: Array) -> NDArray[np.bool_] | None:
        """Take the next iterates and residuals; give which stay under way, None for all."""
        self.x, self.r, self.steps = x, r, self.steps + 1
        norm = np.sqrt(dot(r, r)) / self._scale[self._going]
        latest = self._residuals[-1].copy()
        latest[self._going] = norm
        self._residuals.append(latest)
        self._iterations[self._going] = self.steps
        done = norm < self._tol
        self._converged[self._going] = done
        if self._callback is not None:
            self._x[:, self._going] = x
            self._callback(self._x.reshape(self._shape).copy())
        if not done.any():
            return None
        self._keep(~done)
        return np.asarray(~done)

    def _keep(self, stay: NDArray[np.bool_]) -> None:
        self._x[:, self._going] = self.x
        self.A = self.A.take(stay)
        self.b, self.x, self.r = self.b[:, stay], self.x[:, stay], self.r[:, stay]
        self._going = self._going[stay]

    def which(self, bad: NDArray[np.bool_]) -> int:
        """Number of the first of those under way for which something is the case."""
        return int(self._going[np.flatnonzero(bad)[0]])

    def result(self) -> SolveResult:
        """Solutions so far, of all."""
        self._x[:, self._going] = self.x
        k = self._shape[1:]
        return SolveResult(
            self._x.reshape(self._shape),
            np.stack(self._residuals).reshape(-1, *k),
            self._iterations.reshape(k),
            self._converged.reshape(k),
        )


def conjugate_gradients(
    A: Operator,
    b: ArrayLike,
    x0: ArrayLike | None = None,
    tol: float = 1e-4,
    maxiter: int = 10_000,
    preconditioner: Preconditioner | None = None,
    callback: Callback | None = None,
) -> SolveResult:
    r"""Preconditioned conjugate gradients for all right-hand sides at once.

    With :math:`z = M^{-1} r`,

    .. math:: \alpha = \frac{r \cdot z}{p \cdot A p}, \quad x^+ = x + \alpha p, \quad
        r^+ = r - \alpha A p, \quad p^+ = z^+ + \frac{r^+ \cdot z^+}{r \cdot z}\, p

    Parameters
    ----------
    A : operator
        Symmetric and positive definite, or singular as the module says.
    b : array (n,) or (n, k)
    x0 : array like b, optional
        Zeros by default.
    tol : float in (0, 1)
        Norm of the residual over the first.
    maxiter : int
    preconditioner : callable (n, k) -> (n, k) or LinearOperator, optional
        Linear, symmetric and positive definite; for others see
        :func:`understudy.models.inverse.krylov.flexible_cg`.

    Returns
    -------
    SolveResult

    Raises
    ------
    UserError
        If A or b will not do, or a direction shows that A or M is not positive definite.
    """
    columns = Columns(A, b, x0, tol, callback)
    return descend(columns, preconditioner, maxiter)


def descend(
    columns: Columns,
    preconditioner: Preconditioner | None,
    maxiter: int,
    turned: Callable[[Array], Array] = lambda z: z,
) -> SolveResult:
    """Conjugate gradients from where the columns are; directions are made of ``turned(z)``."""
    M = None if preconditioner is None else as_function(preconditioner)

    def conditioned(r: Array) -> Array:
        return r if M is None else columns.A.project(M(r))

    z = conditioned(columns.r)
    p, rz = turned(z), dot(columns.r, z)
    while columns.left and columns.steps < maxiter:
        Ap = columns.A.apply(p)
        curvature = dot(p, Ap)
        check_curvature(columns, curvature)
        step = rz / curvature
        stay = columns.advance(columns.x + step * p, columns.r - step * Ap)
        if not columns.left:
            break
        if stay is not None:
            p, rz = p[:, stay], rz[stay]
        z = conditioned(columns.r)
        before, rz = rz, dot(columns.r, z)
        p = turned(z) + (rz / before) * p
    return columns.result()


def as_function(M: Preconditioner) -> Callable[[Array], Array]:
    """Preconditioner as a function of arrays (n, k)."""
    if isinstance(M, LinearOperator):
        return lambda r: np.asarray(M.matmat(r), dtype=np.float64)
    return M


def check_curvature(columns: Columns, curvature: Array) -> None:
    r"""Refuse directions d along which :math:`d \cdot A d` is not positive."""
    if (bad := ~(curvature > 0.0)).any():
        raise UserError(
            f"A is not positive definite along a direction, or the direction is zero: d.Ad = "
            f"{curvature[bad][0]:g} in iteration {columns.steps + 1} of right-hand side "
            f"{columns.which(bad)}"
        )


@dataclass(frozen=True)
class ConjugateGradients:
    """Conjugate gradients as a :class:`LinearSolver`.

    Parameters
    ----------
    tol : float in (0, 1)
    maxiter : int
    """

    tol: float = 1e-10
    maxiter: int = 10_000

    def solve(self, A: Operator, b: ArrayLike, x0: ArrayLike | None = None) -> SolveResult:
        """See :func:`conjugate_gradients`."""
        return conjugate_gradients(A, b, x0, self.tol, self.maxiter)


class DirectSolver:
    """Sparse LU factors as a :class:`LinearSolver`; those of the last matrix are kept."""

    def __init__(self) -> None:
        self._known: tuple[Any, SPDOperator, Any, NDArray] | None = None

    def solve(self, A: Operator, b: ArrayLike, x0: ArrayLike | None = None) -> SolveResult:
        """Solve for all right-hand sides; ``x0`` is not needed.

        Raises
        ------
        UserError
            If A is no matrix, or has a null space beside empty rows and constants.
        """
        if self._known is None or self._known[0] is not A:
            self._known = (A, *_factorised(A))
        _, operator, factors, filled = self._known
        B = operator.right_hand_sides(b)
        x = np.zeros_like(B)
        x[filled] = factors.solve(B[filled])
        x = operator.project(x)
        scale = np.sqrt(dot(B, B))
        r = B - operator.apply(x)
        k = np.shape(b)[1:]
        residual = np.sqrt(dot(r, r)) / np.where(scale > 0.0, scale, 1.0)
        return SolveResult(
            x.reshape(np.shape(b)),
            np.stack([np.where(scale > 0.0, 1.0, 0.0), residual]).reshape(-1, *k),
            np.ones(k, dtype=np.int64),
            np.isfinite(residual).reshape(k),
        )


def _factorised(A: Operator) -> tuple[SPDOperator, Any, NDArray]:
    operator = SPDOperator.of(A)
    if operator.matrix is None:
        raise UserError("the direct solver needs a matrix, not a function")
    held = operator.held
    if held is None:
        raise UserError("the direct solver cannot take a null space that is given")
    filled = np.arange(operator.n)
    if operator.solid is not None:
        filled = np.flatnonzero(~operator.solid)
    # b has no part in the null space, so that an entry more holds each closed part and changes
    # nothing else
    more = np.zeros(operator.n)
    more[held] = operator.matrix.diagonal()[held]
    matrix = sp.csr_array(operator.matrix + sp.diags_array(more))
    return operator, splu(sp.csc_array(matrix[filled][:, filled])), filled


SolverName: TypeAlias = Literal["direct", "cg"]


def solver_of(solver: SolverName | LinearSolver) -> LinearSolver:
    """Solver of a name; one that is given is returned as it is."""
    if solver == "direct":
        return DirectSolver()
    if solver == "cg":
        return ConjugateGradients()
    if isinstance(solver, str) or not callable(getattr(solver, "solve", None)):
        raise UserError(
            f"solver must be 'direct', 'cg' or an object with solve(A, b), found {solver!r}"
        )
    return solver
