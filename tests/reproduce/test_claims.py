import json
import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.reproduce import Claim, Report, Scale


def report(*claims, **changes) -> Report:
    entry = {
        "slug": "fake",
        "scale": Scale.CPU,
        "seed": 0,
        "claims": claims,
        "versions": {"understudy": "0.1.0", "python": "3.11.4"},
        "hardware": {"cpu": "Some", "cores": 2, "gpu": None},
        "seconds": 1.5,
    }
    return Report(**(entry | changes))


FACTS = {
    "statement": "s",
    "paper_figure": "f",
    "metric": "m",
}
numbers = st.floats(allow_nan=True, allow_infinity=True)
finite = st.floats(allow_nan=False, allow_infinity=False)


@given(measured=numbers, bar=finite, direction=st.sampled_from(["at least", "at most"]))
def test_a_claim_holds_exactly_when_a_finite_measurement_is_on_its_side_of_the_bar(
    measured, bar, direction
):
    claim = Claim(**FACTS, bar=bar, direction=direction, measured=measured, seeds=(0,))
    side = measured >= bar if direction == "at least" else measured <= bar
    assert claim.holds == (math.isfinite(measured) and side)
    assert claim.holds or claim.reason


def test_a_measurement_on_the_bar_holds(make_claim):
    assert make_claim(measured=2.0, bar=2.0, direction="at least").holds
    assert make_claim(measured=2.0, bar=2.0, direction="at most").holds


def test_holds_cannot_be_passed_in(make_claim):
    with pytest.raises(TypeError, match="holds"):
        make_claim(holds=True)


def test_holds_cannot_be_set_afterwards(make_claim):
    with pytest.raises(FrozenInstanceError):
        make_claim(measured=1.0).holds = True


def test_a_claim_that_falls_short_says_by_how_much_and_then_why(make_claim):
    claim = make_claim(measured=1.25, reason="the network is 50 times smaller")
    expected = "measured 1.25, below the bar of 2; the network is 50 times smaller"
    assert claim.reason == expected


def test_a_claim_that_holds_keeps_its_remark(make_claim):
    assert make_claim(reason="one data set only").reason == "one data set only"


@pytest.mark.parametrize("measured", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("direction", ["at least", "at most"])
def test_a_measurement_that_is_not_finite_does_not_hold_and_says_so(
    make_claim, measured, direction
):
    claim = make_claim(measured=measured, direction=direction)
    assert not claim.holds
    assert claim.reason == f"the measurement is not finite ({measured})"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bar": math.nan}, "bar of 'speed ratio' must be finite"),
        ({"direction": "above"}, "'at least' or 'at most', not 'above'"),
        ({"seeds": ()}, "names no seed"),
        ({"spread": -0.1}, "spread of 'speed ratio' is negative"),
    ],
)
def test_a_claim_that_cannot_be_judged_is_refused(make_claim, changes, message):
    with pytest.raises(ValueError, match=message):
        make_claim(**changes)


def test_over_seeds_takes_the_mean_and_the_sample_standard_deviation():
    claim = Claim.over_seeds({3: 1.0, 4: 3.0}, **FACTS, bar=2.0, direction="at most")
    assert (claim.measured, claim.seeds) == (2.0, (3, 4))
    assert claim.spread == pytest.approx(math.sqrt(2.0))


def test_one_seed_has_no_spread():
    claim = Claim.over_seeds({0: 1.0}, **FACTS, bar=2.0, direction="at most")
    assert math.isnan(claim.spread) and claim.holds


def test_one_seed_that_diverged_fails_the_claim():
    claim = Claim.over_seeds({0: 1.0, 1: math.inf}, **FACTS, bar=2.0, direction="at most")
    assert not claim.holds


def test_a_report_reads_back_as_written(make_claim):
    written = report(make_claim(), make_claim(measured=1.0, spread=math.nan, reason="small"))
    read = Report.from_json(written.to_json())
    assert read.to_json() == written.to_json()
    assert read.claims[0] == written.claims[0]
    assert [claim.holds for claim in read.claims] == [True, False]


def test_a_report_is_strict_json_with_the_documented_layout(make_claim):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    claims = make_claim(measured=math.nan, seeds=(5, 1)), make_claim(measured=np.float32(4.0))
    record = json.loads(report(*claims).to_json(), parse_constant=refuse)
    assert list(record) == [
        "slug",
        "scale",
        "seed",
        "seeds",
        "claims",
        "holds",
        "versions",
        "hardware",
        "seconds",
    ]
    assert record["scale"] == "cpu" and record["seeds"] == [0, 1, 5]
    assert record["claims"][0]["measured"] == "nan" and record["claims"][0]["holds"] is False
    assert record["claims"][1]["measured"] == 4.0 and record["claims"][1]["holds"] is True


def test_a_result_edited_to_hold_is_refused(make_claim):
    text = report(make_claim(measured=1.0)).to_json().replace('"holds": false', '"holds": true')
    with pytest.raises(ValueError, match="says holds: True, but measured 1 against at least 2"):
        Report.from_json(text)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"slug": "fake", "claims": 3}'])
def test_a_record_of_something_else_is_refused(text):
    with pytest.raises(ValueError, match=r"not the record|Expecting"):
        Report.from_json(text)


def test_scales_rise_from_smoke_to_paper():
    assert sorted(Scale, key=lambda scale: scale.rank) == [Scale.SMOKE, Scale.CPU, Scale.PAPER]
