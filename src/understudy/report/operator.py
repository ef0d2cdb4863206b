"""Write a trained operator as one HTML page: rollouts, spectra, and how long it can be believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.emulate.evaluation import THRESHOLD, Evaluation, RolloutEvaluation
from understudy.report.figures import rounded
from understudy.report.page import write_page

_ROWS, _COLUMNS = 80, 160  # points of a picture of one-dimensional fields, times by space
_SIDE = 64
_SNAPSHOTS = 4


def write_operator_report(
    found: Evaluation,
    path: str | Path,
    *,
    source: str,
    model: str,
    channels: Sequence[str],
    given: Sequence[str],
    dt: float,
    curve: Sequence[tuple[float, float]],
    facts: Mapping[str, Any],
) -> Path:
    """Write the report of an operator.

    Parameters
    ----------
    found : Evaluation
    path : str or Path
        The HTML file to write.
    source, model : str
        Names of the equation or file, and of the model.
    channels, given : sequence of str
        Names of predicted and of given fields.
    dt : float
        Time between two fields.
    curve : sequence of (seconds, score)
        Validation over the time of training.
    facts : mapping
        As in :class:`~understudy.emulate.run.Emulation`.

    Returns
    -------
    Path
        Where it was written.
    """
    rollouts = found if isinstance(found, RolloutEvaluation) else None
    context = {
        "source": source,
        "model": model,
        "steady": rollouts is None,
        "channels": list(channels),
        "scores": found.scores(),
        "facts": dict(facts),
        "threshold": THRESHOLD,
        "reached": 0 if rollouts is None else _reached(rollouts),
        "believes": rollouts is not None and rollouts.believed is not None,
    }
    data: dict[str, Any] = {
        "curve": {"x": [s for s, _ in curve], "y": rounded(torch.tensor([v for _, v in curve]))},
    }
    if isinstance(found, RolloutEvaluation):
        data |= _of_rollouts(found, channels, dt)
    else:
        names = ["given: " + name for name in given]
        pictures = [
            _fields(
                [
                    *_named(names, found.given[e]),
                    *_three(channels, found.true[e], found.predicted[e]),
                ]
            )
            for e in range(len(found.true))
        ]
        words = ("median", "worst", "best")
        data["pictures"] = [
            {"title": f"{word} of the test runs", "panels": panels}
            for word, panels in zip(words, pictures, strict=True)
        ]
        data["errors"] = rounded(found.errors)
    return write_page(Path(path), "operator.html.j2", "operator.js", context, data)


def _reached(found: RolloutEvaluation) -> int:
    """Test runs that were right to the end."""
    return int((found.horizon >= found.end * (1.0 - 1e-9)).sum())


def _of_rollouts(found: RolloutEvaluation, channels: Sequence[str], dt: float) -> dict[str, Any]:
    steps = len(found.nrmse)
    times = [float(f"{dt * (k + 1):.6g}") for k in range(steps)]
    believed = None if found.believed is None else rounded(found.believed)
    return {
        "times": times,
        "nrmse": rounded(found.nrmse),
        "persistence": rounded(found.persistence),
        "correlation": rounded(found.correlation),
        "threshold": THRESHOLD,
        "horizon": rounded(found.horizon),
        "believed": believed,
        "end": found.end,
        "spectrum": {
            "true": rounded(found.spectrum_true),
            "predicted": rounded(found.spectrum_predicted),
        },
        "pictures": [
            {"title": f"test run {e + 1}", "panels": _rollout(found, e, channels, dt)}
            for e in range(len(found.true))
        ],
    }


def _rollout(
    found: RolloutEvaluation, e: int, channels: Sequence[str], dt: float
) -> list[dict[str, Any]]:
    """Panels of a run: space by time in one dimension, the first field's snapshots in more."""
    true, predicted = found.true[e], found.predicted[e]
    if true.ndim == 3:
        span = [0.0, dt * (len(true) - 1)]
        panels = _three(
            channels,
            true.transpose(0, 1),
            predicted.transpose(0, 1),
        )
        return _fields(panels, span)
    at = torch.linspace(0, len(true) - 1, _SNAPSHOTS).round().long().tolist()[1:]
    name = channels[0]
    shown = []
    for k in at:
        when = f"t = {dt * k:.4g}"
        shown += _three([f"{name}, {when}"], true[k, :1], predicted[k, :1])
    return _fields(shown)


Panel = tuple[str, Tensor, str]


def _named(names: Sequence[str], fields: Tensor) -> list[Panel]:
    return [(name, field, name) for name, field in zip(names, fields, strict=True)]


def _three(names: Sequence[str], true: Tensor, predicted: Tensor) -> list[Panel]:
    """True, predicted and error of each channel, the first two in one scale."""
    panels: list[Panel] = []
    for c, name in enumerate(names):
        panels += [
            (f"{name}: true", true[c], name),
            (f"{name}: predicted", predicted[c], name),
            (f"{name}: error", predicted[c] - true[c], ""),
        ]
    return panels


def _fields(panels: Sequence[Panel], span: Sequence[float] | None = None) -> list[dict[str, Any]]:
    """Pictures small enough for a page; panels with one scale share their limits."""
    limits: dict[str, tuple[float, float]] = {}
    for title, field, scale in panels:
        if scale and ": predicted" not in title:
            limits[scale] = (float(field.min()), float(field.max()))
    pictures = []
    for title, field, scale in panels:
        small = _reduced(field, *((_ROWS, _COLUMNS) if span else (_SIDE, _SIDE)))
        low, high = limits.get(scale, (0.0, 0.0))
        if not scale:
            high = float(field.abs().max()) or 1.0
            low = -high
        pictures.append(
            {
                "title": title,
                "z": [rounded(row, 4) for row in small.clamp(-1e6, 1e6)],
                "low": low,
                "high": high,
                "signed": not scale,
                "times": list(span) if span else None,
            }
        )
    return pictures


def _reduced(field: Tensor, rows: int, columns: int) -> Tensor:
    """Every so many rows and columns of ``(n, m)``."""
    flat = field.reshape(field.shape[0], -1) if field.ndim != 2 else field
    return flat[:: -(-flat.shape[0] // rows), :: -(-flat.shape[1] // columns)]
