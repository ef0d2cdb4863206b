"""Write a calibration as one HTML page: posterior, corner plot, predictions against data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.report.figures import rounded
from understudy.report.page import write_page

if TYPE_CHECKING:
    from understudy.search.calibrate import Calibration

MOST_CORNERS = 8
MOST_DOTS = 1000
_BINS = 30


def write_calibration_report(
    found: Calibration,
    path: str | Path,
    *,
    source: str,
    model: str,
    outputs: Sequence[str],
    along: tuple[str, Sequence[float]] | None = None,
) -> Path:
    """Write the report of a calibration.

    Parameters
    ----------
    found : Calibration
    path : str or Path
        The HTML file to write.
    source, model : str
        Names of the measurement and of the surrogate.
    outputs : sequence of str
        Measured outputs; values are ordered by row, then output.
    along : (str, sequence of float), optional
        Name and values of what measurements are drawn over; their number by default.

    Returns
    -------
    Path
        Where it was written.
    """
    context = {
        "source": source,
        "model": model,
        "lines": found.table().to_dict("records"),
        "warnings": found.warnings(),
        "coverage": found.coverage,
        "p_value": found.p_value,
        "noise": list(found.noise.items()),
        "error": found.error[:1].upper() + found.error[1:],
        "measured": len(found.y),
        "draws": int(np.prod(found.draws.shape[:2])),
        "chains": int(found.draws.shape[1]),
        "corners": min(len(found.names), MOST_CORNERS),
    }
    data = {"corner": _corner(found), "predictions": _predictions(found, outputs, along)}
    return write_page(Path(path), "calibration.html.j2", "calibration.js", context, data)


def _corner(found: Calibration) -> dict[str, Any]:
    """Draws and histograms of the first parameters."""
    flat = found.draws.reshape(-1, len(found.names))[:, :MOST_CORNERS].numpy()
    dots = flat[:: max(1, len(flat) // MOST_DOTS)]
    histograms = []
    for column in flat.T:
        counts, edges = np.histogram(column, _BINS)
        histograms.append(
            {"x": rounded(0.5 * (edges[1:] + edges[:-1])), "count": [int(n) for n in counts]}
        )
    return {
        "names": list(found.names[:MOST_CORNERS]),
        "draws": [rounded(column) for column in dots.T],
        "histograms": histograms,
    }


def _predictions(
    found: Calibration, outputs: Sequence[str], along: tuple[str, Sequence[float]] | None
) -> list[dict[str, Any]]:
    """Measured values and intervals of each output."""
    m = len(outputs)
    panels = []
    for k, output in enumerate(outputs):
        parts = {name: getattr(found, name)[k::m] for name in ("y", "lower", "median", "upper")}
        name, x = along or ("measurement", range(1, len(parts["y"]) + 1))
        panels.append(
            {
                "output": output,
                "along": name,
                "x": [float(value) for value in x],
                **{part: rounded(values.numpy(), 5) for part, values in parts.items()},
            }
        )
    return panels
