"""Write a reconstructed image as one HTML page: data, first guess, result, and how it converged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from understudy.report.figures import rounded
from understudy.report.page import write_page
from understudy.report.pictures import difference, picture, stretched

if TYPE_CHECKING:
    from understudy.models.inverse.invert import Inverted

_SCHEMES = {
    "admm": "Alternating directions of multipliers (ADMM)",
    "pgd": "Proximal gradient descent",
    "hqs": "Half-quadratic splitting",
}
_MOST = 2000  # values of a measurement that is drawn as a curve


def write_inversion_report(
    found: Inverted,
    path: str | Path,
    *,
    source: str,
    model: str,
    operator: str,
    scheme: str,
) -> Path:
    """Write the report of a reconstruction.

    Parameters
    ----------
    found : Inverted
    path : str or Path
        The HTML file to write.
    source, model : str
        Names of the files of the measurement and of the prior.
    operator, scheme : str
        As on the command line.

    Returns
    -------
    Path
        Where it was written.
    """
    images, curve = _measurement(found.measurement)
    images += [picture("first guess", found.start), picture("reconstruction", found.image)]
    error = None
    if found.true is not None:
        gap, error = difference(found.image.where(found.in_view, found.true), found.true)
        images += [picture("true image", found.true), picture("error", gap)]
    objectives = found.found.objectives
    context = {
        **{"source": source, "model": model, "operator": operator, "facts": found.facts},
        **{"images": images, "error": error, "scheme": _SCHEMES[scheme]},
        **{"warnings": warnings(found.facts), "curve": curve is not None},
        "objectives": objectives is not None,
    }
    data: dict[str, Any] = {
        "residuals": _column(found.found.residuals),
        "misfits": _column(found.found.misfits),
        "objectives": None if objectives is None else rounded(objectives[:, 0], 6),
        "curve": curve,
    }
    return write_page(Path(path), "inversion.html.j2", "inversion.js", context, data)


def warnings(facts: dict[str, Any]) -> list[str]:
    """What should be known before the image is used, in sentences."""
    said = []
    if facts["interrupted"]:
        said.append("the iteration was interrupted; the image is the last before")
    if facts["diverged"]:
        said.append("the iteration diverged; the image is the last before")
    elif not facts["converged"]:
        said.append(
            f"not converged after {facts['iterations']} iterations: the last changed the image by "
            f"{facts['residual']:.1e} of it"
        )
    if facts.get("objective_rises"):
        said.append(f"{facts['objective_rises']} iterations raised what is minimised")
    if "psnr" in facts and facts["psnr"] < facts["psnr_start"]:
        said.append("the result is farther from the clean image than the first guess was")
    return said


def _measurement(y: Tensor) -> tuple[list[dict[str, Any]], list[float] | None]:
    """The measurement as a picture, or as a curve where it is none."""
    if y.ndim == 3:
        inside = bool(y.min() >= -0.5) and bool(y.max() <= 1.5)
        return [picture("measurement", y if inside else stretched(y))], None
    every = -(-len(y) // _MOST)
    return [], rounded(y[::every])


def _column(values: Tensor) -> list[float | None]:
    """Positive numbers to four digits each."""
    return [float(f"{v:.4g}") if v > 0.0 else None for v in values[:, 0].tolist()]
