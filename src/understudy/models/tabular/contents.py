"""What the tables and settings of a surrogate's file must hold for the rest to rely on them.

A file can come from anybody: what is checked here is refused when it is read, and not met later
by a report that is half written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from understudy.models.tabular.conformal import LEVELS

if TYPE_CHECKING:
    from understudy.models.tabular.fitted import FittedSurrogate

_PERCENT = [f"{level * 100:.0f}" for level in LEVELS]
_SCORES = ("r2", "rmse", "nlpd", "crps", "coverage_90")
_ENDS = ("", "_low", "_high")

TEXTS = {
    "leaderboard": ("name", "status"),
    "evaluation": ("split", "target"),
    "held_out": ("split", "target"),
    "sensitivity": ("target", "input"),
}
"""Columns of text in each table."""

NUMBERS = {
    "leaderboard": ("weight", *_SCORES, "fit_seconds", "predict_seconds"),
    "evaluation": (
        *("rows", *(f"{score}{end}" for score in _SCORES for end in _ENDS)),
        *(f"coverage_{percent}" for percent in _PERCENT),
    ),
    "held_out": (
        *("row", "y", "mean", "sd", "pit", "log_density", "crps"),
        *(f"{end}_{percent}" for end in ("lower", "upper") for percent in _PERCENT),
    ),
    "sensitivity": tuple(f"{index}{end}" for index in ("first", "total") for end in _ENDS),
}
"""Columns of numbers in each table."""

_SETTINGS: dict[str, type] = {
    "source": str,
    "metric": str,
    "created": str,
    "rows": Real,
    "budget": Real,
    "seconds": Real,
    "seed": Real,
    "versions": Mapping,
}


def check_contents(model: FittedSurrogate) -> None:
    """Check targets, settings and tables of a surrogate that was read from a file.

    Raises
    ------
    ValueError
        With what is missing or of another kind than it should be.
    """
    _check_targets(model.targets)
    _check_settings(model.settings)
    tables = {name: getattr(model, name) for name in ("leaderboard", "evaluation", "held_out")}
    if model.sensitivity_ is not None:
        tables["sensitivity"] = model.sensitivity_
    for name, table in tables.items():
        _check_columns(name, table)
    if model.held_out.duplicated(["split", "target", "row"]).any():
        raise ValueError("held_out has a row twice")
    for split, part in model.evaluation.groupby("split"):
        _check_pairs(f"evaluation of {split!r}", [part["target"]], [model.targets])
    if set(model.held_out["split"]) != set(model.evaluation["split"]) or model.held_out.empty:
        raise ValueError("held_out and evaluation are of other splits")
    if model.sensitivity_ is not None:
        columns = [model.sensitivity_["target"], model.sensitivity_["input"]]
        _check_pairs("sensitivity", columns, [model.targets, model.space.names])
    _check_training(model)


def _check_targets(targets: Sequence[Any]) -> None:
    if not targets or not all(isinstance(name, str) for name in targets):
        raise ValueError("the targets are no names")
    if len(set(targets)) < len(targets):
        raise ValueError("a target is there twice")


def _check_settings(settings: Any) -> None:
    if not isinstance(settings, Mapping):
        raise ValueError("the settings are no settings")
    for key, kind in _SETTINGS.items():
        if key in settings and not isinstance(settings[key], kind):
            raise ValueError(f"the setting {key!r} is {settings[key]!r}")
    if settings.get("metric", "nlpd") not in _SCORES:
        raise ValueError(f"the metric is {settings['metric']!r}")


def _check_columns(name: str, table: pd.DataFrame) -> None:
    for column in (*TEXTS[name], *NUMBERS[name]):
        if list(table.columns).count(column) != 1:
            raise ValueError(f"{name} has not one column {column!r}")
    for column in NUMBERS[name]:
        if not is_numeric_dtype(table[column]):
            raise ValueError(f"column {column!r} of {name} holds no numbers")
    for column in TEXTS[name]:
        if not all(isinstance(value, str) for value in table[column]):
            raise ValueError(f"column {column!r} of {name} holds other things than text")


def _check_pairs(what: str, columns: list[pd.Series], names: list[Sequence[str]]) -> None:
    """Check that each combination of names is there once."""
    found = pd.MultiIndex.from_arrays(columns)
    wanted = pd.MultiIndex.from_product(names)
    if not found.is_unique or set(found) != set(wanted):
        raise ValueError(f"{what} is not of every name once")


def _check_training(model: FittedSurrogate) -> None:
    for name in (*model.space.names, *model.targets):
        if list(model.training.columns).count(name) != 1:
            raise ValueError(f"training has not one column {name!r}")
    if model.training.empty:
        raise ValueError("training has no rows")
    model.space.encode(model.training[model.space.names])
    missing = set(model.space.names) - set(model.fill)
    if missing:
        raise ValueError(f"no usual value of {min(missing)!r} to fill empty cells in with")
