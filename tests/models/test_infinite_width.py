"""The infinitely wide network as a surrogate."""

import numpy as np
import pytest
import torch

from understudy.core.errors import UserError
from understudy.models.tabular.infinite_width import (
    InfiniteWidthSurrogate,
    NetworkLikelihood,
    network_prior,
)
from understudy.nn.infinite_width import NNGPKernel


def table(n: int = 40, d: int = 3, m: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.uniform(-3.0, 5.0, size=(n, d))
    Y = np.maximum(X @ np.random.default_rng(1).normal(size=(d, m)), 0.0)
    return X, Y + rng.normal(size=(n, m)) * 0.05


@pytest.fixture(scope="module")
def fitted() -> InfiniteWidthSurrogate:
    return InfiniteWidthSurrogate().fit(*table())


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_the_gradient_is_that_of_finite_differences(activation):
    rng = np.random.default_rng(0)
    X, Y = torch.from_numpy(rng.random((12, 2))), rng.normal(size=(12, 2))
    prior = network_prior(2, 2, activation, 2.0, 0.5, True, 1e-6)
    likelihood = NetworkLikelihood(X, 2, activation, prior)
    theta, step = prior.starts[0] + 0.3 * rng.normal(size=6), 1e-5
    _, gradient = likelihood(theta, Y)
    for k, direction in enumerate(np.eye(6)):
        above, _ = likelihood(theta + step * direction, Y)
        below, _ = likelihood(theta - step * direction, Y)
        assert gradient[k] == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-4)


def test_it_learns_a_piecewise_linear_function(fitted):
    X, Y = table(n=100, seed=7)
    assert fitted.score(X, Y) > 0.95


def test_the_papers_process_is_that_of_its_kernel_with_noise_and_mean_learnt():
    X, Y = table(m=1)
    surrogate = InfiniteWidthSurrogate(depth=3, learn_kernel=False).fit(X, Y)
    U, Z, noise = surrogate._inputs, surrogate._targets, float(surrogate._prior.noise)
    kernel = NNGPKernel.li().double()
    centred = 2.0 * U - 1.0
    K = kernel(centred).to_dense().detach() + noise * torch.eye(len(U))
    ones = torch.ones(len(U), 1, dtype=torch.float64)
    mean = (ones.mT @ torch.linalg.solve(K, Z)) / (ones.mT @ torch.linalg.solve(K, ones))
    at = 2.0 * surrogate._scaled(torch.from_numpy(X[:5] + 0.1)) - 1.0
    cross = kernel(at, centred).to_dense().detach()
    direct = mean + cross @ torch.linalg.solve(K, Z - mean)
    predicted = surrogate.posterior(torch.from_numpy(X[:5] + 0.1)).mean
    expected = surrogate._y_shift + surrogate._y_scale * direct
    assert torch.allclose(predicted, expected, rtol=1e-4)


def test_joint_and_marginal_predictions_agree(fitted):
    at = table(n=9, seed=2)[0]
    joint = fitted.posterior(torch.from_numpy(at), observation_noise=True)
    assert torch.allclose(joint.mean, fitted.predictive(at).mean, rtol=1e-8)
    assert torch.allclose(joint.variance.sqrt(), fitted.predictive(at).sd, rtol=1e-6)


def test_the_posterior_differentiates_in_its_inputs(fitted):
    at = torch.from_numpy(table(n=2, seed=5)[0]).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: fitted.posterior(x).mean, (at,), eps=1e-5, atol=1e-4)


def test_the_gradient_is_finite_at_training_points(fitted):
    at = torch.from_numpy(table()[0][:3]).requires_grad_()
    posterior = fitted.posterior(at)
    (posterior.mean.sum() + posterior.variance.sum()).backward()
    assert bool(torch.isfinite(at.grad).all())


def test_joint_covariances_are_positive_semi_definite(fitted):
    covariance = fitted.posterior(torch.from_numpy(table(n=20, seed=3)[0])).mvn.covariance_matrix
    assert float(torch.linalg.eigvalsh(covariance).min()) > -1e-8


def test_the_most_probable_depth_is_chosen():
    X, Y = table(n=30, m=1)
    fits = {depth: InfiniteWidthSurrogate(depth=depth).fit(X, Y) for depth in (1, 3)}
    choice = InfiniteWidthSurrogate(depth=(1, 3)).fit(X, Y)

    def misfit(fitted: InfiniteWidthSurrogate) -> float:
        likelihood = fitted._likelihood(fitted._inputs)
        return float(likelihood.values(fitted._theta[0].numpy(), fitted._targets.numpy())[0])

    assert choice.depth_ == min(fits, key=lambda depth: misfit(fits[depth]))
    assert np.array_equal(choice.predict(X), fits[choice.depth_].predict(X))
    again = InfiniteWidthSurrogate.from_state(*choice.state())
    assert again.depth_ == choice.depth_
    assert np.array_equal(again.predict(X), choice.predict(X))
    choice.fit_cross_validated(X, Y, np.arange(30) % 3)


def test_a_smooth_activation_serves_too():
    X, Y = table(n=12, m=1)
    fitted = InfiniteWidthSurrogate(depth=1, activation="tanh").fit(X, Y)
    assert fitted.score(X, Y) > 0.9
    assert fitted.functions(4)(X).shape == (4, 12, 1)


def test_cross_validation_holds_rows_out():
    rng = np.random.default_rng(0)
    X, y = rng.random((40, 2)), rng.normal(size=40)
    folds = np.arange(40) % 4
    out_of_fold = InfiniteWidthSurrogate().fit_cross_validated(X, y, folds)
    error = np.square(out_of_fold.mean[:, 0].numpy() - y).mean()
    assert error > 0.7 * y.var()


def test_its_state_brings_back_the_same_predictions(fitted):
    again = InfiniteWidthSurrogate.from_state(*fitted.state())
    at = table(n=5, seed=6)[0]
    assert np.array_equal(again.predict(at), fitted.predict(at))


def test_two_rows_and_one_column_are_enough():
    mean, sd = (
        InfiniteWidthSurrogate().fit([[0.0], [1.0]], [1.0, 2.0]).predict([[0.5]], return_std=True)
    )
    assert np.isfinite(mean).all() and sd[0] > 0.0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"activation": "sine"}, "activation"),
        ({"depth": 0}, "depth"),
        ({"depth": ()}, "depth"),
        ({"bias_variance": 0.0}, "bias_variance"),
        ({"min_noise": 2.0}, "min_noise"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(UserError, match=named):
        InfiniteWidthSurrogate(**options).fit(*table(n=5))
