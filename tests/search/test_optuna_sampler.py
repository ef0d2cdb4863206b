"""Facts about Bayesian optimisation as a sampler of Optuna."""

from __future__ import annotations

import time

import optuna
import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial

from understudy.core.errors import UserError
from understudy.core.search import Constraint, Objective, Problem
from understudy.core.space import Continuous, Integer, Space
from understudy.search import MultiStart, UnderstudySampler
from understudy.search.optuna_sampler import translation

QUICK = {
    "maximiser": MultiStart(restarts=2, raw_samples=64, iterations=15, rounds=2),
    "surrogate": "exact-gp",
}


@pytest.fixture(autouse=True)
def quiet():
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(level)


def study_of(sampler=None, **options):
    return optuna.create_study(sampler=sampler or UnderstudySampler(seed=0, **QUICK), **options)


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (FloatDistribution(-1.0, 2.0), [-1.0, 0.3, 2.0]),
        (FloatDistribution(1e-3, 2.0, log=True), [1e-3, 0.3, 2.0]),
        (FloatDistribution(0.0, 1.0, step=0.25), [0.0, 0.25, 0.75, 1.0]),
        (IntDistribution(2, 9), [2, 5, 9]),
        (IntDistribution(2, 20, step=6), [2, 8, 20]),
        (IntDistribution(1, 1000, log=True), [1, 30, 1000]),
        (CategoricalDistribution(("a", None, 3.5, True)), ["a", None, 3.5, True]),
    ],
)
def test_values_of_a_distribution_come_back(distribution, values):
    there = translation("p", distribution)
    for value in values:
        back = there.decode(there.encode(value))
        assert back == value and type(back) is type(value)


def test_the_ends_of_a_logarithmic_whole_number_decode_to_its_bounds():
    distribution = IntDistribution(1, 9, log=True)
    there = translation("p", distribution)
    assert there.decode(there.input.lower) == 1 and there.decode(there.input.upper) == 9


def test_one_value_is_nothing_to_search():
    assert translation("p", CategoricalDistribution(("z",))) is None
    assert translation("p", FloatDistribution(1.0, 1.0)) is None


def test_a_study_finds_the_best_and_better_than_at_random():
    def objective(trial):
        x, y = trial.suggest_float("x", -5, 10), trial.suggest_float("y", 0, 15)
        return (x - 1) ** 2 + (y - 3) ** 2

    study = study_of()
    study.optimize(objective, 20)
    assert study.best_value < 0.1  # of the best of 20 random draws the median is 2.4


def test_conditional_parameters_and_any_choices_are_no_obstacle():
    def objective(trial):
        kind = trial.suggest_categorical("kind", [None, "deep", 3])
        width = trial.suggest_int("width", 1, 256, log=True)
        only = trial.suggest_categorical("only", ["z"])
        if kind == "deep":
            return trial.suggest_float("rate", 0.0, 1.0) + abs(width - 30) / 100
        return 1.0 + abs(width - 30) / 100 + (only != "z")

    study = study_of()
    study.optimize(objective, 14)
    assert all(t.state == TrialState.COMPLETE for t in study.trials)
    assert study.best_params["kind"] == "deep"


def test_failed_trials_are_learnt_from_and_pruned_ones_count_with_their_last_value():
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        if x > 0.7:
            raise RuntimeError("diverged")
        trial.report((x - 0.6) ** 2, step=0)
        if trial.number % 4 == 3:
            raise optuna.TrialPruned
        return (x - 0.6) ** 2

    study = study_of()
    study.optimize(objective, 16, catch=(RuntimeError,))
    states = [t.state for t in study.trials]
    assert TrialState.PRUNED in states
    assert sum(s == TrialState.FAIL for s in states[-8:]) <= 2
    assert study.best_value < 1e-3


def test_constraints_of_a_function_and_those_that_trials_set_are_kept():
    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        trial.set_constraint("sum", 1.2 - x - y)
        return x**2 + y**2

    study = study_of()
    study.optimize(objective, 15)
    assert 0.72 <= study.best_value < 0.76  # at x = y = 0.6

    def listed(trial):
        return (1.2 - trial.params["x"] - trial.params["y"],)

    old = study_of(UnderstudySampler(seed=0, constraints_func=listed, **QUICK))
    old.optimize(lambda t: t.suggest_float("x", 0, 1) ** 2 + t.suggest_float("y", 0, 1) ** 2, 15)
    feasible = [t.value for t in old.trials if listed(t)[0] <= 0]
    assert 0.72 <= min(feasible) < 0.76


def test_several_directions_give_a_front():
    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        return x + y, x - y

    study = study_of(directions=["minimize", "maximize"])
    study.optimize(objective, 14)
    assert sum(t.params["y"] < 0.05 for t in study.best_trials) >= 4


def test_running_trials_are_not_proposed_again():
    distributions = {"k": IntDistribution(0, 7)}
    study = study_of(UnderstudySampler(seed=0, initial=2, **QUICK))
    for k in (0, 7):
        trial = create_trial(
            params={"k": k}, distributions=distributions, value=float((k - 3) ** 2)
        )
        study.add_trial(trial)
    asked = [study.ask(distributions).params["k"] for _ in range(6)]
    assert sorted([*asked, 0, 7]) == list(range(8))


def test_with_a_problem_the_first_trials_are_its_sobol_sequence():
    space = Space((Continuous("x", 0.0, 1.0), Integer("k", 1, 4)))
    problem = Problem(space, (Objective("y"),))
    study = study_of(UnderstudySampler(problem, seed=3))
    asked = [study.ask(space.distributions()).params for _ in range(4)]
    assert asked == space.sample(4, 3).to_dict("records")


def test_with_a_problem_constrained_outcomes_are_read_from_user_attributes():
    space = Space((Continuous("x", 0.0, 1.0),))
    problem = Problem(space, (Objective("y"),), (Constraint("g", lower=0.5),))
    study = study_of(UnderstudySampler(problem, seed=0, **QUICK))

    def objective(trial):
        x = trial.suggest_float("x", 0.0, 1.0)
        trial.set_user_attr("outcomes", {"g": x})
        return x

    study.optimize(objective, 12)
    assert min(abs(t.params["x"] - 0.5) for t in study.trials) < 0.02
    assert sum(t.params["x"] < 0.3 for t in study.trials[-5:]) <= 1


def test_the_same_seed_gives_the_same_trials():
    def history(seed):
        study = study_of(UnderstudySampler(seed=seed, **QUICK))
        study.optimize(lambda t: t.suggest_float("x", 0, 1) + t.suggest_int("k", 0, 5), 7)
        return [t.params for t in study.trials]

    assert history(1) == history(1) != history(2)


def test_a_constraint_that_is_no_number_is_refused():
    sampler = UnderstudySampler(constraints_func=lambda trial: (float("nan"),))
    with pytest.raises(UserError, match=r"constraints_func.*no number"):
        study_of(sampler).optimize(lambda t: t.suggest_float("x", 0, 1), 1)


def test_two_thousand_trials_cost_a_proposal_little_more_than_two_hundred():
    distributions = {f"x{i}": FloatDistribution(0.0, 1.0) for i in range(3)}

    def seconds(trials):
        sampler = UnderstudySampler(seed=0, max_rows=150, **QUICK)
        study = study_of(sampler)
        for row in (
            Space(tuple(Continuous(n, 0.0, 1.0) for n in distributions))
            .sample(trials, 0)
            .to_dict("records")
        ):
            study.add_trial(
                create_trial(params=row, distributions=distributions, value=sum(row.values()))
            )
        study.ask(distributions)
        start = time.process_time()
        study.ask(distributions)
        return time.process_time() - start

    assert seconds(2000) < 3.0 * seconds(200) + 0.5
