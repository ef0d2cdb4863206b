"""Boosted trees: the forest, the shape of errors, the mean of scikit-learn, the state."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from sklearn.ensemble import HistGradientBoostingRegressor

from understudy.core.predictive import Predictive
from understudy.models.tabular.boosting import (
    LEVELS,
    BoostingSurrogate,
    Forest,
    bin_moments,
    mixture,
)

Z = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))


def table(n: int = 120, m: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.uniform(-3.0, 5.0, size=(n, 3))
    Y = np.column_stack([np.where(X[:, 0] > 1.0, 5.0, 0.0) + X[:, 1], 1e3 * X[:, 2]])[:, :m]
    return X, Y + rng.normal(size=(n, m)) * 0.3


@pytest.fixture(scope="module")
def fitted() -> BoostingSurrogate:
    return BoostingSurrogate(max_trees=60).fit(*table())


# -- the forest -------------------------------------------------------------------------------


def booster(X: np.ndarray, y: np.ndarray) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(max_iter=12, min_samples_leaf=5).fit(X, y)


def test_a_forest_predicts_what_scikit_learn_predicts():
    X, Y = table()
    model, new = booster(X, Y[:, 0]), table(n=300, seed=1)[0]
    assert np.allclose(Forest.of(model)(torch.from_numpy(new)).numpy(), model.predict(new))


def test_a_forest_sends_missing_values_where_scikit_learn_does():
    X, Y = table()
    X[::3, 0] = np.nan
    X[::5, 1] = np.nan
    model = booster(X, Y[:, 0])
    new = np.vstack([X, np.full((1, 3), np.nan)])
    assert np.allclose(Forest.of(model)(torch.from_numpy(new)).numpy(), model.predict(new))


def test_the_first_trees_of_a_forest_are_the_first_stages_of_scikit_learn():
    X, Y = table()
    model = booster(X, Y[:, 0])
    for trees, stage in enumerate(model.staged_predict(X), start=1):
        assert np.allclose(Forest.of(model, trees)(torch.from_numpy(X)).numpy(), stage)


def test_rows_predicted_in_parts_are_those_predicted_at_once():
    X, Y = table()
    forest, U = Forest.of(booster(X, Y[:, 0])), torch.from_numpy(X)
    assert torch.equal(forest(U, rows_at_once=7), forest(U))


def test_a_forest_without_trees_is_its_constant():
    assert torch.equal(Forest.constant(2.5)(torch.rand(4, 3)), torch.full((4,), 2.5).double())


# -- the mean ---------------------------------------------------------------------------------


def test_its_mean_is_that_of_scikit_learns_booster(fitted):
    X, Y = table()
    U = fitted._scaled(torch.from_numpy(X)).numpy()
    new = table(n=50, seed=1)[0]
    for j in range(2):
        peer = fitted._booster(len(X)).set_params(max_iter=len(fitted._means[j].roots))
        peer.fit(U, (Y[:, j] - float(fitted._y_shift[j])) / float(fitted._y_scale[j]))
        theirs = peer.predict(fitted._scaled(torch.from_numpy(new)).numpy())
        theirs = theirs * float(fitted._y_scale[j]) + float(fitted._y_shift[j])
        assert np.allclose(fitted.predict(new)[:, j], theirs, rtol=1e-9, atol=1e-9)


def test_held_out_means_are_those_of_boosters_of_the_other_folds():
    X, Y = table(m=1)
    folds = np.arange(len(X)) % 4 - 1  # a quarter always trains
    surrogate = BoostingSurrogate(max_trees=60)
    out_of_fold = surrogate.fit_cross_validated(X, Y, folds)
    trees = len(surrogate._means[0].roots)
    for fold in range(3):
        inside, outside = folds != fold, folds == fold
        peer = surrogate._booster(int(inside.sum())).set_params(max_iter=trees)
        U = surrogate._scaled(torch.from_numpy(X)).numpy()
        peer.fit(U[inside], Y[inside, 0])
        rows = torch.from_numpy(folds[folds >= 0] == fold)
        assert np.allclose(out_of_fold.mean[rows, 0], peer.predict(U[outside]), atol=0.05)


def test_noise_stops_the_trees_early():
    rng = np.random.default_rng(0)
    surrogate = BoostingSurrogate().fit(rng.random((150, 3)), rng.normal(size=150))
    assert len(surrogate._means[0].roots) < 100


# -- the errors -------------------------------------------------------------------------------


def test_bins_of_the_normal_have_its_moments():
    mass, mean, deviation = bin_moments()
    assert float(mass.sum()) == pytest.approx(1.0)
    assert float(mass @ mean) == pytest.approx(0.0, abs=1e-12)
    assert float(mass @ (deviation.square() + mean.square())) == pytest.approx(1.0)
    draws = np.sort(np.random.default_rng(0).normal(size=400_000))
    inner = draws[int(0.15 * 400_000) : int(0.375 * 400_000)]
    assert float(mean[1]) == pytest.approx(inner.mean(), abs=5e-3)
    assert float(deviation[1]) == pytest.approx(inner.std(), abs=5e-3)


def test_quantiles_of_a_normal_give_back_its_moments_and_nearly_its_density():
    one = torch.ones(1, 1).double()
    made = mixture(7.0 * one, (2.0 * Z).reshape(5, 1, 1), torch.tensor([2.0]).double())
    inner = Predictive(made.loc[:-1], made.scale[:-1], made.weight[:-1] / 0.95)
    assert float(inner.mean) == pytest.approx(7.0)
    assert float(inner.sd) == pytest.approx(2.0)
    x = 7.0 + 2.0 * torch.linspace(-8.0, 8.0, 2001, dtype=torch.float64)
    true = torch.distributions.Normal(7.0, 2.0).log_prob(x)
    found = torch.cat([made.log_density(at * one) for at in x])[:, 0]
    lost = torch.trapezoid(true.exp() * (true - found), x)
    assert 0.0 < float(lost) < 0.05


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_skewed_quantiles_give_a_skewed_density_with_the_same_mean(sign):
    quantiles = (sign * torch.tensor([-1.0, -0.8, -0.4, 0.8, 4.0])).double().reshape(5, 1, 1)
    made = mixture(torch.zeros(1, 1).double(), quantiles, torch.ones(1).double())
    low, middle, high = made.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64))
    assert float(made.mean) == pytest.approx(0.0, abs=1e-12)
    assert sign * float(high + low - 2.0 * middle) > 1.0


def test_quantiles_that_cross_or_coincide_still_give_a_density():
    mean, spread = torch.zeros(2, 1).double(), torch.ones(1).double()
    quantiles = torch.tensor([[1.0, 0.0], [0.5, 0.0], [0.0, 0.0], [-1.0, 0.0], [-2.0, 3.0]])
    made = mixture(mean, quantiles.double().unsqueeze(-1), spread)
    assert bool((made.scale > 0.0).all())
    tidy = mixture(mean, quantiles.double().sort(0).values.unsqueeze(-1), spread)
    assert torch.equal(made.loc, tidy.loc)


def test_quantiles_of_predictions_are_ordered(fitted):
    levels = torch.linspace(0.01, 0.99, 15, dtype=torch.float64)
    got = fitted.predictive(table(n=40, seed=1)[0]).quantile(levels)
    assert bool((got.diff(dim=0) > 0.0).all())


def test_error_bars_are_wider_where_errors_were():
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(800, 2))
    y = rng.normal(size=800) * np.where(X[:, 0] > 0.5, 3.0, 0.3)
    _, sd = BoostingSurrogate(max_trees=40).fit(X, y).predict(X, return_std=True)
    assert sd[X[:, 0] > 0.6].mean() > 2.0 * sd[X[:, 0] < 0.4].mean()


# -- edges ------------------------------------------------------------------------------------


def test_its_state_survives_as_text_and_tensors(fitted):
    head, tensors = fitted.state()
    again = BoostingSurrogate.from_state(json.loads(json.dumps(head)), load(save(tensors)))
    new = table(n=50, seed=2)[0]
    assert np.array_equal(again.predict(new, return_std=True), fitted.predict(new, return_std=True))


def test_no_time_still_gives_finite_predictions():
    X, Y = table(n=250)
    mean, sd = BoostingSurrogate(max_seconds=0.0).fit(X, Y).predict(X, return_std=True)
    assert np.isfinite(mean).all() and (sd > 0.0).all()


def test_one_hold_out_is_enough_for_cross_validation():
    X, Y = table()
    folds = np.where(np.arange(len(X)) < 30, 0, -1)
    assert len(BoostingSurrogate(max_trees=25).fit_cross_validated(X, Y, folds)) == 30


def test_a_constant_output_is_predicted_as_it_is():
    X, _ = table()
    mean, sd = BoostingSurrogate(max_trees=25).fit(X, np.full(120, 4.0)).predict(X, return_std=True)
    assert np.allclose(mean, 4.0)
    assert (sd > 0.0).all()
