"""Facts about where acquisition functions are largest, on functions whose maxima are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from understudy.core.space import Categorical, Continuous, Integer, Space
from understudy.search import MultiStart, RelaxAndRound
from understudy.search.bayesopt.cube import Cube
from understudy.search.bayesopt.maximise import Search, ascend

PLANE = Cube(Space((Continuous("x", 0.0, 1.0), Continuous("y", 0.0, 1.0))))
MIXED = Cube(
    Space(
        (
            Continuous("x", 0.0, 1.0),
            Integer("many", 0, 100),
            Integer("few", 0, 4),
            Categorical("c", tuple("abcdefgh")),
            Categorical("e", tuple("abcdefgh")),
        )
    )
)
NONE = torch.empty(0, 2, dtype=torch.float64)


def search(worth, cube=PLANE, q=1, seen=None, seed=0):
    centres = torch.full((1, cube.dimension), 0.5, dtype=torch.float64)
    seen = torch.empty(0, cube.dimension, dtype=torch.float64) if seen is None else seen
    return Search(worth, cube, q, cube.nearest(centres), seen, np.random.default_rng(seed))


def two_hills(U):
    """Largest, 2, at (0.8, 0.1); a broad hill of height 1 is at (0.2, 0.7)."""
    high = 2.0 * torch.exp(-60.0 * (U - torch.tensor([0.8, 0.1])).square().sum(-1))
    broad = torch.exp(-5.0 * (U - torch.tensor([0.2, 0.7])).square().sum(-1))
    return (high + broad).sum(-1)


def target(U):
    """Largest at x 0.3, many 37, few 2, c = d, e = g; a choice of one e tells on the c."""
    numbers = (U[..., 0] - 0.3).square() + (U[..., 1] - 0.37).square() + (U[..., 2] - 0.5).square()
    choices = (U[..., 3:] * 7).round()
    wrong = (choices - torch.tensor([3.0, 6.0])).abs().clamp_max(1.0).sum(-1)
    return -(numbers + wrong).sum(-1)


def test_the_higher_of_two_hills_is_climbed():
    (found,) = MultiStart()(search(two_hills))
    assert found.tolist() == pytest.approx([0.8, 0.1], abs=2e-3)


@pytest.mark.parametrize("seed", range(3))
def test_continuous_and_discrete_coordinates_reach_the_optimum_together(seed):
    (found,) = MultiStart()(search(target, MIXED, seed=seed))
    (config,) = MIXED.configs(found.unsqueeze(0))
    assert config.pop("x") == pytest.approx(0.3, abs=1e-4)
    assert config == {"many": 37, "few": 2, "c": "d", "e": "g"}


def test_the_optimum_is_passed_over_where_it_was_run():
    cube = Cube(Space((Integer("k", 0, 9), Integer("m", 0, 9))))

    def worth(U):
        return -(U - 1.0 / 3.0).square().sum((-2, -1))

    seen = torch.tensor([[3.0, 3.0], [3.0, 2.0], [2.0, 3.0], [4.0, 3.0]]).double() / 9.0
    (found,) = MultiStart()(search(worth, cube, seen=seen))
    assert cube.configs(found.unsqueeze(0)) == [{"k": 3, "m": 4}]


def test_points_of_a_batch_are_found_together():
    def apart(U):  # two points, one in either corner
        return (U[..., 0, :] - U[..., 1, :]).square().sum(-1)

    found = MultiStart()(search(apart, q=2))
    assert float((found[0] - found[1]).square().sum()) == pytest.approx(2.0)


def test_a_function_that_is_not_a_number_somewhere_does_no_harm():
    def worth(U):
        return torch.where(
            U[..., 0] > 0.5, torch.nan, two_hills(U.unsqueeze(-2)).reshape(U.shape[:-1])
        ).sum(-1)

    (found,) = MultiStart()(search(worth))
    assert float(found[0]) <= 0.5


def test_climbing_moves_free_coordinates_only_and_never_down():
    start = PLANE.sobol(6, 0).unsqueeze(1)
    free = torch.tensor([True, False])
    end = ascend(search(two_hills), start, free, 30)
    assert torch.equal(end[..., 1], start[..., 1])
    assert bool((two_hills(end) >= two_hills(start)).all())
    assert bool((end[..., 0] != start[..., 0]).any())


def test_few_steps_of_few_starts_are_as_the_study_has_them():
    calls = []

    def worth(U):
        calls.append(len(U))
        return two_hills(U)

    RelaxAndRound()(search(worth))
    assert calls[0] == 16  # raw samples
    assert max(calls[1:4]) == 2  # restarts


def test_the_best_after_rounding_down_is_taken():
    cube = Cube(Space((Integer("k", 0, 3), Continuous("y", 0.0, 1.0))))

    def worth(U):
        return -(U - torch.tensor([0.4, 0.5])).square().sum((-2, -1))

    (found,) = RelaxAndRound(restarts=4, iterations=50)(search(worth, cube))
    # 0.4 of the axis lies in the second of four cells, whose value is 1
    assert cube.configs(found.unsqueeze(0))[0]["k"] == 1


def test_every_point_of_an_exhausted_space_is_open_again():
    cube = Cube(Space((Integer("k", 0, 2), Integer("m", 0, 1))))
    everywhere = cube.everywhere()
    (found,) = MultiStart()(search(lambda U: U.sum((-2, -1)), cube, seen=everywhere))
    assert found.tolist() == [1.0, 1.0]
