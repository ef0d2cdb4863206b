"""The exact Gaussian process: its objective, its posterior, its closed forms, its edges."""

import numpy as np
import pytest
import torch
from botorch.models import SingleTaskGP
from gpytorch.mlls import ExactMarginalLogLikelihood
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.errors import UserError
from understudy.models.tabular.exact_gp import ExactGP
from understudy.models.tabular.gaussian_process import MAX_ROWS
from understudy.models.tabular.marginal_likelihood import (
    Deadline,
    StationaryLikelihood,
    dimension_scaled,
    most_probable,
    most_probable_shared,
    spanning_order,
)


def table(n: int = 40, d: int = 3, m: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.uniform(-3.0, 5.0, size=(n, d))
    weights = rng.normal(size=(d, m))
    Y = 100.0 + 7.0 * np.sin(X @ weights) + rng.normal(size=(n, m)) * 0.3
    return X, Y


@pytest.fixture(scope="module")
def fitted() -> ExactGP:
    return ExactGP().fit(*table())


# -- objective --------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["matern52", "rbf"])
@given(seed=st.integers(0, 10_000), outputs=st.integers(1, 3))
def test_the_gradient_is_that_of_finite_differences(kernel, seed, outputs):
    rng = np.random.default_rng(seed)
    X, Y = rng.random((12, 2)), rng.normal(size=(12, outputs), scale=1.5)
    likelihood = StationaryLikelihood(X, kernel, dimension_scaled(2))
    theta, step = rng.normal(size=4) - [0, 0, 2, 0], 1e-5
    _, gradient = likelihood(theta, Y)
    for k, direction in enumerate(np.eye(4)):
        above, _ = likelihood(theta + step * direction, Y)
        below, _ = likelihood(theta - step * direction, Y)
        assert gradient[k] == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-4)


def test_blocks_of_columns_give_the_objective_of_the_whole_matrix():
    rng = np.random.default_rng(0)
    X, Y = rng.random((300, 2)), rng.normal(size=(300, 1))  # three panels
    theta = np.array([-1.0, 0.0, -3.0, 0.5])
    likelihood = StationaryLikelihood(X, "matern52", dimension_scaled(2))
    value = float(likelihood.values(theta, Y)[0])
    scaled = X / np.exp(theta[:2])
    a = np.sqrt(5 * np.square(scaled[:, None] - scaled).sum(-1))
    K = np.exp(0.5) * (1 + a + a**2 / 3) * np.exp(-a) + np.exp(-3.0) * np.eye(300)
    inverse, ones = np.linalg.inv(K), np.ones(300)
    centred = Y[:, 0] - (ones @ inverse @ Y[:, 0]) / (ones @ inverse @ ones)
    direct = 0.5 * (centred @ inverse @ centred + np.linalg.slogdet(2 * np.pi * K)[1])
    assert value == pytest.approx(direct + likelihood.prior.penalty(theta)[0], rel=1e-10)


def test_botorch_gives_fitted_hyperparameters_the_same_objective():
    X, Y = table(m=1)
    ours = ExactGP(learn_outputscale=False, min_noise=1e-4).fit(X, Y)
    U, Z, theta = ours._inputs, ours._targets, ours._theta[0]
    peer = _botorch_matern(U, Z)
    peer.covar_module.lengthscale = theta[:-2].exp()
    peer.likelihood.noise = theta[-2].exp()
    peer.mean_module.constant = ours._constant[0]
    peer.train()
    mll = ExactMarginalLogLikelihood(peer.likelihood, peer)
    theirs = float(mll(peer(*peer.train_inputs), peer.train_targets).detach()) * len(U)
    value, _ = ours._likelihood(U)(theta.numpy(), Z.numpy())
    log_normal_constants = 3 * _log_normal_constant(3.0**0.5) + _log_normal_constant(1.0)
    assert -value + log_normal_constants == pytest.approx(theirs, abs=1e-6)


@pytest.mark.slow
def test_the_fitted_objective_is_at_least_botorchs():
    from botorch.fit import fit_gpytorch_mll

    X, Y = table(n=60, m=1)
    ours = ExactGP(learn_outputscale=False, min_noise=1e-4).fit(X, Y)
    peer = _botorch_matern(ours._inputs, ours._targets)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(peer.likelihood, peer))
    theirs = torch.cat([peer.covar_module.lengthscale[0], peer.likelihood.noise]).log()
    theta = np.r_[theirs.detach().numpy(), 0.0]
    objective = ours._likelihood(ours._inputs)
    best, _ = objective(ours._theta[0].numpy(), ours._targets.numpy())
    assert best <= objective(theta, ours._targets.numpy())[0] + 1e-3


def _botorch_matern(U: torch.Tensor, Z: torch.Tensor) -> SingleTaskGP:
    from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior

    kernel = get_covar_module_with_dim_scaled_prior(U.shape[1], use_rbf_kernel=False)
    return SingleTaskGP(U, Z, covar_module=kernel, outcome_transform=None)


def _log_normal_constant(sd: float) -> float:
    return -float(np.log(sd) + 0.5 * np.log(2 * np.pi))


def test_the_gradient_vanishes_at_the_fit():
    X, Y = np.random.default_rng(0).random((50, 2)), np.empty((50, 2))
    Y[:, 0], Y[:, 1] = np.sin(5 * X[:, 0]), X[:, 0] * X[:, 1]
    Y += np.random.default_rng(1).normal(size=Y.shape) * 0.1
    likelihood = StationaryLikelihood(X, "matern52", dimension_scaled(2))
    for j, theta in enumerate(most_probable(likelihood, Y, Deadline())):
        assert np.abs(likelihood(theta, Y[:, [j]])[1]).max() < 0.2


def test_shared_hyperparameters_are_no_better_than_own_ones():
    X, Y = np.random.default_rng(0).random((30, 2)), np.random.default_rng(1).normal(size=(30, 3))
    likelihood = StationaryLikelihood(X, "matern52", dimension_scaled(2))
    own = most_probable(likelihood, Y, Deadline())
    shared = most_probable_shared(likelihood, Y, Deadline())
    total = sum(likelihood(theta, Y[:, [j]])[0] for j, theta in enumerate(own))
    assert total <= likelihood(shared, Y)[0] + 1e-3


def test_outputs_follow_the_one_most_like_them():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 200))
    Y = np.column_stack([a, b, -a + 0.1 * rng.normal(size=200), b + 0.1 * rng.normal(size=200)])
    order = spanning_order(Y)
    links = {frozenset(link) for link in order[1:]}
    assert sorted(j for j, _ in order) == [0, 1, 2, 3]
    assert {frozenset({0, 2}), frozenset({1, 3})} <= links


# -- posterior --------------------------------------------------------------------------------


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("kernel", ["matern52", "rbf"])
def test_the_botorch_model_predicts_the_same(outputs, kernel):
    X, Y = table(m=outputs)
    surrogate = ExactGP(kernel=kernel).fit(X, Y)
    at = torch.from_numpy(table(n=6, seed=1)[0])
    for noisy in (False, True):
        ours = surrogate.posterior(at, observation_noise=noisy)
        theirs = surrogate.to_botorch().posterior(at, observation_noise=noisy)
        assert torch.allclose(ours.mean, theirs.mean, rtol=1e-6, atol=1e-6)
        assert torch.allclose(ours.variance, theirs.variance, rtol=1e-6, atol=1e-6)


def test_the_botorch_model_has_the_same_joint_covariance():
    X, Y = table(m=1)
    surrogate = ExactGP().fit(X, Y)
    at = torch.from_numpy(table(n=6, seed=1)[0])
    theirs = surrogate.to_botorch().posterior(at).mvn.covariance_matrix
    assert torch.allclose(surrogate.posterior(at).mvn.covariance_matrix, theirs, atol=1e-6)


def test_joint_and_marginal_predictions_agree(fitted):
    at = table(n=9, seed=2)[0]
    joint = fitted.posterior(torch.from_numpy(at), observation_noise=True)
    predictive = fitted.predictive(at)
    assert torch.allclose(joint.mean, predictive.mean, rtol=1e-9)
    assert torch.allclose(joint.variance.sqrt(), predictive.sd, rtol=1e-7)


def test_joint_covariances_are_positive_semi_definite(fitted):
    at = torch.from_numpy(np.vstack([table(n=20, seed=3)[0], table()[0][:5]]))
    covariance = fitted.posterior(at).mvn.covariance_matrix
    assert float(torch.linalg.eigvalsh(covariance).min()) > -1e-8


def test_batches_of_points_are_predicted_one_by_one(fitted):
    at = torch.from_numpy(table(n=8, seed=4)[0]).reshape(2, 4, 3)
    together = fitted.posterior(at)
    for b in range(2):
        alone = fitted.posterior(at[b])
        assert torch.allclose(together.mean[b], alone.mean, rtol=1e-10)
        assert torch.allclose(together.variance[b], alone.variance, rtol=1e-8, atol=1e-10)


def test_the_posterior_differentiates_in_its_inputs(fitted):
    at = torch.from_numpy(table(n=2, seed=5)[0]).requires_grad_()

    def moments(x):
        posterior = fitted.posterior(x)
        return posterior.mean, posterior.variance

    assert torch.autograd.gradcheck(moments, (at,), eps=1e-5, atol=1e-4)


def test_the_gradient_is_finite_at_a_training_point(fitted):
    at = torch.from_numpy(table()[0][:3]).requires_grad_()
    posterior = fitted.posterior(at)
    (posterior.mean.sum() + posterior.variance.sum()).backward()
    assert bool(torch.isfinite(at.grad).all())


# -- closed forms -----------------------------------------------------------------------------


def conditioned_on(surrogate: ExactGP, inside: np.ndarray) -> ExactGP:
    """Return a copy with the same hyperparameters that has seen some rows only."""
    copy = ExactGP()
    rows = torch.from_numpy(inside)
    copy._condition(surrogate._theta, surrogate._inputs[rows], surrogate._targets[rows])
    return copy


def test_leave_one_out_in_closed_form_is_that_of_refitting_every_row(fitted):
    U, closed = fitted._inputs, fitted.leave_one_out()
    for i in (0, 17, 39):
        part = conditioned_on(fitted, np.arange(len(U)) != i)
        one = part._predictive(U[[i]]).affine(fitted._y_shift, fitted._y_scale)
        assert torch.allclose(closed.mean[[i]], one.mean, rtol=1e-9)
        assert torch.allclose(closed.sd[[i]], one.sd, rtol=1e-7)


def test_folds_in_closed_form_are_those_of_refitting_every_fold(fitted):
    X, Y = table()
    folds = np.random.default_rng(0).integers(-1, 3, size=len(X))
    closed = ExactGP(fold_iterations=0).fit_cross_validated(X, Y, folds)
    for fold in range(3):
        part = conditioned_on(fitted, folds != fold)
        outside = torch.from_numpy(folds == fold)
        direct = part._predictive(fitted._inputs[outside])
        direct = direct.affine(fitted._y_shift, fitted._y_scale)
        rows = torch.from_numpy(folds[folds >= 0] == fold)
        assert torch.allclose(closed.mean[rows], direct.mean, rtol=1e-8)
        assert torch.allclose(closed.sd[rows], direct.sd, rtol=1e-6)


def test_hyperparameters_that_move_with_the_folds_predict_worse_than_those_that_saw_them():
    rng = np.random.default_rng(0)
    X, y = rng.random((40, 8)), rng.normal(size=40)
    folds = np.arange(40) % 4
    observed = torch.from_numpy(y[:, None])
    leaking = ExactGP(fold_iterations=0).fit_cross_validated(X, y, folds)
    honest = ExactGP(fold_iterations=50).fit_cross_validated(X, y, folds)
    assert float(honest.log_density(observed).mean()) <= float(leaking.log_density(observed).mean())


def test_cross_validation_fits_to_all_rows():
    X, Y = table()
    surrogate = ExactGP()
    surrogate.fit_cross_validated(X, Y, np.arange(len(X)) % 5)
    assert np.allclose(surrogate.predict(X), ExactGP().fit(X, Y).predict(X))


# -- edges ------------------------------------------------------------------------------------


def test_a_deterministic_function_is_interpolated():
    X = np.linspace(0.0, 1.0, 15)[:, None]
    surrogate = ExactGP().fit(X, np.sin(6 * X[:, 0]))
    assert np.allclose(surrogate.predict(X), np.sin(6 * X[:, 0]), atol=1e-2)


def test_two_rows_and_one_column_are_enough():
    mean, sd = ExactGP().fit([[0.0], [1.0]], [1.0, 2.0]).predict([[0.5]], return_std=True)
    assert np.isfinite(mean).all() and sd[0] > 0.0


def test_repeated_rows_with_different_outputs_are_noise():
    X = np.repeat(np.linspace(0, 1, 8)[:, None], 4, axis=0)
    y = np.sin(5 * X[:, 0]) + np.random.default_rng(0).normal(size=len(X)) * 0.5
    _, sd = ExactGP().fit(X, y).predict(X, return_std=True)
    assert (sd > 0.25).all()


def test_repeated_rows_of_a_deterministic_function_do_not_break_it():
    X = np.repeat(np.linspace(0, 1, 10)[:, None], 3, axis=0)
    surrogate = ExactGP(min_noise=1e-12).fit(X, X[:, 0] ** 2)
    assert np.allclose(surrogate.predict(X), X[:, 0] ** 2, atol=1e-2)


def test_constant_columns_change_little():
    X, Y = table(m=1)
    wider = np.column_stack([X, np.full(len(X), 3.0)])
    assert np.allclose(
        ExactGP().fit(wider, Y).predict(wider), ExactGP().fit(X, Y).predict(X), atol=1
    )


def test_a_random_subset_chooses_the_hyperparameters_of_long_tables():
    X, Y = table(n=120)
    surrogate = ExactGP(max_exact=60).fit(X, Y)
    assert len(surrogate._inputs) == 120
    assert not torch.equal(surrogate._prior.spread, torch.ones(2, dtype=torch.float64))


def test_outputs_share_a_factor_where_their_own_would_not_fit(monkeypatch):
    monkeypatch.setattr("understudy.models.tabular.gaussian_process._FACTOR_CELLS", 1000)
    X, Y = table()
    surrogate = ExactGP().fit(X, Y)
    at = torch.from_numpy(table(n=6, seed=1)[0])
    assert len(surrogate._conditioned) == 1
    assert torch.allclose(
        surrogate.posterior(at).variance, surrogate.to_botorch().posterior(at).variance, rtol=1e-6
    )


def test_a_time_limit_of_nothing_still_gives_a_fit():
    X, Y = table()
    out_of_fold = ExactGP(max_seconds=0.0).fit_cross_validated(X, Y, np.arange(len(X)) % 4)
    assert bool(torch.isfinite(out_of_fold.mean).all())


def test_its_state_brings_back_the_same_predictions(fitted):
    head, tensors = fitted.state()
    again = ExactGP.from_state(head, tensors)
    at = table(n=5, seed=6)[0]
    assert np.array_equal(again.predict(at), fitted.predict(at))


def test_a_pickle_holds_no_factor_and_predicts_the_same(fitted):
    import pickle

    text = pickle.dumps(fitted)
    at = table(n=5, seed=6)[0]
    assert len(text) < 8 * 40 * 40 * 2
    assert np.array_equal(pickle.loads(text).predict(at), fitted.predict(at))


@pytest.mark.parametrize(
    ("options", "named"),
    [({"kernel": "cubic"}, "kernel"), ({"min_noise": 0.0}, "min_noise"), ({"max_exact": 1}, "max")],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(UserError, match=named):
        ExactGP(**options).fit(*table(n=5))


def test_more_rows_than_fit_name_the_sparse_process():
    with pytest.raises(UserError, match="SparseGP"):
        ExactGP().fit(np.zeros((MAX_ROWS + 1, 1)), np.zeros(MAX_ROWS + 1))
