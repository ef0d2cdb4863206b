"""What every member of the portfolio promises."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator

from understudy.core.surrogate import Surrogate
from understudy.models.tabular.portfolio import MODELS, PORTFOLIO, Candidate

QUICK = {"max_steps": 200, "max_trees": 60, "pretraining_steps": 100, "steps": 40}
"""Shorter training for checks of behaviour rather than of quality; the same on any machine."""

EXPECTED_FAILURES = {
    "check_sample_weights_pandas_series": "sample weights are not part of the contract",
}
"""Checks of scikit-learn that do not apply, with the reason."""

ROUNDING = {
    ("PFNSurrogate", "check_methods_subset_invariance"): "single precision: 1e-7 is its last digit",
}
"""Checks that a member meets to fewer digits than scikit-learn asks for."""


def surrogate(candidate: Candidate) -> Surrogate:
    made = candidate.model(**dict(candidate.params))
    known = made.get_params(deep=False)
    return made.set_params(**{k: v for k, v in QUICK.items() if k in known})


def table(n: int = 60, d: int = 3, m: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.uniform(-2.0, 7.0, size=(n, d))
    Y = np.column_stack([np.sin(X[:, 0]) + X[:, 1], 1e3 * X[:, 2] ** 2])
    return X, Y[:, :m]


LONG = {"deep-ensemble", "laplace", "deep-kernel", "sparse-gp"}
"""Members whose training takes seconds: checked by `make test-slow`."""


def marks(candidate: Candidate) -> tuple:
    return (pytest.mark.slow,) if candidate.name in LONG else ()


each_member = pytest.mark.parametrize(
    "candidate", [pytest.param(c, id=c.name, marks=marks(c)) for c in PORTFOLIO]
)


@pytest.fixture(scope="module")
def fitted() -> dict[str, Surrogate]:
    return Fitted()


class Fitted(dict):
    """Members by name, fitted when first asked for."""

    def __missing__(self, name: str) -> Surrogate:
        candidate = next(c for c in PORTFOLIO if c.name == name)
        self[name] = surrogate(candidate).fit(*table())
        return self[name]


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(
            estimator,
            check,
            id=f"{candidate.name}-{getattr(check, 'func', check).__name__}",
            marks=marks(candidate),
        )
        for candidate in PORTFOLIO
        for estimator, check in estimator_checks_generator(surrogate(candidate), mark=None)
    ],
)
def test_scikit_learn_accepts_it_as_a_regressor(estimator, check):
    name = getattr(check, "func", check).__name__
    reason = EXPECTED_FAILURES.get(name) or ROUNDING.get((type(estimator).__name__, name))
    if reason is not None:
        pytest.skip(reason)
    check(estimator)


@each_member
def test_it_explains_a_smooth_function(candidate, fitted):
    assert fitted[candidate.name].score(*table()) > 0.8


@each_member
def test_its_state_comes_back_bit_for_bit(candidate, fitted):
    member = fitted[candidate.name]
    head, tensors = member.state()
    again = MODELS[head["class"]].from_state(head, tensors)
    X = table()[0]
    assert np.array_equal(again.predict(X, return_std=True), member.predict(X, return_std=True))


@each_member
def test_the_same_seed_gives_the_same_predictions(candidate):
    X, Y = table(30)
    first, second = (clone(surrogate(candidate)).fit(X, Y).predict(X) for _ in range(2))
    assert np.array_equal(first, second)


@each_member
def test_its_joint_posterior_has_its_marginal_mean(candidate, fitted):
    member = fitted[candidate.name]
    X = torch.from_numpy(table()[0][:6]).reshape(2, 3, 3)
    posterior = member.posterior(X)
    assert posterior.mean.shape == posterior.variance.shape == (2, 3, 2)
    marginal = member.predictive(X.reshape(6, 3).numpy())
    assert torch.allclose(posterior.mean.reshape(6, 2), marginal.mean, rtol=0.05, atol=0.5)


@each_member
def test_observations_are_no_surer_than_the_function(candidate, fitted):
    member = fitted[candidate.name]
    X = torch.from_numpy(table()[0][:5])
    latent, noisy = (member.posterior(X, observation_noise=flag).variance for flag in (False, True))
    assert bool((noisy >= latent - 1e-9).all())


@each_member
def test_its_error_bars_are_positive_and_finite_far_from_the_data(candidate, fitted):
    far = np.full((4, 3), 100.0)
    mean, sd = fitted[candidate.name].predict(far, return_std=True)
    assert np.isfinite(mean).all()
    assert (sd > 0).all()
    assert np.isfinite(sd).all()


@each_member
def test_out_of_fold_errors_are_those_of_unseen_rows(candidate):
    rng = np.random.default_rng(1)
    X, y = rng.uniform(size=(60, 3)), rng.normal(size=60)  # nothing to learn
    predictive = surrogate(candidate).fit_cross_validated(X, y, np.arange(60) % 5)
    error = float((predictive.mean[:, 0] - torch.from_numpy(y)).square().mean())
    assert error > 0.85 * y.var()
