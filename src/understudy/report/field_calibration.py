"""Write a field that was inferred as one HTML page: mean, deviation, and the readings explained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.report.figures import rounded
from understudy.report.page import write_page

if TYPE_CHECKING:
    from understudy.search.field_calibration import FieldCalibration

_METHODS = {
    "map": "The likeliest field alone, by gradients.",
    "vi": "A Gaussian of the latent vector, fitted by its evidence bound.",
    "hmc": "Draws of the latent vector by Hamiltonian Monte Carlo.",
}


def write_field_report(
    found: FieldCalibration, path: str | Path, *, source: str, model: str
) -> Path:
    """Write the report of a field that was inferred.

    Parameters
    ----------
    found : FieldCalibration
    path : str or Path
        The HTML file to write.
    source, model : str
        Names of the table of readings and of the operator.

    Returns
    -------
    Path
        Where it was written.
    """
    context = {
        "source": source,
        "model": model,
        "sensors": len(found.sensors.y),
        "noise": found.noise,
        "explained": found.explained,
        "decided": found.decided,
        "criterion": found.criterion,
        "warnings": found.warnings(),
        "method": _METHODS[found.posterior.method],
        "draws": found.posterior.z.shape[1],
    }
    low, high = found.range
    most = float(found.sd.max()) if found.phases is None else (high - low) / 2
    x, y = found.sensors.x.unbind(1)
    data: dict[str, Any] = {
        "axes": [rounded(axis) for axis in found.posterior.operator.grid.axes()],
        "mean": [rounded(row, 4) for row in found.mean.T],
        "sd": [rounded(row, 4) for row in found.sd.T],
        "range": list(found.range),
        "sd_most": most,
        "sensors": {"x": rounded(x), "y": rounded(y)},
        "measured": rounded(found.sensors.y, 5),
        "predicted": rounded(found.predicted, 5),
        "predicted_sd": rounded(found.predicted_sd, 4),
    }
    return write_page(
        Path(path), "field_calibration.html.j2", "field_calibration.js", context, data
    )
