"""Facts about the contract of a search."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from understudy.core.errors import UserError
from understudy.core.search import Config, Constraint, Objective, Observation, Problem, Searcher
from understudy.core.search import observed as observation_of
from understudy.core.space import Continuous, Space

SPACE = Space((Continuous("x", 0.0, 1.0),))
PROBLEM = Problem(SPACE, (Objective("cost"),), (Constraint("stress", upper=2.0),))


@dataclass
class Middle(Searcher):
    """Proposes the middle, whatever happened."""

    def propose(self, n: int) -> list[Config]:
        return [{"x": 0.5} for _ in range(n)]


def test_the_sign_says_which_way_is_good():
    assert Objective("cost").sign == -1.0
    assert Objective("gain", "maximize").sign == 1.0


def test_an_unknown_direction_is_refused():
    with pytest.raises(UserError, match=r"'cost'.*'minimize' or 'maximize'.*'down'"):
        Objective("cost", "down")


def test_both_bounds_of_a_constraint_are_allowed():
    constraint = Constraint("stress", lower=1.0, upper=2.0)
    assert [constraint.allows(v) for v in (0.9, 1.0, 2.0, 2.1)] == [False, True, True, False]


@pytest.mark.parametrize("bounds", [(2.0, 1.0), (1.0, 1.0), (math.nan, 1.0)])
def test_reversed_bounds_of_a_constraint_are_refused(bounds):
    with pytest.raises(UserError, match=r"'stress'.*below"):
        Constraint("stress", *bounds)


def test_a_constraint_without_bounds_is_refused():
    with pytest.raises(UserError, match=r"finite"):
        Constraint("stress")


def test_a_problem_needs_an_objective():
    with pytest.raises(UserError, match=r"at least one objective"):
        Problem(SPACE, ())


def test_two_objectives_of_one_name_are_refused():
    with pytest.raises(UserError, match=r"same name"):
        Problem(SPACE, (Objective("cost"), Objective("cost", "maximize")))


def test_outcomes_are_objectives_then_what_else_is_constrained():
    problem = Problem(
        SPACE,
        (Objective("cost"), Objective("gain")),
        (Constraint("gain", lower=0.0), Constraint("stress", upper=1.0)),
    )
    assert problem.outcomes == ("cost", "gain", "stress")


def test_feasible_means_that_every_constraint_holds():
    assert PROBLEM.feasible({"cost": 9.0, "stress": 2.0})
    assert not PROBLEM.feasible({"cost": 0.0, "stress": 2.1})


@pytest.mark.parametrize(
    "values",
    [
        None,
        {"cost": 1.0},
        {"cost": math.nan, "stress": 1.0},
        {"cost": math.inf, "stress": 1.0},
        {"cost": "much", "stress": 1.0},
        {"cost": [1.0, 2.0], "stress": 1.0},
    ],
)
def test_a_run_without_a_finite_number_for_every_outcome_has_failed(values):
    assert observation_of(PROBLEM, {"x": 0.1}, values).failed


def test_outcomes_that_no_one_asked_for_are_dropped():
    run = observation_of(PROBLEM, {"x": 0.1}, {"cost": 1, "stress": "2", "mood": 3})
    assert run == Observation({"x": 0.1}, {"cost": 1.0, "stress": 2.0})


def test_what_was_asked_for_is_pending_until_it_is_told():
    searcher = Middle(PROBLEM)
    asked = searcher.ask(2)
    assert searcher.pending == asked
    searcher.tell(asked[:1], [{"cost": 1.0, "stress": 0.0}])
    assert searcher.pending == asked[1:]
    searcher.tell(asked[1:], [None])
    assert searcher.pending == []
    assert [run.failed for run in searcher.observations] == [False, True]


def test_runs_that_were_never_asked_for_are_learnt_from():
    searcher = Middle(PROBLEM)
    searcher.tell([{"x": 0.2}], [{"cost": 1.0, "stress": 0.0}])
    assert searcher.observations[0].config == {"x": 0.2}


def test_a_told_configuration_may_change_without_changing_what_was_told():
    searcher, config = Middle(PROBLEM), {"x": 0.2}
    searcher.tell([config], [None])
    config["x"] = 0.9
    assert searcher.observations[0].config == {"x": 0.2}


def test_asking_for_nothing_is_refused():
    with pytest.raises(UserError, match=r"at least one"):
        Middle(PROBLEM).ask(0)


def test_as_many_outcomes_as_configurations_must_be_told():
    with pytest.raises(UserError, match=r"1 configurations.*2 outcomes"):
        Middle(PROBLEM).tell([{"x": 0.2}], [None, None])
