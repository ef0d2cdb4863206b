"""``understudy reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from understudy.cli.options import Json, Seed

EXAMPLE = "[bold]Example[/]\n\nunderstudy reproduce bnn-bo --scale cpu"
_COLUMNS = {
    "statement": "claim",
    "metric": "metric",
    "bar": "bar",
    "measured": "measured",
    "holds": "holds",
    "reason": "reason",
}


def reproduce(
    slug: Annotated[
        str,
        typer.Argument(
            metavar="SLUG", help="A system: see `understudy systems`.", show_default=False
        ),
    ],
    scale: Annotated[
        str, typer.Option(help="smoke: seconds; cpu: minutes; paper: as in the paper.")
    ] = "cpu",
    seed: Seed = 0,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")] = Path(
        "results"
    ),
    json: Json = False,
) -> None:
    """Measure what the paper of a method claims."""
    from understudy.cli.console import print_json, print_table, say
    from understudy.reproduce import reproduce as measure
    from understudy.reproduce import result_path

    outcome = measure(slug, scale, seed, output)
    if json:
        import json as text

        print_json(text.loads(outcome.to_json()))
        return
    rows = [_row(claim) for claim in outcome.claims]
    print_table(rows, _COLUMNS, left=("statement", "metric", "reason"))
    say(f"{result_path(slug, scale, output)} ({outcome.seconds:.0f} s)")


def _row(claim: Any) -> dict[str, Any]:
    row = {name: getattr(claim, name) for name in _COLUMNS}
    return {**row, "bar": f"{claim.direction} {claim.bar:.4g}"}
