"""What ``understudy emulate`` does of a room."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from understudy.cli.options import saved

if TYPE_CHECKING:
    from understudy.emulate.rooms import RoomEmulation

STOPPED = 130
_CUT = 0.05  # Pa, of a pulse of 1 Pa
_WORDS = {
    "rmse": "error, RMS in Pa",
    "nearest_rmse": "the same of the nearest run learnt from",
    "rms": "sound, RMS in Pa",
    "relative_error": "relative error",
}


def room_emulated(
    room: Path, output: Path, budget: float, seed: int, device: str, json: bool, quiet: bool
) -> int:
    """Train an operator of a room, write it, and say how good it is; return the exit code."""
    from understudy.cli.console import counter
    from understudy.cli.emulating import EmulationDisplay
    from understudy.emulate.room_file import read_room
    from understudy.emulate.rooms import emulate_room, room_recordings

    silent = quiet or json
    problem = read_room(room)
    with counter(f"Solving {room.name}", not silent) as show:
        recordings = room_recordings(problem, seed, show)
    with EmulationDisplay(f"{room.name} by sound", silent) as display:
        found = emulate_room(recordings, budget, seed=seed, device=device, listener=display)
    saved(found.operator.save, output)
    _print(found, output, json, quiet)
    return STOPPED if found.facts["interrupted"] else 0


def _print(found: RoomEmulation, output: Path, json: bool, quiet: bool) -> None:
    from understudy.cli.console import print_json, print_table, say
    from understudy.cli.summary import print_file
    from understudy.emulate.rooms import TEST

    warned = _warnings(found)
    if json:
        record = {"output": str(output), "model": found.operator.model, "warnings": warned}
        print_json({**record, "scores": found.scores, "facts": found.facts})
        return
    for text in warned:
        say(f"warning: {text}", stderr=True)
    if quiet:
        return
    rows = [{"measure": _WORDS[name], "value": value} for name, value in found.scores.items()]
    columns = {"measure": f"on {TEST} unseen sources", "value": "value"}
    print_table(rows, columns, left=("measure",))
    facts = found.facts
    say(
        f"{facts['steps']:,} steps on {facts['sources']:,} sources, {facts['points']:,} points and "
        f"{facts['times']:,} times"
    )
    if facts["interrupted"]:
        say("training was interrupted; the best state up to then is kept", stderr=True)
    print_file(output)


def _warnings(found: RoomEmulation) -> list[str]:
    said = []
    cut = float(found.facts["cut"])
    if cut > _CUT:
        said.append(
            f"pulses of the outermost sources have {cut:.2g} Pa at the nearest wall already, so "
            "they are not those of sources in the open; raise padding, or f_max"
        )
    if found.scores["rmse"] > found.scores["nearest_rmse"]:
        said.append(
            "the nearest run that it learnt from is still nearer to the truth than the operator; "
            "train it for longer"
        )
    return said
