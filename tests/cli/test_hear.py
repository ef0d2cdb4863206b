"""`understudy hear` writes what a room does to a pulse, by the solver or by an operator."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from understudy.data.rooms import Room
from understudy.models.operators.sound import SoundOperator, SoundSettings, SoundTraining
from understudy.simulate.acoustics import RoomAcoustics, impulse_response

from .conftest import Program

SHORT = ("--f-max", 300, "--duration", 0.008)
PLACES = ("--source", "1.2,1.1", "--receiver", "2.4,0.5")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rooms") / "room.json"
    path.write_text(json.dumps(Room.rectangle(3.0, 2.4).describe()))
    return path


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    acoustics = RoomAcoustics(Room.rectangle(3.0, 2.4), f_max=300.0, duration=0.008)
    data = acoustics.solve(acoustics.room.lattice(0.4, 0.6))
    training = SoundTraining(steps=3, sources=4, points=50)
    fitted = SoundOperator(SoundSettings(num_basis=8, width=16)).fit(data, training=training)
    return fitted.save(tmp_path_factory.mktemp("sound") / "room.us")


def test_a_floor_plan_is_solved(program: Program, plan: Path, tmp_path: Path) -> None:
    path = tmp_path / "heard.wav"
    record = program(*("hear", plan, *PLACES, "-r", "0.3,0.3", "-o", path, "--json", *SHORT)).record
    rate, samples = wavfile.read(path)
    expected = impulse_response(
        Room.read(plan), (1.2, 1.1), [[2.4, 0.5], [0.3, 0.3]], f_max=300.0, duration=0.008
    )
    np.testing.assert_array_equal(samples, expected.pressure.T.numpy())
    assert (rate, record["receivers"], record["samples"]) == (expected.rate, 2, len(samples))
    assert record["peaks"] == pytest.approx(np.abs(samples).max(0))


def test_walls_are_heard(program: Program, plan: Path, tmp_path: Path) -> None:
    late = {}
    for walls in ("rigid", "17.98", "porous:0.1,8000", "1"):
        path = tmp_path / "heard.wav"
        more = ("--impedance", walls, "--duration", 0.03, "--rate", 8000)
        done = program("hear", plan, *PLACES, "-o", path, "--force", *more)
        assert done.code == 0 and "8,000 Hz" in done.out
        rate, samples = wavfile.read(path)
        assert rate == 8000
        late[walls] = float(np.square(samples[160:]).mean())
        assert "warning" not in done.err
    assert late.pop("rigid") > 1.5 * max(late.values())
    assert late.pop("1") < 0.01 * min(late.values())


def test_a_source_that_a_wall_cuts_is_warned_of(
    program: Program, plan: Path, tmp_path: Path
) -> None:
    near = ("-s", "0.7,0.7", "-r", "2.4,0.5", "-o", tmp_path / "heard.wav", *SHORT)
    done = program("hear", plan, *near)
    assert done.code == 0
    assert "0.4 Pa at the nearest wall" in done.err  # exp(-(0.7 / 0.728)^2)


def test_an_operator_is_asked(program: Program, operator: Path, tmp_path: Path) -> None:
    path = tmp_path / "heard.wav"
    assert program("hear", operator, *PLACES, "-o", path).code == 0
    expected = SoundOperator.load(operator).impulse_response((1.2, 1.1), [[2.4, 0.5]])
    np.testing.assert_array_equal(wavfile.read(path)[1], expected.pressure[0].numpy())
    shown = program("show", operator)
    assert "operator: sound" in shown.out and "4 walls, 7.2 m2 of air" in shown.out
    assert program("show", operator, "--json").record["clearance"] == pytest.approx(0.6, abs=1e-4)
    refused = program("predict", operator, operator)
    assert refused.code == 2 and "understudy.load_operator reads it" in refused.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("-s", "1"), "--source is X,Y in metres"),
        (("-s", "0.1,1"), "from a wall; at least 0.6 m are needed"),
        (("-s", "9,9"), "source 1 at (9, 9) m is outside the room"),
        (("-r", "5,5"), "receiver 2 at (5, 5) m is outside the room"),
        (("--impedance", "wool"), "a wall is an impedance normalised"),
        (("--impedance", "porous:1"), "a wall is an impedance normalised"),
        (("--impedance", "-3"), "an impedance is a number of at least 0"),
        (("--impedance", "1", "--impedance", "2"), "the room has 4 sides, but 2 impedances"),
        (("--f-max", "0"), "f_max and speed must be positive"),
        (("-o", "heard.mp3"), "can write .wav"),
    ],
)
def test_requests_are_refused_in_one_sentence(
    program: Program, plan: Path, tmp_path: Path, more: tuple[str, ...], message: str
) -> None:
    done = program("hear", plan, *PLACES, "-o", tmp_path / "heard.wav", *more)
    assert done.code == 2 and message in done.err
    assert not (tmp_path / "heard.wav").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"corners": [[0, 0], [3, 3], [3, 0], [0, 3]]}', "the room intersects itself"),
        ('{"corners": [[0, 0], [3, 0]]}', "at least three corners"),
        ('{"walls": []}', "described by 'corners'"),
        ("[1, 2", "describes no room"),
    ],
)
def test_plans_that_are_no_room_are_refused(
    program: Program, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "room.json").write_text(text)
    done = program("hear", tmp_path / "room.json", *PLACES, "-o", tmp_path / "heard.wav")
    assert done.code == 2 and message in done.err


def test_what_an_operator_has_learnt_is_not_asked_again(
    program: Program, operator: Path, tmp_path: Path
) -> None:
    done = program("hear", operator, *PLACES, "-o", tmp_path / "heard.wav", "--f-max", 400)
    assert done.code == 2 and "an operator has learnt its room" in done.err
