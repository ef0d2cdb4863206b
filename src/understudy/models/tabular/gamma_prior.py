r"""Gamma priors of a Gaussian process's hyperparameters, BoTorch's default until 2024.

.. math:: \ell_k \sim \mathrm{Gamma}(3, 6), \quad \sigma^2 \sim \mathrm{Gamma}(1.1, 0.05), \quad
          s^2 \sim \mathrm{Gamma}(2, 0.15)

(shape and rate) for inputs in the unit cube and an output of variance 1. Length-scales lie about
1/3 whatever the number of inputs, so that in many dimensions nothing is near to anything; see
Hvarfner et al. (2024, arXiv 2402.02229), whose prior grows with the dimension and replaced this.
It is that of the Gaussian process in Li, Rudner & Wilson (2024, arXiv 2305.20028).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from understudy.models.tabular.marginal_likelihood import Array, Prior

LENGTHSCALE = (3.0, 6.0)
NOISE = (1.1, 0.05)
OUTPUTSCALE = (2.0, 0.15)


@dataclass(frozen=True)
class GammaPrior(Prior):
    """Independent gamma densities of the exponentials of theta.

    Parameters
    ----------
    loc, sd : ndarray (p,)
        Logarithm of each mode, and what a normal density of theta has there: descriptions only.
    shape, rate : ndarray (p,)
        Shape 1 and rate 0 make a density flat.
    """

    shape: Array
    rate: Array

    def penalty(self, theta: Array) -> tuple[float, Array]:
        """Negative log density at theta, up to a constant, and its gradient."""
        value = self.rate * np.exp(theta)
        gradient = value - (self.shape - 1.0)
        return float(value.sum() - (self.shape - 1.0) @ theta), gradient


def gamma_scaled(inputs: int, learn_outputscale: bool = True, min_noise: float = 1e-4) -> Prior:
    """Prior of a stationary kernel's length-scales, noise and output scale.

    Parameters
    ----------
    inputs : int
        Number of inputs.
    learn_outputscale : bool
        Otherwise the output scale is 1.
    min_noise : float
        Least noise variance; 1e-4 in BoTorch then.
    """
    shape, rate = np.array([LENGTHSCALE] * inputs + [NOISE, OUTPUTSCALE]).T
    mode = np.log((shape - 1.0) / rate)
    floor, free = math.log(min_noise), float(learn_outputscale)
    starts = [
        np.r_[np.full(inputs, math.log(length)), max(math.log(noise), floor), free * mode[-1]]
        for length in (1.0 / 3.0, 1.0, 3.0)
        for noise in (0.1, 1e-3)
    ]
    return GammaPrior(
        loc=mode,
        sd=1.0 / np.sqrt(shape - 1.0),
        lower=np.r_[np.full(inputs, math.log(1e-3)), floor, -7.0 * free],
        upper=np.r_[np.full(inputs, math.log(1e3)), math.log(20.0), 7.0 * free],
        starts=np.array(starts),
        shape=shape,
        rate=rate,
    )


def gamma_noise(prior: Prior, min_noise: float) -> Prior:
    """Return a prior like another, of noise alone: everything else is flat."""
    shape, rate = np.ones_like(prior.loc), np.zeros_like(prior.loc)
    shape[-2], rate[-2] = NOISE
    floor = math.log(min_noise)
    starts, lower = prior.starts.copy(), prior.lower.copy()
    starts[:, -2], lower[-2] = np.maximum(starts[:, -2], floor), floor
    return GammaPrior(prior.loc, prior.sd, lower, prior.upper, starts, shape, rate)
