r"""Undamped motion in time, :math:`M \ddot u + K u = M f`, of what finite elements assemble.

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

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from understudy.core.errors import UserError
from understudy.simulate.triangles import Array, Indices

Scheme: TypeAlias = Literal["newmark", "central"]
SCHEMES = ("newmark", "central")
Load: TypeAlias = Callable[[float], ArrayLike]
"""Values of f at the nodes, of the shape of u, at a time."""

_Columns: TypeAlias = Callable[[float], Array | None]
_Advance: TypeAlias = Callable[[float, Array, Array, int], tuple[Array, Array]]
"""From a time, displacement and velocity on by so many steps."""


class UndampedSystem:
    """Fields that swing, in one medium or in several.

    Parameters
    ----------
    mass, stiffness : csr_array (M I, M I)
        Blocks of M media, of I degrees of freedom that are free to move.
    lumped : array (M I,)
        Masses of central differences.
    inside : array of int (I,)
        Where these are in a flat field.
    shape : tuple of int
        Of a field; what is not inside stays 0.
    """

    def __init__(
        self, mass: Any, stiffness: Any, lumped: Array, inside: Indices, shape: tuple[int, ...]
    ) -> None:
        self.mass, self.stiffness = mass, stiffness
        self._lumped, self._inside, self._shape = lumped, inside, shape
        self._media = len(lumped) // len(inside)

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
        u0 : array (..., *shape)
            First displacement, of (n,) values at the nodes, or (2, n) where it has two components.
            With M media, (M, *shape) or (M, K, *shape), K runs in each of them.
        v0 : array like u0, optional
            First velocity; 0 unless given.
        dt : float
        steps : int
        every : int
        scheme : {"newmark", "central"}
        load : callable (t) -> array like u0, optional

        Returns
        -------
        array (T + 1, ..., *shape), array (T + 1, ..., *shape)
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
        if scheme not in SCHEMES:
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
        """Energy of displacement and velocity ``(..., *shape)``, with the mass of the scheme.

        Returns
        -------
        array (...,)
        """
        shape = np.shape(u)
        x, y = (self._columns(np.asarray(part, dtype=np.float64)) for part in (u, v))
        moved = self.mass @ y if scheme == "newmark" else self._lumped[:, None] * y
        both = (y * moved + x * (self.stiffness @ x)) / 2
        each = both.reshape(self._media, -1, both.shape[1]).sum(axis=1)
        return each.reshape(shape[: len(shape) - len(self._shape)])

    def _columns(self, fields: Array) -> Array:
        """Values inside ``(M * inside, K)`` of fields ``(..., *shape)``."""
        media, whole = self._media, self._shape
        lead = fields.shape[: max(fields.ndim - len(whole), 0)]
        fits = fields.shape[len(lead) :] == whole
        if not fits or (media > 1 and lead[:1] != (media,)):
            runs = "..." if media == 1 else f"{media}, ..."
            sizes = ", ".join(map(str, whole))
            raise UserError(f"fields must be of shape ({runs}, {sizes}), found {fields.shape}")
        each = fields.reshape(media, -1, math.prod(whole))[..., self._inside]
        return np.ascontiguousarray(each.transpose(0, 2, 1).reshape(-1, each.shape[1]))

    def _fields(self, columns: Array, shape: tuple[int, ...]) -> Array:
        media, count = self._media, math.prod(self._shape)
        out = np.zeros((media, columns.shape[1], count))
        out[..., self._inside] = columns.reshape(media, -1, columns.shape[1]).transpose(0, 2, 1)
        return out.reshape(shape)
