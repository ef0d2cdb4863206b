r"""Bring a metric onto the scale of the curve prior: rising, within [0, 1].

Adriaensen et al. (2023, arXiv 2310.20447, appendix A). With hard limits :math:`l, u`, which may be
infinite, and soft ones :math:`\tilde l < \tilde u`, between which the metric is expected to vary,

.. math:: g(y) = \frac{s(y) - s(l)}{s(u) - s(l)}, \qquad
          s(y) = \operatorname{sigmoid}\left(2\,\frac{y - \tilde l}{\tilde u - \tilde l} - 1\right),

which is nearly linear between the soft limits; :math:`1 - g(y)` where small values are good.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.core.errors import UserError

_EDGE = 1e-9


@dataclass(frozen=True)
class CurveNormaliser:
    """Increasing map of a metric to [0, 1], or decreasing one where it is minimised.

    The defaults suit an accuracy.

    Parameters
    ----------
    minimize : bool
        Whether small values are good.
    lower : float
        Least value that is possible; may be -inf.
    soft_lower, soft_upper : float
        Between which values are expected.
    upper : float
        Greatest value that is possible; may be inf.
    """

    minimize: bool = False
    lower: float = 0.0
    soft_lower: float = 0.0
    soft_upper: float = 1.0
    upper: float = 1.0

    def __post_init__(self) -> None:
        limits = (self.lower, self.soft_lower, self.soft_upper, self.upper)
        finite = math.isfinite(self.soft_lower) and math.isfinite(self.soft_upper)
        ordered = self.lower <= self.soft_lower < self.soft_upper <= self.upper
        if not (finite and ordered):
            raise UserError(
                "limits of a metric must rise: lower <= soft_lower < soft_upper <= upper, the soft "
                f"ones finite; got {', '.join(f'{limit:g}' for limit in limits)}"
            )

    @classmethod
    def between(cls, lower: float, upper: float, minimize: bool = False) -> CurveNormaliser:
        """For a metric with two finite limits."""
        return cls(minimize, lower, lower, upper, upper)

    @classmethod
    def log_loss(cls, reference: float) -> CurveNormaliser:
        """For a loss of at least 0: the reference is that of a guess, or the first of the curve."""
        if not 0.0 < reference < math.inf:
            raise UserError(f"the reference of a loss must be positive and finite, got {reference}")
        return cls(True, 0.0, 0.0, reference, math.inf)

    def __call__(self, y: Tensor) -> Tensor:
        """Normalised values of y, of the same shape, in double precision."""
        low, high = self._ends
        g = (self._sigmoid(y.double()) - low) / (high - low)
        return 1.0 - g if self.minimize else g

    def inverse(self, g: Tensor) -> Tensor:
        """Values of the metric, within its hard limits, that belong to normalised ones."""
        low, high = self._ends
        g = g.double()
        share = low + (high - low) * (1.0 - g if self.minimize else g)
        u = share.clamp(_EDGE, 1.0 - _EDGE).logit()
        y = 0.5 * (u + 1.0) * (self.soft_upper - self.soft_lower) + self.soft_lower
        return y.clamp(self.lower, self.upper)

    def contains(self, y: Tensor) -> Tensor:
        """Whether values are within the hard limits."""
        return (y >= self.lower) & (y <= self.upper)

    @property
    def ideal(self) -> float:
        """Best value that is possible; infinite where there is none."""
        return self.lower if self.minimize else self.upper

    @property
    def _ends(self) -> tuple[float, float]:
        limits = torch.tensor([self.lower, self.upper], dtype=torch.float64)
        low, high = self._sigmoid(limits).tolist()
        return low, high

    def _sigmoid(self, y: Tensor) -> Tensor:
        span = self.soft_upper - self.soft_lower
        return torch.sigmoid(2.0 * (y - self.soft_lower) / span - 1.0)
