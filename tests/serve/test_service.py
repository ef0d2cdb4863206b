"""A real service: what it answers, what it refuses, and that nothing makes it fall over."""

from __future__ import annotations

import io
import json
import pickle
import re
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from understudy.models.tabular.fitted import FittedSurrogate
from understudy.serve.formats import ARROW, JSON, NPZ, to_npz

from .conftest import ROW, TOKENS, Service, started, wing

NEW = wing(50, seed=1)[["angle", "speed", "profile"]]


def arrow(table: pd.DataFrame, **options: Any) -> bytes:
    whole = pa.Table.from_pandas(table, preserve_index=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, whole.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(whole)
    return sink.getvalue().to_pybytes()


def npz(table: pd.DataFrame) -> bytes:
    columns = {name: table[name].to_numpy() for name in table}
    return to_npz({name: c.astype("U") if c.dtype == object else c for name, c in columns.items()})


def from_arrow(body: bytes) -> pd.DataFrame:
    return pa.ipc.open_stream(body).read_all().to_pandas()


def from_npz(body: bytes) -> pd.DataFrame:
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        return pd.DataFrame({name: arrays[name] for name in arrays.files})


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert list(found) == list(expected)
    assert found["extrapolation"].tolist() == expected["extrapolation"].tolist()
    numbers = list(expected.columns.drop("extrapolation"))
    np.testing.assert_allclose(found[numbers], expected[numbers], rtol=1e-9, atol=1e-12)


# -- predictions ----------------------------------------------------------------------------------


def test_rows_of_json_are_predicted_as_by_the_library(
    service: Service, surrogate: FittedSurrogate
) -> None:
    answer = service.predict({"rows": NEW.to_dict("records")})
    assert answer.status == 200
    assert answer.record["rows"] == 50
    assert_same(pd.DataFrame(answer.record["predictions"]), surrogate.predict_table(NEW))


@pytest.mark.parametrize(
    ("kind", "write", "read"),
    [
        (JSON, lambda t: json.dumps({"columns": t.to_dict("list")}), None),
        (ARROW, arrow, from_arrow),
        (NPZ, npz, from_npz),
    ],
)
def test_columns_of_every_kind_are_answered_in_the_same_kind(
    service: Service,
    surrogate: FittedSurrogate,
    kind: str,
    write: Callable[[pd.DataFrame], bytes],
    read: Callable[[bytes], pd.DataFrame] | None,
) -> None:
    answer = service.predict(write(NEW), Content_Type=kind)
    assert (answer.status, answer.headers["content-type"]) == (200, kind)
    found = read(answer.body) if read else pd.DataFrame(answer.record["columns"])
    assert_same(found, surrogate.predict_table(NEW))


def test_accept_chooses_the_kind_of_the_answer(
    service: Service, surrogate: FittedSurrogate
) -> None:
    accept = f"text/html, {NPZ};q=0.4, {ARROW};q=0.8"
    answer = service.predict({"rows": [ROW]}, Accept=accept)
    assert answer.headers["content-type"] == ARROW
    assert_same(from_arrow(answer.body), surrogate.predict_table(pd.DataFrame([ROW])))
    assert service.predict({"rows": [ROW]}, Accept="text/html").status == 406


def test_levels_choose_the_intervals(service: Service) -> None:
    (row,) = service.predict({"rows": [ROW]}, "?levels=0.99,0.999").record["predictions"]
    assert row["lift_lower_99.9"] < row["lift_lower_99"] < row["lift_mean"]
    (row,) = service.predict({"rows": [ROW]}, "?levels=").record["predictions"]
    assert set(row) == {"drag_mean", "drag_sd", "lift_mean", "lift_sd", "extrapolation"}


@pytest.mark.parametrize("levels", ["1.0", "0", "x", "nan", ",".join(["0.5"] * 17)])
def test_levels_that_are_none_are_refused(service: Service, levels: str) -> None:
    assert service.predict({"rows": [ROW]}, f"?levels={levels}").status == 422


def test_rows_outside_the_training_range_are_marked(service: Service) -> None:
    record = service.predict({"rows": [ROW, {**ROW, "speed": 500, "angle": -90}]}).record
    assert [row["extrapolation"] for row in record["predictions"]] == ["", "angle, speed"]
    assert record["extrapolating"] == 1


def test_requests_at_the_same_time_get_their_own_rows(
    service: Service, surrogate: FittedSurrogate
) -> None:
    expected = surrogate.predict_table(NEW)["lift_mean"]

    def one(at: int) -> float:
        body = {"rows": NEW.iloc[[at]].to_dict("records")}
        for token in TOKENS * 20:
            answer = service.ask("POST", "/v1/models/wing/predict", body, token=token)
            if answer.status == 200:
                return answer.record["predictions"][0]["lift_mean"]
        raise AssertionError(answer.record)

    with ThreadPoolExecutor(4) as pool:
        np.testing.assert_allclose(list(pool.map(one, range(50))), expected, rtol=1e-9)


# -- what is refused, by column and row -----------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"speed": None}, "speed", "an empty cell"),
        ({"speed": float("nan")}, "speed", "nan"),
        ({"speed": float("inf")}, "speed", "inf"),
        ({"speed": 10**400}, "speed", "1000"),
        ({"speed": "20"}, "speed", "'20'"),
        ({"speed": True}, "speed", "true"),
        ({"speed": [1.0]}, "speed", "a list"),
        ({"profile": "rond"}, "profile", "'rond'; the choices are 'flat', 'round', 'slotted'"),
        ({"profile": None}, "profile", "an empty cell"),
        ({"profile": {}}, "profile", "a dict"),
    ],
)
def test_a_bad_cell_is_refused_by_column_and_row(
    service: Service, change: dict[str, Any], field: str, words: str
) -> None:
    answer = service.predict({"rows": [ROW, ROW, {**ROW, **change}]})
    assert answer.status == 422
    (problem,) = answer.error["problems"]
    assert (problem["field"], problem["row"]) == (field, 3)
    assert words in problem["message"]


def test_unknown_and_missing_columns_are_refused_together(service: Service) -> None:
    answer = service.predict({"rows": [{"angle": 1.0, "sped": 2.0, "profile": "flat"}]})
    assert answer.status == 422
    assert [(p["field"], p["message"]) for p in answer.error["problems"]] == [
        ("sped", "is no input; did you mean 'speed'?"),
        ("speed", "this column is missing"),
    ]


def test_nan_in_arrow_and_npz_is_refused_by_row(service: Service) -> None:
    table = NEW.assign(speed=NEW["speed"].where(NEW.index != 7))
    for kind, body in ((ARROW, arrow(table)), (NPZ, npz(table))):
        answer = service.predict(body, Content_Type=kind)
        assert answer.status == 422
        assert (answer.error["problems"][0]["field"], answer.error["problems"][0]["row"]) == (
            "speed",
            8,
        )


def test_many_bad_cells_are_counted_not_listed(service: Service) -> None:
    answer = service.predict({"rows": [{**ROW, "speed": None}] * 1500})
    assert answer.status == 422
    assert answer.error["problems"][-1]["message"] == "and 1495 more cells like these"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"rows": []},
        {"rows": [1]},
        {"rows": [ROW, {"angle": 1}]},
        {"rows": [ROW], "columns": {}},
        {"columns": {"angle": 1}},
        {"columns": {"angle": [1], "speed": [1, 2], "profile": ["flat"]}},
        {"rows": {"angle": [1]}},
    ],
)
def test_json_that_is_no_table_is_refused(service: Service, body: dict[str, Any]) -> None:
    assert service.predict(body).status == 422


# -- bodies that are not what they say ------------------------------------------------------------


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def compressed_npz(table: pd.DataFrame) -> bytes:
    target = io.BytesIO()
    np.savez_compressed(target, angle=np.zeros(10**7))
    return target.getvalue()


MALFORMED = [
    (JSON, b"{", 400),
    (JSON, b"[" * 100_000, 400),
    (JSON, b"\xff\xfe", 400),
    (JSON, b"[]", 400),
    (JSON, b'{"rows": [{"angle": ' + b"1" * 5000 + b"}]}", 400),
    (ARROW, b"", 400),
    (ARROW, b"nonsense", 400),
    (ARROW, arrow(NEW)[:-200], 400),
    (ARROW, arrow(NEW, compression="zstd"), 422),
    (ARROW, arrow(pd.DataFrame({"angle": [[1.0]]})), 422),
    (ARROW, arrow(NEW[["angle"]].iloc[:0]), 422),
    (NPZ, b"", 400),
    (NPZ, b"PK\x03\x04 and no more", 400),
    (NPZ, npz(NEW)[:-100], 400),
    (NPZ, compressed_npz(NEW), 422),
    (NPZ, to_npz({"angle": np.zeros((2, 2))}), 422),
    (NPZ, to_npz({"angle": np.zeros(2, dtype=complex)}), 422),
    ("text/plain", b"angle,speed", 415),
    ("application/x-www-form-urlencoded", b"a=b", 415),
]


@pytest.mark.parametrize(("kind", "body", "status"), MALFORMED)
def test_a_body_that_is_not_what_it_says_is_refused(
    service: Service, kind: str, body: bytes, status: int
) -> None:
    answer = service.predict(body, Content_Type=kind)
    assert answer.status == status
    assert set(answer.record) == {"error"}
    assert "Traceback" not in answer.body.decode()


def test_pickles_are_never_opened(service: Service, tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    target = io.BytesIO()
    np.savez(target, angle=np.array([Trap(trap)], dtype=object))
    for body in (target.getvalue(), pickle.dumps(Trap(trap))):
        for kind in (NPZ, ARROW, JSON):
            assert service.predict(body, Content_Type=kind).status in (400, 422)
    assert not trap.exists()


def test_an_array_that_claims_more_than_it_holds_is_refused(service: Service) -> None:
    header = to_npz({"angle": np.zeros(3)}).replace(b"(3,)", b"(9,)")
    answer = service.predict(header, Content_Type=NPZ)
    assert answer.status in (400, 422)


def test_too_many_rows_are_refused(service: Service) -> None:
    table = pd.concat([NEW] * 41)
    for kind, body in ((ARROW, arrow(table)), (NPZ, npz(table))):
        assert service.predict(body, Content_Type=kind).status == 413


# -- sockets --------------------------------------------------------------------------------------

HEAD = (
    "POST /v1/models/wing/predict HTTP/1.1\r\nHost: localhost\r\n"
    "Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
)


def opened(service: Service, *headers: str, token: str = TOKENS[0]) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=30)
    lines = "".join(f"{line}\r\n" for line in headers)
    connection.sendall((HEAD.format(token=token) + lines + "\r\n").encode())
    return connection


def status_of(connection: socket.socket) -> int:
    found = b""
    while b"\r\n" not in found:
        part = connection.recv(4096)
        if not part:
            break
        found += part
    match = re.match(rb"HTTP/1.1 (\d+)", found)
    assert match is not None, found
    return int(match[1])


def test_a_body_that_says_it_is_too_long_is_refused_before_it_comes(service: Service) -> None:
    with opened(service, "Content-Length: 1048577") as connection:
        assert status_of(connection) == 413


def test_a_body_that_grows_too_long_is_refused(service: Service) -> None:
    with opened(service, "Transfer-Encoding: chunked") as connection:
        chunk = b"10000\r\n" + b" " * 2**16 + b"\r\n"
        for _ in range(17):
            connection.sendall(chunk)
        assert status_of(connection) == 413


def test_a_body_that_comes_too_slowly_is_refused(service: Service) -> None:
    with opened(service, "Content-Length: 100") as connection:
        connection.sendall(b'{"rows"')
        assert status_of(connection) == 408


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: loc"])
def test_a_head_that_comes_too_slowly_ends_the_connection(service: Service, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(sent)
        began = time.monotonic()
        assert connection.recv(100) == b""
        assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70_000,
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(service: Service, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(sent)
        assert status_of(connection) in (400, 401, 413, 431, 501)


def test_one_client_cannot_take_all_places_nor_all_clients_more(service: Service) -> None:
    held = [opened(service, "Content-Length: 9") for _ in range(4)]
    try:
        assert reached(lambda: service.predict({"rows": [ROW]}).status, 429)
        other = service.ask("GET", "/v1/models", token=TOKENS[1])
        assert other.status == 200
        held += [opened(service, "Content-Length: 9", token=TOKENS[1]) for _ in range(4)]
        answers = lambda: service.ask("GET", "/v1/models", token=TOKENS[1]).status  # noqa: E731
        assert reached(answers, 503)
        assert service.ask("GET", "/healthz", token=None).status == 200
    finally:
        for connection in held:
            connection.close()
    assert reached(lambda: service.ask("GET", "/v1/models").status, 200)


def reached(status: Callable[[], int], wanted: int) -> bool:
    """Whether a status comes within half a second or so of asking again."""
    return any(status() == wanted or time.sleep(0.02) for _ in range(200))


# -- tokens, names --------------------------------------------------------------------------------


@pytest.mark.parametrize("token", TOKENS)
def test_every_token_of_the_file_is_accepted(service: Service, token: str) -> None:
    assert service.ask("GET", "/v1/models", token=token).record == {"models": ["wing"]}


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Basic {TOKENS[0]}",
        f"Bearer {TOKENS[0][:-1]}",
        f"Bearer {TOKENS[0]}x",
        f"Bearer {TOKENS[0].upper()}",
        f"Bearer {TOKENS[0]} {TOKENS[1]}",
        "Bearer \xff\xfe",
    ],
)
def test_without_a_token_nothing_is_answered_but_health(
    service: Service, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header}
    for path in ("/v1/models", "/v1/models/wing", "/metrics", "/openapi.json", "/nothing"):
        answer = service.ask("GET", path, headers=headers, token=None)
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert service.ask("GET", "/healthz", headers=headers, token=None).record == {"status": "ok"}


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../wing",
        "%2e%2e%2fwing",
        "..%2f..%2fetc%2fpasswd",
        "wing.us",
        "wing%00",
        "%77ing%2f",
        "WING",
        "a" * 5000,
        "%F0%9F%98%80",
    ],
)
def test_only_loaded_models_have_names(service: Service, name: str) -> None:
    for path in (f"/v1/models/{name}", f"/v1/models/{name}/predict"):
        answer = service.ask("POST" if "predict" in path else "GET", path, {"rows": [ROW]})
        assert answer.status in (404, 405)
        assert "/tmp" not in answer.body.decode()


def test_an_unknown_address_and_method_are_refused_as_json(service: Service) -> None:
    assert service.ask("GET", "/docs").error["code"] == "not_found"
    assert service.ask("DELETE", "/v1/models/wing").error["code"] == "method_not_allowed"


# -- description, analyses ------------------------------------------------------------------------


def test_a_model_is_described(service: Service, surrogate: FittedSurrogate) -> None:
    record = service.ask("GET", "/v1/models/wing").record
    angle, speed, profile = record["inputs"]
    assert (angle["name"], angle["lower"], angle["upper"]) == (
        "angle",
        surrogate.space["angle"].lower,
        surrogate.space["angle"].upper,
    )
    assert (speed["kind"], profile["choices"]) == ("continuous", ["flat", "round", "slotted"])
    assert [output["name"] for output in record["outputs"]] == ["drag", "lift"]
    assert all(output["scores"]["r2"] > 0.9 for output in record["outputs"])


def test_sensitivities_are_those_of_the_surrogate(
    service: Service, surrogate: FittedSurrogate
) -> None:
    record = service.ask("GET", "/v1/models/wing/sensitivity?samples=64&seed=3").record
    expected = surrogate.sensitivity(n=64, seed=3)
    found = pd.DataFrame(record["indices"])
    np.testing.assert_allclose(found["total"], expected["total"], rtol=1e-9)


@pytest.mark.parametrize("query", ["samples=100", "samples=8", "samples=16384", "seed=-1"])
def test_sensitivities_of_odd_sizes_are_refused(service: Service, query: str) -> None:
    assert service.ask("GET", f"/v1/models/wing/sensitivity?{query}").status == 422


def test_the_best_point_is_found_within_bounds_and_constraints(service: Service) -> None:
    body = {
        "objective": {"output": "drag", "direction": "minimize"},
        "constraints": [{"output": "lift", "lower": 6.0}],
        "bounds": {"speed": [20.0, 30.0], "profile": ["flat", "round"]},
        "strategy": "best",
    }
    (point,) = service.ask("POST", "/v1/models/wing/optimize", body).record["points"]
    assert 20.0 <= point["inputs"]["speed"] <= 30.0
    assert point["inputs"]["profile"] == "round"  # 1.5 times the lift of flat at the same drag
    assert point["predictions"]["lift_mean"] >= 6.0
    assert point["feasible"] > 0.7


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"objective": {"output": "drg"}}, "objective.output"),
        ({"objective": {"output": "drag", "direction": "target"}}, "objective.target"),
        ({"objective": {"output": "drag", "direction": "least"}}, "objective.direction"),
        ({"constraints": [{"output": "lift"}]}, "constraints[0]"),
        ({"constraints": [{"output": "lift", "lower": 2, "upper": 1}]}, "constraints[0]"),
        ({"bounds": {"sped": [1, 2]}}, "sped"),
        ({"bounds": {"speed": [1, 1000]}}, "speed"),
        ({"bounds": {"speed": [30, 20]}}, "speed"),
        ({"bounds": {"speed": ["a", "b"]}}, "speed"),
        ({"bounds": {"profile": ["wide"]}}, "profile"),
        ({"fixed": {"speed": 20, "angle": 1, "profile": "flat"}}, "fixed"),
        ({"fixed": {"speed": 20}, "bounds": {"speed": [20, 30]}}, "speed"),
        ({"points": 1000}, "points"),
        ({"points": 2, "strategy": "best"}, "points"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(
    service: Service, change: dict[str, Any], field: str
) -> None:
    body = {"objective": {"output": "drag"}, **change}
    answer = service.ask("POST", "/v1/models/wing/optimize", body)
    assert answer.status == 422
    assert field in [problem["field"] for problem in answer.error["problems"]]


def test_a_search_in_no_json_is_refused(service: Service) -> None:
    headers = {"Content-Type": "application/json"}
    for body in ("{", "[" * 10_000, "null", '{"objective": NaN}'):
        assert service.ask("POST", "/v1/models/wing/optimize", body, headers).status in (400, 422)


def test_the_examples_of_openapi_are_answered(service: Service) -> None:
    paths = service.ask("GET", "/openapi.json").record["paths"]
    predict = paths["/v1/models/{name}/predict"]["post"]
    for example in predict["requestBody"]["content"][JSON]["examples"].values():
        answer = service.predict(example["value"])
        assert answer.status == 200
    shown = predict["responses"]["200"]["content"][JSON]["example"]
    first = next(iter(predict["requestBody"]["content"][JSON]["examples"].values()))["value"]
    answered = service.predict(first).record
    assert answered.keys() == shown.keys()
    (row,), (expected,) = answered["predictions"], shown["predictions"]
    assert row.pop("extrapolation") == expected.pop("extrapolation") == ""
    assert row == pytest.approx(expected, rel=1e-6)


# -- what is written down -------------------------------------------------------------------------


def test_metrics_count_requests_rows_and_batches(service: Service) -> None:
    def count(line: str) -> float:
        text = service.ask("GET", "/metrics").body.decode()
        found = re.search(rf"^{re.escape(line)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    rows = 'understudy_rows_total{model="wing"}'
    asked = 'understudy_requests_total{route="/v1/models/{name}/predict",status="200"}'
    before = count(rows), count(asked)
    service.predict({"rows": [ROW] * 7})
    assert (count(rows), count(asked)) == (before[0] + 7, before[1] + 1)


def test_the_log_is_json_without_payloads_tokens_or_queries(service: Service) -> None:
    service.predict({"rows": [{**ROW, "profile": "confidential"}]}, "?levels=0.123456")
    service.ask("GET", "/v1/models/secret-address", headers={"X-Request-ID": "mark-1"})
    assert reached(lambda: int(any("mark-1" in line for line in service.lines)), 1)
    records = [json.loads(line) for line in service.lines]
    assert {"time", "level", "event"} <= set(records[-1])
    text = "".join(service.lines)
    for private in ("confidential", "0.123456", "secret-address", *TOKENS):
        assert private not in text


def test_a_client_that_goes_away_is_no_failure_of_the_service(service: Service) -> None:
    with opened(service, "Content-Length: 100", "X-Request-ID: gone-1") as connection:
        connection.sendall(b"{")
    assert reached(lambda: int(any("gone-1" in line for line in service.lines)), 1)
    assert not any(json.loads(line)["event"] == "failed" for line in service.lines)


@pytest.mark.slow
def test_a_request_that_is_being_answered_ends_before_the_service(
    model: Path, token_file: Path
) -> None:
    service = started(model, "--token-file", token_file)
    body = json.dumps({"rows": [ROW]}).encode()
    with opened(service, f"Content-Length: {len(body)}") as connection:
        connection.sendall(body[:10])
        assert service.predict({"rows": [ROW]}).status == 200
        service.process.terminate()
        assert reached(lambda: int(any("stopping" in line for line in service.lines)), 1)
        connection.sendall(body[10:])
        assert status_of(connection) == 200
    assert service.process.wait(timeout=60) == 0
    assert service.reader is not None
    service.reader.join(timeout=10)
    assert json.loads(service.lines[-1])["event"] == "stopped"
