"""``understudy show``."""

from __future__ import annotations

from understudy.cli.options import Json, Model, readable

EXAMPLE = "[bold]Example[/]\n\nunderstudy show wing.us"


def show(model: Model, json: Json = False) -> None:
    """Say what is inside a .us file: inputs, models, scores."""
    model = readable(model)
    import understudy
    from understudy.cli import summary
    from understudy.cli.console import print_json, print_table, say

    surrogate = understudy.load(model)
    if json:
        print_json({"file": str(model), **summary.as_json(surrogate)})
        return
    summary.print_file(model)
    settings = surrogate.settings
    for key in ("source", "rows", "created", "metric", "budget", "seconds", "seed"):
        if key in settings:
            say(f"  {key}: {settings[key]}")
    rows = [{**row, "range": _range(row), "kind": row["kind"]} for row in summary.inputs(surrogate)]
    say()
    columns = {"name": "input", "kind": "kind", "range": "range"}
    print_table(rows, columns, left=("name", "kind", "range"))
    summary.print_leaderboard(surrogate)
    summary.print_scores(surrogate)
    summary.print_notes(surrogate)


def _range(row: dict[str, object]) -> str:
    if "choices" in row:
        return ", ".join(map(str, row["choices"]))  # type: ignore[call-overload]
    return f"{row['lower']:.6g} to {row['upper']:.6g}"
