"""Polynomials with error bars: the basis, the evidence, closed-form folds, predictions."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import null_space
from torch import Tensor

from understudy.core.errors import UserError
from understudy.models.tabular.polynomial import (
    PolynomialSurrogate,
    Regression,
    decompose,
    evaluate,
    leave_folds_out,
    leave_one_out,
    legendre,
    maximise_evidence,
    terms,
)


def table(n: int = 40, d: int = 3, m: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.uniform(-3.0, 5.0, size=(n, d))
    Y = 100.0 + (X @ np.random.default_rng(1).normal(size=(d, m))) ** 2
    return X, Y + rng.normal(size=(n, m))


def regressed(
    n: int, d: int, degree: int, m: int = 2
) -> tuple[Regression, Tensor, Tensor, Tensor, Tensor]:
    """Regression of random outputs: it, rotated features, features, inputs and outputs."""
    generator = torch.Generator().manual_seed(n + d)
    U = torch.rand(n, d, generator=generator, dtype=torch.float64)
    Z = torch.randn(n, m, generator=generator, dtype=torch.float64) + 3.0 * U[:, :1]
    basis = terms(d, degree, interactions=True)
    spectrum, rotated = decompose(basis, U)
    return maximise_evidence(spectrum, rotated, Z), rotated, evaluate(basis, U), U, Z


def written_out(
    regression: Regression, j: int, seen: Tensor, z: Tensor, at: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and variance of observations with features `at`, from those seen and a flat mean."""
    tau2, sigma2 = regression.variance[j], regression.noise[j]
    K = tau2 * seen @ seen.mT + sigma2 * torch.eye(len(seen), dtype=seen.dtype)
    one, cross = torch.ones(len(seen), dtype=seen.dtype), tau2 * at @ seen.mT
    inverse = torch.linalg.inv(K)
    level = (one @ inverse @ z) / (one @ inverse @ one)
    mean = level + cross @ inverse @ (z - level)
    left = tau2 * at.square().sum(1) - ((cross @ inverse) * cross).sum(1)
    flat = (1.0 - cross @ inverse @ one).square() / (one @ inverse @ one)
    return mean, left + flat + sigma2


SHAPES = pytest.mark.parametrize(
    ("n", "d", "degree"), [(40, 3, 2), (20, 4, 3)], ids=["more rows", "more terms"]
)


# -- the basis --------------------------------------------------------------------------------


def test_legendre_polynomials_are_orthonormal_on_the_unit_interval():
    nodes, weights = np.polynomial.legendre.leggauss(8)
    values = legendre(torch.from_numpy(0.5 * (nodes[:, None] + 1.0)))
    gram = values.mT @ (torch.from_numpy(0.5 * weights)[:, None] * values)
    assert torch.allclose(gram, torch.eye(4, dtype=gram.dtype), atol=1e-12)


def test_terms_are_orthogonal_and_shrunk_by_half_for_every_order_above_the_first():
    nodes, weights = np.polynomial.legendre.leggauss(5)
    grid = np.stack(np.meshgrid(*[0.5 * (nodes + 1.0)] * 3, indexing="ij"), -1).reshape(-1, 3)
    weight = np.einsum("i,j,k->ijk", *[0.5 * weights] * 3).ravel()
    values = evaluate(terms(3, 3, interactions=True), torch.from_numpy(grid))
    gram = (values.mT * torch.from_numpy(weight)) @ values
    assert torch.allclose(gram, torch.diag(gram.diagonal()), atol=1e-12)
    orders, counts = torch.unique(gram.diagonal().rsqrt().log2().round(), return_counts=True)
    assert orders.tolist() == [0.0, 1.0, 2.0]
    assert counts.tolist() == [3, 6, 10]  # x, then x^2 and xy, then x^3, x^2 y and xyz


@SHAPES
def test_rotated_features_turn_back_into_centred_ones(n, d, degree):
    regression, rotated, features, _, _ = regressed(n, d, degree)
    back = rotated @ regression.spectrum.rotation.mT
    assert torch.allclose(back, features - features.mean(0), atol=1e-6)


# -- the evidence -----------------------------------------------------------------------------


def log_evidence(features: Tensor, z: Tensor, tau2: float, sigma2: float) -> float:
    """Log density of what is left of z when its mean is taken away, written out."""
    contrasts = null_space(np.ones((1, len(z))))
    Phi, y = contrasts.T @ features.numpy(), contrasts.T @ z.numpy()
    K = tau2 * Phi @ Phi.T + sigma2 * np.eye(len(y))
    return -0.5 * float(y @ np.linalg.solve(K, y) + np.linalg.slogdet(2.0 * np.pi * K)[1])


@SHAPES
def test_no_other_variances_have_a_higher_evidence(n, d, degree):
    regression, _, features, _, Z = regressed(n, d, degree)
    for j in range(2):
        tau2, sigma2 = float(regression.variance[j]), float(regression.noise[j])
        best = log_evidence(features, Z[:, j], tau2, sigma2)
        for a, b in ((0.8, 1.0), (1.25, 1.0), (1.0, 0.8), (1.0, 1.25), (1.1, 1.1), (0.9, 0.9)):
            assert log_evidence(features, Z[:, j], a * tau2, b * sigma2) < best


# -- cross-validation -------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [3, 10], ids=["long folds", "short folds"])
@SHAPES
def test_folds_in_closed_form_are_those_of_refitting_every_fold(n, d, degree, folds):
    regression, rotated, features, _, Z = regressed(n, d, degree)
    fold = np.random.default_rng(0).permutation(n) % folds - 1  # some rows always train
    mean, variance = leave_folds_out(regression, rotated, Z, fold)
    for k in range(folds - 1):
        inside, outside = torch.from_numpy(fold != k), torch.from_numpy(fold == k)
        for j in range(2):
            direct = written_out(regression, j, features[inside], Z[inside, j], features[outside])
            assert torch.allclose(mean[outside, j], direct[0], rtol=1e-9, atol=1e-9)
            assert torch.allclose(variance[outside, j], direct[1], rtol=1e-8)


@SHAPES
def test_the_density_that_chooses_the_basis_leaves_every_row_out(n, d, degree):
    regression, rotated, _, _, Z = regressed(n, d, degree)
    mean, variance = leave_folds_out(regression, rotated, Z, np.arange(n))
    density = -0.5 * (variance.log() + (Z - mean).square() / variance).mean(0)
    assert torch.allclose(leave_one_out(regression, rotated, Z), density, rtol=1e-9)


def test_cross_validation_of_a_random_part_of_the_rows_returns_all_of_them(monkeypatch):
    monkeypatch.setattr("understudy.models.tabular.polynomial._MAX_FEATURES", 60)
    X, Y = table(n=50, m=1)
    surrogate = PolynomialSurrogate()
    folds = np.arange(50) % 6 - 1
    out_of_fold = surrogate.fit_cross_validated(X, Y, folds)
    learnt = surrogate._rows(*X.shape).numpy()
    assert len(learnt) == 20
    own = surrogate.predictive(X[folds >= 0])
    same = (out_of_fold.mean == own.mean)[:, 0].numpy()
    assert np.array_equal(same, ~np.isin(np.flatnonzero(folds >= 0), learnt))


# -- predictions ------------------------------------------------------------------------------


@SHAPES
def test_it_predicts_as_the_linear_regression_written_out(n, d, degree):
    regression, _, features, _, Z = regressed(n, d, degree)
    at = torch.rand(7, d, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    surrogate = PolynomialSurrogate()
    surrogate._regressions = [regression]
    predictive = surrogate._predictive(at)
    for j in range(2):
        new = evaluate(regression.spectrum.basis, at)
        mean, variance = written_out(regression, j, features, Z[:, j], new)
        assert torch.allclose(predictive.mean[:, j], mean, atol=1e-8)
        assert torch.allclose(predictive.sd[:, j].square(), variance, rtol=1e-6)


@SHAPES
def test_joint_and_marginal_predictions_agree(n, d, degree):
    regression, *_ = regressed(n, d, degree)
    at = torch.rand(7, d, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    surrogate = PolynomialSurrogate()
    surrogate._regressions = [regression]
    joint, predictive = surrogate._posterior(at, True), surrogate._predictive(at)
    assert torch.allclose(joint.mean, predictive.mean, rtol=1e-9)
    assert torch.allclose(joint.variance.sqrt(), predictive.sd, rtol=1e-5)


def test_the_coefficients_of_a_quadratic_are_found():
    X = np.vstack([np.eye(2), np.zeros(2), np.ones(2), np.random.default_rng(0).random((26, 2))])
    first, second = (math.sqrt(3.0) * (2.0 * X[:, k] - 1.0) for k in range(2))
    square = math.sqrt(5.0) * 0.5 * (3.0 * (2.0 * X[:, 0] - 1.0) ** 2 - 1.0)
    y = 7.0 + 3.0 * first - 2.0 * second + 0.8 * square - 0.4 * first * second
    surrogate = PolynomialSurrogate().fit(X, y)
    (regression,) = surrogate._regressions
    weights = regression.spectrum.rotation @ regression.weights[:, 0] * surrogate._y_scale
    terms_found = map(tuple, regression.spectrum.basis.tolist())
    found = dict(zip(terms_found, weights.tolist(), strict=True))
    wanted = {(1, 0, 0): 3.0, (2, 0, 0): -2.0, (3, 0, 0): 0.8 / 0.5, (1, 2, 0): -0.4 / 0.5}
    for term, weight in found.items():
        assert weight == pytest.approx(wanted.get(term, 0.0), abs=1e-4)


def test_a_quadratic_is_predicted_beyond_its_data():
    rng = np.random.default_rng(0)

    def truth(X):
        return 5.0 - X[:, 0] + 0.3 * X[:, 1] * X[:, 2] + 2.0 * X[:, 1] ** 2

    X, far = rng.uniform(-3.0, 5.0, (40, 3)), rng.uniform(-10.0, 12.0, (20, 3))
    surrogate = PolynomialSurrogate().fit(X, truth(X))
    assert np.allclose(surrogate.predict(far), truth(far), rtol=1e-4, atol=1e-2)


def test_intervals_of_a_strong_line_are_those_of_least_squares():
    rng = np.random.default_rng(0)
    X = rng.uniform(-3.0, 5.0, size=(60, 3))
    y = 4.0 + X @ [20.0, -30.0, 25.0] + rng.normal(size=60)
    A = np.column_stack([np.ones(60), X])
    weights, rss, *_ = np.linalg.lstsq(A, y)
    at = rng.uniform(-6.0, 8.0, size=(9, 3))
    B = np.column_stack([np.ones(9), at])
    spread = np.einsum("ij,jk,ik->i", B, np.linalg.inv(A.T @ A), B)
    mean, sd = PolynomialSurrogate(degree=1).fit(X, y).predict(at, return_std=True)
    assert np.allclose(mean, B @ weights, rtol=1e-3, atol=0.05)
    assert np.allclose(sd, np.sqrt(rss / 56.0 * (1.0 + spread)), rtol=5e-3)


def test_every_output_gets_the_basis_that_suits_it():
    X = np.random.default_rng(0).uniform(size=(80, 3))
    noise = 0.02 * np.random.default_rng(1).normal(size=(80, 2))
    Y = np.column_stack([X @ [1.0, 2.0, 3.0], 9.0 * X[:, 0] * X[:, 1] * X[:, 2]]) + noise
    surrogate = PolynomialSurrogate().fit(X, Y)
    sizes = {int(j): len(r.spectrum.basis) for r in surrogate._regressions for j in r.outputs}
    assert sizes[0] == 3
    assert sizes[1] == 19


def test_without_interactions_no_term_has_two_inputs():
    surrogate = PolynomialSurrogate(interactions=False).fit(*table())
    assert all(int(r.spectrum.basis[:, 1:].max()) == 0 for r in surrogate._regressions)


def test_constant_outputs_and_columns_do_not_break_it():
    X, Y = table(m=1)
    X[:, 1] = 2.0
    mean, sd = PolynomialSurrogate().fit(X, np.c_[Y, np.ones(40)]).predict(X, return_std=True)
    assert np.allclose(mean[:, 1], 1.0)
    assert np.isfinite(sd).all() and (sd > 0.0).all()


def test_a_wrong_degree_is_named():
    with pytest.raises(UserError, match="degree"):
        PolynomialSurrogate(degree=4).fit(*table())
