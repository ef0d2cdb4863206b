r"""Distributions made of bars: what a network that sorts an outcome into B buckets says of it.

With borders :math:`b_0 < \dots < b_B` and :math:`p = \mathrm{softmax}(\text{logits})`, bar k holds
the mass :math:`p_k`, spread evenly over :math:`[b_k, b_{k+1}]`. The first and the last bar are
half-normals that grow outward from :math:`b_1` and :math:`b_{B-1}`, with half their mass inside
their bucket, so that every real outcome has a density (the Riemann distribution of Müller et al.
2022, arXiv 2112.10510). Mean, variance, quantiles and expected improvement are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from understudy.core.predictive import Predictive

_MEDIAN = 0.6744897501960817  # of |Z| for a standard normal Z
_MEAN = math.sqrt(2.0 / math.pi)  # of |Z|
_ROOT_2 = math.sqrt(2.0)
_LOG_HALF_NORMAL = 0.5 * math.log(2.0 / math.pi)


def borders_of(outcomes: Tensor, bars: int) -> Tensor:
    """Borders that give every bar the same share of a sample.

    The ends are such that the half-normals of the outer bars have the greatest likelihood on the
    sample's outermost shares. (The least and the greatest outcome, which the paper takes, make them
    as wide as the most extreme outcome is far.)

    Parameters
    ----------
    outcomes : Tensor (n,)
        A large sample, n much greater than the number of bars. Ties are taken once.
    bars : int
        Bars wanted, at least 2; fewer come back where the sample has fewer distinct values.

    Returns
    -------
    Tensor (B + 1,)
        Increasing.
    """
    if bars < 2:
        raise ValueError(f"a bar distribution needs at least 2 bars, not {bars}")
    values = outcomes.detach().to(torch.float64).reshape(-1).unique()
    if len(values) < 3:
        raise ValueError("bars need a sample of at least three distinct values")
    bars = min(bars, len(values) - 1)
    at = torch.linspace(0, len(values), bars + 1, dtype=torch.float64, device=values.device)
    right = at.round().long().clamp(1, len(values) - 1)
    inner = 0.5 * (values[right] + values[right - 1])
    below, above = inner[1] - values, values - inner[-2]
    inner[0] = inner[1] - _MEDIAN * below[below > 0].square().mean().sqrt()
    inner[-1] = inner[-2] + _MEDIAN * above[above > 0].square().mean().sqrt()
    single = inner.to(torch.float32).unique()  # steps too fine for single precision join
    return single.to(outcomes)


@dataclass(frozen=True)
class BarDistribution:
    r"""A distribution over real outcomes for every cell of a batch.

    Parameters
    ----------
    borders : Tensor (B + 1,)
        Strictly increasing, on the scale on which the network learnt.
    logits : Tensor (\*cells, B)
    shift, scale : Tensor, broadcastable to (\*cells)
        The outcome is ``shift + scale * y`` for y with these bars; scale > 0.
    """

    borders: Tensor
    logits: Tensor
    shift: Tensor
    scale: Tensor

    @classmethod
    def of(cls, borders: Tensor, logits: Tensor) -> BarDistribution:
        """Bars in their own units."""
        zero = torch.zeros((), dtype=logits.dtype, device=logits.device)
        return cls(borders.to(logits), logits, zero, zero + 1.0)

    def affine(self, shift: Tensor, scale: Tensor) -> BarDistribution:
        """Return the distribution of ``shift + scale * y``, for tensors that suit the cells."""
        return replace(self, shift=shift + scale * self.shift, scale=scale * self.scale)

    def __getitem__(self, index: Any) -> BarDistribution:
        """Return some cells, by an index into their dimensions."""
        cells = self.logits.shape[:-1]
        return BarDistribution(
            self.borders,
            self.logits[index],
            self.shift.expand(cells)[index],
            self.scale.expand(cells)[index],
        )

    # -- bars in their own units --------------------------------------------------------------

    @property
    def probabilities(self) -> Tensor:
        r"""Mass of each bar, (\*cells, B)."""
        return self.logits.softmax(-1)

    @property
    def _left(self) -> tuple[Tensor, Tensor]:
        """Where the left half-normal begins, and its scale."""
        return self.borders[1], (self.borders[1] - self.borders[0]) / _MEDIAN

    @property
    def _right(self) -> tuple[Tensor, Tensor]:
        return self.borders[-2], (self.borders[-1] - self.borders[-2]) / _MEDIAN

    def _bar_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and second moment of each bar, (B,)."""
        low, high = self.borders[:-1], self.borders[1:]
        mean = 0.5 * (low + high)
        second = (low.square() + low * high + high.square()) / 3.0
        for k, sign, (start, spread) in ((0, -1.0, self._left), (-1, 1.0, self._right)):
            mean[k] = start + sign * spread * _MEAN
            second[k] = start.square() + sign * 2.0 * start * spread * _MEAN + spread.square()
        return mean, second

    def _bar(self, y: Tensor) -> Tensor:
        """Index of the bar in which y lies; beyond the ends the outer ones."""
        return torch.searchsorted(self.borders[1:-1].contiguous(), y.contiguous(), right=True)

    def _log_height(self, y: Tensor, bar: Tensor) -> Tensor:
        """Log density of y given its bar."""
        widths = (self.borders[1:] - self.borders[:-1]).log()
        heights = -widths[bar]
        for k, (start, spread) in ((0, self._left), (len(widths) - 1, self._right)):
            tail = _LOG_HALF_NORMAL - spread.log() - 0.5 * ((y - start) / spread).square()
            heights = torch.where(bar == k, tail, heights)
        return heights

    def _below(self, y: Tensor, bar: Tensor) -> Tensor:
        """Share of its bar's mass that lies below y."""
        low, high = self.borders[bar], self.borders[bar + 1]
        share = ((y - low) / (high - low)).clamp(0.0, 1.0)
        (left, s), (right, t) = self._left, self._right
        share = torch.where(bar == 0, torch.erfc((left - y) / (s * _ROOT_2)), share)
        last = bar == len(self.borders) - 2
        return torch.where(last, torch.erf((y - right) / (t * _ROOT_2)), share)

    # -- what a prediction says ---------------------------------------------------------------

    @property
    def mean(self) -> Tensor:
        r"""Mean, (\*cells)."""
        return self.shift + self.scale * (self.probabilities @ self._bar_moments()[0])

    @property
    def variance(self) -> Tensor:
        r"""Variance, (\*cells)."""
        centre, second = self._bar_moments()
        p = self.probabilities
        mean = (p @ centre).unsqueeze(-1)
        within = second - centre.square()
        return self.scale.square() * (p * (within + (centre - mean).square())).sum(-1)

    @property
    def sd(self) -> Tensor:
        r"""Standard deviation, (\*cells)."""
        return self.variance.sqrt()

    @property
    def mode(self) -> Tensor:
        r"""Middle of the bar of greatest density (start of an outer one), (\*cells)."""
        widths = self.borders[1:] - self.borders[:-1]
        peaks = -widths.log()
        peaks[0] = _LOG_HALF_NORMAL - self._left[1].log()
        peaks[-1] = _LOG_HALF_NORMAL - self._right[1].log()
        centre = 0.5 * (self.borders[:-1] + self.borders[1:])
        centre[0], centre[-1] = self._left[0], self._right[0]
        highest = (self.logits + peaks).argmax(-1)
        return self.shift + self.scale * centre[highest]

    def log_density(self, y: Tensor) -> Tensor:
        r"""Log density of outcomes y, broadcast against the cells."""
        z, log_p = self._standard(y), self.logits.log_softmax(-1)
        bar = self._bar(z)
        mass = log_p.expand(*bar.shape, -1).gather(-1, bar.unsqueeze(-1)).squeeze(-1)
        return mass + self._log_height(z, bar) - self.scale.log()

    def cdf(self, y: Tensor) -> Tensor:
        r"""Probability of an outcome of at most y, broadcast against the cells."""
        z, p = self._standard(y), self.probabilities
        bar = self._bar(z)
        upto = p.cumsum(-1).expand(*bar.shape, -1).gather(-1, bar.unsqueeze(-1)).squeeze(-1)
        inside = p.expand(*bar.shape, -1).gather(-1, bar.unsqueeze(-1)).squeeze(-1)
        return (upto - inside * (1.0 - self._below(z, bar))).clamp(0.0, 1.0)

    def quantile(self, levels: Tensor) -> Tensor:
        r"""Quantiles at levels in (0, 1).

        Parameters
        ----------
        levels : Tensor (l,) or (l, \*cells)

        Returns
        -------
        Tensor (l, \*cells)
        """
        cells = self.logits.shape[:-1]
        u = levels.to(self.logits)
        u = u.reshape(-1, *[1] * len(cells)) if u.ndim == 1 else u
        u = u.expand(len(u), *cells)
        p = self.probabilities
        upto = p.cumsum(-1)
        flat = u.movedim(0, -1).contiguous()
        bar = torch.searchsorted(upto.contiguous(), flat * upto[..., -1:])
        bar = bar.clamp(max=p.shape[-1] - 1)
        inside = p.gather(-1, bar).clamp_min(torch.finfo(p.dtype).tiny)
        share = ((flat - upto.gather(-1, bar) + inside) / inside).clamp(0.0, 1.0)
        low, high = self.borders[bar], self.borders[bar + 1]
        y = low + share * (high - low)
        safe = share.clamp(1e-7, 1.0 - 1e-7)
        (left, s), (right, t) = self._left, self._right
        y = torch.where(bar == 0, left - s * _ROOT_2 * torch.erfinv(1.0 - safe), y)
        y = torch.where(bar == p.shape[-1] - 1, right + t * _ROOT_2 * torch.erfinv(safe), y)
        return self.shift + self.scale * y.movedim(-1, 0)

    def expected_excess(self, threshold: Tensor) -> Tensor:
        r"""Mean of max(y - threshold, 0): the expected improvement of a maximisation.

        Parameters
        ----------
        threshold : Tensor, broadcastable to (\*cells)
        """
        f = self._standard(threshold).unsqueeze(-1)
        low, high = self.borders[:-1], self.borders[1:]
        from_here = torch.maximum(low, f.clamp(max=self.borders[-1]))
        inside = (high - from_here).clamp_min(0.0)
        above = inside * (0.5 * (high + from_here) - f) / (high - low)
        (left, s), (right, t) = self._left, self._right
        first, last = _excess_left(left, s, f), _excess_right(right, t, f)
        above = torch.cat([first, above[..., 1:-1], last], -1)
        return self.scale * (self.probabilities * above).sum(-1)

    def expected_shortfall(self, threshold: Tensor) -> Tensor:
        """Mean of max(threshold - y, 0): the expected improvement of a minimisation."""
        gap = torch.as_tensor(threshold, dtype=self.logits.dtype) - self.mean
        return (self.expected_excess(threshold) + gap).clamp_min(0.0)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        r"""Independent draws, (count, \*cells)."""
        shape = (count, *self.logits.shape[:-1])
        u = torch.rand(shape, generator=generator, device=self.logits.device)
        return self.quantile(u.clamp(1e-6, 1.0 - 1e-6))

    def over(self, cells: Callable[[Tensor], Tensor]) -> BarDistribution:
        r"""Return the distribution with its cells rearranged.

        Parameters
        ----------
        cells : callable
            A view of tensors (\*cells, k) that keeps the last dimension.
        """
        shape = self.logits.shape[:-1]
        shift, scale = (t.expand(shape).unsqueeze(-1) for t in (self.shift, self.scale))
        moved = (cells(shift).squeeze(-1), cells(scale).squeeze(-1))
        return BarDistribution(self.borders, cells(self.logits), *moved)

    def predictive(self, components: int = 24) -> Predictive:
        """Gaussian mixture with the same mean and variance, of (n, m) cells.

        Bars are joined, from low to high, into groups of about equal mass, and each group becomes
        the Gaussian of its moments.

        Parameters
        ----------
        components : int
            Groups.
        """
        centre, second = self._bar_moments()
        p = self.probabilities
        middle = p.cumsum(-1) - 0.5 * p
        group = (middle * components).long().clamp(0, components - 1)
        empty = p.new_zeros(*p.shape[:-1], components)
        mass = empty.scatter_add(-1, group, p)
        safe = mass.clamp_min(torch.finfo(p.dtype).tiny)
        mean = empty.scatter_add(-1, group, p * centre) / safe
        around = second - centre.square() + (centre - mean.gather(-1, group)).square()
        sd = (empty.scatter_add(-1, group, p * around) / safe).sqrt()
        sd = torch.where(mass > 0, sd, torch.ones_like(sd))
        shift, scale = self.shift.unsqueeze(-1), self.scale.unsqueeze(-1)
        loc = (shift + scale * mean).movedim(-1, 0)
        return Predictive(loc, (scale * sd).movedim(-1, 0), mass.movedim(-1, 0))

    def _standard(self, y: Tensor | float) -> Tensor:
        z = (torch.as_tensor(y).to(self.logits) - self.shift) / self.scale
        return torch.broadcast_tensors(z, self.logits[..., 0])[0]


def _excess_right(start: Tensor, spread: Tensor, f: Tensor) -> Tensor:
    r"""Mean of (start + spread |Z| - f)+."""
    d = (f - start) / spread
    density = torch.exp(-0.5 * d.square()) / math.sqrt(2.0 * math.pi)
    beyond = 2.0 * (density - d * torch.special.ndtr(-d))
    return spread * torch.where(d > 0, beyond, _MEAN - d)


def _excess_left(start: Tensor, spread: Tensor, f: Tensor) -> Tensor:
    r"""Mean of (start - spread |Z| - f)+: what its mirror image falls short of."""
    d = (start - f) / spread
    mirrored = _excess_right(torch.zeros_like(start), torch.ones_like(spread), d)
    return spread * torch.where(d > 0, mirrored + d - _MEAN, torch.zeros_like(d))
