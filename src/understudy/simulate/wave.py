r"""Waves on a square by finite elements.

.. math:: \partial_t^2 u = \nabla \cdot (c^2 \nabla u) + f, \qquad
    u = 0 \ \text{or}\ \partial_n u = 0 \text{ on the boundary}

With piecewise linear functions on triangles, assembled by scikit-fem, and :math:`c^2` linear on
each of them, M u'' + K u = M f. Two schemes go on in time.

*Newmark* (1959), with average acceleration (:math:`\beta = 1/4, \gamma = 1/2`) and the mass M as
it is; with :math:`u^+ = u + \tfrac{\Delta t}{2}(v + v^+)` it is

.. math:: \left(M + \tfrac{\Delta t^2}{4} K\right) v^+ = M v - \Delta t\, K \left(u +
    \tfrac{\Delta t}{4} v\right) + \Delta t\, M f .

It is stable at any step and conserves the energy :math:`(v^T M v + u^T K u)/2` without a load. The
matrix is factored once, for all steps and all runs in the same medium.

*Central differences* with the lumped mass (row sums :math:`m`), as velocity Verlet:
:math:`v^{1/2} = v + \tfrac{\Delta t}{2} a(u)`, :math:`u^+ = u + \Delta t\, v^{1/2}`,
:math:`v^+ = v^{1/2} + \tfrac{\Delta t}{2} a(u^+)` with :math:`a(u) = f - K u/m`. No system is
solved, and steps above :math:`2/\sqrt{\lambda_{\max}(m^{-1} K)}` are refused.

Media of a batch are blocks of one matrix, runs in the same medium columns of one right-hand side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from understudy.core.errors import UserError

Array: TypeAlias = NDArray[np.float64]
Boundary: TypeAlias = Literal["zero", "free"]
Scheme: TypeAlias = Literal["newmark", "central"]
Load: TypeAlias = Callable[[float], ArrayLike]
"""Values of f at the nodes, of the shape of u, at a time."""

_Columns: TypeAlias = Callable[[float], Array | None]
_Advance: TypeAlias = Callable[[float, Array, Array, int], tuple[Array, Array]]
"""From a time, displacement and velocity on by so many steps."""


class WaveFEM2D:
    """Waves on a mesh of triangles, in one medium or in several.

    Needs scikit-fem (extra ``fields``).

    Parameters
    ----------
    mesh : int or skfem.MeshTri
        Squares along each side of the unit square, cut into triangles, or any mesh.
    speed : float, array (n,) or array (M, n)
        Speed c at the nodes of the mesh; positive.
    boundary : {"zero", "free"}

    Attributes
    ----------
    nodes : array (n, 2)
        Where they are. Of the unit square they are in rows of equal x, so that values
        ``reshape(side + 1, side + 1)`` have x first.
    """

    def __init__(
        self, mesh: Any, speed: float | ArrayLike = 1.0, boundary: Boundary = "zero"
    ) -> None:
        if boundary not in ("zero", "free"):
            raise UserError(f"boundary must be 'zero' or 'free', found {boundary!r}")
        made = _square(mesh) if isinstance(mesh, int) else mesh
        self.nodes: Array = np.ascontiguousarray(made.p.T)
        count = len(self.nodes)
        c = np.asarray(speed, dtype=np.float64)
        if c.ndim == 0:
            c = np.full(count, float(c))
        if c.shape[-1] != count or c.ndim > 2:
            raise UserError(f"speed has shape {c.shape}, the mesh has {count} nodes")
        if not bool((c > 0).all()):
            raise UserError("speed must be positive")
        self._media = c.reshape(-1, count)
        self.boundary = boundary
        inside = made.interior_nodes() if boundary == "zero" else np.arange(count)
        self._inside: NDArray[np.intp] = np.asarray(inside)
        self.mass, self.stiffness = self._assembled(made)
        self._lumped = np.asarray(self.mass.sum(axis=1))

    def _assembled(self, mesh: Any) -> tuple[Any, Any]:
        """Mass and stiffness of all media, blocks of sparse matrices, at the nodes inside.

        Where the square of the speed is linear on a triangle, its local stiffness is that of speed
        1 times the mean square of its corners.
        """
        from scipy import sparse

        skfem = _skfem()
        from skfem.models.poisson import laplace, mass

        basis = skfem.Basis(mesh, skfem.ElementTriP1())
        squares = (self._media**2)[:, mesh.t].mean(axis=1)  # (M, triangles)
        local = laplace.coo_data(basis)
        pairs = local.data.reshape(-1, squares.shape[1])
        rows, columns = local.indices

        def at_nodes(values: Array) -> Any:
            whole = sparse.csr_array((values.ravel(), (rows, columns)))
            return whole[self._inside][:, self._inside]

        blocks = [at_nodes(pairs * square) for square in squares]
        one = sparse.csr_array(mass.assemble(basis))[self._inside][:, self._inside]
        whole = sparse.block_diag([one] * len(blocks), format="csr")
        return whole, sparse.block_diag(blocks, format="csr")

    # -- in time --------------------------------------------------------------------------------

    @cached_property
    def largest_step(self) -> float:
        """Time step above which central differences are unstable."""
        from scipy.sparse import diags_array
        from scipy.sparse.linalg import eigsh

        root = diags_array(1.0 / np.sqrt(self._lumped))
        start = np.random.default_rng(0).standard_normal(len(self._lumped))
        most = eigsh(root @ self.stiffness @ root, 1, return_eigenvectors=False, v0=start)
        return float(2.0 / np.sqrt(most[0]))

    @cached_property
    def _surely_stable_step(self) -> float:
        """Below the largest one, by Gershgorin's circles, at no cost."""
        rows = abs(self.stiffness).sum(axis=1) / self._lumped
        return float(2.0 / np.sqrt(rows.max()))

    def solve(
        self,
        u0: ArrayLike,
        v0: ArrayLike | None = None,
        *,
        dt: float,
        steps: int,
        every: int = 1,
        scheme: Scheme = "newmark",
        load: Load | None = None,
    ) -> tuple[Array, Array]:
        """Displacement and velocity at the start and after every so many steps.

        Parameters
        ----------
        u0 : array (..., n)
            First displacement. With M media, (M, n) or (M, K, n), K runs in each of them.
        v0 : array like u0, optional
            First velocity; 0 unless given.
        dt : float
        steps : int
        every : int
        scheme : {"newmark", "central"}
        load : callable (t) -> array like u0, optional

        Returns
        -------
        array (T + 1, ..., n), array (T + 1, ..., n)
            T = steps // every.
        """
        kept = zip(*self.march(u0, v0, dt, steps, every, scheme, load), strict=True)
        displacement, velocity = (np.stack(part) for part in kept)
        return displacement, velocity

    def march(
        self,
        u0: ArrayLike,
        v0: ArrayLike | None,
        dt: float,
        steps: int,
        every: int = 1,
        scheme: Scheme = "newmark",
        load: Load | None = None,
    ) -> Iterator[tuple[Array, Array]]:
        """What :meth:`solve` gives, one time after the other; the arguments are the same."""
        if scheme not in ("newmark", "central"):
            raise UserError(f"scheme must be 'newmark' or 'central', found {scheme!r}")
        if not dt > 0 or steps < 0 or every < 1:
            raise UserError(
                "dt must be positive, steps at least 0 and every at least 1, found "
                f"{dt:g}, {steps} and {every}"
            )
        start = np.asarray(u0, dtype=np.float64)
        u = self._columns(start)
        v = self._columns(np.zeros_like(start) if v0 is None else np.asarray(v0, dtype=np.float64))
        if u.shape != v.shape:
            raise UserError("first displacement and velocity must have the same shape")

        def f(t: float) -> Array | None:
            return None if load is None else self._columns(np.asarray(load(t), dtype=np.float64))

        advance = self._newmark(dt, f) if scheme == "newmark" else self._central(dt, f)
        yield self._fields(u, start.shape), self._fields(v, start.shape)
        for k in range(steps // every):
            u, v = advance(k * every * dt, u, v, every)
            yield self._fields(u, start.shape), self._fields(v, start.shape)

    def _newmark(self, dt: float, f: _Columns) -> _Advance:
        from scipy.sparse.linalg import splu

        M, K = self.mass, self.stiffness
        factored = splu(
            (M + dt**2 / 4 * K).tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )

        def advance(t: float, u: Array, v: Array, steps: int) -> tuple[Array, Array]:
            for k in range(steps):
                right = M @ v - dt * (K @ (u + dt / 4 * v))
                before, after = f(t + k * dt), f(t + (k + 1) * dt)
                if before is not None and after is not None:
                    right += dt / 2 * (M @ (before + after))
                ahead = factored.solve(right)
                u, v = u + dt / 2 * (v + ahead), ahead
            return u, v

        return advance

    def _central(self, dt: float, f: _Columns) -> _Advance:
        from scipy.sparse import diags_array

        if dt > self._surely_stable_step and dt > self.largest_step:
            raise UserError(
                f"a time step of {dt:.3g} is unstable with central differences, which bear "
                f"{self.largest_step:.3g} on this mesh; use shorter steps or scheme 'newmark'"
            )
        A = (diags_array(-1.0 / self._lumped) @ self.stiffness).tocsr()

        def acceleration(t: float, u: Array) -> Array:
            loaded = f(t)
            return A @ u if loaded is None else A @ u + loaded

        last: list[Array] = []

        def advance(t: float, u: Array, v: Array, steps: int) -> tuple[Array, Array]:
            a = last.pop() if last else acceleration(t, u)
            half = v + dt / 2 * a
            for k in range(1, steps + 1):
                u = u + dt * half
                a = acceleration(t + k * dt, u)
                # the second half of one kick and the first one of the next
                half = half + (dt if k < steps else dt / 2) * a
            last.append(a)
            return u, half

        return advance

    def energy(self, u: ArrayLike, v: ArrayLike, scheme: Scheme = "newmark") -> Array:
        """Energy of displacement and velocity ``(..., n)``, with the mass of the scheme.

        Returns
        -------
        array (...,)
        """
        shape = np.shape(u)
        x, y = (self._columns(np.asarray(part, dtype=np.float64)) for part in (u, v))
        moved = self.mass @ y if scheme == "newmark" else self._lumped[:, None] * y
        both = (y * moved + x * (self.stiffness @ x)) / 2
        media = len(self._media)
        return both.reshape(media, -1, both.shape[1]).sum(axis=1).reshape(shape[:-1])

    def _columns(self, fields: Array) -> Array:
        """Values inside ``(M * inside, K)`` of fields ``(..., n)``."""
        media, count = self._media.shape
        fits = fields.ndim and fields.shape[-1] == count
        if not fits or (media > 1 and (fields.ndim < 2 or fields.shape[0] != media)):
            lead = "(..., " if media == 1 else f"({media}, ..., "
            raise UserError(f"fields must be of shape {lead}{count}), found {fields.shape}")
        each = fields.reshape(media, -1, count)[..., self._inside]
        return np.ascontiguousarray(each.transpose(0, 2, 1).reshape(-1, each.shape[1]))

    def _fields(self, columns: Array, shape: tuple[int, ...]) -> Array:
        media, count = self._media.shape
        out = np.zeros((media, columns.shape[1], count))
        out[..., self._inside] = columns.reshape(media, -1, columns.shape[1]).transpose(0, 2, 1)
        return out.reshape(shape)


def _square(cells: int) -> Any:
    """Mesh of the unit square whose nodes are in rows of equal x."""
    if cells < 2:
        raise UserError(f"a mesh needs at least 2 squares a side, found {cells}")
    skfem = _skfem()
    side = np.linspace(0.0, 1.0, cells + 1)
    mesh = skfem.MeshTri.init_tensor(side, side)
    order = np.lexsort((mesh.p[1], mesh.p[0]))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return skfem.MeshTri(
        np.ascontiguousarray(mesh.p[:, order]), np.ascontiguousarray(place[mesh.t])
    )


def _skfem() -> Any:
    try:
        import skfem
    except ImportError as error:
        raise UserError(
            "waves by finite elements need scikit-fem; install it with "
            "pip install 'understudy[fields]'"
        ) from error
    return skfem
