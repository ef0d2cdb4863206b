"""What was measured, and models that predict it.

A model maps parameters to means and variances of the measured values: the curve of a simulator, or
a surrogate at the conditions of the measurement. A table of measurements becomes such a model and
values, a table of further runs of the solver at these conditions becomes `Checks`; both are refused
in one sentence where they do not fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.space import Categorical, Input, Space, nearest
from understudy.search.priors import Prior, Uniform

_SAME = 1e-6  # of the range of a condition: rounding in a file
_TIME = ("time", "t", "seconds", "t_s")


class Model(Protocol):
    """What is calibrated: parameters in, the n measured quantities out.

    Attributes
    ----------
    space : Space
        Of the parameters, in order.
    outputs : tuple of str
        Names of the quantities that have a noise of their own.
    group : LongTensor (n,)
        Which output each measured value is of.
    """

    space: Space
    outputs: tuple[str, ...]
    group: Tensor

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances (c, n) at parameters (c, d), differentiable."""
        ...


class CurveModel:
    """A curve of a simulator that computes many at once, exactly.

    Parameters
    ----------
    simulator : BatchedSimulator
        `evaluate` maps parameters (c, d) to curves (c, n).
    output : str
        Name of what is measured.
    """

    def __init__(self, simulator: Any, output: str = "voltage") -> None:
        self.simulator = simulator
        self.space: Space = simulator.space
        self.outputs = (output,)
        self.group = torch.zeros(len(simulator.outputs), dtype=torch.long)

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Curves, and no variance."""
        mean = self.simulator.evaluate(theta)
        return mean, torch.zeros_like(mean)


class SurrogateModel:
    """A surrogate at measured conditions.

    Parameters
    ----------
    surrogate : FittedSurrogate
        With ``space``, ``targets`` and a differentiable ``posterior``.
    parameters : sequence of str
        Inputs to infer.
    conditions : DataFrame
        A row for each measurement, with a column for each other input.
    outputs : sequence of str
        Targets that were measured.

    Attributes
    ----------
    known : Space or None
        Of the other inputs, where there are any.
    conditions : Tensor (rows, q)
        Their codes.
    """

    def __init__(
        self,
        surrogate: Any,
        parameters: Sequence[str],
        conditions: pd.DataFrame,
        outputs: Sequence[str],
    ) -> None:
        whole: Space = surrogate.space
        self.surrogate = surrogate
        self.space = Space(tuple(whole[name] for name in parameters))
        self.outputs = tuple(outputs)
        self.group = torch.arange(len(self.outputs)).repeat(len(conditions))
        self._targets = [surrogate.targets.index(name) for name in self.outputs]
        self._at = [whole.names.index(name) for name in parameters]
        rows = torch.zeros(len(conditions), len(whole), dtype=torch.float64)
        known = [j for j in range(len(whole)) if j not in self._at]
        self.known = Space(tuple(whole.inputs[j] for j in known)) if known else None
        if self.known is not None:
            rows[:, known] = torch.tensor(self.known.encode(conditions))
        self._rows = rows
        self.conditions = rows[:, known]

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances (c, rows * outputs)."""
        c, n = len(theta), len(self._rows)
        columns = list(self._rows.unsqueeze(0).expand(c, -1, -1).unbind(-1))
        for k, j in enumerate(self._at):
            columns[j] = theta[:, k : k + 1].expand(-1, n)
        X = torch.stack(columns, -1).reshape(c * n, 1, -1)
        posterior = self.surrogate.posterior(X)
        mean, variance = (
            each.reshape(c, n, -1)[..., self._targets].reshape(c, -1)
            for each in (posterior.mean, posterior.variance)
        )
        return mean, variance.clamp_min(0.0)


# -- tables ----------------------------------------------------------------------------------------


def read_measurement(
    surrogate: Any, table: pd.DataFrame, parameters: Sequence[str]
) -> tuple[SurrogateModel, Tensor]:
    """Model and values (n,) of a table of measurements.

    Every target of the surrogate that is a column was measured; every input that is no parameter
    must be a column, within the range that the surrogate was trained on.

    Raises
    ------
    UserError
        No rows, no target, a missing column, an empty cell, time that does not increase, a value
        outside the trained range, among these a current of the wrong sign.
    """
    space: Space = surrogate.space
    for name in parameters:
        if name not in space:
            raise UserError(
                f"prior: {name!r} is no input of the surrogate{nearest(name, space.names)}"
            )
    if not len(table):
        raise UserError("the measurement has no rows")
    outputs = [name for name in surrogate.targets if name in table.columns]
    if not outputs:
        raise UserError(
            f"the measurement has no column of an output; the surrogate predicts "
            f"{', '.join(map(repr, surrogate.targets))}"
        )
    for name in [*space.names, *outputs]:
        if name in parameters:
            if name in table.columns:
                raise UserError(f"column {name!r} is measured and has a prior; it can be only one")
            continue
        if name not in table.columns:
            raise UserError(
                f"input {name!r} has neither a prior nor a column"
                f"{nearest(name, [str(column) for column in table.columns])}"
            )
        _check_column(name, table[name], space)
    conditions = table[[name for name in space.names if name not in parameters]]
    model = SurrogateModel(surrogate, parameters, conditions, outputs)
    values = table[outputs].to_numpy(dtype=np.float64)
    return model, torch.tensor(values).reshape(-1)


def _check_column(name: str, column: pd.Series, space: Space) -> None:
    """Refuse cells that are empty, text, out of order or outside the trained range."""
    if name in space and isinstance(space[name], Categorical):
        return
    found = _finite(name, column)
    word = name.lower().split(" ")[0].split("[")[0]
    if word in _TIME or word.startswith("time"):
        back = np.flatnonzero(np.diff(found) <= 0.0)
        if len(back):
            row = int(back[0]) + 1
            raise UserError(
                f"column {name!r} must increase, but row {row + 1} has {found[row]:g} after "
                f"{found[row - 1]:g}"
            )
    if name in space:
        _check_range(name, found, space[name])


def _finite(name: str, column: pd.Series) -> NDArray[np.float64]:
    """Numbers of a column, of which none is missing."""
    found = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(found).any():
        raise UserError(f"column {name!r} is empty")
    bad = np.flatnonzero(~np.isfinite(found))
    if len(bad):
        raise UserError(f"column {name!r}, row {bad[0] + 1}: a number is missing")
    return found


def _check_range(name: str, found: NDArray[np.float64], item: Input) -> None:
    """Refuse numbers outside the trained range."""
    assert not isinstance(item, Categorical)
    lower, upper = float(item.lower), float(item.upper)
    room = 1e-9 * (upper - lower)
    outside = np.flatnonzero((found < lower - room) | (found > upper + room))
    if not len(outside):
        return
    row = int(outside[0])
    turned = bool(((-found >= lower - room) & (-found <= upper + room)).all())
    hint = "; it seems to have the wrong sign" if turned else ""
    raise UserError(
        f"column {name!r}, row {row + 1}: {found[row]:g} is outside {lower:g} to {upper:g}, the "
        f"range that the surrogate was trained on{hint}"
    )


def check_units(output: str, y: Tensor, mean: Tensor) -> None:
    """Refuse values about a thousand times or a thousandth of what is predicted."""
    measured, predicted = float(y.abs().median()), float(mean.abs().median())
    if measured <= 0.0 or predicted <= 0.0:
        return
    for factor, told in ((1e3, "multiplied by 1000 (milli-units?)"), (1e-3, "divided by 1000")):
        if 0.5 < measured / predicted / factor < 2.0:
            raise UserError(
                f"column {output!r} seems to be {told}: its median is {measured:.4g}, that of the "
                f"predictions {predicted:.4g}"
            )


# -- further runs ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checks:
    """Runs of the solver at the measured conditions, which no surrogate was trained on.

    Parameters
    ----------
    theta : Tensor (N, d)
        Parameters, drawn from their prior.
    y : Tensor (N, n)
        What the solver gives for each measured value.
    """

    theta: Tensor
    y: Tensor


def read_checks(model: SurrogateModel, table: pd.DataFrame, priors: Mapping[str, Prior]) -> Checks:
    """Runs of the solver in a table with columns of the parameters, known inputs and outputs.

    Rows with the same parameters are a run. It needs a row at the conditions of each measurement,
    in any order; others are ignored.

    Parameters
    ----------
    model : SurrogateModel
        At the conditions of the measurement.
    table : DataFrame
    priors : mapping of str to Prior
        Of the parameters.

    Raises
    ------
    UserError
        A missing column, an empty cell, a parameter outside its prior or the trained range, a run
        without the row of a measurement.
    """
    known = model.known.names if model.known is not None else []
    for name in (*model.space.names, *known, *model.outputs):
        if name not in table.columns:
            raise UserError(f"column {name!r} is missing{nearest(name, list(table.columns))}")
    theta = np.column_stack([_finite(name, table[name]) for name in model.space.names])
    for k, name in enumerate(model.space.names):
        _check_range(name, theta[:, k], model.space[name])
        _check_drawn(name, theta[:, k], priors[name])
    values = np.column_stack([_finite(name, table[name]) for name in model.outputs])
    given = np.zeros((len(table), 0)) if model.known is None else model.known.encode(table)
    runs = list(
        pd.DataFrame(theta).groupby(list(range(theta.shape[1])), sort=False).indices.values()
    )
    rows = np.stack([run[_matched(model, table.iloc[run], given[run])] for run in runs])
    first = [int(run[0]) for run in runs]
    return Checks(torch.tensor(theta[first]), torch.tensor(values[rows].reshape(len(runs), -1)))


def _check_drawn(name: str, found: NDArray[np.float64], prior: Prior) -> None:
    """Refuse parameters that the prior excludes."""
    if not isinstance(prior, Uniform):
        return
    room = 1e-9 * (prior.upper - prior.lower)
    outside = np.flatnonzero((found < prior.lower - room) | (found > prior.upper + room))
    if len(outside):
        row = int(outside[0])
        raise UserError(
            f"column {name!r}, row {row + 1}: {found[row]:g} is outside the prior; parameters of "
            "these runs are draws of it"
        )


def _matched(
    model: SurrogateModel, run: pd.DataFrame, given: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Row (rows,) of a run, with conditions given (r, q), for each row of the measurement."""
    needed = model.conditions.numpy()
    spread = np.ptp(needed, axis=0)
    scale = np.where(spread > 0.0, spread, np.maximum(abs(needed).max(0), 1.0))
    away = (abs(given[:, None] - needed) / scale).max(-1, initial=0.0)  # (r, rows)
    lost = np.flatnonzero(away.min(0) > _SAME)
    if not len(lost):
        return away.argmin(0)
    assert model.known is not None
    row = int(lost[0])
    where = model.known.decode(model.conditions[row : row + 1]).iloc[0]
    raise UserError(
        f"the run with {_listed(run.iloc[0][model.space.names])} has no row with {_listed(where)}, "
        f"which row {row + 1} of the measurement has"
    )


def _listed(values: pd.Series) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, int | float) else f"{name} {value}"
        for name, value in values.items()
    )
