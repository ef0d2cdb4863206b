r"""Extrapolate learning curves by Markov chains: what a trained network stands in for.

The posterior of the variables z of a `CurvePrior` (weights, parameters of the components, logarithm
of the noise: 13 for the default) given the first T values of a curve is

.. math:: p(z \mid y_{1:T}) \propto p(z)\, \mathbb 1[f_z \text{ is acceptable on } 1 \dots m]
          \prod_{t \le T} N(y_t; f_z(t), \sigma_z^2),

sampled by stretch moves of an ensemble of walkers, all curves at once. The predictive distribution
is the average of the Gaussians :math:`N(f_z(t'), \sigma_z^2)`. This is the baseline of Adriaensen
et al. (2023, arXiv 2310.20447), after Domhan et al. (2015), with the prior of the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from understudy.core.predictive import Predictive
from understudy.models.incontext.curve_prior import EPOCHS, CurvePrior, acceptable
from understudy.sample.chains import Plan, sample
from understudy.sample.ensemble import EnsembleSampler

_POOL = 4096
_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True)
class CurvePosterior:
    """Log density of the variables of B curves, up to a constant.

    Parameters
    ----------
    prior : CurvePrior
    values : Tensor (B, T)
        The first T values of each curve.
    epochs : int
        Length m of a whole curve.
    """

    prior: CurvePrior
    values: Tensor
    epochs: int = EPOCHS

    def __call__(self, z: Tensor) -> Tensor:
        """Log density (B k,) of positions (B k, D), those of the first curve first."""
        z = z.unflatten(0, (len(self.values), -1))
        clean = self.prior.curve(z, times(self.epochs, z))
        density = self.prior.log_density(z) + self.log_likelihood(z, clean)
        return torch.where(acceptable(clean), density, -math.inf).flatten()

    def log_likelihood(self, z: Tensor, clean: Tensor) -> Tensor:
        """Log density (B, k) of the values under curves (B or 1, k, m) with variables z."""
        sd = self.prior.noise.parameter(z[..., -1])
        seen = clean[..., : self.values.shape[1]]
        squares = ((self.values.unsqueeze(1) - seen) / sd.unsqueeze(-1)).square().sum(-1)
        return -0.5 * squares - self.values.shape[1] * (sd.log() + _LOG_SQRT_2PI)


@dataclass(frozen=True)
class MCMCExtrapolator:
    """Predictive distribution of learning curves by an ensemble sampler.

    The defaults are the paper's M1.

    Parameters
    ----------
    prior : CurvePrior
    walkers : int
        Of the ensemble of each curve.
    burn_in, samples, thin : int
        Moves that are dropped, positions of each walker that are kept, and moves from one of these
        to the next.
    seed : int
    """

    prior: CurvePrior = field(default_factory=CurvePrior)
    walkers: int = 100
    burn_in: int = 500
    samples: int = 2000
    thin: int = 1
    seed: int = 0

    def predict(self, values: Tensor, ahead: Tensor) -> Predictive:
        """Predict curves from their beginnings.

        Parameters
        ----------
        values : Tensor (B, T)
            Values at epochs 1 to T, on the scale of the prior.
        ahead : Tensor (H,)
            Epochs, up to 100.

        Returns
        -------
        Predictive
            Of noisy values: H rows, B outputs.
        """
        z = self.draws(values)
        clean = self.prior.curve(z, ahead.to(z))
        sd = self.prior.noise.parameter(z[..., -1:]).expand_as(clean)
        weight = torch.full((1, 1, 1), 1.0 / z.shape[1], dtype=z.dtype)
        return Predictive(clean.permute(1, 2, 0), sd.permute(1, 2, 0), weight)

    def draws(self, values: Tensor) -> Tensor:
        """Variables (B, walkers * samples, D) of the posteriors of curves (B, T)."""
        posterior = CurvePosterior(self.prior, values.double())
        start = self._start(posterior)
        plan = Plan(self.burn_in, self.samples, self.thin)
        chains = sample(EnsembleSampler(self.walkers), posterior, start, plan, self.seed)
        kept = chains.draws.unflatten(1, (len(values), self.walkers))
        return kept.movedim(1, 0).flatten(1, 2)

    def _start(self, posterior: CurvePosterior) -> Tensor:
        """Start the walkers (B walkers, D) at the likeliest of many draws of the prior."""
        generator = torch.Generator().manual_seed(self.seed)
        z, clean = self.prior.accepted(_POOL, posterior.epochs, generator, torch.float64)
        likelihood = posterior.log_likelihood(z.unsqueeze(0), clean.unsqueeze(0))
        return z[likelihood.topk(self.walkers).indices].flatten(0, 1)


class LastValue:
    """The last value goes on, with the error that this has on curves of a prior.

    Parameters
    ----------
    prior : CurvePrior
    count : int
        Curves from which the errors are measured.
    seed : int
    """

    def __init__(self, prior: CurvePrior | None = None, count: int = 10_000, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._noisy = (prior or CurvePrior()).curves(count, EPOCHS, generator, torch.float64)[1]

    def predict(self, values: Tensor, ahead: Tensor) -> Predictive:
        """Gaussian about the last of the values (B, T) at epochs (H,): H rows, B outputs."""
        last = self._noisy[:, values.shape[1] - 1 : values.shape[1]]
        sd = (self._noisy[:, ahead.long() - 1] - last).square().mean(0).sqrt()
        mean = values.double()[:, -1].expand(len(ahead), -1)
        return Predictive.gaussian(mean, sd.unsqueeze(1))


def times(epochs: int, like: Tensor) -> Tensor:
    """Epochs 1 to the last as numbers (epochs,) of the type of another tensor."""
    return torch.arange(1, epochs + 1, dtype=like.dtype, device=like.device)
