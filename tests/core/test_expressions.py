import math

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import UserError
from understudy.core.expressions import (
    INTEGERS,
    OPERATORS,
    Expression,
    ExpressionList,
    evaluate_each,
    integer,
    number,
    variable,
)

LORENZ = "10.0*(u_1 - u_0) | u_0*(28.0 - u_2) - u_1 | u_0*u_1 - 2.67*u_2"

numbers = st.floats(-999, 999, allow_nan=False).map(lambda x: float(f"{x:.2e}"))
leaves = st.one_of(
    st.sampled_from([variable(0), variable(1)]),
    st.sampled_from(INTEGERS).map(integer),
    numbers.map(number),
    st.just(number(None)),
)


def grown(children):
    def node(name):
        return st.tuples(*[children] * OPERATORS[name]).map(lambda c: Expression(name, c))

    return st.sampled_from(sorted(OPERATORS)).flatmap(node)


trees = st.recursive(leaves, grown, max_leaves=12)
systems = st.tuples(trees, trees).map(ExpressionList)


@given(systems)
@settings(max_examples=150, deadline=None)
def test_prefix_text_reads_back_the_same(system):
    assert ExpressionList.from_prefix(system.prefix()) == system


@given(systems)
@settings(max_examples=150, deadline=None)
def test_printed_text_reads_back_as_the_same_function(system):
    system = system.with_numbers([1.25 if x != x else x for x in system.numbers])
    again = ExpressionList.parse(str(system))
    u = torch.linspace(-1.7, 1.9, 10, dtype=torch.float64).reshape(5, 2)
    torch.testing.assert_close(again.evaluate(u), system.evaluate(u), equal_nan=True)


def test_products_nest_to_the_right_and_sums_to_the_left():
    tree = ExpressionList.parse("u_0*u_0*u_0 - u_0 + u_0")
    assert tree.prefix() == ["add", "sub", "mul", "u_0", "mul", "u_0", "u_0", "u_0", "u_0"]


def test_whole_numbers_are_structure_and_numbers_with_a_point_coefficients():
    tree = ExpressionList.parse("3*u_0 + 3.0*u_0 - 28*u_0 + -4*u_0 + -4.0*u_0")
    assert tree.numbers == (3.0, 28.0, -4.0)
    assert {"3", "-4"} <= set(tree.prefix())


def test_powers_are_squares_and_products():
    assert ExpressionList.parse("u_0**3").prefix() == ["mul", "u_0", "pow2", "u_0"]
    assert ExpressionList.parse("u_0^4").prefix() == ["pow2", "pow2", "u_0"]


def test_the_value_is_that_of_the_formula():
    u = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.5, 4.0]], dtype=torch.float64)
    x, y, z = u.unbind(1)
    expected = torch.stack([10 * (y - x), x * (28 - z) - y, x * y - 2.67 * z], dim=1)
    torch.testing.assert_close(ExpressionList.parse(LORENZ).evaluate(u), expected)


def test_other_numbers_are_evaluated_as_a_batch():
    tree = ExpressionList.parse(LORENZ)
    table = torch.tensor([[10.0, 28.0, 2.67], [9.0, 30.0, 2.5]], dtype=torch.float64)
    u = torch.randn(7, 1, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = tree.evaluate(u, table)
    assert both.shape == (7, 2, 3)
    second = tree.with_numbers(table[1].tolist())
    torch.testing.assert_close(both[:, 1], second.evaluate(u[:, 0]))


def test_equations_of_several_trees_are_evaluated_in_their_order():
    some = [ExpressionList.parse(t) for t in ("2.0*u_0", "sin(u_0)", "3.0*u_0", "u_0 | u_1")]
    u = torch.tensor([[0.5, 2.0], [1.5, -1.0]], dtype=torch.float64)
    values = evaluate_each(some, u)
    assert values.shape == (4, 2, 2)
    for equation, found in zip(some, values, strict=True):
        torch.testing.assert_close(found[:, : equation.dim], equation.evaluate(u))


def test_division_by_zero_is_not_finite_and_no_crash():
    tree = ExpressionList.parse("1/u_0 + inv(u_0)")
    assert not math.isfinite(float(tree.evaluate(torch.zeros(1))[0]))


def test_sympy_agrees():
    x, y, z = sympy.symbols("u_0 u_1 u_2", real=True)
    found = ExpressionList.parse(LORENZ).to_sympy()
    expected = (10.0 * (y - x), x * (28.0 - z) - y, x * y - sympy.Float("2.67") * z)
    assert all(sympy.simplify(a - b) == 0 for a, b in zip(found, expected, strict=True))


def test_latex_names_every_component():
    lines = ExpressionList.parse("u_1 | -0.5*u_0").latex().splitlines()
    assert lines == [r"\dot{u}_{0} = u_{1}", r"\dot{u}_{1} = - 0.5 u_{0}"]


def test_the_skeleton_masks_every_number():
    skeleton = ExpressionList.parse(LORENZ).skeleton
    assert str(skeleton).count("?") == 3 and not skeleton.is_complete
    assert skeleton == ExpressionList.parse(str(skeleton))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10*(u_1", r"position 8 .*the end.*'\)' is expected"),
        ("u_0 + * u_0", r"position 7 .*'\*'"),
        ("u_0 $ 2", r"position 5 .*'\$'"),
        ("exp(u_0)", "position 1 .*'exp'"),
        ("u_0 u_0", "position 5 .*'u_0'.*an operator"),
        ("u_0**5", "position 6 .*'5'.*exponent"),
        ("", "position 1 .*the end"),
        ("u_1", "u_1 is no component of a system of 1"),
    ],
)
def test_text_that_does_not_parse_is_refused_with_position_and_token(text, message):
    with pytest.raises(UserError, match=message):
        ExpressionList.parse(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("add u_0", "ends at token 2 where an operand is missing"),
        ("mull u_0 u_0", r"token 0 \('mull'\) is no operator"),
        ("u_0 u_0", r"token 1 \('u_0'\) is left over"),
        ("u_0 |", "ends at token 2"),
    ],
)
def test_prefix_words_that_do_not_parse_are_refused_with_place_and_word(words, message):
    with pytest.raises(UserError, match=message):
        ExpressionList.from_prefix(words.split())


def test_the_wrong_count_of_numbers_is_refused():
    with pytest.raises(UserError, match="has 3 numbers, found 2"):
        ExpressionList.parse(LORENZ).with_numbers([1.0, 2.0])


def test_states_of_too_few_components_are_refused():
    with pytest.raises(UserError, match="3 components, states have 2"):
        ExpressionList.parse(LORENZ).evaluate(torch.zeros(4, 2))
