"""The report of a study: one page, drawn in a browser, that no name can break."""

import html
import importlib.util
import json
import re
import shutil
from pathlib import Path

import optuna
import pytest

from understudy.core.search import Constraint, Objective, Problem
from understudy.core.space import Categorical, Continuous, Integer, Space
from understudy.report.sentences import number
from understudy.report.study import write_study_report
from understudy.search.storage import Storage
from understudy.search.study import REASON, open_study

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
_spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
browser = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(browser)

HOSTILE = "<img src=x onerror=\"document.title='run'\">&lt;b&gt;"

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat")


@pytest.fixture
def make_study(tmp_path):
    """Return a function that makes a study of random trials of a known function."""

    def make(trials=24, objectives=1, constrained=True, names=("x", "k", "c"), failed=2):
        space = Space(
            (
                Continuous(names[0], 0.1, 10, unit="mm", log=True),
                Integer(names[1], 1, 6),
                Categorical(names[2], ("round", "flat", "square")),
            )
        )
        parts = (Objective("mass"), Objective("lift", "maximize"), Objective("cost"))[:objectives]
        constraints = (Constraint("stress", upper=4.0),) if constrained else ()
        problem = Problem(space, parts, constraints)
        study = open_study(
            Storage(f"{tmp_path}/study.db"),
            "wing",
            problem,
            sampler=optuna.samplers.RandomSampler(seed=0),
        )
        for i in range(trials):
            trial = study.optuna.ask(space.distributions())
            x, k, c = (trial.params[name] for name in names)
            if i < failed:
                trial.set_user_attr(REASON, "took longer than 2 s")
                study.optuna.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            mass = (x - 2) ** 2 + 0.3 * k + (c == "flat")
            found = {"mass": mass, "lift": x * k, "cost": 10.0 / x, "stress": 0.8 * k}
            trial.set_user_attr("outcomes", found)
            study.optuna.tell(trial, [found[part.name] for part in parts])
        return study

    return make


def data_of(path: Path):
    text = re.search(r'id="report-data">(.*?)</script>', path.read_text(), re.DOTALL)[1]
    return json.loads(text)


def test_the_report_says_what_is_best_and_what_failed(make_study, tmp_path) -> None:
    study = make_study()
    path = write_study_report(study, tmp_path / "study.html")
    text = path.read_text()
    best = study.best()
    assert path.stat().st_size < 6_000_000
    assert f"that satisfies the constraints is {number(best.outcomes['mass'], 5)}" in text
    assert f"of trial {best.number}." in text
    assert "<b>2 trials.</b> Took longer than 2 s" in text
    assert "default-src 'none'" in html.unescape(text)


def test_slices_go_through_the_best_trial_within_their_bands(make_study, tmp_path) -> None:
    study = make_study(trials=40)
    data = data_of(write_study_report(study, tmp_path / "study.html"))
    best = study.best()
    curves = [curve for curve in data["slices"] if curve["target"] == 0]
    assert {data["inputs"][curve["input"]]["name"] for curve in curves} == {"x", "k", "c"}
    for curve in curves:
        low, mean, high = (curve[name] for name in ("low", "mean", "high"))
        assert all(a <= b <= c for a, b, c in zip(low, mean, high, strict=True))
        assert curve["at"][1] == pytest.approx(best.outcomes["mass"])
    k = next(curve for curve in curves if data["inputs"][curve["input"]]["name"] == "k")
    at = k["x"].index(best.config["k"])
    assert k["mean"][at] == pytest.approx(best.outcomes["mass"], abs=0.3)


def test_the_input_that_matters_comes_first(make_study, tmp_path) -> None:
    data = data_of(write_study_report(make_study(trials=40), tmp_path / "study.html"))
    assert [part["name"] for part in data["outcomes"]] == ["mass", "stress"]
    assert data["sensitivity"]["inputs"][0][0] == 0
    assert data["sensitivity"]["inputs"][1][0] == 1
    assert data["sensitivity"]["total"][1][0] == pytest.approx(1.0, abs=0.05)


def test_a_study_without_results_says_so(make_study, tmp_path) -> None:
    path = write_study_report(make_study(trials=0), tmp_path / "study.html")
    assert "No trial has given a result yet." in path.read_text()


# -- in the browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    if not PROGRAM:
        pytest.skip("Chromium is not installed, so the report is not opened in a browser")
    running = browser.Browser(PROGRAM, tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


@pytest.fixture
def open_report(make_study, chromium, tmp_path):
    """Return a function that writes and opens the report of a study."""

    def open_(width=1280, **options):
        path = write_study_report(make_study(**options), tmp_path / "study.html")
        return browser.Page(chromium, path, width=width)

    return open_


def points(page, figure):
    return page.run(f"document.querySelectorAll('#{figure} .scatterlayer .point').length")


def choose(page, name, value):
    page.run(
        f"{{const s = document.getElementById('{name}'); s.value = {value};"
        "s.dispatchEvent(new Event('change'));}"
    )


@pytest.mark.slow
def test_every_figure_is_drawn_and_outcomes_can_be_chosen(open_report) -> None:
    page = open_report(objectives=2)
    assert page.run("document.documentElement.dataset.drawn") == "true"
    for figure in ("history", "front", "parallel", "slices", "sensitivity"):
        assert page.run(f"document.querySelectorAll('#{figure} .main-svg').length") >= 1, figure
    assert points(page, "history") == 24
    assert points(page, "front") == 22
    subject = "document.querySelector('#figure-history .subject').textContent"
    assert page.run(subject) == "mass"
    choose(page, "outcome", 2)
    assert page.run(subject) == "stress"
    assert page.run("document.querySelector('#figure-slices .subject').textContent") == "stress"
    assert page.messages == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in page.requests)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"trials": 3, "failed": 3}, {"trials": 0}, {"trials": 4}])
def test_studies_with_little_in_them_are_drawn(open_report, options) -> None:
    page = open_report(**options)
    assert page.run("document.documentElement.dataset.drawn") == "true"
    assert page.messages == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [420, 1280])
def test_the_page_is_no_wider_than_the_window_and_no_name_does_anything(open_report, width) -> None:
    page = open_report(width=width, objectives=3, names=(HOSTILE, "b" * 60, "c"))
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run("document.title") == "Study wing"
    assert page.run("document.querySelectorAll('img').length") == 0
    page.run("document.getElementById('theme').click()")
    assert page.pdf().startswith(b"%PDF")
    assert page.messages == []
