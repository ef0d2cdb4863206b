"""Facts about the choice of a surrogate and of an outcome's transform."""

from __future__ import annotations

import math

import pytest
import torch

from understudy.core.errors import UserError
from understudy.core.warp import Identity, Log, YeoJohnson
from understudy.models.tabular.exact_gp import ExactGP
from understudy.models.tabular.infinite_width import InfiniteWidthSurrogate
from understudy.search.bayesopt.outcomes import Interval, Scale
from understudy.search.bayesopt.portfolio import LEAST_ROWS, Portfolio, _tried, named


def table(n=30, d=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, d, dtype=torch.float64, generator=generator)


def test_an_outcome_over_many_decades_is_learnt_on_a_logarithmic_scale():
    X = table()
    learnt = Portfolio().fit(X, (6.0 * X[:, 0] + 3.0 * X[:, 1]).exp(), -1.0)
    assert isinstance(learnt.scale.warp, Log | YeoJohnson)
    plain = Portfolio(warp=False).fit(X, (6.0 * X[:, 0] + 3.0 * X[:, 1]).exp(), -1.0)
    assert plain.scale.warp == Identity()


def test_an_outcome_without_skew_is_left_as_it_is():
    X = table()
    learnt = Portfolio().fit(X, torch.sin(4.0 * X[:, 0]) + X[:, 1], 1.0)
    assert learnt.scale.warp == Identity()


def test_a_smooth_outcome_gets_the_smooth_kernel_and_a_ramp_that_of_networks():
    X = table(60)
    smooth = Portfolio().fit(X, torch.sin(4.0 * X).sum(1), 1.0)
    assert isinstance(smooth.surrogate, ExactGP) and smooth.surrogate.kernel == "rbf"
    X = table(40, 2)
    ramp = torch.relu(X[:, 0] - 0.6 * X[:, 1] - 0.2)
    assert isinstance(Portfolio().fit(X, ramp, 1.0).surrogate, InfiniteWidthSurrogate)


def test_few_rows_choose_nothing():
    X = table(LEAST_ROWS - 1)
    learnt = Portfolio().fit(X, (9.0 * X[:, 0]).exp(), 1.0)
    assert learnt.scale.warp == Identity() and learnt.surrogate.kernel == "matern52"


def test_densities_of_transforms_are_those_of_the_outcome_itself():
    X = table()
    y = (2.0 * X[:, 0] + 0.1 * torch.sin(20.0 * X[:, 1])).exp()
    logged = _tried(ExactGP(), X, y, -1.0, Log())
    by_hand = ExactGP().fit(X.numpy(), y.log().numpy())
    predictive = by_hand.leave_one_out()
    expected = predictive.log_density(y.log().unsqueeze(1))[:, 0] - y.log()
    torch.testing.assert_close(logged.density, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_bounds_of_an_outcome_are_bounds_of_what_is_learnt(sign):
    y = torch.tensor([1.0, 2.0, 5.0, 20.0], dtype=torch.float64)
    scale = Scale.fitted(y, sign, Log())
    lower, upper = scale.bounds(2.0, math.inf)
    inside = (scale.learnt(y) >= lower - 1e-12) & (scale.learnt(y) <= upper + 1e-12)
    assert inside.tolist() == [False, True, True, True]
    assert math.isinf(upper if sign > 0 else lower)


def test_a_constant_outcome_has_spread_one():
    scale = Scale.fitted(torch.full((4,), 1e9, dtype=torch.float64), 1.0)
    assert scale.spread == 1.0 and float(scale.learnt(torch.tensor(1e9).double())) == 0.0


def test_an_interval_as_functions_is_negative_inside():
    lower, upper = Interval(1, -1.0, 2.0).callables
    samples = torch.tensor([[0.0, -1.5], [0.0, 0.0], [0.0, 2.5]])
    assert (lower(samples) <= 0.0).tolist() == [False, True, True]
    assert (upper(samples) <= 0.0).tolist() == [True, True, False]


def test_a_surrogate_by_name_is_a_fresh_one():
    assert named("smooth-gp").kernel == "rbf" and named("smooth-gp") is not named("smooth-gp")
    with pytest.raises(UserError, match=r"no surrogate 'gp'.*exact-gp"):
        named("gp")
