r"""A room cut into rectangular cells, and the wave equation's operator on their corners.

Pressure is known at the corners of cells (nodes), so that walls along grid lines hold nodes. Around
a node i lies a volume :math:`V_i`, a quarter of each cell of air that it touches; nodes j beside
it are linked through an area :math:`A_{ij}`, and walls take :math:`S_{is}` of side s,

.. math:: V_i\, \ddot p_i = c^2 \sum_j \frac{A_{ij}}{h_{ij}} (p_j - p_i)
    - c \sum_s S_{is}\, \frac{d}{dt}(Y_s * p_i),

a finite-volume scheme (Botteldooren 1995; Bilbao et al. 2016). Inside it is the five-point stencil.
A wall that is not along grid lines becomes a staircase, whose steps count by the cosine of their
angle with it, so that its length is right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.core.errors import UserError
from understudy.data.rooms import Room

_FEWEST = 4
"""Cells along an axis."""


@dataclass(frozen=True)
class RoomMesh:
    """Cells of a room, and what the scheme needs of them.

    Attributes
    ----------
    spacing : tuple of float
        Sides of a cell, in metres.
    lower : tuple of float
        First node.
    cells : array (nx - 1, ny - 1), bool
        Which cells are air.
    volumes : Tensor (nx ny,), float64
        Square metres around each node; 0 outside.
    walls : Tensor (W,), long
        Nodes whose surroundings are not all air, by their flat number.
    links : Tensor (W, 4), float64
        :math:`A/(h V)` of wall nodes with their neighbours below and above along x, then along y.
    surfaces : Tensor (W, S), float64
        Metres of each side of the room that a wall node takes, over its volume.
    """

    spacing: tuple[float, float]
    lower: tuple[float, float]
    cells: NDArray[np.bool_]
    volumes: Tensor
    walls: Tensor
    links: Tensor
    surfaces: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Nodes along each axis."""
        return self.cells.shape[0] + 1, self.cells.shape[1] + 1

    @property
    def nodes(self) -> Tensor:
        """Flat numbers ``(n,)`` of nodes in the room or on its walls."""
        return (self.volumes > 0.0).nonzero().flatten()

    @property
    def positions(self) -> Tensor:
        """Positions ``(nx ny, 2)`` of all nodes, float64."""
        axes = [
            low + h * torch.arange(n, dtype=torch.float64)
            for low, h, n in zip(self.lower, self.spacing, self.shape, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)

    @classmethod
    def of(cls, room: Room, largest: float) -> RoomMesh:
        """Mesh with cells of at most so many metres a side.

        Along each axis it has the smallest number of cells, up to a quarter above what is needed,
        with which all corners of the room are nodes; the smallest there is if there is none.
        """
        if not largest > 0.0:
            raise UserError(f"the spacing must be positive, found {largest:g} m")
        (x0, y0), (x1, y1) = room.bounds
        corners = room.sides[:, 0]
        nx = _count(x1 - x0, largest, corners[:, 0] - x0)
        ny = _count(y1 - y0, largest, corners[:, 1] - y0)
        hx, hy = (x1 - x0) / nx, (y1 - y0) / ny
        x, y = x0 + hx * (np.arange(nx) + 0.5), y0 + hy * (np.arange(ny) + 0.5)
        cells = room.contains(np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1))
        if not cells.any():
            raise UserError(f"no cell of {largest:g} m fits into the room; make them smaller")
        return cls._built(room, cells, (hx, hy), (x0, y0))

    @classmethod
    def _built(
        cls,
        room: Room,
        cells: NDArray[np.bool_],
        spacing: tuple[float, float],
        lower: tuple[float, float],
    ) -> RoomMesh:
        hx, hy = spacing
        air = np.pad(cells, 1).astype(np.float64)  # (nx + 1, ny + 1) around nx x ny nodes
        touched = air[1:, 1:] + air[:-1, 1:] + air[1:, :-1] + air[:-1, :-1]
        volumes = touched * hx * hy / 4.0
        below_x, above_x = air[:-1, :-1] + air[:-1, 1:], air[1:, :-1] + air[1:, 1:]
        below_y, above_y = air[:-1, :-1] + air[1:, :-1], air[:-1, 1:] + air[1:, 1:]
        areas = np.stack(
            [
                *(0.5 * hy / hx * below_x, 0.5 * hy / hx * above_x),
                *(0.5 * hx / hy * below_y, 0.5 * hx / hy * above_y),
            ],
            axis=-1,
        )
        walls = np.flatnonzero((touched > 0) & (touched < 4))
        inside = volumes.reshape(-1)[walls]
        surfaces = _surfaces(room, cells, spacing, lower).reshape(-1, len(room.sides))
        return cls(
            spacing=spacing,
            lower=lower,
            cells=cells,
            volumes=torch.from_numpy(volumes.reshape(-1)),
            walls=torch.from_numpy(walls),
            links=torch.from_numpy(areas.reshape(-1, 4)[walls] / inside[:, None]),
            surfaces=torch.from_numpy(surfaces[walls] / inside[:, None]),
        )

    def interpolation(self, points: NDArray[np.float64], what: str) -> tuple[Tensor, Tensor]:
        """Nodes ``(R, 4)`` around points ``(R, 2)`` and their weights, for bilinear values.

        Raises
        ------
        UserError
            If a point is not in a cell of air.
        """
        nx, ny = self.shape
        at = (points - np.array(self.lower)) / np.array(self.spacing)
        upper = np.array([nx - 2, ny - 2])
        low = np.clip(np.floor(at), 0, upper).astype(np.int64)
        share = at - low
        outside = (share < -1e-9).any(1) | (share > 1.0 + 1e-9).any(1)
        outside |= ~self.cells[low[:, 0], low[:, 1]]
        if outside.any():
            k = int(outside.argmax())
            raise UserError(
                f"{what} {k + 1} at ({points[k, 0]:g}, {points[k, 1]:g}) m is outside the room"
            )
        corner = low[:, 0] * ny + low[:, 1]
        nodes = np.stack([corner, corner + 1, corner + ny, corner + ny + 1], axis=1)
        u, v = share[:, 0], share[:, 1]
        weights = np.stack([(1 - u) * (1 - v), (1 - u) * v, u * (1 - v), u * v], axis=1)
        return torch.from_numpy(nodes), torch.from_numpy(weights)


def _count(length: float, largest: float, corners: NDArray[np.float64]) -> int:
    least = max(_FEWEST, math.ceil(length / largest - 1e-9))
    for n in range(least, math.ceil(1.25 * least) + 1):
        at = corners * n / length
        if np.abs(at - np.round(at)).max() < 1e-6:
            return n
    return least


def _surfaces(
    room: Room,
    cells: NDArray[np.bool_],
    spacing: Sequence[float],
    lower: Sequence[float],
) -> NDArray[np.float64]:
    """Metres of each side that nodes take, ``(nx, ny, S)``; half a face a node."""
    hx, hy = spacing
    ends = room.sides
    along = ends[:, 1] - ends[:, 0]
    normal = np.abs(along[:, ::-1]) / np.linalg.norm(along, axis=1, keepdims=True)
    taken = np.zeros((cells.shape[0] + 1, cells.shape[1] + 1, len(ends)))
    for axis, length, middle in ((0, hy, (0.0, 0.5)), (1, hx, (0.5, 0.0))):
        faces = np.argwhere(np.diff(np.pad(cells, 1).astype(np.int8), axis=axis) != 0)
        faces[:, 1 - axis] -= 1  # the padding
        centre = np.array(lower) + (faces + np.array(middle)) * np.array([hx, hy])
        # of equally near sides the one that the face lies along
        side = (room.distances(centre) - 1e-6 * max(hx, hy) * normal[:, axis]).argmin(1)
        part = 0.5 * length * normal[side, axis]
        other = faces.copy()
        other[:, 1 - axis] += 1
        for node in (faces, other):
            np.add.at(taken, (node[:, 0], node[:, 1], side), part)
    return taken
