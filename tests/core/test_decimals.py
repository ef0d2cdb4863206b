import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.decimals import decimal_parts, from_decimal_parts, round_significant
from understudy.core.errors import UserError


def parts(value: float, digits: int = 3) -> tuple[int, ...]:
    found = decimal_parts(torch.tensor([value], dtype=torch.float64), digits)
    return tuple(int(part) for part in found)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3.14159, (1, 314, -2)),
        (28.0, (1, 280, -1)),
        (-0.00271, (-1, 271, -5)),
        (9.999, (1, 100, -1)),  # the mantissa 1000 carries
        (999.5, (1, 100, 1)),
        (1000.0, (1, 100, 1)),
        (0.0, (1, 0, 0)),
        (1e-12, (1, 0, 0)),  # an exponent below -10
        (-1e-12, (1, 0, 0)),
    ],
)
def test_sign_mantissa_and_exponent(value, expected):
    assert parts(value) == expected


@given(st.floats(-9e10, 9e10, allow_nan=False), st.integers(1, 5))
def test_a_rounded_number_is_within_half_a_unit_of_its_last_digit(value, digits):
    rounded = float(round_significant(torch.tensor(value, dtype=torch.float64), digits))
    if rounded == 0:
        assert abs(value) < 10.0 ** (digits - 10)
    else:
        unit = 10.0 ** (math.floor(math.log10(abs(value))) - digits + 1)
        assert abs(rounded - value) <= 0.5 * unit * (1 + 1e-6)


@given(st.floats(-9e10, 9e10, allow_nan=False), st.integers(1, 4))
def test_rounding_twice_changes_nothing(value, digits):
    once = round_significant(torch.tensor([value], dtype=torch.float64), digits)
    assert torch.equal(round_significant(once, digits), once)


def test_numbers_of_three_digits_are_the_doubles_of_their_text():
    mantissa = torch.arange(100, 1000)
    for exponent in (-8, -5, -2, 0, 3):
        values = from_decimal_parts(
            torch.ones(900, dtype=torch.long), mantissa, torch.full((900,), exponent)
        )
        assert values.tolist() == [float(f"{m}e{exponent}") for m in mantissa.tolist()]


@pytest.mark.parametrize("value", [1e13, float("nan"), float("inf")])
def test_numbers_that_cannot_be_written_are_refused(value):
    with pytest.raises(UserError, match="a number of an equation"):
        parts(value)
