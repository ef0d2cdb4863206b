"""``understudy export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli.options import Json, Model, Quiet, readable, writable
from understudy.core.errors import UserError

EXAMPLE = "[bold]Example[/]\n\nunderstudy export wing.us --onnx -o wing.onnx"


def export(
    model: Model,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write an ONNX graph.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write; MODEL.onnx.", show_default=False),
    ] = None,
    member: Annotated[
        str | None,
        typer.Option(help="Only this member of a surrogate, not calibrated.", show_default=False),
    ] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write a surrogate or an operator as an ONNX graph."""
    model = readable(model)
    if not onnx:
        raise UserError("say what to write: --onnx writes an ONNX graph")
    output = writable(output or model.with_suffix(".onnx"), "--output", others=(model,))
    try:
        from understudy.serve.graphs.files import export as write
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("understudy"):
            raise
        raise UserError(
            f"ONNX needs the extra serve ({error.name} is missing): pip install 'understudy[serve]'"
        ) from None
    done = write(model, output, member)
    if json:
        from understudy.cli.console import print_json

        print_json(done)
    elif not quiet:
        from understudy.cli.console import say

        say(f"{done['file']}: {done['bytes'] / 2**20:.1f} MiB, opset {done['opset']}")
        for role in ("inputs", "outputs"):
            for each in done[role]:
                shape = ", ".join(map(str, each["shape"]))
                say(f"  {role[:-1]} {each['name']}: {each['type']} ({shape})")
        say(f"  largest relative difference from PyTorch: {done['difference']:.1e}")
