"""Fitted surrogates without a fit: what the report reads of one, computed from a known function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm

from understudy.core.space import Categorical, Continuous, Integer, Space
from understudy.core.warp import Identity, YeoJohnson
from understudy.data.table import Note

LEVELS = (50, 80, 90, 95)


@dataclass
class KnownSurrogate:
    """The attributes and methods of `FittedSurrogate` that the report uses."""

    space: Space
    targets: tuple[str, ...]
    evaluation: pd.DataFrame
    held_out: pd.DataFrame
    training: pd.DataFrame
    leaderboard: pd.DataFrame
    sensitivity_: pd.DataFrame | None
    notes: tuple[Note, ...]
    settings: dict[str, Any]
    warps: list[Any] = field(default_factory=list)

    def slices(self, points: int = 41) -> pd.DataFrame:
        parts = []
        for j, target in enumerate(self.targets):
            for i, item in enumerate(self.space):
                if isinstance(item, Categorical):
                    value, at = list(item.choices), np.arange(len(item.choices))
                else:
                    at = np.linspace(-1, 1, points)
                    value = list(np.linspace(item.lower, item.upper, points))
                mean, band = np.sin(at + i + j), 0.1 + 0.1 * at**2
                ends = (value, mean, mean - band, mean + band)
                parts += [(target, item.name, *cells) for cells in zip(*ends, strict=True)]
        heads = ["target", "input", "value", "mean", "lower_90", "upper_90"]
        return pd.DataFrame(parts, columns=heads)


def held_out(split, rows, Y, targets, error, generator):
    parts = []
    for j, target in enumerate(targets):
        y = Y[:, j]
        sd = np.full(len(y), error * y.std())
        mean = y + sd * generator.normal(size=len(y))
        frame = {"split": split, "row": rows, "target": target, "y": y, "mean": mean, "sd": sd}
        for level in LEVELS:
            reach = norm.ppf(0.5 + level / 200) * sd
            frame |= {f"lower_{level}": mean - reach, f"upper_{level}": mean + reach}
        parts.append(pd.DataFrame({**frame, "pit": norm.cdf((y - mean) / sd)}))
    return pd.concat(parts, ignore_index=True)


def evaluation(table):
    lines = []
    for (split, target), frame in table.groupby(["split", "target"], sort=False):
        squared = (frame["y"] - frame["mean"]) ** 2
        r2 = 1 - squared.mean() / frame["y"].var(ddof=0)
        scores = {"r2": r2, "rmse": squared.mean() ** 0.5, "nlpd": -0.3, "crps": 0.02}
        for level in LEVELS:
            inside = (frame["y"] >= frame[f"lower_{level}"]) & (
                frame["y"] <= frame[f"upper_{level}"]
            )
            scores[f"coverage_{level}"] = inside.mean()
        for name in ("r2", "rmse", "nlpd", "crps", "coverage_90"):
            scores |= {f"{name}_low": scores[name] * 0.97, f"{name}_high": scores[name] * 1.02}
        lines.append({"split": split, "target": target, "rows": len(frame), **scores})
    return pd.DataFrame(lines)


def known_surrogate(
    inputs=("load", "span", "layers", "support"),
    targets=("deflection", "moment"),
    rows=150,
    test_rows=60,
    with_sensitivity=True,
    categorical=True,
    error=0.15,
):
    generator = np.random.default_rng(0)
    kinds = [
        lambda name: Continuous(name, 0.5, 5.0, unit="kN"),
        lambda name: Continuous(name, 1e-3, 10.0, unit="m", log=True),
        lambda name: Integer(name, 1, 6),
        lambda name: Categorical(name, ("pinned", "clamped", "free")),
    ]
    kinds = kinds if categorical else kinds[:3]
    space = Space(tuple(kinds[i % len(kinds)](name) for i, name in enumerate(inputs)))
    training = space.sample(rows, seed=1)
    U = space.to_unit(torch.from_numpy(space.encode(training))).numpy()
    mixing = (
        generator.normal(size=(len(inputs), len(targets))) / np.arange(1, len(inputs) + 1)[:, None]
    )
    Y = (
        np.sin(2 * U @ mixing) * np.logspace(-2, 4, len(targets))
        if len(targets) > 2
        else 3 * U @ mixing
    )
    training = training.join(pd.DataFrame(Y, columns=list(targets)))
    tables = [held_out("cross-validation", np.arange(rows), Y, targets, error, generator)]
    if test_rows:
        chosen = generator.integers(0, rows, test_rows)
        Y_test = Y[chosen] + 1e-3 * Y.std(0)
        tables.append(
            held_out("test", np.arange(rows, rows + test_rows), Y_test, targets, error, generator)
        )
    unseen = pd.concat(tables, ignore_index=True)
    leaderboard = pd.DataFrame(
        {
            "name": ["exact GP", "deep ensemble", "ridge", "stack", "boosting"],
            "r2": [0.981, 0.972, 0.61, 0.984, np.nan],
            "rmse": [0.14, 0.17, 0.62, 0.126, np.nan],
            "nlpd": [-0.61, -0.44, 0.91, -0.72, np.nan],
            "crps": [0.08, 0.09, 0.34, 0.07, np.nan],
            "coverage_90": [0.91, 0.87, 0.9, 0.902, np.nan],
            "weight": [0.7, 0.3, 0.0, 1.0, 0.0],
            "fit_seconds": [1.24, 12.2, 0.004, 13.5, np.nan],
            "predict_seconds": [0.06, 0.03, 0.0004, np.nan, np.nan],
            "status": ["done", "done", "done", "used", "stopped: behind after one fold"],
        }
    )
    sensitivity = None
    if with_sensitivity:
        total = np.abs(mixing) / np.abs(mixing).sum(0) * 1.1
        lines = [
            {
                "target": target,
                "input": name,
                "first": 0.8 * total[i, j],
                "first_low": 0.7 * total[i, j],
                "first_high": 0.9 * total[i, j],
                "total": total[i, j],
                "total_low": 0.9 * total[i, j],
                "total_high": 1.1 * total[i, j],
            }
            for j, target in enumerate(targets)
            for i, name in enumerate(inputs)
        ]
        sensitivity = pd.DataFrame(lines)
    return KnownSurrogate(
        space=space,
        targets=tuple(targets),
        evaluation=evaluation(unseen),
        held_out=unseen,
        training=training,
        leaderboard=leaderboard,
        sensitivity_=sensitivity,
        notes=(
            Note("duplicates", (), "3 rows occur more than once and were dropped.", 3, "warning"),
            Note("range", ("span",), "Column 'span' spans 4 orders of magnitude.", 1, "info"),
        ),
        settings={
            "source": "runs.csv",
            "rows": rows,
            "budget": 120.0,
            "metric": "nlpd",
            "seed": 0,
            "seconds": 74.2,
            "created": "2026-05-04T10:00:00+00:00",
            "versions": {"understudy": "0.1.0", "python": "3.11.2", "torch": "2.13.0"},
        },
        warps=[YeoJohnson(0.3) if j % 2 else Identity() for j in range(len(targets))],
    )


@pytest.fixture(scope="session")
def make_surrogate():
    """Return a function that makes a known surrogate of any size."""
    return known_surrogate
