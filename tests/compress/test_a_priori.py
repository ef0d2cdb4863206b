"""Networks and operators that are compressed before training, and what is said of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from understudy.compress import compress_a_priori, rebuilt, truncate
from understudy.compress.a_priori import example_inputs
from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.one_step import OneStepModel
from understudy.models.operators.one_way import OneWayNetwork
from understudy.models.operators.stored import load_operator
from understudy.models.operators.training import Training
from understudy.models.operators.wave_cnn import WaveCNN
from understudy.nn.one_way_network import OneWayPlan

QUICK = Training(steps=3, batch_size=4, ema_decay=None)


def classifier() -> nn.Module:
    """Network that is none of ours."""
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 5, padding=2), nn.ReLU()),
        *(nn.Conv2d(16, 16, 1), nn.ConvTranspose2d(16, 16, 4, 2, 1), nn.ReLU()),
        nn.Conv2d(16, 2, 3, padding=1),
    )


def test_the_report_has_each_layer_and_why_others_stay() -> None:
    model = classifier()
    small, report = compress_a_priori(model, rank=2)
    rows = {row["layer"]: row for row in report.table()}
    assert list(rows) == ["2", "5", "all"]
    assert rows["2"]["parameters_before"] == 16 * 16 * 25 + 16
    assert rows["2"]["parameters_after"] == 2 * 16 * (16 + 5 + 5) + 16
    assert rows["5"]["parameters_after"] == 2 * 16 * (16 + 4 + 4) + 16
    assert rows["2"]["ratio"] == pytest.approx(6416 / 848)
    assert rows["all"]["bytes_after"] == 4 * sum(p.numel() for p in small.parameters())
    assert report.left == {"0": "first", "4": "1 point wide", "7": "last"}
    assert report.ratio == rows["all"]["ratio"]
    x = torch.randn(1, 3, 8, 8)
    assert small(x).shape == model(x).shape


def test_a_measured_report_counts_and_times() -> None:
    _, report = compress_a_priori(classifier(), rank=1)
    rows = report.measured(torch.zeros(2, 3, 8, 8), rounds=1)
    layer = rows[0]
    assert layer["macs_before"] == 2 * 64 * 16 * 16 * 25
    assert layer["macs_after"] == 2 * 64 * 16 * (16 + 5 + 5)
    assert layer["ms_before"] > 0 and layer["ms_after"] > 0
    assert layer["speedup"] == pytest.approx(layer["ms_before"] / layer["ms_after"])
    assert math.isnan(report.measured(torch.zeros(1, 3, 8, 8), rounds=0)[0]["speedup"])


def test_the_ends_are_rewritten_where_asked() -> None:
    _, report = compress_a_priori(classifier(), skip=())
    assert [s.name for s in report.swaps] == ["0", "2", "5", "7"]


def test_truncating_keeps_what_was_learnt_and_compressing_afresh_does_not() -> None:
    torch.manual_seed(0)
    model, x = classifier(), torch.randn(2, 3, 8, 8)
    few, many, fresh = (
        make(model, rank=rank)[0](x)
        for make, rank in ((truncate, 2), (truncate, 12), (compress_a_priori, 2))
    )
    gaps = [float((out - model(x)).detach().norm()) for out in (many, few, fresh)]
    assert gaps[0] < 0.5 * gaps[1] < gaps[2]


def test_a_network_of_fields_stays_one() -> None:
    small, _ = compress_a_priori(WaveCNN(2, 2, channels=8))
    assert isinstance(small, OneWayNetwork)
    with pytest.raises(UserError, match="has one-way filters already"):
        compress_a_priori(small)


def moving() -> torch.Tensor:
    start = torch.randn(8, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    return torch.stack([start.roll(t, dims=-1) for t in range(4)], dim=1)


def test_an_operator_is_rebuilt_truncated_and_kept(tmp_path) -> None:
    model = OneStepModel(WaveCNN(1, 1, channels=6, blocks=1)).fit(moving(), dt=0.1, training=QUICK)
    before = model.rollout(moving()[:, 0], 2)
    small, report = rebuilt(model, OneWayPlan(1), "truncated")
    assert report.ratio > 1.0
    small.save(tmp_path / "small.us")
    back = load_operator(tmp_path / "small.us")
    torch.testing.assert_close(back.rollout(moving()[:, 0], 2), small.rollout(moving()[:, 0], 2))
    torch.testing.assert_close(model.rollout(moving()[:, 0], 2), before)


def test_a_fresh_operator_is_trained_without_touching_the_other() -> None:
    model = OneStepModel(WaveCNN(1, 1, channels=6, blocks=1)).fit(moving(), dt=0.1, training=QUICK)
    before = model.rollout(moving()[:, 0], 2)
    small, _ = rebuilt(model, OneWayPlan(2))
    assert small.outcome is None
    small.fit(2.0 * moving(), dt=0.2, training=QUICK)
    assert (model.dt, small.dt) == (0.1, 0.2)
    torch.testing.assert_close(model.rollout(moving()[:, 0], 2), before)


def test_example_inputs_fit_steppers_and_maps() -> None:
    fields = moving()
    stepper = OneStepModel(WaveCNN(2, 1, num_params=1, channels=4, blocks=1), history=2).fit(
        fields, torch.arange(8.0)[:, None], dt=0.1, training=QUICK
    )
    u, p = example_inputs(stepper, 3)
    assert stepper.network(u, p).shape == (3, 1, 12, 12)
    map_ = FieldMap(WaveCNN(1, 1, channels=4, blocks=1)).fit(
        fields[:, 0], fields[:, 1], grid=Grid.of(12, 12), training=QUICK
    )
    (u,) = example_inputs(map_)
    assert map_.network(u).shape == (1, 1, 12, 12)
