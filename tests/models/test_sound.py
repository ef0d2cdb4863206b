import json
import math
from functools import cache

import pytest
import torch

from understudy.core import artifact
from understudy.core.errors import UserError
from understudy.data.rooms import Room
from understudy.data.sound import GaussianPulse, PulseResponses
from understudy.models.operators.deeponet import FourierFeatures, ModifiedMLP
from understudy.models.operators.sound import (
    PAPER_FREEZE,
    SoundOperator,
    SoundSettings,
    SoundTraining,
)
from understudy.models.operators.sound_network import PulseNetwork, StackedNetworks
from understudy.models.operators.stored import load_operator

ROOM = Room.rectangle(3.0, 2.4)
SMALL = SoundSettings(num_basis=12, width=24, depth=2)
BRIEF = SoundTraining(steps=3, sources=4, points=50)


def made(room=ROOM, sources=None, clearance=0.6):
    """Waves that spread from a source without walls, in closed form enough for a test."""
    pulse = GaussianPulse(300.0)
    at = torch.from_numpy(room.lattice(0.3, clearance)).float() if sources is None else sources
    points = torch.from_numpy(room.lattice(0.2)).float()
    times = torch.linspace(0.0, 0.004, 9)
    far = (at[:, None] - points[None]).norm(dim=-1)[:, None]
    front = pulse.speed * times[None, :, None]
    p = torch.exp(-(((far - front) / pulse.width) ** 2)) / (1.0 + 3.0 * front)
    return PulseResponses(room, pulse, at, points, times, p)


@cache
def trained():
    return SoundOperator(SMALL).fit(made(), training=BRIEF)


def test_the_network_is_its_equations():
    torch.manual_seed(0)
    network = PulseNetwork(5, [0.5, 1.0], SMALL)
    torch.nn.init.normal_(network.bias)
    u, y = torch.randn(4, 5), torch.rand(7, 3)
    B = network.branch(u / 2)
    T = network.trunk(FourierFeatures([0.5, 1.0])(y))
    expected = torch.einsum("bk,mk->bm", B, T) + network.bias
    torch.testing.assert_close(network(u, y), expected)
    assert isinstance(network.trunk, ModifiedMLP) and network.trunk.gate_first
    assert network.trunk.layers[0].in_features == 3 * 5


def test_three_frequencies_in_a_plane_and_time_are_21_inputs():
    operator = trained()
    assert operator._networks[0].trunk.layers[0].in_features == 21
    assert operator._frequencies() == (150.0, 75.0, 50.0)


def test_coordinates_are_those_of_the_published_code():
    operator = trained()
    y = operator.scaled(torch.tensor([[0.0, 0.0], [3.0, 1.5]]), torch.tensor([0.0, 0.004]))
    expected = [[-1.0, -1.0, 0.0], [1.0, 0.0, 343.0 * 0.004 / 3.0 / 2.0]]
    torch.testing.assert_close(y, torch.tensor(expected))


def test_sensors_are_two_a_wavelength_at_least():
    operator = trained()
    x = operator.sensors[:, 0].unique()
    assert float(x.diff().max()) <= 343.0 / 300.0 / 2.0 + 1e-6
    assert float(x[0]) == 0.0 and float(x[-1]) == 3.0


@pytest.mark.slow
def test_it_learns_where_a_pulse_is():
    data = made()
    plan = SoundTraining(steps=250, sources=16, points=200, decay_steps=20.0, clip_norm=1.0)
    settings = SoundSettings(num_basis=24, width=32, depth=2, time_scale=2.0)
    operator = SoundOperator(settings).fit(data, training=plan)
    unseen = made(sources=torch.tensor([[1.3, 1.27], [1.77, 0.93]]))
    found = operator.pressure(unseen.sources, unseen.points)
    error = (found - unseen.pressure).square().mean().sqrt()
    assert float(error) < 0.45 * float(unseen.pressure.square().mean().sqrt())


def test_the_same_seed_gives_the_same_operator_and_another_does_not():
    one = trained()._networks[0].state_dict()
    again = SoundOperator(SMALL).fit(made(), training=BRIEF)._networks[0].state_dict()
    other = SoundOperator(SMALL).fit(
        made(), training=SoundTraining(steps=3, sources=4, points=50, seed=1)
    )
    for name, value in one.items():
        assert torch.equal(value, again[name])
    assert not torch.equal(one["bias"], other._networks[0].bias)


def test_validation_chooses_the_weights_that_are_kept():
    data = made()
    wild = SoundTraining(
        **{"steps": 20, "sources": 4, "points": 50, "validate_every": 5},
        **{"learning_rate": 1e-3, "decay": 2.0, "decay_steps": 1.0},  # it grows, to its ruin
    )
    held = data.select(torch.arange(4))
    operator = SoundOperator(SMALL).fit(data, held, wild)
    assert int(operator.outcome.best_step[0]) < 20
    u, y, p = operator._examples(held).fixed(wild)
    kept = (operator._networks[0](u, y[0]) - p[0]).square().mean()
    torch.testing.assert_close(kept.detach(), operator.outcome.score[0])


@pytest.mark.parametrize("parts", [(1, 1), (2, 1)])
def test_batches_are_pressure_of_their_pulses_at_their_points(parts):
    data = made()
    operator = SoundOperator(SoundSettings(num_basis=4, width=8, depth=1, parts=parts))
    operator.fit(data, training=BRIEF)
    examples = operator._examples(data)
    u, y, p = examples.draw(5, BRIEF)
    assert p.shape == (parts[0], 4, 50) and y.shape == (parts[0], 50, 3)
    rows = (u[:, None] - examples.pulses).abs().sum(-1).argmin(1)
    for part, (points, pressure) in enumerate(zip(y, p, strict=True)):
        at = (points[:, None] - examples.at).abs().sum(-1).argmin(1)
        expected = data.pressure.flatten(1)[rows][:, at]
        assert torch.equal(pressure, expected)
        inside = operator.part_of(data.points.repeat(len(data.times), 1)[at]) == part
        assert bool(inside.all())


def test_soap_gets_further_than_adam_in_as_many_steps():
    data = made()
    brief = {"steps": 60, "sources": 30, "points": 200, "learning_rate": 1e-2, "decay_steps": 10}
    scores = {}
    for name in ("adamw", "soap"):
        plan = SoundTraining(**brief, optimizer=name)
        operator = SoundOperator(SMALL).fit(data, data, plan)
        scores[name] = float(operator.outcome.score[0])
    assert scores["soap"] < scores["adamw"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "at least 1"),
        ({"learning_rate": -1.0}, "learning_rate must be positive, found -1"),
        ({"decay_steps": 0.0}, "decay_steps must be positive"),
        ({"optimizer": "sgd"}, "adamw or soap, found 'sgd'"),
    ],
)
def test_trainings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        SoundTraining(**options)


def test_receivers_that_stay_hear_what_the_pressure_is():
    operator = SoundOperator(SoundSettings(num_basis=8, width=16, depth=2, parts=(2, 1)))
    operator.fit(made(), training=BRIEF)
    at = [[0.5, 0.5], [2.5, 1.0], [1.5, 1.2]]
    sources = [[1.0, 1.0], [2.0, 1.4]]
    heard = operator.listen(at).hear(sources)
    torch.testing.assert_close(heard, operator.pressure(sources, at).transpose(1, 2))
    response = operator.impulse_response(sources[1], at)
    torch.testing.assert_close(response.pressure, heard[1])
    assert response.rate == 2000.0
    early = operator.pressure(sources, at, operator.times[:4])
    torch.testing.assert_close(early, heard.transpose(1, 2)[:, :4])


def test_parts_are_networks_of_their_own_and_train_as_if_alone():
    data = made()
    settings = SoundSettings(num_basis=8, width=16, depth=2, parts=(2, 1))
    plan = SoundTraining(steps=4, sources=4, points=30)
    operator = SoundOperator(settings).fit(data, training=plan)
    assert operator.part_of(torch.tensor([[0.1, 0.1], [2.9, 0.1], [3.0, 2.4]])).tolist() == [
        0,
        1,
        1,
    ]
    first, second = operator._networks
    assert not torch.equal(first.branch.layers[0].weight, second.branch.layers[0].weight)
    u = data.pulse.at(data.sources[:1], operator.sensors)
    for network, point in ((first, [0.4, 0.5]), (second, [2.6, 0.5])):
        y = operator.scaled(torch.tensor([point]), operator.times[2:3])
        found = operator.pressure(data.sources[:1], [point], operator.times[2:3])
        torch.testing.assert_close(found[0], network(u, y).detach())


def test_one_part_of_two_learns_what_it_would_learn_alone():
    # with the same start, points and targets, the gradient step of a part is its own
    torch.manual_seed(0)
    networks = [PulseNetwork(5, [0.5], SMALL) for _ in range(2)]
    u, y = torch.randn(4, 5), torch.rand(2, 6, 3)
    parts = StackedNetworks(networks)
    parts(u, y).square().mean((1, 2)).sum().backward()
    for r, network in enumerate(networks):
        network(u, y[r]).square().mean().backward()
        for name, value in zip(parts.names, parts.values, strict=True):
            torch.testing.assert_close(value.grad[r], network.get_parameter(name).grad)


def test_transfer_keeps_what_is_frozen_and_changes_the_rest():
    source = trained()
    target = made(Room.l_shape(2.4, 1.0), clearance=0.45)
    new = source.transfer(target, training=BRIEF)
    old, now = source._networks[0].state_dict(), new._networks[0].state_dict()
    for name, value in old.items():
        frozen = any(name.startswith(prefix) for prefix in PAPER_FREEZE)
        assert torch.equal(value, now[name]) is frozen, name
    assert new.room.area == pytest.approx(2.4**2 - 1.0)
    torch.testing.assert_close(new.sensors, source.sensors)
    far = torch.tensor([[2.0, 0.5]])
    torch.testing.assert_close(new.scaled(far, far[:, 0]), source.scaled(far, far[:, 0]))


def test_a_transfer_that_freezes_nothing_moves_everything():
    new = trained().transfer(made(), training=BRIEF, freeze=())
    old = trained()._networks[0].state_dict()
    moved = [n for n, v in new._networks[0].state_dict().items() if not torch.equal(v, old[n])]
    assert sorted(moved) == sorted(old)


def test_a_file_restores_it(tmp_path):
    settings = SoundSettings(num_basis=8, width=16, depth=2, parts=(1, 2), frequencies=(80.0,))
    operator = SoundOperator(settings).fit(made(), training=BRIEF)
    again = SoundOperator.load(operator.save(tmp_path / "sound.us"))
    at, sources = [[0.5, 0.5], [2.5, 2.0]], [[1.0, 1.0]]
    assert torch.equal(again.pressure(sources, at), operator.pressure(sources, at))
    assert (again.room, again.pulse, again.settings) == (ROOM, operator.pulse, settings)
    anyhow = load_operator(tmp_path / "sound.us")
    assert isinstance(anyhow, SoundOperator) and anyhow.settings == settings
    with pytest.raises(UserError, match="from a wall"):
        again.pressure([[0.2, 1.0]], at)


def test_files_of_other_things_and_damaged_ones_are_refused(tmp_path):
    artifact.write(tmp_path / "other.us", {"kind": "operator"}, {})
    with pytest.raises(UserError, match="not a sound operator"):
        SoundOperator.load(tmp_path / "other.us")
    path = trained().save(tmp_path / "sound.us")
    stored = artifact.read(path)
    manifest = {k: v for k, v in stored.manifest.items() if k != "artifact"}
    few = {k: v for k, v in stored.tensors.items() if not k.endswith("bias")}
    with pytest.raises(UserError, match="damaged"):
        SoundOperator.load(artifact.write(tmp_path / "few.us", manifest, few))
    manifest["settings"] = json.loads(json.dumps(manifest["settings"])) | {"width": 7}
    with pytest.raises(UserError, match="damaged"):
        SoundOperator.load(artifact.write(tmp_path / "thin.us", manifest, stored.tensors))


def test_its_responses_are_wav_files(tmp_path):
    response = trained().impulse_response((1.0, 1.0), [[2.0, 2.0]])
    assert response.write(tmp_path / "a.wav").stat().st_size > 4 * 9


@pytest.mark.parametrize(
    ("source", "receiver", "message"),
    [
        ((0.3, 1.0), (1.0, 1.0), "source 1 .* from a wall"),
        ((4.0, 1.0), (1.0, 1.0), "source 1 .* outside the room"),
        ((1.0, 1.0), (1.0, 2.6), "receiver 1 .* outside the room"),
        ((1.0, math.inf), (1.0, 1.0), "finite"),
    ],
)
def test_places_where_nothing_can_be_are_refused(source, receiver, message):
    with pytest.raises(UserError, match=message):
        trained().impulse_response(source, [receiver])


def test_times_beyond_training_are_refused():
    with pytest.raises(UserError, match="within the"):
        trained().pressure([[1.0, 1.0]], [[1.0, 1.0]], torch.tensor([0.0, 0.1]))
    with pytest.raises(UserError, match="equally spaced"):
        trained().impulse_response((1.0, 1.0), [[1.0, 1.0]], torch.tensor([0.0, 0.001, 0.004]))


def test_features_that_the_data_cannot_hold_are_refused():
    settings = SoundSettings(num_basis=8, width=16, depth=2, frequencies=(5000.0,))
    with pytest.raises(UserError, match="feature of 5000 Hz"):
        SoundOperator(settings).fit(made(), training=BRIEF)


def test_transfers_that_cannot_be_are_refused():
    source = trained()
    with pytest.raises(UserError, match="not within the box"):
        source.transfer(made(Room.rectangle(4.0, 2.0)), training=BRIEF)
    data = made()
    other = PulseResponses(
        *(data.room, GaussianPulse(200.0), data.sources, data.points, data.times, data.pressure)
    )
    with pytest.raises(UserError, match="pulse of the other room"):
        source.transfer(other, training=BRIEF)
    with pytest.raises(UserError, match="no parameter begins"):
        source.transfer(data, training=BRIEF, freeze=("trunk.layers.9",))


def test_settings_that_make_no_sense_are_refused():
    for wrong in (
        *({"width": 0}, {"parts": (0, 1)}, {"architecture": "deep"}),
        *({"frequencies": (-1.0,)}, {"time_scale": 0.0}),
    ):
        with pytest.raises(UserError):
            SoundSettings(**wrong)
    with pytest.raises(UserError, match="no point"):
        data = made()
        left = data.points[:, 0] < 1.0
        part = PulseResponses(
            *(data.room, data.pulse, data.sources, data.points[left], data.times),
            data.pressure[..., left],
        )
        SoundOperator(SoundSettings(num_basis=4, width=8, depth=1, parts=(2, 1))).fit(
            part, training=BRIEF
        )
