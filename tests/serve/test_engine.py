"""ONNX Runtime takes over from PyTorch where it is faster, and says the same."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from understudy.models.tabular.conformal import LEVELS
from understudy.models.tabular.fitted import FittedSurrogate
from understudy.serve.graphs.faster import FasterGraph, Making, beside
from understudy.serve.graphs.onnx_file import digest
from understudy.serve.hosted import HostedModel
from understudy.serve.limits import Limits

from .conftest import NEW_ROWS, started


@pytest.fixture(scope="module")
def graph(surrogate: FittedSurrogate, model: Path) -> FasterGraph:
    session = Making(model).session()
    assert session is not None
    return FasterGraph.of(surrogate, session)


@pytest.mark.slow
def test_a_graph_made_beside_the_service_is_faster_for_a_row(graph: FasterGraph) -> None:
    assert graph.rows >= 1
    assert graph.speedup[0] > 1.0


@pytest.mark.slow
def test_columns_are_those_of_the_surrogate(graph: FasterGraph, surrogate: FittedSurrogate) -> None:
    X = surrogate.space.encode(surrogate.space.sample(20, seed=4))
    for levels in (LEVELS, (0.9,), ()):
        found, wanted = graph.columns(X, levels), surrogate.columns(X, levels)
        assert list(found) == list(wanted)
        for name, column in wanted.items():
            np.testing.assert_allclose(found[name], column, rtol=1e-5)


@pytest.mark.slow
def test_other_levels_and_more_rows_are_left_to_the_surrogate(
    graph: FasterGraph, surrogate: FittedSurrogate
) -> None:
    assert graph.suits(graph.rows, (0.5, 0.95))
    assert not graph.suits(1, (0.33,))
    assert not graph.suits(graph.rows + 1, (0.9,))
    hosted = HostedModel("wing", surrogate, Limits())
    hosted.graph = graph
    X = surrogate.space.encode(surrogate.space.sample(2))
    found = hosted.batcher.submit((0.33,), X).result()
    assert "drag_lower_33" in found
    hosted.close()


class Zeros:
    """A session whose answers are zero."""

    def get_inputs(self) -> list[Any]:
        return [type("Input", (), {"name": "inputs"})]

    def run(self, names: None, feed: dict[str, Any]) -> list[Any]:
        rows = len(feed["inputs"])
        return [np.zeros((rows, 2))] * 2 + [np.zeros((rows, 2, 4))] * 2


def test_a_graph_that_says_something_else_is_not_used(surrogate: FittedSurrogate) -> None:
    with pytest.raises(ValueError, match="the graph differs"):
        FasterGraph.of(surrogate, Zeros())


def test_a_graph_beside_the_model_is_read_if_it_is_of_that_model(
    model: Path, tmp_path: Path
) -> None:
    from onnx import TensorProto, helper, save

    path = Path(shutil.copy(model, tmp_path / "wing.us"))
    assert beside(path) is None
    end = {name: helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None]) for name in "xy"}
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_model(
        helper.make_graph([node], "g", [end["x"]], [end["y"]]),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    told = graph.metadata_props.add(key="understudy.source", value="0" * 64)
    save(graph, tmp_path / "wing.onnx")
    assert beside(path) is None
    told.value = digest(path)
    save(graph, tmp_path / "wing.onnx")
    assert beside(path) is not None


def test_what_is_quick_is_not_handed_over(surrogate: FittedSurrogate) -> None:
    seen: list[int] = []
    hosted = HostedModel("wing", surrogate, Limits(), seen.append)
    X = surrogate.space.encode(surrogate.space.sample(4))
    assert hosted.at_once((0.9,), X) is None
    hosted.graph = FasterGraph(Zeros(), surrogate.targets, 4096, (), quick=3)
    found = hosted.at_once((0.9,), X[:3])
    assert found is not None
    assert list(found)[:4] == ["drag_mean", "drag_sd", "drag_lower_90", "drag_upper_90"]
    assert hosted.at_once((0.9,), X) is None
    assert hosted.at_once((0.33,), X[:1]) is None
    assert seen == [3]
    hosted.close()


@pytest.mark.slow
def test_a_file_that_has_no_graph_leaves_nothing_behind(tmp_path: Path) -> None:
    making = Making(tmp_path / "absent.us")
    folder = Path(making._folder.name)
    assert making.session() is None
    assert not folder.exists()


@pytest.mark.slow
def test_a_running_service_switches_and_answers_the_same(model: Path) -> None:
    service = started(model, "--onnx")
    try:
        before = service.predict(NEW_ROWS).record["predictions"]
        until = time.monotonic() + 300
        while not any('"event": "graph"' in line for line in service.lines):
            assert time.monotonic() < until
            service.predict(NEW_ROWS)
            time.sleep(0.05)
        line = next(line for line in service.lines if '"event": "graph"' in line)
        assert json.loads(line)["rows"] >= 1
        after = service.predict(NEW_ROWS).record["predictions"]
        for row, other in zip(before, after, strict=True):
            for name, value in row.items():
                wanted = other[name]
                assert value == (
                    wanted if isinstance(wanted, str) else pytest.approx(wanted, rel=1e-5)
                )
    finally:
        assert service.stop() == 0
