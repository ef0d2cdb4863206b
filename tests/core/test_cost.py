import math
from functools import partial

import pytest
import torch
from torch import nn

from understudy.core.cost import (
    cost,
    count_bytes,
    count_macs,
    count_parameters,
    evaluating,
    inputs_of,
    latencies,
    peak_bytes,
)


def test_a_convolution_costs_what_its_formula_says():
    conv = nn.Conv2d(3, 8, (5, 3), padding=(2, 1))
    found = cost(conv, torch.zeros(2, 3, 10, 12))
    assert found.parameters == 8 * 3 * 15 + 8
    assert found.bytes == 4 * found.parameters
    assert found.macs == 2 * 10 * 12 * 8 * 3 * 15
    assert math.isnan(found.seconds)


def test_groups_and_transposes_are_counted_by_what_they_multiply():
    x = torch.zeros(1, 8, 6, 6)
    assert count_macs(nn.Conv2d(8, 8, 3, padding=1, groups=8), x) == 36 * 8 * 9
    # each of 36 points given meets the whole kernel
    assert count_macs(nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1), x) == 36 * 8 * 4 * 16


def test_shared_parameters_and_buffers_are_counted_once():
    linear, norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
    model = nn.Sequential(linear, norm, linear)
    assert count_parameters(model) == 20 + 8
    assert count_bytes(model) == 4 * (20 + 8 + 8) + 8  # running moments, and a count in int64


def test_counting_changes_neither_mode_nor_running_moments():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[1].eval()
    cost(model, torch.randn(8, 4), rounds=1)
    assert model.training and model[0].training and not model[1].training
    assert int(model[1].num_batches_tracked) == 0


def test_modes_come_back_after_a_failure():
    model = nn.Linear(2, 2)
    with pytest.raises(RuntimeError), evaluating(model):
        model(torch.zeros(1, 3))
    assert model.training and torch.is_grad_enabled()


def test_latencies_are_the_least_over_rounds():
    ticks = iter([0.0, 5.0, 0.0, 1.0, 0.0, 3.0, 0.0, 2.0])  # of a and b in turns
    made = []
    calls = {name: partial(made.append, name) for name in "ab"}
    found = latencies(calls, rounds=2, clock=lambda: next(ticks))
    assert found == {"a": 3.0, "b": 1.0}
    assert "".join(made) == "ababab"


def test_modules_are_told_with_what_they_are_given():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    x = torch.randn(5, 4)
    given = inputs_of(model, ["0", "2"], x)
    assert torch.equal(given["0"][0], x)
    torch.testing.assert_close(given["2"][0], model[0](x).relu().detach())
    assert not model[0]._forward_pre_hooks


def test_the_peak_is_that_of_tensors_that_are_there_at_once():
    x = torch.ones(1000)

    def three_at_once():
        y = x + 1.0
        z = y * 2.0
        del y
        return z - x

    def two_after_another():
        y = x + 1.0
        del y
        return x + 2.0

    assert peak_bytes(three_at_once) == 2 * 4000
    assert peak_bytes(two_after_another) == 4000


def test_the_peak_of_a_step_of_training_counts_what_is_kept_and_not_what_was_there():
    """Of L layers with sigmoids between them: each output is kept, and two gradients at once."""
    wide = nn.Sequential(*[part for _ in range(6) for part in (nn.Linear(64, 64), nn.Sigmoid())])
    u = torch.randn(1000, 64)

    def step():
        wide.zero_grad(set_to_none=False)
        wide(u).sum().backward()

    field, gradients = 4 * u.numel(), 4 * count_parameters(wide)
    found = peak_bytes(step, wide)
    assert 6 * field <= found <= 10 * field + 2 * gradients
    assert peak_bytes(lambda: wide(u), wide) > peak_bytes(lambda: _still(wide, u), wide)


@torch.no_grad()
def _still(model, u):
    return model(u)
