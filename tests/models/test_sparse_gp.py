"""The sparse Gaussian process: the bound, one pass over the rows, closed-form folds."""

import numpy as np
import pytest
import torch

from understudy.core.errors import UserError
from understudy.models.tabular.exact_gp import ExactGP
from understudy.models.tabular.marginal_likelihood import dimension_scaled
from understudy.models.tabular.sparse_gp import SparseGP, Statistics, solve


def table(n: int = 200, d: int = 2, m: int = 1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.uniform(-3.0, 5.0, size=(n, d))
    Y = 5.0 + np.sin(X @ np.random.default_rng(1).normal(size=(d, m)))
    return X, Y + rng.normal(size=(n, m)) * 0.1


@pytest.fixture(scope="module")
def fitted() -> SparseGP:
    return SparseGP(inducing=40, subset=100).fit(*table(m=2))


def test_with_every_row_inducing_it_is_the_exact_process():
    X, Y = table(n=60)
    sparse = SparseGP(inducing=60).fit(X, Y)
    exact = ExactGP().fit(X, Y)
    at = table(n=30, seed=1)[0]
    assert np.allclose(sparse.predict(at), exact.predict(at), atol=0.02)
    ratio = sparse.predictive(at).sd / exact.predictive(at).sd
    assert float(ratio.min()) > 0.9 and float(ratio.max()) < 1.1


def test_it_predicts_as_the_collapsed_posterior_written_out():
    X, Y = table()
    sparse = SparseGP(inducing=20, subset=100).fit(X, Y)
    U = sparse._scaled(torch.from_numpy(X))
    Z = (torch.from_numpy(Y) - sparse._y_shift) / sparse._y_scale
    part, basis = sparse._parts[0], sparse._basis
    noise, scale = float(part.noise), float(part.outputscale)
    C = basis.factor(0) @ basis.factor(0).mT * scale
    cross = basis.correlations(0, U) * scale
    at = sparse._scaled(torch.from_numpy(table(n=7, seed=3)[0]))
    near = basis.correlations(0, at) * scale
    S = torch.linalg.inv(C + cross.mT @ cross / noise)  # Titsias (2009), equation 6
    mean = part.mean + near @ S @ cross.mT @ (Z - part.mean) / noise
    variance = scale - (near @ torch.linalg.inv(C) * near).sum(1) + (near @ S * near).sum(1)
    predictive = sparse._predictive(at)
    assert torch.allclose(predictive.mean, mean, atol=1e-6)
    assert torch.allclose(predictive.sd[:, 0].square(), variance + noise, atol=1e-6)


def test_the_scales_maximise_the_bound():
    X, Y = table(n=80)
    sparse = SparseGP(inducing=15, subset=80).fit(X, Y)
    U = sparse._scaled(torch.from_numpy(X))
    Z = (torch.from_numpy(Y) - sparse._y_shift) / sparse._y_scale
    part, basis = sparse._parts[0], sparse._basis
    prior = dimension_scaled(2)
    cross, L = basis.correlations(0, U), basis.factor(0)
    Q = cross @ torch.cholesky_inverse(L) @ cross.mT

    def bound(noise: float, scale: float) -> float:
        K = scale * Q + noise * torch.eye(len(U))
        normal = torch.distributions.MultivariateNormal(part.mean.expand(len(U)), K)
        trace = scale * float(len(U) - Q.trace()) / (2.0 * noise)
        theta = np.log([noise, scale])
        z = (theta - prior.loc[-2:]) / prior.sd[-2:]
        return float(normal.log_prob(Z[:, 0])) - trace - 0.5 * z @ z - theta[0]

    noise, scale = float(part.noise), float(part.outputscale)
    best = bound(noise, scale)
    for factor in (0.8, 1.25):
        assert bound(noise * factor, scale) < best
        assert bound(noise, scale * factor) < best + 1e-3


def test_statistics_add_up_over_folds(fitted):
    X, Y = table(m=2)
    U, folds = fitted._scaled(torch.from_numpy(X)), np.arange(len(X)) % 3
    parts = fitted._statistics(0, U, Y, folds)
    whole = fitted._statistics(0, U, Y, np.zeros(len(X), dtype=int))[0]
    total = parts[0] + parts[1] + parts[2]
    assert np.allclose(total.gram, whole.gram) and np.allclose(total.moments, whole.moments)
    assert np.allclose((total - parts[2]).products, (parts[0] + parts[1]).products)


def test_held_out_predictions_are_those_of_the_other_folds():
    X, Y = table()
    folds = np.random.default_rng(0).integers(-1, 3, size=len(X))
    sparse = SparseGP(inducing=20, subset=100)
    out_of_fold = sparse.fit_cross_validated(X, Y, folds)
    U = sparse._scaled(torch.from_numpy(X))
    Z = (Y - sparse._y_shift.numpy()) / sparse._y_scale.numpy()
    inside = torch.from_numpy(folds != 1)
    alone: Statistics = sparse._statistics(
        0, U[inside], Z[inside.numpy()], np.zeros(int(inside.sum()), dtype=int)
    )[0]
    part = solve(sparse._basis, 0, alone, dimension_scaled(2))
    mean, variance = part.marginals(sparse._basis.correlations(0, U[~inside]))
    rows = torch.from_numpy(folds[folds >= 0] == 1)
    expected = sparse._y_shift + sparse._y_scale * mean
    assert torch.allclose(out_of_fold.mean[rows], expected, rtol=1e-6)
    assert torch.allclose(out_of_fold.sd[rows], sparse._y_scale * variance.sqrt(), rtol=1e-5)


def test_joint_and_marginal_predictions_agree(fitted):
    at = table(n=9, seed=2)[0]
    joint = fitted.posterior(torch.from_numpy(at), observation_noise=True)
    assert torch.allclose(joint.mean, fitted.predictive(at).mean, rtol=1e-8)
    assert torch.allclose(joint.variance.sqrt(), fitted.predictive(at).sd, rtol=1e-6)


def test_joint_covariances_are_positive_semi_definite(fitted):
    covariance = fitted.posterior(torch.from_numpy(table(n=20, seed=3)[0])).mvn.covariance_matrix
    assert float(torch.linalg.eigvalsh(covariance).min()) > -1e-8


def test_the_posterior_differentiates_in_its_inputs(fitted):
    at = torch.from_numpy(table(n=2, seed=5)[0]).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: fitted.posterior(x).mean, (at,), eps=1e-5, atol=1e-4)


def test_many_outputs_share_length_scales():
    X, Y = table(m=6)
    sparse = SparseGP(inducing=30, subset=80).fit(X, Y)
    assert len(sparse._parts) == 1
    assert sparse.score(X, Y) > 0.8


def test_repeated_rows_do_not_break_it():
    X = np.repeat(np.linspace(0, 1, 20)[:, None], 20, axis=0)
    y = np.sin(5 * X[:, 0])
    assert SparseGP(inducing=50, subset=50).fit(X, y).score(X, y) > 0.99


def test_the_same_seed_gives_the_same_fit():
    X, Y = table()
    at = table(n=5, seed=4)[0]
    first, second = (SparseGP(inducing=20, seed=3).fit(X, Y).predict(at) for _ in range(2))
    assert np.array_equal(first, second)


def test_its_state_brings_back_the_same_predictions(fitted):
    again = SparseGP.from_state(*fitted.state())
    at = table(n=5, seed=6)[0]
    assert np.array_equal(again.predict(at), fitted.predict(at))


@pytest.mark.parametrize(
    ("options", "named"), [({"kernel": "cubic"}, "kernel"), ({"inducing": 0}, "inducing")]
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(UserError, match=named):
        SparseGP(**options).fit(*table(n=20))
