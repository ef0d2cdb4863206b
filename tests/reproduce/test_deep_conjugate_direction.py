import math

import numpy as np
import pytest

from understudy.core.differences import poisson_matrix
from understudy.core.linear_solver import SolveResult, SPDOperator
from understudy.core.systems import find
from understudy.reproduce import Scale
from understudy.reproduce import deep_conjugate_direction as reproduction
from understudy.reproduce.linear_systems.iterations import (
    by_kind,
    least_quotient,
    quotient_of_all,
    right_hand_sides,
)
from understudy.reproduce.linear_systems.sizes import SIZES


def result(iterations: list[int], converged: list[bool]) -> SolveResult:
    return SolveResult(np.zeros(1), np.zeros(1), np.array(iterations), np.array(converged))


def test_the_system_is_implemented():
    assert find("deep-conjugate-direction").implemented


@pytest.mark.slow
def test_every_claim_is_measured_at_smoke_scale():
    claims = reproduction.run(Scale.SMOKE, seed=3)
    assert all(math.isfinite(claim.measured) for claim in claims)
    assert len({claim.statement for claim in claims}) == len(claims) == 18
    told = next(c.reason for c in claims if "faster than CG" in c.statement)
    for solver in ("CG", "Jacobi", "IC(0)", "deflated", "AMG", "DCDM"):
        assert f"{solver} " in told


def test_no_right_hand_side_is_of_the_training_law_and_all_are_the_same_for_all():
    A = SPDOperator(poisson_matrix((8, 8)))
    sides, again = (right_hand_sides(A, (8, 8), 3) for _ in range(2))
    assert len(sides) == 4
    for kind, b in sides.items():
        assert b.shape == (64, 3) and np.isfinite(b).all() and b.any(0).all()
        np.testing.assert_array_equal(b, again[kind])
    np.testing.assert_array_equal(A.apply(sides["white noise"]), sides["A times white noise"])
    assert (sides["point source"].sum(0) == 1.0).all()
    assert np.linalg.matrix_rank(np.concatenate(list(sides.values()), axis=1)) == 12


def test_what_does_not_converge_counts_as_infinitely_many_iterations():
    sides = {"a": np.zeros((4, 2)), "b": np.zeros((4, 1))}
    found, _ = by_kind(sides, lambda b: result([3, 5, 9], [True, True, False]))
    assert found["a"].tolist() == [3.0, 5.0] and found["b"].tolist() == [math.inf]


def test_the_worst_kind_counts():
    above = {"a": np.array([40.0, 60.0]), "b": np.array([30.0])}
    below = {"a": np.array([5.0, 5.0]), "b": np.array([10.0])}
    assert least_quotient(above, below) == 3.0


def test_right_hand_sides_count_alike_where_all_are_judged_together():
    above = {"a": np.array([40.0, 60.0]), "b": np.array([20.0])}
    below = {"a": np.array([5.0, 5.0]), "b": np.array([10.0])}
    assert quotient_of_all(above, below) == 6.0


def test_the_paper_scale_has_the_grid_of_the_paper():
    assert SIZES[Scale.PAPER].points == 128
