"""Facts about the cube on which acquisition functions are maximised."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.space import Categorical, Continuous, Integer, Space
from understudy.search.bayesopt.cube import Cube

SPACE = Space(
    (
        Continuous("x", 1e-3, 10.0, log=True),
        Integer("few", 0, 3),
        Integer("many", 1, 50),
        Categorical("c", ("a", "b", "d")),
        Categorical("t", (False, True)),
    )
)
CUBE = Cube(SPACE)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_configurations_are_points_of_the_cube_and_back(seed):
    configs = CUBE.configs(torch.rand(5, 5, dtype=torch.float64, generator=_generator(seed)))
    again = CUBE.configs(CUBE.points(configs))
    for one, other in zip(configs, again, strict=True):
        assert abs(np.log(one.pop("x") / other.pop("x"))) < 1e-9
        assert one == other


def test_rounding_leaves_configurations_alone():
    U = CUBE.sobol(64, 0)
    assert torch.equal(CUBE.nearest(U)[:, 0], U[:, 0])
    assert torch.allclose(CUBE.nearest(U), U)


def test_rounding_down_makes_each_value_equally_likely():
    u = torch.linspace(0.0, 0.9999, 4000, dtype=torch.float64)
    values = CUBE.floored(torch.stack([u] * 5, 1))[:, 1]
    assert values.unique(return_counts=True)[1].tolist() == [1000] * 4


def test_only_numbers_of_many_levels_follow_gradients():
    assert CUBE.free.tolist() == [True, False, True, False, False]
    assert CUBE.smooth.tolist() == [True, True, True, False, True]


def test_features_of_numbers_are_differentiable():
    U = CUBE.sobol(3, 0).requires_grad_()
    (gradient,) = torch.autograd.grad(CUBE.features(U).sum(), U)
    expected = torch.ones(3, 4, dtype=torch.float64)
    torch.testing.assert_close(gradient[:, [0, 1, 2, 4]], expected)


def test_perturbations_change_some_coordinates_of_a_point_and_stay_in_the_cube():
    centre = CUBE.sobol(1, 0)
    near = CUBE.around(centre, 200, torch.tensor(0.1, dtype=torch.float64), _rng())
    assert bool(((near >= 0.0) & (near <= 1.0)).all())
    assert torch.allclose(CUBE.nearest(near), near)
    moved = (near - centre).abs()
    assert float(moved[:, 0].median()) < 0.2 and float(moved[:, 0].max()) > 0.0


def test_in_many_dimensions_about_twenty_coordinates_are_perturbed():
    cube = Cube(Space(tuple(Continuous(f"x{i}", 0.0, 1.0) for i in range(200))))
    centre = torch.full((1, 200), 0.5, dtype=torch.float64)
    near = cube.around(centre, 100, torch.tensor(0.1, dtype=torch.float64), _rng())
    changed = (near != centre).sum(1).double()
    assert 15.0 < float(changed.mean()) < 27.0 and float(changed.min()) >= 1.0


def test_moves_reach_every_other_choice_and_adjacent_whole_numbers():
    start = CUBE.points([{"x": 0.1, "few": 1, "many": 20, "c": "a", "t": False}])
    moved = CUBE.nearest(CUBE.moves(_rng()).of(start.unsqueeze(1)))[0, :, 0]
    configs = CUBE.configs(moved)
    assert {c["few"] for c in configs} == {0, 1, 2, 3}
    assert {c["c"] for c in configs} == {"a", "b", "d"}
    assert {c["t"] for c in configs} == {False, True}
    assert {19, 21} <= {c["many"] for c in configs}
    differences = [(moved[i] - start[0]).abs().gt(1e-12).sum() for i in range(len(moved))]
    assert max(differences) == 1


def test_a_finite_cube_is_listed_as_a_whole():
    cube = Cube(Space((Integer("k", 0, 2), Categorical("c", ("a", "b")))))
    everywhere = cube.configs(cube.everywhere())
    assert cube.size == 6 and len({tuple(c.values()) for c in everywhere}) == 6
    assert CUBE.size == float("inf")


def test_a_point_is_new_if_no_point_is_the_same():
    U = CUBE.sobol(8, 0)
    assert CUBE.new(U, U[:3]).tolist() == [False] * 3 + [True] * 5
    assert bool(CUBE.new(U, U[:0]).all())


def _generator(seed):
    return torch.Generator().manual_seed(seed)


def _rng():
    return np.random.default_rng(0)
