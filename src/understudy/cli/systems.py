"""``understudy systems``."""

from __future__ import annotations

from typing import Annotated

import typer

from understudy.cli.options import Json

EXAMPLE = "[bold]Example[/]\n\nunderstudy systems --stage model --implemented"
_COLUMNS = {
    "slug": "system",
    "stage": "stage",
    "arxiv": "arXiv",
    "year": "year",
    "status": "status",
}


def systems(
    stage: Annotated[
        str | None, typer.Option("--stage", help="Only one: simulate, model, train, search, ...")
    ] = None,
    implemented: Annotated[
        bool, typer.Option("--implemented", help="Only those that are implemented.")
    ] = False,
    json: Json = False,
) -> None:
    """List the published methods, and which of them are implemented."""
    from understudy.cli.console import print_json, print_table, say
    from understudy.reproduce import systems_table

    rows = systems_table(stage=stage, implemented=True if implemented else None)
    if json:
        print_json({"systems": rows})
        return
    if rows:
        print_table(rows, _COLUMNS, left=tuple(_COLUMNS))
    ready = sum(row["status"] == "implemented" for row in rows)
    say(f"{len(rows)} systems, {ready} implemented")
