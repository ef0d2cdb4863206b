"""``understudy hear``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from understudy.cli.options import Json, Quiet, readable, writable
from understudy.core.errors import UserError

if TYPE_CHECKING:
    from understudy.data.sound import ImpulseResponse
    from understudy.simulate.acoustics import RoomAcoustics

EXAMPLE = "[bold]Example[/]\n\nunderstudy hear room.json -s 1,1.2 -r 2.5,0.5 -o heard.wav"
_CUT = 0.05  # Pa, of a pulse of 1 Pa


def hear(
    room: Annotated[
        Path,
        typer.Argument(
            metavar="ROOM",
            help="Floor plan (.json or .csv) or room (.toml), which are solved, or a sound "
            "operator (.us).",
            show_default=False,
        ),
    ],
    source: Annotated[
        str, typer.Option("--source", "-s", metavar="X,Y", help="Where the pulse is, in metres.")
    ],
    receivers: Annotated[
        list[str],
        typer.Option(
            "--receiver", "-r", metavar="X,Y", help="Where one listens; repeatable, a channel each."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File (.wav) to write.", show_default=False)
    ],
    rate: Annotated[
        int | None, typer.Option(min=1, help="Samples a second; the solver's own by default.")
    ] = None,
    impedance: Annotated[
        list[str] | None,
        typer.Option(
            help="Of the walls of a floor plan: a number normalised by that of air (17.98 by "
            "default), rigid, soft, or porous:THICKNESS,RESISTIVITY; once, or once a side."
        ),
    ] = None,
    f_max: Annotated[
        float | None, typer.Option(help="Highest frequency in Hz, of a floor plan; else 500.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(help="Seconds, of a floor plan; else 0.03.")
    ] = None,
    padding: Annotated[
        float | None,
        typer.Option(help="Metres from the source to walls at least, of a floor plan; else 0.6."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write what receivers in a room hear of a pulse, as a WAV file."""
    room = readable(room)
    if output.suffix.lower() != ".wav":
        raise UserError(f"--output {output}: can write .wav, found {output.suffix or 'no suffix'}")
    output = writable(output, "--output", force, (room,))
    at = [_point(text, "--receiver") for text in receivers]
    options = {"f_max": f_max, "duration": duration, "padding": padding}
    given = {name: value for name, value in options.items() if value is not None}
    start = time.perf_counter()
    kind = room.suffix.lower()
    if kind in (".us", ".toml") and (given or impedance):
        said = "an operator has learnt its room" if kind == ".us" else f"the rest is in {room}"
        raise UserError(
            f"--impedance, --f-max, --duration and --padding are for floor plans; {said}"
        )
    if kind == ".us":
        heard = _asked(room, _point(source, "--source"), at)
    else:
        heard = _solved(room, _point(source, "--source"), at, impedance or [], given)
    seconds = time.perf_counter() - start
    if rate is not None:
        heard = heard.resampled(rate)
    heard.write(output)
    _print(heard, output, seconds, json, quiet)


def _asked(
    path: Path, source: tuple[float, float], receivers: list[tuple[float, float]]
) -> ImpulseResponse:
    from understudy.models.operators.sound import SoundOperator

    return SoundOperator.load(path).impulse_response(source, receivers)


def _solved(
    path: Path,
    source: tuple[float, float],
    receivers: list[tuple[float, float]],
    walls: list[str],
    options: dict[str, Any],
) -> ImpulseResponse:
    from understudy.cli.console import say
    from understudy.data.sound import ImpulseResponse

    acoustics = _acoustics(path, walls, options)
    heard = ImpulseResponse(acoustics.record([list(source)], receivers)[0], acoustics.rate)
    cut = acoustics.pulse.at_walls(acoustics.room, source)
    if cut > _CUT:
        say(
            f"warning: the pulse has {cut:.2g} Pa at the nearest wall already, so what is heard is "
            "not that of a source in the open; move it away, or raise --f-max",
            stderr=True,
        )
    return heard


def _acoustics(path: Path, walls: list[str], options: dict[str, Any]) -> RoomAcoustics:
    from understudy.data.rooms import Room
    from understudy.emulate.room_file import read_room
    from understudy.simulate.acoustics import RoomAcoustics, wall

    if path.suffix.lower() == ".toml":
        return read_room(path).acoustics()
    if walls:
        made = [wall(text, options.get("f_max", 500.0)) for text in walls]
        options["impedance"] = made[0] if len(made) == 1 else made
    return RoomAcoustics(Room.read(path), **options)


def _point(text: str, option: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{option} is X,Y in metres, such as 1,1.2; found {text!r}") from None
    return x, y


def _print(heard: ImpulseResponse, output: Path, seconds: float, json: bool, quiet: bool) -> None:
    from understudy.cli.console import print_json, say
    from understudy.cli.summary import print_file

    receivers, samples = heard.pressure.shape
    record: dict[str, Any] = {
        **{"output": str(output), "receivers": receivers, "samples": samples},
        **{"rate": heard.rate, "seconds": seconds},
        "peaks": heard.pressure.abs().amax(1).tolist(),
    }
    if json:
        print_json(record)
    elif not quiet:
        peaks = ", ".join(f"{peak:.3g}" for peak in record["peaks"])
        took = f"{1e3 * seconds:.3g} ms"
        say(f"{samples:,} samples at {heard.rate:,.0f} Hz in {took}; peak {peaks} Pa")
        print_file(output)
