"""The page of a calibration shows draws, predictions and warnings, and runs nothing foreign."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from understudy.core.space import Continuous, Space
from understudy.report.calibration import write_calibration_report
from understudy.search.calibrate import calibrate
from understudy.search.priors import Uniform

HOSTILE = "<img src=x onerror=alert(1)>"


class Two:
    """Two outputs at three times; the second parameter has no effect."""

    space = Space((Continuous("slope", 0.0, 2.0), Continuous(HOSTILE, 0.0, 1.0)))
    outputs = ("up", "down")
    group = torch.tensor([0, 1] * 3)

    def __call__(self, theta):
        t = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
        up = theta[:, :1] * t + 0.0 * theta[:, 1:]
        mean = torch.stack([up, -up], -1).reshape(len(theta), -1)
        return mean, torch.zeros_like(mean)


@pytest.fixture(scope="module")
def found():
    y = torch.tensor([1.0, -1.0, 2.0, -2.0, 3.0, -3.0], dtype=torch.float64)
    priors = {"slope": Uniform(0.0, 2.0), HOSTILE: Uniform(0.0, 1.0)}
    return calibrate(Two(), y, priors, {"up": 0.1, "down": 0.1}, samples=40, burn_in=20)


@pytest.fixture(scope="module")
def page(found, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_calibration_report(
        found,
        path,
        source="a & b.csv",
        model="m.us",
        outputs=("up", "down"),
        along=("time", [1, 2, 3]),
    )
    return path.read_text(encoding="utf-8")


def test_each_output_is_drawn_over_time_with_its_own_values(page):
    data = json.loads(re.search(r'id="report-data">(.*?)</script>', page).group(1))
    up, down = data["predictions"]
    assert (up["output"], up["along"], up["x"]) == ("up", "time", [1.0, 2.0, 3.0])
    assert up["y"] == [1.0, 2.0, 3.0] and down["y"] == [-1.0, -2.0, -3.0]
    assert (np.array(down["lower"]) < np.array(down["upper"])).all()
    assert sum(data["corner"]["histograms"][0]["count"]) == 160


def test_what_is_not_identified_is_said_and_names_cannot_run(page):
    assert "is not identified" in page
    assert HOSTILE not in page and "a &amp; b.csv" in page


def test_an_error_that_is_known_is_told(found, tmp_path):
    told = replace(found, error="error of the surrogate in 20 runs: up 0.1, 1 of the noise")
    kinds = {"source": "a", "model": "b", "outputs": ("up", "down")}
    page = write_calibration_report(told, tmp_path / "page.html", **kinds).read_text("utf-8")
    assert "Error of the surrogate in 20 runs: up 0.1, 1 of the noise." in page
    assert "Kaipio" in page
    without = write_calibration_report(found, tmp_path / "page.html", **kinds).read_text("utf-8")
    assert "Kaipio" not in without
