"""Sparse Gaussian layers, their divergence and the networks drawn from them."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from understudy.core.errors import UserError
from understudy.nn.sparse_bayesian import (
    MeanField,
    SparseBayesianConv2d,
    SparseBayesianLinear,
    bayesianize,
    draw_weights,
    inverse_softplus,
    kl_divergence,
    outputs_of_draws,
    predict,
    sparse_layers,
    support_size,
)


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 3)
    )


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, groups=2),
        nn.Flatten(),
        nn.Linear(8 * 3 * 3, 3),
    )


def wide(sd: float = 0.3) -> MeanField:
    return MeanField(prior_sd=0.5, mean_sd=0.5, sd=sd, sd_spread=0.1 * sd)


def test_inverse_softplus_inverts_from_the_smallest_to_the_largest_deviation():
    sd = torch.tensor([1e-6, 1e-3, 0.1, 1.0, 30.0])
    assert torch.allclose(torch.nn.functional.softplus(inverse_softplus(sd)), sd, rtol=1e-4)


@pytest.mark.parametrize(("weights", "density", "active"), [(100, 0.05, 5), (7, 0.5, 4), (9, 1, 9)])
def test_the_support_is_all_but_the_whole_part_of_the_zeros(weights, density, active):
    assert support_size(weights, density) == active


@pytest.mark.parametrize("density", [0.0, -0.1, 1.1, math.nan])
def test_a_density_outside_its_range_is_refused(density):
    with pytest.raises(UserError, match="density must be above 0 and at most 1"):
        bayesianize(mlp(), density)


def test_means_and_deviations_share_one_support_of_the_asked_size():
    layer = SparseBayesianLinear(40, 30, 0.1, generator=torch.Generator().manual_seed(1))
    assert layer.active == int(layer.mask.sum()) == 120
    assert torch.equal(layer.mu != 0, layer.mask)
    assert torch.equal(layer.sigma > 0, layer.mask)
    assert torch.equal(layer.on_support(layer.mu), layer.mu[layer.mask])


def test_first_values_are_those_of_the_official_code():
    layer = SparseBayesianLinear(300, 300, 0.5)
    assert float(layer.mu[layer.mask].detach().std()) == pytest.approx(0.01, rel=0.03)
    sigma = layer.sigma[layer.mask].detach().numpy()
    reference = np.abs(np.random.default_rng(0).normal(6e-4, 5e-4, 100_000))
    assert sigma.mean() == pytest.approx(reference.mean(), rel=0.03)
    assert sigma.std() == pytest.approx(reference.std(), rel=0.05)


def test_the_first_layer_stays_dense_unless_asked_otherwise_or_alone():
    densities = [m.density for m in sparse_layers(bayesianize(mlp(), 0.2)).values()]
    assert densities == [1.0, 0.2, 0.2]
    every = sparse_layers(bayesianize(mlp(), 0.2, sparse_first=True)).values()
    assert {m.density for m in every} == {0.2}
    assert bayesianize(nn.Linear(50, 2), 0.2).density == 0.2


def test_a_layer_used_twice_is_converted_once():
    shared = nn.Linear(8, 8)
    model = bayesianize(nn.Sequential(nn.Linear(8, 8), shared, nn.ReLU(), shared), 0.5)
    assert model[1] is model[3]
    assert len(sparse_layers(model)) == 2


def test_the_given_network_is_left_as_it_is():
    model = mlp()
    bayesianize(model, 0.5)
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize(
    ("model", "density", "networks", "message"),
    [
        (nn.ReLU(), 0.5, None, "holds no torch.nn.Linear"),
        (mlp(), 0.01, None, "layer '2': density 0.01 leaves 4 of 400 weights .* 20 outputs"),
        (convolutional(), 0.5, 2, "layer '0': convolutions cannot be stacked"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), 0.5, None, "padding_mode"),
    ],
)
def test_what_cannot_be_converted_is_refused(model, density, networks, message):
    with pytest.raises(UserError, match=message):
        bayesianize(model, density, networks=networks)


@pytest.mark.parametrize("field", ["prior_sd", "mean_sd", "sd"])
def test_deviations_that_are_not_positive_are_refused(field):
    with pytest.raises(UserError, match=f"{field} must be positive"):
        MeanField(**{field: 0.0})


def test_the_divergence_is_that_of_torch_over_active_weights():
    model = bayesianize(mlp(), 0.3, init=wide())
    expected = sum(
        torch.distributions.kl_divergence(
            torch.distributions.Normal(m.mu[m.mask], m.sigma[m.mask]),
            torch.distributions.Normal(0.0, 0.5),
        ).sum()
        for m in sparse_layers(model).values()
    )
    assert torch.allclose(kl_divergence(model), expected, rtol=1e-5)


def test_stacked_networks_have_divergences_of_their_own():
    model = bayesianize(mlp(), 0.3, init=wide(), networks=4)
    total = kl_divergence(model)
    assert total.shape == (4,)
    layers = sparse_layers(model).values()
    second = sum(
        (torch.log(0.5 / s) + (s**2 + m**2) / 0.5 - 0.5).sum()
        for layer in layers
        for s, m in [(layer.sigma[1][layer.mask[1]], layer.mu[1][layer.mask[1]])]
    )
    assert torch.allclose(total[1], second, rtol=1e-5)


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (SparseBayesianLinear(12, 5, 0.5, init=wide()), torch.randn(4, 12)),
        (
            SparseBayesianConv2d(2, 4, 3, 0.5, padding=1, stride=2, init=wide()),
            torch.randn(1, 2, 5, 5),
        ),
    ],
    ids=["linear", "conv"],
)
def test_noisy_outputs_have_the_moments_that_random_weights_give(layer, x):
    """Var = sum of sigma^2 x^2 over inputs, checked against networks drawn weight by weight."""
    torch.manual_seed(0)
    layer.train()
    with torch.no_grad():
        noisy = torch.stack([layer(x) for _ in range(2000)])
        drawn = outputs_of_draws(layer, draw_weights(layer, 2000), x)
    assert torch.allclose(noisy.mean(0), drawn.mean(0), atol=0.15)
    assert torch.allclose(noisy.std(0), drawn.std(0), rtol=0.12)
    with torch.no_grad():
        mean = layer.eval()(x)
    assert torch.allclose(mean, drawn.mean(0), atol=0.1)


def test_the_gradient_of_the_means_is_dense_and_of_the_deviations_sparse():
    layer = SparseBayesianLinear(30, 10, 0.2, init=wide())
    layer.train()
    layer(torch.randn(50, 30)).square().sum().backward()
    assert int((layer.mu.grad != 0).sum()) == 300
    assert torch.equal(layer.rho.grad != 0, layer.mask)


@pytest.mark.parametrize("sd", [1e-6, 1e-3, 1.0, 100.0])
def test_outputs_and_gradients_are_finite_at_any_deviation(sd):
    model = bayesianize(mlp(), 0.3, init=MeanField(sd=sd, sd_spread=0.0))
    model.train()
    (
        model(torch.zeros(3, 6)).sum() + model(torch.randn(3, 6)).sum() + kl_divergence(model)
    ).backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_drawn_networks_are_zero_outside_the_support():
    model = bayesianize(mlp(), 0.2, init=wide())
    draws = draw_weights(model, 5)
    for name, layer in sparse_layers(model).items():
        assert draws[f"{name}.mu"].shape == (5, *layer.mu.shape)
        assert torch.equal((draws[f"{name}.mu"] != 0).any(0), layer.mask)


@pytest.mark.parametrize(
    ("make", "x"), [(mlp, torch.randn(9, 6)), (convolutional, torch.randn(9, 1, 8, 8))]
)
def test_predictions_average_whole_networks(make, x):
    model = bayesianize(make(), 0.5, init=wide())
    model.train()
    probabilities = predict(model, x, samples=7, seed=3)
    assert model.training and model[0].training
    draws, expected = draw_weights(model, 7, seed=3), 0.0
    model.eval()
    with torch.no_grad():
        for s in range(7):
            one = {name: values[s] for name, values in draws.items()}
            expected = expected + torch.func.functional_call(model, one, (x,)).softmax(-1) / 7
    assert torch.allclose(probabilities, expected, atol=1e-5)
    assert torch.allclose(probabilities.sum(1), torch.ones(9), atol=1e-5)


def test_no_samples_are_refused():
    with pytest.raises(UserError, match="samples must be at least 1"):
        predict(bayesianize(mlp(), 0.5), torch.randn(2, 6), samples=0)


def test_a_model_without_sparse_layers_is_refused():
    with pytest.raises(UserError, match="no sparse Bayesian layer"):
        kl_divergence(mlp())


def test_stacked_networks_are_those_networks():
    """Each of a stack gives what a single layer with its weights gives."""
    stack = bayesianize(mlp(), 0.4, init=wide(), networks=3).eval()
    single = bayesianize(mlp(), 0.4, init=wide()).eval()
    x = torch.randn(11, 6)
    state = {k: v[2] for k, v in stack.state_dict().items()}
    single.load_state_dict(state)
    assert torch.allclose(stack(x)[2], single(x), atol=1e-5)
    assert torch.equal(next(iter(sparse_layers(single).values())).mask, stack[0].mask[2])


def test_a_loaded_support_is_where_the_state_has_it():
    first, second = (bayesianize(mlp(), 0.3, init=wide(), seed=seed) for seed in (1, 2))
    second.load_state_dict(first.state_dict())
    assert torch.equal(kl_divergence(second), kl_divergence(first))
    x = torch.randn(5, 6)
    assert torch.equal(predict(second, x), predict(first, x))


def test_a_support_of_another_size_is_refused():
    layer = SparseBayesianLinear(10, 10, 0.3)
    with pytest.raises(ValueError, match="support has 30 weights, not 100"):
        layer.set_support(torch.ones(10, 10, dtype=torch.bool))
