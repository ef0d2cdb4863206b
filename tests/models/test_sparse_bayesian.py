"""Surrogate and classifier of few Bayesian weights."""

import numpy as np
import pytest
import torch
from botorch.acquisition import qLogExpectedImprovement
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import estimator_checks_generator

from understudy.core import artifact
from understudy.core.artifact import ArtifactError
from understudy.core.errors import UserError
from understudy.models.tabular.sparse_bayesian import (
    SparseBayesianClassifier,
    SparseBayesianSurrogate,
)
from understudy.nn.sparse_compact import CompactNetwork

QUICK = {"hidden": (32, 32), "density": 0.3, "max_steps": 250, "samples": 16}
TINY = {"hidden": (16, 16), "density": 0.5, "samples": 8}

EXPECTED_FAILURES = {
    "check_sample_weights_pandas_series": "sample weights are not part of the contract",
}


def table(n: int = 60, m: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.uniform(-2.0, 7.0, size=(n, 3))
    Y = np.column_stack([np.sin(X[:, 0]) + X[:, 1], 1e3 * X[:, 2] ** 2])
    return X, Y[:, :m]


@pytest.fixture(scope="module")
def fitted() -> SparseBayesianSurrogate:
    return SparseBayesianSurrogate(**QUICK).fit(*table())


@pytest.fixture(scope="module")
def iris() -> SparseBayesianClassifier:
    return SparseBayesianClassifier(hidden=(32, 32), density=0.3, max_steps=200).fit(
        *load_iris(return_X_y=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(e, check, id=f"{type(e).__name__}-{getattr(check, 'func', check).__name__}")
        for model in (
            SparseBayesianSurrogate(**TINY, max_steps=60),
            SparseBayesianClassifier(**{**TINY, "hidden": (32, 32)}, max_steps=150),
        )
        for e, check in estimator_checks_generator(model, mark=None)
    ],
)
def test_scikit_learn_accepts_them(estimator, check):
    name = getattr(check, "func", check).__name__
    if name in EXPECTED_FAILURES:
        pytest.skip(EXPECTED_FAILURES[name])
    check(estimator)


# -- surrogate ------------------------------------------------------------------------------


def test_it_explains_a_smooth_function(fitted):
    assert fitted.score(*table()) > 0.95


def test_its_state_comes_back_bit_for_bit(fitted):
    again = SparseBayesianSurrogate.from_state(*fitted.state())
    X = table()[0]
    assert np.array_equal(again.predict(X, return_std=True), fitted.predict(X, return_std=True))
    assert np.array_equal(again.sample(X, 3), fitted.sample(X, 3))


def test_its_state_is_small(fitted):
    """3 x 32 dense weights, 32 x 32 and 32 x 2 sparse ones of density 0.3, 66 biases."""
    _, tensors = fitted.state()
    stored = sum(t.numel() * t.element_size() for k, t in tensors.items() if "network" in k)
    active = 3 * 32 + 308 + 20
    assert stored == 8 * active + 1024 // 8 + 64 // 8 + 4 * 66


def test_the_compact_network_is_saved_and_read(fitted, tmp_path):
    path = fitted.to_compact().save(tmp_path / "small.us")
    again = CompactNetwork.load(path).fill(fitted._network(3, 2))
    assert torch.equal(again.layers[1].mu, fitted._model.layers[1].mu)


def test_the_same_seed_gives_the_same_predictions_and_another_seed_others():
    X, Y = table(30)
    first, second, other = (
        SparseBayesianSurrogate(**TINY, max_steps=30, seed=seed).fit(X, Y).predict(X)
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_its_joint_posterior_has_its_marginal_moments(fitted):
    X = torch.from_numpy(table()[0][:6]).reshape(2, 3, 3)
    posterior = fitted.posterior(X, observation_noise=True)
    marginal = fitted.predictive(X.reshape(6, 3).numpy())
    assert posterior.mean.shape == (2, 3, 2)
    assert torch.allclose(posterior.mean.reshape(6, 2), marginal.mean)
    assert torch.allclose(posterior.variance.reshape(6, 2), marginal.sd.square(), rtol=0.1)


def test_a_draw_is_one_network_at_all_points(fitted):
    X = torch.from_numpy(table()[0][:5])
    functions = fitted.functions(16)(X.numpy())
    draws = fitted.posterior(X).rsample(torch.Size([40]))
    nearest = (draws.unsqueeze(1) - functions).abs().amax((2, 3)).amin(1)
    assert float(nearest.max()) < 1e-6 * float(functions.abs().max())


def test_gradients_reach_the_query_points(fitted):
    X = torch.from_numpy(table()[0][:2].copy()).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: fitted.posterior(x).mean / 1e3, (X,), eps=1e-5, atol=1e-4
    )


def test_an_acquisition_function_accepts_it():
    X, Y = table(30, 1)
    model = SparseBayesianSurrogate(**TINY, max_steps=60).fit(X, Y).to_botorch()
    value = qLogExpectedImprovement(model, best_f=float(Y.max()))(
        torch.from_numpy(X[:6]).reshape(3, 2, 3)
    )
    assert value.shape == (3,) and bool(torch.isfinite(value).all())


def test_observations_are_no_surer_than_the_function(fitted):
    X = torch.from_numpy(table()[0][:5])
    latent, noisy = (fitted.posterior(X, observation_noise=flag).variance for flag in (False, True))
    assert bool((noisy > latent).all())


def test_its_error_bars_are_positive_and_finite_far_from_the_data(fitted):
    mean, sd = fitted.predict(np.full((4, 3), 100.0), return_std=True)
    assert np.isfinite(mean).all() and np.isfinite(sd).all() and (sd > 0).all()


def test_out_of_fold_errors_are_those_of_unseen_rows():
    rng = np.random.default_rng(1)
    X, y = rng.uniform(size=(60, 3)), rng.normal(size=60)  # nothing to learn
    folds = np.arange(60) % 5
    found = SparseBayesianSurrogate(**TINY, max_steps=100).fit_cross_validated(X, y, folds)
    error = float((found.mean[:, 0] - torch.from_numpy(y)).square().mean())
    assert error > 0.85 * y.var()


def test_rows_of_a_fold_do_not_change_its_predictions():
    X, Y = table(40)
    folds = np.arange(40) % 4
    folds[:4] = -1
    spoilt = Y.copy()
    held = folds == 1
    spoilt[held] = Y[held][::-1]  # as the scaling is by all rows, the values stay
    models = [SparseBayesianSurrogate(**TINY, max_steps=40) for _ in range(2)]
    first, second = (
        model.fit_cross_validated(X, y, folds) for model, y in zip(models, (Y, spoilt), strict=True)
    )
    inside = torch.from_numpy(held[folds >= 0])
    assert first.mean.shape == (36, 2)
    assert torch.allclose(first.mean[inside], second.mean[inside], rtol=1e-9)
    assert not torch.allclose(first.mean[~inside], second.mean[~inside], rtol=1e-9)


def test_the_noise_of_the_outputs_is_learnt():
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(300, 1))
    y = 5.0 * X[:, 0] + rng.normal(size=300)
    model = SparseBayesianSurrogate(**{**QUICK, "max_steps": 500}).fit(X, y)
    noise = float((model._noise[0] * model._y_scale[0].square()).sqrt())
    assert noise == pytest.approx(1.0, rel=0.2)


def test_a_time_limit_is_kept_and_leaves_a_surrogate():
    X, Y = table(30)
    model = SparseBayesianSurrogate(**TINY, max_steps=1_000_000, max_seconds=0.5).fit(X, Y)
    assert np.isfinite(model.predict(X)).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"density": 0.0}, "density must be above 0"),
        ({"density": 0.001}, "leaves"),
        ({"hidden": ()}, "hidden must name"),
        ({"activation": "step"}, "activation must be one of"),
        ({"samples": 0}, "samples and max_steps must be at least 1"),
        ({"removal": "largest"}, "removal must be one of"),
        ({"kl_scale": -1.0}, "kl_scale must be at least 0"),
    ],
)
@pytest.mark.parametrize("kind", [SparseBayesianSurrogate, SparseBayesianClassifier])
def test_parameters_out_of_range_are_refused(kind, settings, message):
    with pytest.raises(UserError, match=message):
        kind(**settings).fit([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1])


# -- classifier -----------------------------------------------------------------------------


def test_it_tells_irises_apart():
    X, y = load_iris(return_X_y=True)
    model = SparseBayesianClassifier(hidden=(32, 32), density=0.3, max_steps=200)
    assert cross_val_score(model, X, y, cv=3).mean() > 0.92


def test_its_probabilities_are_sharp_where_rows_are_and_softer_far_away(iris):
    X, _ = load_iris(return_X_y=True)
    probabilities = iris.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(1), 1.0)
    assert probabilities.max(1).mean() > 0.85


def test_a_file_gives_back_the_classifier(iris, tmp_path):
    X, _ = load_iris(return_X_y=True)
    again = SparseBayesianClassifier.load(iris.save(tmp_path / "iris.us"))
    assert np.array_equal(again.predict_proba(X), iris.predict_proba(X))
    assert np.array_equal(again.classes_, iris.classes_)


def test_classes_may_be_text(tmp_path):
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = SparseBayesianClassifier(**TINY, max_steps=60).fit(X, names)
    again = SparseBayesianClassifier.load(model.save(tmp_path / "iris.us"))
    assert np.array_equal(again.predict(X), model.predict(X))
    assert again.predict(X[:1])[0] == "setosa"


def test_a_sparse_file_is_several_times_smaller(tmp_path):
    X, y = load_iris(return_X_y=True)
    sizes = []
    for density in (1.0, 0.05):
        model = SparseBayesianClassifier(density=density, max_steps=1)
        sizes.append(model.fit(X, y).save(tmp_path / "x.us").stat().st_size)
    assert sizes[0] > 8 * sizes[1]


def test_other_files_are_refused(tmp_path):
    artifact.write(tmp_path / "x.us", {"kind": "surrogate"}, {"a": torch.ones(1)})
    with pytest.raises(ArtifactError, match="holds a surrogate"):
        SparseBayesianClassifier.load(tmp_path / "x.us")
    kind = "sparse-bayesian-classifier"
    artifact.write(tmp_path / "x.us", {"kind": kind}, {"a": torch.ones(1)})
    with pytest.raises(ArtifactError, match="does not describe a classifier"):
        SparseBayesianClassifier.load(tmp_path / "x.us")
