"""Training of sparse Bayesian networks."""

import math

import pytest
import torch
from torch import nn

from understudy.core.errors import UserError
from understudy.nn.sparse_bayesian import MeanField, bayesianize, predict, sparse_layers
from understudy.nn.sparse_training import (
    GaussianNoise,
    SparseSubspaceInference,
    cross_entropy,
    without_noise,
)


def mlp(outputs: int = 2) -> nn.Sequential:
    hidden = nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU()
    return nn.Sequential(*hidden, nn.Linear(16, outputs))


def halves(n: int = 200, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] > x[:, 1]).long()


QUICK = SparseSubspaceInference(epochs=15, batch_size=20, delta=10, learning_rate=0.05)
INIT = MeanField(prior_sd=None, mean_sd=None, sd=0.01)


def test_it_learns_two_halves_of_a_plane():
    x, y = halves()
    model = bayesianize(mlp(), 0.4, init=INIT)
    QUICK.fit(model, x, y)
    unseen, labels = halves(seed=1)
    assert not model.training
    assert float((predict(model, unseen).argmax(1) == labels).float().mean()) > 0.93


def test_the_same_seed_trains_the_same_network_and_leaves_the_generator_alone():
    x, y = halves()
    first, second = (bayesianize(mlp(), 0.4, init=INIT) for _ in range(2))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    QUICK.fit(first, x, y)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    QUICK.fit(second, x, y)
    assert torch.equal(first[2].mu, second[2].mu)


def test_the_loss_has_the_annealed_and_tempered_divergence():
    """A step at learning rate 0 shows nothing; the gradient of one step shows the loss."""
    x, y = halves(40)
    seen = []

    def likelihood(outputs, targets):
        seen.append(outputs)
        return outputs.sum() * 0.0

    model = bayesianize(nn.Linear(2, 2), 1.0, init=MeanField(prior_sd=0.5))
    mu = model.mu.detach().clone()
    rate, scale = 0.1, 0.4
    training = SparseSubspaceInference(
        epochs=2, batch_size=40, momentum=0.0, weight_decay=0.0, learning_rate=rate, kl_scale=scale
    )
    training.fit(model, x, y, likelihood)
    # epoch 0 has no divergence, epoch 1 all of it; the cosine's rate there is half
    expected = mu - 0.5 * rate * scale / 40 * mu / 0.5**2
    assert len(seen) == 2
    assert torch.allclose(model.mu, expected, rtol=1e-5)


def test_stacked_networks_learn_from_their_own_rows_only():
    x, y = halves(60)
    inside = torch.ones(2, 60, dtype=torch.bool)
    inside[1, :25] = False
    spoilt = y.clone()
    spoilt[:25] = 1 - spoilt[:25]
    training = SparseSubspaceInference(epochs=10, batch_size=16, learning_rate=0.05)
    stacks = [bayesianize(mlp(), 0.4, init=INIT, networks=2) for _ in range(2)]
    for stack, labels in zip(stacks, (y, spoilt), strict=True):
        training.fit(stack, x, labels, inside=inside)
    first, second = (stack[2].mu.detach() for stack in stacks)
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], second[0])


def test_rows_of_their_own_may_be_given_to_each_network():
    x, y = (torch.stack(pair) for pair in zip(halves(), halves(seed=1), strict=True))
    model = bayesianize(mlp(), 0.4, init=INIT, networks=2)
    QUICK.fit(model, x, y)
    with torch.no_grad():
        assert float((model(x).argmax(-1) == y).float().mean()) > 0.93


def test_the_noise_of_a_regression_is_learnt():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(400, 2, generator=generator)
    y = x[:, :1] - x[:, 1:] + 0.2 * torch.randn(400, 1, generator=generator)
    likelihood = GaussianNoise(1, variance=1.0)
    model = bayesianize(mlp(1), 0.4, init=INIT)
    training = SparseSubspaceInference(
        epochs=60, optimizer="adam", batch_size=100, learning_rate=0.02, likelihood_rate=4.0
    )
    training.fit(model, x, y, likelihood)
    assert float(likelihood.variance.detach()) == pytest.approx(0.04, rel=0.35)


def test_the_gaussian_likelihood_is_that_of_torch():
    likelihood = GaussianNoise(3, networks=2, variance=0.3)
    outputs, targets = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    normal = torch.distributions.Normal(outputs, math.sqrt(0.3))
    expected = -normal.log_prob(targets).sum(-1).mean(-1)
    assert torch.allclose(likelihood(outputs, targets), expected, atol=1e-5)


def test_cross_entropy_is_kept_apart_by_network():
    logits, labels = torch.randn(3, 8, 4), torch.randint(0, 4, (3, 8))
    each = [nn.functional.cross_entropy(a, b) for a, b in zip(logits, labels, strict=True)]
    assert torch.allclose(cross_entropy(logits, labels), torch.stack(each))


def test_without_noise_and_prior_training_is_deterministic():
    x, y = halves()
    models = [bayesianize(mlp(), 0.4, init=MeanField(mean_sd=None, sd=sd)) for sd in (1e-3, 1.0)]
    training = SparseSubspaceInference(
        epochs=5, noise=False, kl_scale=0.0, removal="magnitude", delta=10
    )
    for model in models:
        training.fit(model, x, y)
    assert torch.equal(models[0][2].mu, models[1][2].mu)


def test_without_noise_other_layers_keep_their_mode():
    model = nn.Sequential(bayesianize(nn.Linear(2, 2), 1.0), nn.Dropout())
    model.train()
    with without_noise(model):
        assert not model[0].training and model[1].training
    assert model[0].training


def test_the_gradient_of_the_mean_network_may_choose_new_weights():
    x, y = halves()
    model = bayesianize(mlp(), 0.4, init=MeanField(mean_sd=None, sd=0.5))
    mask = model[2].mask.clone()
    SparseSubspaceInference(epochs=5, batch_size=20, delta=5, mean_gradient=True).fit(model, x, y)
    assert not torch.equal(model[2].mask, mask)
    assert model[2].active == int(mask.sum())


def test_every_support_keeps_its_size_through_a_training():
    x, y = halves()
    model = bayesianize(mlp(), 0.4, init=INIT)
    sizes = [layer.active for layer in sparse_layers(model).values()]
    QUICK.fit(model, x, y)
    masks = [layer.mask for layer in sparse_layers(model).values()]
    assert [int(mask.sum()) for mask in masks] == sizes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs and batch_size must be at least 1"),
        ({"optimizer": "lion"}, "optimizer must be 'sgd' or 'adam'"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"t_end": 1.5}, "t_end is a share of the steps"),
        ({"kl_scale": -1.0}, "kl_scale must be at least 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        SparseSubspaceInference(**settings)


def test_rows_that_do_not_match_are_refused():
    x, y = halves()
    with pytest.raises(UserError, match="x and y differ in rows"):
        QUICK.fit(bayesianize(mlp(), 0.4), x, y[:-1])
    with pytest.raises(UserError, match="at least one row"):
        inside = torch.zeros(2, 200, dtype=torch.bool)
        QUICK.fit(bayesianize(mlp(), 0.4, networks=2), x, y, inside=inside)
