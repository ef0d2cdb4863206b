"""Inputs go on a logarithmic scale where the runs say so, and only there."""

import numpy as np
import pytest

from understudy.core.space import Categorical, Continuous, Space
from understudy.models.tabular.scales import choose_scales

SPACE = Space(
    (Continuous("decade", 1.0, 30.0), Categorical("kind", ("a", "b", "c")), Continuous("x", 0, 1))
)


def design(n: int = 80, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, n).astype(float)
    return np.column_stack([np.exp(rng.uniform(0.0, np.log(30.0), n)), kind, rng.uniform(size=n)])


def test_an_input_whose_logarithm_acts_is_taken_there():
    X = design()
    Y = np.column_stack([np.sin(3.0 * np.log(X[:, 0])) + X[:, 2], X[:, 1] + X[:, 2]])
    space, notes = choose_scales(SPACE, X, Y, seed=0)
    assert [getattr(item, "log", None) for item in space] == [True, None, False]
    assert notes[0].columns == ("decade",)


def test_an_input_that_acts_as_it_is_stays():
    X = design()
    Y = np.sin(0.5 * X[:, :1]) + X[:, 2:]
    assert choose_scales(SPACE, X, Y, seed=0) == (SPACE, ())


def test_an_input_that_does_not_act_stays():
    rng = np.random.default_rng(3)
    X = design()
    Y = np.sin(6.0 * X[:, 2:]) + 0.05 * rng.normal(size=(80, 1))
    assert choose_scales(SPACE, X, Y, seed=0) == (SPACE, ())


def test_an_evenly_drawn_input_stays_though_its_logarithm_acts():
    X = design()
    X[:, 0] = np.random.default_rng(1).uniform(1.0, 30.0, 80)
    Y = np.sin(3.0 * np.log(X[:, :1]))
    assert choose_scales(SPACE, X, Y, seed=0) == (SPACE, ())


@pytest.mark.parametrize("constant", [True, False])
def test_few_rows_and_constant_outputs_decide_nothing(constant: bool):
    X = design(80 if constant else 12)
    Y = np.ones((80, 1)) if constant else np.log(X[:, :1])
    assert choose_scales(SPACE, X, Y, seed=0) == (SPACE, ())
