"""``understudy report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from understudy.cli.options import Json, Model, Quiet, readable, writable

EXAMPLE = "[bold]Example[/]\n\nunderstudy report wing.us -o wing.html --open"


def report(
    model: Model,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="HTML file to write; by default MODEL with .html."),
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write one HTML page about a surrogate."""
    model = readable(model)
    path = writable(output or model.with_suffix(".html"), "--output", others=(model,))
    import understudy
    from understudy.cli.console import print_json
    from understudy.cli.summary import print_file

    understudy.write_report(understudy.load(model), path)
    if json:
        print_json({"file": str(model), "report": str(path)})
    elif not quiet:
        print_file(path)
    if open_it:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
