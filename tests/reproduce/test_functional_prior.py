from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from understudy.core.systems import find
from understudy.reproduce import Scale
from understudy.reproduce import functional_prior as reproduction
from understudy.reproduce.functional import classes, line


def test_the_system_is_implemented():
    assert find("functional-prior").implemented


@pytest.mark.slow
def test_every_claim_is_measured_at_smoke_scale_and_again_the_same(monkeypatch):
    monkeypatch.delenv("UNDERSTUDY_DATA", raising=False)
    first, second = (reproduction.run(Scale.SMOKE, seed=3) for _ in range(2))
    assert all(math.isfinite(claim.measured) and claim.seeds[0] == 3 for claim in first)
    assert len({claim.statement for claim in first}) == len(first) == 12
    assert [claim.measured for claim in first] == [claim.measured for claim in second]


def test_the_gap_holds_no_data():
    X, y = line.gap_data(0)
    assert X.shape == (64, 1) and y.shape == (64,)
    assert np.abs(X).min() >= 4.0 and np.abs(X).max() <= 10.0
    assert (X < 0.0).any() and (X > 0.0).any()


def test_the_exact_deviation_is_that_of_a_gaussian_process():
    """Of scikit-learn, on standardised inputs."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF

    X, y = line.gap_data(1)
    at = np.linspace(-5.0, 5.0, 7)[:, None]
    shift, spread = X.mean(0), X.std(0, ddof=1)
    peer = GaussianProcessRegressor(RBF(0.6, "fixed"), alpha=0.1, optimizer=None)
    peer.fit((X - shift) / spread, y)
    expected = peer.predict((at - shift) / spread, return_std=True)[1]
    np.testing.assert_allclose(line.exact_deviation(X, at), expected, rtol=1e-5)


def test_sliced_distance_of_a_shift_is_its_mean_length_along_directions():
    """A shift by c at all of N points is c sqrt(N) long, and 1 / N of its square along each."""
    values = torch.randn(500, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert line.sliced_distance(values, values + 2.0, seed=0) == pytest.approx(2.0, rel=0.15)
    assert line.sliced_distance(values, values, seed=0) == 0.0


def test_the_process_has_no_kurtosis_and_its_correlation():
    values = line.process_functions(64, seed=0)
    assert line.excess_kurtosis(values) < 0.15
    spacing = 12.0 / 63
    lags = spacing * np.round(np.array(line.LAGS) / spacing)
    expected = np.exp(-0.5 * (lags / 0.6) ** 2)
    np.testing.assert_allclose(line.correlation(values), expected, atol=0.03)


def test_the_arcs_open_to_each_other():
    X, y = classes.arcs(1000, np.random.default_rng(0))
    assert X.shape == (1000, 2) and y.mean() == 0.5
    centres = np.array([X[y == c].mean(0) for c in (0, 1)])
    between = np.linalg.norm(centres[0] - centres[1])
    linear = X @ (centres[1] - centres[0]) > centres.mean(0) @ (centres[1] - centres[0])
    assert between > 1.0 and 0.6 < np.mean(linear == y) < 0.95


def test_entropy_and_loss_of_a_fair_coin_are_log_two():
    half = np.full(4, 0.5)
    assert classes.mean_entropy(half) == pytest.approx(math.log(2.0))
    assert classes.log_loss(half, np.array([0, 1, 1, 0])) == pytest.approx(math.log(2.0))
    assert classes.log_loss(np.array([0.2]), np.array([0])) == pytest.approx(-math.log(0.8))
