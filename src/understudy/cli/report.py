"""``understudy report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from understudy.cli.options import Json, Model, Quiet, readable, writable

if TYPE_CHECKING:
    from understudy.models.tabular.fitted import FittedSurrogate

EXAMPLE = "[bold]Example[/]\n\nunderstudy report wing.us -o wing.html --open"


def write_page(model: FittedSurrogate, path: Path, quiet: bool) -> None:
    """Write the report of a surrogate with its sensitivities, computed if it has none yet."""
    from understudy.cli.console import say
    from understudy.report import write_report

    if model.sensitivity_ is None:
        if not quiet:
            say("Computing sensitivities", stderr=True)
        model.sensitivity()
    write_report(model, path)


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

    write_page(understudy.load(model), path, quiet)
    if json:
        print_json({"file": str(model), "report": str(path)})
    elif not quiet:
        print_file(path)
    if open_it:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
