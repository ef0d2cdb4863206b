"""Where the truth comes from: something with named inputs that can be run for named outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.space import Space, nearest


class Simulator(ABC):
    """Runs for one set of parameters at a time.

    Attributes
    ----------
    space : Space
        The inputs and the ranges in which the simulator is meant to be run.
    outputs : tuple of str
        Names of what a run gives.
    """

    space: Space
    outputs: tuple[str, ...]

    @abstractmethod
    def run(self, params: Mapping[str, Any] | pd.Series) -> dict[str, float]:
        """Outputs for one value of each input.

        Parameters
        ----------
        params : mapping or row of a DataFrame
            Value of each input by name.
        """

    def run_many(self, df: pd.DataFrame) -> pd.DataFrame:
        """Outputs for each row of a table of inputs ``(n, d)``: a table ``(n, m)``, same index."""
        rows = [self.run(row) for row in df.to_dict("records")]
        return pd.DataFrame(rows, index=df.index, columns=list(self.outputs))

    def _complete(self, params: Mapping[str, Any] | pd.Series) -> dict[str, Any]:
        """Parameters by name; an unknown or a missing one is refused."""
        given = {str(name): value for name, value in params.items()}
        for name in given:
            if name not in self.space:
                raise UserError(f"no input {name!r}{nearest(name, self.space.names)}")
        for name in self.space.names:
            if name not in given:
                raise UserError(f"input {name!r} is missing; needed are {self.space.names}")
        return given


class BatchedSimulator(Simulator):
    """Runs for many parameters at once, in one tensor computation."""

    @abstractmethod
    def evaluate(self, X: Tensor) -> Tensor:
        """Outputs ``(..., m)`` of codes ``(..., d)``, see :meth:`Space.encode`."""

    def run(self, params: Mapping[str, Any] | pd.Series) -> dict[str, float]:  # noqa: D102
        row = pd.DataFrame([self._complete(params)])
        return {name: float(value) for name, value in self.run_many(row).iloc[0].items()}

    def run_many(self, df: pd.DataFrame) -> pd.DataFrame:  # noqa: D102
        Y = self.evaluate(torch.from_numpy(self.space.encode(df)))
        return pd.DataFrame(Y.numpy(), index=df.index, columns=list(self.outputs))
