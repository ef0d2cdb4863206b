import math
from dataclasses import replace

import pytest
import torch

from understudy.core.systems import find
from understudy.models.operators.sound import SoundOperator, SoundTraining
from understudy.reproduce import Scale
from understudy.reproduce import sound_operator as reproduction

SMOKE = reproduction._SIZES[Scale.SMOKE]
CPU = reproduction._SIZES[Scale.CPU]


@pytest.fixture(scope="module")
def square():
    return reproduction._recorded(SMOKE, "square")


def test_the_system_is_implemented():
    assert find("sound-operator").implemented


@pytest.mark.slow
def test_every_claim_is_measured_at_smoke_scale():
    claims = reproduction.run(Scale.SMOKE, seed=3)
    assert {claim.seeds for claim in claims} == {(3,)}
    assert all(math.isfinite(claim.measured) for claim in claims)
    assert len({claim.statement for claim in claims}) == len(claims) == 11


@pytest.mark.parametrize("name", ["square", "L"])
def test_sources_that_score_are_not_among_those_of_training(name):
    data = reproduction._recorded(replace(CPU, duration=0.001), name)
    for other in (data.train, data.validation):
        assert float(torch.cdist(data.test.sources, other.sources).min()) > 0.01
    assert float(torch.cdist(data.train.sources, data.validation.sources).min()) > 1e-4
    assert len(data.test) == 5 and len(data.validation) == 24


def test_the_square_has_about_five_sources_a_wavelength():
    data = reproduction._recorded(replace(CPU, duration=0.001), "square")
    assert len(data.train) == 196
    assert data.train.pressure.shape[2] == 28 * 28


@pytest.mark.parametrize("scale", [Scale.CPU, Scale.PAPER])
def test_rivals_have_about_as_many_weights(scale):
    size = reproduction._SIZES[scale]
    one = reproduction._weights(reproduction._settings(size))
    assert one <= reproduction._weights(reproduction._plain(size)) < 1.05 * one
    two = 2 * reproduction._weights(replace(reproduction._halves(size), parts=(1, 1)))
    assert 0.95 * one < two <= one


def test_weights_are_counted_as_they_are(square):
    plan = SoundTraining(steps=1, sources=4, points=20)
    for make in (reproduction._settings, reproduction._plain, reproduction._halves):
        settings = make(SMOKE)
        operator = SoundOperator(settings).fit(square.train, training=plan)
        one = reproduction._weights(settings, sensors=len(operator.sensors))
        assert operator.weights == one * settings.parts[0]


def test_errors_of_silence_are_those_of_the_field(square):
    error = reproduction._error_of(torch.zeros_like(square.test.pressure), square.test)
    assert error.relative == pytest.approx(1.0)
    assert error.rmse == pytest.approx(reproduction._rms(square.test))
    assert error.windows[0] > error.windows[1]


def test_tables_are_exact_at_their_own_sources(square):
    own = replace(square, test=square.train.select(torch.arange(3)))
    for table in (reproduction._nearest, reproduction._interpolated):
        torch.testing.assert_close(table(own), own.test.pressure, atol=1e-6, rtol=0)


def test_interpolation_of_what_is_linear_is_exact(square):
    slope = square.train.sources.sum(1)[:, None, None]
    train = replace(square.train, pressure=torch.ones_like(square.train.pressure) * slope)
    found = reproduction._interpolated(replace(square, train=train))
    expected = square.test.sources.sum(1)[:, None, None].expand_as(found)
    torch.testing.assert_close(found, expected)


def test_frozen_layers_that_move_are_noticed(square):
    plan = SoundTraining(steps=2, sources=4, points=20)
    operator = SoundOperator(reproduction._settings(SMOKE)).fit(square.train, training=plan)
    kept = operator.transfer(square.train, training=plan)
    assert reproduction._moved(operator, kept) == 0.0
    assert math.isnan(reproduction._moved(operator, operator))
    moved = operator.transfer(square.train, training=plan, freeze=())
    assert reproduction._moved(operator, moved) > 0.0
