"""What the report says in words: numbers for people, and a verdict on each output."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

SPLITS = {
    "test": ("test rows", "unseen runs", "Rows kept aside: no model, weight or interval saw them."),
    "cross-validation": (
        "cross-validation",
        "runs left out in turn",
        "Each row is predicted by models that have not seen it.",
    ),
}
"""Split: its name in tables, what its rows are, and what that means."""

METRICS = {
    "r2": ("R²", "share of the variance explained; 1 is perfect"),
    "rmse": ("RMSE", "root mean squared error, in the units of the output"),
    "nlpd": ("NLPD", "negative log predictive density in nats; lower is better"),
    "crps": ("CRPS", "continuous ranked probability score, in the units of the output"),
}
"""Column: its heading and what it is."""


def number(value: Any, digits: int = 3) -> str:
    """Write a number with some significant digits, a dash for none: 0.0123, 1,230, 4.5e-07."""
    if value is None or not math.isfinite(float(value)):
        return "–"
    value = float(value)
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".split("e")[1])
    if not -4 <= exponent < 6:
        return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def score(r2: Any) -> str:
    """Write an R² with as many nines as it has: 0.981, 0.9996."""
    if r2 is None or not 0.9995 <= float(r2) < 1.0:
        return number(r2)
    decimals = min(6, math.ceil(-math.log10(1.0 - float(r2))))
    text = f"{float(r2):.{decimals}f}"
    return "> 0.999999" if float(text) == 1.0 else text


def percent(share: Any) -> str:
    """Write a share as a percentage that says 100 only where it is 1."""
    if share is None or not math.isfinite(float(share)):
        return "–"
    gap = abs(1.0 - float(share))
    decimals = 0 if gap == 0 or gap >= 0.005 else min(4, math.floor(-math.log10(2.0 * gap)) - 1)
    text = f"{100.0 * float(share):.{max(0, decimals)}f}"
    return f"{text} %" if gap == 0 or float(text) != 100 else "> 99.999 %"


def duration(seconds: Any) -> str:
    """Write seconds as people do: 12 ms, 4.2 s, 3 min 5 s, 2 h 4 min."""
    if seconds is None or not math.isfinite(float(seconds)):
        return "–"
    seconds = float(seconds)
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms" if seconds >= 0.001 else "< 1 ms"
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names in a row: ``a``, ``a and b``, ``a, b and 24 more``."""
    if len(names) == 1:
        return names[0]
    if len(names) <= most:
        return ", ".join(names[:-1]) + " and " + names[-1]
    return ", ".join(names[: most - 1]) + f" and {len(names) - most + 1} more"


def counted(count: int, singular: str, plural: str = "") -> str:
    """A count with its noun: 1 row, 1,200 rows."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


GRADES = {"strong": 0.95, "good": 0.8, "partial": 0.5, "weak": 0.1}
"""Grade: the R² from which on it is given."""


@dataclass(frozen=True)
class Verdict:
    """What to think of the surrogate of one output.

    Parameters
    ----------
    target : str
    grade : str
        One of `GRADES`, or poor.
    accuracy, intervals : str
        Half a sentence each.
    """

    target: str
    grade: str
    accuracy: str
    intervals: str


def verdict(scores: Mapping[str, Any], outputs: int = 1) -> Verdict:
    """Judge one line of `FittedSurrogate.evaluation`, out of as many as there are outputs."""
    score = float(scores["r2"])
    grade = next((name for name, limit in GRADES.items() if score >= limit), "poor")
    accuracy = {
        "weak": f"only {percent(score)} of the variance explained",
        "poor": "hardly better than the mean of the runs",
    }.get(grade, f"{percent(score)} of the variance explained")
    rows, what = int(scores["rows"]), SPLITS[str(scores["split"])][1]
    held = f"90 % intervals held {percent(scores['coverage_90'])} of {rows:,} {what}"
    width = _width(float(scores["coverage_90"]), rows, 0.05 / outputs)
    return Verdict(str(scores["target"]), grade, accuracy, held + width)


def _width(coverage: float, rows: int, level: float) -> str:
    """Say where chance at this level does not explain that the coverage is not 90 %."""
    from scipy.stats import binomtest

    if binomtest(round(coverage * rows), rows, 0.9).pvalue >= level:
        return ""
    return ", so they are too narrow" if coverage < 0.9 else ", so they are wider than need be"


def overview(evaluation: Sequence[Mapping[str, Any]]) -> str:
    """One sentence on many outputs, from their lines of the evaluation."""
    ranked = sorted(evaluation, key=lambda line: line["r2"])
    worst, best, middle = ranked[0], ranked[-1], median(line["r2"] for line in ranked)
    held = sum(line["coverage_90"] * line["rows"] for line in evaluation)
    total = sum(line["rows"] for line in evaluation)
    return (
        f"R² lies between {score(worst['r2'])} ({worst['target']}) and {score(best['r2'])} "
        f"({best['target']}), with a median of {score(middle)}; over all outputs, 90 % intervals "
        f"held {percent(held / total)} of the {SPLITS[str(worst['split'])][1]}."
    )
