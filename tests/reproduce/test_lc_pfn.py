import math

import numpy as np
import pytest
import torch

from understudy.core.systems import find
from understudy.data.learning_curves import load_learning_curves
from understudy.models.incontext.curve_mcmc import CurvePosterior
from understudy.models.incontext.curve_prior import EPOCHS, CurvePrior
from understudy.models.incontext.lcpfn import LCPFN
from understudy.reproduce import Scale
from understudy.reproduce import lc_pfn as reproduction
from understudy.reproduce.extrapolation.scores import inside_intervals
from understudy.reproduce.extrapolation.selection import (
    BUDGET,
    Selection,
    forecast_limits,
    patience_limits,
    select,
)
from understudy.reproduce.extrapolation.setting import LEVELS
from understudy.reproduce.extrapolation.times import WalkerDensity
from understudy.search.early_stopping import Patience, PredictiveStopper

CURVES = load_learning_curves("wine").accuracy


def orders(count=4, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(len(CURVES)) for _ in range(count)])


def simulated(rule, runs):
    """Best accuracy after each epoch of the budget, one run and one epoch at a time."""
    best, history = -math.inf, []
    for run in runs:
        before = best
        for T in range(1, CURVES.shape[1] + 1):
            best = max(best, CURVES[run, T - 1])
            history.append(best)
            if rule.should_stop(CURVES[run, :T], None if before == -math.inf else before):
                break
        if len(history) >= BUDGET * CURVES.shape[1]:
            break
    history += [best] * (BUDGET * CURVES.shape[1] - len(history))
    return np.array(history[: BUDGET * CURVES.shape[1]])


@pytest.mark.slow
def test_every_claim_is_measured_at_smoke_scale():
    pytest.importorskip("emcee")
    claims = reproduction.run(Scale.SMOKE, seed=3)
    assert {claim.seeds[0] for claim in claims} == {3}
    assert all(math.isfinite(claim.measured) for claim in claims)
    assert len({claim.statement for claim in claims}) == len(claims) == 13


def test_the_system_is_implemented():
    assert find("lc-pfn").implemented


@pytest.mark.parametrize("patience", [0, 1, 5, 50])
def test_a_selection_with_patience_is_what_the_rule_gives_run_by_run(patience):
    runs = orders(3)
    limits = patience_limits(CURVES, patience)
    found = select(CURVES, limits, runs)
    expected = np.mean([simulated(Patience(patience), order) for order in runs], axis=0)
    np.testing.assert_allclose(found.regret, CURVES.max() - expected, atol=1e-12)


def test_a_selection_without_stops_is_one_run_after_another():
    runs = orders()
    found = select(CURVES, np.full_like(CURVES, np.inf), runs)
    expected = np.maximum.accumulate(CURVES[runs[:, :20]].reshape(len(runs), -1), axis=1)
    np.testing.assert_allclose(found.regret, CURVES.max() - expected.mean(0), atol=1e-12)


def test_limits_of_forecasts_are_those_of_the_stopping_rule():
    network = LCPFN()
    curves = CURVES[:6]
    limits = forecast_limits(network, curves, 12)
    assert np.isinf(limits[:, 12:]).all()
    rule = PredictiveStopper(curves.shape[1], network)
    for run, T in ((0, 3), (1, 12), (4, 8)):
        limit = limits[run, T - 1]
        own = curves[run, :T].max()
        for best in (limit - 0.01, limit + 0.01):
            assert rule.should_stop(curves[run, :T], best) is bool(max(best, own) >= limit)


def test_speed_up_is_the_ratio_of_times_to_the_same_regret():
    slow = Selection(np.array([5.0, 4.0, 3.0, 2.0, 2.0, 1.0]))
    fast = Selection(np.array([5.0, 1.0, 1.0, 0.5, 0.5, 0.5]))
    stuck = Selection(np.array([4.0, 3.0, 3.0, 3.0, 3.0, 3.0]))
    assert slow.speed_up(slow) == 1.0
    assert slow.speed_up(fast) == 6 / 2
    assert slow.speed_up(stuck) == 3 / 6


def test_the_density_of_one_walker_is_that_of_all_up_to_a_constant():
    prior = CurvePrior()
    generator = torch.Generator().manual_seed(0)
    z, _ = prior.accepted(20, EPOCHS, generator, torch.float64)
    z = torch.cat([z, prior.draw(20, generator, torch.float64)])
    values = prior.curves(1, EPOCHS, generator, torch.float64)[1][0, :15]
    one = np.array([WalkerDensity(values.numpy())(row) for row in z.numpy()])
    together = CurvePosterior(prior, values.unsqueeze(0))(z).numpy()
    np.testing.assert_array_equal(np.isinf(one), np.isinf(together))
    known = np.isfinite(one)
    gap = one[known] - together[known]
    np.testing.assert_allclose(gap, gap[0], rtol=0, atol=1e-8 * np.abs(one[known]).max())


def test_central_intervals_hold_their_share_of_uniform_probabilities():
    inside = inside_intervals(torch.linspace(0, 1, 10_001, dtype=torch.float64))
    np.testing.assert_allclose(inside.mean(0), LEVELS, atol=1e-3)
