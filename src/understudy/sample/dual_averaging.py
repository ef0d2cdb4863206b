r"""Dual averaging of step sizes (Hoffman & Gelman 2014, arXiv 1111.4246, section 3.2).

With :math:`\delta` the acceptance aimed at and :math:`a_t` that observed,

.. math:: \bar H_t &= \Big(1 - \frac{1}{t + t_0}\Big) \bar H_{t-1} + \frac{\delta - a_t}{t + t_0} \\
          \log\epsilon_t &= \mu - \frac{\sqrt t}{\gamma} \bar H_t \\
          \log\bar\epsilon_t &= t^{-\kappa} \log\epsilon_t + (1 - t^{-\kappa})
                                \log\bar\epsilon_{t-1}

with :math:`\mu = \log(10\,\epsilon_0)`, for each chain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DualAveraging:
    """Step sizes that drive the acceptance rate of each chain to a target.

    Parameters
    ----------
    log_step : Tensor (chains,)
        Logarithm of the step size to use while adapting.
    log_average : Tensor (chains,)
        Logarithm of the one to use afterwards.
    mu, error : Tensor (chains,)
    count : Tensor ()
        Updates so far.
    """

    log_step: Tensor
    log_average: Tensor
    mu: Tensor
    error: Tensor
    count: Tensor

    @classmethod
    def start(cls, log_step: Tensor) -> DualAveraging:
        """At these step sizes, nothing observed."""
        return cls(
            log_step=log_step,
            log_average=log_step,
            mu=log_step + math.log(10.0),
            error=torch.zeros_like(log_step),
            count=torch.zeros_like(log_step[:1]).sum(),
        )

    def update(
        self,
        acceptance: Tensor,
        target: float = 0.8,
        gamma: float = 0.05,
        t0: float = 10.0,
        kappa: float = 0.75,
    ) -> DualAveraging:
        """After an acceptance probability (chains,) was observed."""
        t = self.count + 1.0
        weight = 1.0 / (t + t0)
        error = (1.0 - weight) * self.error + weight * (target - acceptance)
        log_step = self.mu - t.sqrt() / gamma * error
        forget = t**-kappa
        log_average = forget * log_step + (1.0 - forget) * self.log_average
        return DualAveraging(log_step, log_average, self.mu, error, t)
