"""``understudy export``."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Program


@pytest.mark.slow
def test_a_graph_is_written_and_described(program: Program, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "wing.onnx"
    done = program("export", model, "--onnx", "-o", path, "--json")
    assert done.code == 0
    assert path.stat().st_size == done.record["bytes"]
    assert [each["name"] for each in done.record["outputs"]] == ["mean", "sd", "lower", "upper"]
    assert done.record["opset"] == 20
    assert done.record["difference"] < 1e-5


def test_the_format_must_be_named(program: Program, model: Path) -> None:
    done = program("export", model)
    assert (done.code, done.out) == (2, "")
    assert "--onnx writes an ONNX graph" in done.err


def test_a_model_is_not_replaced_by_its_graph(program: Program, model: Path) -> None:
    done = program("export", model, "--onnx", "-o", model)
    assert (done.code, "would replace a file that is read" in done.err) == (2, True)


def test_a_member_that_is_none_is_refused(program: Program, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "wing.onnx"
    done = program("export", model, "--onnx", "-o", path, "--member", "forest")
    assert (done.code, "there is no member 'forest'" in done.err) == (2, True)
    assert not path.exists()
