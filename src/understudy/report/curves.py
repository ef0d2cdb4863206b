"""Write learning curves and their forecasts as one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.report.figures import rounded
from understudy.report.page import write_page

if TYPE_CHECKING:
    from understudy.search.curve_table import Outlook

BANDS = (50, 90)
"""Percent that the drawn bands hold."""

MOST_DRAWN = 48


def write_curves_report(
    outlooks: Sequence[Outlook],
    path: str | Path,
    *,
    source: str,
    horizon: int,
    minimize: bool,
    delta: float,
) -> Path:
    """Write the report of a table of curves.

    Parameters
    ----------
    outlooks : sequence of Outlook
    path : str or Path
        The HTML file to write.
    source : str
        Name of the table.
    horizon : int
        Last epoch that is predicted.
    minimize : bool
        Whether small values are good.
    delta : float
        Chance at which a run is not worth going on.

    Returns
    -------
    Path
        Where it was written.
    """
    lines = summary(outlooks, delta)
    context = {
        "source": source,
        "horizon": horizon,
        "minimize": minimize,
        "delta": delta,
        "lines": lines,
        "drawn": min(len(outlooks), MOST_DRAWN),
        "bands": BANDS,
        "counts": {
            verdict: sum(line["verdict"] == verdict for line in lines)
            for verdict in ("go on", "stop", "complete")
        },
    }
    data = {"curves": [_drawn(outlook) for outlook in outlooks[:MOST_DRAWN]]}
    return write_page(Path(path), "curves.html.j2", "curves.js", context, data)


def summary(outlooks: Sequence[Outlook], delta: float) -> list[dict[str, Any]]:
    """What is to come of each curve, in a line: its median and 90 % interval at the horizon."""
    return [_line(outlook, delta) for outlook in outlooks]


def _line(outlook: Outlook, delta: float) -> dict[str, Any]:
    line: dict[str, Any] = {
        "curve": outlook.name,
        "epochs": len(outlook.observed),
        "last": float(outlook.observed[-1]),
        "at": None,
        "median": None,
        "lower": None,
        "upper": None,
        "chance": None,
        "verdict": "complete",
    }
    if outlook.forecast is None:
        return line
    lower, median, upper = outlook.forecast.quantile([0.05, 0.5, 0.95])[:, -1].tolist()
    return line | {
        "at": int(outlook.forecast.epochs[-1]),
        "median": median,
        "lower": lower,
        "upper": upper,
        "chance": outlook.chance,
        "verdict": "stop" if outlook.chance <= delta else "go on",
    }


def _drawn(outlook: Outlook) -> dict[str, Any]:
    drawn: dict[str, Any] = {"name": outlook.name, "observed": rounded(outlook.observed)}
    if outlook.forecast is None:
        return drawn | {"epochs": [], "median": [], "bands": []}
    ends = [0.5 + sign * band / 200.0 for band in BANDS for sign in (-1, 1)]
    found = outlook.forecast.quantile([0.5, *ends])
    cells = iter(np.split(np.asarray(rounded(found.reshape(-1)), dtype=object), len(found)))
    median, *bands = (list(part) for part in cells)
    return drawn | {"epochs": outlook.forecast.epochs.tolist(), "median": median, "bands": bands}
