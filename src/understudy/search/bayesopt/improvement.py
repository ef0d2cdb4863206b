r"""What single points of Gaussian processes are worth, in closed form.

Expected improvement over the best value :math:`f^*` has a logarithm that can be climbed where its
value has long vanished (Ament et al. 2023, arXiv 2310.20708):

.. math:: \log \mathrm{EI}(x) = \log h\!\left(\frac{\mu(x) - f^*}{\sigma(x)}\right)
          + \log \sigma(x), \qquad h(z) = \varphi(z) + z\,\Phi(z).

So has, for independent objectives, expected hypervolume improvement: with a decomposition of the
region that no run dominates into cells :math:`[l, u]` (Yang et al. 2019), it is

.. math:: \sum_{\text{cells}} \prod_k \left[\sigma_k\, h\!\left(\frac{\mu_k - l_k}{\sigma_k}\right)
          - \sigma_k\, h\!\left(\frac{\mu_k - u_k}{\sigma_k}\right)\right].

Values that are not known, those of points being run or those that noise hides, are drawn in s
cases, and improvements averaged over these (Snoek et al. 2012, arXiv 1206.2944; Letham et al. 2019,
arXiv 1706.07094).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from botorch.utils.multi_objective.box_decompositions.box_decomposition_list import (
    BoxDecompositionList,
)
from botorch.utils.multi_objective.box_decompositions.non_dominated import (
    FastNondominatedPartitioning,
    NondominatedPartitioning,
)
from botorch.utils.probability.utils import log_ndtr, log_prob_normal_in
from torch import Tensor

from understudy.search.bayesopt.outcomes import Interval

Moments: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Means (b, s, m) and deviations (b, 1, m) in s cases, at points (b, d) of the unit cube."""

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_FAR = -1e3  # below, log h is its asymptote


@dataclass(frozen=True)
class LogEI:
    """Log expected improvement times the probability that constraints hold.

    Parameters
    ----------
    moments : callable
    best : Tensor (s,)
        Value to improve on in each case.
    intervals : list of Interval
        Constraints.
    """

    moments: Moments
    best: Tensor
    intervals: list[Interval]

    def __call__(self, U: Tensor) -> Tensor:
        """Return what points (b, 1, d) are worth, (b,)."""
        mean, deviation = self.moments(U.squeeze(-2))
        sigma = deviation[..., 0]
        value = log_h((mean[..., 0] - self.best) / sigma) + sigma.log()
        return _average(value + log_feasible(self.intervals, mean, deviation))


@dataclass(frozen=True)
class LogEHVI:
    """Log expected hypervolume improvement times the probability that constraints hold.

    Parameters
    ----------
    moments : callable
    cells : Tensor (2, s, c, k)
        Lower and upper corners of cells that make up the region which is not dominated, in each
        case; those without volume do not count.
    intervals : list of Interval
        Constraints.
    """

    moments: Moments
    cells: Tensor
    intervals: list[Interval]

    def __call__(self, U: Tensor) -> Tensor:
        """Return what points (b, 1, d) are worth, (b,)."""
        mean, deviation = self.moments(U.squeeze(-2))
        lower, upper = self.cells
        k = lower.shape[-1]
        mu, sigma = mean[..., None, :k], deviation[..., None, :k]
        above = log_h((mu - lower) / sigma)
        bounded = torch.isfinite(upper)
        beyond = log_h((mu - torch.where(bounded, upper, lower)) / sigma) - above
        share = torch.where(bounded, -torch.expm1(beyond.clamp_max(-1e-14)), 1.0)
        each = (above + share.log() + sigma.log()).sum(-1)
        value = each.masked_fill(~(lower < upper).all(-1), -torch.inf).logsumexp(-1)
        return _average(value + log_feasible(self.intervals, mean, deviation))


def _average(value: Tensor) -> Tensor:
    """Logarithm of the mean over cases of values (b, s) given as logarithms."""
    return value.logsumexp(-1) - math.log(value.shape[-1])


def log_h(z: Tensor) -> Tensor:
    r"""Logarithm of :math:`\varphi(z) + z\,\Phi(z)`, elementwise, accurate for very negative z."""
    high = z.clamp_min(-1.0)
    direct = (
        torch.exp(-0.5 * high.square() - _LOG_SQRT_2PI) + high * torch.special.ndtr(high)
    ).log()
    low = z.clamp_max(-1.0)
    mills = math.sqrt(0.5 * math.pi) * torch.special.erfcx(-low / math.sqrt(2.0))
    near = low > _FAR
    tail = torch.where(near, torch.log1p(torch.where(near, low * mills, -0.5)), -2.0 * (-low).log())
    density = -0.5 * low.square() - _LOG_SQRT_2PI
    return torch.where(z > -1.0, direct, density + tail)


def log_feasible(intervals: list[Interval], mean: Tensor, deviation: Tensor) -> Tensor:
    """Log probability (...) that independent outputs (..., m) lie in their intervals."""
    total = torch.zeros_like(mean[..., 0])
    for interval in intervals:
        at = interval.output
        lower = (interval.lower - mean[..., at]) / deviation[..., at]
        upper = (interval.upper - mean[..., at]) / deviation[..., at]
        if math.isinf(interval.lower):
            total = total + log_ndtr(upper)
        elif math.isinf(interval.upper):
            total = total + log_ndtr(-lower)
        else:
            total = total + log_prob_normal_in(lower, upper)
    return total


# -- cells ------------------------------------------------------------------------------------


def cells(Y: Tensor, reference: Tensor) -> Tensor:
    """Cells (2, s, c, k) of the region beyond a reference (k,) that Y (s, n, k) do not dominate.

    Large is good. Cells may have no volume.
    """
    if len(reference) == 2:
        return strips(Y, reference)
    return BoxDecompositionList(*(partitioning(reference, y) for y in Y)).get_hypercell_bounds()


def strips(Y: Tensor, reference: Tensor) -> Tensor:
    """Strips (2, s, n + 1, 2), each above all of Y (s, n, 2), between two of its first values."""
    Y = torch.maximum(Y, reference)
    order = Y[..., 0].argsort(-1)
    first, second = (Y[..., k].gather(-1, order) for k in (0, 1))
    height = second.flip(-1).cummax(-1).values.flip(-1)
    ends = reference.expand(len(Y), 1, 2)
    left, right = torch.cat([ends[..., 0], first], -1), torch.cat([height, ends[..., 1]], -1)
    infinite = torch.full_like(left[:, :1], torch.inf)
    lower = torch.stack([left, right], -1)
    upper = torch.stack([torch.cat([first, infinite], -1), torch.full_like(left, torch.inf)], -1)
    return torch.stack([lower, upper])


def coarseness(objectives: int) -> float:
    """Share of hypervolume that a partitioning may neglect, as in BoTorch."""
    return 0.0 if objectives <= 4 else 1e-3 if objectives == 5 else 1e-2


def partitioning(reference: Tensor, front: Tensor) -> NondominatedPartitioning:
    """Return BoTorch's decomposition of what a front (n, k) does not dominate."""
    if len(reference) <= 4:
        return FastNondominatedPartitioning(reference, front)
    return NondominatedPartitioning(reference, front, alpha=coarseness(len(reference)))
