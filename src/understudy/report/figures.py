"""The numbers behind the report's figures, compact enough to travel inside the page.

Figures are drawn in the browser, for the output that the reader picks; this module only decides
which rows, inputs and digits go along.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from understudy.core.metrics import calibration_curve
from understudy.core.space import Categorical, Continuous
from understudy.report.sentences import percent

if TYPE_CHECKING:
    from understudy.models.tabular.fitted import FittedSurrogate

MOST_ROWS = 2000
MOST_OUTPUTS = 60
MOST_SLICES = 12
MOST_BARS = 15
MOST_MAPPED = 30
LEVELS = (50, 80, 90, 95)

_NUMBERS = 40_000  # about rows, 7 bytes each, for each split
_CURVE = np.linspace(0.0, 1.0, 41)


def figure_data(model: FittedSurrogate, seed: int = 0) -> dict[str, Any]:
    """Collect what the figures need, as JSON-able lists.

    Parameters
    ----------
    model : FittedSurrogate
    seed : int
        Of the choice of rows, where there are too many.

    Returns
    -------
    dict
        ``targets``, ``inputs``, ``splits`` (name to rows and curves), ``sensitivity``, ``slices``.
    """
    targets = list(model.targets)[:MOST_OUTPUTS]
    held_out = model.held_out[model.held_out["target"].isin(targets)]
    names = [str(name) for name in held_out["split"].unique()]
    splits = sorted(names, key=lambda name: name != "test")
    at_most = int(np.clip(_NUMBERS // (len(model.space) + 4 * len(targets)), 100, MOST_ROWS))
    return {
        "targets": targets,
        "inputs": [_input(item) for item in model.space],
        "splits": [
            _split(name, held_out[held_out["split"] == name], model, targets, at_most, seed)
            for name in splits
        ],
        "sensitivity": _sensitivity(model, targets),
        "slices": _slices(model, targets),
    }


def rounded(values: ArrayLike, digits: int = 4) -> list[Any]:
    """Values as a list, rounded to some digits of their spread; None for what is no number."""
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    spread = float(np.ptp(finite)) or float(np.abs(finite).max(initial=0.0)) if finite.size else 0.0
    decimals = digits - math.floor(math.log10(spread)) if spread > 0 else digits
    kept = np.round(array, decimals) if decimals < 300 else array
    return [v if math.isfinite(v) else None for v in kept.tolist()]


def _input(item: Any) -> dict[str, Any]:
    return {
        "name": item.name,
        "unit": getattr(item, "unit", ""),
        "categorical": isinstance(item, Categorical),
        "log": isinstance(item, Continuous) and item.log,
    }


# -- rows that the models have not seen --------------------------------------------------------


def _split(
    name: str,
    frame: pd.DataFrame,
    model: FittedSurrogate,
    targets: list[str],
    at_most: int,
    seed: int,
) -> dict[str, Any]:
    wide = frame.pivot(index="row", columns="target")
    whole = len(wide)
    coverage = _coverage(model.evaluation, name, targets)
    curves = [
        rounded(calibration_curve(wide["pit"][target].dropna(), _CURVE)) for target in targets
    ]
    if whole > at_most:
        chosen = np.sort(np.random.default_rng(seed).permutation(whole)[:at_most])
        wide = wide.iloc[chosen]
    columns = {
        label: [rounded(wide[column][target]) for target in targets]
        for label, column in {
            "y": "y",
            "mean": "mean",
            "low": "lower_90",
            "high": "upper_90",
        }.items()
    }
    return {
        "name": name,
        "rows": [int(row) + 1 for row in wide.index],  # as in the notes on the data
        "whole": whole,
        **columns,
        "x": _inputs_of(wide["y"], name, model),
        "curve": curves,
        "coverage": coverage,
    }


def _coverage(evaluation: pd.DataFrame, split: str, targets: list[str]) -> list[list[Any]]:
    """Share of rows in each interval, with its text, for each target."""
    lines = evaluation[evaluation["split"] == split].set_index("target").loc[targets]
    return [
        [(round(share, 4), percent(share)) for share in map(float, shares)]
        for shares in lines[[f"coverage_{level}" for level in LEVELS]].to_numpy()
    ]


def _inputs_of(y: pd.DataFrame, split: str, model: FittedSurrogate) -> list[list[Any]] | None:
    """Inputs of rows (y indexed by row number); None where those of most are not known."""
    training = model.training
    named = {*model.space.names, *model.targets}
    if split == "cross-validation" and "row" in training and "row" not in named:
        known, wanted = training.drop_duplicates("row").set_index("row"), y.index
    else:  # an older file: rows are recognised by their outputs
        shared = [target for target in y.columns if target in training]
        known = training.drop_duplicates(shared).set_index(shared, drop=False)
        known.index = pd.MultiIndex.from_frame(known[shared])
        wanted = pd.MultiIndex.from_frame(y[shared])
    at = known.index.get_indexer(wanted)
    if len(at) == 0 or (at < 0).mean() > 0.5:
        return None
    found = known[model.space.names].reset_index(drop=True)
    found = found.reindex(pd.Index(at).where(at >= 0, -1))
    return [_values(found[item.name], item) for item in model.space]


def _values(column: pd.Series, item: Any) -> list[Any]:
    if isinstance(item, Categorical):
        return [None if pd.isna(value) else str(value) for value in column]
    return rounded(pd.to_numeric(column, errors="coerce"))


# -- what the surrogate has learnt -------------------------------------------------------------


def _sensitivity(model: FittedSurrogate, targets: list[str]) -> dict[str, Any] | None:
    """Indices of the most influential inputs of each output, and a map of the total ones."""
    table = model.sensitivity_
    if table is None:
        return None
    parts = ("first", "first_low", "first_high", "total", "total_low", "total_high")
    grids = {part: _grid(table, part, targets, model.space.names) for part in parts}
    bars = np.argsort(-grids["total"], axis=1, kind="stable")[:, :MOST_BARS]
    mapped = np.argsort(-grids["total"].max(0), kind="stable")[:MOST_MAPPED]
    return {
        "inputs": bars.tolist(),
        **{
            part: [rounded(row[at], 3) for row, at in zip(grid, bars, strict=True)]
            for part, grid in grids.items()
        },
        "map": {
            "inputs": mapped.tolist(),
            "total": [rounded(row, 3) for row in grids["total"][:, mapped].T],
        },
    }


def _grid(
    table: pd.DataFrame, column: str, targets: list[str], inputs: list[str]
) -> NDArray[np.float64]:
    wide = table.pivot(index="target", columns="input", values=column)
    return wide.loc[targets, inputs].to_numpy(dtype=np.float64)


def _slices(model: FittedSurrogate, targets: list[str]) -> list[dict[str, Any]]:
    """Curves along the most influential inputs of each output."""
    table = model.slices(points=41 if len(targets) <= 10 else 25)
    order = {name: at for at, name in enumerate(model.space.names)}
    chosen = _influential(model, targets)
    table = table[table["target"].isin(targets)]
    curves: list[dict[str, Any]] = []
    groups = {key: part for key, part in table.groupby(["target", "input"], sort=False)}
    for at, target in enumerate(targets):
        for name in chosen[at]:
            part = groups[target, name]
            together = rounded(part[["mean", "lower_90", "upper_90"]].to_numpy().T.reshape(-1))
            n = len(part)
            curves.append(
                {
                    "target": at,
                    "input": order[name],
                    "x": _values(part["value"], model.space[name]),
                    "mean": together[:n],
                    "low": together[n : 2 * n],
                    "high": together[2 * n :],
                }
            )
    return curves


def _influential(model: FittedSurrogate, targets: list[str]) -> list[list[str]]:
    names = model.space.names
    most = MOST_SLICES if len(targets) <= 30 else MOST_SLICES // 2
    if model.sensitivity_ is None:
        return [names[:most]] * len(targets)
    total = _grid(model.sensitivity_, "total", targets, names)
    ranked = np.argsort(-total, axis=1, kind="stable")[:, :most]
    return [[names[i] for i in row] for row in ranked]
