r"""Pressure that takes the divergence out of a flow around obstacles, and smoke in such a flow.

Pressures p are at the centres of cells, velocities u at their faces (a MAC grid), in units of
cells. With D the differences across faces and W = 1 where a face lies between fluid cells, or
between one and air, and 0 where it touches something solid,

.. math:: A p = D^\top W D\, p = D^\top W u, \qquad u \leftarrow W (u - D p)

leaves :math:`D^\top u = 0`. Outside the box is air, p = 0 one cell beyond the last centre, or a
wall. Without obstacles and with air all around, A is the usual matrix of second differences. Rows
of solid cells are empty. Where no air is reached, A has constants in its null space; solvers here
project them out.

The smoke follows the stable fluids of Stam (1999): what flows is carried along by tracing it back,
buoyancy lifts it, and the pressure takes the divergence out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from understudy.core.differences import face_differences
from understudy.core.errors import UserError
from understudy.core.linear_solver import Array, LinearSolver, SolverName, SPDOperator, solver_of

Walls: TypeAlias = Sequence[tuple[bool, bool]]
"""For each axis, whether its lower and its upper side is a wall rather than air."""
Obstacles: TypeAlias = Literal["discs", "boxes", "blobs"]
Solid: TypeAlias = NDArray[np.bool_]


def pressure_matrix(solid: Solid, walls: Walls | None = None) -> sp.csr_array:
    r"""Matrix :math:`D^\top W D` of the pressures.

    Parameters
    ----------
    solid : array of bool (*shape)
        Cells that are solid, in one to three dimensions.
    walls : sequence of (bool, bool), optional
        Air all around by default.

    Returns
    -------
    csr_array (n, n)
        Of cells in the order of the array; rows of solid cells are empty.
    """
    matrices = [
        D.T @ sp.diags_array(w.ravel()) @ D
        for D, w in zip(face_differences(solid.shape), openings(solid, walls), strict=True)
    ]
    total = sp.csr_array(sum(matrices[1:], start=matrices[0]))
    total.eliminate_zeros()
    return total


def openings(solid: Solid, walls: Walls | None = None) -> list[Array]:
    """W of the faces of each axis: the shape of the cells, with one more along that axis."""
    solid = np.asarray(solid)
    if solid.dtype != bool or solid.ndim not in (1, 2, 3) or not solid.size:
        raise UserError(
            f"solid must be booleans in one to three dimensions, found {solid.dtype} {solid.shape}"
        )
    if solid.all():
        raise UserError("every cell is solid")
    walls = [(False, False)] * solid.ndim if walls is None else walls
    if len(walls) != solid.ndim:
        raise UserError(f"walls must name {solid.ndim} pairs of sides, found {len(walls)}")
    found = []
    for axis, (low, high) in enumerate(walls):
        sides = [(0, 0)] * solid.ndim
        sides[axis] = (1, 1)
        padded = np.pad(solid, sides)
        along = np.moveaxis(padded, axis, 0)
        along[0], along[-1] = low, high
        free = ~(along[1:] | along[:-1])
        found.append(np.ascontiguousarray(np.moveaxis(free, 0, axis)).astype(np.float64))
    return found


def obstacles(
    shape: Sequence[int], share: float, kind: Obstacles = "discs", seed: int = 0
) -> Solid:
    """Cells that random obstacles fill.

    Parameters
    ----------
    shape : sequence of int
    share : float in [0, 0.9]
        Of the cells, that discs or boxes are added up to (the last may go beyond it), and that
        blobs fill.
    kind : {"discs", "boxes", "blobs"}
        Balls with radii of 4 to 12 % of the shortest side, boxes of such half-sides, or where
        smoothed noise is largest.
    seed : int
    """
    if not 0.0 <= share <= 0.9:
        raise UserError(f"share must be between 0 and 0.9, found {share:g}")
    if kind not in ("discs", "boxes", "blobs"):
        raise UserError(f"kind must be discs, boxes or blobs, found {kind!r}")
    draw = np.random.default_rng(seed)
    if kind == "blobs":
        noise = gaussian_filter(draw.standard_normal(shape), 0.05 * min(shape), mode="nearest")
        solid = np.zeros(shape, dtype=bool)
        count = round(share * noise.size)
        solid.flat[np.argsort(noise, axis=None)[noise.size - count :]] = True
        return solid
    centres = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")) + 0.5
    solid = np.zeros(shape, dtype=bool)
    while solid.mean() < share:
        middle = draw.uniform(0.0, shape).reshape(-1, *[1] * len(shape))
        radius = min(shape) * draw.uniform(0.04, 0.12)
        away = np.abs(centres - middle)
        distance = np.sqrt((away**2).sum(0)) if kind == "discs" else away.max(0)
        solid |= distance <= radius
    return solid


@dataclass(frozen=True)
class SmokeFrame:
    """Smoke of R runs at one time.

    Parameters
    ----------
    density : Tensor (R, n0, n1), float64
    u, v : Tensor (R, n0 + 1, n1), (R, n0, n1 + 1)
        Velocities through the faces of either axis, without divergence, in cells per unit of time.
    divergence : array (n0 n1, R)
        The right-hand sides that the pressure was solved for.
    pressure : array (n0 n1, R)
    """

    density: Tensor
    u: Tensor
    v: Tensor
    divergence: Array
    pressure: Array


class Smoke:
    """Smoke that rises past obstacles, in two dimensions; the first axis points upwards.

    Parameters
    ----------
    solid : array of bool (n0, n1)
    walls : sequence of (bool, bool), optional
        Air all around by default.
    time_step : float
        With speeds of a few cells per unit of time, of the order of 1.
    buoyancy : float
        Acceleration of density 1.
    solver : {"direct", "cg"} or LinearSolver
        Of the pressure; such as a
        :class:`~understudy.models.inverse.dcdm.DeepConjugateDirection`.
    """

    def __init__(
        self,
        solid: Solid,
        walls: Walls | None = None,
        time_step: float = 1.0,
        buoyancy: float = 0.1,
        solver: SolverName | LinearSolver = "direct",
    ) -> None:
        if np.ndim(solid) != 2:
            raise UserError(f"smoke is in two dimensions, found {np.ndim(solid)}")
        if not time_step > 0.0:
            raise UserError(f"time_step must be positive, found {time_step:g}")
        self.solid, self.time_step, self.buoyancy = solid, time_step, buoyancy
        self._openings = [torch.from_numpy(w) for w in openings(solid, walls)]
        self._differences = face_differences(solid.shape)
        self.matrix = pressure_matrix(solid, walls)
        self._operator, self._solver = SPDOperator(self.matrix), solver_of(solver)

    def run(self, steps: int, runs: int = 1, seed: int = 0) -> Iterator[SmokeFrame]:
        """Frames after each step; the sources of smoke differ between runs."""
        n0, n1 = self.solid.shape
        source = self._sources(runs, seed)
        density = source.clone()
        u = torch.zeros(runs, n0 + 1, n1, dtype=torch.float64)
        v = torch.zeros(runs, n0, n1 + 1, dtype=torch.float64)
        for _ in range(steps):
            density = torch.maximum(self._carried(density, u, v, (0.0, 0.0)), source)
            u, v = self._carried(u, u, v, (-0.5, 0.0)), self._carried(v, u, v, (0.0, -0.5))
            lift = F.pad(density, (0, 0, 1, 1))
            lift = (lift[:, 1:] + lift[:, :-1]) / 2
            u = u + self.time_step * self.buoyancy * lift
            u, v, divergence, pressure = self._projected(u, v)
            yield SmokeFrame(density, u, v, divergence, pressure)

    def _sources(self, runs: int, seed: int) -> Tensor:
        """Discs near the lower side, where there is no obstacle."""
        n0, n1 = self.solid.shape
        draw = torch.Generator().manual_seed(seed)
        place = torch.rand(2, runs, 1, 1, generator=draw, dtype=torch.float64)
        x, y = torch.meshgrid(torch.arange(n0) + 0.5, torch.arange(n1) + 0.5, indexing="ij")
        middle = (0.1 + 0.15 * place[0]) * n0, (0.25 + 0.5 * place[1]) * n1
        inside = (x - middle[0]) ** 2 + (y - middle[1]) ** 2 <= (0.08 * min(n0, n1)) ** 2
        return (inside & ~torch.from_numpy(self.solid)).double()

    def _carried(self, field: Tensor, u: Tensor, v: Tensor, shift: tuple[float, float]) -> Tensor:
        """Field traced back along the flow; its first point is off a centre by so many cells."""
        rows, columns = field.shape[1:]
        x = torch.arange(rows, dtype=torch.float64)[:, None] + shift[0]
        y = torch.arange(columns, dtype=torch.float64)[None, :] + shift[1]
        x, y = x.expand(len(field), rows, columns), y.expand(len(field), rows, columns)
        x, y = (
            x - self.time_step * _sampled(u, x + 0.5, y),
            y - self.time_step * _sampled(v, x, y + 0.5),
        )
        return _sampled(field, x - shift[0], y - shift[1])

    def _projected(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Array, Array]:
        runs = len(u)
        faces = [w * f for w, f in zip(self._openings, (u, v), strict=True)]
        b = sum(
            D.T @ f.reshape(runs, -1).numpy().T
            for D, f in zip(self._differences, faces, strict=True)
        )
        b = self._operator.project(np.asarray(b))
        p = self._solver.solve(self._operator, b).x
        u, v = (
            f - w * torch.from_numpy((D @ p).T.copy()).reshape(f.shape)
            for D, w, f in zip(self._differences, self._openings, faces, strict=True)
        )
        return u, v, b, p


def _sampled(field: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Fields ``(R, n, m)`` between their points, at positions ``(R, *, *)`` in units of points."""
    n, m = field.shape[1:]
    at = torch.stack([2.0 * y / (m - 1) - 1.0, 2.0 * x / (n - 1) - 1.0], dim=-1)
    found = F.grid_sample(field[:, None], at, padding_mode="border", align_corners=True)
    return found[:, 0]
