"""Whatever bytes come in, readers give columns or a refusal, and nothing large on the way."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.space import Categorical, Continuous, Integer, Space
from understudy.serve.arrow_messages import has_compressed_buffers
from understudy.serve.formats import (
    ARROW,
    JSON,
    KINDS,
    NPZ,
    accepted,
    kind_of,
    read_arrays,
    read_columns,
    to_json,
    to_npz,
    write_table,
)
from understudy.serve.refusal import Refusal
from understudy.serve.rows import encode

SPACE = Space((Continuous("x", 0.0, 1.0), Integer("n", 1, 9), Categorical("c", ("a", "b"))))
TABLE = {"x": np.array([0.5, 0.25]), "n": np.array([1, 2]), "c": np.array(["a", "b"])}


def arrow(**options: Any) -> bytes:
    whole = pa.table({**TABLE, "c": pa.array(["a", "b"]).dictionary_encode()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, whole.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(whole)
    return sink.getvalue().to_pybytes()


BODIES = {
    ARROW: arrow(),
    NPZ: to_npz(TABLE),
    JSON: json.dumps({"columns": {k: v.tolist() for k, v in TABLE.items()}}).encode(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_table_is_read_from_every_kind(kind: str) -> None:
    columns, by_rows = read_columns(kind, BODIES[kind], 10)
    assert not by_rows
    expected = [[0.5, 1.0, 0.0], [0.25, 2.0, 1.0]]
    np.testing.assert_array_equal(encode(SPACE, columns, 10).X, expected)


@given(kind=st.sampled_from(KINDS), body=st.binary(max_size=300))
def test_any_bytes_are_columns_or_a_refusal(kind: str, body: bytes) -> None:
    read_or_refused(kind, body)


@given(data=st.data(), kind=st.sampled_from((ARROW, NPZ)))
def test_damaged_bodies_are_columns_or_a_refusal(data: st.DataObject, kind: str) -> None:
    body = bytearray(BODIES[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    start = data.draw(st.integers(0, 8))
    end = data.draw(st.integers(start, len(body)))
    read_or_refused(kind, bytes(body))
    read_or_refused(kind, bytes(body[start:end]))


def read_or_refused(kind: str, body: bytes) -> None:
    try:
        columns, _ = read_columns(kind, body, 10)
        rows = encode(SPACE, columns, 10)
    except Refusal as refusal:
        assert refusal.status in (400, 413, 422)
        assert json.loads(to_json(refusal.record))["error"]["message"]
    else:
        assert np.isfinite(rows.X).all()


FIELDS = to_npz(
    {
        "fields": np.linspace(0.0, 1.0, 24, dtype="f").reshape(2, 3, 4),
        "parameters": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }
)


def test_arrays_of_any_shape_are_read_as_they_were_written() -> None:
    found = read_arrays(NPZ, FIELDS, 100)
    with np.load(io.BytesIO(FIELDS), allow_pickle=False) as wanted:
        assert found.keys() == set(wanted.files)
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted.files)


@given(data=st.data(), most=st.integers(1, 40))
def test_damaged_fields_are_arrays_or_a_refusal(data: st.DataObject, most: int) -> None:
    body = bytearray(FIELDS)
    for _ in range(data.draw(st.integers(0, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(body)))
    try:
        found = read_arrays(NPZ, bytes(body[:end]), most)
    except Refusal as refusal:
        assert refusal.status in (400, 413, 422)
    else:
        assert all(isinstance(a, np.ndarray) and a.size <= most for a in found.values())


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=8,
    ),
    st.sampled_from(["rows", "columns"]),
)
def test_any_json_is_columns_or_a_refusal(content: Any, key: str) -> None:
    read_or_refused(JSON, json.dumps({key: content}).encode())
    read_or_refused(JSON, json.dumps({key: [content]}).encode())
    read_or_refused(JSON, json.dumps({key: {"x": [content], "n": [1], "c": ["a"]}}).encode())


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_buffers_are_told_before_they_are_decompressed(codec: str) -> None:
    assert has_compressed_buffers(arrow(compression=codec))
    assert not has_compressed_buffers(arrow())
    assert not has_compressed_buffers(arrow(use_legacy_format=True))


def test_an_array_that_claims_terabytes_takes_none() -> None:
    body = to_npz({"x": np.zeros(3)})
    stream = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    np.lib.format.write_array_header_1_0(stream, header)
    import zipfile

    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("x.npy", stream.getvalue())
    with pytest.raises(Refusal, match="rows; at most"):
        read_columns(NPZ, target.getvalue(), 10)
    with pytest.raises(Refusal, match="shorter than it says"):
        read_columns(NPZ, target.getvalue(), 10**13)
    assert read_columns(NPZ, body, 10)[0]["x"].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("order", ["<", ">"])
def test_numbers_of_either_byte_order_are_read(order: str) -> None:
    body = to_npz({"x": np.array([1.5, 2.5], dtype=f"{order}f8")})
    columns, _ = read_columns(NPZ, body, 10)
    np.testing.assert_array_equal(np.asarray(columns["x"], dtype=float), [1.5, 2.5])


def test_what_is_written_as_npz_numpy_reads() -> None:
    body = write_table(NPZ, {"y": np.array([1.0, 2.0]), "extrapolation": ["", "x"]}, False, {})
    with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
        assert arrays["y"].tolist() == [1.0, 2.0]
        assert arrays["extrapolation"].tolist() == ["", "x"]


def test_numbers_that_are_not_finite_are_null_in_json() -> None:
    body = write_table(JSON, {"y": np.array([1.0, np.inf, np.nan])}, False, {})
    assert json.loads(body) == {"columns": {"y": [1.0, None, None]}}


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", JSON),
        ("*/*", JSON),
        (f"{ARROW}, */*", ARROW),
        (f"*/*;q=0.1, {NPZ}", NPZ),
        (f"{ARROW};q=0, {NPZ};q=0.2", NPZ),
        (f"{ARROW};q=x, {NPZ}", NPZ),
    ],
)
def test_accept_is_read_by_quality(accept: str, kind: str) -> None:
    assert accepted(accept, JSON) == kind


def test_a_content_type_may_have_parameters() -> None:
    assert kind_of("Application/JSON; charset=utf-8") == JSON
    assert kind_of("") == JSON
