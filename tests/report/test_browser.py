"""The report as a reader sees it: opened in headless Chromium."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from understudy.report import write_report

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

pytestmark = pytest.mark.skipif(
    not PROGRAM, reason="Chromium is not installed, so the report is not opened in a browser"
)

_spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
browser = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(browser)

HOSTILE = "<img src=x onerror=\"document.title='run'\">&lt;b&gt;"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    running = browser.Browser(PROGRAM, tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def open_report(make_surrogate, chromium, tmp_path_factory):
    """Return a function that writes and opens the report of a known surrogate."""

    def open_(dark=False, width=1280, **options):
        path = tmp_path_factory.mktemp("report") / "report.html"
        write_report(make_surrogate(**options), path)
        return browser.Page(chromium, path, width=width, dark=dark)

    return open_


@pytest.fixture(scope="module")
def page(open_report):
    return open_report()


def choose(page, name, value):
    page.run(
        f"{{const s = document.getElementById('{name}'); s.value = {value};"
        "s.dispatchEvent(new Event('change'));}"
    )


def points(page, figure):
    return page.run(f"document.querySelectorAll('#{figure} .scatterlayer .point').length")


def test_every_figure_is_drawn_without_a_complaint(page):
    assert page.run("document.documentElement.dataset.drawn") == "true"
    drawn = (
        "[...document.querySelectorAll('.canvas')].map(c => c.querySelectorAll('.main-svg').length)"
    )
    assert all(count >= 1 for count in page.run(drawn))
    assert page.run("document.querySelectorAll('.main-svg').length") >= 7
    assert page.messages == []


def test_parity_shows_every_test_row_with_its_error_bar(page):
    assert points(page, "parity") == 60
    assert page.run("document.querySelectorAll('#parity .errorbar').length") == 60


def test_nothing_but_the_file_is_asked_for(page):
    elsewhere = [url for url in page.requests if not url.startswith(("file:", "data:", "blob:"))]
    assert elsewhere == []


def test_choosing_an_output_redraws_the_figures_for_it(page):
    subject = "document.querySelector('#figure-{} .subject').textContent"
    choose(page, "target", 1)
    assert page.run(subject.format("parity")) == "moment"
    assert page.run(subject.format("slices")) == "moment"
    choose(page, "target", 0)
    assert page.run(subject.format("parity")) == "deflection"


def test_residuals_can_be_seen_against_an_input(page):
    choose(page, "split", 1)
    choose(page, "input", 3)
    axis = page.run("document.querySelector('#residuals .xtitle').textContent")
    assert axis == "support"
    assert points(page, "residuals") == 150


def test_the_toggle_turns_page_and_figures_dark_and_back(page):
    paper = "getComputedStyle(document.body).backgroundColor"
    tick = "getComputedStyle(document.querySelector('#parity .xtick text')).fill"
    light = page.run(paper), page.run(tick)
    page.run("document.getElementById('theme').click()")
    dark = page.run(paper), page.run(tick)
    page.run("document.getElementById('theme').click()")
    assert light != dark
    assert dark[0] != light[0] and dark[1] != light[1]
    assert (page.run(paper), page.run(tick)) == light


def test_a_reader_who_prefers_dark_gets_dark(open_report):
    dark = open_report(dark=True)
    assert dark.run("document.documentElement.dataset.theme") == "dark"
    assert dark.run("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 28)"
    assert dark.messages == []


def test_text_stands_out_from_the_paper_in_both_themes(page):
    ratio = """(() => {
      const light = (name) => {
        const style = getComputedStyle(document.documentElement);
        const hex = style.getPropertyValue(name).trim();
        const part = (i) => parseInt(hex.slice(i, i + 2), 16) / 255;
        const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        return 0.2126 * linear(part(1)) + 0.7152 * linear(part(3)) + 0.0722 * linear(part(5));
      };
      const paper = ['--paper', '--surface'].map(light);
      const ink = ['--ink', '--muted', '--accent', '--signal', '--good'].map(light);
      return Math.min(...ink.flatMap((a) => paper.map((b) =>
        (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05))));
    })()"""
    assert page.run(ratio) >= 4.5
    page.run("document.getElementById('theme').click()")
    assert page.run(ratio) >= 4.5
    page.run("document.getElementById('theme').click()")


def test_printing_gives_pages_and_leaves_the_screen_as_it_was(page):
    before = page.run("document.documentElement.dataset.theme")
    pdf = page.pdf()
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 20_000
    page.wait_for(f"document.documentElement.dataset.theme === '{before}'")
    page.wait_for("document.getElementById('main').style.width === ''")
    assert page.messages == []


def test_residuals_against_a_category_have_its_choices_as_ticks(page):
    choose(page, "split", 1)
    choose(page, "input", 3)
    ticks = "[...document.querySelectorAll('#residuals .xtick text')].map(t => t.textContent)"
    assert page.run(ticks) == ["clamped", "free", "pinned"]
    assert points(page, "residuals") == 150
    choose(page, "input", -1)
    choose(page, "split", 0)
    assert page.messages == []


def test_choices_with_little_room_are_shortened_and_stay_apart(open_report):
    page = open_report(width=420)
    ticks = page.run(
        "[...document.querySelectorAll('#slices .xtick text')].map(t => t.textContent)"
    )
    assert "free" in ticks
    assert points(page, "slices") >= 3
    assert page.messages == []


@pytest.mark.parametrize("width", [420, 1280])
def test_the_page_is_no_wider_than_the_window(open_report, width):
    names = [f"a_very_long_name_without_any_space_in_it_{i}" * 2 for i in range(8)]
    page = open_report(width=width, inputs=names, targets=[f"y_{name}" for name in names[:2]])
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.messages == []


def test_twenty_six_outputs_are_drawn_one_at_a_time(open_report):
    page = open_report(targets=[f"output {j}" for j in range(26)], rows=400)
    assert page.run("document.getElementById('target').options.length") == 26
    assert points(page, "parity") == 60
    assert page.messages == []


def test_one_input_one_output_and_no_sensitivities_are_drawn(open_report):
    page = open_report(inputs=("x",), targets=("y",), test_rows=0, with_sensitivity=False)
    assert page.run("document.querySelectorAll('.canvas .main-svg').length") >= 5
    assert page.messages == []


def test_a_hostile_name_does_nothing_in_the_browser(open_report):
    page = open_report(inputs=(HOSTILE, "b", "c", "d"), targets=(f"y{HOSTILE}", "z"))
    assert page.run("document.title") != "run"
    assert page.run("document.querySelectorAll('img').length") == 0
    label = page.run("document.querySelector('#figure-parity .subject').textContent")
    assert label == f"y{HOSTILE}"
    ticks = page.run(
        "[...document.querySelectorAll('#sensitivity .ytick text')].map(t => t.textContent)"
    )
    assert any(tick.startswith("<img src=x") for tick in ticks)
    assert page.messages == []
