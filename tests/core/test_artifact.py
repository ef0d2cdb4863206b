"""One file holds a fitted thing bit for bit, and nothing else is read as one."""

from __future__ import annotations

import io
import json
import os
import pickle
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor

from understudy.core import artifact
from understudy.core.artifact import ArtifactError, read, write

MANIFEST = {"kind": "thing", "names": ["a", "b"], "scale": 0.1}
TENSORS = {"weights": torch.arange(6, dtype=torch.float64).reshape(2, 3), "n": torch.tensor(3)}
TABLE = pd.DataFrame(
    {
        "x": [0.1, -0.0, np.nan],
        "count": [1, 2, 3],
        "ok": [True, False, True],
        "s": ["a", None, "é"],
    },
    index=pd.Index([4, 7, 9], name="row"),
)

DTYPES = {
    torch.float64: st.floats(width=64),
    torch.float32: st.floats(width=32),
    torch.float16: st.floats(width=16),
    torch.int64: st.integers(-(2**63), 2**63 - 1),
    torch.uint8: st.integers(0, 255),
    torch.bool: st.booleans(),
}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc"), inner, max_size=4),
    max_leaves=20,
)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(list(DTYPES)))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    size = int(np.prod(shape, dtype=int))
    values = draw(st.lists(DTYPES[dtype], min_size=size, max_size=size))
    return torch.tensor(values, dtype=dtype).reshape(shape)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "thing.us"
    return write(path, MANIFEST, TENSORS, {"runs": TABLE}).read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "thing.us"


def bits(tensor: Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().numpy().tobytes()


def entries_of(blob: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(blob)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def rewritten(whole: bytes, **changes: Any) -> bytes:
    """Return the file with entries replaced, its list of checksums brought up to date."""
    entries = entries_of(whole)
    manifest = changes.pop("manifest", lambda text: text)
    entries.update({name.replace("__", "/"): content for name, content in changes.items()})
    head = json.loads(entries["manifest.json"])
    for name, content in entries.items():
        if name != "manifest.json":
            digest = artifact.hashlib.sha256(content).hexdigest()
            head["artifact"]["entries"][name] = {"bytes": len(content), "sha256": digest}
    entries["manifest.json"] = manifest(json.dumps(head)).encode()
    return zipped(list(entries.items()))


def refused(path: Path, blob: bytes, words: str) -> None:
    path.write_bytes(blob)
    with pytest.raises(ArtifactError, match=words) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


# -- round trip -----------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.dictionaries(st.text("abc.", min_size=1, max_size=5), tensors(), max_size=5))
def test_tensors_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, given_tensors: dict[str, Tensor]
) -> None:
    path = tmp_path_factory.mktemp("a") / "a.us"
    back = read(write(path, MANIFEST, given_tensors)).tensors
    assert {k: bits(v) for k, v in back.items()} == {k: bits(v) for k, v in given_tensors.items()}


@settings(max_examples=50)
@given(st.dictionaries(st.text("abc"), json_values, max_size=5))
def test_the_manifest_comes_back_equal(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("a") / "a.us"
    given_manifest = {"kind": "thing", "content": content}
    assert read(write(path, given_manifest, {})).manifest == given_manifest


@settings(max_examples=50)
@given(
    st.lists(st.floats(), max_size=6),
    st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]))),
)
def test_columns_of_a_table_come_back_equal(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[float], texts: list[str | None]
) -> None:
    path = tmp_path_factory.mktemp("a") / "a.us"
    tables = {
        "numbers": pd.DataFrame({"x": np.array(numbers)}),
        "texts": pd.DataFrame({"s": pd.Series(texts, dtype=object)}),
    }
    back = read(write(path, MANIFEST, {}, tables)).tables
    assert back["numbers"]["x"].to_numpy().tobytes() == np.array(numbers).tobytes()
    assert (
        back["texts"]["s"].astype(object).where(back["texts"]["s"].notna(), None).tolist() == texts
    )


def test_a_table_keeps_its_kinds_index_and_order(path: Path) -> None:
    back = read(write(path, MANIFEST, {}, {"runs": TABLE})).tables["runs"]
    pd.testing.assert_frame_equal(back, TABLE)


def test_values_of_mixed_kinds_keep_their_kinds(path: Path) -> None:
    mixed = [1, True, "1", 1.0, None]
    table = pd.DataFrame({"m": pd.Series(mixed, dtype=object)})
    back = read(write(path, MANIFEST, {}, {"t": table})).tables["t"]["m"].tolist()
    assert [(type(v), v) for v in back] == [(type(v), v) for v in mixed]


def test_an_empty_table_comes_back_with_its_columns(path: Path) -> None:
    table = pd.DataFrame({"x": np.empty(0)})
    back = read(write(path, MANIFEST, {}, {"t": table})).tables["t"]
    assert list(back.columns) == ["x"]
    assert len(back) == 0


def test_tensors_that_share_memory_or_are_views_are_stored_whole(path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    views = {"all": base, "column": base[:, 1], "turned": base.T, "wide": base[:1].expand(5, 4)}
    back = read(write(path, MANIFEST, views)).tensors
    assert all(torch.equal(back[name], view) for name, view in views.items())


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    turned = dict(reversed(list(TENSORS.items())))
    one = write(tmp_path / "1.us", MANIFEST, TENSORS, {"runs": TABLE})
    two = write(tmp_path / "2.us", dict(reversed(list(MANIFEST.items()))), turned, {"runs": TABLE})
    assert one.read_bytes() == two.read_bytes()


# -- write ----------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, MANIFEST, TENSORS)
    before = path.read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifact.os, "fsync", full)
    with pytest.raises(ArtifactError, match="No space left on device"):
        write(path, MANIFEST, {})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"there is no folder .*absent"):
        write(tmp_path / "absent" / "a.us", MANIFEST, {})


def test_the_file_has_the_permissions_of_any_new_file(path: Path) -> None:
    (path.parent / "other").touch()
    write(path, MANIFEST, {})
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((path.parent / "other").stat().st_mode)


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({}, "needs a text under 'kind'"),
        ({"kind": "a", "artifact": {}}, "'artifact'"),
        ({"kind": "a", "x": float("nan")}, "strict JSON"),
        ({"kind": "a", "x": object()}, "object is no JSON value"),
    ],
)
def test_a_manifest_that_json_cannot_hold_is_refused(
    path: Path, manifest: dict[str, Any], words: str
) -> None:
    with pytest.raises(ArtifactError, match=words):
        write(path, manifest, {})
    assert not path.exists()


@pytest.mark.parametrize(
    "tensor", [torch.zeros(2, dtype=torch.complex64), torch.eye(2).to_sparse()]
)
def test_a_tensor_of_another_kind_is_refused_by_name(path: Path, tensor: Tensor) -> None:
    with pytest.raises(ArtifactError, match="'odd'"):
        write(path, MANIFEST, {"odd": tensor})


def test_a_column_that_is_neither_number_nor_text_is_refused_by_name(path: Path) -> None:
    table = pd.DataFrame({"when": pd.to_datetime(["2020-01-01"])})
    with pytest.raises(ArtifactError, match="column 'when' of table 'runs'"):
        write(path, MANIFEST, {}, {"runs": table})


def test_a_table_cannot_be_named_like_a_path(path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"'\.\./runs'"):
        write(path, MANIFEST, {}, {"../runs": TABLE})


# -- hostile files --------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.data())
def test_a_truncated_file_is_refused(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, data: st.DataObject
) -> None:
    length = data.draw(st.integers(0, len(whole) - 1))
    refused(tmp_path_factory.mktemp("a") / "a.us", whole[:length], "empty|no zip|truncated")


@settings(max_examples=200)
@given(st.data())
def test_a_changed_byte_is_refused_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("a") / "a.us"
    path.write_bytes(changed)
    try:
        back = read(path)
    except ArtifactError:
        return
    assert back.manifest == MANIFEST
    assert {k: bits(v) for k, v in back.tensors.items()} == {k: bits(v) for k, v in TENSORS.items()}
    pd.testing.assert_frame_equal(back.tables["runs"], TABLE)


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("a") / "a.us"
    refused(path, noise, "not an Understudy file|truncated")
    refused(path, b"PK\x03\x04" + noise, "truncated|not an Understudy file|damaged|another program")


def test_a_missing_file_a_folder_and_an_empty_file_are_refused(tmp_path: Path, path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no file"):
        read(path)
    with pytest.raises(ArtifactError, match="cannot read"):
        read(tmp_path)
    refused(path, b"", "it is empty")


def test_a_pickle_is_never_loaded(path: Path, whole: bytes) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return os.mkdir, (str(path.parent / "sprung"),)

    trap = pickle.dumps(Trap())
    refused(path, trap, "no zip archive")
    refused(path, zipped([("archive/data.pkl", trap)]), "another program")
    entries = list(entries_of(whole).items())
    refused(path, zipped([*entries, ("data.pkl", trap)]), r"holds 'data\.pkl'")
    refused(path, rewritten(whole, **{"tensors.safetensors": trap}), "invalid tensors")
    torch.save(Trap(), path)
    refused(path, path.read_bytes(), "another program|another form")
    assert not (path.parent / "sprung").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../evil.safetensors",
        "/etc/evil",
        "tables/../../evil.safetensors",
        "C:\\evil",
        "tables/",
        "tables/runs.safetensors\0.txt",
        "tables/" + 65 * "a" + ".safetensors",
        "tables/ru\u202ens.safetensors",
    ],
)
def test_an_entry_with_any_other_name_is_refused(path: Path, whole: bytes, name: str) -> None:
    blob = zipped([*entries_of(whole).items(), (name.replace("\0", "#"), b"x")])
    if "\0" in name:
        blob = blob.replace(name.replace("\0", "#").encode(), name.encode())
    refused(path, blob, "which no Understudy file has")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_given_twice_is_refused(path: Path, whole: bytes) -> None:
    entries = list(entries_of(whole).items())
    refused(path, zipped([*entries, entries[1]]), "more than once")


def test_compressed_entries_and_so_bombs_are_refused_before_they_are_read(
    path: Path, whole: bytes
) -> None:
    entries = entries_of(whole)
    bomb = zipped(
        [*entries.items(), ("tables/bomb.safetensors", bytes(10**7))], zipfile.ZIP_DEFLATED
    )
    refused(path, bomb, "must be stored")


def test_a_size_that_the_file_cannot_have_is_refused(path: Path, whole: bytes) -> None:
    directory = bytearray(whole)
    at = whole.index(b"PK\x01\x02", whole.index(b"PK\x01\x02") + 1)
    for offset in (20, 24):
        struct.pack_into("<I", directory, at + offset, 2**31)
    refused(path, bytes(directory), "overlapping|damaged")


def test_overlapping_entries_are_refused(path: Path, whole: bytes) -> None:
    directory = bytearray(whole)
    last = whole.rindex(b"PK\x01\x02")
    struct.pack_into("<I", directory, last + 42, 1)
    refused(path, bytes(directory), "overlapping|damaged")


def test_a_directory_of_millions_of_entries_is_refused_unread(path: Path, whole: bytes) -> None:
    tail = bytearray(whole)
    struct.pack_into("<HH", tail, len(tail) - 14, 60_000, 60_000)
    refused(path, bytes(tail), "another form")
    many = [(f"tables/{k}.safetensors", b"") for k in range(70)]
    refused(path, zipped([*entries_of(whole).items(), *many]), "another form")


@pytest.mark.parametrize("extra", [b"x", b"PK\x05\x06" + bytes(17)])
def test_something_appended_or_prepended_is_refused(path: Path, whole: bytes, extra: bytes) -> None:
    refused(path, whole + extra, "added at its end|another form|damaged")
    refused(path, b"PK\x03\x04" + extra + whole, "before its first entry|damaged")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not strict JSON"),
        ("{", "not strict JSON"),
        ("[]", "what kind"),
        ('{"kind": 3}', "what kind"),
        ('{"kind": "a", "x": NaN}', "NaN is no finite number"),
        ('{"kind": "a", "x": 1e999}', "1e999 is no finite number"),
        ('{"kind": "a", "x": 1' + 30 * "0" + "}", "31 digits"),
        ('{"kind": "a", "kind": "b"}', "given twice"),
        ('{"kind": "a", "x": ' + 100_000 * "[" + 100_000 * "]" + "}", "nested too deeply"),
        ('{"kind": "a"}', "names no such format"),
        ('{"kind": "a", "artifact": []}', "names no such format"),
        ('{"kind": "a", "artifact": {"format": "understudy"}}', "format version None"),
        ('{"kind": "a", "artifact": {"format": "understudy", "version": true}}', "version True"),
        ('{"kind": "a", "artifact": {"format": "understudy", "version": 1}}', "does not list"),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused(
    path: Path, whole: bytes, text: str, words: str
) -> None:
    refused(path, rewritten(whole, manifest=lambda _: text), words)


def test_a_newer_format_says_to_upgrade(path: Path, whole: bytes) -> None:
    newer = rewritten(whole, manifest=lambda text: text.replace('"version": 1', '"version": 2'))
    refused(path, newer, "newer Understudy")


def test_a_missing_entry_is_refused(path: Path, whole: bytes) -> None:
    for name, words in [
        ("manifest.json", "another program"),
        ("tensors.safetensors", "incomplete"),
        ("tables/runs.safetensors", "not those that it lists"),
    ]:
        entries = {k: v for k, v in entries_of(whole).items() if k != name}
        refused(path, zipped(list(entries.items())), words)


def test_an_entry_that_does_not_match_its_checksum_is_refused(path: Path, whole: bytes) -> None:
    entries = entries_of(whole)
    entries["tensors.safetensors"] = save({"weights": torch.ones(2)})
    refused(path, zipped(list(entries.items())), "does not match its checksum")


def tensor_bytes(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        struct.pack("<Q", 2**62) + b"{}",
        tensor_bytes(b"not json", b""),
        tensor_bytes({"a": {"dtype": "F64", "shape": [4], "data_offsets": [0, 8]}}, bytes(8)),
        tensor_bytes({"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}, b""),
        tensor_bytes({"a": {"dtype": "F64", "shape": [1], "data_offsets": [8, 16]}}, bytes(16)),
        tensor_bytes({"a": {"dtype": "F64", "shape": [-1], "data_offsets": [0, 8]}}, bytes(8)),
        tensor_bytes({"a": {"dtype": "F64", "shape": [2**40, 2**40], "data_offsets": [0, 8]}}, b""),
        tensor_bytes({"a": {"dtype": "F64", "shape": [0, 2**63], "data_offsets": [0, 0]}}, b""),
        tensor_bytes({"a": {"dtype": "OBJ", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
        tensor_bytes({"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
        tensor_bytes({"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}, bytes(8)),
        tensor_bytes(10_000 * b"[" + 10_000 * b"]", b""),
    ],
)
def test_a_tensor_header_that_lies_is_refused(path: Path, whole: bytes, blob: bytes) -> None:
    refused(path, rewritten(whole, **{"tensors.safetensors": blob}), r"in tensors\.safetensors")


@pytest.mark.parametrize(
    "columns",
    [
        {"0": torch.zeros(2)},
        {"0": torch.zeros(2), "1": torch.zeros(3)},
        {"0": torch.zeros(2, 2), "1": torch.zeros(2, 2)},
        {"0": torch.zeros(2), "1": torch.zeros(2), "2": torch.zeros(2)},
    ],
)
def test_a_table_with_columns_that_do_not_fit_is_refused(
    path: Path, columns: dict[str, Tensor]
) -> None:
    table = pd.DataFrame({"x": [1.0, 2.0]})
    whole = write(path, MANIFEST, {}, {"runs": table}).read_bytes()
    blob = rewritten(whole, **{"tables__runs.safetensors": save(columns)})
    refused(path, blob, "invalid table 'runs'")


@pytest.mark.parametrize("values", [["a"], "ab", {"a": 1}, [["a"], ["b"]], [None, None]])
def test_a_text_column_with_values_that_do_not_fit_is_refused(path: Path, values: Any) -> None:
    whole = write(path, MANIFEST, {}, {"t": pd.DataFrame({"s": ["a", "b"]})}).read_bytes()

    def changed(text: str) -> str:
        head = json.loads(text)
        head["artifact"]["tables"]["t"]["columns"][0]["values"] = values
        return json.dumps(head)

    refused(path, rewritten(whole, manifest=changed), "invalid table 't'")
