"""Graphs as ONNX files: written, described in themselves, and compared with what they stand for."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from understudy import __version__
from understudy.core.errors import UserError
from understudy.serve.graphs.special import decompositions

OPSET = 20
"""Version of the operators; ONNX Runtime reads it from 1.17 on."""

PARITY = 1e-5
"""Largest relative difference from PyTorch that is accepted."""

_DOUBLE = 11


@dataclass(frozen=True)
class Graph:
    """What is written to a file.

    Parameters
    ----------
    module : Module
    example : tuple of Tensor
        Inputs of a batch of at least 3.
    inputs, outputs : tuple of str
        Names, in the order of the module's.
    description : mapping
        JSON-able; kept in the model's metadata under ``understudy.KEY``.
    """

    module: nn.Module
    example: tuple[Tensor, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    description: Mapping[str, Any]


def to_onnx(graph: Graph) -> bytes:
    """Return the ONNX model of a graph; the first dimension of all inputs and outputs is free.

    Raises
    ------
    UserError
        The extra ``serve`` is missing, or PyTorch has no graph of the module.
    """
    model = _model(graph)
    _name(model.graph, graph.inputs, graph.outputs)
    del model.metadata_props[:]
    described = {"version": __version__, **graph.description}
    for key, value in described.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        model.metadata_props.add(key=f"understudy.{key}", value=text)
    model.producer_name, model.producer_version = "understudy", __version__
    for node in _nodes_of(model.graph):
        del node.metadata_props[:]
        node.doc_string = ""
    return bytes(model.SerializeToString())


def _model(graph: Graph) -> Any:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f"ONNX needs the extra serve ({error.name} is missing): pip install 'understudy[serve]'"
        ) from None
    rows = torch.export.Dim("rows", min=1)
    with torch.no_grad(), _quiet():
        try:
            program = torch.export.export(
                graph.module.eval(),
                graph.example,
                dynamic_shapes=tuple({0: rows} for _ in graph.example),
                strict=False,
            )
            program = program.run_decompositions(_decompositions())
            written = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                optimize=False,  # it takes minutes; ONNX Runtime does the same when it reads
                custom_translation_table=_doubles(),
            )
        except (RuntimeError, torch.onnx.OnnxExporterError) as error:
            reason = str(error).strip().splitlines()
            raise UserError(
                f"PyTorch cannot make an ONNX graph of this: {reason[0] if reason else error!r}"
            ) from error
    assert written is not None
    return written.model_proto


def _decompositions() -> dict[Any, Callable[..., Any]]:
    return {**torch.export.default_decompositions(), **decompositions()}


def _doubles() -> dict[Any, Callable[..., Any]]:
    """Constants in the precision of their tensors; PyTorch's own pass through single precision."""
    from onnx import helper
    from onnxscript import opset20 as op

    def constant(value: float, dtype: int) -> Any:
        kind = 1 if dtype == -1 else dtype
        return op.Constant(value=helper.make_tensor("scalar", kind, [], [value]))

    def scalar_tensor(
        s: float, dtype: int = -1, layout: str = "", device: str = "", pin_memory: bool = False
    ) -> Any:
        return constant(s, dtype)

    def full(
        size: Any,
        fill_value: float,
        dtype: int = -1,
        layout: str = "",
        device: str = "",
        pin_memory: bool = False,
    ) -> Any:
        shape: Any = op.Cast(size, to=7)
        return op.Expand(constant(fill_value, dtype), shape)

    def full_like(
        x: Any,
        fill_value: float,
        dtype: int = -1,
        layout: str = "",
        device: str = "",
        pin_memory: bool = False,
        memory_format: str = "",
    ) -> Any:
        kept = dtype != -1
        value = constant(fill_value, dtype if kept else _DOUBLE)
        return op.Expand(value if kept else op.CastLike(value, x), op.Shape(x))

    def silu_backward(gradient: Any, x: Any) -> Any:
        one = op.CastLike(constant(1.0, _DOUBLE), x)
        s = op.Sigmoid(x)
        slope = op.Mul(s, op.Add(one, op.Mul(x, op.Sub(one, s))))
        return op.Mul(gradient, slope)

    aten = torch.ops.aten
    return {
        aten.silu_backward.default: silu_backward,
        aten.scalar_tensor.default: scalar_tensor,
        aten.full.default: full,
        aten.full_like.default: full_like,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch's progress and warnings to itself."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _name(graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give inputs and outputs their names, and another to whatever had one of them."""
    ends = [*graph.input, *graph.output]
    names = {end.name: new for end, new in zip(ends, (*inputs, *outputs), strict=True)}
    taken = set(names.values())

    def renamed(name: str) -> str:
        return names.get(name, f"{name}_within" if name in taken else name)

    for node in _nodes_of(graph):
        for values in (node.input, node.output):
            values[:] = [renamed(name) for name in values]
    for each in _values_of(graph):
        each.name = renamed(each.name)


def _values_of(graph: Any) -> Iterator[Any]:
    yield from (*graph.input, *graph.output, *graph.initializer, *graph.value_info)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _values_of(attribute.g)


def _nodes_of(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes_of(attribute.g)


# -- running -------------------------------------------------------------------------------------


def session(model: bytes | Path, threads: int | None = None) -> Any:
    """Open a model in ONNX Runtime on the processor.

    Parameters
    ----------
    model : bytes or Path
    threads : int, optional
        As many as PyTorch has, by default.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(session: Any, arrays: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Outputs of a session for its inputs, in order."""
    names = [each.name for each in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))


def difference(
    found: Sequence[NDArray[Any]], wanted: Sequence[NDArray[Any]], spread: NDArray[Any]
) -> float:
    """Largest difference of outputs, over the larger of the value and the outputs' spread.

    Parameters
    ----------
    found, wanted : sequence of ndarray (n, m, ...)
    spread : ndarray (m,)
        Below which a difference counts as one of rounding about zero.
    """
    worst = 0.0
    for have, want in zip(found, wanted, strict=True):
        least = spread.reshape(1, -1, *[1] * (want.ndim - 2))
        apart = np.abs(have - want) / np.maximum(np.abs(want), least)
        worst = max(worst, float(np.nan_to_num(apart, nan=np.inf).max()))
    return worst


def digest(path: Path) -> str:
    """SHA-256 of a file, by which a graph knows whose it is."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(path: Path, model: bytes) -> Path:
    """Write a model to a file, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(model)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    return path
