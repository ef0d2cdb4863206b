"""Write a fitted surrogate as one HTML page that needs nothing else."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from understudy.core.space import Categorical, Continuous, Space
from understudy.models.tabular.sensitivity import MONTE_CARLO, held
from understudy.report import sentences
from understudy.report.figures import LEVELS, MOST_OUTPUTS, figure_data
from understudy.report.page import write_page

if TYPE_CHECKING:
    from understudy.models.tabular.fitted import FittedSurrogate

_VERDICTS = 6  # outputs whose verdict is shown without being asked for
_LINES = 200  # outputs with a line of their own in a table of scores
_MODELS = 6  # members of the stack named in the summary


def write_report(model: FittedSurrogate, path: str | Path) -> Path:
    """Write the report of a fitted surrogate.

    Parameters
    ----------
    model : FittedSurrogate
    path : str or Path
        The HTML file to write.

    Returns
    -------
    Path
        Where it was written.
    """
    path = Path(path)
    said = context(model, path.with_suffix(".us").name)
    return write_page(path, "page.html.j2", "page.js", said, figure_data(model))


def context(model: FittedSurrogate, file: str) -> dict[str, Any]:
    """Collect what the page's text and tables say, as plain values.

    Parameters
    ----------
    model : FittedSurrogate
    file : str
        Name of the model's file, for the examples.
    """
    lines = _evaluation(model)
    primary = lines[0]["split"] if lines else ""
    first = [line for line in lines if line["split"] == primary]
    notes = [_note(note) for note in model.notes]
    return {
        "targets": list(model.targets),
        "shown_targets": list(model.targets)[:MOST_OUTPUTS],
        "inputs": [_input(item) for item in model.space],
        "settings": model.settings,
        "source": _source(model.settings),
        "rows": _rows(model),
        "tables": _tables(lines),
        "scored": len(first),
        "verdicts": _verdicts(first),
        "grades": sentences.GRADES,
        "overview": sentences.overview(first) if len(first) > _VERDICTS else "",
        "verdicts_shown": _VERDICTS,
        "warnings": [note for note in notes if note["severity"] == "warning"],
        "notes": [note for note in notes if note["severity"] != "warning"],
        "leaderboard": _leaderboard(model.leaderboard, str(model.settings.get("metric", ""))),
        "stack": _stack(model.leaderboard),
        "transforms": [
            {"target": target, "text": warp.describe()}
            for target, warp in zip(model.targets, model.warps, strict=True)
        ],
        "sensitivity": model.sensitivity_ is not None,
        "uncertainty": _uncertainty(model),
        "levels": LEVELS,
        "command": f"understudy predict {shlex.quote(file)} new.csv -o predictions.csv",
        "python": _snippet(model, file),
        "split_words": sentences.SPLITS,
        "metrics": sentences.METRICS,
    }


def _source(settings: Mapping[str, Any]) -> str:
    named = str(settings.get("source") or settings.get("data") or "a table")
    return "a table in memory" if named == "DataFrame" else named


# -- tables -----------------------------------------------------------------------------------


def _verdicts(lines: list[dict[str, Any]]) -> list[sentences.Verdict]:
    """Verdicts in the order of the outputs; where they are many, the weakest first."""
    if len(lines) > _VERDICTS:
        lines = sorted(lines, key=lambda line: line["r2"])
    return [sentences.verdict(line, len(lines)) for line in lines]


def _rows(model: FittedSurrogate) -> dict[str, int]:
    counts = model.evaluation.groupby("split")["rows"].max() if len(model.evaluation) else {}
    tested = int(dict(counts).get("test", 0))
    return {"fitted": int(model.settings.get("rows", len(model.training))), "tested": tested}


def _evaluation(model: FittedSurrogate) -> list[dict[str, Any]]:
    """Lines of the evaluation, test rows first, then in the order of the targets."""
    table = model.evaluation.copy()
    if "rows" not in table:
        counts = model.held_out.groupby(["split", "target"]).size()
        table["rows"] = [counts[line.split, line.target] for line in table.itertuples()]
    order = {target: at for at, target in enumerate(model.targets)}
    lines = [{str(k): v for k, v in line.items()} for line in table.to_dict("records")]
    return sorted(lines, key=lambda line: (line["split"] != "test", order[line["target"]]))


def _tables(lines: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Lines by split; of very many outputs those of the weakest."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        tables.setdefault(line["split"], []).append(line)
    for split, table in tables.items():
        if len(table) > _LINES:
            tables[split] = sorted(table, key=lambda line: line["r2"])[:_LINES]
    return tables


def _leaderboard(leaderboard: pd.DataFrame, metric: str) -> list[dict[str, Any]]:
    """Lines of the leaderboard: the stack, then its candidates from the best on."""

    def value(row: Mapping[str, Any], name: str) -> float:
        found = row.get(name)
        return float("nan") if found is None or pd.isna(found) else float(found)

    scores = ("weight", "r2", "rmse", "nlpd", "crps", "coverage_90")
    columns = (*scores, "fit_seconds", "predict_seconds")
    rows = [
        {
            "name": str(row["name"]),
            "status": str(row.get("status", "")),
            **{name: value(row, name) for name in columns},
        }
        for row in leaderboard.to_dict("records")
    ]
    by = metric if metric in columns else "nlpd"
    return sorted(rows, key=lambda row: (row["name"] != "stack", math.isnan(row[by]), row[by]))


def _stack(leaderboard: pd.DataFrame) -> str:
    """Members with their weights: "gp 62 %, ensemble 38 %"."""
    used = leaderboard[(leaderboard["weight"] > 0.005) & (leaderboard["name"] != "stack")]
    used = used.sort_values("weight", ascending=False)
    parts = [
        f"{name} {100 * weight:.0f} %"
        for name, weight in zip(used["name"], used["weight"], strict=True)
    ]
    return ", ".join(parts[:_MODELS]) + (", ..." if len(parts) > _MODELS else "")


def _note(note: Any) -> dict[str, Any]:
    message = note.message[:1].upper() + note.message[1:]
    return {"kind": note.kind, "message": message, "severity": note.severity}


def _input(item: Any) -> dict[str, str]:
    if isinstance(item, Categorical):
        shown = [str(choice) for choice in item.choices[:12]]
        more = len(item.choices) - len(shown)
        values = ", ".join(shown) + (f" and {more} more" if more else "")
        return {"name": item.name, "kind": "category", "range": values, "unit": ""}
    kind = "number" if isinstance(item, Continuous) else "whole number"
    kind += ", logarithmic" if isinstance(item, Continuous) and item.log else ""
    values = f"{item.lower:.5g} to {item.upper:.5g}"
    return {"name": item.name, "kind": kind, "range": values, "unit": item.unit}


# -- examples ---------------------------------------------------------------------------------


def _snippet(model: FittedSurrogate, file: str) -> str:
    """Python that loads the file and predicts the middle of the inputs' ranges."""
    middle = _middle(model.space)
    shown = list(middle.items())[:8]
    cells = ",\n    ".join(f"{name!r}: [{value!r}]" for name, value in shown)
    more = "    # ... and the other inputs\n" if len(middle) > len(shown) else ""
    return (
        "import pandas as pd\nimport understudy\n\n"
        f"model = understudy.load({file!r})\n"
        f"new = pd.DataFrame({{\n    {cells},\n{more}}})\n"
        "print(model.predict_table(new).T)\n"
    )


def _middle(space: Space) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for item in space:
        if isinstance(item, Categorical):
            row[item.name] = item.choices[0]
        elif isinstance(item, Continuous):
            middle = np.sqrt(item.lower * item.upper) if item.log else (item.lower + item.upper) / 2
            row[item.name] = float(f"{middle:.4g}")
        else:
            row[item.name] = (item.lower + item.upper) // 2
    return row


def _uncertainty(model: FittedSurrogate) -> str:
    """What the intervals of the sensitivities hold."""
    table = model.sensitivity_
    return MONTE_CARLO if table is None else held(table)
