"""Bodies of requests and answers: JSON for people, Arrow and NPZ for large batches.

Everything is read as columns by name, and refused with a sentence before anything large is made of
it: Arrow streams with compressed buffers, nested, extension or dictionary-of-dictionary types; NPZ
files with pickled objects, or that claim more than they hold.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from understudy.serve.arrow_messages import has_compressed_buffers
from understudy.serve.refusal import Refusal
from understudy.serve.rows import Column, check_count

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
NPZ = "application/x-npz"
KINDS = (JSON, ARROW, NPZ)

Columns: TypeAlias = dict[str, Column]
Table: TypeAlias = Mapping[str, "NDArray[Any] | list[str]"]

_MOST_BATCHES = 4096
_LARGEST_HEADER = 10_000  # of an array in an NPZ file


def kind_of(content_type: str) -> str:
    """Which kind a ``Content-Type`` names; one that is none is refused (415)."""
    named = content_type.partition(";")[0].strip().lower() or JSON
    if named not in KINDS:
        message = f"the content type {named[:80]!r} is none of {', '.join(KINDS)}"
        raise Refusal(415, "unsupported_type", message)
    return named


def accepted(accept: str, given: str, offered: Sequence[str] = KINDS) -> str:
    """Which kind to answer in: the first of ``Accept`` that is offered, by default as given (406).

    Parameters
    ----------
    accept : str
        Header of the request; quality values decide, ties go by order.
    given : str
        Kind of the request.
    offered : sequence of str
        Kinds of answers.
    """
    wanted = []
    for at, part in enumerate(accept.split(",")):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            wanted.append((-float(quality), at, name))
        except ValueError:
            continue
    fallback = given if given in offered else offered[0]
    for weight, _, name in sorted(wanted):
        if weight < 0 and name in ("", "*/*", "application/*"):
            return fallback
        if weight < 0 and name in offered:
            return name
    message = f"an answer can be {', '.join(offered)}; the request accepts none of them"
    raise Refusal(406, "not_acceptable", message)


# -- reading --------------------------------------------------------------------------------------


def read_columns(kind: str, body: bytes, most: int) -> tuple[Columns, bool]:
    """Columns of a body, and whether they came row by row.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    body : bytes
    most : int
        Rows that are accepted.

    Raises
    ------
    Refusal
        400 for a body that is not of its kind, 413 for too many rows, 422 for content that cannot
        be columns of a table.
    """
    if kind == JSON:
        return _json_columns(read_json(body), most)
    return (_arrow_columns if kind == ARROW else _npz_columns)(body, most), False


def read_json(body: bytes) -> dict[str, Any]:
    """The JSON object of a body (400); NaN and Infinity are numbers here, refused as cells."""
    try:
        found = json.loads(body.decode("utf-8"))
    except RecursionError:
        raise _malformed("JSON", "nested too deeply") from None
    except ValueError as error:
        raise _malformed("JSON", str(error)[:160]) from None
    if not isinstance(found, dict):
        raise _malformed("JSON", "an object is expected")
    return found


def _json_columns(found: dict[str, Any], most: int) -> tuple[Columns, bool]:
    if set(found) == {"rows"} and isinstance(found["rows"], list):
        return _of_rows(found["rows"], most), True
    if set(found) == {"columns"} and isinstance(found["columns"], dict):
        columns = found["columns"]
        for name, column in columns.items():
            if not isinstance(column, list):
                raise _unusable(f"column {name[:80]!r} is no list")
            check_count(len(column), most)
        return columns, False
    raise _unusable('expected {"rows": [{"input": value, ...}, ...]} or {"columns": {...}} alone')


def _of_rows(rows: list[Any], most: int) -> Columns:
    check_count(len(rows), most)
    if not isinstance(rows[0], dict):
        raise _unusable("row 1 is no object of input names and values")
    first = rows[0].keys()
    for at, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise _unusable(f"row {at} is no object of input names and values")
        if row.keys() != first:
            odd = sorted(row.keys() ^ first)[0]
            raise _unusable(f"row {at} and row 1 do not have the same keys: {odd[:80]!r} differs")
    return {name: [row[name] for row in rows] for name in first}


def _arrow_columns(body: bytes, most: int) -> Columns:
    import pyarrow as pa

    try:
        if has_compressed_buffers(body):
            raise _unusable("compressed Arrow buffers are not accepted; compress none")
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            for field in reader.schema:
                _check_type(field.name, field.type)
            names = reader.schema.names
            batches: list[Any] = []
            rows = 0
            for batch in reader:
                rows += batch.num_rows
                if rows > most or len(batches) == _MOST_BATCHES:
                    check_count(rows, most)
                    raise _unusable(f"at most {_MOST_BATCHES} batches are accepted")
                batch.validate(full=True)
                batches.append(batch)
            table = pa.Table.from_batches(batches, reader.schema)
            check_count(table.num_rows, most)
            if len(set(names)) < len(names):
                raise _unusable("a column is given twice")
            return {name: _arrow_cells(table.column(name)) for name in names}
    except (pa.ArrowException, ValueError, OSError, MemoryError, KeyError, TypeError) as error:
        raise _malformed("an Arrow stream", _line(error)) from None


def _check_type(name: str, kind: Any) -> None:
    import pyarrow as pa

    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    types = pa.types
    plain = (types.is_integer, types.is_floating, types.is_boolean)
    if not any(is_(values) for is_ in (*plain, types.is_string, types.is_large_string)):
        message = (
            f"column {name[:80]!r} is {str(kind)[:80]}; numbers, booleans or text are accepted"
        )
        raise _unusable(message)


def _arrow_cells(column: Any) -> Column:
    import pyarrow as pa

    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if numeric and column.null_count == 0:
        return column.to_numpy()
    return column.to_pylist()


def _npz_columns(body: bytes, most: int) -> Columns:
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            return {
                name: _column(name, archive, info, most) for name, info in _entries(archive, body)
            }
    except _ZIP_ERRORS as error:
        raise _malformed("an NPZ file", _line(error)) from None


_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError),
    *(ValueError, OverflowError, struct.error, MemoryError, SyntaxError, TypeError, KeyError),
)


def read_arrays(kind: str, body: bytes, most: int) -> dict[str, Any]:
    """Arrays of any shape by name: of an NPZ file, or what a JSON object holds.

    Parameters
    ----------
    kind : str
        `JSON` or `NPZ`.
    body : bytes
    most : int
        Numbers of an array that are accepted.

    Raises
    ------
    Refusal
        400 for a body that is not of its kind, 413 for too many numbers.
    """
    if kind == JSON:
        return read_json(body)
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            return {
                name: _read_array(name, archive, info, lambda shape: _check_numbers(shape, most))
                for name, info in _entries(archive, body)
            }
    except _ZIP_ERRORS as error:
        raise _malformed("an NPZ file", _line(error)) from None


def _check_numbers(shape: tuple[int, ...], most: int) -> None:
    if math.prod(shape) > most:
        message = f"an array has {math.prod(shape):,} numbers; at most {most:,} are accepted"
        raise Refusal(413, "too_many_numbers", message)


def _entries(archive: zipfile.ZipFile, body: bytes) -> list[tuple[str, zipfile.ZipInfo]]:
    """Names and entries of an NPZ file that does not claim more than it can hold."""
    infos = archive.infolist()
    names = [info.filename.removesuffix(".npy") for info in infos]
    if len(set(names)) < len(names):
        raise _unusable("an array is given twice")
    if sum(info.file_size for info in infos) > 8 * len(body) + 2**20:
        raise _unusable("the arrays are compressed too much; use numpy.savez")
    return list(zip(names, infos, strict=True))


def _column(name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> NDArray[Any]:
    """One-dimensional array of an NPZ entry."""

    def check(shape: tuple[int, ...]) -> None:
        if len(shape) != 1:
            raise _unusable(f"array {name[:80]!r} has {len(shape)} dimensions; one is expected")
        check_count(shape[0], most)

    return _read_array(name, archive, info, check)


def _read_array(
    name: str,
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    check: Callable[[tuple[int, ...]], None],
) -> NDArray[Any]:
    """Array of an NPZ entry; nothing is unpickled or allocated on its word."""
    with archive.open(info) as file:
        blob = file.read(info.file_size + 1)
    stream = io.BytesIO(blob)
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise _malformed("an NPZ file", f"array {name[:80]!r} has version {version}")
    reads = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, by_columns, dtype = reads(stream, max_header_size=_LARGEST_HEADER)
    if dtype.hasobject or dtype.kind not in "fiubU" or dtype.itemsize == 0:
        message = f"array {name[:80]!r} holds {str(dtype)[:40]}; numbers, booleans or text only"
        raise _unusable(message)
    check(shape)
    data = blob[stream.tell() :]
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise _malformed("an NPZ file", f"array {name[:80]!r} is longer or shorter than it says")
    array = np.frombuffer(data, dtype=dtype).reshape(shape, order="F" if by_columns else "C")
    return (
        array
        if dtype.kind == "f" or array.dtype.isnative
        else array.astype(dtype.newbyteorder("="))
    )


def _malformed(what: str, reason: str) -> Refusal:
    return Refusal(400, "malformed", f"the body is not {what}: {reason}")


def _unusable(message: str) -> Refusal:
    return Refusal(422, "invalid", message)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


# -- writing --------------------------------------------------------------------------------------


def write_table(kind: str, table: Table, by_rows: bool, head: Mapping[str, Any]) -> bytes:
    """Body of an answer.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    table : mapping of str to array or list of str (n,)
    by_rows : bool
        Whether JSON is row by row, under ``predictions``, or by ``columns``.
    head : mapping
        What else a JSON answer says.
    """
    return _WRITERS[kind](table, by_rows, head)


def _json(table: Table, by_rows: bool, head: Mapping[str, Any]) -> bytes:
    columns = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in table.items()}
    if not by_rows:
        return to_json({**head, "columns": columns})
    names = list(columns)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return to_json({**head, "predictions": rows})


def to_json(record: Mapping[str, Any]) -> bytes:
    """Strict JSON of a record; a number that is not finite becomes null."""
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return json.dumps(_finite(record), ensure_ascii=False, allow_nan=False).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _arrow(table: Table, by_rows: bool, head: Mapping[str, Any]) -> bytes:
    import pyarrow as pa

    whole = pa.table({name: pa.array(values) for name, values in table.items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(whole)
    return sink.getvalue().to_pybytes()


def _npz(table: Table, by_rows: bool, head: Mapping[str, Any]) -> bytes:
    return to_npz({name: np.asarray(values) for name, values in table.items()})


def to_npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """NPZ file of arrays, not compressed."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                npy.write_array(file, array, allow_pickle=False)
    return target.getvalue()


_WRITERS: dict[str, Callable[[Table, bool, Mapping[str, Any]], bytes]] = {
    JSON: _json,
    ARROW: _arrow,
    NPZ: _npz,
}
