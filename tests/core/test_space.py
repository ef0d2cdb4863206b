"""Facts about ``Space``: the same points as a table, codes, unit cube, features, JSON."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import UserError
from understudy.core.space import Categorical, Continuous, Integer, Space

names = st.text(min_size=1, max_size=8)
finite = st.floats(-1e6, 1e6, allow_subnormal=False)


@st.composite
def continuous(draw, name):
    lower = draw(finite)
    upper = lower + draw(st.floats(1e-2, 1e6)) * max(1.0, abs(lower))
    if lower > 1e-6 and draw(st.booleans()):
        return Continuous(name, lower, upper, unit="m", log=True)
    return Continuous(name, lower, upper)


@st.composite
def integer(draw, name):
    lower = draw(st.integers(-1000, 1000))
    return Integer(name, lower, lower + draw(st.integers(1, 1000)))


@st.composite
def categorical(draw, name):
    values = draw(
        st.one_of(
            st.just([False, True]),
            st.lists(st.integers(-9, 9), min_size=2, max_size=5, unique=True),
            st.lists(st.text(min_size=1, max_size=5), min_size=2, max_size=5, unique=True),
            st.lists(finite, min_size=2, max_size=5, unique=True),
        )
    )
    return Categorical(name, tuple(values))


@st.composite
def spaces(draw):
    chosen = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    kinds = st.sampled_from([continuous, integer, categorical])
    return Space(tuple(draw(draw(kinds)(name)) for name in chosen))


SPACE = Space(
    (
        Continuous("length", 1.0, 3.0, unit="m"),
        Continuous("rate", 1e-3, 1e1, unit="1/s", log=True),
        Integer("count", 2, 6),
        Categorical("colour", ("blue", "green", "red")),
        Categorical("lid", (False, True)),
    )
)
TABLE = pd.DataFrame(
    {
        "length": [1.0, 2.0],
        "rate": [0.1, 10.0],
        "count": [2, 6],
        "colour": ["red", "blue"],
        "lid": [True, False],
    }
)


@settings(max_examples=60, deadline=None)
@given(spaces(), st.integers(1, 20), st.integers(0, 5))
def test_decode_undoes_encode(space, n, seed):
    table = space.sample(n, seed=seed)
    again = space.decode(space.encode(table))
    assert all((again[name] == table[name]).all() for name in space.names)


@settings(max_examples=60, deadline=None)
@given(spaces(), st.integers(0, 5))
def test_from_unit_undoes_to_unit(space, seed):
    X = torch.from_numpy(space.encode(space.sample(16, seed=seed)))
    width = space.bounds[1] - space.bounds[0]
    assert ((space.from_unit(space.to_unit(X)) - X).abs() / width).max() < 1e-9


@settings(max_examples=60, deadline=None)
@given(spaces())
def test_an_equal_space_comes_back_from_json(space):
    again = Space.from_json(space.to_json())
    assert again == space
    kinds = [[type(c) for c in i.choices] for i in space if isinstance(i, Categorical)]
    assert kinds == [[type(c) for c in i.choices] for i in again if isinstance(i, Categorical)]


@settings(max_examples=40, deadline=None)
@given(spaces(), st.sampled_from(["sobol", "lhs", "random"]))
def test_samples_lie_inside_the_bounds_and_repeat_with_their_seed(space, method):
    table = space.sample(9, seed=3, method=method)
    assert not space.outside(space.encode(table)).any()
    pd.testing.assert_frame_equal(table, space.sample(9, seed=3, method=method))


@settings(max_examples=40, deadline=None)
@given(spaces())
def test_features_have_as_many_columns_as_names(space):
    features = space.features(torch.from_numpy(space.encode(space.sample(7))))
    assert features.shape == (7, len(space.feature_names))
    assert (features >= -1e-9).all() and (features <= 1 + 1e-9).all()


def test_codes_are_numbers_and_indices_of_choices():
    assert SPACE.encode(TABLE).tolist() == [[1, 0.1, 2, 2, 1], [2, 10, 6, 0, 0]]


def test_bounds_of_choices_count_from_zero():
    assert SPACE.bounds.tolist() == [[1, 1e-3, 2, 0, 0], [3, 10, 6, 2, 1]]


def test_a_logarithmic_input_is_halfway_at_the_geometric_mean():
    X = torch.tensor([[2.0, 0.1, 4.0, 1.0, 0.0]], dtype=torch.float64)
    assert SPACE.to_unit(X)[0].tolist() == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.0])


def test_the_ends_of_the_unit_cube_are_the_bounds():
    U = torch.tensor([[0.0] * 5, [1.0] * 5], dtype=torch.float64)
    torch.testing.assert_close(SPACE.from_unit(U), SPACE.bounds, rtol=1e-14, atol=0)


def test_only_more_than_two_choices_become_one_hot():
    assert SPACE.feature_names == [
        "length", "rate", "count", "colour=blue", "colour=green", "colour=red", "lid",
    ]  # fmt: skip
    features = SPACE.features(torch.from_numpy(SPACE.encode(TABLE)))
    assert features[:, 3:].tolist() == [[0, 0, 1, 1], [1, 0, 0, 0]]


def test_the_unit_cube_is_differentiable_in_both_directions():
    X = torch.tensor([[2.0, 0.1, 4.0, 1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(SPACE.to_unit, X)
    U = torch.full((1, 5), 0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(SPACE.from_unit, U)


def test_zero_on_a_logarithmic_scale_is_far_outside_yet_finite():
    X = torch.tensor([[2.0, 0.0, 4.0, 1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    U = SPACE.to_unit(X)
    U.sum().backward()
    assert -2 < U[0, 1] < -1 and X.grad.isfinite().all()
    assert SPACE.outside(X).tolist() == [[False, True, False, False, False]]


def test_float32_and_leading_dimensions_are_kept():
    X = torch.from_numpy(SPACE.encode(TABLE)).float().expand(3, 4, 2, 5)
    assert SPACE.to_unit(X).dtype == SPACE.features(X).dtype == torch.float32
    assert SPACE.features(X).shape == (3, 4, 2, 7)


def test_every_whole_number_is_sampled_equally_often():
    counts = SPACE.sample(1000, method="lhs")["count"].value_counts()
    assert counts.to_dict() == dict.fromkeys(range(2, 7), 200)


def test_a_latin_hypercube_has_one_point_in_each_stratum():
    column = Space((Continuous("x", 0, 1),)).sample(50, method="lhs")["x"]
    assert sorted(np.floor(column * 50)) == list(range(50))


def test_other_columns_and_their_order_do_not_matter():
    shuffled = TABLE[TABLE.columns[::-1]].assign(other="text")
    assert (SPACE.encode(shuffled) == SPACE.encode(TABLE)).all()


def test_text_of_a_file_is_read_as_numbers_and_truth_values():
    text = TABLE.astype(str).assign(lid=["Yes", " false "])
    assert (SPACE.encode(text) == SPACE.encode(TABLE)).all()


def test_a_space_is_inferred_from_a_table():
    table = TABLE.assign(size=["1.5", "2"], on=["no", "yes"])
    inferred = Space.from_dataframe(table)
    assert inferred.inputs == (
        Continuous("length", 1.0, 2.0),
        Continuous("rate", 0.1, 10.0),
        Integer("count", 2, 6),
        Categorical("colour", ("blue", "red")),
        Categorical("lid", (False, True)),
        Continuous("size", 1.5, 2.0),
        Categorical("on", (False, True)),
    )


def test_whole_numbers_stay_whole_when_a_cell_is_empty():
    column = pd.DataFrame({"n": [1.0, np.nan, 4.0]})
    assert Space.from_dataframe(column).inputs == (Integer("n", 1, 4),)


def test_optuna_gets_the_same_search_space():
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    assert SPACE.distributions() == {
        "length": FloatDistribution(1.0, 3.0),
        "rate": FloatDistribution(1e-3, 10.0, log=True),
        "count": IntDistribution(2, 6),
        "colour": CategoricalDistribution(("blue", "green", "red")),
        "lid": CategoricalDistribution((False, True)),
    }


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rate": [0.1, "fast"]}, r"column 'rate', row 2: expected a number, found 'fast'"),
        ({"rate": [np.nan, 1.0]}, r"column 'rate', row 1: .* found an empty cell"),
        ({"count": [np.inf, -np.inf]}, r"column 'count', row 1: .* found inf \(and 1 more\)"),
        ({"colour": ["red", "gren"]}, r"column 'colour', row 2: 'gren' .* mean 'green'"),
        ({"colour": [None, "red"]}, r"column 'colour', row 1: an empty cell is none of"),
        ({"rate": pd.to_datetime(["2020-01-01"] * 2)}, r"column 'rate' holds dates"),
    ],
)
def test_a_cell_that_cannot_be_encoded_is_named(change, sentence):
    with pytest.raises(UserError, match=sentence):
        SPACE.encode(TABLE.assign(**change))


def test_a_missing_column_is_named_with_the_nearest_one():
    with pytest.raises(UserError, match="'length' is missing; did you mean 'lenght'"):
        SPACE.encode(TABLE.rename(columns={"length": "lenght"}))


def test_an_unknown_input_is_named_with_the_nearest_one():
    with pytest.raises(UserError, match="no input 'color'; did you mean 'colour'"):
        SPACE["color"]


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Continuous("x", 1, 1), "must be below"),
        (lambda: Continuous("x", 0, float("inf")), "must be finite"),
        (lambda: Continuous("x", -1e308, 1e308), "must be finite"),
        (lambda: Continuous("x", 0, 1, log=True), "positive lower bound"),
        (lambda: Continuous("", 0, 1), "not empty"),
        (lambda: Integer("x", 0, 1.5), "whole numbers"),
        (lambda: Categorical("x", ("a",)), "two distinct"),
        (lambda: Categorical("x", ("a", "a")), "two distinct"),
        (lambda: Categorical("x", ("a", None)), "a choice must be"),
        (lambda: Space(()), "at least one"),
        (lambda: Space((Integer("x", 0, 1), Integer("x", 0, 2))), "'x' is named twice"),
        (lambda: SPACE.sample(3, method="halton"), "unknown design 'halton'"),
        (lambda: Space.from_dataframe(pd.DataFrame({"x": [2.0, 2.0]})), "'x' is constant"),
        (lambda: SPACE.decode(np.zeros((3, 2))), r"shape \(n, 5\)"),
    ],
)
def test_what_cannot_be_is_refused(build, sentence):
    with pytest.raises(UserError, match=sentence):
        build()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"inputs": 3}',
        '{"inputs": [{"type": "os.system"}]}',
        '{"inputs": [{"type": "continuous", "name": "x", "lower": "a", "upper": 1}]}',
        '{"inputs": [{"type": "categorical", "name": "x", "choices": [[1], [2]]}]}',
        '{"inputs": [{"type": ["continuous"]}]}',
        '{"inputs": [{"type": "integer", "name": "x", "lower": 0, "upper": 1e999, "unit": ""}]}',
        '{"inputs": [{"type": "integer", "name": "x", "lower": 0, "upper": 1' + "0" * 400 + "}]}",
        '{"inputs": ["x"]}',
        "[" * 100000,
    ],
)
def test_text_that_describes_no_space_is_a_user_error(text):
    with pytest.raises(UserError):
        Space.from_json(text)
