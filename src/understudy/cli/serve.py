"""``understudy serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli.options import readable
from understudy.core.errors import UserError

EXAMPLE = "[bold]Example[/]\n\nunderstudy serve wing.us --port 8000"


def serve(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...", help=".us files of surrogates and operators.", show_default=False
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen at; other machines need --token-file.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="File with a bearer token a line.", show_default=False)
    ] = None,
    max_body: Annotated[int, typer.Option(min=1, help="Largest body, MiB.")] = 32,
    max_rows: Annotated[int, typer.Option(min=1, help="Rows of a request at most.")] = 100_000,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that an answer may take.")
    ] = 30.0,
    body_timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that a request's head or body may take.")
    ] = 10.0,
    max_requests: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 64,
    onnx: Annotated[
        bool, typer.Option("--onnx/--no-onnx", help="Use ONNX Runtime where it is faster.")
    ] = True,
    ray: Annotated[bool, typer.Option("--ray", help="As replicas of Ray Serve.")] = False,
    replicas: Annotated[int, typer.Option(min=1, help="Processes that answer, with --ray.")] = 2,
    ray_address: Annotated[
        str | None, typer.Option(help="Running cluster, with --ray.", show_default=False)
    ] = None,
) -> None:
    """Serve surrogates and operators over HTTP."""
    models = [readable(model) for model in models]
    token_file = None if token_file is None else readable(token_file)
    try:
        from understudy.serve.server import serve as run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("understudy"):
            raise
        raise UserError(
            f"serving needs the extra serve ({error.name} is missing): "
            "pip install 'understudy[serve]'"
        ) from None
    from understudy.serve.limits import Limits

    limits = Limits(
        body_bytes=max_body * 2**20,
        rows=max_rows,
        seconds=timeout,
        body_seconds=body_timeout,
        in_flight=max_requests,
        per_client=max(1, max_requests // 2),
    )
    if ray:
        from understudy.serve.on_ray import serve_on_ray

        serve_on_ray(models, host, port, token_file, limits, replicas, ray_address, onnx)
        return
    run(models, host, port, token_file, limits, onnx)
