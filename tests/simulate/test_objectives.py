"""Objectives have the optima that they say, and the values that their formulas give by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from botorch.test_functions import Ackley as BoTorchAckley
from botorch.test_functions import Branin as BoTorchBranin
from botorch.utils.multi_objective.hypervolume import Hypervolume

from understudy.core.errors import UserError
from understudy.simulate.objectives import (
    DTLZ1,
    DTLZ5,
    Ackley,
    Branin,
    BraninCurrin,
    NetworkDraw,
    ObjectiveFunction,
    OilSorbent,
    PestControl,
    PolynomialDraw,
)

SMALL: list[ObjectiveFunction] = [
    Branin(),
    Ackley(3),
    BraninCurrin(),
    DTLZ1(4, 2),
    DTLZ5(4, 3),
    NetworkDraw(5),
    PolynomialDraw(8),
    PestControl(6, 20),
    OilSorbent(),
]
each = pytest.mark.parametrize("function", SMALL, ids=lambda f: type(f).__name__)


@each
def test_a_table_of_its_space_can_be_run(function):
    table = function.space.sample(7, seed=1)
    results = function.run_many(table)
    assert list(results.columns) == list(function.outputs)
    assert np.isfinite(results.to_numpy()).all()


@each
def test_batches_of_any_shape_give_what_single_points_give(function):
    X = torch.from_numpy(function.space.encode(function.space.sample(6, seed=2)))
    whole = function.evaluate(X.reshape(2, 3, -1))
    assert whole.shape == (2, 3, len(function.outputs))
    one = torch.cat([function.evaluate(x.unsqueeze(0)) for x in X])
    torch.testing.assert_close(whole.reshape(6, -1), one)


@each
def test_its_problem_has_its_outputs_as_objectives(function):
    problem = function.problem
    assert problem.outcomes == function.outputs
    assert {o.direction for o in problem.objectives} == {function.direction}
    assert (function.reference_point is None) == (len(function.outputs) == 1)


@pytest.mark.parametrize("x", Branin.minimisers)
def test_branin_has_its_minima_where_it_says(x):
    value = Branin().evaluate(torch.tensor([x], dtype=torch.float64)).item()
    assert value == pytest.approx(Branin.best, abs=1e-5)


def test_ackley_is_zero_at_the_origin_and_20_at_the_far_lattice():
    # on the integer lattice every cosine is 1: 20 (1 - exp(-0.2 |x|_rms)), here rms 30
    X = torch.tensor([[0.0] * 4, [30.0] * 4], dtype=torch.float64)
    expected = [0.0, 20.0 * (1.0 - math.exp(-6.0))]
    assert Ackley(4).evaluate(X)[:, 0].tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(Branin(), BoTorchBranin()), (Ackley(5), BoTorchAckley(dim=5))]
)
def test_values_and_bounds_are_botorchs(ours, theirs):
    X = torch.from_numpy(ours.space.encode(ours.space.sample(20)))
    torch.testing.assert_close(ours.evaluate(X)[:, 0], theirs(X))
    assert ours.space.bounds.tolist() == theirs.bounds.tolist()


def test_the_front_of_dtlz1_is_a_plane():
    # with the last inputs at 1/2 the distance term is zero and the objectives sum to 1/2
    X = torch.full((5, 6), 0.5, dtype=torch.float64)
    X[:, :2] = torch.rand(5, 2, generator=torch.Generator().manual_seed(0))
    assert DTLZ1(6, 3).evaluate(X).sum(1).tolist() == pytest.approx([0.5] * 5)


def test_the_front_of_dtlz5_lies_on_a_sphere():
    X = torch.full((5, 6), 0.5, dtype=torch.float64)
    X[:, 0] = torch.linspace(0, 1, 5)
    assert DTLZ5(6, 3).evaluate(X).square().sum(1).tolist() == pytest.approx([1.0] * 5)


def test_branin_currin_stays_below_its_greatest_hypervolume():
    function = BraninCurrin()
    Y = function.evaluate(torch.rand(500, 2, dtype=torch.float64))
    reference = torch.tensor(function.reference_point, dtype=torch.float64)
    from botorch.utils.multi_objective.pareto import is_non_dominated

    front = -Y[is_non_dominated(-Y)]
    assert 0 < Hypervolume(-reference).compute(front) < function.max_hypervolume


def test_a_network_draw_is_the_network_of_its_weights():
    function = NetworkDraw(4, seed=3)
    network = torch.nn.Sequential(
        torch.nn.Linear(4, 256),
        torch.nn.Tanh(),
        torch.nn.Linear(256, 256),
        torch.nn.Tanh(),
        torch.nn.Linear(256, 1),
    ).double()
    for layer, (weight, bias) in zip(network[::2], function.layers, strict=True):
        layer.weight.data, layer.bias.data = weight.T, bias
    X = torch.rand(9, 4, dtype=torch.float64)
    torch.testing.assert_close(function.evaluate(X), network(X).detach())


def test_weights_of_a_network_draw_are_standard_normal():
    weights = torch.cat([part.flatten() for layer in NetworkDraw(100).layers for part in layer])
    assert weights.mean().item() == pytest.approx(0.0, abs=0.02)
    assert weights.std().item() == pytest.approx(1.0, abs=0.02)


def test_a_seed_names_a_draw():
    X = torch.rand(3, 8, dtype=torch.float64)
    for kind in (NetworkDraw, PolynomialDraw):
        first, again, other = kind(8, 1), kind(8, 1), kind(8, 2)
        assert torch.equal(first.evaluate(X), again.evaluate(X))
        assert not torch.allclose(first.evaluate(X), other.evaluate(X))


def test_a_polynomial_draw_sums_products_of_four():
    function = PolynomialDraw(8)
    function.centre = torch.tensor([1.0, 2, 3, 4, 0, 0, 0, 0], dtype=torch.float64)
    X = torch.tensor([[0.0, 0, 0, 0, 0.5, 0.5, 0.5, 1.0]], dtype=torch.float64)
    assert function.evaluate(X).item() == pytest.approx(24 + 0.125)  # (-1)(-2)(-3)(-4) + 1/8


def test_no_corner_of_a_polynomial_draw_beats_its_best():
    function = PolynomialDraw(8, seed=5)
    corners = torch.tensor(list(itertools.product([0.0, 1.0], repeat=8)), dtype=torch.float64)
    assert function.evaluate(corners).max().item() == pytest.approx(function.best)
    inside = torch.rand(2000, 8, dtype=torch.float64)
    assert function.evaluate(inside).max().item() < function.best


def test_pests_that_nobody_fights_cost_what_they_infest():
    # by hand: z_0 = 0.05 in every season, spread 0.2: 0.05, 0.24, 0.392: above 0.1 from the second
    function = PestControl(3, 4)
    function.infested = torch.full((4,), 0.05, dtype=torch.float64)
    function.spread = torch.full((3, 4), 0.2, dtype=torch.float64)
    assert function.evaluate(torch.zeros(1, 3, dtype=torch.float64)).item() == pytest.approx(2.0)


def test_pesticides_cost_their_discounted_price():
    # no season is infested; two stages with the second at 0.8 (1 - 0.3 * 2/4), one with the fourth
    function = PestControl(4, 5)
    function.infested = torch.zeros(5, dtype=torch.float64)
    function.spread = torch.zeros(4, 5, dtype=torch.float64)
    cost = function.evaluate(torch.tensor([[2.0, 0, 2, 4]], dtype=torch.float64)).item()
    assert cost == pytest.approx(2 * 0.8 * (1 - 0.3 * 2 / 4) + 0.5)


def test_pest_control_agrees_with_its_season_by_season_simulation():
    rng, plan, seasons = np.random.default_rng(0), np.array([0, 2, 1, 0, 1, 3, 4, 1]), 40_000
    beta = {1: 2 / 7, 2: 3 / 7, 3: 3 / 7, 4: 5 / 7}
    growth = {1: 1 / 7, 2: 2.5 / 7, 3: 2 / 7, 4: 0.5 / 7}
    price, discount = {1: 1.0, 2: 0.8, 3: 0.7, 4: 0.5}, {1: 0.2, 2: 0.3, 3: 0.3, 4: 0.0}
    z, cost = rng.beta(1, 30, seasons), 0.0
    for choice in plan:
        cost += np.mean(z > 0.1)
        if choice:
            z = (1 - rng.beta(1, beta[choice], seasons)) * z
            beta[choice] += growth[choice] / len(plan)
            cost += price[choice] * (1 - discount[choice] * np.mean(plan == choice))
        else:
            spread = rng.beta(1, 17 / 3, seasons)
            z = z + spread * (1 - z)
    ours = PestControl(8, 40_000, seed=1).evaluate(torch.from_numpy(plan).double().unsqueeze(0))
    assert ours.item() == pytest.approx(cost, abs=0.03)


def test_oil_sorbent_has_its_coefficients_where_levels_are_whole():
    # the highest levels are 1 and both continuous settings 0: sums of coefficients without 1 and 5
    X = torch.tensor([[0.0, 4, 4, 4, 0, 3, 3]], dtype=torch.float64)
    angle = -197.0928 + 98.6355 + 300.0701 + 89.8360 + 332.9341 + 135.6621
    angle += -46.1790 + 19.2888 - 19.1245 + 53.6297 - 73.0649 - 219.1268 - 55.3704
    angle += -6.9252 - 105.1650 - 82.3222 - 45.6507 - 91.4134
    assert OilSorbent().evaluate(X)[0, 0].item() == pytest.approx(angle)


def test_oil_sorbent_scales_levels_by_the_largest():
    # only the strength's linear and square terms in the feed rate differ where the others are equal
    X = torch.tensor([[0.0, 0, 4, 4, 0, 3, 3], [0.0, 4, 4, 4, 0, 3, 3]], dtype=torch.float64)
    low, high = OilSorbent().evaluate(X)[:, 2].tolist()
    linear = -10.6190 - 15.9371 - 1.1706 + 7.0225 - 1.4938
    assert high - low == pytest.approx(linear * (1 - 0.35) + 12.1928 * (1 - 0.35**2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PolynomialDraw(6), "multiple of 4"),
        (lambda: Ackley(0), "num_inputs"),
        (lambda: DTLZ1(3, 3), "num_objectives"),
        (lambda: PestControl(stages=0), "stages"),
    ],
)
def test_impossible_sizes_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
