import math
from xml.etree import ElementTree

import pytest

from understudy.reproduce import Report, Scale
from understudy.reproduce.figures import claims_figure

SVG = "{http://www.w3.org/2000/svg}"


def draw(*claims) -> ElementTree.Element:
    report = Report(
        slug="fake",
        scale=Scale.CPU,
        seed=0,
        claims=claims,
        versions={},
        hardware={},
        seconds=1.0,
    )
    return ElementTree.fromstring(claims_figure(report))


def dots(figure):
    return figure.findall(f"{SVG}circle")


def line(figure, kind):
    return figure.find(f"{SVG}line[@class='{kind}']")


def words(figure):
    return " ".join(text.text or "" for text in figure.iter(f"{SVG}text"))


def test_the_title_counts_the_claims_that_hold(make_claim):
    figure = draw(make_claim(), make_claim(measured=1.0))
    assert "fake: 1 of 2 claims hold at cpu scale" in words(figure)


@pytest.mark.parametrize(("measured", "right"), [(2.5, True), (1.5, False)])
def test_a_dot_is_on_its_side_of_the_bar(make_claim, measured, right):
    figure = draw(make_claim(measured=measured))
    [dot] = dots(figure)
    assert (float(dot.get("cx")) > float(line(figure, "bar").get("x1"))) is right


def test_the_shaded_part_is_where_the_claim_holds(make_claim):
    above, below = draw(make_claim()), draw(make_claim(direction="at most"))
    for figure, sign in ((above, 1), (below, -1)):
        side = line(figure, "side")
        assert sign * (float(side.get("x2")) - float(side.get("x1"))) > 0


def test_a_verdict_is_told_in_words_and_not_by_colour_alone(make_claim):
    assert "does not hold" in words(draw(make_claim(measured=1.0)))
    assert "does not hold" not in words(draw(make_claim()))


@pytest.mark.parametrize("measured", [math.nan, math.inf])
def test_a_measurement_that_is_not_finite_has_no_dot(make_claim, measured):
    figure = draw(make_claim(measured=measured))
    assert not dots(figure) and "does not hold" in words(figure)


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-12, 1e12])
def test_everything_drawn_is_inside_the_picture(make_claim, value):
    figure = draw(make_claim(measured=value, bar=value, spread=abs(value)))
    width, height = map(float, figure.get("viewBox").split()[2:])
    assert all(0 <= float(dot.get("cx")) <= width for dot in dots(figure))
    assert all(0 <= float(text.get("y")) <= height for text in figure.iter(f"{SVG}text"))


def test_markup_in_a_statement_stays_text(make_claim):
    assert "<b>a & b</b>" in words(draw(make_claim(statement="<b>a & b</b>")))


def test_the_figure_needs_nothing_from_elsewhere(make_claim):
    figure = draw(make_claim())
    assert not [e for e in figure.iter() if any("href" in key for key in e.attrib)]
    assert "url(" not in figure.find(f"{SVG}style").text
