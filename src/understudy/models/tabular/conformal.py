r"""Intervals that hold out of sample: conformal calibration of predictive distributions.

The score of a row is how far into the tails of its predictive distribution the observation fell,
:math:`s_i = |\Phi^{-1}(F_i(y_i))|` (distributional conformal prediction, Chernozhukov et al. 2021,
arXiv 1909.07889). With scores of rows that the model has not seen, the interval at level p runs
between the predictive quantiles at :math:`\Phi(\pm q)`, where q is the
:math:`\lceil (n + 1)\,p \rceil`-th smallest score.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

LEVELS: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95)
"""Coverage levels that every prediction carries."""

_FARTHEST = 8.0  # beyond it a distribution function in double precision is 0 or 1


def scores(cdf: Tensor) -> Tensor:
    """Conformity scores (n, m) of values of the distribution function at the observations."""
    return torch.special.ndtri(cdf.clamp(1e-15, 1.0 - 1e-15)).abs().clamp(max=_FARTHEST)


@dataclass(frozen=True)
class Conformal:
    """Half-widths, in standard-normal units, of the calibrated intervals.

    Parameters
    ----------
    levels : tuple of float
        Coverage levels in (0, 1), increasing.
    radius : Tensor (l, m)
        For each level and output.
    rows : int
        Rows the calibration rests on.
    """

    levels: tuple[float, ...]
    radius: Tensor
    rows: int

    @classmethod
    def calibrate(cls, cdf: Tensor, levels: tuple[float, ...] = LEVELS) -> Conformal:
        """Calibrate from the distribution function (n, m) at unseen observations.

        With too few rows for a level (fewer than p / (1 - p)) no finite interval is guaranteed;
        there the wider of the largest score and the nominal quantile is used.
        """
        ordered = scores(cdf).sort(0).values
        n = len(ordered)
        radius = []
        for level in levels:
            rank = math.ceil((n + 1) * level)
            nominal = _nominal(level)
            beyond = ordered[-1].clamp_min(nominal)
            radius.append(ordered[rank - 1] if rank <= n else beyond)
        return cls(levels, torch.stack(radius), n)

    def probabilities(self, levels: tuple[float, ...]) -> tuple[Tensor, Tensor]:
        """Lower and upper tail probabilities (l, m) of intervals at levels.

        Between the calibrated levels the ratio to the nominal half-width is interpolated.
        """
        nominal = torch.tensor([_nominal(level) for level in self.levels], dtype=torch.float64)
        ratio = self.radius / nominal.unsqueeze(1)
        wanted = torch.tensor([_nominal(level) for level in levels], dtype=torch.float64)
        at = torch.searchsorted(nominal, wanted).clamp(1, len(nominal) - 1)
        left, right = nominal[at - 1], nominal[at]
        t = ((wanted - left) / (right - left)).clamp(0.0, 1.0).unsqueeze(1)
        radius = wanted.unsqueeze(1) * (ratio[at - 1] * (1.0 - t) + ratio[at] * t)
        return torch.special.ndtr(-radius), torch.special.ndtr(radius)


@lru_cache(maxsize=256)
def _nominal(level: float) -> float:
    """Half-width of the central interval of a standard normal distribution."""
    return float(torch.special.ndtri(torch.tensor(0.5 + 0.5 * level, dtype=torch.float64)))


def temperature(log_density_at: list[Tensor], factors: Tensor, prior_sd: float = 0.3) -> Tensor:
    """Spread factor (m,) with the best log density of unseen rows, shrunk towards 1.

    Parameters
    ----------
    log_density_at : list of Tensor (n, m)
        Log densities of unseen observations, one for each factor.
    factors : Tensor (f,)
        Positive factors that were tried.
    prior_sd : float
        Standard deviation of the normal prior on the logarithm of the factor.
    """
    total = torch.stack([values.sum(0) for values in log_density_at])
    penalty = 0.5 * (factors.log() / prior_sd).square().unsqueeze(1)
    return factors[(total - penalty).argmax(0)]
