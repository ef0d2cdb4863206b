import math

import numpy as np
import pytest
from scipy.stats import dirichlet

from understudy.core.systems import find
from understudy.reproduce import Scale
from understudy.reproduce import wide_deep_optimal as reproduction


def test_the_system_is_implemented():
    assert find("wide-deep-optimal").implemented


def test_every_claim_is_measured_at_smoke_scale():
    claims = reproduction.run(Scale.SMOKE, seed=3)
    assert {claim.seeds[0] for claim in claims} == {3}
    assert all(math.isfinite(claim.measured) for claim in claims)
    assert len({claim.statement for claim in claims}) == len(claims) == 11


def test_the_same_seed_measures_the_same():
    first, second = (reproduction.run(Scale.SMOKE, seed=1) for _ in range(2))
    assert [claim.measured for claim in first] == [claim.measured for claim in second]


@pytest.mark.parametrize("d", list(reproduction.CLASSES))
def test_eta_is_the_posterior_of_the_first_class(d):
    X, _, eta = reproduction._draw(d, 20, np.random.default_rng(0))
    P = np.clip((X / X.sum(1, keepdims=True)).T, 1e-300, None)
    P /= P.sum(0)
    first, second = (dirichlet.pdf(P, a) for a in reproduction.CLASSES[d])
    np.testing.assert_allclose(eta, 0.4 * first / (0.4 * first + 0.6 * second), rtol=1e-6)


@pytest.mark.parametrize("d", list(reproduction.CLASSES))
def test_rows_lie_on_the_non_negative_orthant_of_the_sphere(d):
    X, y, eta = reproduction._draw(d, 4000, np.random.default_rng(0))
    assert X.shape == (4000, d + 1) and X.min() >= 0.0
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 1.0)
    assert np.mean(y > 0) == pytest.approx(0.4, abs=0.03)
    assert eta.mean() == pytest.approx(0.4, abs=0.03)


def test_expected_accuracy_is_the_mean_probability_of_the_predicted_class():
    rows = np.zeros((2, 2))
    sample = reproduction._Sample(rows, np.ones(2), rows, np.array([0.9, 0.3]))
    assert sample.accuracy(np.array([1, 1])) == pytest.approx(0.6)
    assert sample.bayes == pytest.approx(0.8)


def test_depth_takes_a_regression_to_zero():
    sample = reproduction._sample(1, 80, 100, seed=0)
    shallow, _ = reproduction._regress(sample, 1, lambda X: np.sin(5.0 * X[:, 0]))
    deep, _ = reproduction._regress(sample, 50, lambda X: np.sin(5.0 * X[:, 0]))
    assert shallow < 1e-4
    assert deep == pytest.approx(1.0, abs=1e-3)
