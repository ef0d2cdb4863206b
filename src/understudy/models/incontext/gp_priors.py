r"""Priors of Gaussian processes: fixed, with hyper-priors, and as HEBO has them.

All data sets of a batch are drawn by one batched Cholesky factorisation in double precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from understudy.models.incontext.draws import gamma, happens, integers, normal, uniform
from understudy.models.incontext.task import TaskBatch

Kernel = Literal["rbf", "matern-3/2", "matern-5/2"]


def correlation(distance: Tensor, kernel: Kernel) -> Tensor:
    """Correlation of a stationary kernel at scaled distances."""
    if kernel == "rbf":
        return torch.exp(-0.5 * distance.square())
    if kernel == "matern-3/2":
        r = math.sqrt(3.0) * distance
        return (1.0 + r) * torch.exp(-r)
    r = math.sqrt(5.0) * distance
    return (1.0 + r + r.square() / 3.0) * torch.exp(-r)


def draw_functions(
    x: Tensor, lengthscale: Tensor, kernel: Kernel, generator: torch.Generator, jitter: float = 1e-7
) -> Tensor:
    """Values of one function of unit variance a data set.

    Parameters
    ----------
    x : Tensor (B, N, d)
    lengthscale : Tensor (B, d)
        Positive; infinite for inputs without influence.

    Returns
    -------
    Tensor (B, N)
    """
    scaled = x.double() / lengthscale.double().unsqueeze(1)
    distance = torch.cdist(scaled, scaled, compute_mode="donot_use_mm_for_euclid_dist")
    covariance = correlation(distance, kernel)
    covariance.diagonal(dim1=-2, dim2=-1).add_(jitter)
    factor, _ = torch.linalg.cholesky_ex(covariance)
    base = torch.randn(*x.shape[:2], 1, generator=generator, device=x.device, dtype=torch.float64)
    values = (factor @ base).squeeze(-1).nan_to_num(0.0)
    return values.to(x.dtype)


def unused(lengthscale: Tensor, chance: float, generator: torch.Generator) -> Tensor:
    """Length scales of which each is infinite with that chance, but not all of a data set."""
    gone = happens(generator, *lengthscale.shape, chance=chance)
    kept = integers(generator, len(lengthscale), low=0, high=lengthscale.shape[1] - 1)
    gone[torch.arange(len(kept), device=kept.device), kept] = False
    return lengthscale.masked_fill(gone, math.inf)


@dataclass(frozen=True)
class FixedGP:
    """A Gaussian process with known hyperparameters: the exact posterior is there to compare with.

    x is uniform in the unit cube; defaults as in arXiv 2112.10510 (length scale 0.1 for plots).

    Parameters
    ----------
    features : int
    lengthscale, outputscale, noise : float
        Noise and output scale are variances; outcomes and targets include the noise.
    """

    features: int = 5
    lengthscale: float = 0.6
    outputscale: float = 1.0
    noise: float = 1e-4

    def sample(self, batch: int, rows: int, generator: torch.Generator) -> TaskBatch:
        """Draw data sets of ``rows`` rows."""
        x = uniform(generator, batch, rows, self.features)
        scale = torch.full((batch, self.features), self.lengthscale, device=x.device)
        f = math.sqrt(self.outputscale) * draw_functions(x, scale, "rbf", generator)
        y = f + normal(generator, batch, rows, sd=math.sqrt(self.noise))
        return TaskBatch(x, y, y)


@dataclass(frozen=True)
class HyperPriorGP:
    """A Matérn-5/2 process with gamma hyper-priors, as in arXiv 2112.10510.

    Length scales, output scale and noise variance are drawn for every data set (the paper's code
    draws them for a tenth of a batch).

    Parameters
    ----------
    features : int
    lengthscale, outputscale, noise : (concentration, rate)
    """

    features: int = 5
    lengthscale: tuple[float, float] = (3.0, 6.0)
    outputscale: tuple[float, float] = (2.0, 0.15)
    noise: tuple[float, float] = (1e-4, 1.0)

    def sample(self, batch: int, rows: int, generator: torch.Generator) -> TaskBatch:
        """Draw data sets of ``rows`` rows."""
        x = uniform(generator, batch, rows, self.features)
        scale, size, noise = self.hyperparameters(batch, generator)
        f = size.sqrt() * draw_functions(x, scale, "matern-5/2", generator)
        y = f + noise.sqrt() * normal(generator, batch, rows)
        return TaskBatch(x, y, y)

    def hyperparameters(
        self, batch: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Length scales (B, d), output scale and noise variance (B, 1)."""
        drawn = [
            gamma(generator, batch, size, concentration=law[0], rate=law[1])
            for size, law in ((self.features, self.lengthscale), (1, self.outputscale))
        ]
        noise = gamma(generator, batch, 1, concentration=self.noise[0], rate=self.noise[1])
        return drawn[0].clamp_min(1e-3), drawn[1], noise


@dataclass(frozen=True)
class HeboGP:
    """The HEBO-like process of PFNs4BO (Müller et al. 2023, arXiv 2305.17535), without warping.

    A Matérn-3/2 process whose inputs are each without influence with chance 0.3; the noise
    variance is log-normal.

    Parameters
    ----------
    features : int
        Of which every data set uses a random number.
    """

    features: int = 18
    lengthscale: tuple[float, float] = (1.2107, 1.5212)
    outputscale: tuple[float, float] = (0.8452, 0.3994)
    log_noise: tuple[float, float] = (-4.63, 0.5)
    without_influence: float = 0.3

    def sample(self, batch: int, rows: int, generator: torch.Generator) -> TaskBatch:
        """Draw data sets of ``rows`` rows."""
        d = self.features
        used = integers(generator, batch, low=1, high=d)
        mask = torch.arange(d, device=used.device) < used.unsqueeze(1)
        x = uniform(generator, batch, rows, d) * mask.unsqueeze(1)
        a, b = self.lengthscale
        scale = gamma(generator, batch, d, concentration=a, rate=b).clamp_min(1e-3)
        scale = unused(scale, self.without_influence, generator)
        a, b = self.outputscale
        size = gamma(generator, batch, 1, concentration=a, rate=b)
        mean, sd = self.log_noise
        noise = normal(generator, batch, 1, mean=mean, sd=sd).exp()
        f = size.sqrt() * draw_functions(x, scale, "matern-3/2", generator)
        y = f + noise.sqrt() * normal(generator, batch, rows)
        return TaskBatch(x, y, y, used)
