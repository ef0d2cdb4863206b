r"""A coefficient field from readings of the solution, through a generative operator.

Readings :math:`y_i` at points :math:`x_i` with errors :math:`N(0, \sigma^2)`, taken as independent,
give a posterior of the latent vector of
:class:`~understudy.models.operators.dgno.DeepGenerativeNeuralOperator`, and so of the coefficient
everywhere. The operator's own error is no part of it: where it is not small, it belongs into
:math:`\sigma`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.space import nearest
from understudy.models.operators.dgno import DeepGenerativeNeuralOperator
from understudy.models.operators.latent_posterior import LatentPosterior, Method
from understudy.models.operators.media import TwoPhase
from understudy.sample import diagnose

_VALUES = ("u", "pressure")


@dataclass(frozen=True)
class Sensors:
    """Where readings were taken, and what they say.

    Parameters
    ----------
    x : Tensor (N, 2)
    y : Tensor (N,)
    """

    x: Tensor
    y: Tensor


def read_sensors(table: pd.DataFrame) -> Sensors:
    """Sensors of a table with columns x, y and u, or pressure in the place of u.

    Raises
    ------
    UserError
        No rows, a missing column, a cell that is no number, a sensor outside the unit square.
    """
    if not len(table):
        raise UserError("the table of readings has no rows")
    value = next((name for name in _VALUES if name in table.columns), "u")
    columns = []
    for name in ("x", "y", value):
        if name not in table.columns:
            known = [str(column) for column in table.columns]
            raise UserError(f"the table of readings has no column {name!r}{nearest(name, known)}")
        numbers = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(numbers))
        if len(bad):
            raise UserError(f"column {name!r}, row {bad[0] + 1}: a number is missing")
        if name != value:
            far = np.flatnonzero((numbers < 0.0) | (numbers > 1.0))
            if len(far):
                raise UserError(
                    f"column {name!r}, row {far[0] + 1}: {numbers[far[0]]:g} is outside 0 to 1, "
                    "the domain of the operator"
                )
        columns.append(torch.tensor(numbers))
    return Sensors(torch.stack(columns[:2], 1), columns[2])


@dataclass(frozen=True)
class FieldCalibration:
    """Posterior of a coefficient field.

    Parameters
    ----------
    posterior : LatentPosterior
        Of one field.
    sensors : Sensors
    noise : float
    mean, sd : Tensor (n, n)
        Of the coefficient in the cells, the first axis x.
    predicted, predicted_sd : Tensor (N,)
        Solution at the sensors, without noise.
    """

    posterior: LatentPosterior
    sensors: Sensors
    noise: float
    mean: Tensor
    sd: Tensor
    predicted: Tensor
    predicted_sd: Tensor

    @property
    def explained(self) -> float:
        """Share of readings within their 90 % predictive interval, noise included."""
        sd = (self.predicted_sd.square() + self.noise**2).sqrt()
        return float(((self.sensors.y - self.predicted).abs() <= 1.645 * sd).double().mean())

    @property
    def phases(self) -> tuple[float, float] | None:
        """The two values of the coefficient; None of a continuous one."""
        medium = self.posterior.operator.medium
        return (medium.low, medium.high) if isinstance(medium, TwoPhase) else None

    @property
    def decided(self) -> float:
        """Share of cells that are known.

        Those of which one phase has 95 % of the chance, or, of a continuous coefficient, of which
        the deviation is below a tenth of the mean.
        """
        if self.phases is None:
            return float((self.sd < 0.1 * self.mean).double().mean())
        low, high = self.phases
        chance = (self.mean - low) / (high - low)
        return float(((chance <= 0.05) | (chance >= 0.95)).double().mean())

    @property
    def criterion(self) -> str:
        """When a cell is decided, in words."""
        if self.phases is None:
            return "the deviation is below a tenth of the mean"
        return "one phase has 95 % of the chance"

    @property
    def range(self) -> tuple[float, float]:
        """The two phases, or the least and the largest mean of a cell."""
        return self.phases or (float(self.mean.min()), float(self.mean.max()))

    @property
    def r_hat(self) -> float:
        """Largest R-hat of a latent number; NaN where nothing was sampled."""
        chains = self.posterior.chains
        return math.nan if chains is None else float(diagnose(chains.draws).r_hat.max())

    def warnings(self) -> list[str]:
        """What should be known before the field is used, in sentences."""
        said = []
        if self.posterior.method == "map":
            said.append("a single field says nothing of how sure it is; hmc does")
        if self.r_hat > 1.05:
            said.append(
                f"chains of the latent vector do not agree (R-hat {self.r_hat:.2f}): several "
                "fields explain the readings, or more draws are needed"
            )
        if self.explained < 0.75:
            said.append(
                f"only {100 * self.explained:.0f} % of the readings are within their 90 % "
                "intervals: the noise is larger than said, or the operator's error is"
            )
        return said

    def table(self) -> pd.DataFrame:
        """A row for each cell: x, y, mean and sd of the coefficient."""
        axes = self.posterior.operator.grid.axes()
        x, y = torch.meshgrid(*axes, indexing="ij")
        columns = {"x": x, "y": y, "mean": self.mean, "sd": self.sd}
        return pd.DataFrame({name: each.flatten().numpy() for name, each in columns.items()})


def calibrate_field(
    operator: DeepGenerativeNeuralOperator,
    sensors: Sensors,
    noise: float,
    method: Method = "hmc",
    chains: int = 4,
    burn_in: int = 200,
    samples: int = 500,
    seed: int = 0,
) -> FieldCalibration:
    """Posterior of the coefficient given readings.

    Parameters
    ----------
    operator : DeepGenerativeNeuralOperator
    sensors : Sensors
    noise : float
        Deviation of the readings' errors, in their unit.
    method, chains, burn_in, samples, seed
        As of `DeepGenerativeNeuralOperator.infer`.
    """
    posterior = operator.infer(
        *(sensors.y, sensors.x, noise, method),
        chains=chains,
        samples=samples,
        burn_in=burn_in,
        seed=seed,
    )
    solutions = posterior.solution(sensors.x)[0].double()
    return FieldCalibration(
        posterior=posterior,
        sensors=sensors,
        noise=noise,
        mean=posterior.mean[0],
        sd=posterior.std[0],
        predicted=solutions.mean(0),
        predicted_sd=solutions.std(0, correction=0),
    )
