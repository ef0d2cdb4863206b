"""A room is read from its file, its sound is learnt, and what is learnt is tested."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from understudy.core.errors import UserError
from understudy.data.rooms import Room
from understudy.emulate import rooms
from understudy.emulate.room_file import SoundProblem, read_room
from understudy.emulate.rooms import RoomRecordings, emulate_room, room_recordings
from understudy.emulate.run import Moment
from understudy.models.operators.sound import SoundOperator, SoundSettings
from understudy.simulate.acoustics import RationalAdmittance

SMALL = SoundProblem(
    room=Room.rectangle(3.0, 2.4),
    sound={"f_max": 300.0, "duration": 0.006},
    spacing=0.4,
    region=((0.7, 0.7), (2.0, 1.6)),
    settings=SoundSettings(num_basis=8, width=16),
)


@pytest.fixture(scope="module")
def recordings() -> RoomRecordings:
    return room_recordings(SMALL, seed=3)


def written(folder: Path, text: str) -> Path:
    path = folder / "room.toml"
    path.write_text(text)
    return path


def test_a_room_is_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        room = { shape = "l-shape", side = 4, cut = 1.5 }
        walls = { impedance = [17.98, "rigid", "soft", "porous:0.05,10000", 3, 3] }
        sound = { f_max = 400, duration = 0.01, points_per_wavelength = 8 }
        sources = { padding = 0.5, spacing = 0.2, lower = [0.5, 0.5], upper = [1.5, 1.2] }
        network = { width = 64 }
        """,
    )
    found = read_room(path)
    assert found.room == Room.l_shape(4.0, 1.5)
    assert isinstance(found.impedance, tuple)
    assert found.impedance[:3] == (17.98, math.inf, 0.0)
    assert isinstance(found.impedance[3], RationalAdmittance)
    assert found.sound == {"f_max": 400.0, "duration": 0.01, "points_per_wavelength": 8.0}
    assert found.region == ((0.5, 0.5), (1.5, 1.2))
    assert (found.settings.width, found.settings.depth) == (64, 3)
    acoustics = found.acoustics()
    assert acoustics.pulse.f_max == 400.0 and acoustics.padding == 0.5
    at = found.sources(acoustics.pulse.wavelength)
    assert at.min(0).tolist() == [0.5, 0.5] and at.max(0) == pytest.approx([1.5, 1.2])
    assert len(at) == 6 * 5  # a metre in steps of 0.2, 0.7 m in steps of at most as much


def test_a_plan_may_be_a_polygon_or_a_file_beside_it(tmp_path: Path) -> None:
    corners = [[0, 0], [4, 0], [4, 3], [0, 3]]
    found = read_room(written(tmp_path, f"[room]\ncorners = {corners}"))
    assert found.room == Room.rectangle(4.0, 3.0)
    (tmp_path / "plan.json").write_text(json.dumps({"corners": corners}))
    assert read_room(written(tmp_path, '[room]\nfile = "plan.json"')).room == found.room
    default = found.sources(0.5)  # five a wavelength, 0.6 m from walls
    assert len(default) == 29 * 19
    assert default.min(0).tolist() == [0.6, 0.6]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[rooms]\n", "[rooms] is no section of a room; did you mean 'room'?"),
        ("[sound]\n", "[room] needs a shape, found None"),
        ("[room]\nshape = 'round'", "[room] needs a shape, found 'round'"),
        ("[room]\nshape = 'rectangle'\nwidth = 3", "needs 'height'"),
        ("[room]\nshape = 'furnished'\nside = 3\ncut = 1", "furnished has no 'cut'"),
        ("[room]\nshape = 'furnished'\nside = '3'", "[room] side must be a positive number"),
        ("[room]\nshape = []", "[room] needs a shape, found []"),
        ("[room]\ncorners = 3", "corners of the room must be pairs of numbers"),
        ("[room]\ncorners = [[0, 0], [1, 0], [1, 1]]\nobstacles = 3", "a list of polygons"),
        ("[room]\nfile = 'a.json'\nside = 3", "a file, or a shape, not both"),
        ("[room]\nfile = 'a.json'", "cannot read the room"),
        ("[room]\nshape = 'furnished'\nside = 3\n[sound]\nfmax = 3", "did you mean 'f_max'?"),
        ("[room]\nshape = 'furnished'\nside = 3\n[sound]\nf_max = 0", "f_max must be a positive"),
        ("[room]\nshape = 'furnished'\nside = 3\n[walls]\nimpedance = 'wool'", "a wall is an"),
        ("[room]\nshape = 'furnished'\nside = 3\n[sources]\nlower = [1, 1]", "or neither"),
        (
            "[room]\nshape = 'furnished'\nside = 3\n[sources]\nlower = 1\nupper = [2, 2]",
            "[sources] lower is [x, y] in metres, found 1",
        ),
        ("[room]\nshape = 'furnished'\nside = 3\n[network]\nwidth = 1.5", "a whole number"),
        ("[room\n", "is not valid TOML"),
    ],
)
def test_files_that_describe_no_room_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_room(path)
    assert str(caught.value).startswith(str(path)) and message in str(caught.value)


def test_runs_of_training_and_of_the_test_are_apart(recordings: RoomRecordings) -> None:
    train, held, test = recordings.train, recordings.held, recordings.test
    assert (len(train), len(held), len(test)) == (5 * 4, rooms.HELD, rooms.TEST)
    assert float(torch.cdist(test.sources, torch.cat([train.sources, held.sources])).min()) > 0.0
    low, high = torch.tensor(SMALL.region)
    for part in (train, held, test):
        assert bool(((part.sources >= low) & (part.sources <= high)).all())
        assert part.room.clearance(part.sources.numpy()).min() > 0.6 - 1e-5
    again = SMALL.acoustics().solve(train.sources[3:4])
    torch.testing.assert_close(train.pressure[3:4], again.pressure)


def test_an_operator_learns_and_is_scored_beside_the_nearest_run(
    recordings: RoomRecordings, tmp_path: Path
) -> None:
    moments: list[Moment] = []
    found = emulate_room(recordings, 1.5, listener=moments.append)
    facts, scores, test = found.facts, found.scores, recordings.test
    assert facts["sources"] == 20 and facts["interrupted"] is False
    assert int(facts["steps"]) > 1 and float(facts["seconds"]) >= 1.5
    assert moments[0].step == 1 and moments[-1].budget == 1.5
    error = found.operator.pressure(test.sources, test.points) - test.pressure
    assert scores["rmse"] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-4)
    assert scores["relative_error"] == pytest.approx(scores["rmse"] / scores["rms"])
    near = [int((recordings.train.sources - x).norm(dim=1).argmin()) for x in test.sources]
    gap = (recordings.train.pressure[near] - test.pressure).square().mean().sqrt()
    assert scores["nearest_rmse"] == pytest.approx(float(gap), rel=1e-4)
    again = SoundOperator.load(found.operator.save(tmp_path / "room.us"))
    for operator in (found.operator, again):
        with pytest.raises(UserError, match=r"outside the box from \(0\.7, 0\.7\) to \(2, 1\.6\)"):
            operator.impulse_response((2.2, 1.5), [[1.0, 1.0]])


def test_ctrl_c_keeps_what_was_learnt(recordings: RoomRecordings) -> None:
    def press(moment: Moment) -> None:
        raise KeyboardInterrupt

    found = emulate_room(recordings, 60.0, listener=press)
    assert found.facts["interrupted"] is True and found.facts["steps"] == 1
    assert np.isfinite(found.scores["rmse"])


def test_what_cannot_be_learnt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lonely = SoundProblem(
        SMALL.room, sound=SMALL.sound, padding=1.0, region=((0.5, 0.5), (0.9, 0.9))
    )
    with pytest.raises(UserError, match="hardly any place of the room is"):
        room_recordings(lonely)
    upside_down = SoundProblem(SMALL.room, region=((2.0, 1.0), (1.0, 1.5)))
    with pytest.raises(UserError, match="corner at 1 m must be above that at 2 m"):
        room_recordings(upside_down)
    monkeypatch.setattr(rooms, "_MOST_NUMBERS", 1000)
    with pytest.raises(UserError, match="use a larger spacing of sources"):
        room_recordings(SMALL)
