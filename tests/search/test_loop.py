"""The loop starts from the same design, gets better, and counts what it says it counts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from understudy.core.errors import UserError
from understudy.core.simulator import BatchedSimulator
from understudy.core.space import Continuous, Space
from understudy.models.tabular.bnn_study import study_surrogates
from understudy.models.tabular.exact_gp import ExactGP
from understudy.search.bayesopt.loop import BayesOptLoop
from understudy.simulate.functions import Ishigami
from understudy.simulate.objectives import Branin, BraninCurrin, OilSorbent, PolynomialDraw

GP = study_surrogates()["gp"]


class Holed(BatchedSimulator):
    """A parabola that fails on the left."""

    space = Space((Continuous("x", 0.0, 1.0),))
    outputs = ("y",)

    def evaluate(self, X: torch.Tensor) -> torch.Tensor:
        return torch.where(X < 0.3, torch.nan, (X - 0.6) ** 2)


def test_rounds_come_after_the_design():
    history = BayesOptLoop(Branin(), GP, q=3, n_init=6, n_iters=2).run()
    assert len(history.configs) == len(history.values) == len(history.best) == 12
    assert len(history.seconds) == 2 and min(history.seconds) > 0
    values = Branin().run_many(pd.DataFrame(history.configs)).to_numpy()
    np.testing.assert_allclose(history.values, values)


def test_every_surrogate_starts_from_the_design_of_its_seed():
    runs = [
        BayesOptLoop(Branin(), model, q=2, n_init=5, n_iters=1, seed=4).run()
        for model in (GP, None, ExactGP())
    ]
    other = BayesOptLoop(Branin(), None, q=2, n_init=5, n_iters=1, seed=5).run()
    assert runs[0].configs[:5] == runs[1].configs[:5] == runs[2].configs[:5]
    assert other.configs[:5] != runs[0].configs[:5]


def test_a_minimisation_counts_the_least_value_so_far():
    history = BayesOptLoop(Branin(), None, q=4, n_init=4, n_iters=3).run()
    np.testing.assert_allclose(history.best, np.minimum.accumulate(history.values[:, 0]))
    assert history.final == history.values.min()


def test_a_maximisation_counts_the_greatest_value_so_far():
    history = BayesOptLoop(PolynomialDraw(8), None, q=4, n_init=4, n_iters=3).run()
    np.testing.assert_allclose(history.best, np.maximum.accumulate(history.values[:, 0]))


def test_it_finds_the_minimum_of_branin():
    history = BayesOptLoop(Branin(), GP, q=4, n_init=8, n_iters=6, seed=1).run()
    assert history.final < Branin.best + 0.1
    assert history.final < history.best[7] - 0.5


def test_hypervolume_grows_to_what_the_points_dominate():
    history = BayesOptLoop(BraninCurrin(), None, q=3, n_init=5, n_iters=2).run()
    assert (np.diff(history.best) >= 0).all()
    # by the areas of a staircase, from the best first objective on
    area, last = 0.0, 6.0
    for first, second in sorted(map(tuple, history.values)):
        if first < 18.0 and second < last:
            area += (18.0 - first) * (last - second)
            last = second
    assert history.final == pytest.approx(area)


def test_mixed_inputs_and_three_objectives_are_searched():
    objective = OilSorbent()
    history = BayesOptLoop(objective, GP, q=2, n_init=6, n_iters=1).run()
    assert not objective.space.outside(objective.space.encode(pd.DataFrame(history.configs))).any()
    assert history.values.shape == (8, 3)


def test_the_same_seed_runs_the_same():
    first, second = (BayesOptLoop(Branin(), GP, q=2, n_init=5, n_iters=2).run() for _ in range(2))
    assert first.configs == second.configs


def test_runs_that_fail_are_passed_over():
    history = BayesOptLoop(Holed(), ExactGP(), q=2, n_init=5, n_iters=2).run()
    failed = np.isnan(history.values[:, 0])
    assert failed.any() and not failed.all()
    assert history.final == np.nanmin(history.values)


def test_a_simulator_without_a_problem_is_minimised():
    loop = BayesOptLoop(Ishigami(), None, n_init=2, n_iters=0)
    assert [o.direction for o in loop.problem.objectives] == ["minimize"]
    assert loop.run().seconds == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": 0}, "q must be"),
        ({"n_init": 0}, "n_init"),
        ({"n_iters": -1}, "n_iters"),
        ({"objective": BraninCurrin(), "reference_point": (1.0,)}, "reference point"),
    ],
)
def test_impossible_loops_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        BayesOptLoop(**({"objective": Branin(), "surrogate": None} | changes))
