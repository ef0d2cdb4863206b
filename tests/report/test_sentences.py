import math

import pytest

from understudy.report.sentences import (
    duration,
    listed,
    number,
    overview,
    percent,
    score,
    verdict,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.98123, "0.981"),
        (-0.3, "-0.300"),
        (12.34, "12.3"),
        (1234.5, "1,234"),
        (0.99996, "1.00"),
        (4.2e-7, "4.20e-7"),
        (3.1e8, "3.10e8"),
        (0, "0"),
        (math.nan, "–"),
        (None, "–"),
    ],
)
def test_numbers_keep_three_digits(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.9, "90 %"),
        (0.996, "99.6 %"),
        (0.99987, "99.99 %"),
        (1.0, "100 %"),
        (1 - 1e-9, "> 99.999 %"),
        (-2.5, "-250 %"),
        (math.nan, "–"),
    ],
)
def test_percentages_say_100_only_where_it_is(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("r2", "text"),
    [(0.981, "0.981"), (0.99963, "0.9996"), (1 - 1e-9, "> 0.999999"), (1.0, "1.00"), (-2, "-2.00")],
)
def test_r2_keeps_its_nines(r2, text):
    assert score(r2) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "< 1 ms"),
        (0.0123, "12 ms"),
        (4.24, "4.2 s"),
        (42.4, "42 s"),
        (59.9, "1 min"),
        (185, "3 min 5 s"),
        (7450, "2 h 4 min"),
        (None, "–"),
    ],
)
def test_durations_read_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_names_in_a_row():
    assert listed(["a"]) == "a"
    assert listed(["a", "b"]) == "a and b"
    assert listed(["a", "b", "c", "d"]) == "a, b and 2 more"


def scores(**changes):
    line = {"target": "lift", "split": "test", "rows": 120, "r2": 0.98, "coverage_90": 0.91}
    return line | changes


def test_a_good_output_is_described_in_plain_words():
    found = verdict(scores())
    assert found.grade == "strong"
    assert found.accuracy == "98 % of the variance explained"
    assert found.intervals == "90 % intervals held 91 % of 120 unseen runs"


def test_cross_validated_rows_are_not_called_unseen_runs():
    assert verdict(scores(split="cross-validation")).intervals.endswith("runs left out in turn")


@pytest.mark.parametrize(
    ("r2", "grade"),
    [(0.95, "strong"), (0.8, "good"), (0.5, "partial"), (0.1, "weak"), (-1, "poor")],
)
def test_grades_follow_r2(r2, grade):
    assert verdict(scores(r2=r2)).grade == grade


def test_intervals_are_called_narrow_only_where_chance_does_not_explain_it():
    assert verdict(scores(coverage_90=0.7)).intervals.endswith("so they are too narrow")
    assert "narrow" not in verdict(scores(coverage_90=0.7, rows=10)).intervals
    assert verdict(scores(coverage_90=1.0)).intervals.endswith("wider than need be")
    assert "wide" not in verdict(scores(coverage_90=1.0, rows=10)).intervals


def test_among_many_outputs_a_single_doubtful_one_is_not_blamed():
    doubtful = scores(coverage_90=0.84)
    assert "narrow" in verdict(doubtful).intervals
    assert "narrow" not in verdict(doubtful, outputs=26).intervals


def test_many_outputs_are_summed_up_from_the_worst_to_the_best():
    lines = [scores(target=t, r2=r2) for t, r2 in [("a", 0.9), ("b", 0.2), ("c", 0.7)]]
    text = overview(lines)
    assert "between 0.200 (b) and 0.900 (a), with a median of 0.700" in text
    assert "held 91 % of the unseen runs" in text
