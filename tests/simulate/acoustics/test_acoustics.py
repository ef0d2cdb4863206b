import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.io import wavfile

from understudy.core.errors import UserError
from understudy.core.simulator import diverged
from understudy.data.rooms import Room
from understudy.simulate.acoustics import (
    RationalAdmittance,
    RoomAcoustics,
    impulse_response,
    porous_absorber,
    wall,
)
from understudy.simulate.acoustics.impedance import _first_rates

SQUARE = Room.rectangle(3.0, 3.0)
LSHAPE = Room.l_shape(3.0, 1.5)
RIGID = math.inf
SLANTED = Room(((0.0, 0.0), (4.0, 0.0), (4.0, 2.0), (2.0, 3.0), (0.0, 3.0)))


def corridor(impedances, rate=None, duration=0.045):
    """A strip of 8 m, along which plane waves run; walls on its long sides are rigid."""
    room = Room.rectangle(8.0, 0.2)
    return RoomAcoustics(
        *(room, [RIGID, impedances[1], RIGID, impedances[0]]),
        **{"f_max": 1000.0, "points_per_wavelength": 14.0, "duration": duration},
        **{"padding": 0.0, "rate": rate},
    )


def reflected(impedance, centre=4.0, receiver=6.0):
    """What comes back at the receiver from the wall on the right, and times."""
    acoustics = corridor((1.0, impedance))
    x = acoustics.mesh.positions[:, 0]
    start = torch.exp(-(((x - centre) / 0.35) ** 2)).reshape(1, 1, *acoustics.grid.shape)
    fields = acoustics.fields({"x": centre, "y": 0.1}, start)[0, :, 0]
    column = round(receiver / acoustics.mesh.spacing[0])
    heard = fields[:, column, 2].double()
    t = acoustics.times({"x": centre, "y": 0.1})[0]
    arrival = (16.0 - centre - receiver) / 343.0
    return heard[t > arrival - 0.004], t


# -- the wave equation ------------------------------------------------------------------------


def mode_error(points_per_wavelength):
    """Largest error of a standing wave between rigid walls, whose frequency is known."""
    acoustics = RoomAcoustics(
        *(Room.rectangle(2.0, 3.0), RIGID),
        **{"points_per_wavelength": points_per_wavelength, "duration": 0.01, "padding": 0.0},
    )
    x, y = acoustics.mesh.positions.unbind(-1)
    shape = (torch.cos(math.pi * x) * torch.cos(2 * math.pi * y / 3)).reshape(
        1, 1, *acoustics.grid.shape
    )
    omega = 343.0 * math.hypot(math.pi, 2 * math.pi / 3)
    fields = acoustics.fields({"x": 1.0, "y": 1.0}, shape)[0]
    t = acoustics.times({"x": 1.0, "y": 1.0})[0]
    exact = torch.cos(omega * t)[:, None, None, None] * shape[0]
    return float((fields - exact).abs().max())


def test_standing_waves_converge_at_second_order():
    coarse, fine = mode_error(6.0), mode_error(24.0)
    assert 1.7 < math.log(coarse / fine, 4.0) < 2.3
    assert fine < 0.01


@pytest.mark.parametrize("room", [SQUARE, LSHAPE, Room.furnished(3.0), SLANTED])
def test_rigid_walls_keep_the_energy_to_the_last_digits(room):
    acoustics = RoomAcoustics(room, RIGID)
    start = acoustics.initial({"x": 1.2, "y": 0.8}).flatten(1)
    path = list(acoustics.scheme.march(start, 100))
    energies = [acoustics.scheme.energy(a, b) for a, b in itertools.pairwise(path)]
    found = torch.cat(energies)
    assert float((found / found[0] - 1.0).abs().max()) < 1e-11


@pytest.mark.parametrize("room", [SQUARE, LSHAPE, SLANTED])
@pytest.mark.parametrize("impedance", [17.98, 0.3, "porous"])
def test_walls_that_absorb_never_give_energy_back(room, impedance):
    acoustics = RoomAcoustics(room, carpet() if impedance == "porous" else impedance)
    start = acoustics.initial({"x": 1.2, "y": 0.8}).flatten(1)
    path = list(acoustics.scheme.march(start, 300))
    energy = torch.cat([acoustics.scheme.energy(a, b) for a, b in itertools.pairwise(path)])
    if impedance == "porous":  # what the wall stores for a while is its own
        assert float(energy[-1]) < 0.05 * float(energy[0])
        assert float(energy.max()) <= float(energy[0]) * (1.0 + 1e-9)
    else:
        assert bool((energy.diff() < 1e-12 * energy[0]).all())
        assert float(energy[-1]) < 0.8 * float(energy[0])


def test_soft_walls_hold_no_pressure_and_turn_a_wave_over():
    heard, _ = reflected(0.0)
    assert float(heard.min()) < -0.45
    acoustics = RoomAcoustics(SQUARE, 0.0, duration=0.01)
    fields = acoustics.fields({"x": 1.5, "y": 1.5})
    assert not bool(fields[..., 0, :].any())
    assert not bool(fields[..., :, -1].any())


def test_a_pulse_in_the_middle_stays_symmetric():
    fields = RoomAcoustics(SQUARE, duration=0.02).fields({"x": 1.5, "y": 1.5})
    torch.testing.assert_close(fields, fields.flip(-1), rtol=0, atol=1e-6)
    torch.testing.assert_close(fields, fields.transpose(-1, -2), rtol=0, atol=1e-6)


def test_runs_of_a_batch_do_not_know_of_each_other():
    acoustics = RoomAcoustics(LSHAPE, carpet(), duration=0.01)
    runs = pd.DataFrame({"x": [0.7, 0.8, 2.3], "y": [0.8, 2.1, 0.7]})
    together = acoustics.fields(runs)
    torch.testing.assert_close(acoustics.fields(runs.iloc[1:2])[0], together[1], rtol=0, atol=1e-7)
    assert not bool(diverged(together).any())
    assert set(acoustics.run({"x": 1.0, "y": 1.0})) == set(acoustics.outputs)


# -- reflection -------------------------------------------------------------------------------


@pytest.mark.parametrize("impedance", [17.98, 3.0, 1.0, 0.4])
def test_a_plane_wave_is_reflected_by_the_closed_form(impedance):
    heard, _ = reflected(impedance)
    peak = heard[heard.abs().argmax()]
    # half of the start runs to the right
    assert float(peak) == pytest.approx(0.5 * (impedance - 1) / (impedance + 1), abs=4e-3)


def carpet():
    f = np.geomspace(20.0, 2000.0, 60)
    return RationalAdmittance.fit(f, porous_absorber(f, 0.10, 8_000.0))


def test_a_wall_of_memory_reflects_each_frequency_by_its_closed_form():
    wall = carpet()
    back, rigid = reflected(wall)[0], reflected(RIGID)[0]
    acoustics = corridor((1.0, RIGID))
    f = np.fft.rfftfreq(4096, 1.0 / acoustics.rate)
    chosen = (f > 60.0) & (f < 500.0)
    ratio = np.fft.rfft(back.numpy(), 4096)[chosen] / np.fft.rfft(rigid.numpy(), 4096)[chosen]
    expected = wall.reflection(f[chosen])
    assert np.ptp(np.abs(expected)) > 0.3  # or any constant would do
    assert np.abs(ratio - expected).max() < 0.03


def test_without_poles_it_is_a_wall_of_constant_impedance():
    plain = RoomAcoustics(LSHAPE, 5.0, duration=0.01)
    same = RoomAcoustics(LSHAPE, RationalAdmittance(0.2), duration=0.01)
    far = RationalAdmittance(0.2, (1000.0, 900 - 800j), (0.0, 0.0))
    remembering = RoomAcoustics(LSHAPE, far, duration=0.01)
    source = {"x": 1.0, "y": 1.0}
    torch.testing.assert_close(plain.fields(source), same.fields(source))
    torch.testing.assert_close(plain.fields(source), remembering.fields(source), atol=1e-6, rtol=0)


def test_an_admittance_is_fitted_by_four_accumulators():
    f = np.geomspace(20.0, 1000.0, 60)
    truth = RationalAdmittance(0.1, (300.0, 4000.0, 500 - 2500j), (20.0, 400.0, 150 + 60j))
    found = RationalAdmittance.fit(f, truth.at(f))
    np.testing.assert_allclose(found.at(f), truth.at(f), atol=1e-4)
    porous = porous_absorber(f, 0.10, 8000.0)
    wall = RationalAdmittance.fit(f, porous)
    assert wall.accumulators == 4
    assert np.abs(wall.at(f) - porous).max() < 0.05 * np.abs(porous).max()


@pytest.mark.parametrize("poles", [(2, 1), (3, 0), (0, 2), (1, 1)])
@pytest.mark.parametrize("thickness", [0.02, 0.05, 0.2])
def test_poles_of_a_fit_do_not_cancel_one_another(poles, thickness):
    """Without a price on them, merged poles here have residues a million times the admittance."""
    f = np.geomspace(20.0, 1000.0, 60)
    wanted = porous_absorber(f, thickness, 10_000.0)
    try:
        wall = RationalAdmittance.fit(f, wanted, *poles)
    except UserError as error:
        assert "gives energy to the air" in str(error)
        return
    weights = [abs(r) / abs(a) for r, a in zip(wall.residues, wall.poles, strict=True)]
    assert max(weights) < 50.0


def test_first_poles_are_distinct_inside_the_band_and_far_from_singular():
    for real, pairs in ((1, 0), (2, 0), (1, 1), (2, 1), (0, 2), (3, 2), (4, 0)):
        rates = _first_rates(100.0, 10_000.0, real, pairs)
        beta = rates[real + pairs :]
        tops = np.sort(np.concatenate([rates[:real], beta]))
        assert len(tops) == real + pairs and tops[0] > 100.0 and tops[-1] < 10_000.0
        np.testing.assert_allclose(np.diff(np.log(tops), 2), 0.0, atol=1e-9)
        np.testing.assert_allclose(rates[real : real + pairs], 0.5 * beta)


@pytest.mark.parametrize(
    ("frequencies", "poles", "message"),
    [
        (np.full(20, 100.0), (2, 1), "at least 5 different ones"),
        (np.linspace(100.0, 105.0, 20), (2, 1), "too close together to tell 3 poles apart"),
        (np.linspace(-1.0, 105.0, 20), (2, 1), "positive frequencies"),
        (np.append(np.geomspace(20.0, 500.0, 19), np.inf), (2, 1), "finite numbers"),
        (np.geomspace(20.0, 500.0, 20), (-1, 1), "at least 0, found -1 and 1"),
    ],
)
def test_what_says_nothing_of_poles_is_refused(frequencies, poles, message):
    with pytest.raises(UserError, match=message):
        RationalAdmittance.fit(frequencies, np.full(20, 0.05 + 0j), *poles)


def test_each_side_may_be_of_its_own_kind():
    sides = [RIGID, 1.0, RIGID, RIGID]
    acoustics = RoomAcoustics(SQUARE, sides, duration=0.03)
    fields = acoustics.fields({"x": 1.5, "y": 1.5})[0, -1, 0]
    assert float(fields[:9].square().mean()) > 1.5 * float(fields[-9:].square().mean())
    torch.testing.assert_close(fields, fields.flip(-1), atol=1e-6, rtol=0)


# -- the mesh ---------------------------------------------------------------------------------


def test_the_mesh_has_the_area_and_the_walls_of_the_room():
    for room in (SQUARE, LSHAPE, Room.furnished(3.0)):
        mesh = RoomAcoustics(room).mesh
        assert float(mesh.volumes.sum()) == pytest.approx(room.area)
        lengths = (mesh.surfaces * mesh.volumes[mesh.walls][:, None]).sum(0)
        ends = room.sides
        np.testing.assert_allclose(lengths, np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1))


def test_stairs_are_as_long_as_the_slanted_wall_that_they_stand_for():
    mesh = RoomAcoustics(SLANTED, points_per_wavelength=20.0).mesh
    lengths = (mesh.surfaces * mesh.volumes[mesh.walls][:, None]).sum(0)
    assert float(lengths[2]) == pytest.approx(math.hypot(2.0, 1.0), rel=0.03)
    assert float(mesh.volumes.sum()) == pytest.approx(SLANTED.area, rel=0.01)


# -- recordings -------------------------------------------------------------------------------


def test_receivers_hear_what_the_field_says_between_nodes():
    acoustics = RoomAcoustics(LSHAPE, duration=0.01)
    x, y = acoustics.mesh.positions[acoustics.mesh.nodes[40]].tolist()
    h = acoustics.mesh.spacing[1]
    heard = acoustics.record([[1.0, 1.0]], [[x, y], [x, y + 0.25 * h]])[0]
    field = acoustics.solve([[1.0, 1.0]])
    at = [int(((field.points - torch.tensor([x, y + k * h])) ** 2).sum(1).argmin()) for k in (0, 1)]
    node, above = field.pressure[0, :, at].T
    torch.testing.assert_close(heard[0], node)
    torch.testing.assert_close(heard[1], 0.75 * node + 0.25 * above)


def test_a_source_that_rests_and_steps_once_is_the_pulse():
    acoustics = RoomAcoustics(SQUARE, points_per_wavelength=10.0, duration=0.02)
    receiver = [[2.2, 0.8]]
    path, signal = np.tile([1.0, 1.2], (80, 1)), np.ones(80)
    signal[0] = 0.0
    stepped = acoustics.follow(path, signal, receiver).pressure[0]
    pulse = acoustics.record([[1.0, 1.2]], receiver)[0, 0]
    # the step is between samples 0 and 1, so it is half a step late
    between = 0.5 * (pulse[:79] + pulse[1:80])
    torch.testing.assert_close(stepped[1:], between, atol=5e-3, rtol=0)
    assert float(between.abs().max()) > 0.15


def test_a_source_that_comes_nearer_sounds_higher():
    room = Room.rectangle(9.0, 3.0)
    acoustics = RoomAcoustics(room, 1.0, points_per_wavelength=8.0)
    n, speed = 150, 60.0
    t = np.arange(n) / acoustics.rate
    signal = np.sin(2 * np.pi * 200.0 * t) * np.minimum(1.0, t / 0.004)
    path = np.stack([3.0 + speed * t, np.full(n, 1.5)], axis=1)
    ahead, behind = acoustics.follow(path, signal, [[8.4, 1.5], [0.7, 1.5]]).pressure.numpy()
    f = np.fft.rfftfreq(4096, 1.0 / acoustics.rate)
    high, low = (f[np.abs(np.fft.rfft(heard, 4096)).argmax()] for heard in (ahead, behind))
    assert high == pytest.approx(200.0 / (1 - speed / 343.0), rel=0.06)
    assert low == pytest.approx(200.0 / (1 + speed / 343.0), rel=0.06)


def test_an_impulse_response_is_a_wav_file_of_floats(tmp_path):
    found = impulse_response(
        *(SQUARE, (1.0, 1.2), [[2.0, 2.0], [2.5, 0.5]]),
        **{"path": tmp_path / "room.wav", "duration": 0.02},
    )
    rate, samples = wavfile.read(tmp_path / "room.wav")
    assert rate == found.rate and samples.dtype == np.float32
    np.testing.assert_array_equal(samples.T, found.pressure.numpy())
    again = found.resampled(8000)
    assert again.rate == 8000 and again.pressure.shape[0] == 2


def test_gradients_reach_the_position_of_the_source():
    acoustics = RoomAcoustics(LSHAPE, 3.0, duration=0.005)

    def last(at):
        return acoustics.fields(at)[0, -1, 0, 10, 8].double()

    at = torch.tensor([[1.0, 1.1]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(last(at), at)
    moved = torch.tensor([[1e-3, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        difference = (last(at + moved) - last(at - moved)) / 2e-3
    assert float(slope[0, 0]) == pytest.approx(float(difference), rel=1e-2)


# -- what is refused --------------------------------------------------------------------------


def test_steps_above_the_limit_of_stability_are_refused_and_those_at_it_are_not():
    limit = RoomAcoustics(SQUARE).rate * 0.99
    with pytest.raises(UserError, match="use a rate of at least"):
        RoomAcoustics(SQUARE, rate=0.99 * limit)
    just = RoomAcoustics(SQUARE, rate=1.001 * limit, duration=0.1)
    assert float(just.fields({"x": 1.0, "y": 1.3}).abs().max()) <= 1.5


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((2.5, 2.5), "outside the room or inside a wall"),
        ((5.0, 1.0), "outside the room"),
        ((0.2, 1.0), "0.2 m from a wall"),
        ((math.nan, 1.0), "finite"),
    ],
)
def test_sources_where_none_can_be_are_refused(source, message):
    acoustics = RoomAcoustics(LSHAPE, duration=0.01)
    with pytest.raises(UserError, match=message):
        acoustics.record([source], [[1.0, 1.0]])


def test_receivers_and_walls_that_make_no_sense_are_refused():
    acoustics = RoomAcoustics(LSHAPE, duration=0.01)
    with pytest.raises(UserError, match="receiver 2"):
        acoustics.record([[1.0, 1.0]], [[1.0, 1.0], [2.9, 2.9]])
    with pytest.raises(UserError, match="6 sides, but 2"):
        RoomAcoustics(LSHAPE, [1.0, 2.0])
    with pytest.raises(UserError, match="impedance"):
        RoomAcoustics(LSHAPE, -1.0)
    with pytest.raises(UserError, match="smaller padding"):
        RoomAcoustics(Room.rectangle(1.0, 3.0))
    with pytest.raises(UserError, match="gives energy"):
        RationalAdmittance(0.1, (100.0,), (-50.0,))
    with pytest.raises(UserError, match="positive real part"):
        RationalAdmittance(0.1, (-100.0,), (50.0,))
    with pytest.raises(UserError, match="points_per_wavelength"):
        RoomAcoustics(SQUARE, points_per_wavelength=1.0)


@pytest.mark.parametrize(("thickness", "f_max"), [(0.05, 500.0), (0.1, 300.0), (0.2, 1000.0)])
def test_a_porous_wall_in_words_is_the_layer_up_to_the_highest_frequency(thickness, f_max):
    f = np.linspace(f_max / 10.0, f_max, 20)
    layer = porous_absorber(f, thickness, 8000.0)
    assert np.abs(wall(f"porous:{thickness},8000", f_max).at(f) - layer).max() < 0.02
    assert wall("rigid") == math.inf and wall("soft") == 0.0 and wall("2.5") == 2.5
