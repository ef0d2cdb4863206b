import json
import math

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from understudy.core.errors import UserError
from understudy.data.rooms import Room
from understudy.data.sound import GaussianPulse, ImpulseResponse, PulseResponses


def test_areas_and_bounds_are_those_of_the_plan():
    assert Room.rectangle(3.0, 2.0).area == pytest.approx(6.0)
    assert Room.l_shape(3.0, 1.5).area == pytest.approx(6.75)
    assert Room.furnished(4.0).area == pytest.approx(16.0 - 1.0 - 0.5)
    assert Room.l_shape(3.0, 1.0).bounds == ((0.0, 0.0), (3.0, 3.0))


def test_the_order_of_corners_does_not_matter():
    corners = Room.l_shape(3.0, 1.0).corners
    assert Room(corners[::-1]).area == pytest.approx(8.0)


def test_points_are_in_the_air_or_not():
    room = Room.furnished(4.0)
    points = [[2.0, 2.0], [1.0, 3.0], [3.2, 1.0], [5.0, 2.0], [-0.1, 0.5]]
    assert room.contains(points).tolist() == [True, False, False, False, False]
    clearance = room.clearance([[2.0, 2.0], [0.1, 0.3], [1.0, 3.0]])
    np.testing.assert_allclose(clearance[1:], [0.1, -0.5])
    assert clearance[0] == pytest.approx(math.hypot(0.5, 0.5))


def test_points_of_a_lattice_keep_away_from_walls():
    room = Room.l_shape(3.0, 1.5)
    at = room.lattice(0.2, 0.6)
    assert room.clearance(at).min() >= 0.6 - 1e-9
    assert 0.6 in at[:, 0] and 2.4 in np.round(at[:, 0], 9)
    assert len(Room.rectangle(3.0, 3.0).lattice(0.6, 0.6)) == 16
    with pytest.raises(UserError, match="from its walls"):
        room.lattice(0.2, 1.6)


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ([(0, 0), (2, 2), (2, 0), (0, 2)], "intersects itself: sides 1 and 3"),
        ([(0, 0), (3, 0), (3, 2), (1, 0), (0, 2)], "intersects itself"),
        ([(0, 0), (2, 0), (1, 0)], "run back over"),
        ([(0, 0), (2, 0), (2, 0), (0, 2)], "no length"),
        ([(0, 0), (1, 1)], "at least three corners"),
        ([(0, 0), (1, math.nan), (1, 1)], "finite"),
        ([(0, 0), (1,), (1, 1)], "pairs of numbers"),
    ],
)
def test_what_is_no_room_is_refused(corners, message):
    with pytest.raises(UserError, match=message):
        Room(tuple(corners))


def test_obstacles_stand_freely_in_the_room():
    square = Room.rectangle(3.0, 3.0).corners

    def box(x, y, side=1.0):
        return ((x, y), (x + side, y), (x + side, y + side), (x, y + side))

    with pytest.raises(UserError, match="touches the walls"):
        Room(square, (box(0.0, 1.0),))
    with pytest.raises(UserError, match="obstacle 2 touches obstacle 1"):
        Room(square, (box(0.5, 0.5), box(1.0, 1.0)))
    with pytest.raises(UserError, match="not in the air"):
        Room(square, (box(4.0, 4.0),))
    with pytest.raises(UserError, match="not in the air"):
        Room(square, (box(0.5, 0.5), box(0.75, 0.75, 0.5)))


def test_positions_that_are_refused_are_named():
    room = Room.l_shape(3.0, 1.5)
    room.require([[0.0, 1.0], [1.0, 1.0]], "receiver")
    with pytest.raises(UserError, match=r"source 2 at \(2.5, 2.5\) m is outside the room"):
        room.require([[1.0, 1.0], [2.5, 2.5]], "source")
    with pytest.raises(UserError, match=r"0\.3 m from a wall"):
        room.require([[0.3, 1.0]], "source", 0.6)
    with pytest.raises(UserError, match="shape"):
        room.require([[1.0, 1.0, 1.0]], "source")


def test_rooms_are_read_from_files(tmp_path):
    room = Room.furnished(4.0)
    (tmp_path / "room.json").write_text(json.dumps(room.describe()))
    assert Room.read(tmp_path / "room.json") == room
    table = ["polygon,x,y"]
    for k, ring in enumerate((room.corners, *room.obstacles)):
        table += [f"{k},{x},{y}" for x, y in ring]
    (tmp_path / "room.csv").write_text("\n".join(table))
    assert Room.read(tmp_path / "room.csv") == room
    (tmp_path / "plain.csv").write_text("x,y\n0,0\n3,0\n3,2\n")
    assert Room.read(tmp_path / "plain.csv").area == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"corners": [[0,0],[2,2],[2,0],[0,2]]}', "intersects itself"),
        ("a.json", "[1, 2]", "described by"),
        ("a.json", "{", "no room"),
        ("a.json", '{"corners": [[0,0],[1,0],[1,1]], "doors": 1}', "doors"),
        ("a.csv", "u,v\n1,2\n", "columns x and y"),
        ("a.csv", "x,y\n1,two\n", "row 1"),
    ],
)
def test_files_of_no_room_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        Room.read(tmp_path / name)
    with pytest.raises(UserError, match="cannot read"):
        Room.read(tmp_path / "none.json")


def test_the_pulse_is_that_of_the_paper():
    pulse = GaussianPulse(1000.0)
    assert pulse.width == pytest.approx(0.218, abs=1e-3)
    centre = torch.tensor([[1.0, 1.0]])
    points = torch.tensor([[1.0, 1.0], [1.0 + pulse.width, 1.0]])
    torch.testing.assert_close(pulse.at(centre, points), torch.tensor([[1.0, math.exp(-1.0)]]))
    with pytest.raises(UserError, match="positive"):
        GaussianPulse(0.0)


def test_responses_fit_their_sources_points_and_times():
    room, pulse = Room.rectangle(2.0, 2.0), GaussianPulse(500.0)
    at, t = torch.ones(1, 2), torch.arange(3.0)
    data = PulseResponses(room, pulse, at, at, t, torch.zeros(1, 3, 1))
    assert len(data.select(torch.tensor([0, 0]))) == 2
    with pytest.raises(UserError, match="sources, times, points"):
        PulseResponses(room, pulse, at, at, t, torch.zeros(1, 1, 3))
    with pytest.raises(UserError, match="finite"):
        PulseResponses(room, pulse, at, at, t, torch.full((1, 3, 1), math.inf))
    with pytest.raises(UserError, match="outside"):
        PulseResponses(room, pulse, 3 * at, at, t, torch.zeros(1, 3, 1))


def test_wav_files_hold_pressure_as_it_is(tmp_path):
    response = ImpulseResponse(torch.randn(2, 50), 4800.0)
    rate, samples = wavfile.read(response.write(tmp_path / "a.wav"))
    assert rate == 4800
    np.testing.assert_array_equal(samples.T, response.pressure.numpy())
    assert float(response.times[-1]) == pytest.approx(49 / 4800)
    with pytest.raises(UserError, match="whole number of samples"):
        ImpulseResponse(torch.randn(1, 5), 4800.5).write(tmp_path / "b.wav")
    with pytest.raises(UserError, match="cannot write"):
        response.write(tmp_path / "nowhere" / "a.wav")


def test_resampling_keeps_a_tone():
    t = torch.arange(2000) / 4800.0
    tone = torch.sin(2 * math.pi * 200.0 * t)[None]
    found = ImpulseResponse(tone, 4800.0).resampled(8000)
    expected = torch.sin(2 * math.pi * 200.0 * found.times).float()
    torch.testing.assert_close(found.pressure[0, 300:-300], expected[300:-300], atol=5e-3, rtol=0)
