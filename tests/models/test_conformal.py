"""Conformal intervals hold out of sample, whatever the model's own error bars."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import understudy
from understudy.core.errors import UserError
from understudy.models.tabular.conformal import LEVELS, Conformal, temperature

PERCENT = [round(100 * level) for level in LEVELS]


@pytest.mark.parametrize("spread", [0.5, 1.0, 4.0])
def test_coverage_holds_for_a_model_whose_error_bars_are_wrong(spread: float):
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(300):
        calibration, new = rng.standard_t(4, size=(99, 1)), rng.standard_t(4, size=(50, 1))
        conformal = Conformal.calibrate(torch.from_numpy(stats.norm.cdf(calibration / spread)))
        low, high = conformal.probabilities(LEVELS)
        u = stats.norm.cdf(new / spread)
        inside = (u[None] >= low.numpy()[:, None]) & (u[None] <= high.numpy()[:, None])
        covered.append(inside.mean((1, 2)))
    # Over calibration sets the coverage of ceil((n + 1) p) / (n + 1) is exact in expectation.
    assert np.mean(covered, axis=0) == pytest.approx(LEVELS, abs=0.015)


def test_too_few_rows_never_give_less_than_the_nominal_interval():
    conformal = Conformal.calibrate(torch.full((5, 1), 0.5).double())
    assert float(conformal.radius[-1, 0]) == pytest.approx(1.959964, abs=1e-5)


def test_wider_levels_contain_narrower_ones():
    rng = np.random.default_rng(1)
    conformal = Conformal.calibrate(torch.from_numpy(rng.uniform(size=(40, 3))))
    low, high = conformal.probabilities((0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99))
    assert bool((low.diff(dim=0) <= 0).all())
    assert bool((high.diff(dim=0) >= 0).all())


def test_temperature_finds_the_factor_by_which_error_bars_are_too_small():
    rng = np.random.default_rng(2)
    y = torch.from_numpy(rng.normal(0, 2.0, size=(2000, 1)))
    factors = torch.logspace(-0.5, 0.5, 41, base=10.0, dtype=torch.float64)
    densities = [torch.distributions.Normal(0.0, f).log_prob(y) for f in factors]
    assert float(temperature(densities, factors)) == pytest.approx(2.0, rel=0.06)


@pytest.mark.parametrize("calibration", ["split", "cross-validation"])
def test_intervals_of_a_fitted_surrogate_cover_as_often_as_they_say(calibration: str):
    covered = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        X = rng.uniform(size=(500, 2))
        noise = 0.3 * (0.2 + X[:, 1]) * rng.standard_t(4, size=500)
        runs = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": np.sin(5 * X[:, 0]) + noise})
        model = understudy.fit(
            runs[:100], "y", calibration=calibration, members=["polynomial"], seed=seed
        )
        table = model.predict_table(runs[100:])
        y = runs["y"][100:]
        covered.append(
            [((y >= table[f"y_lower_{p}"]) & (y <= table[f"y_upper_{p}"])).mean() for p in PERCENT]
        )
    # 12 sets calibrated by 20 or 100 rows: standard errors up to 0.03 (split) and 0.014.
    assert np.mean(covered, axis=0) == pytest.approx(LEVELS, abs=0.08)
    assert np.mean(covered, axis=0)[2] > 0.86


def test_split_calibration_learns_nothing_from_the_rows_set_aside():
    rng = np.random.default_rng(0)
    runs = pd.DataFrame({"a": rng.uniform(size=100)})
    runs["y"] = runs["a"] ** 2
    model = understudy.fit(runs, "y", calibration="split", members=["polynomial"])
    assert model.calibration_rows == 20
    assert len(model.training) == 80
    assert model.settings["calibrated_on"] == 20


def test_split_calibration_of_few_rows_is_refused():
    rng = np.random.default_rng(0)
    runs = pd.DataFrame({"a": rng.uniform(size=30), "y": rng.uniform(size=30)})
    with pytest.raises(UserError, match="split calibration needs 60 rows, found 30"):
        understudy.fit(runs, "y", calibration="split", members=["polynomial"])
