import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import lognorm, norm
from sklearn.preprocessing import PowerTransformer

from understudy.core.errors import UserError
from understudy.core.predictive import Predictive
from understudy.core.warp import (
    Identity,
    Log,
    WarpedPredictive,
    YeoJohnson,
    choose,
    from_json,
    log_likelihood,
    to_json,
)

RNG = np.random.default_rng(0)
powers = st.floats(-4.0, 6.0)
yeo_johnsons = st.builds(
    YeoJohnson,
    powers,
    location=st.floats(-1e3, 1e3),
    scale=st.floats(1e-3, 1e3),
    lower=st.one_of(st.just(-math.inf), st.floats(-20.0, -0.1)),
    upper=st.one_of(st.just(math.inf), st.floats(0.1, 20.0)),
)
warps = st.one_of(st.just(Identity()), st.builds(Log, st.floats(0.0, 10.0)), yeo_johnsons)


MIXED = (
    YeoJohnson(-0.7, lower=-5.0, upper=5.0),
    YeoJohnson(2.6, location=3.0, scale=2.0, lower=-5.0, upper=5.0),
    Log(1.0),
    Identity(),
)


def mixture(n=3, warped=MIXED):
    """Two components a cell, as many outputs as transforms."""
    m = len(warped)
    loc = torch.as_tensor(RNG.normal(size=(2, n, m)))
    scale = torch.as_tensor(RNG.uniform(0.1, 0.6, size=(2, n, m)))
    weight = torch.tensor([0.3, 0.7]).double().reshape(2, 1, 1)
    return WarpedPredictive(Predictive(loc, scale, weight), tuple(warped))


@given(warps, st.lists(st.floats(-50.0, 50.0), min_size=1, max_size=20))
def test_inverse_undoes_forward(warp, values):
    spread = getattr(warp, "scale", 1.0)
    x = torch.tensor(values, dtype=torch.float64)
    y = x.abs() + 1e-3 if isinstance(warp, Log) else getattr(warp, "location", 0.0) + spread * x
    error = (warp.inverse(warp.forward(y)) - y).abs()
    assert (error <= 1e-7 * spread * (1.0 + x.abs())).all()


@given(yeo_johnsons, st.floats(-1e12, 1e12))
def test_yeo_johnson_is_finite_both_ways_however_far(warp, value):
    far = torch.tensor([value], dtype=torch.float64)
    assert torch.isfinite(warp.forward(far)).all()
    assert torch.isfinite(warp.inverse(far)).all()


@given(yeo_johnsons)
def test_yeo_johnson_increases_through_its_straight_ends(warp):
    x = torch.cat([-torch.logspace(4, -3, 60), torch.logspace(-3, 4, 60)]).double()
    assert (warp.forward(warp.location + warp.scale * x).diff() > 0).all()


@given(warps, st.floats(-30.0, 30.0))
def test_log_derivative_is_that_of_autograd(warp, value):
    y = torch.tensor([abs(value) + 0.1], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(warp.forward(y).sum(), y)
    assert torch.allclose(slope.log(), warp.log_derivative(y), atol=1e-8)


@given(warps, st.floats(-30.0, 30.0))
def test_gradients_of_the_inverse_are_finite(warp, value):
    t = torch.tensor([value, 0.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(warp.inverse(t).sum(), t)
    assert torch.isfinite(slope).all()
    assert (slope > 0).all()


@pytest.mark.parametrize("lmbda", [-1.5, 0.0, 0.4, 1.0, 2.0, 3.0])
def test_yeo_johnson_is_the_published_formula_between_its_ends(lmbda):
    x = np.linspace(-3, 3, 31)
    peer = PowerTransformer(standardize=False)
    peer.fit(x.reshape(-1, 1))
    peer.lambdas_ = np.array([lmbda])
    ours = YeoJohnson(lmbda).forward(torch.as_tensor(x))
    assert np.allclose(ours, peer.transform(x.reshape(-1, 1))[:, 0])


def test_estimated_power_agrees_with_scikit_learn_in_the_same_frame():
    y = RNG.gamma(2.0, size=500)
    warp = YeoJohnson.estimate(y)
    x = ((y - warp.location) / warp.scale).reshape(-1, 1)
    peer = PowerTransformer(standardize=False).fit(x).lambdas_[0]
    assert warp.lmbda == pytest.approx(peer, abs=1e-2)


@pytest.mark.parametrize("factor", [1e-12, 1.0, 1e12])
def test_estimated_power_does_not_depend_on_units(factor):
    y = RNG.gamma(2.0, size=300)
    assert YeoJohnson.estimate(factor * y).lmbda == pytest.approx(
        YeoJohnson.estimate(y).lmbda, abs=1e-3
    )


def test_estimate_of_constant_observations_is_refused():
    with pytest.raises(UserError, match="two differ"):
        YeoJohnson.estimate(np.ones(5))


def test_choice_leaves_gaussian_data_alone_and_takes_logarithms_of_lognormal_data():
    z = np.random.default_rng(1).normal(size=400)
    assert choose(z) == Identity()
    assert choose(np.exp(2 * z)) == Log()
    assert isinstance(choose(-np.exp(z)), YeoJohnson)


def test_likelihood_of_the_logarithm_is_that_of_a_lognormal():
    y = np.exp(RNG.normal(size=200))
    scale, location = np.log(y).std(), np.log(y).mean()
    exact = lognorm.logpdf(y, scale, scale=np.exp(location)).sum()
    constant = -0.5 * 200 * (1.0 + np.log(2 * np.pi))
    assert log_likelihood(Log(), y) + constant == pytest.approx(exact)


@given(warps)
def test_json_round_trip_keeps_a_transform(warp):
    assert from_json(to_json(warp)) == warp


def test_unknown_transform_is_refused_by_name():
    with pytest.raises(UserError, match=r"one of .*'log'.*, found 'sqrt'"):
        from_json({"name": "sqrt"})


def test_density_integrates_to_one():
    predictive = mixture(n=1)
    t = torch.linspace(-8, 8, 8_001, dtype=torch.float64)
    y = torch.stack([warp.inverse(t) for warp in predictive.warps], -1)
    density = predictive[torch.zeros(len(t), dtype=torch.long)].log_density(y).exp()
    assert torch.allclose(torch.trapezoid(density, y, dim=0), torch.ones(4).double(), atol=1e-4)


def test_distribution_function_undoes_quantiles():
    predictive = mixture()
    levels = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)
    found = predictive.cdf(predictive.quantile(levels))
    assert torch.allclose(found, levels.reshape(-1, 1, 1).expand_as(found), atol=1e-7)


def test_mean_and_deviation_are_those_of_draws():
    predictive = mixture()
    base = predictive.base
    z = torch.as_tensor(RNG.normal(size=(100_000, 2, 3, 4)))
    first = torch.as_tensor(RNG.uniform(size=(100_000, 3, 4))) < 0.3
    t = base.loc + base.scale * z
    draws = predictive.inverse(torch.where(first, t[:, 0], t[:, 1]))
    assert torch.allclose(predictive.mean, draws.mean(0), atol=0.02 * float(draws.std(0).max()))
    assert torch.allclose(predictive.sd, draws.std(0), rtol=0.03)


def test_moments_through_the_logarithm_are_those_of_a_lognormal():
    base = Predictive.gaussian(torch.tensor([[0.3]]).double(), torch.tensor([[0.8]]).double())
    predictive = WarpedPredictive(base, (Log(),))
    exact = lognorm(0.8, scale=math.exp(0.3))
    assert float(predictive.mean) == pytest.approx(exact.mean(), rel=1e-6)
    assert float(predictive.sd) == pytest.approx(exact.std(), rel=1e-4)


@pytest.mark.parametrize("y", [0.05, 1.0, 4.0, 40.0])
def test_crps_through_the_logarithm_is_the_closed_form_of_a_lognormal(y):
    mu, sigma = 0.3, 0.8
    base = Predictive.gaussian(torch.tensor([[mu]]).double(), torch.tensor([[sigma]]).double())
    z = (math.log(y) - mu) / sigma
    # Baran & Lerch 2015, Q. J. R. Meteorol. Soc. 141, 2289-2299
    exact = y * (2 * norm.cdf(z) - 1) - 2 * math.exp(mu + sigma**2 / 2) * (
        norm.cdf(z - sigma) + norm.cdf(sigma / math.sqrt(2)) - 1
    )
    score = WarpedPredictive(base, (Log(),)).crps(torch.tensor([[y]]).double())
    assert float(score) == pytest.approx(exact, rel=2e-3)


def test_without_transforms_everything_is_exactly_that_of_the_base():
    plain = mixture(warped=(Identity(), Identity()))
    y = torch.as_tensor(RNG.normal(size=(3, 2)))
    levels = torch.tensor([0.1, 0.6]).double()
    assert torch.equal(plain.mean, plain.base.mean)
    assert torch.equal(plain.sd, plain.base.sd)
    assert torch.equal(plain.crps(y), plain.base.crps(y))
    assert torch.equal(plain.log_density(y), plain.base.log_density(y))
    assert torch.equal(plain.quantile(levels), plain.base.quantile(levels))


def test_quadrature_of_the_quantile_score_agrees_with_the_exact_crps():
    almost = mixture(warped=(YeoJohnson(1.0), YeoJohnson(1.0)))
    y = torch.as_tensor(RNG.normal(size=(3, 2)))
    assert torch.allclose(almost.crps(y), almost.base.crps(y), rtol=1e-2)


def test_rows_and_outputs_can_be_picked():
    predictive = mixture()
    assert len(predictive[torch.tensor([2, 0])]) == 2
    assert torch.equal(predictive[torch.tensor([2])].mean, predictive.mean[2:])
    assert torch.equal(predictive.output(1).mean, predictive.mean[:, 1:2])
    assert torch.equal(
        WarpedPredictive.concatenate([predictive, predictive]).mean[3:], predictive.mean
    )


def test_widening_keeps_the_order_and_moves_quantiles_outwards():
    predictive = mixture()
    wide = predictive.widened(torch.full((4,), 1.5).double())
    levels = torch.tensor([0.02, 0.98]).double()
    assert (wide.quantile(levels)[1] > predictive.quantile(levels)[1]).all()
    assert (wide.quantile(levels)[0] < predictive.quantile(levels)[0]).all()
