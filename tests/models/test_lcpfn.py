import warnings

import numpy as np
import pytest
import torch

from understudy.core.errors import UserError
from understudy.models.incontext.curve_normaliser import CurveNormaliser
from understudy.models.incontext.curve_prior import EPOCHS, CurvePrior
from understudy.models.incontext.lcpfn import LCPFN, EpochGrid
from understudy.models.incontext.pretrain import Pretraining

RISING = 0.8 - 0.6 * np.arange(1, 21) ** -0.7


@pytest.fixture(scope="module")
def network():
    return LCPFN()


def test_the_shipped_network_predicts_curves_of_its_prior_better_than_their_spread(network):
    """Log density above that of the noisy values' marginal Gaussian, and rising with the cut."""
    _, noisy = CurvePrior().curves(40, EPOCHS, torch.Generator().manual_seed(99))
    scores = []
    for T in (1, 20, 70):
        ahead = torch.arange(T + 1, EPOCHS + 1, 5)
        bars = network.predict(noisy[:, :T], ahead)
        scores.append(float(bars.log_density(noisy[:, T::5]).mean()))
    marginal = -float(noisy.std().log()) - 0.5 * np.log(2 * np.pi) - 0.5
    assert scores[0] > marginal + 0.3
    assert scores == sorted(scores)


def test_its_quantiles_hold_what_they_say(network):
    _, noisy = CurvePrior().curves(200, EPOCHS, torch.Generator().manual_seed(98))
    bars = network.predict(noisy[:, :20], torch.arange(21, EPOCHS + 1, 16))
    inside = (bars.cdf(noisy[:, 20::16]) - 0.5).abs() < 0.4
    assert float(inside.float().mean()) == pytest.approx(0.8, abs=0.05)


def test_what_is_asked_about_does_not_change_other_answers(network):
    values = torch.from_numpy(RISING).unsqueeze(0)
    both = network.predict(values, torch.tensor([50, 100]))
    one = network.predict(values, torch.tensor([100]))
    torch.testing.assert_close(both[:, 1:].mean, one.mean)


def test_a_forecast_is_in_the_units_of_the_metric(network):
    forecast = network.extrapolate(RISING, horizon=60)
    assert forecast.epochs.tolist() == list(range(21, 61))
    low, median, high = forecast.quantile([0.05, 0.5, 0.95])
    assert ((low >= 0) & (low < median) & (median < high) & (high <= 1)).all()
    assert abs(median[-1] - 0.77) < 0.1


def test_a_loss_is_the_mirror_image_of_its_normalised_curve(network):
    normaliser = CurveNormaliser.log_loss(2.3)
    loss = 0.4 + 1.9 * np.arange(1, 16) ** -0.9
    forecast = network.extrapolate(loss, 50, normaliser)
    mirrored = network.extrapolate(
        normaliser(torch.from_numpy(loss)).numpy(),
        50,
        CurveNormaliser(False, -np.inf, 0.0, 1.0, np.inf),
    )
    assert forecast.median.shape == mirrored.median.shape
    assert (forecast.median > 0).all() and forecast.median[-1] < loss[-1] + 0.1
    best = loss.min()
    g = normaliser(torch.tensor([best], dtype=torch.float64))
    expected = 1.0 - forecast.distribution.cdf(g)
    np.testing.assert_allclose(forecast.prob_better(best), expected)


def test_a_loss_takes_its_first_value_for_reference(network):
    loss = [3.0, 2.0, 1.5]
    named = network.extrapolate(loss, 20, CurveNormaliser.log_loss(3.0))
    default = network.extrapolate(loss, 20, minimize=True)
    np.testing.assert_array_equal(named.median, default.median)


def test_chances_fall_as_the_value_to_beat_rises(network):
    chances = [network.prob_exceeds(RISING, best, 100).max() for best in (0.1, 0.7, 0.8, 0.95)]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 0.95 and chances[-1] < 0.1


def test_nothing_is_better_than_the_best_value_that_is_possible(network):
    near = np.minimum(RISING + 0.24, 1.0)
    assert network.prob_exceeds(near, 0.99, 100).max() > 0.1
    assert network.prob_exceeds(near, 1.0, 100).max() == 0.0
    assert network.prob_exceeds(1.0 - near + 0.01, 0.0, 100, minimize=True).max() == 0.0


def test_the_bands_of_a_table_are_nested(network):
    table = network.extrapolate(RISING, 40).table()
    assert table["epoch"].tolist() == list(range(21, 41))
    for inner, outer in ((50, 80), (80, 90), (90, 95)):
        assert (table[f"lower_{outer}"] <= table[f"lower_{inner}"] + 1e-9).all()
        assert (table[f"upper_{outer}"] >= table[f"upper_{inner}"] - 1e-9).all()


def test_one_value_is_enough(network):
    forecast = network.extrapolate([0.3], horizon=100)
    assert forecast.quantile([0.05, 0.95]).shape == (2, 99)
    assert np.isfinite(forecast.quantile([0.05, 0.95])).all()
    spread = np.diff(forecast.quantile([0.05, 0.95]), axis=0)[0]
    assert spread[-1] > 0.15


@pytest.mark.parametrize("value", [0.0, 0.1, 0.7, 1.0])
def test_a_constant_curve_goes_on_near_its_value(network, value):
    forecast = network.extrapolate(np.full(30, value), horizon=40)
    assert np.isfinite(forecast.quantile([0.05, 0.95])).all()
    assert abs(forecast.median[-1] - value) < 0.1


def test_many_curves_are_predicted_as_one_by_one(network):
    curves = [RISING, RISING[:5], 0.9 * RISING]
    together = network.extrapolate_many(curves, 30)
    for forecast, curve in zip(together, curves, strict=True):
        alone = network.extrapolate(curve, 30)
        np.testing.assert_allclose(forecast.median, alone.median, atol=2e-4)
        np.testing.assert_array_equal(forecast.epochs, alone.epochs)


@pytest.mark.parametrize(("length", "horizon"), [(1, 2), (50, 100), (99, 100)])
def test_up_to_a_hundred_epochs_are_looked_at_as_they_are(length, horizon):
    grid = EpochGrid.of(length, horizon)
    assert grid.seen.tolist() == list(range(1, length + 1)) == grid.seen_scaled.long().tolist()
    assert grid.ahead.tolist() == list(range(length + 1, horizon + 1))
    assert torch.equal(grid.ahead.float(), grid.ahead_scaled)


@pytest.mark.parametrize(("length", "horizon"), [(30, 101), (150, 300), (7, 1000), (999, 1000)])
def test_of_longer_curves_the_network_sees_no_more_than_it_was_trained_for(length, horizon):
    grid = EpochGrid.of(length, horizon)
    assert len(grid.seen) + len(grid.ahead) <= EPOCHS
    assert grid.ahead_scaled.max() <= EPOCHS
    assert grid.seen[-1] == length and grid.seen[0] >= 1
    assert length < grid.ahead[0] and grid.ahead[-1] <= horizon
    stride = int(torch.cat([grid.seen.diff(), grid.ahead.diff()])[0])
    assert (grid.seen.diff() == stride).all() and (grid.ahead.diff() == stride).all()
    assert horizon - grid.ahead[-1] < stride


def test_a_longer_curve_is_predicted_like_the_one_that_it_stretches(network):
    """Every second epoch of a curve of 40 epochs is the curve of 20."""
    stretched = np.interp(np.arange(1, 41), np.arange(2, 41, 2), RISING)
    forecast = network.extrapolate(stretched, horizon=200)
    short = network.extrapolate(RISING, horizon=100)
    np.testing.assert_allclose(forecast.median, short.median, atol=1e-6)
    assert forecast.epochs.tolist() == list(range(42, 201, 2))


@pytest.mark.parametrize(
    ("curve", "horizon", "said"),
    [
        ([], 10, "at least one number"),
        ([[0.1, 0.2]], 10, r"shape \(1, 2\)"),
        (["a", "b"], 10, "sequence of numbers"),
        ([0.1, float("nan"), 0.3], 10, "nan at epoch 2"),
        ([0.1, float("inf")], 10, "inf at epoch 2"),
        ([0.1, 57.3], 10, "57.3 at epoch 2, outside the range of the metric, 0 to 1"),
        ([0.1, 0.2, 0.3], 3, "horizon 3 is in the past: the curve has 3 epochs"),
        ([0.1, 0.2, 0.3], -5, "in the past"),
        ([0.1], 10.5, "number of epochs, got 10.5"),
    ],
)
def test_what_cannot_be_extrapolated_is_refused_in_a_sentence(network, curve, horizon, said):
    with pytest.raises(UserError, match=said):
        network.extrapolate(curve, horizon)


def test_a_loss_that_begins_at_zero_needs_a_range(network):
    with pytest.raises(UserError, match="begins at 0"):
        network.extrapolate([0.0, 0.0], 10, minimize=True)


def test_a_curve_that_goes_the_wrong_way_is_warned_of(network):
    with pytest.warns(UserWarning, match="check whether small values are good"):
        network.extrapolate(np.linspace(0.9, 0.2, 12), 20)
    with pytest.warns(UserWarning, match="check whether large values are good"):
        network.extrapolate(np.linspace(0.5, 2.0, 12), 20, minimize=True)


def test_a_curve_that_dips_within_its_noise_is_not(network):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network.extrapolate([0.5, 0.62, 0.58, 0.66, 0.64, 0.61, 0.67], 20)


def test_the_value_to_beat_must_be_finite(network):
    with pytest.raises(UserError, match="finite number, got nan"):
        network.prob_exceeds(RISING, float("nan"), 30)


def test_a_network_can_be_trained_on_another_prior():
    plan = Pretraining(
        steps=3, batch=4, rows=EPOCHS, least_context=1, uniform_context=True, log_every=1
    )
    sizes = {"width": 16, "depth": 1, "heads": 2}
    small = LCPFN.pretrain(CurvePrior(("pow3", "exp4")), plan, bars=20, **sizes)
    assert small.extrapolate([0.2, 0.3], 10).median.shape == (8,)
    assert "exp4" in small.pfn.facts["prior"]
