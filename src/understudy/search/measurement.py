"""What was measured, and models that predict it.

A model maps parameters to means and variances of the measured values: the curve of a simulator, or
a surrogate at the conditions of the measurement. A table of measurements becomes such a model and
values, and is refused in one sentence where it does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.space import Categorical, Space, nearest

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
        if known:
            part = Space(tuple(whole.inputs[j] for j in known))
            rows[:, known] = torch.tensor(part.encode(conditions))
        self._rows = rows

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
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(numbers).any():
        raise UserError(f"column {name!r} is empty")
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise UserError(f"column {name!r}, row {bad[0] + 1}: a number is missing")
    word = name.lower().split(" ")[0].split("[")[0]
    if word in _TIME or word.startswith("time"):
        back = np.flatnonzero(np.diff(numbers) <= 0.0)
        if len(back):
            row = int(back[0]) + 1
            raise UserError(
                f"column {name!r} must increase, but row {row + 1} has {numbers[row]:g} after "
                f"{numbers[row - 1]:g}"
            )
    if name not in space:
        return
    item = space[name]
    assert not isinstance(item, Categorical)
    lower, upper = float(item.lower), float(item.upper)
    room = 1e-9 * (upper - lower)
    outside = np.flatnonzero((numbers < lower - room) | (numbers > upper + room))
    if not len(outside):
        return
    row = int(outside[0])
    turned = bool(((-numbers >= lower - room) & (-numbers <= upper + room)).all())
    hint = "; it seems to have the wrong sign" if turned else ""
    raise UserError(
        f"column {name!r}, row {row + 1}: {numbers[row]:g} is outside {lower:g} to {upper:g}, the "
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
