"""The stack as an ordinary scikit-learn regressor, and its file."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator

from understudy.models.tabular.fitted import FittedSurrogate

EXPECTED_FAILURES = {
    "check_dont_overwrite_parameters": "what was learnt is public and documented: space, notes",
    "check_sample_weights_pandas_series": "sample weights are not part of the contract",
}
"""Checks of scikit-learn that do not apply, with the reason."""


def name_of(check) -> str:
    return getattr(check, "func", check).__name__


def stack(**options) -> FittedSurrogate:
    return FittedSurrogate(members=["polynomial"], budget=5.0, **options)


def table(n: int = 60, d: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.uniform(-2.0, 7.0, size=(n, d))
    Y = np.column_stack([X[:, 0] * X[:, 1], np.exp(0.5 * X[:, 2])])
    return X, Y + 0.1 * rng.normal(size=Y.shape)


@pytest.fixture(scope="module")
def fitted() -> FittedSurrogate:
    return stack().fit(*table())


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(estimator, check, id=name_of(check))
        for estimator, check in estimator_checks_generator(stack(), mark=None)
    ],
)
def test_scikit_learn_accepts_it_as_a_regressor(estimator, check):
    if name_of(check) in EXPECTED_FAILURES:
        pytest.skip(EXPECTED_FAILURES[name_of(check)])
    check(estimator)


def test_it_learns_from_arrays(fitted):
    assert fitted.score(*table(seed=1)) > 0.95
    assert fitted.targets == ("y0", "y1")
    assert fitted.inputs == ["x0", "x1", "x2"]


def test_one_output_is_predicted_in_one_dimension():
    X, Y = table()
    mean, sd = stack().fit(X, Y[:, 0]).predict(X, return_std=True)
    assert mean.shape == sd.shape == (60,)


def test_a_clone_is_unfitted_and_has_the_same_options(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not copy.__sklearn_is_fitted__()


def test_a_file_brings_back_every_prediction_bit_for_bit(fitted, tmp_path):
    again = FittedSurrogate.load(fitted.save(tmp_path / "model.us"))
    X = table(seed=2)[0]
    assert np.array_equal(again.predict(X, return_std=True), fitted.predict(X, return_std=True))
    assert np.array_equal(again.intervals(X), fitted.intervals(X))
    at = torch.from_numpy(X[:4])
    for noisy in (False, True):
        ours, theirs = (m.posterior(at, observation_noise=noisy) for m in (fitted, again))
        assert torch.equal(ours.mean, theirs.mean)
        assert torch.equal(ours.variance, theirs.variance)


def test_a_file_of_a_file_holds_the_same(fitted, tmp_path):
    again = FittedSurrogate.load(fitted.save(tmp_path / "model.us"))
    third = FittedSurrogate.load(again.save(tmp_path / "again.us"))
    X = table(seed=2)[0]
    assert np.array_equal(third.predict(X, return_std=True), fitted.predict(X, return_std=True))
    assert third.get_params() == fitted.get_params()
    assert third.settings == fitted.settings
    assert third.leaderboard.equals(again.leaderboard)


def test_rows_in_chunks_are_predicted_as_at_once(fitted, monkeypatch):
    X = table(seed=2)[0]
    whole = fitted.predict(X, return_std=True)
    monkeypatch.setattr(fitted, "chunk_rows", 7)
    assert np.allclose(fitted.predict(X, return_std=True), whole, rtol=1e-10)
