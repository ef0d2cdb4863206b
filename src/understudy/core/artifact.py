"""A fitted thing on disk: one ``.us`` file without code in it.

The file is a zip archive whose entries are stored, not compressed:

======================  ==========================================================================
``manifest.json``       strict JSON: what the caller describes, and under ``artifact`` the format,
                        its version, the size and SHA-256 of each other entry, and the columns of
                        each table
``tensors.safetensors`` named tensors
``tables/*.safetensors`` the columns of a table, in order; text columns as codes into the list
                        of values in the manifest
======================  ==========================================================================

The same content gives the same bytes. Reading never unpickles, imports, runs or extracts
anything: what is not exactly this layout is refused with one sentence. As nothing is compressed,
what is read is never larger than the file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from understudy.core.errors import UserError

FORMAT = "understudy"
VERSION = 1

_RESERVED = "artifact"
_MANIFEST = "manifest.json"
_TENSORS = "tensors.safetensors"
_TABLE = re.compile(r"tables/([A-Za-z0-9_-]{1,64})\.safetensors")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_LARGEST = 2**32 - 1
_LARGEST_MANIFEST = 2**26
_MOST_ENTRIES = 64
_MOST_DIGITS = 20
_DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)

_ZIP_ERRORS = (
    *(zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError),
    *(ValueError, OverflowError, struct.error),
)
_TENSOR_ERRORS = (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError)


class ArtifactError(UserError):
    """A file that is not what `write` makes, or content that it cannot take."""


@dataclass(frozen=True)
class Artifact:
    """Content of a ``.us`` file.

    Parameters
    ----------
    manifest : dict
        JSON: the description given to `write`, with its ``kind``.
    tensors : dict of str to Tensor
    tables : dict of str to DataFrame
    """

    manifest: dict[str, Any]
    tensors: dict[str, Tensor]
    tables: dict[str, pd.DataFrame]


# -- write ----------------------------------------------------------------------------------------


def write(
    path: str | Path,
    manifest: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    tables: Mapping[str, pd.DataFrame] | None = None,
) -> Path:
    """Write one ``.us`` file, in one step: an existing file is replaced whole or left as it is.

    Parameters
    ----------
    path : path
        Where; its folder must exist.
    manifest : mapping
        JSON-able description with a text ``kind``; finite numbers and text keys only.
    tensors : mapping of str to Tensor
        Dense; floating-point, integer or boolean.
    tables : mapping of str to DataFrame, optional
        Columns of numbers, booleans or text, and a plain index.

    Returns
    -------
    Path
        The path written.

    Raises
    ------
    ArtifactError
        If the content cannot be stored, or the file cannot be written.
    """
    path = Path(path)
    blobs, columns = {_TENSORS: _packed(tensors)}, {}
    for name, table in sorted((tables or {}).items()):
        entry = f"tables/{name}.safetensors"
        if _TABLE.fullmatch(entry) is None:
            raise ArtifactError(f"a table cannot be named {name!r}; use letters, digits, - and _")
        columns[name], arrays = _columns(name, table)
        blobs[entry] = _packed(arrays)
    head = {
        "format": FORMAT,
        "version": VERSION,
        "entries": {
            entry: {"bytes": len(blob), "sha256": hashlib.sha256(blob).hexdigest()}
            for entry, blob in blobs.items()
        },
        "tables": columns,
    }
    _replace(path, {_MANIFEST: _manifest_bytes(manifest, head), **blobs})
    return path


def _manifest_bytes(manifest: Mapping[str, Any], head: dict[str, Any]) -> bytes:
    if _RESERVED in manifest:
        raise ArtifactError(f"the manifest cannot have the key {_RESERVED!r}, which the file uses")
    if not isinstance(manifest.get("kind"), str):
        raise ArtifactError("the manifest needs a text under 'kind', which says what it describes")
    try:
        text = json.dumps(
            {**manifest, _RESERVED: head},
            default=_plain,
            sort_keys=True,
            allow_nan=False,
            ensure_ascii=False,
            indent=1,
        )
        return text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"the manifest cannot be written as strict JSON: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _packed(tensors: Mapping[str, Tensor]) -> bytes:
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES or tensor.layout != torch.strided:
            raise ArtifactError(
                f"tensor {name!r} is {tensor.layout} of {tensor.dtype}; accepted are dense ones of "
                "floating-point, integer or boolean values"
            )
    dense = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in sorted(tensors.items())}
    return save(dense)


def _columns(name: str, table: pd.DataFrame) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Describe a table and give its columns as tensors, named by position; the index last."""
    if isinstance(table.index, pd.MultiIndex) or isinstance(table.columns, pd.MultiIndex):
        raise ArtifactError(f"table {name!r} has an index of several levels; reset it first")
    series = [table.iloc[:, k] for k in range(table.shape[1])]
    described, tensors = [], {}
    for k, column in enumerate([*series, table.index.to_series()]):
        label = str(column.name) if k < len(series) else table.index.name
        values, tensors[str(k)] = _column(f"column {label!r} of table {name!r}", column)
        described.append({"name": label, "values": values})
    return {"columns": described[:-1], "index": described[-1]}, tensors


def _column(what: str, column: pd.Series) -> tuple[list[Any] | None, Tensor]:
    """Distinct values of a text column (None for numbers) and the column as a tensor (n,)."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "fiub":
        array = np.ascontiguousarray(column.to_numpy())
        if array.dtype.byteorder == "=" or array.dtype.itemsize == 1:
            return None, _numbers(what, array)
    codes, values = np.empty(len(column), dtype=np.int64), dict[tuple[type, Any], int]()
    for row, value in enumerate(column.astype(object)):
        missing = value is None or value is pd.NA or (isinstance(value, float) and value != value)
        value = value.item() if isinstance(value, np.generic) else value
        if not missing and not isinstance(value, str | int | float | bool):
            raise ArtifactError(
                f"{what} holds a {type(value).__name__}; accepted are numbers, booleans and text"
            )
        codes[row] = -1 if missing else values.setdefault((type(value), value), len(values))
    smallest = np.min_scalar_type(-max(len(values), 1))
    return [value for _, value in values], torch.from_numpy(codes.astype(smallest))


def _numbers(what: str, array: np.ndarray) -> Tensor:
    try:
        tensor = torch.from_numpy(array.copy())
    except TypeError:
        tensor = torch.empty(0, dtype=torch.complex64)
    if tensor.dtype not in _DTYPES:
        raise ArtifactError(f"{what} holds {array.dtype}, which the file cannot")
    return tensor


def _replace(path: Path, entries: dict[str, bytes]) -> None:
    size = sum(len(blob) for blob in entries.values())
    if size > _LARGEST - 2**16:
        raise ArtifactError(f"{path} would take {size / 2**30:.1f} GiB; at most 4 GiB fit")
    if not path.parent.is_dir():
        raise ArtifactError(f"cannot write {path}: there is no folder {path.parent}")
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            _zip(file, entries)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def _zip(file: BinaryIO, entries: dict[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, blob in entries.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system, info.external_attr = 3, 0o644 << 16
            archive.writestr(info, blob)


# -- read -----------------------------------------------------------------------------------------


def read(path: str | Path) -> Artifact:
    """Read a ``.us`` file.

    Raises
    ------
    ArtifactError
        If it cannot be opened or is not exactly what `write` makes; one sentence says what is
        wrong.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _read(path, file)
    except FileNotFoundError:
        raise ArtifactError(f"there is no file {path}") from None
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error


def kind_of(path: str | Path) -> str:
    """What a ``.us`` file says that it holds, without reading the rest.

    Raises
    ------
    ArtifactError
        As `read`.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            _check_ends(path, file)
            with zipfile.ZipFile(file) as archive:
                _check_entries(path, archive.infolist())
                return str(_manifest(path, archive.read(_MANIFEST))["kind"])
    except FileNotFoundError:
        raise ArtifactError(f"there is no file {path}") from None
    except ArtifactError:
        raise
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error
    except _ZIP_ERRORS as error:
        raise ArtifactError(f"{path} is damaged: {_brief(error)}") from error


def _read(path: Path, file: BinaryIO) -> Artifact:
    _check_ends(path, file)
    try:
        with zipfile.ZipFile(file) as archive:
            _check_entries(path, archive.infolist())
            blobs = {info.filename: archive.read(info) for info in archive.infolist()}
    except ArtifactError:
        raise
    except _ZIP_ERRORS as error:
        raise ArtifactError(f"{path} is damaged: {_brief(error)}") from error
    manifest = _manifest(path, blobs.pop(_MANIFEST))
    head = _head(path, manifest.pop(_RESERVED, None))
    _check_sums(path, head["entries"], blobs)
    tensors = _unpacked(path, _TENSORS, blobs.pop(_TENSORS))
    if set(head["tables"]) != {_TABLE.fullmatch(entry)[1] for entry in blobs}:  # type: ignore[index]
        raise ArtifactError(f"{path} is damaged: its tables are not those that it lists")
    tables = {
        name: _table(path, name, head["tables"][name], _unpacked(path, entry, blobs[entry]))
        for name, entry in ((name, f"tables/{name}.safetensors") for name in head["tables"])
    }
    return Artifact(manifest, tensors, tables)


def _check_ends(path: Path, file: BinaryIO) -> None:
    """Check the first and last bytes before the archive's own directory is believed."""
    start, size = file.read(4), file.seek(0, os.SEEK_END)
    if not start.startswith(b"PK\x03\x04"):
        found = "it is empty" if size == 0 else "it is no zip archive"
        raise ArtifactError(f"{path} is not an Understudy file: {found}")
    if size > _LARGEST:
        raise ArtifactError(f"{path} has {size / 2**30:.1f} GiB; at most 4 GiB are accepted")
    file.seek(max(size - 42, 0))
    tail = file.read()
    if len(tail) < 42 or tail[-22:-18] != b"PK\x05\x06":
        raise ArtifactError(f"{path} is truncated, or something was added at its end")
    entries, directory, _, comment = struct.unpack("<HIIH", tail[-12:])
    if tail[:4] == b"PK\x06\x07" or comment or entries > _MOST_ENTRIES or directory > 2**16:
        raise ArtifactError(f"{path} is not an Understudy file: its directory has another form")
    file.seek(0)


def _check_entries(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    names = [info.orig_filename for info in infos]
    if _MANIFEST not in names:
        raise ArtifactError(f"{path} is a zip archive of another program: it has no {_MANIFEST}")
    for name in names:
        if name not in (_MANIFEST, _TENSORS) and _TABLE.fullmatch(name) is None:
            raise ArtifactError(f"{path} holds {name[:80]!r}, which no Understudy file has")
        if names.count(name) > 1:
            raise ArtifactError(f"{path} holds {name!r} more than once")
    if _TENSORS not in names:
        raise ArtifactError(f"{path} is incomplete: it has no {_TENSORS}")
    if min(info.header_offset for info in infos) != 0:
        raise ArtifactError(f"{path} has something before its first entry")
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ArtifactError(f"{path} holds {info.filename!r} compressed; it must be stored")
        if info.flag_bits & 1 or info.header_offset < end:
            raise ArtifactError(f"{path} holds {info.filename!r} encrypted or overlapping another")
        end = info.header_offset + info.file_size
        if info.filename == _MANIFEST and info.file_size > _LARGEST_MANIFEST:
            raise ArtifactError(f"{path} has a manifest of {info.file_size:,} bytes: too large")


def _manifest(path: Path, blob: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(
            blob.decode(),
            object_pairs_hook=_unique,
            parse_constant=_not_finite,
            parse_float=_finite,
            parse_int=_bounded,
        )
    except RecursionError:
        raise ArtifactError(f"{path} has a manifest that is nested too deeply") from None
    except ValueError as error:
        raise ArtifactError(
            f"{path} has a manifest that is not strict JSON: {_brief(error)}"
        ) from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("kind"), str):
        raise ArtifactError(f"{path} has a manifest that does not say what kind of thing it is")
    return manifest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise ValueError("a key is given twice")
    return record


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text} is no finite number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _not_finite(text[:40])


def _bounded(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a whole number has {len(text)} digits")
    return int(text)


def _head(path: Path, head: Any) -> dict[str, Any]:
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise ArtifactError(f"{path} is not an Understudy file: its manifest names no such format")
    version = head.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ArtifactError(f"{path} has the format version {str(version)[:40]}, which is none")
    if version > VERSION:
        raise ArtifactError(
            f"{path} was written by a newer Understudy (format {version}; this one reads up to "
            f"{VERSION}): upgrade to read it"
        )
    if not isinstance(head.get("entries"), dict) or not isinstance(head.get("tables"), dict):
        raise ArtifactError(f"{path} is damaged: its manifest does not list its entries")
    return head


def _check_sums(path: Path, listed: dict[str, Any], blobs: dict[str, bytes]) -> None:
    if set(listed) != set(blobs):
        raise ArtifactError(f"{path} is damaged: its entries are not those that it lists")
    for name, blob in blobs.items():
        expected = {"bytes": len(blob), "sha256": hashlib.sha256(blob).hexdigest()}
        if listed[name] != expected:
            raise ArtifactError(f"{path} is damaged: {name} does not match its checksum")


def _unpacked(path: Path, entry: str, blob: bytes) -> dict[str, Tensor]:
    try:
        tensors = load(blob)
    except _TENSOR_ERRORS as error:
        raise ArtifactError(f"{path} has invalid tensors in {entry}: {_brief(error)}") from error
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise ArtifactError(f"{path} holds {name[:80]!r} as {tensor.dtype} in {entry}")
    return tensors


def _table(path: Path, name: str, described: Any, tensors: dict[str, Tensor]) -> pd.DataFrame:
    try:
        columns = [*described["columns"], described["index"]]
        if set(tensors) != {str(k) for k in range(len(columns))}:
            raise ValueError("it has other columns than it lists")
        if len({tensor.shape for tensor in tensors.values()}) != 1 or tensors["0"].ndim != 1:
            raise ValueError("its columns differ in length")
        series = [_series(column["values"], tensors[str(k)]) for k, column in enumerate(columns)]
        names = [_label(column["name"]) for column in columns]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} has an invalid table {name!r}: {_brief(error)}") from error
    index = pd.Index(series[-1], name=names[-1])
    table = pd.DataFrame(dict(enumerate(series[:-1])), index=range(len(index)))
    return table.set_axis(pd.Index(names[:-1]), axis=1).set_axis(index, axis=0)


def _label(name: Any) -> str | None:
    if name is not None and not isinstance(name, str):
        raise ValueError(f"a column is named {str(name)[:40]}")
    return name


def _series(values: Any, tensor: Tensor) -> pd.Series:
    if values is None:
        return pd.Series(tensor.numpy())
    _check_values(values)
    codes = tensor.numpy()
    if codes.dtype.kind != "i" or (codes < -1).any() or (codes >= len(values)).any():
        raise ValueError("a text column has codes outside its values")
    lookup = np.empty(len(values) + 1, dtype=object)
    lookup[:-1], lookup[-1] = values, None
    kinds = {type(value) for value in values}
    text = kinds <= {str} and len(values) > 0
    return pd.Series(lookup[codes], dtype="str" if text else object)


def _check_values(values: Iterable[Any]) -> None:
    if not isinstance(values, list) or not all(isinstance(v, str | int | float) for v in values):
        raise ValueError("a text column has values that are neither numbers, booleans nor text")


def _brief(error: Exception) -> str:
    """One line of an error's text, which may quote the file."""
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
