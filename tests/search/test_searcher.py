"""Facts about Bayesian optimisation as a whole."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import UserError
from understudy.core.search import Constraint, Objective, Problem
from understudy.core.space import Categorical, Continuous, Integer, Space
from understudy.models.tabular.deep_ensemble import DeepEnsemble
from understudy.models.tabular.hmc import HMCSurrogate
from understudy.models.tabular.infinite_width import InfiniteWidthSurrogate
from understudy.search import BayesianSearcher, MultiStart
from understudy.simulate.functions import Hartmann6

QUICK = MultiStart(restarts=2, raw_samples=64, iterations=15, rounds=2)
PLANE = Space((Continuous("x", -5.0, 10.0), Continuous("y", 0.0, 15.0)))
MIXED = Space(
    (
        Continuous("x", 0.0, 1.0),
        Continuous("rate", 1e-3, 10.0, log=True),
        Integer("few", 0, 3),
        Integer("many", 1, 40),
        Categorical("c", ("a", "b", "d", "e")),
        Categorical("t", (True, False)),
    )
)
SMALL = Space((Integer("k", 0, 2), Categorical("c", ("a", "b", "d"))))


def one(space, direction="minimize", *constraints):
    return Problem(space, (Objective("f", direction),), constraints)


def run(searcher, function, n, q=1):
    while len(searcher.observations) < n:
        configs = searcher.ask(q)
        searcher.tell(configs, [function(c) for c in configs])
    return searcher


def best(searcher):
    good = [
        o.values["f"]
        for o in searcher.observations
        if o.values and searcher.problem.feasible(o.values)
    ]
    return min(good) if searcher.problem.objectives[0].sign < 0 else max(good)


def branin(c):
    x, y = c["x"], c["y"]
    a = (y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6) ** 2
    return {"f": a + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10}


def mixed(c):
    """0 at best: x 0.4, rate 0.1, few 2, many 17, c d, t True."""
    numbers = (c["x"] - 0.4) ** 2 + math.log10(c["rate"] / 0.1) ** 2 / 4
    numbers += (c["many"] - 17) ** 2 / 400 + abs(c["few"] - 2) / 3
    return {"f": -numbers - (c["c"] != "d") - (not c["t"])}


# -- it finds what is good --------------------------------------------------------------------


def test_branin_is_solved_in_twenty_evaluations():
    searcher = run(BayesianSearcher(one(PLANE), 0), branin, 20)
    assert best(searcher) < 0.397887 + 0.05  # of 300, and 20 random draws leave 2 on average


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2])
def test_hartmann_is_nearly_solved_in_forty_evaluations(seed):
    simulator = Hartmann6()

    def function(c):
        X = torch.tensor([list(c.values())], dtype=torch.float64)
        return {"f": float(simulator.evaluate(X))}

    searcher = run(BayesianSearcher(one(simulator.space), seed), function, 40)
    assert best(searcher) < -2.9  # the optimum is -3.32; 40 random draws come to -1.9


@pytest.mark.slow
def test_a_mixed_space_is_solved():
    searcher = run(BayesianSearcher(one(MIXED, "maximize"), 0, maximiser=QUICK), mixed, 30)
    assert best(searcher) > -0.1  # a random draw comes to -1.7


def test_maximising_is_minimising_the_negative():
    up = BayesianSearcher(one(PLANE, "maximize"), 1, surrogate="exact-gp", maximiser=QUICK)
    down = BayesianSearcher(one(PLANE), 1, surrogate="exact-gp", maximiser=QUICK)
    run(up, lambda c: {"f": -branin(c)["f"]}, 9)
    run(down, branin, 9)
    assert [o.config for o in up.observations[:6]] == [o.config for o in down.observations[:6]]
    assert up.ask()[0] == pytest.approx(down.ask()[0], abs=1e-3)


def test_the_front_of_two_objectives_is_found():
    space = Space((Continuous("x", 0.0, 1.0), Continuous("y", 0.0, 1.0)))
    problem = Problem(space, (Objective("a"), Objective("b", "maximize")))

    def function(c):  # the front is y = 0
        return {"a": c["x"] ** 2 + c["y"], "b": 1 - (c["x"] - 1) ** 2 - c["y"]}

    searcher = run(BayesianSearcher(problem, 0, maximiser=QUICK), function, 16)
    later = [o.config for o in searcher.observations[8:]]
    assert sum(c["y"] < 0.05 for c in later) >= 6
    assert max(c["x"] for c in later) - min(c["x"] for c in later) > 0.4


def test_constraints_are_kept_where_they_bind():
    problem = one(PLANE, "minimize", Constraint("g", lower=4.0))

    def function(c):
        return {"f": c["x"] ** 2 + c["y"] ** 2, "g": c["x"] + c["y"]}

    searcher = BayesianSearcher(problem, 0, surrogate="exact-gp", maximiser=QUICK)
    run(searcher, function, 20)
    assert 8.0 <= best(searcher) < 8.8  # at x = y = 2; an eighth of the plane is infeasible


def test_something_feasible_is_looked_for_first():
    space = Space(tuple(Continuous(f"x{i}", 0.0, 1.0) for i in range(4)))
    problem = one(space, "minimize", Constraint("g", lower=3.2))

    def function(c):
        return {"f": c["x0"], "g": sum(c.values())}

    searcher = run(BayesianSearcher(problem, 0, maximiser=QUICK), function, 12)
    feasible = [problem.feasible(o.values) for o in searcher.observations]
    assert not any(feasible[:4]) and any(feasible)  # 1.7 % of the cube


def test_where_runs_crash_is_avoided():
    def function(c):
        return None if c["x"] > 4.5 else branin(c)

    searcher = BayesianSearcher(one(PLANE), 0, surrogate="exact-gp", maximiser=QUICK)
    run(searcher, function, 22)
    assert sum(o.failed for o in searcher.observations[-10:]) <= 2  # 37 % of the plane
    assert best(searcher) < 1.0


def test_noise_is_no_obstacle():
    draws = iter(torch.randn(100, generator=torch.Generator().manual_seed(0)).tolist())

    def function(c):
        return {"f": branin(c)["f"] + 5.0 * next(draws)}

    searcher = BayesianSearcher(one(PLANE), 0, surrogate="exact-gp", maximiser=QUICK)
    run(searcher, function, 25)
    late = sorted(branin(o.config)["f"] for o in searcher.observations[12:])
    assert late[len(late) // 2] < 12.0  # the median over the plane is 39


# -- proposals --------------------------------------------------------------------------------


@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 1000))
def test_proposals_lie_in_the_space(seed):
    searcher = BayesianSearcher(one(MIXED, "maximize"), seed, initial=4, maximiser=QUICK)
    run(searcher, mixed, 4)
    for config in searcher.ask(2):
        assert list(config) == MIXED.names
        assert 0.0 <= config["x"] <= 1.0 and 1e-3 <= config["rate"] <= 10.0
        assert config["few"] in range(4) and config["many"] in range(1, 41)
        assert config["c"] in ("a", "b", "d", "e") and isinstance(config["t"], bool)


def test_the_same_seed_gives_the_same_proposals():
    def history(seed):
        searcher = BayesianSearcher(one(MIXED, "maximize"), seed, initial=4, maximiser=QUICK)
        return [o.config for o in run(searcher, mixed, 6).observations]

    torch.manual_seed(3)
    first = history(5)
    torch.manual_seed(4)
    assert first == history(5) != history(6)


def test_a_proposal_leaves_the_global_generator_alone():
    searcher = run(BayesianSearcher(one(PLANE), 0, maximiser=QUICK), branin, 6)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    searcher.ask(2)
    assert torch.equal(torch.rand(3), expected)


def test_a_finite_space_is_exhausted_before_anything_repeats():
    searcher = BayesianSearcher(one(SMALL), 0, initial=2)
    run(searcher, lambda c: {"f": c["k"] + (c["c"] != "b")}, 12)
    runs = [tuple(o.config.values()) for o in searcher.observations]
    assert len(set(runs[:9])) == 9 and set(runs[9:]) <= set(runs[:9])


@pytest.mark.parametrize("joint", [False, True])
def test_a_batch_has_no_point_twice_nor_one_that_is_pending(joint):
    searcher = BayesianSearcher(one(SMALL), 0, initial=2, joint=joint, maximiser=QUICK)
    run(searcher, lambda c: {"f": c["k"] + (c["c"] != "b")}, 3)
    searcher.ask(2)
    searcher.ask(3)
    known = [*(o.config for o in searcher.observations), *searcher.pending]
    assert len({tuple(c.values()) for c in known}) == 8


def test_points_of_a_continuous_batch_keep_apart():
    searcher = run(BayesianSearcher(one(PLANE), 0, maximiser=QUICK), branin, 8)
    batch = searcher.ask(3)
    for i in range(3):
        for j in range(i):
            gap = abs(batch[i]["x"] - batch[j]["x"]) + abs(batch[i]["y"] - batch[j]["y"])
            assert gap > 0.05


def test_the_first_runs_are_a_sobol_sequence_also_when_they_are_asked_for_one_by_one():
    together = BayesianSearcher(one(MIXED), 3, initial=6).ask(6)
    single = BayesianSearcher(one(MIXED), 3, initial=6)
    assert together == [config for _ in range(6) for config in single.ask()]


def test_more_runs_than_a_model_takes_leave_the_best_the_latest_and_some_others():
    searcher = BayesianSearcher(one(PLANE), 0, max_rows=40, maximiser=QUICK)
    configs = searcher.design(0, 300)
    searcher.tell(configs, [branin(c) for c in configs])
    kept = searcher._remembered(_rng())
    values = sorted(o.values["f"] for o in searcher.observations)
    assert len(kept) == 40
    assert set(values[:10]) <= {o.values["f"] for o in kept}
    assert all(o in kept for o in searcher.observations[-10:])
    assert searcher.ask()[0].keys() == {"x", "y"}


# -- little or odd knowledge ------------------------------------------------------------------


def test_one_observation_is_enough_to_go_on():
    searcher = BayesianSearcher(one(PLANE), 0, initial=0)
    run(searcher, branin, 1)
    assert searcher.ask(2)[0] != searcher.observations[0].config


def test_constant_values_are_explored_further():
    searcher = run(BayesianSearcher(one(PLANE), 0, maximiser=QUICK), lambda c: {"f": 7.0}, 12)
    runs = {tuple(o.config.values()) for o in searcher.observations}
    assert len(runs) == 12


def test_the_same_point_told_over_and_over_does_no_harm():
    searcher = BayesianSearcher(one(PLANE), 0, maximiser=QUICK)
    point = {"x": 1.0, "y": 2.0}
    searcher.tell([point] * 8, [{"f": 1.0 + 0.1 * (i % 2)} for i in range(8)])
    searcher.tell([{"x": 2.0, "y": 2.0}], [{"f": 3.0}])
    assert searcher.ask()[0] != point


def test_when_every_run_fails_the_design_goes_on():
    searcher = BayesianSearcher(one(PLANE), 0, initial=3)
    run(searcher, lambda c: None, 8)
    assert len({tuple(o.config.values()) for o in searcher.observations}) == 8


def test_runs_beyond_the_bounds_are_learnt_from():
    searcher = run(BayesianSearcher(one(PLANE), 0, maximiser=QUICK), branin, 6)
    searcher.tell([{"x": 12.0, "y": 16.0}], [{"f": 100.0}])
    config = searcher.ask()[0]
    assert -5.0 <= config["x"] <= 10.0 and 0.0 <= config["y"] <= 15.0


def test_outcomes_of_any_size_are_fine():
    for scale in (1e-12, 1e12):
        searcher = BayesianSearcher(one(PLANE), 0, maximiser=QUICK)
        run(searcher, lambda c, scale=scale: {"f": scale * branin(c)["f"]}, 10)
        assert best(searcher) / scale < 15.0


# -- surrogates -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "surrogate",
    [
        "smooth-gp",
        InfiniteWidthSurrogate(depth=3, learn_kernel=False),
        DeepEnsemble(members=3, width=16, max_steps=30),
        HMCSurrogate(hidden=(16,), burn_in=20, samples=20, warm_start_steps=50),
    ],
    ids=["named", "infinite-width", "ensemble", "hmc"],
)
def test_the_setting_of_the_study_works_with_any_surrogate_in_batches(surrogate):
    searcher = BayesianSearcher.of_the_study(one(PLANE), 0, surrogate=surrogate, initial=6)
    run(searcher, branin, 6, 3)
    batch = searcher.ask(3)
    assert len({tuple(c.values()) for c in batch}) == 3


def test_a_reference_that_objectives_name_is_that_of_the_searcher():
    def proposed(*references, **options):
        parts = (("f", "minimize"), ("g", "maximize"))
        objectives = tuple(
            Objective(*part, value) for part, value in zip(parts, references, strict=True)
        )
        searcher = BayesianSearcher(
            Problem(PLANE, objectives), 0, surrogate="exact-gp", maximiser=QUICK, **options
        )
        run(searcher, lambda c: branin(c) | {"g": c["x"] * c["y"]}, 8)
        return searcher.ask(1)

    named = proposed(90.0, -10.0)
    assert named == proposed(None, None, reference=[90.0, -10.0])
    assert named != proposed(None, None)
    assert proposed(90.0, None) == proposed(None, None)


def test_the_setting_of_the_study_takes_several_objectives_from_a_reference_point():
    problem = Problem(PLANE, (Objective("f"), Objective("g", "maximize")))
    searcher = BayesianSearcher.of_the_study(
        problem, 0, surrogate="exact-gp", initial=6, reference=[200.0, -20.0]
    )
    run(searcher, lambda c: {**branin(c), "g": c["x"] - c["y"]}, 8, 2)
    assert len(searcher.observations) == 8


def test_a_surrogate_that_is_given_is_not_changed():
    given_surrogate = InfiniteWidthSurrogate()
    searcher = BayesianSearcher(one(PLANE), 0, surrogate=given_surrogate, maximiser=QUICK)
    run(searcher, branin, 7)
    assert not hasattr(given_surrogate, "n_outputs_")


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"surrogate": "exact-pg"}, r"no surrogate 'exact-pg'; did you mean 'exact-gp'"),
        ({"acquisition": "ehvi"}, r"'ehvi' does not suit 1 objective.*log_ei"),
        ({"initial": -1}, r"initial must not be negative, got -1"),
        ({"samples": 0}, r"samples must be positive"),
        ({"max_rows": 1}, r"max_rows at least 2"),
        ({"reference": [1.0, 2.0]}, r"reference needs a value for each of 1 objectives, got 2"),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(options, message):
    with pytest.raises(UserError, match=message):
        BayesianSearcher(one(PLANE), **options)


def test_a_choice_that_does_not_exist_is_refused():
    searcher = BayesianSearcher(one(SMALL), 0, initial=1)
    searcher.tell([{"k": 1, "c": "z"}, {"k": 1, "c": "a"}], [{"f": 1.0}, {"f": 2.0}])
    with pytest.raises(UserError, match=r"'c'.*'z' is none of the choices"):
        searcher.ask()


def _rng():
    import numpy as np

    return np.random.default_rng(0)
