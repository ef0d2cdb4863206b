r"""What a new observation will be: the marginal predictive distribution of every cell.

A cell (row, output) holds a mixture of :math:`K` Gaussians,

.. math:: p(y) = \sum_k w_k\, \mathcal N(y; \mu_k, \sigma_k^2), \qquad \sum_k w_k = 1,

which is closed under what a portfolio does: a Gaussian process is :math:`K = 1`, a stack of models
(Yao et al. 2018, arXiv 1704.02030) concatenates components, and density, distribution function,
quantiles and CRPS (Grimit et al. 2006) stay exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


def _normal_pdf(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * z.square() - _LOG_SQRT_2PI)


def _expected_distance(mean: Tensor, sd: Tensor) -> Tensor:
    r"""Return :math:`E|Z|` of :math:`Z \sim N(\text{mean}, \text{sd}^2)`."""
    z = mean / sd
    return mean * (2.0 * torch.special.ndtr(z) - 1.0) + 2.0 * sd * _normal_pdf(z)


@dataclass(frozen=True)
class Predictive:
    """Marginal predictive distribution of an observation for n rows and m outputs.

    Parameters
    ----------
    loc, scale : Tensor (K, n, m)
        Means and standard deviations of the Gaussian components; scale > 0.
    weight : Tensor, broadcastable to (K, n, m)
        Component weights, non-negative, summing to 1 over K.
    """

    loc: Tensor
    scale: Tensor
    weight: Tensor

    @classmethod
    def gaussian(cls, mean: Tensor, sd: Tensor) -> Predictive:
        """One Gaussian a cell, from (n, m) means and standard deviations."""
        weight = torch.ones(1, 1, 1, dtype=mean.dtype, device=mean.device)
        return cls(mean.unsqueeze(0), sd.expand_as(mean).unsqueeze(0), weight)

    @classmethod
    def concatenate(cls, parts: Sequence[Predictive]) -> Predictive:
        """Rows of several predictives with the same number of components, one after the other."""
        weight = torch.cat([part.full_weight() for part in parts], dim=1)
        loc = torch.cat([part.loc for part in parts], dim=1)
        return cls(loc, torch.cat([part.scale for part in parts], dim=1), weight)

    @classmethod
    def stack(cls, parts: Sequence[Predictive], weights: Tensor) -> Predictive:
        """Mixture of J predictives of the same cells with weights (J, m)."""
        weight = [part.full_weight() * w for part, w in zip(parts, weights, strict=True)]
        loc = torch.cat([part.loc for part in parts])
        return cls(loc, torch.cat([part.scale for part in parts]), torch.cat(weight))

    def full_weight(self) -> Tensor:
        """Weights (k, n, m) of all components, where they are stored for all cells together."""
        return self.weight.expand(self.loc.shape)

    def __len__(self) -> int:
        return self.loc.shape[1]

    def __getitem__(self, rows: Tensor | slice) -> Predictive:
        """Return the predictive of some rows (index tensor, boolean mask or slice)."""
        weight = self.weight if self.weight.shape[1] == 1 else self.weight[:, rows]
        return Predictive(self.loc[:, rows], self.scale[:, rows], weight)

    def output(self, index: int) -> Predictive:
        """Return the predictive of one output, as m = 1."""
        at = slice(index, index + 1)
        weight = self.weight if self.weight.shape[2] == 1 else self.weight[:, :, at]
        return Predictive(self.loc[:, :, at], self.scale[:, :, at], weight)

    def outputs(self, indices: Tensor) -> Predictive:
        """Return the predictive of some outputs, by index (k,)."""
        weight = self.weight if self.weight.shape[2] == 1 else self.weight[:, :, indices]
        return Predictive(self.loc[:, :, indices], self.scale[:, :, indices], weight)

    def affine(self, shift: Tensor, scale: Tensor) -> Predictive:
        """Return the distribution of ``shift + scale * y`` for (m,) shift and positive scale."""
        return Predictive(shift + scale * self.loc, scale * self.scale, self.weight)

    def widened(self, factor: Tensor) -> Predictive:
        """Return the distribution spread about its mean by a positive factor (m,)."""
        mean = self.mean
        return Predictive(mean + factor * (self.loc - mean), factor * self.scale, self.weight)

    @property
    def mean(self) -> Tensor:
        """Mean of each cell, (n, m)."""
        return (self.weight * self.loc).sum(0)

    @property
    def sd(self) -> Tensor:
        """Standard deviation of each cell, (n, m)."""
        spread = (self.loc - self.mean).square() + self.scale.square()
        return (self.weight * spread).sum(0).sqrt()

    def log_density(self, y: Tensor) -> Tensor:
        """Log density of observations (n, m), per cell (n, m)."""
        z = (y - self.loc) / self.scale
        log_terms = -0.5 * z.square() - _LOG_SQRT_2PI - self.scale.log() + self.weight.log()
        return torch.logsumexp(log_terms, dim=0)

    def cdf(self, y: Tensor) -> Tensor:
        """Probability of an observation at most y (..., n, m), per cell."""
        z = (y.unsqueeze(-3) - self.loc) / self.scale
        return (self.weight * torch.special.ndtr(z)).sum(-3)

    def quantile(self, levels: Tensor) -> Tensor:
        """Quantiles at levels in (0, 1), (l,) or (l, n, m), as a Tensor (l, n, m)."""
        p = levels.to(self.loc).reshape(len(levels), *(levels.shape[1:] or (1, 1)))
        z = torch.special.ndtri(p)
        if self.loc.shape[0] == 1:
            return self.loc[0] + z * self.scale[0]
        return self._solve_quantile(p, z)

    def _solve_quantile(self, p: Tensor, z: Tensor, iterations: int = 60) -> Tensor:
        """Newton's method on F(x) = p, kept inside a bracket by bisection."""
        ends = self.loc + z.unsqueeze(1) * self.scale  # (l, K, n, m): a mixture's quantile lies
        active = (self.weight > 0).expand(self.loc.shape)  # between those of its components
        low = ends.masked_fill(~active, math.inf).amin(1)
        high = ends.masked_fill(~active, -math.inf).amax(1)
        x = (self.mean + z * self.sd).clamp(low, high)
        for _ in range(iterations):
            u = (x.unsqueeze(1) - self.loc) / self.scale
            error = (self.weight * torch.special.ndtr(u)).sum(1) - p
            low, high = torch.where(error < 0, x, low), torch.where(error > 0, x, high)
            if bool((error.abs() < 1e-10).all()):
                break
            density = (self.weight * _normal_pdf(u) / self.scale).sum(1)
            step = x - error / density.clamp_min(1e-300)
            inside = (step > low) & (step < high)
            x = torch.where(inside, step, 0.5 * (low + high))
        return x

    def crps(self, y: Tensor) -> Tensor:
        """Continuous ranked probability score of observations (n, m), per cell (n, m)."""
        return self.distance_to(y) - 0.5 * self.expected_distance(self)

    def distance_to(self, y: Tensor) -> Tensor:
        """Expected absolute distance E|Y - y| to points (n, m), per cell (n, m)."""
        return (self.weight * _expected_distance(y - self.loc, self.scale)).sum(0)

    def expected_distance(self, other: Predictive) -> Tensor:
        """Expected absolute distance E|Y - Y'| of independent draws, per cell (n, m)."""
        weight = other.full_weight()
        total = torch.zeros_like(self.loc[0])
        for k in range(other.loc.shape[0]):
            spread = (self.scale.square() + other.scale[k].square()).sqrt()
            distance = _expected_distance(self.loc - other.loc[k], spread)
            total += weight[k] * (self.weight * distance).sum(0)
        return total
