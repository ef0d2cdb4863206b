"""`understudy emulate` trains an operator, writes it with its page, and says how good it is."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest
import torch

from understudy.cli.emulating import EmulationDisplay, thumbnail
from understudy.emulate.run import Moment

from .conftest import Program

SMALL = ("-n", 12, "-b", "0.5s", "-s", "points=32", "-s", "steps=4")


def test_an_equation_is_emulated(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "a.us"
    done = program("emulate", "advection", "-o", path, "-m", "dilated", *SMALL)
    assert done.code == 0
    assert "relative error of a step" in done.out
    assert path.exists() and path.with_suffix(".html").exists()
    shown = program("show", path, "--json").record
    assert shown["network"] == "dilated" and shown["parameters"] == ["speed"]
    assert len(shown["test_errors"]) == 4
    said = program("show", path).out
    assert "time step" in said and f"error of last step: {shown['test_errors'][-1]:.4g}" in said


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc tells a file's folder")
def test_where_the_disk_filled_up_what_was_learnt_is_kept_elsewhere(
    program: Program,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fsync, path = os.fsync, tmp_path / "a.us"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("elsewhere")))

    def full_there(file: int) -> None:
        if Path(os.readlink(f"/proc/self/fd/{file}")).parent == tmp_path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    monkeypatch.setattr(os, "fsync", full_there)
    done = program("emulate", "advection", "-o", path, "-m", "dilated", *SMALL)
    assert done.code == 2 and not list(tmp_path.iterdir())
    assert "No space left on device; what was learnt is in " in done.err
    kept = Path(done.err.split("what was learnt is in ")[1].strip())
    assert program("show", kept, "--json").record["network"] == "dilated"


def test_a_file_is_emulated(program: Program, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    runs = tmp_path / "runs.h5"
    program("simulate", "darcy", "-n", 12, "-o", runs, "-s", "points=16")
    record = program(
        *("emulate", runs, "-o", tmp_path / "d.us", "-b", "0.5s", "--json"),
        *("--report", tmp_path / "page.html", "-m", "fno"),
    ).record
    assert record["model"] == "fno"
    assert record["scores"]["relative_error"] > 0
    assert record["facts"]["interrupted"] is False
    assert (tmp_path / "page.html").exists()


ROOM = """
[room]
shape = "rectangle"
width = 3.0
height = 2.4

[sound]
f_max = 300
duration = 0.006

[sources]
spacing = 0.4

[network]
width = 16
"""


def test_the_sound_of_a_room_is_learnt_and_heard(program: Program, tmp_path: Path) -> None:
    room, path, heard = (tmp_path / name for name in ("room.toml", "room.us", "heard.wav"))
    room.write_text(ROOM)
    done = program("emulate", room, "-o", path, "-b", "0.5s")
    assert done.code == 0
    assert "on 16 unseen sources" in done.out and "error, RMS in Pa" in done.out
    assert "Solving room.toml" in done.err and "Training: step 1" in done.err
    assert "have 0.51 Pa at the nearest wall" in done.err  # exp(-(0.6 / 0.728)^2)
    assert not (tmp_path / "room.html").exists()
    places = ("-s", "1.2,1.1", "-r", "2.4,0.5", "-o", heard, "--json", "--force")
    learnt = program("hear", path, *places).record
    solved = program("hear", room, *places).record
    assert learnt["samples"] == solved["samples"] and learnt["rate"] == solved["rate"]
    refused = program("hear", room, *places, "--f-max", 400)
    assert refused.code == 2 and "are for floor plans; the rest is in" in refused.err


def test_ctrl_c_keeps_what_was_learnt_of_a_room(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(display: EmulationDisplay, moment: Moment) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(EmulationDisplay, "__call__", press)
    (tmp_path / "room.toml").write_text(ROOM)
    done = program("emulate", tmp_path / "room.toml", "-o", tmp_path / "room.us")
    assert done.code == 130 and "training was interrupted" in done.err
    assert "1 steps on 24 sources, 238 points and 17 times" in done.out
    assert program("show", tmp_path / "room.us", "--json").record["operator"] == "sound"


def test_operators_are_listed(program: Program) -> None:
    record = program("emulate", "--list", "--json").record
    by_name = {line["name"]: line for line in record["operators"]}
    assert by_name["pde-refiner"] == {"name": "pde-refiner", "time": True, "steady": False}
    assert "mgno" in program("emulate", "--list").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name an equation or a file"),
        (("kss",), "no equation 'kss'"),
        (("missing.h5",), "there is no such file"),
        (("room.toml",), "of a room, only --output"),
        (("room.toml", "--online"), "of a room, only --output"),
        (("advection", "-m", "fnoo"), "no model 'fnoo'; did you mean 'fno'?"),
        (("advection", "-m", "cape", "-s", "speed=1"), "cape needs parameters"),
        (("advection", "--device", "tpu"), "--device is cpu or cuda"),
        (("advection", "-b", "soon"), "a budget is a positive time"),
        (("darcy", "-s", "points=16", "-m", "pde-refiner"), "not for one field a run"),
        (("advection", "-s", "points=36", "--stride", "9"), "nothing to predict"),
        (("advection", "--workers", "2"), "are for --online"),
        (("runs.h5", "--online"), "--online needs an equation"),
        (("ks", "--online", "-n", "12"), "--n is not for --online"),
        (("runs.h5", "-s", "points=16"), "--set is for equations"),
        (("runs.h5",), "--n is for equations; all runs of a file are taken"),
        (("ks", "--online", "--checkpoint", "missing/study"), "there is no folder missing"),
        (("ks", "-s", "points=many"), "option 'points' of ks is a number, found 'many'"),
    ],
)
def test_requests_are_refused_in_one_sentence(
    program: Program, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    small = () if "points=16" in arguments else ("-s", "steps=4")
    more = small if arguments and arguments[0] == "advection" else ()
    runs = () if "--online" in arguments or "missing.h5" in arguments else ("-n", 12)
    done = program("emulate", *arguments, *runs, "-o", tmp_path / "a.us", *more)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "a.us").exists()


def test_an_operator_is_no_surrogate_of_a_table(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "a.us"
    program("emulate", "advection", "-o", path, "-m", "dilated", *SMALL, "-q")
    done = program("predict", path, path)
    assert done.code == 2 and "understudy.load_operator reads it" in done.err


def test_nothing_is_replaced_unless_forced(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "a.us"
    path.write_text("mine")
    done = program("emulate", "advection", "-o", path, *SMALL)
    assert done.code == 2 and "--force replaces it" in done.err
    assert path.read_text() == "mine"


def test_a_device_is_no_file_to_replace(program: Program) -> None:
    done = program("emulate", "advection", "-o", "/dev/null", "--force", *SMALL)
    assert done.code == 2 and "/dev/null is a device" in done.err
    assert Path("/dev/null").is_char_device()


def test_the_thumbnail_shows_high_values_dark() -> None:
    ramp = torch.linspace(0, 1, 10).expand(4, 10)
    lines = thumbnail(torch.stack([ramp, ramp.flip(1)])).splitlines()
    assert lines[0].startswith("true") and lines[0].endswith("predicted")
    assert lines[1] == "  ░░▒▒▓▓██" + "  " + "██▓▓▒▒░░  "
