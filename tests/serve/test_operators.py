"""Operators over HTTP: rollouts with what is known of their error, and what is refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from understudy.core import artifact
from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.fno import FNO
from understudy.models.operators.one_step import OneStepModel
from understudy.models.operators.pde_refiner import PDERefiner
from understudy.models.operators.stored import load_operator
from understudy.models.operators.training import Training
from understudy.serve.formats import JSON, NPZ, to_npz
from understudy.serve.limits import Limits
from understudy.serve.operators import load_operators

from .conftest import Service, started

POINTS = 16


def wave(runs: int, times: int = 4) -> torch.Tensor:
    x = torch.arange(POINTS) / POINTS
    phase = torch.rand(runs, 1, 1, 1) + 0.05 * torch.arange(times).reshape(1, -1, 1, 1)
    return torch.sin(2 * torch.pi * (x + phase))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A step with parameters and known errors, a refined step, and a map."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("fields")
    paths, speed, plan = wave(6), torch.rand(6, 1) + 0.5, Training(steps=3, batch_size=4)
    grid = Grid.of(POINTS)
    plain = OneStepModel(FNO(1, 1, (4,), 8, 2, 16, num_params=1), parameter_scaling="log")
    plain.fit(paths, speed, dt=0.1, grid=grid, parameters=["speed"], training=plan)
    plain.test_errors = (0.1, 0.2)
    refined = PDERefiner(FNO(2, 1, (4,), 8, 2, 16, num_params=1))
    refined.fit(paths, dt=0.1, grid=grid, training=plan)
    solver = FieldMap(FNO(1, 1, (4,), 8, 2, 16))
    solver.fit(paths[:, 0], paths[:, 1], grid=grid, inputs=["source"], training=plan)
    return [
        each.save(folder / f"{name}.us")
        for name, each in (("plain", plain), ("refined", refined), ("poisson", solver))
    ]


@pytest.fixture(scope="module")
def fields(files: list[Path], model: Path) -> Iterator[Service]:
    running = started(model, *files)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def roll(service: Service, name: str, query: str, body: Any, kind: str = JSON) -> Any:
    return service.ask("POST", f"/v1/models/{name}/{query}", body, {"Content-Type": kind}, None)


def test_models_and_operators_are_listed_and_described(fields: Service) -> None:
    names = fields.ask("GET", "/v1/models", token=None).record
    assert names == {"models": ["wing"], "operators": ["plain", "refined", "poisson"]}
    told = fields.ask("GET", "/v1/models/plain", token=None).record
    assert (told["kind"], told["parameters"], told["dt"]) == ("operator", ["speed"], 0.1)
    assert told["test_errors"] == [0.1, 0.2]
    assert told["grid"]["shape"] == [POINTS]


def test_a_rollout_is_that_of_the_operator(fields: Service, files: list[Path]) -> None:
    start = wave(1)[0, 0]
    body = {"fields": start.tolist(), "parameters": {"speed": 0.7}}
    found = roll(fields, "plain", "rollout?steps=3", body).record
    wanted = load_operator(files[0]).rollout(start[None], 3, torch.tensor([[0.7]]))
    assert np.shape(found["fields"]) == (1, 1, 4, 1, POINTS)
    np.testing.assert_allclose(found["fields"], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["times"], [0.0, 0.1, 0.2, 0.3])
    assert found["test_error"] == [0.1, 0.2, None]


def test_runs_together_come_and_go_as_npz(fields: Service, files: list[Path]) -> None:
    start, speed = wave(5)[:, 0], torch.rand(5, 1) + 0.5
    body = to_npz({"fields": start.numpy(), "parameters": speed.numpy()})
    answer = roll(fields, "plain", "rollout?steps=2", body, NPZ)
    assert (answer.status, answer.headers["content-type"]) == (200, NPZ)
    with np.load(io.BytesIO(answer.body), allow_pickle=False) as found:
        wanted = load_operator(files[0]).rollout(start, 2, speed)
        np.testing.assert_allclose(found["fields"], wanted, rtol=1e-5, atol=1e-6)
        assert np.array_equal(found["test_error"], [0.1, 0.2])


def test_samples_say_until_when_they_agree(fields: Service) -> None:
    body = {"fields": wave(1)[0, 0].tolist()}
    found = roll(fields, "refined", "rollout?steps=5&samples=4&seed=3", body).record
    assert np.shape(found["fields"]) == (1, 4, 6, 1, POINTS)
    assert np.shape(found["spread"]) == (1, 5)
    assert all(value > 0 for value in found["spread"][0])
    assert 0 < found["reliable_until"][0] <= 0.5
    again = roll(fields, "refined", "rollout?steps=5&samples=4&seed=3", body).record
    assert again == found


def test_a_map_gives_its_solution(fields: Service, files: list[Path]) -> None:
    source = wave(2)[:, 0]
    found = roll(fields, "poisson", "solution", {"fields": source.tolist()}).record
    wanted = load_operator(files[2]).predict(source)
    np.testing.assert_allclose(found["fields"], wanted, rtol=1e-5, atol=1e-6)


FLAT = [[0.0] * POINTS]


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({}, "fields", "is missing"),
        ({"fields": FLAT, "nu": 1}, "nu", "is no part"),
        ({"fields": [[0.0] * 9], "parameters": {"speed": 1}}, "fields", "is expected"),
        ({"fields": [[0.0] * 9, [1.0]]}, "fields", "no array of numbers"),
        ({"fields": "sine"}, "fields", "no array of numbers"),
        ({"fields": [["a"] * POINTS]}, "fields", "no array of numbers"),
        ({"fields": []}, "fields", "no array of numbers"),
        ({"fields": [[1e300] * POINTS], "parameters": {"speed": 1}}, "fields", "too large"),
        ({"fields": [[float("nan")] * POINTS], "parameters": {"speed": 1}}, "fields", "NaN"),
        ({"fields": FLAT}, "parameters", "needed are speed"),
        ({"fields": FLAT, "parameters": {}}, "parameters.speed", "is missing"),
        ({"fields": FLAT, "parameters": {"sped": 1}}, "parameters.sped", "is no parameter"),
        ({"fields": FLAT, "parameters": {"speed": "x"}}, "parameters", "no array of numbers"),
        ({"fields": FLAT, "parameters": {"speed": -1}}, "parameters", "must be positive"),
        ({"fields": FLAT, "parameters": [[1.0], [2.0]]}, "parameters", "is expected"),
    ],
)
def test_a_start_that_makes_no_sense_is_refused(
    fields: Service, body: dict[str, Any], field: str, said: str
) -> None:
    answer = roll(fields, "plain", "rollout", json.dumps(body))
    assert answer.status == 422
    assert answer.error["problems"][0]["field"] == field
    assert said in answer.error["message"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("steps=0", "steps"),
        ("steps=1001", "steps"),
        ("steps=x", "steps"),
        ("samples=2", "samples"),
        ("seed=-1", "seed"),
    ],
)
def test_limits_of_rollouts_hold(fields: Service, query: str, field: str) -> None:
    body = {"fields": FLAT, "parameters": {"speed": 1}}
    answer = roll(fields, "plain", f"rollout?{query}", body)
    assert (answer.status, answer.error["problems"][0]["field"]) == (422, field)


def test_an_answer_too_large_for_json_is_given_as_npz(fields: Service) -> None:
    body = to_npz({"fields": np.zeros((40, 1, POINTS), "f"), "parameters": np.ones((40, 1), "f")})
    path = "/v1/models/plain/rollout?steps=500"
    refused = fields.ask("POST", path, body, {"Content-Type": NPZ, "Accept": JSON}, None)
    assert refused.status == 422
    assert "NPZ answers hold more" in refused.error["message"]
    given = fields.ask("POST", path, body, {"Content-Type": NPZ}, None)
    assert given.status == 200


def test_each_kind_has_its_own_addresses(fields: Service) -> None:
    for method, path in (("POST", "plain/predict"), ("POST", "wing/rollout")):
        answer = fields.ask(method, f"/v1/models/{path}", {"rows": []}, token=None)
        assert (answer.status, answer.error["code"]) == (404, "wrong_kind")
    answer = roll(fields, "poisson", "rollout", {"fields": FLAT})
    assert "ask /v1/models/poisson/solution" in answer.error["message"]
    assert roll(fields, "plain", "solution", {"fields": FLAT}).error["code"] == "wrong_kind"
    assert roll(fields, "flow", "rollout", {"fields": FLAT}).error["code"] == "no_such_model"


@pytest.mark.parametrize("kind", ["application/vnd.apache.arrow.stream", "text/csv"])
def test_other_bodies_are_refused(fields: Service, kind: str) -> None:
    assert roll(fields, "plain", "rollout", b"", kind).status == 415


def test_an_npz_array_that_claims_too_much_is_refused(fields: Service) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("fields.npy", npy)
    answer = roll(fields, "plain", "rollout", target.getvalue(), NPZ)
    assert (answer.status, answer.error["code"]) == (413, "too_many_numbers")


def test_the_examples_of_the_description_are_answered(fields: Service) -> None:
    paths = fields.ask("GET", "/openapi.json", token=None).record["paths"]
    for way in ("rollout", "solution"):
        operation = paths[f"/v1/models/{{name}}/{way}"]["post"]
        name = "plain" if way == "rollout" else "poisson"
        example = operation["requestBody"]["content"][JSON]["example"]
        assert roll(fields, name, way, example).status == 200


def test_operators_are_served_without_surrogates(files: list[Path]) -> None:
    alone = started(files[0])
    try:
        names = alone.ask("GET", "/v1/models", token=None).record
        assert names == {"models": [], "operators": ["plain"]}
        assert alone.ask("GET", "/openapi.json", token=None).status == 200
    finally:
        assert alone.stop() == 0


@pytest.mark.parametrize(
    ("part", "value"),
    [
        (("network", "settings", "width"), 10**6),
        (("network", "settings", "depth"), 10**9),
        (("network", "settings", "width"), 9),
        (("network", "settings", "modes"), {}),
        (("network", "settings", "modes"), [[4]]),
        (("network", "kind"), "os:system"),
        (("network",), []),
        (("model",), "forest"),
        (("grid", "shape"), "sixteen"),
        (("grid", "shape"), [10**12]),
        (("settings", "options"), {"history": -1}),
        (("settings", "options"), {"import": "os"}),
        (("settings", "dt"), None),
        (("settings", "test_errors"), ["x"]),
    ],
)
def test_a_hostile_operator_is_refused_at_the_start(
    files: list[Path], tmp_path: Path, part: tuple[str, ...], value: Any
) -> None:
    stored = artifact.read(files[0])
    manifest = json.loads(json.dumps({k: v for k, v in stored.manifest.items() if k != "artifact"}))
    inner = manifest
    for key in part[:-1]:
        inner = inner[key]
    inner[part[-1]] = value
    path = artifact.write(tmp_path / "flow.us", manifest, stored.tensors)
    with pytest.raises(UserError, match=str(path)):
        load_operators({"flow": path}, Limits())


def test_what_is_known_of_errors_is_kept_in_the_file(files: list[Path]) -> None:
    kept = load_operator(files[0])
    assert isinstance(kept, OneStepModel)
    assert kept.test_errors == (0.1, 0.2)
