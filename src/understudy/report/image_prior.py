"""Write a prior of images as one HTML page: what it removes, what it finds unlikely, its training.

The prior is read off by inverting the network, for a few patches that it has not seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from understudy.models.inverse.prior_curves import PriorCurve, prior_curve, with_noise
from understudy.report.figures import rounded
from understudy.report.page import write_page
from understudy.report.pictures import picture, tiled

if TYPE_CHECKING:
    from understudy.models.inverse.prior_training import TrainedPrior

_SHOWN, _COLUMNS = 12, 4
_VALUED = 8  # patches whose prior is read off
_LEVELS = (0.0, 1.0, 2.0, 3.0)  # of noise, over that of the training
_ITERATIONS = 10
_EXACT = 0.01  # residual up to which an inversion counts


def write_prior_report(found: TrainedPrior, path: str | Path, *, source: str, model: str) -> Path:
    """Write the report of a prior.

    Parameters
    ----------
    found : TrainedPrior
    path : str or Path
        The HTML file to write.
    source, model : str
        Names of the folder of images and of the prior's file.

    Returns
    -------
    Path
        Where it was written.
    """
    lpn, shown = found.lpn, slice(_SHOWN)
    denoised = lpn.in_parts(found.noisy[shown])
    parts = {"clean": found.unseen[shown], "noisy": found.noisy[shown], "denoised": denoised}
    levels = tuple(lpn.sigma * level for level in _LEVELS)
    stages = with_noise(found.unseen[:_VALUED], levels, torch.Generator().manual_seed(0))
    curve = prior_curve(lpn, levels, stages, _ITERATIONS)
    exact = curve.residual <= _EXACT
    context = {
        **{"source": source, "model": model, "sigma": lpn.sigma, "shape": lpn.shape},
        **{"facts": found.facts, "patches": min(_VALUED, len(found.unseen))},
        "weights": sum(p.numel() for p in lpn.parameters()),
        "images": [picture(name, tiled(images, _COLUMNS)) for name, images in parts.items()],
        "exact": float(exact.double().mean()),
        "rising": curve.rising,
    }
    data: dict[str, Any] = {
        "levels": list(levels),
        "prior": _lines(curve, exact, lpn.sigma),
        "curve": {"x": [step for step, _ in found.curve], "y": [loss for _, loss in found.curve]},
    }
    return write_page(Path(path), "image_prior.html.j2", "image_prior.js", context, data)


def _lines(curve: PriorCurve, exact: torch.Tensor, sigma: float) -> list[list[float | None]]:
    """R over the variance less that of the clean patch, a line each; None where it is unknown."""
    rise = (curve.value - curve.value[0]) / sigma**2
    rise = torch.where(exact & exact[0], rise, torch.nan)
    return [rounded(line) for line in rise.T]
