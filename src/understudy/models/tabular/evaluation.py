"""Scores of predictive distributions against observations, with bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.core.warp import WarpedPredictive
from understudy.models.tabular.conformal import LEVELS


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
    """Scores per split and target of `held_out_table`, with 95 % bootstrap intervals."""
    groups = held_out.groupby(["split", "target"], sort=False)
    return pd.DataFrame(
        [
            {"split": split, "target": target, **_scores(frame, seed, draws)}
            for (split, target), frame in groups
        ]
    )


def _scores(frame: pd.DataFrame, seed: int, draws: int) -> dict[str, float]:
    y = frame["y"].to_numpy()
    cells = {
        "squared": (frame["mean"].to_numpy() - y) ** 2,
        "centred": (y - y.mean()) ** 2,
        "nlpd": -frame["log_density"].to_numpy(),
        "crps": frame["crps"].to_numpy(),
    }
    for level in LEVELS:
        name = f"{level * 100:.0f}"
        inside = (y >= frame[f"lower_{name}"]) & (y <= frame[f"upper_{name}"])
        cells[f"coverage_{name}"] = inside.to_numpy().astype(float)
    values = np.column_stack(list(cells.values()))
    point = _summaries(values.mean(0, keepdims=True), list(cells))
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(y), np.full(len(y), 1.0 / len(y)), size=draws)
    means = counts @ values / len(y)
    spread = _summaries(means, list(cells))
    scores = {name: float(value[0]) for name, value in point.items()}
    for name in ("r2", "rmse", "nlpd", "crps", "coverage_90"):
        scores[f"{name}_low"], scores[f"{name}_high"] = np.quantile(spread[name], (0.025, 0.975))
    return {"rows": len(y), **scores}


def _summaries(means: NDArray[np.float64], names: list[str]) -> dict[str, NDArray[np.float64]]:
    column = dict(zip(names, means.T, strict=True))
    squared, centred = column.pop("squared"), column.pop("centred")
    r2 = 1.0 - squared / np.maximum(centred, 1e-300)
    return {"r2": r2, "rmse": np.sqrt(squared), **column}
