"""``understudy sensitivity``."""

from __future__ import annotations

from typing import Annotated

import typer

from understudy.cli.options import Json, Model, Seed

EXAMPLE = "[bold]Example[/]\n\nunderstudy sensitivity wing.us --samples 2048"
_COLUMNS = {"target": "target", "input": "input", "alone": "first", "together": "total"}


def sensitivity(
    model: Model,
    samples: Annotated[
        int, typer.Option("--samples", "-n", min=16, help="Base samples, a power of two.")
    ] = 1024,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Say which inputs matter, by Sobol indices."""
    import understudy
    from understudy.cli.console import print_json, print_table, records, say
    from understudy.models.tabular.sensitivity import held

    table = understudy.load(model).sensitivity(n=samples, seed=seed)
    if json:
        print_json({"file": str(model), "samples": samples, "indices": records(table)})
        return
    ranked = table.sort_values(["target", "total"], ascending=[True, False], kind="stable")
    rows = [
        {**row, "alone": _interval(row, "first"), "together": _interval(row, "total")}
        for row in records(ranked)
    ]
    print_table(rows, _COLUMNS, left=("target", "input"))
    say(f"Intervals at 95 %: {held(table)}.")


def _interval(row: dict[str, float], index: str) -> str:
    return f"{row[index]:.3f} [{row[f'{index}_low']:.3f}, {row[f'{index}_high']:.3f}]"
