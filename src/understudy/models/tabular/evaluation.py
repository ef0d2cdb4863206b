"""Scores of predictive distributions against observations, with bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.core.warp import WarpedPredictive
from understudy.models.tabular.conformal import LEVELS

_WITH_INTERVAL = ("r2", "rmse", "nlpd", "crps", "coverage_90")
_NUMBERS = 4_000_000  # counts of rows held at once


def held_out_table(
    split: str,
    rows: NDArray[np.int_],
    targets: tuple[str, ...],
    Y: NDArray[np.float64],
    predictive: WarpedPredictive,
    lower: Tensor,
    upper: Tensor,
) -> pd.DataFrame:
    """Predictions of unseen rows in long format: one line for each row and target.

    ``lower`` and ``upper`` are the calibrated intervals (levels, n, m).
    """
    y = torch.from_numpy(Y)
    cells = {
        "y": y,
        "mean": predictive.mean,
        "sd": predictive.sd,
        "pit": predictive.cdf(y),
        "log_density": predictive.log_density(y),
        "crps": predictive.crps(y),
    }
    for at, level in enumerate(LEVELS):
        cells[f"lower_{level * 100:.0f}"] = lower[at]
        cells[f"upper_{level * 100:.0f}"] = upper[at]
    frame = {name: values.T.reshape(-1).numpy() for name, values in cells.items()}
    count = len(Y)
    return pd.DataFrame(
        {
            "split": split,
            "row": np.tile(rows, len(targets)),
            "target": np.repeat(np.asarray(targets, dtype=object), count),
            **frame,
        }
    )


def evaluation_table(held_out: pd.DataFrame, seed: int, draws: int = 500) -> pd.DataFrame:
    """Scores per split and target of `held_out_table`, with 95 % bootstrap intervals.

    The rows of a split are drawn together for all its targets: a draw is a count of each row, and
    the scores of all draws are one matrix product.
    """
    lines = []
    for split, whole in held_out.groupby("split", sort=False):
        frames = {name: frame for name, frame in whole.groupby("target", sort=False)}
        cells = [_cells(frame) for frame in frames.values()]
        values = np.stack([np.column_stack(list(columns.values())) for columns in cells], axis=1)
        names = list(cells[0])
        point = _summaries(values.mean(0), names)
        drawn = _summaries(_resampled_means(values, seed, draws), names)
        ends = {name: np.quantile(drawn[name], (0.025, 0.975), axis=0) for name in _WITH_INTERVAL}
        for j, target in enumerate(frames):
            scores = {name: float(value[j]) for name, value in point.items()}
            for name, (low, high) in ends.items():
                scores |= {f"{name}_low": float(low[j]), f"{name}_high": float(high[j])}
            lines.append({"split": split, "target": target, "rows": len(values), **scores})
    return pd.DataFrame(lines)


def _cells(frame: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """What is averaged over the rows of one target."""
    y = frame["y"].to_numpy()
    deviation = y - y.mean()
    cells = {
        "squared": (frame["mean"].to_numpy() - y) ** 2,
        "deviation": deviation,
        "deviation_squared": deviation**2,
        "nlpd": -frame["log_density"].to_numpy(),
        "crps": frame["crps"].to_numpy(),
    }
    for level in LEVELS:
        name = f"{level * 100:.0f}"
        inside = (y >= frame[f"lower_{name}"]) & (y <= frame[f"upper_{name}"])
        cells[f"coverage_{name}"] = inside.to_numpy().astype(float)
    return cells


def _resampled_means(values: NDArray[np.float64], seed: int, draws: int) -> NDArray[np.float64]:
    """Means (draws, m, c) of values (n, m, c) over rows drawn with replacement."""
    rows = len(values)
    rng = np.random.default_rng(seed)
    flat = values.reshape(rows, -1)
    at_once = max(1, _NUMBERS // rows)
    means = []
    for start in range(0, draws, at_once):
        count = min(at_once, draws - start)
        drawn = rng.integers(0, rows, size=(count, rows)) + rows * np.arange(count)[:, None]
        counts = np.bincount(drawn.reshape(-1), minlength=count * rows).reshape(count, rows)
        means.append(counts.astype(np.float64) @ flat / rows)
    return np.concatenate(means).reshape(draws, *values.shape[1:])


def _summaries(means: NDArray[np.float64], names: list[str]) -> dict[str, NDArray[np.float64]]:
    """Scores (..., m) from means (..., m, c) of the named cells."""
    column = dict(zip(names, np.moveaxis(means, -1, 0), strict=True))
    squared = column.pop("squared")
    variance = column.pop("deviation_squared") - column.pop("deviation") ** 2
    r2 = 1.0 - squared / np.maximum(variance, 1e-300)
    return {"r2": r2, "rmse": np.sqrt(squared), **column}
