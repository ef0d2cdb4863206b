import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest

from understudy.data.table import Note
from understudy.report import write_report

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


class Page(HTMLParser):
    """Elements with their attributes, and the text outside of scripts and styles."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.text, self._inside = [], "", ""
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, text):
        if self._inside not in ("script", "style"):
            self.text += text

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def report(make_surrogate, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "beam.html"
    return write_report(make_surrogate(), path)


@pytest.fixture(scope="module")
def page(report):
    return Page(report.read_text(encoding="utf-8"))


def write(model, tmp_path):
    return write_report(model, tmp_path / "model.html").read_text(encoding="utf-8")


def test_the_report_is_one_file_below_six_megabytes(report):
    assert [path.name for path in report.parent.iterdir()] == ["beam.html"]
    assert report.stat().st_size < 6_000_000


def test_a_report_of_many_outputs_stays_below_six_megabytes(make_surrogate, tmp_path):
    model = make_surrogate(
        inputs=[f"a rather long name of input {i}" for i in range(45)],
        targets=[f"a rather long name of output {j}" for j in range(26)],
        rows=600,
        test_rows=200,
    )
    assert len(write(model, tmp_path)) < 6_000_000


def test_nothing_is_loaded_from_elsewhere(page):
    loaded = ("src", "srcset", "data", "action")
    assert not [a for _, a in page.elements if any(name in a for name in loaded)]
    assert [link["href"] for link in page.all("link")] == ["data:,"]


def test_the_policy_allows_no_connection_and_only_the_page_s_own_scripts(page):
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("style-src")[0]


def test_the_first_thing_said_is_what_was_learnt_from_what(page):
    text = " ".join(page.text.split())
    start = text.index("Surrogate of deflection and moment Learnt from 150 runs of runs.csv")
    order = ["Verdict", "Warnings about the data", "How good it is", "Models compared"]
    places = [text.index(heading, start) for heading in order]
    assert places == sorted(places)


def test_verdicts_warnings_and_models_are_in_the_text(page):
    text = " ".join(page.text.split())
    assert re.search(r"deflection: 9\d % of the variance explained; 90 % intervals held", text)
    assert "3 rows occur more than once and were dropped." in text
    assert "stopped: behind after one fold" in text
    assert "exact GP 70 %, deep ensemble 30 %" in text


def test_every_table_has_a_caption_and_header_cells(page):
    tables = len(page.all("table"))
    assert tables >= 5
    assert len(page.all("caption")) == tables
    assert all("scope" in attributes for attributes in page.all("th"))


def test_every_figure_has_words_for_those_who_do_not_see_it(page):
    canvases = [a for a in page.all("div") if a.get("class") == "canvas"]
    assert len(canvases) == 7
    assert all(a["role"] == "img" and a["aria-label"] for a in canvases)


def test_headings_go_down_one_level_at_a_time(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert set(levels[1:]) == {2}


def test_a_hostile_name_stays_a_name(make_surrogate, tmp_path):
    model = make_surrogate(inputs=(f"in{HOSTILE}", "b"), targets=(f"out{HOSTILE}", "z"))
    note = Note("x", (), f"Column {HOSTILE!r} is odd.", 1, "warning")
    model = dataclasses.replace(
        model, notes=(note,), settings={**model.settings, "source": f"{HOSTILE}.csv"}
    )
    source = write(model, tmp_path)
    page = Page(source)
    assert not page.all("img")
    assert len(page.all("script")) == 3
    assert not [a for _, a in page.elements if any(name.startswith("on") for name in a)]
    assert f"out{HOSTILE}" in page.text


def test_a_name_cannot_end_the_data(make_surrogate, tmp_path):
    model = make_surrogate(inputs=("a", "b"), targets=("</script><script>alert(1)", "\u2028z"))
    source = write(model, tmp_path)
    data = re.search(r'id="report-data">(.*?)</script>', source, re.S)[1]
    assert "<" not in data
    assert json.loads(data)["targets"] == ["</script><script>alert(1)", "\u2028z"]


def test_the_python_example_is_python_whatever_the_names(make_surrogate, tmp_path):
    model = make_surrogate(inputs=("it's", 'a "b"', "c\\d", "e\nf"))
    page = Page(write(model, tmp_path))
    example = re.search(r"import pandas.*?print\(.*?\)\n", page.text, re.S)[0]
    compile(example, "example", "exec")


def test_without_test_rows_the_report_rests_on_cross_validation(make_surrogate, tmp_path):
    page = Page(write(make_surrogate(test_rows=0), tmp_path))
    text = " ".join(page.text.split())
    assert re.search(r"Judged on ?cross-validation", text)
    assert "runs left out in turn" in text
    assert "unseen runs;" not in text


def test_without_sensitivities_the_report_says_how_to_get_them(make_surrogate, tmp_path):
    page = Page(write(make_surrogate(with_sensitivity=False), tmp_path))
    assert "model.sensitivity()" in page.text
    assert not [a for a in page.all("div") if a.get("id") == "sensitivity"]


def test_one_input_and_one_output_are_enough(make_surrogate, tmp_path):
    page = Page(write(make_surrogate(inputs=("x",), targets=("y",)), tmp_path))
    assert "1 input, 1 output" in " ".join(page.text.split())


def test_many_outputs_start_with_the_weakest(make_surrogate, tmp_path):
    model = make_surrogate(targets=[f"t{j}" for j in range(9)])
    page = Page(write(model, tmp_path))
    weakest = model.evaluation.query("split == 'test'").sort_values("r2")["target"].iloc[0]
    verdicts = page.text[page.text.index("with a median of") :]
    assert re.search(r"\b(t\d): ", verdicts)[1] == weakest
    assert "The other 3 outputs" in page.text


def test_hundreds_of_outputs_still_fit(make_surrogate, tmp_path):
    model = make_surrogate(inputs=("a", "b"), targets=[f"t{j}" for j in range(300)], rows=30)
    source = write(model, tmp_path)
    assert len(source) < 6_000_000
    assert "The 200 weakest of 300 outputs." in source
    assert "Figures show the first 60 outputs" in source
