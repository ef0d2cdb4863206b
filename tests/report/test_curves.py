import json
import re

import numpy as np
import pytest

from understudy.report.curves import MOST_DRAWN, summary, write_curves_report
from understudy.search.curve_table import outlooks

RISING = 0.8 - 0.5 * np.arange(1, 13) ** -0.7
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def told():
    return outlooks({"done": np.append(RISING, [0.75] * 8), HOSTILE: 0.5 * RISING, "good": RISING})


@pytest.fixture(scope="module")
def page(told, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "curves.html"
    write_curves_report(told, path, source="runs & co.csv", horizon=20, minimize=False, delta=0.05)
    return path.read_text()


def data_of(page):
    return json.loads(re.search(r'id="report-data">(.*?)</script>', page).group(1))


def test_the_page_draws_observed_values_and_bands_in_order(page, told):
    curves = data_of(page)["curves"]
    assert [curve["name"] for curve in curves] == ["done", HOSTILE, "good"]
    assert curves[0]["epochs"] == [] and len(curves[2]["observed"]) == 12
    low, high, lower, higher = np.array(curves[2]["bands"], dtype=float)
    assert ((lower <= low) & (low <= high) & (high <= higher)).all()
    assert curves[2]["epochs"] == list(range(13, 21)) and len(curves[2]["median"]) == 8


def test_names_cannot_run_and_nothing_is_loaded(page):
    assert HOSTILE not in page and "runs &amp; co.csv" in page
    head = page.split("<style>")[0]
    assert "default-src &#39;none&#39;" in head and "connect-src" not in head


def test_a_summary_says_what_to_do_with_each_run(told):
    lines = {line["curve"]: line for line in summary(told, delta=0.05)}
    assert lines["done"]["verdict"] == "complete" and lines["done"]["median"] is None
    assert lines[HOSTILE]["verdict"] == "stop" and lines[HOSTILE]["chance"] <= 0.05
    assert lines["good"]["lower"] < lines["good"]["median"] < lines["good"]["upper"]


def test_very_many_curves_are_not_all_drawn(tmp_path):
    many = outlooks({f"run {k}": RISING[:3] for k in range(MOST_DRAWN + 2)}, horizon=6)
    path = write_curves_report(
        many, tmp_path / "many.html", source="many", horizon=6, minimize=False, delta=0.05
    )
    page = path.read_text()
    assert len(data_of(page)["curves"]) == MOST_DRAWN
    assert f"The first {MOST_DRAWN} of {MOST_DRAWN + 2}" in page
