"""Where a surrogate promises most: regions, the point believed best, and the next points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from understudy.core.space import Categorical, Continuous, Integer, Space
from understudy.models.tabular.fitted import FittedSurrogate
from understudy.serve.optimum import Constraint, Objective, Wanted, propose, region
from understudy.serve.refusal import Refusal

SPACE = Space((Continuous("x", 0.0, 1.0), Integer("n", 1, 9), Categorical("c", ("a", "b", "d"))))


def test_a_region_maps_its_cube_to_codes_of_the_whole_space() -> None:
    part = region(SPACE, {"n": [3, 5], "c": ["b", "d"]}, {"x": 0.25})
    U = torch.tensor([[0.0, 0.0], [0.5, 1.0], [1.0, 0.0]], dtype=torch.float64)
    assert part.codes(U).tolist() == [[0.25, 3.0, 1.0], [0.25, 4.0, 2.0], [0.25, 5.0, 1.0]]


def test_rows_within_a_region_come_back_as_points_of_its_cube() -> None:
    part = region(SPACE, {"n": [3, 5], "c": ["b", "d"]}, {})
    X = torch.tensor([[0.5, 4, 2], [0.5, 4, 0], [0.5, 9, 1], [0.0, 3, 1]], dtype=torch.float64)
    inside, U = part.within(X)
    assert inside.tolist() == [True, False, False, True]
    torch.testing.assert_close(part.codes(U), X[inside])


def test_one_choice_or_equal_bounds_fix_an_input() -> None:
    part = region(SPACE, {"n": [4, 4], "c": ["d"]}, {})
    assert part.free.names == ["x"]
    assert part.fixed.tolist()[1:] == [4.0, 2.0]


@pytest.mark.parametrize(
    ("bounds", "fixed"),
    [
        ({"n": [1.5, 3]}, {}),
        ({"x": [0.0]}, {}),
        ({"c": []}, {}),
        ({}, {"n": 2.5}),
        ({}, {"x": 2.0}),
        ({}, {"x": "0.5"}),
        ({}, {"c": "e"}),
        ({}, {"x": True}),
    ],
)
def test_a_region_beyond_the_space_is_refused(bounds: dict, fixed: dict) -> None:
    with pytest.raises(Refusal) as caught:
        region(SPACE, bounds, fixed)
    assert caught.value.status == 422


def wanted(surrogate: FittedSurrogate, **options: object) -> Wanted:
    objective = options.pop("objective", Objective("drag", "minimize"))
    fixed = options.pop("fixed", {})
    part = region(surrogate.space, options.pop("bounds", {}), fixed)
    return Wanted(objective, options.pop("constraints", ()), part, **options)


def test_the_best_point_is_as_good_as_the_best_of_a_dense_grid(surrogate: FittedSurrogate) -> None:
    search = wanted(
        surrogate,
        objective=Objective("lift", "maximize"),
        constraints=(Constraint("drag", upper=4.0),),
        strategy="best",
        probability=0.5,
    )
    (point,) = propose(surrogate, search, 1)
    grid = surrogate.space.sample(20_000, seed=5)
    mean = surrogate.predict(surrogate.space.encode(grid))
    best = mean[mean[:, 0] <= 4.0, 1].max()
    drag, lift = surrogate.predict(point.codes[None])[0]
    assert drag <= 4.0 + 1e-3
    assert lift >= best - 0.002 * abs(best)


@pytest.mark.slow
def test_next_points_differ_are_new_and_repeat_with_the_seed(surrogate: FittedSurrogate) -> None:
    search = wanted(surrogate, constraints=(Constraint("lift", lower=5.0),))
    points = propose(surrogate, search, 2, seed=4)
    again = propose(surrogate, search, 2, seed=4)
    np.testing.assert_array_equal([p.codes for p in points], [p.codes for p in again])
    assert not np.allclose(points[0].codes, points[1].codes)
    assert all(point.feasible > 0.3 for point in points)


def test_where_nothing_known_is_feasible_feasibility_is_sought(surrogate: FittedSurrogate) -> None:
    highest = float(surrogate.training["lift"].max())
    search = wanted(surrogate, constraints=(Constraint("lift", lower=highest + 200.0),))
    (point,) = propose(surrogate, search, 1)
    lift = surrogate.predict(point.codes[None])[0, 1]
    middle = surrogate.predict(surrogate.space.encode(surrogate.space.sample(200)))[:, 1]
    assert lift > np.quantile(middle, 0.95)
