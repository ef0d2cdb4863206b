import numpy as np
import pytest
import torch
from scipy.stats import norm

from understudy.core import metrics
from understudy.core.errors import UserError
from understudy.core.predictive import Predictive

RNG = np.random.default_rng(0)


def test_rmse_is_the_root_of_the_mean_square_per_output():
    y = np.array([[0.0, 1.0], [0.0, 1.0]])
    assert np.allclose(metrics.rmse(y, y + np.array([[3, 1], [4, 1]])), [np.sqrt(12.5), 1.0])


def test_r2_is_one_for_exact_and_zero_for_the_mean():
    y = RNG.normal(size=(30, 2))
    assert np.allclose(metrics.r2(y, y), 1.0)
    assert np.allclose(metrics.r2(y, np.broadcast_to(y.mean(0), y.shape)), 0.0)


def test_r2_of_a_constant_column_is_one_when_exact_and_zero_otherwise():
    y = np.ones(5)
    assert metrics.r2(y, y) == 1.0
    assert metrics.r2(y, y + 0.1) == 0.0


def test_nlpd_agrees_with_the_normal_density():
    y, mean, sd = RNG.normal(size=(3, 40))
    sd = np.exp(sd)
    expected = -norm.logpdf(y, mean, sd).mean()
    assert metrics.gaussian_nlpd(y, mean, sd) == pytest.approx(expected)
    assert metrics.nlpd(norm.logpdf(y, mean, sd)) == pytest.approx(expected)


def test_crps_of_samples_approaches_that_of_their_distribution():
    y = RNG.normal(size=(20, 2))
    predictive = Predictive.gaussian(torch.zeros(20, 2).double(), torch.ones(20, 2).double())
    samples = RNG.normal(size=(20_000, 20, 2))
    assert np.allclose(metrics.crps_samples(samples, y), metrics.crps(predictive, y), atol=5e-3)


def test_crps_of_samples_is_unbiased_with_two_draws():
    y = np.zeros(200_000)
    estimate = metrics.crps_samples(RNG.normal(size=(2, 200_000)), y)
    closed_form = 2 * norm.pdf(0) - 1 / np.sqrt(np.pi)
    assert estimate == pytest.approx(closed_form, abs=5e-3)


def test_crps_of_one_draw_is_refused():
    with pytest.raises(UserError, match="at least two draws, found 1"):
        metrics.crps_samples(np.zeros((1, 3)), np.zeros(3))


def test_coverage_counts_closed_intervals():
    assert metrics.coverage([0, 0, 0, 0], [1, 1, 1, 1], [0.0, 1.0, 0.5, 2.0]) == 0.75


def test_interval_score_is_the_width_plus_a_fine_for_misses():
    score = metrics.interval_score([0.0, 0.0], [1.0, 1.0], [0.5, 1.1], level=0.9)
    assert score == pytest.approx(1.0 + 0.5 * (2 / 0.1) * 0.1)
    assert metrics.interval_width([0.0, 0.0], [1.0, 3.0]) == 2.0


def test_interval_score_is_lowest_at_the_true_quantiles():
    y = RNG.normal(size=100_000)
    right = norm.ppf(0.95)
    scores = [metrics.interval_score(y * 0 - h, y * 0 + h, y, 0.9) for h in (1.2, right, 2.2)]
    assert np.argmin(scores) == 1


def test_calibration_curve_of_a_right_model_is_the_diagonal():
    y = RNG.normal(size=(50_000, 1))
    right = Predictive.gaussian(torch.zeros(50_000, 1).double(), torch.ones(1).double())
    places = metrics.pit(right, y)
    levels = np.linspace(0, 1, 11)
    assert np.allclose(metrics.calibration_curve(places, levels)[:, 0], levels, atol=0.01)
    assert metrics.calibration_error(places)[0] < 0.01


def test_calibration_error_finds_deviations_that_are_too_small():
    y = RNG.normal(size=(5_000, 1))
    sure = Predictive.gaussian(torch.zeros(5_000, 1).double(), torch.full((1,), 0.3).double())
    assert metrics.calibration_error(metrics.pit(sure, y))[0] > 0.1


def test_classification_error_is_zero_for_true_probabilities_and_large_for_boasting():
    p = RNG.uniform(size=100_000)
    labels = (RNG.uniform(size=p.size) < p).astype(int)
    assert metrics.classification_calibration_error(p, labels) < 0.01
    boast = np.where(p > 0.5, 0.99, 0.01)
    assert metrics.classification_calibration_error(boast, labels) > 0.2


def test_classification_error_by_hand():
    table = [[0.8, 0.2], [0.8, 0.2], [0.4, 0.6]]
    # bin of .8: accuracy 1/2, gap -.3 weighing 2/3; bin of .6: accuracy 1, gap .4 weighing 1/3
    error = metrics.classification_calibration_error(table, [0, 1, 1], bins=10)
    assert error == pytest.approx(2 / 3 * 0.3 + 1 / 3 * 0.4)


def test_relative_l2_is_the_mean_over_fields():
    truth = np.stack([np.ones((4, 4)), 2 * np.ones((4, 4))])
    assert metrics.relative_l2(truth, truth + 0.1) == pytest.approx((0.1 + 0.05) / 2)


def test_kendall_tau_is_minus_one_for_the_reverse_order():
    assert metrics.kendall_tau([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)


def test_bootstrap_interval_of_a_mean_is_the_normal_one():
    values = RNG.normal(size=400)
    low, high = metrics.bootstrap_interval(lambda a: a.mean(0), values, n=4000)
    half = norm.ppf(0.975) * values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.01)
    assert high == pytest.approx(values.mean() + half, abs=0.01)


def test_bootstrap_resamples_rows_of_all_arrays_together():
    y = RNG.normal(size=(25, 3))
    low, high = metrics.bootstrap_interval(metrics.r2, y, y)
    assert np.array_equal(low, np.ones(3))
    assert np.array_equal(high, np.ones(3))


def test_bootstrap_gives_the_same_interval_for_the_same_seed_in_any_chunks(monkeypatch):
    y, mean = RNG.normal(size=(2, 50, 2))
    whole = metrics.bootstrap_interval(metrics.rmse, y, mean, n=300, seed=4)
    again = metrics.bootstrap_interval(metrics.rmse, y, mean, n=300, seed=4)
    assert np.array_equal(whole, again)
    monkeypatch.setattr(metrics, "_CELLS", 500)
    chunked = metrics.bootstrap_interval(metrics.rmse, y, mean, n=300, seed=4)
    assert np.allclose(chunked, whole, rtol=0.1)
