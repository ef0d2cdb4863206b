"""Scores of held-out predictions and how far chance in the choice of rows reaches."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from understudy.core.predictive import Predictive
from understudy.core.warp import Identity, WarpedPredictive
from understudy.models.tabular import evaluation
from understudy.models.tabular.conformal import LEVELS
from understudy.models.tabular.evaluation import evaluation_table, held_out_table


def held_out(rows: int = 400, split: str = "test", seed: int = 0) -> pd.DataFrame:
    """Two targets predicted with errors of sd 0.5 that are known to be so."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=(rows, 2))
    Y = mean + 0.5 * rng.normal(size=mean.shape)
    mean = torch.from_numpy(mean)
    marginals = WarpedPredictive(
        Predictive.gaussian(mean, torch.full_like(mean, 0.5)), (Identity(), Identity())
    )
    reach = torch.tensor([0.5 * stats.norm.ppf(0.5 + level / 2) for level in LEVELS])
    lower, upper = mean - reach[:, None, None], mean + reach[:, None, None]
    return held_out_table(split, np.arange(rows), ("a", "b"), Y, marginals, lower, upper)


def test_scores_are_those_of_the_rows():
    table = held_out()
    scores = evaluation_table(table, 0).set_index("target")
    for target, frame in table.groupby("target"):
        error = frame["y"] - frame["mean"]
        assert scores.loc[target, "rmse"] == pytest.approx(np.sqrt((error**2).mean()))
        expected = 1 - (error**2).mean() / frame["y"].var(ddof=0)
        assert scores.loc[target, "r2"] == pytest.approx(expected)
        assert scores.loc[target, "nlpd"] == pytest.approx(-frame["log_density"].mean())
        inside = frame["y"].between(frame["lower_90"], frame["upper_90"]).mean()
        assert scores.loc[target, "coverage_90"] == pytest.approx(inside)


def test_intervals_are_as_wide_as_the_central_limit_theorem_says():
    table = held_out(2000)
    scores = evaluation_table(table, 0, draws=2000).set_index("target")
    for target, frame in table.groupby("target"):
        error = frame["log_density"].std() / np.sqrt(len(frame))
        line = scores.loc[target]
        width = line["nlpd_high"] - line["nlpd_low"]
        assert width == pytest.approx(2 * 1.96 * error, rel=0.1)
        assert line["nlpd_low"] < line["nlpd"] < line["nlpd_high"]


def test_every_draw_has_its_own_variance_of_the_outputs():
    table = held_out(60)
    frame = table[table["target"] == "a"]
    y, error = frame["y"].to_numpy(), (frame["y"] - frame["mean"]).to_numpy()
    index = np.random.default_rng(1).integers(0, 60, size=(40_000, 60))
    r2 = 1 - (error[index] ** 2).mean(1) / y[index].var(1)
    line = evaluation_table(table, 0, draws=40_000).iloc[0]
    assert line[["r2_low", "r2_high"]].tolist() == pytest.approx(
        np.quantile(r2, (0.025, 0.975)).tolist(), abs=0.005
    )


def test_intervals_do_not_depend_on_how_many_draws_are_held_at_once(monkeypatch):
    table = held_out(50)
    whole = evaluation_table(table, 3)
    monkeypatch.setattr(evaluation, "_NUMBERS", 350)
    pd.testing.assert_frame_equal(evaluation_table(table, 3), whole)


def test_splits_are_scored_apart_in_their_order():
    table = pd.concat([held_out(30, "cross-validation"), held_out(20, "test", seed=1)])
    scores = evaluation_table(table, 0)
    assert scores["split"].tolist() == ["cross-validation"] * 2 + ["test"] * 2
    assert scores["rows"].tolist() == [30, 30, 20, 20]
    assert scores["target"].tolist() == ["a", "b", "a", "b"]
