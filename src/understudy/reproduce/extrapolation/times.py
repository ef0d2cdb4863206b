"""Times of a forecast: of the network, of chains in batches, and of walkers one by one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
import torch

from understudy.core.errors import UserError
from understudy.models.incontext.curve_mcmc import MCMCExtrapolator
from understudy.models.incontext.curve_prior import EPOCHS, CurvePrior
from understudy.models.incontext.lcpfn import LCPFN
from understudy.reproduce.extrapolation.setting import Floats, Size, moves


@dataclass(frozen=True)
class Times:
    """Seconds of the processor for one extrapolation.

    Parameters
    ----------
    network, batched, one_by_one : float
        Of the network (median), of chains that move all walkers at once, and of emcee.
    """

    network: float
    batched: float
    one_by_one: float


def times_of_one(network: LCPFN, size: Size, seed: int) -> Times:
    """Time predictions and log densities of all epochs after 20, of one curve."""
    generator = torch.Generator().manual_seed(2000 + seed)
    _, noisy = CurvePrior().curves(20, EPOCHS, generator, torch.float64)
    T, ahead = 20, torch.arange(21, EPOCHS + 1)

    def ask(k: int) -> None:
        network.predict(noisy[k : k + 1, :T], ahead).log_density(noisy[k : k + 1, T:])

    def sampled() -> None:
        size.chains.predict(noisy[:1, :T], ahead).log_density(noisy[:1, T:].T)

    ask(0)
    return Times(
        network=median(_seconds(partial(ask, k)) for k in range(len(noisy))),
        batched=_seconds(sampled),
        one_by_one=_walker_by_walker(noisy[0, :T].numpy(), size.timed, seed),
    )


def _seconds(work: Callable[[], object]) -> float:
    """CPU time, which other work on the machine does not lengthen; one thread, so no less."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def _walker_by_walker(values: Floats, chains: MCMCExtrapolator, seed: int) -> float:
    """Seconds of the same chains by emcee, which asks for the density of one walker at a time."""
    try:
        import emcee
    except ImportError:
        raise UserError("this reproduction times emcee as a baseline: pip install emcee") from None
    density = WalkerDensity(values)
    generator = torch.Generator().manual_seed(seed)
    start, _ = CurvePrior().accepted(chains.walkers, EPOCHS, generator, torch.float64)
    sampler = emcee.EnsembleSampler(chains.walkers, start.shape[1], density)
    return _seconds(lambda: sampler.run_mcmc(start.numpy(), moves(chains)))


class WalkerDensity:
    """Log density of one vector of variables of the paper's prior, in NumPy.

    Parameters
    ----------
    values : array (T,)
        What is seen of the curve.
    """

    def __init__(self, values: Floats) -> None:
        self._values, self._laws = values, CurvePrior().laws
        self._t = np.arange(1.0, EPOCHS + 1.0)

    def __call__(self, z: Floats) -> float:
        """Log density of variables (13,), up to a constant; -inf where the prior has no curve."""
        prior = 0.0
        for law, value in zip(self._laws, z, strict=True):
            if law.kind == "normal":
                prior -= 0.5 * ((value - law.first) / law.second) ** 2
            elif not law.first <= value <= law.second:
                return -math.inf
        t = self._t
        (w1, w2, w3, c1, a1, log_alpha, c2, a2, a3, b3, log_kappa, log_delta, log_sd) = z
        with np.errstate(over="ignore", under="ignore"):
            f = w1 * (c1 - a1 * t ** -np.exp(log_alpha)) + w2 * (c2 - a2 / np.log(t + 1.0))
            f += w3 * (a3 - (a3 - b3) * np.exp(-np.exp(log_kappa) * t ** np.exp(log_delta)))
        if not (f[-1] > f[0] and f.min() >= 0.0 and f.max() <= 1.0):
            return -math.inf
        away = (self._values - f[: len(self._values)]) / np.exp(log_sd)
        return float(prior - 0.5 * away @ away - len(away) * log_sd)
