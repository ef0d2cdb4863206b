r"""A room on disk, in which sound is to be emulated: its plan, its walls, the pulse, the sources.

.. code-block:: toml

    [room]
    shape = "rectangle"     # or l-shape (side, cut), furnished (side), polygon (corners, obstacles)
    width = 3.0             # metres
    height = 3.0

    [walls]
    impedance = 17.98       # over that of air, or rigid, soft, porous:0.05,10000; or a list of them

    [sound]
    f_max = 500             # Hz
    duration = 0.03         # seconds

    [sources]
    padding = 0.8           # metres from walls at least
    lower = [1.0, 1.0]      # of a smaller box, in which they are to be
    upper = [2.0, 2.0]

    [network]
    width = 128
    depth = 3

In place of ``shape``, ``file`` names a floor plan (.json or .csv) beside the TOML file. All but the
room may be left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from understudy.core.errors import UserError
from understudy.core.space import nearest
from understudy.data.rooms import Array, Point, Room
from understudy.data.toml_files import read_toml
from understudy.models.operators.sound_network import SoundSettings
from understudy.simulate.acoustics import RoomAcoustics, wall
from understudy.simulate.acoustics.room_acoustics import PAPER_IMPEDANCE, PAPER_PADDING, Impedance

SOURCES_A_WAVELENGTH = 5.0
"""Of training along each axis, unless a spacing is given."""

_SHAPES = {
    "rectangle": ("width", "height"),
    "l-shape": ("side", "cut"),
    "furnished": ("side",),
    "polygon": ("corners", "obstacles"),
}
_KEYS = {
    "room": ("shape", "file", *dict.fromkeys(key for keys in _SHAPES.values() for key in keys)),
    "walls": ("impedance",),
    "sound": ("f_max", "duration", "points_per_wavelength"),
    "sources": ("padding", "spacing", "lower", "upper"),
    "network": ("width", "depth"),
}
_SMALL = SoundSettings(width=128, depth=3)
"""The network of the measured claims; the paper's is 2,048 wide."""


@dataclass(frozen=True)
class SoundProblem:
    """What is to be learnt of the sound in a room.

    Parameters
    ----------
    room : Room
    impedance : float or RationalAdmittance, or a tuple of them
        Of all walls, or of each side.
    sound : dict
        Options of :class:`~understudy.simulate.acoustics.room_acoustics.RoomAcoustics`.
    padding : float
        Metres between a source and walls at least.
    spacing : float, optional
        Metres between sources of training at most; a fifth of the shortest wavelength unless given.
    region : (corner, corner), optional
        Box in which the sources are.
    settings : SoundSettings
    """

    room: Room
    impedance: Impedance | tuple[Impedance, ...] = PAPER_IMPEDANCE
    sound: dict[str, float] = field(default_factory=dict)
    padding: float = PAPER_PADDING
    spacing: float | None = None
    region: tuple[Point, Point] | None = None
    settings: SoundSettings = _SMALL

    def acoustics(self) -> RoomAcoustics:
        """Return the solver."""
        return RoomAcoustics(self.room, self.impedance, padding=self.padding, **self.sound)  # type: ignore[arg-type]

    def sources(self, wavelength: float) -> Array:
        """Return positions ``(N, 2)`` of sources of training, for a shortest wavelength in m."""
        spacing = self.spacing or wavelength / SOURCES_A_WAVELENGTH
        return self.room.lattice(spacing, self.padding, self.region)


def read_room(path: str | Path) -> SoundProblem:
    """Read the file of a room; see the docstring of this module.

    Raises
    ------
    UserError
        That names the file, and what in it is unknown, missing or no number.
    """
    path = Path(path)
    try:
        return _problem(read_toml(path), path.parent)
    except UserError as error:
        said = str(error)
        raise UserError(said if said.startswith(str(path)) else f"{path}: {said}") from None


def _problem(content: dict[str, Any], folder: Path) -> SoundProblem:
    for section, keys in content.items():
        if section not in _KEYS or not isinstance(keys, dict):
            raise UserError(f"[{section}] is no section of a room{nearest(section, list(_KEYS))}")
        for key in keys:
            if key not in _KEYS[section]:
                raise UserError(f"[{section}] has no {key!r}{nearest(key, _KEYS[section])}")
    parts = {section: content.get(section, {}) for section in _KEYS}
    sound = {key: _number("sound", key, value) for key, value in parts["sound"].items()}
    sources = parts["sources"]
    sizes: dict[str, Any] = {key: _whole(key, value) for key, value in parts["network"].items()}
    spacing = sources.get("spacing")
    return SoundProblem(
        room=_room(parts["room"], folder),
        impedance=_walls(parts["walls"].get("impedance", PAPER_IMPEDANCE), sound.get("f_max", 500)),
        sound=sound,
        padding=_number("sources", "padding", sources.get("padding", PAPER_PADDING)),
        spacing=None if spacing is None else _number("sources", "spacing", spacing),
        region=_region(sources),
        settings=replace(_SMALL, **sizes),
    )


def _room(given: dict[str, Any], folder: Path) -> Room:
    if "file" in given:
        if len(given) > 1:
            raise UserError("[room] has a file, or a shape, not both")
        return Room.read(folder / str(given["file"]))
    shape = given.get("shape", "polygon" if "corners" in given else None)
    if not isinstance(shape, str) or shape not in _SHAPES:
        raise UserError(f"[room] needs a shape, found {shape!r}{nearest(shape, list(_SHAPES))}")
    own = {key: value for key, value in given.items() if key != "shape"}
    odd = [key for key in own if key not in _SHAPES[shape]]
    if odd:
        raise UserError(f"a room of the shape {shape} has no {odd[0]!r}")
    if shape == "polygon":
        return Room.from_description(own)
    missing = [key for key in _SHAPES[shape] if key not in own]
    if missing:
        raise UserError(f"a room of the shape {shape} needs {missing[0]!r}")
    sizes = {key: _number("room", key, value) for key, value in own.items()}
    makers: dict[str, Callable[..., Room]] = {
        "rectangle": Room.rectangle,
        "l-shape": Room.l_shape,
        "furnished": Room.furnished,
    }
    return makers[shape](**sizes)


def _walls(given: Any, f_max: float) -> Impedance | tuple[Impedance, ...]:
    if isinstance(given, list):
        return tuple(wall(str(each), f_max) for each in given)
    return wall(str(given), f_max)


def _region(sources: dict[str, Any]) -> tuple[Point, Point] | None:
    if "lower" not in sources and "upper" not in sources:
        return None
    if "lower" not in sources or "upper" not in sources:
        raise UserError("[sources] needs lower and upper, the corners of a box, or neither")
    corners = []
    for key in ("lower", "upper"):
        if not isinstance(sources[key], list) or len(sources[key]) != 2:
            raise UserError(f"[sources] {key} is [x, y] in metres, found {sources[key]!r}")
        x, y = (_number("sources", key, value, least=-math.inf) for value in sources[key])
        corners.append((x, y))
    return corners[0], corners[1]


def _number(section: str, key: str, value: Any, least: float = 0.0) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not least < value < math.inf
    ):
        wanted = "a positive number" if least == 0.0 else "a number"
        raise UserError(f"[{section}] {key} must be {wanted}, found {value!r}")
    return float(value)


def _whole(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 8192:
        raise UserError(f"[network] {key} must be a whole number from 1 on, found {value!r}")
    return value
