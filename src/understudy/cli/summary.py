"""What is said of a fitted surrogate, as JSON and in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.cli.console import percent, print_table, records, say

if TYPE_CHECKING:
    import pandas as pd

    from understudy.models.tabular.fitted import FittedSurrogate

_MODELS = "Models, cross-validated; seconds to fit, and to predict 10,000 rows:"


def as_json(model: FittedSurrogate) -> dict[str, Any]:
    """Everything that a program may want to know of a surrogate."""
    return {
        "targets": list(model.targets),
        "inputs": inputs(model),
        "settings": model.settings,
        "evaluation": records(model.evaluation),
        "leaderboard": records(model.leaderboard),
        "notes": [
            {"kind": n.kind, "severity": n.severity, "columns": n.columns, "message": n.message}
            for n in model.notes
        ],
    }


def inputs(model: FittedSurrogate) -> list[dict[str, Any]]:
    """Name, kind and range of each input."""
    rows = []
    for item in model.space:
        row: dict[str, Any] = {"name": item.name, "kind": item.kind}
        if hasattr(item, "choices"):
            row["choices"] = list(item.choices)
        else:
            row |= {"lower": item.lower, "upper": item.upper}
        rows.append(row)
    return rows


def print_scores(model: FittedSurrogate) -> None:
    """Print the scores of each target on rows that were not learnt from."""
    evaluation = model.evaluation
    split = "test" if (evaluation["split"] == "test").any() else "cross-validation"
    chosen = evaluation[evaluation["split"] == split]
    columns = {
        "target": "target",
        "r2": "R2",
        "rmse": "RMSE",
        "nlpd": "NLPD",
        "cover": "90 % covers",
    }
    rows = [{**row, "cover": percent(row["coverage_90"])} for row in records(chosen)]
    count = _rows_scored(chosen)
    where = "test rows" if split == "test" else "rows in cross-validation"
    print_table(rows, columns, f"Scores on {count}{where}:", left=("target",))


def _rows_scored(evaluation: pd.DataFrame) -> str:
    return f"{int(evaluation['rows'].max()):,} " if "rows" in evaluation else ""


def print_leaderboard(model: FittedSurrogate) -> None:
    """Print how the candidates compare."""
    metric = model.settings.get("metric", "nlpd")
    columns = {
        "name": "model",
        metric: metric.upper(),
        "r2": "R2",
        "weight": "weight",
        "fit_seconds": "fit s",
        "predict_seconds": "predict s",
        "status": "",
    }
    rows = [
        {**row, "status": _brief(row["status"])}
        for row in records(model.leaderboard.sort_values(metric, na_position="last", kind="stable"))
    ]
    print_table(rows, columns, _MODELS, left=("name", "status"))


def _brief(status: str) -> str:
    """A few words for "stopped: dominated on a fold" and the like."""
    state, _, reason = status.partition(": ")
    if state == "stopped" and reason:
        return "not needed" if reason.endswith("holds no weight") else reason.partition(" on ")[0]
    return state


def print_notes(model: FittedSurrogate) -> None:
    """Print what was noticed in the table, warnings first."""
    for note in sorted(model.notes, key=lambda note: note.severity != "warning"):
        say(f"{'warning' if note.severity == 'warning' else 'note'}: {note.message}")


def print_file(path: Path) -> None:
    """Print where a file is and how large."""
    size = path.stat().st_size
    text = f"{size / 1e6:.1f} MB" if size > 1e5 else f"{size / 1e3:.1f} kB"
    say(f"{path} ({text})")
