"""Facts about searches that do not learn."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.search import Objective, Problem
from understudy.core.space import Categorical, Continuous, Integer, Space
from understudy.search import RandomSearcher, SobolSearcher

MIXED = Space((Continuous("x", -1.0, 3.0), Integer("k", 2, 5), Categorical("c", ("a", "b", "d"))))
SMALL = Space((Integer("k", 0, 2), Categorical("c", ("a", "b"))))


def problem(space):
    return Problem(space, (Objective("y"),))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 9))
def test_proposals_lie_in_the_space(seed, n):
    for kind in (RandomSearcher, SobolSearcher):
        for config in kind(problem(MIXED), seed).ask(n):
            assert -1.0 <= config["x"] <= 3.0
            assert config["k"] in range(2, 6) and isinstance(config["k"], int)
            assert config["c"] in ("a", "b", "d")


def test_the_same_seed_gives_the_same_proposals():
    for kind in (RandomSearcher, SobolSearcher):
        one, other = kind(problem(MIXED), 3), kind(problem(MIXED), 3)
        assert one.ask(4) + one.ask(2) == other.ask(4) + other.ask(2)
        assert kind(problem(MIXED), 4).ask(4) != kind(problem(MIXED), 3).ask(4)


def test_a_sobol_sequence_goes_on_where_it_ended():
    searcher = SobolSearcher(problem(MIXED), 1)
    assert searcher.ask(3) + searcher.ask(5) == SobolSearcher(problem(MIXED), 1).ask(8)


def test_independent_draws_differ_from_ask_to_ask():
    searcher = RandomSearcher(problem(MIXED), 1)
    assert searcher.ask(1) != searcher.ask(1)


def test_sobol_points_of_a_finite_space_repeat_only_when_it_is_exhausted():
    searcher = SobolSearcher(problem(SMALL), 0)
    first = [tuple(config.values()) for _ in range(6) for config in searcher.ask(1)]
    assert len(set(first)) == 6
    assert tuple(searcher.ask(1)[0].values()) in first
