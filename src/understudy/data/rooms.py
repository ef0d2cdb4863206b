"""Rooms with straight walls, and their files."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from understudy.core.errors import UserError

Point: TypeAlias = tuple[float, float]
Polygon: TypeAlias = tuple[Point, ...]
Array: TypeAlias = NDArray[np.float64]

_ROUNDING = 1e-6
"""Metres within which two places are one."""


@dataclass(frozen=True)
class Room:
    """Floor plan of a room: a polygon, and polygons within it that are solid, such as furniture.

    Parameters
    ----------
    corners : sequence of (float, float)
        Corners in metres, in order; the last is joined to the first.
    obstacles : sequence of sequence of (float, float), optional
        Solid parts that touch neither the walls nor one another.

    Raises
    ------
    UserError
        If sides cross or touch, a side has no length, or an obstacle is not inside.
    """

    corners: Polygon
    obstacles: tuple[Polygon, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "corners", _polygon(self.corners, "the room"))
        solid = tuple(_polygon(o, f"obstacle {k}") for k, o in enumerate(self.obstacles, start=1))
        object.__setattr__(self, "obstacles", solid)
        self._check_obstacles()

    @classmethod
    def rectangle(cls, width: float, height: float) -> Room:
        """Rectangle from the origin to (width, height)."""
        return cls(((0.0, 0.0), (width, 0.0), (width, height), (0.0, height)))

    @classmethod
    def l_shape(cls, side: float, cut: float) -> Room:
        """Square of a side, from whose upper right corner a square of side `cut` is missing."""
        if not 0.0 < cut < side:
            raise UserError(f"cut must lie between 0 and the side of {side:g}, found {cut:g}")
        s, r = side, side - cut
        return cls(((0.0, 0.0), (s, 0.0), (s, r), (r, r), (r, s), (0.0, s)))

    @classmethod
    def furnished(cls, side: float) -> Room:
        """Square of a side with two solid pieces: a table and a cupboard."""
        table = _box(side, (0.125, 0.625), (0.375, 0.875))
        cupboard = _box(side, (0.75, 0.125), (0.875, 0.375))
        return cls(_box(side, (0.0, 0.0), (1.0, 1.0)), (table, cupboard))

    # -- geometry -----------------------------------------------------------------------------

    @property
    def sides(self) -> Array:
        """Ends ``(S, 2, 2)`` of all sides, those of the room first."""
        rings = (np.array(ring) for ring in (self.corners, *self.obstacles))
        return np.concatenate([np.stack([r, np.roll(r, -1, axis=0)], axis=1) for r in rings])

    @property
    def bounds(self) -> tuple[Point, Point]:
        """Lower left and upper right corner of the smallest box around the room."""
        ring = np.array(self.corners)
        (x0, y0), (x1, y1) = ring.min(0), ring.max(0)
        return (float(x0), float(y0)), (float(x1), float(y1))

    @property
    def area(self) -> float:
        """Square metres of air."""
        return _area(self.corners) - sum(_area(ring) for ring in self.obstacles)

    def contains(self, points: ArrayLike) -> NDArray[np.bool_]:
        """Which points ``(..., 2)`` are in the air; those on a wall may be counted as either."""
        at = np.asarray(points, dtype=np.float64)[..., None, :]
        a, b = self.sides[:, 0], self.sides[:, 1]
        spans = (a[:, 1] > at[..., 1]) != (b[:, 1] > at[..., 1])
        rise = np.where(a[:, 1] == b[:, 1], 1.0, b[:, 1] - a[:, 1])
        crossing = a[:, 0] + (at[..., 1] - a[:, 1]) / rise * (b[:, 0] - a[:, 0])
        inside: NDArray[np.bool_] = (spans & (at[..., 0] < crossing)).sum(-1) % 2 == 1
        return inside

    def distances(self, points: ArrayLike) -> Array:
        """Distances ``(..., S)`` of points ``(..., 2)`` from all sides."""
        at = np.asarray(points, dtype=np.float64)[..., None, :]
        a = self.sides[:, 0]
        along = self.sides[:, 1] - a
        share = ((at - a) * along).sum(-1) / (along**2).sum(-1)
        gap: Array = np.linalg.norm(at - a - np.clip(share, 0.0, 1.0)[..., None] * along, axis=-1)
        return gap

    def clearance(self, points: ArrayLike) -> Array:
        """Distance ``(...)`` of points from the nearest wall, negative where there is no air."""
        gap = self.distances(points).min(-1)
        return np.where(self.contains(points), gap, -gap)

    def require(self, points: ArrayLike, what: str, clearance: float = 0.0) -> Array:
        """Points ``(n, 2)``, refused where one is not in the air or too close to a wall.

        Raises
        ------
        UserError
            That names the first such point.
        """
        at = np.atleast_2d(np.asarray(points, dtype=np.float64))
        if at.ndim != 2 or at.shape[1] != 2 or not len(at):
            raise UserError(f"{what} positions must be of shape (n, 2), found {at.shape}")
        if not np.isfinite(at).all():
            raise UserError(f"{what} positions must be finite")
        room = self.clearance(at)
        # a point on a wall is as much in the air as in the wall, and single precision rounds
        bad = room < clearance - _ROUNDING
        if bad.any():
            k = int(bad.argmax())
            name = f"{what} {k + 1} at ({at[k, 0]:g}, {at[k, 1]:g}) m"
            if room[k] < -_ROUNDING:
                raise UserError(f"{name} is outside the room or inside a wall")
            raise UserError(
                f"{name} is {room[k]:.3g} m from a wall; at least {clearance:g} m are needed"
            )
        return at

    def lattice(
        self,
        spacing: float,
        clearance: float = 0.0,
        within: tuple[Point, Point] | None = None,
    ) -> Array:
        """Points ``(n, 2)`` of a rectangular lattice with so much room around each.

        Parameters
        ----------
        spacing : float
            At most so far apart along each axis, in metres.
        clearance : float
            From walls, in metres; the outermost points are that far from the walls of the box.
        within : (corner, corner), optional
            Lower and upper corner of a smaller box, on whose sides the outermost points are then.
        """
        if not spacing > 0.0 or not clearance >= 0.0:
            raise UserError("spacing must be positive and clearance at least 0")
        axes = []
        edge = clearance if within is None else 0.0
        for low, high in zip(*(within or self.bounds), strict=True):
            length = high - low - 2.0 * edge
            if length < 0.0:
                raise UserError(
                    f"no point of a room of {high - low:g} m is {clearance:g} m from its walls"
                    if within is None
                    else f"the corner at {high:g} m must be above that at {low:g} m"
                )
            count = max(1, math.ceil(length / spacing - 1e-9)) + 1
            axes.append(np.linspace(low + edge, high - edge, count))
        at = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
        chosen: Array = at[self.clearance(at) >= clearance - 1e-9]
        return chosen

    # -- files --------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """JSON from which :meth:`from_description` makes the room."""
        return {
            "corners": [list(point) for point in self.corners],
            "obstacles": [[list(point) for point in ring] for ring in self.obstacles],
        }

    @classmethod
    def from_description(cls, described: Any) -> Room:
        """Room of ``{"corners": [[x, y], ...], "obstacles": [[[x, y], ...], ...]}``."""
        if not isinstance(described, dict) or "corners" not in described:
            raise UserError("a room is described by 'corners' and, if need be, 'obstacles'")
        more = set(described) - {"corners", "obstacles"}
        if more:
            raise UserError(f"a room has corners and obstacles, not {min(more)!r}")
        solid = described.get("obstacles", ())
        if not isinstance(solid, list | tuple):
            raise UserError(f"obstacles of a room are a list of polygons, found {solid!r}")
        return cls(described["corners"], tuple(solid))

    @classmethod
    def read(cls, path: str | Path) -> Room:
        """Room of a file.

        A JSON file is as in :meth:`from_description`. A CSV file has the columns x and y, and
        perhaps polygon: rows of the first polygon are the room, those of others obstacles.

        Raises
        ------
        UserError
            If the file cannot be read, or what it describes is no room.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the room {path}: {error}") from error
        try:
            if path.suffix.lower() == ".csv":
                return _from_csv(text)
            return cls.from_description(json.loads(text))
        except (UserError, json.JSONDecodeError) as error:
            raise UserError(f"{path} describes no room: {error}") from error

    # -- what is refused ----------------------------------------------------------------------

    def _check_obstacles(self) -> None:
        rings = [("the walls", self.corners)]
        rings += [(f"obstacle {k}", ring) for k, ring in enumerate(self.obstacles, start=1)]
        for (one, p), (other, q) in combinations(rings, 2):
            if _touching(_edges(p), _edges(q)).any():
                raise UserError(
                    f"{other} touches {one}; draw what stands against another as one polygon"
                )
        for k, (name, ring) in enumerate(rings[1:]):
            rest = self.obstacles[:k] + self.obstacles[k + 1 :]
            outside = not _inside(self.corners, ring[0])
            if outside or any(_inside(other, ring[0]) for other in rest):
                raise UserError(f"{name} is not in the air of the room")


def _box(side: float, low: Point, high: Point) -> Polygon:
    (x0, y0), (x1, y1) = ((side * x, side * y) for x, y in (low, high))
    return ((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def _polygon(points: Sequence[Sequence[float]], what: str) -> Polygon:
    """Corners, counter-clockwise; what is no simple polygon is refused."""
    try:
        ring = np.array([[float(x), float(y)] for x, y in points])
    except (TypeError, ValueError) as error:
        raise UserError(f"corners of {what} must be pairs of numbers") from error
    if len(ring) < 3:
        raise UserError(f"{what} needs at least three corners, found {len(ring)}")
    if not np.isfinite(ring).all():
        raise UserError(f"corners of {what} must be finite")
    corners = tuple((float(x), float(y)) for x, y in ring)
    edges = _edges(corners)
    short = np.linalg.norm(edges[:, 1] - edges[:, 0], axis=1) <= 1e-9
    if short.any():
        k = int(short.argmax())
        raise UserError(f"side {k + 1} of {what} has no length: two corners in a row are equal")
    _refuse_crossings(edges, what)
    turn = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in edges.tolist())
    return corners if turn > 0.0 else corners[::-1]


def _refuse_crossings(edges: Array, what: str) -> None:
    count = len(edges)
    met = _touching(edges, edges)
    i, j = np.indices(met.shape)
    neighbours = (i == j) | ((i - j) % count == 1) | ((j - i) % count == 1)
    crossing = np.argwhere(met & ~neighbours)
    if len(crossing):
        first, second = sorted(int(k) + 1 for k in crossing[0])
        raise UserError(f"{what} intersects itself: sides {first} and {second} meet")
    along = edges[:, 1] - edges[:, 0]
    after = np.roll(along, -1, axis=0)
    turn = along[:, 0] * after[:, 1] - along[:, 1] * after[:, 0]
    length = np.linalg.norm(along, axis=1) * np.linalg.norm(after, axis=1)
    back = (np.abs(turn) <= 1e-12 * length) & ((along * after).sum(1) < 0.0)
    if back.any():
        raise UserError(f"{what} intersects itself: side {int(back.argmax()) + 1} is run back over")


def _edges(ring: Polygon) -> Array:
    at = np.array(ring)
    return np.stack([at, np.roll(at, -1, axis=0)], axis=1)


def _touching(p: Array, q: Array) -> NDArray[np.bool_]:
    """Which of the segments ``(n, 2, 2)`` and ``(m, 2, 2)`` share a point, ``(n, m)``."""
    a, b = p[:, None, 0], p[:, None, 1]
    c, d = q[None, :, 0], q[None, :, 1]
    sides = [_side(a, b, c), _side(a, b, d), _side(c, d, a), _side(c, d, b)]
    proper = (sides[0] * sides[1] < 0) & (sides[2] * sides[3] < 0)
    ends = [(a, b, c), (a, b, d), (c, d, a), (c, d, b)]
    on = [(s == 0) & _between(*of) for s, of in zip(sides, ends, strict=True)]
    met: NDArray[np.bool_] = proper | np.any(on, axis=0)
    return met


def _side(a: Array, b: Array, c: Array) -> Array:
    """On which side of the line from a to b the point c is: -1, 0 or 1."""
    area = (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1])
    area = area - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
    scale = np.abs(b - a).max(-1) * np.maximum(np.abs(c - a).max(-1), np.abs(b - a).max(-1))
    return np.where(np.abs(area) <= 1e-12 * scale, 0.0, np.sign(area))


def _between(a: Array, b: Array, c: Array) -> NDArray[np.bool_]:
    """Whether c, on the line of a and b, is in the box of both."""
    above, below = (np.minimum(a, b) <= c).all(-1), (c <= np.maximum(a, b)).all(-1)
    return np.asarray(above & below)


def _inside(ring: Polygon, point: Point) -> bool:
    x, y = point
    inside = False
    for (x0, y0), (x1, y1) in _edges(ring).tolist():
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) / (y1 - y0) * (x1 - x0):
            inside = not inside
    return inside


def _area(ring: Polygon) -> float:
    return 0.5 * sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in _edges(ring).tolist())


def _from_csv(text: str) -> Room:
    rows = list(csv.DictReader(text.splitlines()))
    if not rows or not {"x", "y"} <= set(rows[0]):
        raise UserError("a table of corners needs the columns x and y")
    rings: dict[str, list[Point]] = {}
    for number, row in enumerate(rows, start=1):
        try:
            point = (float(row["x"]), float(row["y"]))
        except (TypeError, ValueError):
            raise UserError(f"row {number} has no numbers x and y") from None
        rings.setdefault(row.get("polygon") or "", []).append(point)
    first, *rest = rings.values()
    return Room(tuple(first), tuple(tuple(ring) for ring in rest))
