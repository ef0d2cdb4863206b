"""From a ``.us`` file to an ONNX file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from understudy.core import artifact
from understudy.core.errors import UserError
from understudy.core.operator import Operator
from understudy.models.operators.stored import load_operator
from understudy.models.tabular.fitted import load
from understudy.serve.graphs import fields, tabular
from understudy.serve.graphs.onnx_file import OPSET, PARITY, digest, session, to_onnx, write


def export(path: str | Path, output: str | Path, member: str | None = None) -> dict[str, Any]:
    """Write what a ``.us`` file holds as an ONNX graph, once it agrees with PyTorch.

    Parameters
    ----------
    path : str or Path
        A surrogate of a table, or an operator.
    output : str or Path
    member : str, optional
        Only this member of a surrogate: mean and deviation, not calibrated.

    Returns
    -------
    dict
        JSON-able: file, bytes, opset, names, types and shapes of inputs and outputs, the metadata,
        and the largest relative difference from PyTorch at random inputs.

    Raises
    ------
    UserError
        What cannot be a graph, and numbers that differ from PyTorch's by more than
        `onnx_file.PARITY`.
    """
    if artifact.read(Path(path)).manifest.get("kind") in ("operator", "sound-operator"):
        if member is not None:
            raise UserError("an operator has no members; leave --member out")
        operator = load_operator(path)
        if not isinstance(operator, Operator):
            raise UserError(f"{path} holds a {operator.model!r}, which cannot be a graph yet")
        model = to_onnx(fields.operator_graph(operator))
        opened = session(model)
        apart = fields.parity(operator, opened)
    else:
        surrogate = load(path)
        if member is None:
            graph = tabular.surrogate_graph(surrogate)
            source = {"source": digest(Path(path))}
            model = to_onnx(replace(graph, description={**graph.description, **source}))
            opened = session(model)
            apart = tabular.parity(surrogate, opened)
        else:
            model = to_onnx(tabular.single_graph(surrogate, member))
            opened = session(model)
            apart = tabular.member_parity(surrogate, member, opened)
    if not apart <= PARITY:
        raise UserError(
            f"the graph of {path} differs from PyTorch by {apart:.1e}, more than {PARITY:.0e}, "
            "and was not written"
        )
    write(Path(output), model)
    return {
        "file": str(output),
        "bytes": len(model),
        "opset": OPSET,
        "inputs": [_end(each) for each in opened.get_inputs()],
        "outputs": [_end(each) for each in opened.get_outputs()],
        "metadata": dict(opened.get_modelmeta().custom_metadata_map),
        "difference": apart,
    }


def _end(each: Any) -> dict[str, Any]:
    kind = each.type.removeprefix("tensor(").removesuffix(")")
    return {"name": each.name, "type": kind, "shape": ["rows", *each.shape[1:]]}
