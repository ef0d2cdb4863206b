"""Sparse Bayesian networks on disk, and the arithmetic of training them."""

import dataclasses

import pytest
import torch
from torch import nn

from understudy.core import artifact
from understudy.core.artifact import ArtifactError
from understudy.core.errors import UserError
from understudy.nn.sparse_bayesian import MeanField, bayesianize, predict
from understudy.nn.sparse_compact import (
    CompactLayer,
    CompactNetwork,
    FlopsReport,
    LayerFlops,
    flops_report,
    to_compact,
)


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(30, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 3)
    )


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)
    )


INIT = MeanField(prior_sd=0.5, mean_sd=0.5, sd=0.3, sd_spread=0.1)


@pytest.mark.parametrize(
    ("make", "x"), [(mlp, torch.randn(9, 30)), (convolutional, torch.randn(9, 1, 4, 4))]
)
@pytest.mark.parametrize("sparse_first", [False, True])
def test_a_file_gives_back_an_equal_predictor(make, x, sparse_first, tmp_path):
    model = bayesianize(make(), 0.2, sparse_first=sparse_first, init=INIT, seed=1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(2.5)
    to_compact(model).save(tmp_path / "small.us")
    other = bayesianize(make(), 0.2, sparse_first=sparse_first, init=INIT, seed=2)
    assert not torch.equal(predict(other, x), predict(model, x))
    again = CompactNetwork.load(tmp_path / "small.us").fill(other)
    assert torch.equal(predict(again, x), predict(model, x))


def test_stacked_networks_survive_too(tmp_path):
    model, other = (bayesianize(mlp(), 0.2, init=INIT, networks=3, seed=seed) for seed in (1, 2))
    to_compact(model).save(tmp_path / "small.us")
    CompactNetwork.load(tmp_path / "small.us").fill(other)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_a_sparse_layer_takes_a_bit_a_weight_and_eight_bytes_an_active_one():
    compact = to_compact(bayesianize(nn.Linear(80, 10, bias=False), 0.1))
    assert compact.nbytes == 800 // 8 + 8 * 80
    assert to_compact(bayesianize(nn.Linear(80, 10, bias=False), 1.0)).nbytes == 8 * 800


def test_the_file_is_smaller_by_what_the_arithmetic_says(tmp_path):
    big = nn.Sequential(nn.Linear(64, 256), nn.Linear(256, 256), nn.Linear(256, 10))
    sizes = []
    for density in (1.0, 0.05):
        path = to_compact(bayesianize(big, density, sparse_first=True)).save(tmp_path / "x.us")
        sizes.append(path.stat().st_size)
    weights, biases = 64 * 256 + 256 * 256 + 256 * 10, 522
    assert sizes[0] == pytest.approx(8 * weights + 4 * biases, abs=2000)
    assert sizes[1] == pytest.approx(weights / 8 + 0.05 * 8 * weights + 4 * biases, abs=2000)


def test_another_architecture_is_refused():
    compact = to_compact(bayesianize(mlp(), 0.2))
    with pytest.raises(ArtifactError, match="the file holds layers"):
        compact.fill(bayesianize(mlp(), 0.5))


def test_another_kind_of_file_is_refused(tmp_path):
    artifact.write(tmp_path / "x.us", {"kind": "surrogate"}, {"a": torch.ones(1)})
    with pytest.raises(ArtifactError, match="holds a surrogate"):
        CompactNetwork.load(tmp_path / "x.us")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": torch.zeros(3)}, "but there are 3 means"),
        ({"support": torch.zeros(3, dtype=torch.uint8)}, "the support takes 332 bytes, found 3"),
        ({"support": torch.zeros(332, dtype=torch.uint8)}, "its support 0"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(change, message, tmp_path):
    broken = dataclasses.replace(to_compact(bayesianize(mlp(), 0.2)), **change)
    path = broken.save(tmp_path / "x.us")
    with pytest.raises(ArtifactError, match=message):
        CompactNetwork.load(path)


@pytest.mark.parametrize("layers", [None, [["0", [3, -1], 2]], [["0", [2, 2], 9]], [[1, 2]]])
def test_layers_that_cannot_be_are_refused(layers, tmp_path):
    tensors = to_compact(bayesianize(mlp(), 0.2)).tensors()
    manifest = {"kind": "sparse-bayesian-network", "layers": layers}
    artifact.write(tmp_path / "x.us", manifest, tensors)
    with pytest.raises(ArtifactError):
        CompactNetwork.load(tmp_path / "x.us")


def test_a_missing_tensor_is_named():
    compact = to_compact(bayesianize(mlp(), 0.2))
    tensors = compact.tensors()
    del tensors["raw_deviation"]
    with pytest.raises(ArtifactError, match="no tensor 'raw_deviation'"):
        CompactNetwork.from_tensors(compact.layers, tensors)


def test_compact_layers_count_their_positions():
    assert CompactLayer("0", (3, 4, 5), 60).is_dense
    assert not CompactLayer("0", (3, 4, 5), 59).is_dense


# -- arithmetic -----------------------------------------------------------------------------


def test_training_takes_six_products_an_active_weight_and_a_dense_gradient_now_and_then():
    report = FlopsReport((LayerFlops("a", 100, 10, 2), LayerFlops("b", 50, 50, 1)), delta=10)
    assert report.dense_training == 12 * (200 + 50)
    assert report.training == 12 * (20 + 50) + 2 * 90 * 2 / 10
    assert report.density == pytest.approx(60 / 150)


def test_a_convolution_counts_its_positions_and_a_linear_layer_one():
    model = bayesianize(convolutional(), 0.5)
    report = flops_report(model, torch.randn(5, 1, 4, 4))
    assert [(part.name, part.positions) for part in report.layers] == [("0", 16), ("4", 1)]
    assert report.layers[0].active == 54


def test_dense_training_has_ratio_one():
    model = bayesianize(mlp(), 1.0)
    assert flops_report(model, torch.randn(2, 30)).ratio == 1.0
    assert model.training


def test_a_twentieth_of_the_weights_takes_a_nineteenth_of_the_arithmetic():
    model = bayesianize(nn.Linear(1000, 20), 0.05)
    ratio = flops_report(model, torch.randn(2, 1000), delta=100).ratio
    assert ratio == pytest.approx(1 / (0.05 + 0.95 / 600), rel=1e-6)


def test_no_steps_between_gradients_are_refused():
    with pytest.raises(UserError, match="delta must be at least 1"):
        flops_report(bayesianize(mlp(), 1.0), torch.randn(2, 30), delta=0)
