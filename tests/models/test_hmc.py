"""Surrogates by samples of weights keep the contract; Hamiltonian Monte Carlo does what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from botorch.acquisition import qLogExpectedImprovement
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator

from understudy.core.errors import UserError
from understudy.core.surrogate import Surrogate
from understudy.models.tabular.hmc import HMCSurrogate
from understudy.models.tabular.sampled_network import Problems, best_of_grid, log_score, merged
from understudy.models.tabular.sghmc import SGHMCSurrogate
from understudy.nn.bayesian_mlp import (
    FlatMLP,
    GaussianJoint,
    IsotropicPrior,
    MinibatchJoint,
    MinibatchNoisyGaussian,
)
from understudy.sample import value_and_gradient

HMC_QUICK = {
    "hidden": (16, 16),
    "warm_start_steps": 150,
    "burn_in": 30,
    "samples": 30,
    "path_length": 0.05,
}
SGHMC_QUICK = {"hidden": (16, 16), "steps": 500, "burn_in": 300}
FIXED = {"prior_variance": 1.0}
"""Shorter runs for checks of behaviour rather than of quality."""

MODELS: dict[str, Surrogate] = {
    "hmc": HMCSurrogate(**HMC_QUICK, **FIXED, noise_variance=0.01),
    "sghmc": SGHMCSurrogate(**SGHMC_QUICK, **FIXED),
}
EXPECTED_FAILURES = {
    "check_sample_weights_pandas_series": "sample weights are not part of the contract",
}
TINY = {"hidden": (8,), "warm_start_steps": 200, "burn_in": 10, "samples": 10}
each = pytest.mark.parametrize("name", MODELS)


def table(n: int = 60, m: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.uniform(-2.0, 7.0, size=(n, 3))
    Y = np.column_stack([np.sin(X[:, 0]) + X[:, 1], 1e3 * X[:, 2] ** 2])
    return X, Y[:, :m]


class Fitted(dict):
    """Surrogates by name, fitted when first asked for."""

    def __missing__(self, name: str) -> Surrogate:
        self[name] = clone(MODELS[name]).fit(*table())
        return self[name]


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return Fitted()


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(estimator, check, id=f"{name}-{getattr(check, 'func', check).__name__}")
        for name, model in {
            "hmc": clone(MODELS["hmc"]).set_params(**TINY),
            "sghmc": clone(MODELS["sghmc"]).set_params(hidden=(8,), steps=300, burn_in=200),
        }.items()
        for estimator, check in estimator_checks_generator(model, mark=None)
    ],
)
def test_scikit_learn_accepts_it_as_a_regressor(estimator, check):
    name = getattr(check, "func", check).__name__
    if name in EXPECTED_FAILURES:
        pytest.skip(EXPECTED_FAILURES[name])
    check(estimator)


@each
def test_it_explains_a_smooth_function(name, fitted):
    assert fitted[name].score(*table()) > 0.8


@each
def test_its_state_comes_back_bit_for_bit(name, fitted):
    head, tensors = fitted[name].state()
    again = type(fitted[name]).from_state(head, tensors)
    X = table()[0]
    for first, second in zip(
        again.predict(X, return_std=True), fitted[name].predict(X, return_std=True), strict=True
    ):
        assert np.array_equal(first, second)
    points = torch.from_numpy(X[:4])
    assert torch.equal(again.posterior(points).values, fitted[name].posterior(points).values)


@each
def test_its_mean_alone_is_that_of_its_predictive(name, fitted):
    X = table(50)[0]
    mean = fitted[name].predictive(X).mean
    assert torch.allclose(fitted[name].mean(X), mean, rtol=1e-9, atol=1e-9)


@each
def test_the_same_seed_gives_the_same_predictions_and_another_seed_others(name):
    X, Y = table(30)
    first, second, other = (
        clone(MODELS[name]).set_params(seed=seed).fit(X, Y).predict(X) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, second) and not np.array_equal(first, other)


@each
def test_its_joint_posterior_has_its_marginal_moments(name, fitted):
    X = torch.from_numpy(table()[0][:6]).reshape(2, 3, 3)
    posterior = fitted[name].posterior(X, observation_noise=True)
    marginal = fitted[name].predictive(X.reshape(6, 3).numpy())
    assert posterior.mean.shape == posterior.variance.shape == (2, 3, 2)
    assert torch.allclose(posterior.mean.reshape(6, 2), marginal.mean)
    assert torch.allclose(posterior.variance.sqrt().reshape(6, 2), marginal.sd, rtol=0.03)


@each
def test_a_draw_is_one_network_at_all_points(name, fitted):
    """The same point twice gets the same value in every draw."""
    x = torch.from_numpy(table()[0][:1]).repeat(3, 1)
    draws = fitted[name].posterior(x).rsample(torch.Size([20]))
    assert torch.equal(draws[:, :1].expand_as(draws), draws)
    assert float(draws[:, 0, 0].std()) > 0.0


@each
def test_gradients_reach_the_query_points(name, fitted):
    X = torch.from_numpy(table()[0][:2]).requires_grad_()

    def mean(points: torch.Tensor) -> torch.Tensor:
        return fitted[name].posterior(points).mean

    assert torch.autograd.gradcheck(mean, (X,), eps=1e-5, atol=1e-2, rtol=1e-4)


@each
def test_an_acquisition_function_accepts_it(name):
    X, Y = table(30, 1)
    model = clone(MODELS[name]).fit(X, Y[:, 0]).to_botorch()
    points = torch.from_numpy(X[:4]).reshape(2, 2, 3).requires_grad_()
    value = qLogExpectedImprovement(model, best_f=float(np.median(Y)))(points)
    value.sum().backward()
    assert value.shape == (2,) and bool(torch.isfinite(points.grad).all())


@each
def test_chunks_of_rows_change_nothing(name, fitted):
    X, model = table()[0], fitted[name]
    whole = model.predict(X)
    model.chunk_rows = 7
    parts = model.predict(X)
    del model.chunk_rows
    assert np.allclose(parts, whole, rtol=1e-12)


@each
def test_observations_are_no_surer_than_the_function(name, fitted):
    X = torch.from_numpy(table()[0][:5])
    latent, noisy = (
        fitted[name].posterior(X, observation_noise=flag).variance for flag in (False, True)
    )
    assert bool((noisy > latent).all())


@each
def test_its_error_bars_are_positive_and_finite_far_from_the_data(name, fitted):
    mean, sd = fitted[name].predict(np.full((4, 3), 100.0), return_std=True)
    assert np.isfinite(mean).all() and np.isfinite(sd).all() and (sd > 0).all()


@each
def test_out_of_fold_errors_are_those_of_unseen_rows(name):
    rng = np.random.default_rng(1)
    X, y = rng.uniform(size=(60, 3)), rng.normal(size=60)  # nothing to learn
    predictive = clone(MODELS[name]).fit_cross_validated(X, y, np.arange(60) % 5)
    error = float((predictive.mean[:, 0] - torch.from_numpy(y)).square().mean())
    assert error > 0.85 * y.var()


@each
def test_rows_of_a_fold_do_not_change_its_predictions(name):
    generator, folds = torch.Generator().manual_seed(0), np.arange(40) % 4
    U, Z = (torch.rand(40, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    of, changed = torch.from_numpy(folds == 0), Z.clone()
    changed[of] += 1.0
    model = clone(MODELS[name])
    first, second = (model._fit_folds(U, outputs, folds) for outputs in (Z, changed))
    assert torch.equal(first.loc[:, of], second.loc[:, of])
    assert not torch.allclose(first.mean[~of], second.mean[~of], rtol=1e-3)


@each
def test_rows_without_a_fold_are_learnt_from_and_not_predicted(name):
    X, Y = table(40)
    folds = np.where(np.arange(40) < 30, -1, np.arange(40) % 2)
    predictive = clone(MODELS[name]).fit_cross_validated(X, Y, folds)
    assert predictive.mean.shape == (10, 2)


@each
def test_a_time_limit_is_kept_and_leaves_a_surrogate(name):
    X, Y = table()
    endless = {"hmc": {"samples": 10**7}, "sghmc": {"steps": 10**8}}[name]
    model = clone(MODELS[name]).set_params(max_seconds=0.5, **endless).fit(X, Y)
    assert not model.chains_.finished and np.isfinite(model.predict(X)).all()


# -- Hamiltonian Monte Carlo -------------------------------------------------------------------


def joint(activation: str = "tanh", chains: int = 3) -> tuple[GaussianJoint, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    network = FlatMLP((2, 5, 4, 2), activation)
    x, y = (torch.randn(9, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    weight = (torch.rand(chains, 9, generator=generator) < 0.7).double()
    prior, noise = torch.tensor([0.5, 1.0, 2.0]).double(), torch.tensor([0.1, 0.2, 1.0]).double()
    theta = network.initial(chains, generator)
    return GaussianJoint(network, x, y, prior, noise, weight), theta


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
def test_the_gradient_of_the_joint_density_is_that_of_autograd(activation):
    density, theta = joint(activation)
    own, auto = density.value_and_gradient(theta), value_and_gradient(density.__call__)(theta)
    assert torch.allclose(own[0], auto[0], rtol=1e-12) and torch.allclose(own[1], auto[1])


def test_the_joint_density_is_that_of_its_normal_distributions():
    density, theta = joint()
    normal = torch.distributions.Normal
    for c, value in enumerate(density(theta)):
        prior = normal(0.0, density.prior_variance[c].sqrt()).log_prob(theta[c]).sum()
        mean = density.network(theta[c : c + 1], density.x)[0]
        rows = normal(mean, density.noise_variance[c].sqrt()).log_prob(density.y).sum(1)
        assert float(value) == pytest.approx(float(prior + (rows * density.weight[c]).sum()))


def test_a_chain_of_a_fold_has_the_density_of_its_rows_alone():
    density, theta = joint()
    at = density.weight[1] > 0
    own = GaussianJoint(
        density.network,
        density.x[at],
        density.y[at],
        density.prior_variance[1:2],
        density.noise_variance[1:2],
    )
    assert float(own(theta[1:2])) == pytest.approx(float(density(theta)[1]))


def test_a_flat_network_is_the_network_of_its_layers():
    network, theta = joint()[0].network, joint()[1]
    x = torch.randn(6, 2, dtype=torch.float64)
    for c in range(len(theta)):
        h = x
        for i, (weight, bias) in enumerate(network.layers(theta)):
            h = h @ weight[c] + bias[c]
            h = torch.tanh(h) if i < 2 else h
        assert torch.allclose(network(theta, x)[c], h)
    assert theta.shape[1] == network.dim == 3 * 5 + 6 * 4 + 5 * 2


def test_a_minibatch_of_all_rows_has_the_density_and_gradient_of_the_whole():
    fixed, theta = joint()
    rows = torch.arange(9).expand(3, 9)
    data = MinibatchNoisyGaussian(fixed.network, fixed.x, fixed.y, rows, torch.tensor([9, 9, 9]))
    noisy = MinibatchJoint(data, IsotropicPrior(fixed.prior_variance))
    log_noise = torch.randn(3, 2, generator=torch.Generator().manual_seed(1)).double()
    position = torch.cat([theta, log_noise], dim=1)

    def plain(at: torch.Tensor) -> torch.Tensor:
        weights, logs = data.split(at)
        normal = torch.distributions.Normal
        mean, sd = fixed.network(weights, fixed.x), (0.5 * logs).exp().unsqueeze(1)
        likelihood = normal(mean, sd).log_prob(fixed.y).sum((1, 2))
        prior = normal(0.0, fixed.prior_variance.sqrt()[:, None]).log_prob(weights).sum(1)
        centre, narrow = torch.tensor(np.log(1e-6)), normal(0.0, 0.1)
        shape = normal(centre, 0.1).log_prob(logs).sum(1) - 2 * narrow.log_prob(0 * centre)
        return likelihood + prior + shape

    own, auto = noisy.value_and_gradient(position, rows), value_and_gradient(plain)(position)
    assert torch.allclose(own[0], auto[0], rtol=1e-9)
    assert torch.allclose(own[1], auto[1], rtol=1e-9)


def test_wide_data_with_little_noise_get_the_smaller_noise_variance():
    X, Y = table(60, 1)
    found = HMCSurrogate(**HMC_QUICK).set_params(warm_start_steps=1000).fit(X, Y)
    noisy = Y + 3.0 * Y.std() * np.random.default_rng(0).normal(size=Y.shape)
    other = HMCSurrogate(**HMC_QUICK).set_params(warm_start_steps=1000).fit(X, noisy)
    assert found.noise_variance_ < other.noise_variance_ == 1.0


def test_the_grid_is_left_out_where_rows_are_too_few():
    found = HMCSurrogate(**HMC_QUICK).fit(np.arange(4.0)[:, None], np.arange(4.0))
    assert (found.prior_variance_, found.noise_variance_) == (1.0, 0.1)


def test_a_linear_gaussian_model_has_its_exact_posterior():
    """A net whose hidden units are all but linear, at small weights, is Bayesian regression."""
    X = np.linspace(0.0, 1.0, 20)[:, None]
    y = 2.0 * X[:, 0] + np.random.default_rng(0).normal(size=20)
    model = HMCSurrogate(
        hidden=(3,), activation="relu", prior_variance=1.0, noise_variance=1.0, chains=8,
        burn_in=100, samples=100, step_size=0.1, path_length=1.5, jitter=0.5, warm_start_steps=100,
    ).fit(X, y)  # fmt: skip
    half = model.chains_.draws[:, :4], model.chains_.draws[:, 4:]
    network, U = FlatMLP((1, 3, 1), "relu"), torch.from_numpy(X)
    means = [network(d.flatten(0, 1), U).mean(0) for d in half]
    assert float((means[0] - means[1]).abs().max()) < 0.2
    assert model.posterior(U).values.shape == (800, 20, 1)


def test_merged_components_keep_mean_and_variance():
    generator = torch.Generator().manual_seed(0)
    loc = torch.randn(50, 7, 2, generator=generator, dtype=torch.float64)
    noise = torch.rand(50, 2, generator=generator, dtype=torch.float64)
    found = merged(loc, noise)
    assert len(found.loc) == 16
    assert torch.allclose(found.mean, loc.mean(0))
    variance = loc.var(0, correction=0) + noise.mean(0)
    assert torch.allclose(found.sd.square(), variance)


def test_few_samples_are_their_own_components():
    loc = torch.tensor([[[2.0]], [[1.0]]], dtype=torch.float64)
    found = merged(loc, torch.tensor([[0.04], [0.25]], dtype=torch.float64))
    assert found.loc.flatten().tolist() == [1.0, 2.0]
    assert found.scale.flatten().tolist() == pytest.approx([0.5, 0.2])


def test_a_held_out_fifth_is_of_the_rows_of_each_problem():
    inside = torch.ones(3, 50, dtype=torch.bool)
    inside[1, :25] = False
    kept, away = Problems(torch.zeros(50, 1), torch.zeros(50, 1), inside).held_out(0)
    assert away.sum(1).tolist() == [10, 5, 10]
    assert torch.equal(kept.inside | away, inside) and not bool((kept.inside & away).any())


def test_the_best_pair_of_a_grid_is_chosen_for_each_problem():
    scores = torch.tensor([[1.0, 3.0], [float("nan"), -5.0]], dtype=torch.float64)
    found = best_of_grid([(0.1, 0.2), (1.0, 2.0)], scores)
    assert found.prior.tolist() == [1.0, 1.0] and found.noise.tolist() == [2.0, 2.0]


def test_the_score_of_one_sample_is_its_log_density_on_the_rows_that_count():
    y = torch.tensor([[0.5], [9.0]], dtype=torch.float64)
    rows = torch.tensor([[True, False]])
    noise = torch.full((1, 1, 1), 0.25).double()
    found = log_score(torch.zeros(1, 1, 2, 1).double(), noise, y, rows)
    expected = torch.distributions.Normal(0.0, 0.5).log_prob(torch.tensor(0.5))
    assert float(found) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"activation": "step"}, "activation"),
        ({"hidden": ()}, "hidden"),
        ({"noise_variance": 0.0}, "noise_variance"),
        ({"samples": 1}, "two samples"),
        ({"mass": "dense"}, "mass"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(wrong, said):
    with pytest.raises(UserError, match=said):
        HMCSurrogate(**{**HMC_QUICK, **wrong}).fit(*table(20))
