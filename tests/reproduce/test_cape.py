"""The reproduction of parameter-guided channel attention: its data, its measures, its sizes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from understudy.core.systems import find
from understudy.reproduce import Scale
from understudy.reproduce import cape as reproduction


def test_the_system_is_implemented():
    assert find("cape").implemented


@pytest.mark.slow
def test_every_claim_is_measured_at_smoke_scale():
    claims = reproduction.run(Scale.SMOKE, seed=3)
    assert {claim.seeds for claim in claims} == {(3,)}
    assert all(math.isfinite(claim.measured) for claim in claims)
    assert len({claim.statement for claim in claims}) == len(claims) == 8


def test_trajectories_move_each_at_the_speed_that_comes_with_them():
    fields, speeds = reproduction._trajectories(reproduction._moving(5), (0.4, 2.0), 3, first=7)
    assert fields.shape == (6, 5, 1, 128)
    assert speeds.flatten().tolist() == pytest.approx([0.4] * 3 + [2.0] * 3)
    # 2 x 0.05 a step is 12.8 points, so 5 steps are 64
    start, _ = reproduction._trajectories(reproduction._moving(6), (2.0,), 1, first=7)
    torch.testing.assert_close(start[0, 5], start[0, 0].roll(64, -1), atol=1e-5, rtol=0.0)


def test_no_trajectory_is_in_two_of_training_validation_and_tests():
    size = reproduction._SIZES[Scale.SMOKE]
    data = reproduction._advection(size, seed=0)
    other = reproduction._advection(size, seed=1)
    test, _ = reproduction._trajectories(
        reproduction._moving(3), reproduction.SPEEDS, 2, reproduction._TEST_SEED
    )
    starts = torch.cat([d[:, 0, 0] for d in (data.fields, data.validation[0], other.fields, test)])
    assert len(starts.unique(dim=0)) == len(starts) == 10 + 5 + 10 + 10


def test_the_speed_cannot_be_told_from_what_a_network_sees():
    data = reproduction._advection(reproduction._SIZES[Scale.SMOKE], seed=0)
    plain = reproduction._plain_fno()
    assert plain.settings["in_channels"] == data.fields.shape[2] == 1
    assert torch.equal(
        plain(data.fields[:, 0], data.numbers), plain(data.fields[:, 0], 2.0 * data.numbers)
    )


def test_networks_are_those_of_the_paper():
    small, large = reproduction._cape_fno(), reproduction._plain_fno()
    assert reproduction._entries(small) == 68_230
    assert reproduction._entries(large) == 72_509


def test_errors_are_parted_by_wave_numbers():
    x = torch.arange(128) / 128

    def wave(k: int, amplitude: float) -> Tensor:
        return amplitude * torch.cos(2 * math.pi * k * x).expand(2, 3, 1, 128)

    true = wave(1, 1.0) + wave(6, 0.5) + wave(20, 0.1)
    predicted = true + wave(2, 0.1) + wave(11, 0.25) + wave(12, 0.1)
    assert reproduction._banded(predicted, true) == pytest.approx([0.1, 0.5, 1.0], rel=1e-4)
