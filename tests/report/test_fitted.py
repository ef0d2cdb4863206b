"""The report of a surrogate that was really fitted, saved and loaded."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from understudy.models.tabular.fit import fit
from understudy.models.tabular.fitted import FittedSurrogate
from understudy.report import write_report


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    generator = np.random.default_rng(0)
    runs = pd.DataFrame(
        {
            "load": generator.uniform(1, 5, 80),
            "layers": generator.integers(1, 5, 80),
            "support": generator.choice(["pinned", "clamped"], 80),
        }
    )
    runs["deflection"] = runs.load**2 / runs.layers + 0.01 * generator.normal(size=80)
    model = fit(runs, "deflection", test=0.25, members=["polynomial"], budget=20)
    model.sensitivity(n=64)
    model.save(folder / "beam.us")
    loaded = FittedSurrogate.load(folder / "beam.us")
    return write_report(loaded, folder / "beam.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def data(source):
    return json.loads(re.search(r'id="report-data">(.*?)</script>', source, re.S)[1])


def test_a_loaded_surrogate_has_a_report_with_every_section(source):
    for heading in ("Verdict", "How good it is", "What it has learnt", "Models compared"):
        assert f">{heading}</h2>" in source
    assert "Learnt from 60 runs" in source


def test_rows_of_a_loaded_surrogate_keep_their_inputs(data):
    validation = next(s for s in data["splits"] if s["name"] == "cross-validation")
    assert len(validation["x"]) == 3
    assert set(validation["x"][2]) == {"pinned", "clamped"}
    assert None not in validation["x"][0]


def test_no_input_is_made_of_the_numbers_of_rows(data):
    assert [item["name"] for item in data["inputs"]] == ["load", "layers", "support"]


def test_sensitivities_and_slices_cover_every_input(data):
    assert sorted(data["sensitivity"]["inputs"][0]) == [0, 1, 2]
    assert sorted(curve["input"] for curve in data["slices"]) == [0, 1, 2]
