import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.errors import UserError
from understudy.models.incontext.curve_normaliser import CurveNormaliser

ACCURACY = CurveNormaliser()
LOSS = CurveNormaliser.log_loss(2.0)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_hard_limits_go_to_the_ends():
    torch.testing.assert_close(ACCURACY(tensor(0.0, 0.5, 1.0)), tensor(0.0, 0.5, 1.0))
    torch.testing.assert_close(LOSS(tensor(0.0, math.inf)), tensor(1.0, 0.0))


def test_an_accuracy_stays_nearly_what_it_is():
    y = torch.linspace(0, 1, 101, dtype=torch.float64)
    assert (ACCURACY(y) - y).abs().max() < 0.02


def test_a_loss_takes_the_value_of_the_formula():
    """At the reference u = 1, so that g = (s(1) - s(-1)) / (1 - s(-1))."""
    s = lambda u: 1.0 / (1.0 + math.exp(-u))  # noqa: E731
    expected = 1.0 - (s(1.0) - s(-1.0)) / (1.0 - s(-1.0))
    assert float(LOSS(tensor(2.0))) == pytest.approx(expected)


def test_without_hard_limits_it_is_a_plain_sigmoid():
    free = CurveNormaliser(False, -math.inf, -1.0, 3.0, math.inf)
    torch.testing.assert_close(free(tensor(2.0)), torch.sigmoid(tensor(2.0 * 3.0 / 4.0 - 1.0)))


limits = st.tuples(
    st.booleans(), st.floats(-50, 50), st.floats(0.1, 50), st.floats(0, 20), st.floats(0, 20)
)


@given(limits, st.floats(0.02, 0.98))
def test_the_inverse_undoes_it(drawn, at):
    minimize, soft, span, below, above = drawn
    hard = (soft - min(below, 3 * span), soft + span + min(above, 3 * span))
    normaliser = CurveNormaliser(minimize, hard[0], soft, soft + span, hard[1])
    y = tensor(hard[0] + at * (hard[1] - hard[0]))
    g = normaliser(y)
    assert 0.0 < float(g) < 1.0
    torch.testing.assert_close(normaliser.inverse(g), y, rtol=1e-6, atol=1e-6 * span)


@given(limits)
def test_better_values_are_higher(drawn):
    minimize, soft, span, below, above = drawn
    normaliser = CurveNormaliser(minimize, soft - below, soft, soft + span, soft + span + above)
    g = normaliser(torch.linspace(soft, soft + span, 9, dtype=torch.float64))
    assert (g.diff() * (-1 if minimize else 1) > 0).all()


def test_the_inverse_stays_within_the_hard_limits():
    values = ACCURACY.inverse(tensor(-0.3, 1.2))
    torch.testing.assert_close(values, tensor(0.0, 1.0))
    assert LOSS.inverse(tensor(-0.1, 1.1)).isfinite().all()


@pytest.mark.parametrize(
    "wrong", [(0.0, 1.0, 1.0, 2.0), (0.5, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 0.9)]
)
def test_limits_that_do_not_rise_are_refused(wrong):
    with pytest.raises(UserError, match="must rise"):
        CurveNormaliser(False, *wrong)


@pytest.mark.parametrize("reference", [0.0, -1.0, math.inf, math.nan])
def test_the_reference_of_a_loss_is_positive(reference):
    with pytest.raises(UserError, match="positive and finite"):
        CurveNormaliser.log_loss(reference)
