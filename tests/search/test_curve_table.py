import numpy as np
import pandas as pd
import pytest

from understudy.core.errors import UserError
from understudy.search.curve_table import default_horizon, outlooks, read_curves

RISING = 0.8 - 0.5 * np.arange(1, 21) ** -0.7


def table(**columns):
    return pd.DataFrame(columns)


def test_columns_are_curves_up_to_their_last_value():
    short = [*RISING[:5], *[None] * 15]
    curves = read_curves(table(epoch=range(1, 21), a=RISING, b=short))
    assert list(curves) == ["a", "b"]
    np.testing.assert_array_equal(curves["b"], RISING[:5])


@pytest.mark.parametrize("counter", ["epoch", "Step", "EPOCH"])
@pytest.mark.parametrize("first", [0, 1])
def test_rows_may_be_numbered_from_0_or_1(counter, first):
    curves = read_curves(table(**{counter: range(first, first + 3), "a": [0.1, 0.2, 0.3]}))
    assert list(curves) == ["a"]


@pytest.mark.parametrize(
    ("columns", "wanted", "said"),
    [
        ({"a": [0.1, "x"]}, (), "column 'a', row 2: 'x' is no number"),
        ({"a": [None, None]}, (), "column 'a' is empty"),
        ({"a": [0.1, None, 0.3]}, (), "column 'a', row 2 is empty, but the curve goes on"),
        ({"a": [0.1]}, ("accuracy",), "no curve 'accuracy'"),
        ({"epoch": [1, 2, 4], "a": [0.1] * 3}, (), "'epoch', row 3: found 4, expected 3"),
        ({"epoch": [1, 2]}, (), "a column for each run"),
    ],
)
def test_what_is_no_table_of_curves_is_refused(columns, wanted, said):
    with pytest.raises(UserError, match=said):
        read_curves(table(**columns), wanted)


def test_the_horizon_is_that_of_the_longest_curve_or_a_hundred():
    assert default_horizon({"a": RISING, "b": RISING[:5]}) == 20
    assert default_horizon({"a": RISING, "b": RISING}) == 100
    assert default_horizon({"a": np.zeros(150)}) == 300


def test_complete_curves_set_what_is_to_be_beaten():
    found = outlooks({"done": RISING, "bad": 0.3 * RISING[:10], "good": 1.2 * RISING[:10]})
    done, bad, good = found
    assert done.forecast is None and done.chance == 0.0
    assert bad.chance < 0.05 < good.chance
    assert good.forecast.epochs.tolist() == list(range(11, 21))


def test_losses_are_to_fall_below_the_least():
    loss = 2.0 - 2.0 * RISING
    found = outlooks({"done": loss, "bad": loss[:10] + 1.0, "good": 0.5 * loss[:10]}, minimize=True)
    assert found[1].chance < 0.05 < found[2].chance


def test_a_curve_that_cannot_be_extrapolated_is_named():
    with pytest.raises(UserError, match=r"column 'b': the curve is 57 at epoch 1.*give the range"):
        outlooks({"a": RISING, "b": np.array([57.0])})


def test_a_horizon_that_all_have_reached_is_in_the_past():
    with pytest.raises(UserError, match="horizon 20 is in the past: every curve has that many"):
        outlooks({"a": RISING}, horizon=20)
