"""What the page asks of a service: slices, maps, runs, doubts, answers, and the page's files."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from understudy.core.space import Categorical, Continuous, Integer
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.fno import FNO
from understudy.models.operators.one_step import OneStepModel
from understudy.models.operators.training import Training
from understudy.models.tabular.fitted import FittedSurrogate
from understudy.serve.explorer import pages
from understudy.serve.explorer_doubt import doubts
from understudy.serve.explorer_grids import axis
from understudy.serve.explorer_inversion import Aim, distinct, invert, usual_tolerance
from understudy.serve.explorer_scales import scales
from understudy.serve.limits import Limits
from understudy.serve.operators import HostedOperator
from understudy.serve.optimum import Constraint, region

from .conftest import ROW, Answer, Service, wing

FOLDER = Path(__file__).parents[2] / "src/understudy/serve/explorer"


def ask(service: Service, what: str, **body: Any) -> Answer:
    return service.ask("POST", f"/v1/models/wing/{what}", body)


# -- slices and maps ------------------------------------------------------------------------------


def test_slices_agree_with_predictions_of_their_points(
    service: Service, surrogate: FittedSurrogate
) -> None:
    record = ask(service, "slices", at=ROW, points=5, level=0.8).record
    assert [each["input"] for each in record["slices"]] == ["angle", "speed", "profile"]
    for each in record["slices"]:
        table = wing(1)[["angle", "speed", "profile"]].loc[[0] * len(each["values"])]
        for name, value in {**ROW, each["input"]: each["values"]}.items():
            table[name] = value
        expected = surrogate.predict_table(table)
        for output, curve in each["outputs"].items():
            for key, column in {"mean": "mean", "lower": "lower_80", "upper": "upper_80"}.items():
                np.testing.assert_allclose(curve[key], expected[f"{output}_{column}"], rtol=1e-5)


def test_the_point_itself_comes_with_every_output(service: Service) -> None:
    record = ask(service, "slices", at=ROW, inputs=[], outputs=["lift"]).record
    assert record["slices"] == []
    assert set(record["predictions"]) == {"drag", "lift"}
    lift = record["predictions"]["lift"]
    assert lift["lower"] < lift["mean"] < lift["upper"]


def test_a_point_beyond_the_runs_is_named_and_reached_by_its_slice(service: Service) -> None:
    record = ask(service, "slices", at={**ROW, "speed": 80.0}, inputs=["speed"]).record
    assert record["extrapolation"] == "speed"
    assert max(record["slices"][0]["values"]) == 80.0


def test_axes_follow_the_kind_of_an_input() -> None:
    log = Continuous("k", 1e-3, 10.0, log=True)
    np.testing.assert_allclose(axis(log, 5, 1.0), [1e-3, 1e-2, 1e-1, 1.0, 10.0])
    np.testing.assert_allclose(axis(log, 3, -1.0), [1e-3, 1e-1, 10.0])
    assert axis(Integer("n", 1, 4), 41, 2.0).tolist() == [1, 2, 3, 4]
    assert axis(Categorical("c", ("a", "b", "c")), 41, 0.0).tolist() == [0, 1, 2]
    assert axis(Continuous("x", 0.0, 1.0), 3, -1.0).tolist() == [-1.0, 0.0, 1.0]


def test_a_map_has_a_row_for_each_value_of_y(service: Service, surrogate: FittedSurrogate) -> None:
    record = ask(service, "map", at=ROW, x="angle", y="profile", output="lift", points=4).record
    assert record["y"] == ["flat", "round", "slotted"]
    mean = np.reshape(record["mean"], (3, 4))
    row = {**ROW, "angle": record["x"][2], "profile": "slotted"}
    expected = service.predict({"rows": [row]}, "?levels=").record["predictions"][0]["lift_mean"]
    assert mean[2, 2] == pytest.approx(expected, rel=1e-5)
    assert all(low < high for low, high in zip(record["lower"], record["upper"], strict=True))


@pytest.mark.parametrize(
    ("what", "body", "field"),
    [
        ("slices", {"at": {**ROW, "speed": None}}, "at.speed"),
        ("slices", {"at": {"angle": 1.0, "speed": 20.0}}, "profile"),
        ("slices", {"at": ROW, "inputs": ["sped"]}, "inputs"),
        ("slices", {"at": ROW, "outputs": ["mass"]}, "outputs"),
        ("slices", {"at": ROW, "points": 1000}, "points"),
        ("slices", {"at": ROW, "level": 1.0}, "level"),
        ("slices", {"at": ROW, "more": 1}, "more"),
        ("map", {"at": ROW, "x": "angle", "y": "angle", "output": "lift"}, "y"),
        ("map", {"at": ROW, "x": "angle", "y": "speed", "output": "mass"}, "output"),
        ("map", {"at": ROW, "x": "angle", "y": "speed", "output": "lift", "points": 82}, "points"),
        ("doubt", {"fixed": {"sped": 1}}, "sped"),
        ("doubt", {"points": 0}, "points"),
        ("invert", {"output": "mass", "target": 1.0}, "output"),
        ("invert", {"output": "lift", "target": 1.0, "tolerance": 0.0}, "tolerance"),
        ("invert", {"output": "lift", "target": 1.0, "bounds": {"angle": [4, 3]}}, "angle"),
        (
            "invert",
            {"output": "lift", "target": 1.0, "constraints": [{"output": "drag"}]},
            "constraints[0]",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(
    service: Service, what: str, body: dict[str, Any], field: str
) -> None:
    answer = ask(service, what, **body)
    assert answer.status == 422
    assert answer.error["problems"][0]["field"].startswith(field)


def test_more_rows_than_a_request_may_have_are_refused(service: Service) -> None:
    body = {"at": ROW, "x": "angle", "y": "speed", "output": "lift", "points": 60}
    assert ask(service, "map", **body).status == 413


def test_runs_are_rows_of_the_training_table(service: Service, surrogate: FittedSurrogate) -> None:
    record = service.ask("GET", "/v1/models/wing/runs?most=7").record
    assert record["rows"] == len(surrogate.training)
    columns = record["columns"]
    assert set(columns) == {"angle", "speed", "profile", "drag", "lift"}
    known = set(surrogate.training["lift"].tolist())
    assert len(columns["lift"]) == 7 and set(columns["lift"]) <= known
    assert set(columns["profile"]) <= {"flat", "round", "slotted"}
    assert service.ask("GET", "/v1/models/wing/runs?most=100000").status == 422


# -- doubts and answers ---------------------------------------------------------------------------


def test_doubt_is_largest_at_the_points_named(surrogate: FittedSurrogate) -> None:
    everywhere = region(surrogate.space, {}, {})
    for j, each in enumerate(doubts(surrogate, everywhere, 0.9, points=3)):
        lower, upper = surrogate.intervals(each.widest, (0.9,))
        widths = (upper - lower)[0, :, j]
        assert (np.diff(widths) <= 0).all()
        assert widths[0] > each.typical
        assert [profile["input"] for profile in each.profiles] == ["angle", "speed", "profile"]


def test_doubt_keeps_what_is_fixed(service: Service) -> None:
    record = ask(service, "doubt", fixed={"profile": "flat"}, points=2).record
    lift = record["outputs"]["lift"]
    assert {point["inputs"]["profile"] for point in lift["widest"]} == {"flat"}
    assert [profile["input"] for profile in lift["profiles"]] == ["angle", "speed"]


def test_answers_reach_the_target_within_limits(service: Service) -> None:
    limit = {"output": "drag", "upper": 3.0}
    record = ask(service, "invert", output="lift", target=6.0, constraints=[limit]).record
    assert len(record["points"]) >= 2
    for point in record["points"]:
        assert point["reached"]
        assert abs(point["predictions"]["lift"]["mean"] - 6.0) <= record["tolerance"]
        assert point["predictions"]["drag"]["mean"] <= 3.0
    likely = [point["probability"] for point in record["points"]]
    assert likely == sorted(likely, reverse=True) and likely[0] > 0.9


def test_the_probability_of_an_answer_is_a_bound_from_the_marginals(
    surrogate: FittedSurrogate,
) -> None:
    everywhere = region(surrogate.space, {}, {})
    aim = Aim("lift", 6.0, 0.2, (Constraint("drag", upper=2.0),), everywhere)
    for answer in invert(surrogate, aim, points=3, seed=1):
        believed = surrogate.predictive(answer.codes[None])
        ends = torch.tensor([[[2.0, 5.8]], [[2.0, 6.2]]], dtype=torch.float64)
        cdf = believed.cdf(ends)[:, 0]
        bound = max(0.0, float(cdf[1, 1] - cdf[0, 1]) + float(cdf[0, 0]) - 1.0)
        assert answer.probability == pytest.approx(bound, abs=1e-6)


def test_a_target_out_of_reach_is_said_to_be(service: Service) -> None:
    (point,) = ask(service, "invert", output="lift", target=1e4).record["points"]
    assert not point["reached"] and point["probability"] == 0.0


def test_fixed_inputs_stay_and_bounds_hold(service: Service) -> None:
    body = {"fixed": {"profile": "round"}, "bounds": {"speed": [20, 30]}}
    for point in ask(service, "invert", output="lift", target=5.0, **body).record["points"]:
        assert point["inputs"]["profile"] == "round"
        assert 20 <= point["inputs"]["speed"] <= 30


def test_the_usual_tolerance_is_a_share_of_the_runs(surrogate: FittedSurrogate) -> None:
    lift = surrogate.training["lift"]
    found = usual_tolerance(surrogate, "lift")
    assert found == pytest.approx(0.02 * (lift.max() - lift.min()))


def test_distinct_points_are_the_worthiest_of_their_neighbourhood() -> None:
    U = torch.tensor([[0.1, 0.1], [0.12, 0.1], [0.9, 0.9], [0.5, 0.5]], dtype=torch.float64)
    worth = torch.tensor([1.0, 2.0, 0.5, 0.1], dtype=torch.float64)
    assert distinct(U, worth, 3).tolist() == [1, 2, 3]
    assert distinct(U, worth, 2).tolist() == [1, 2]


# -- operators ------------------------------------------------------------------------------------


def stepper(**options: Any) -> OneStepModel:
    torch.manual_seed(0)
    size = torch.tensor([1.0, 10.0]).reshape(1, 1, 2, 1)
    paths = 3.0 + size * torch.randn(64, 3, 2, 16)
    rate = 10 ** (2.0 * torch.rand(64, 1))
    plan = Training(steps=1, batch_size=4)
    model = OneStepModel(FNO(2, 2, (4,), 8, 1, 16, num_params=1), **options)
    return model.fit(paths, rate, dt=0.1, channels=["h", "v"], parameters=["rate"], training=plan)


def test_scales_are_those_of_the_fields_and_parameters_trained_on() -> None:
    found = scales(HostedOperator("waves", stepper(parameter_scaling="log"), Limits()))
    assert [each["name"] for each in found["fields"]] == ["h", "v"]
    np.testing.assert_allclose([f["mean"] for f in found["fields"]], [3, 3], atol=1.0)
    np.testing.assert_allclose([f["sd"] for f in found["fields"]], [1, 10], rtol=0.1)
    (rate,) = found["parameters"]
    assert 0.5 < rate["lower"] < 2.0 and 50.0 < rate["upper"] < 200.0


def test_scales_of_what_changes_no_units_are_plain() -> None:
    model = stepper(parameter_scaling="none", scale_fields=False)
    found = scales(HostedOperator("waves", model, Limits()))
    assert [(f["mean"], f["sd"]) for f in found["fields"]] == [(0, 1), (0, 1)]
    assert found["parameters"] == [{"name": "rate", "lower": 0.0, "upper": 1.0}]


def test_scales_of_a_map_are_of_what_it_is_given() -> None:
    torch.manual_seed(0)
    given = 5.0 + 2.0 * torch.randn(32, 1, 16)
    solver = FieldMap(FNO(1, 1, (4,), 8, 1, 16))
    solver.fit(given, given**2, inputs=["source"], training=Training(steps=1, batch_size=4))
    (field,) = scales(HostedOperator("poisson", solver, Limits()))["fields"]
    assert (field["name"], field["mean"]) == ("source", pytest.approx(5.0, abs=0.3))
    assert field["sd"] == pytest.approx(2.0, rel=0.2)


def test_a_table_has_no_scales_of_fields(service: Service) -> None:
    assert service.ask("GET", "/v1/models/wing/scales").status == 404
    assert service.ask("GET", "/v1/models/none/scales").status == 404


# -- the page's own files -------------------------------------------------------------------------


def test_the_page_needs_no_token_and_carries_a_strict_policy(service: Service) -> None:
    for address in pages():
        answer = service.ask("GET", address, token=None)
        assert answer.status == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "address",
    ["/explorer/", "/explorer/index.html", "/explorer/../guard.py", "/explorer/%2e%2e/guard.py"],
)
def test_nothing_else_lies_under_the_page(service: Service, address: str) -> None:
    assert service.ask("GET", address).status == 404
    assert service.ask("GET", address, token=None).status == 401


@pytest.mark.parametrize("what", ["slices", "map", "doubt", "invert"])
def test_what_the_page_asks_needs_the_token(service: Service, what: str) -> None:
    assert service.ask("POST", f"/v1/models/wing/{what}", {}, token=None).status == 401
    assert service.ask("GET", "/v1/models/wing/runs", token=None).status == 401


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere() -> None:
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\bsrc=)", html) == []
    assert re.findall(r"\s(?:style|on\w+)=", html) == []
    for file in FOLDER.iterdir():
        text = file.read_text(encoding="utf-8")
        assert (
            re.findall(r"https?://|//cdn|innerHTML|outerHTML|insertAdjacentHTML|eval\(", text) == []
        )


def test_every_module_that_is_imported_is_served() -> None:
    for file in FOLDER.glob("*.js"):
        for name in re.findall(r'from "\./([\w.]+)"', file.read_text(encoding="utf-8")):
            assert f"/explorer/{name}" in pages()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_every_module_is_sound_javascript() -> None:
    for file in FOLDER.glob("*.js"):
        checked = subprocess.run(["node", "--check", file], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
