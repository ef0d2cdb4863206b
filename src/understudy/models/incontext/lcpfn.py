"""LC-PFN: the rest of a training run, predicted from its beginning in one forward pass.

Adriaensen, Rakotoarison, Müller & Hutter (2023, arXiv 2310.20447). A prior-data fitted network
(`understudy.models.incontext.pfn`) of one input, the epoch, trained on curves of a `CurvePrior`
that are cut at a random epoch: its context is what has been observed, its questions the epochs to
come, its answers bar distributions of the noisy values there.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from understudy.core.bars import BarDistribution
from understudy.core.errors import UserError
from understudy.models.incontext.curve_normaliser import CurveNormaliser
from understudy.models.incontext.curve_prior import EPOCHS, CurvePrior
from understudy.models.incontext.encoding import Encoding
from understudy.models.incontext.estimators import network_of
from understudy.models.incontext.pfn import PFN
from understudy.models.incontext.pretrain import Pretraining

Floats = NDArray[np.float64]

LEVELS = (50, 80, 90, 95)
"""Percent that the bands of a table hold."""

_FALLEN = 0.1  # of the range: so much lower than at first is no curve of the prior


class LCPFN:
    """Network that extrapolates learning curves.

    Parameters
    ----------
    network : "default", path or PFN
        The shipped network, a file of `PFN.save`, or a network.
    """

    def __init__(self, network: str | Path | PFN = "default") -> None:
        self.pfn = network_of(network, "curves")

    @classmethod
    def pretrain(
        cls,
        prior: CurvePrior | None = None,
        plan: Pretraining | None = None,
        bars: int = 1000,
        **sizes: Any,
    ) -> LCPFN:
        """Train a network on curves of a prior.

        Parameters
        ----------
        prior : CurvePrior, optional
            The paper's by default.
        plan : Pretraining, optional
            With rows = 100 and an evenly drawn cut. By default the paper's batches of 100 curves
            and learning rate 1e-4, for 5000 steps, where the paper has 100,000.
        bars : int
        **sizes
            ``width``, ``depth``, ``heads`` and ``hidden`` of the network; the paper's smallest, 128
            wide with 3 layers, by default.
        """
        plan = plan or Pretraining(
            steps=5000,
            batch=100,
            rows=EPOCHS,
            least_context=1,
            uniform_context=True,
            learning_rate=1e-4,
        )
        sizes = {"width": 128, "depth": 3, "heads": 4, **sizes}
        encoding = Encoding(features=1, inputs="unit", outcomes="unit")
        network = PFN.pretrained_on(prior or CurvePrior(), plan, encoding, "bars", bars, **sizes)
        return cls(network)

    def predict(self, values: Tensor, ahead: Tensor, seen: Tensor | None = None) -> BarDistribution:
        """Predict curves on the scale of the prior, all in one pass.

        Parameters
        ----------
        values : Tensor (B, T)
            Observed values, T of at least 1.
        ahead : Tensor (H,)
            Epochs to predict, up to 100.
        seen : Tensor (T,), optional
            Epochs of the values; 1 to T by default.

        Returns
        -------
        BarDistribution
            Of noisy values, cells (B, H).
        """
        B, T = values.shape
        seen = torch.arange(1, T + 1) if seen is None else seen
        x, q = (
            (epochs.to(values) / (EPOCHS + 1)).expand(B, -1).unsqueeze(-1)
            for epochs in (seen, ahead)
        )
        return self.pfn.predict(x, values, q)

    def extrapolate(
        self,
        curve: ArrayLike,
        horizon: int = EPOCHS,
        normaliser: CurveNormaliser | None = None,
        *,
        minimize: bool = False,
    ) -> CurveForecast:
        """Predict a curve up to a horizon.

        Parameters
        ----------
        curve : array (T,)
            Values of the metric after epochs 1 to T.
        horizon : int
            Last epoch to predict, above T. Beyond 100 every second, third, ... epoch is looked
            at and predicted, so that the network sees no more than it was trained for.
        normaliser : CurveNormaliser, optional
            Range of the metric. By default that of an accuracy, or of a log loss whose reference is
            the first value.
        minimize : bool
            Whether small values are good, where no normaliser says so.

        Raises
        ------
        UserError
            If the curve is empty or holds something that is no number of the metric's range, or the
            horizon is in the past.
        """
        return self.extrapolate_many([curve], horizon, normaliser, minimize=minimize)[0]

    def extrapolate_many(
        self,
        curves: Sequence[ArrayLike],
        horizon: int = EPOCHS,
        normaliser: CurveNormaliser | None = None,
        *,
        minimize: bool = False,
    ) -> list[CurveForecast]:
        """Predict several curves as `extrapolate` does; those of one length in one pass."""
        prepared = [checked_curve(curve, normaliser, minimize) for curve in curves]
        groups: dict[int, list[int]] = {}
        for k, (values, _) in enumerate(prepared):
            groups.setdefault(len(values), []).append(k)
        forecasts: dict[int, CurveForecast] = {}
        for length, members in groups.items():
            grid = EpochGrid.of(length, horizon)
            g = torch.stack([prepared[k][1](torch.from_numpy(prepared[k][0])) for k in members])
            _warn_of_falls(g, prepared[members[0]][1].minimize)
            bars = self.predict(g[:, grid.seen - 1], grid.ahead_scaled, grid.seen_scaled)
            for at, k in enumerate(members):
                values, normal = prepared[k]
                forecasts[k] = CurveForecast(values, grid.ahead.numpy(), bars[at], normal)
        return [forecasts[k] for k in range(len(curves))]

    def prob_exceeds(
        self,
        curve: ArrayLike,
        best: float,
        horizon: int = EPOCHS,
        normaliser: CurveNormaliser | None = None,
        *,
        minimize: bool = False,
    ) -> Floats:
        """Probability (H,) that the curve is better than a value, at each epoch to come."""
        forecast = self.extrapolate(curve, horizon, normaliser, minimize=minimize)
        return forecast.prob_better(best)


@dataclass(frozen=True)
class EpochGrid:
    """Which epochs of a curve the network is shown and asked about.

    Parameters
    ----------
    seen, ahead : Tensor of int (T,), (H,)
        Epochs.
    seen_scaled, ahead_scaled : Tensor (T,), (H,)
        Where the network takes them to be: the same up to a horizon of 100; beyond, every stride-th
        epoch counted back and on from the last, as if it were the next.
    """

    seen: Tensor
    ahead: Tensor
    seen_scaled: Tensor
    ahead_scaled: Tensor

    @classmethod
    def of(cls, length: int, horizon: int) -> EpochGrid:
        """Grid for a curve of some length."""
        if isinstance(horizon, bool) or not isinstance(horizon, int | np.integer):
            raise UserError(f"the horizon is a number of epochs, got {horizon!r}")
        if horizon <= length:
            raise UserError(
                f"the horizon {horizon} is in the past: the curve has {length} epochs already"
            )
        stride = math.ceil(horizon / EPOCHS)
        while math.ceil(length / stride) + math.ceil((horizon - length) / stride) > EPOCHS:
            stride += 1
        seen = torch.arange(length, 0, -stride).flip(0)
        ahead = torch.tensor([*range(length + stride, horizon + 1, stride)] or [horizon])
        scaled = (ahead - length) / stride + len(seen)
        return cls(seen, ahead, torch.arange(1.0, len(seen) + 1.0), scaled)


@dataclass(frozen=True)
class CurveForecast:
    """What is to come of a curve, in the units of its metric.

    Parameters
    ----------
    observed : array (T,)
    epochs : array of int (H,)
        That are predicted.
    distribution : BarDistribution
        Of normalised values, cells (H,).
    normaliser : CurveNormaliser
    """

    observed: Floats
    epochs: NDArray[np.int64]
    distribution: BarDistribution
    normaliser: CurveNormaliser

    def quantile(self, levels: Sequence[float]) -> Floats:
        """Quantiles (levels, H) of the metric at levels in (0, 1)."""
        p = torch.tensor(levels, dtype=torch.float64)
        normal = self.distribution.quantile(1.0 - p if self.normaliser.minimize else p)
        return self.normaliser.inverse(normal).numpy()

    @property
    def median(self) -> Floats:
        """Medians, (H,)."""
        return self.quantile([0.5])[0]

    def prob_better(self, value: float) -> Floats:
        """Probability (H,) of a better observation than a value of the metric.

        It is 0 for the best value that is possible, though noise of the prior goes beyond.
        """
        if not math.isfinite(value):
            raise UserError(f"the value to be better than must be a finite number, got {value}")
        return chance_above(self.distribution, self.normaliser, value).numpy()

    def table(self) -> pd.DataFrame:
        """Median and central intervals of each epoch, as columns."""
        columns = {"epoch": self.epochs, "median": self.median}
        for level in LEVELS:
            outside = 0.5 - level / 200.0
            low, high = self.quantile([outside, 1.0 - outside])
            columns |= {f"lower_{level}": low, f"upper_{level}": high}
        return pd.DataFrame(columns)


def chance_above(bars: BarDistribution, normaliser: CurveNormaliser, value: float) -> Tensor:
    """Probability, of each cell, of a better value of the metric than a given one."""
    ideal = normaliser.ideal
    if value <= ideal if normaliser.minimize else value >= ideal:
        return torch.zeros(bars.logits.shape[:-1], dtype=torch.float64)
    return 1.0 - bars.cdf(normaliser(torch.tensor(float(value), dtype=torch.float64)))


def default_normaliser(first: float, minimize: bool) -> CurveNormaliser:
    """Range of an accuracy, or of a log loss whose reference is its first value."""
    if not minimize:
        return CurveNormaliser()
    if not first > 0.0:
        raise UserError(
            f"a curve to be minimized is taken for a loss above 0, but begins at {first:g}: give "
            "the range of the metric"
        )
    return CurveNormaliser.log_loss(first)


def checked_curve(
    curve: ArrayLike, normaliser: CurveNormaliser | None = None, minimize: bool = False
) -> tuple[Floats, CurveNormaliser]:
    """Return the values of a curve and its normaliser.

    Raises
    ------
    UserError
        If the curve cannot be extrapolated; says why.
    """
    values = _numbers(curve)
    normaliser = normaliser or default_normaliser(float(values[0]), minimize)
    outside = ~normaliser.contains(torch.from_numpy(values)).numpy()
    if outside.any():
        at = int(outside.argmax())
        raise UserError(
            f"the curve is {values[at]:g} at epoch {at + 1}, outside the range of the metric, "
            f"{normaliser.lower:g} to {normaliser.upper:g}: give the range that it has"
        )
    return values, normaliser


def _numbers(curve: ArrayLike) -> Floats:
    try:
        values = np.array(curve, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError("a curve is a sequence of numbers, one for each epoch") from None
    if values.ndim != 1 or len(values) == 0:
        raise UserError(
            f"a curve is a sequence of at least one number, got an array of shape {values.shape}"
        )
    if not np.isfinite(values).all():
        at = int((~np.isfinite(values)).argmax())
        raise UserError(f"the curve is {values[at]} at epoch {at + 1}: it must be finite")
    return values


def _warn_of_falls(g: Tensor, minimize: bool) -> None:
    """Warn where a curve (B, T) has clearly gone the wrong way: those of the prior rise."""
    part = max(1, g.shape[1] // 4)
    if bool((g[:, :part].mean(1) - g[:, -part:].mean(1) > _FALLEN).any()):
        advice = "large" if minimize else "small"
        warnings.warn(
            "a curve has become clearly worse since it began, as hardly any curve of the prior: "
            f"its forecast cannot be trusted; check whether {advice} values are good",
            stacklevel=3,
        )
