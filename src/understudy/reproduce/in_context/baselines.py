r"""What in-context networks are compared with: exact, fitted and sampled posteriors, in batches.

Every method has all data sets of a batch at once, and densities are of observations. Processes have

.. math:: K = s^2 \left(k(r) + \epsilon I\right) + \sigma^2 I, \qquad \epsilon = 10^{-7},

where :math:`\epsilon` is the jitter with which the prior draws its functions, so that it is part of
the truth and the same for all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.core.linalg import cholesky
from understudy.models.incontext.gp_priors import FixedGP, HyperPriorGP, Kernel, correlation
from understudy.models.incontext.network_priors import BNNClassification
from understudy.models.incontext.task import TaskBatch
from understudy.sample import HMC, Plan, diagnose, sample
from understudy.sample.warm_start import maximise

JITTER = 1e-7
"""Of `understudy.models.incontext.gp_priors.draw_functions`."""

T = TypeVar("T")


def timed(compute: Callable[[], T]) -> tuple[T, float]:
    """Result, and the seconds of processor time that it took."""
    start = time.process_time()
    return compute(), time.process_time() - start


@dataclass(frozen=True)
class Process:
    """Gaussian processes of zero mean, one a data set.

    Parameters
    ----------
    lengthscale : Tensor (B, d)
    outputscale, noise : Tensor (B,)
        Variances.
    kernel : {"rbf", "matern-3/2", "matern-5/2"}
    """

    lengthscale: Tensor
    outputscale: Tensor
    noise: Tensor
    kernel: Kernel

    @classmethod
    def of(cls, prior: FixedGP, batch: int) -> Process:
        """Return the process that all data sets of the prior share."""
        ones = torch.ones(batch, dtype=torch.float64)
        scale = prior.lengthscale * ones.unsqueeze(1).expand(-1, prior.features)
        return cls(scale, prior.outputscale * ones, prior.noise * ones, "rbf")

    def covariance(self, a: Tensor, b: Tensor) -> Tensor:
        """Of noise-free values at a (B, n, d) and b (B, m, d), (B, n, m)."""
        scale = self.lengthscale.unsqueeze(-2)
        difference = (a / scale).unsqueeze(-2) - (b / scale).unsqueeze(-3)
        distance = difference.square().sum(-1).clamp_min(1e-30).sqrt()
        return self.outputscale[:, None, None] * correlation(distance, self.kernel)

    def factor(self, x: Tensor) -> Tensor:
        """Cholesky factor of the covariance of observations at x (B, n, d)."""
        diagonal = JITTER * self.outputscale + self.noise
        noise = diagonal.unsqueeze(-1).expand(x.shape[:-1])
        return cholesky(self.covariance(x, x) + torch.diag_embed(noise))

    def log_evidence(self, x: Tensor, y: Tensor) -> Tensor:
        """Log density (B,) of outcomes y (B, n)."""
        factor = self.factor(x)
        half = torch.linalg.solve_triangular(factor, y.unsqueeze(-1), upper=False).squeeze(-1)
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -0.5 * half.square().sum(-1) - log_det - 0.5 * y.shape[-1] * math.log(2 * math.pi)

    def log_density(self, task: TaskBatch, context: int) -> Tensor:
        """Log density (B, N - context) of the outcomes after the first ``context``."""
        x, y = task.x.double(), task.y.double()
        factor = self.factor(x[:, :context])
        cross = self.covariance(x[:, :context], x[:, context:])
        half = torch.linalg.solve_triangular(factor, cross, upper=False)
        known = torch.linalg.solve_triangular(factor, y[:, :context, None], upper=False)
        mean = (half.mT @ known).squeeze(-1)
        spread = ((1.0 + JITTER) * self.outputscale + self.noise).unsqueeze(1)
        variance = (spread - half.square().sum(1)).clamp_min(1e-12)
        misfit = (y[:, context:] - mean).square() / variance
        return -0.5 * (misfit + variance.log() + math.log(2 * math.pi))


# -- hyperparameters ------------------------------------------------------------------------------


def _process(theta: Tensor, d: int) -> Process:
    """Process of log length scales, log output scale and, if it is there, log noise variance."""
    noise = theta[:, d + 1].exp() if theta.shape[1] > d + 1 else torch.zeros_like(theta[:, 0])
    return Process(theta[:, :d].exp(), theta[:, d].exp(), noise, "matern-5/2")


def _log_gamma(log_value: Tensor, law: tuple[float, float]) -> Tensor:
    """Log density of exp(log_value) under a gamma law, up to a constant."""
    concentration, rate = law
    return (concentration - 1.0) * log_value - rate * log_value.exp()


def _log_prior(theta: Tensor, prior: HyperPriorGP) -> Tensor:
    """Log density of the hyperparameters themselves, not of their logarithms."""
    d = prior.features
    value = _log_gamma(theta[:, :d], prior.lengthscale).sum(1)
    value = value + _log_gamma(theta[:, d], prior.outputscale)
    if theta.shape[1] == d + 1:
        return value
    return value + _log_gamma(theta[:, d + 1], prior.noise)


def _starts(prior: HyperPriorGP, batch: int, generator: torch.Generator) -> Tensor:
    """Draws of log length scales and log output scale, (batch, d + 1)."""
    scale, size, _ = prior.hyperparameters(batch, generator)
    return torch.cat([scale, size], 1).double().log()


def fitted_process(
    task: TaskBatch,
    context: int,
    prior: HyperPriorGP,
    generator: torch.Generator,
    with_prior: bool,
    restarts: int = 4,
    steps: int = 200,
) -> Process:
    """Hyperparameters of the greatest evidence, or of the greatest posterior density.

    All data sets climb at once by Adam, each from draws of the prior, and keep their best.

    Parameters
    ----------
    task : TaskBatch
        Of B data sets.
    context : int
        Rows to fit.
    prior : HyperPriorGP
        Where searches start, and what is added to the log evidence.
    with_prior : bool
    restarts, steps : int
    """
    batch, d = len(task), prior.features
    x, y = (t[:, :context].double().repeat(restarts, *[1] * (t.ndim - 1)) for t in (task.x, task.y))
    theta = _starts(prior, restarts * batch, generator)
    theta = torch.cat([theta, torch.full_like(theta[:, :1], math.log(1e-4))], 1)

    def gain(theta: Tensor) -> Tensor:
        evidence = _process(theta.clamp(-20.0, 12.0), d).log_evidence(x, y)
        return evidence + _log_prior(theta, prior) if with_prior else evidence

    best = maximise(gain, theta, steps, learning_rate=0.1)
    with torch.no_grad():
        value = gain(best).unflatten(0, (restarts, batch))
    chosen = best.unflatten(0, (restarts, batch))[value.argmax(0), torch.arange(batch)]
    return _process(chosen.clamp(-20.0, 12.0), d)


@dataclass(frozen=True)
class Sampled:
    """Log densities by Markov chains, and whether they can be trusted.

    Parameters
    ----------
    log_density : Tensor (B, q)
        Of the average over draws.
    r_hat : Tensor (B,)
        The greatest of a data set.
    """

    log_density: Tensor
    r_hat: Tensor


def sampled_process(
    task: TaskBatch,
    context: int,
    prior: HyperPriorGP,
    generator: torch.Generator,
    plan: Plan,
    chains: int = 4,
) -> Sampled:
    """Posterior predictive with hyperparameters drawn by Hamiltonian Monte Carlo.

    Noise is left out: its prior has 99.8 % of its mass below 1e-10.
    """
    batch, d = len(task), prior.features
    x, y = (t[:, :context].double().repeat(chains, *[1] * (t.ndim - 1)) for t in (task.x, task.y))

    def target(theta: Tensor) -> Tensor:
        near = theta.nan_to_num(0.0).clamp(-12.0, 12.0)  # a path may run away: it is rejected
        evidence = _process(near, d).log_evidence(x, y)
        return evidence + _log_prior(theta, prior) + theta.sum(1)  # density of the logarithms

    start = _starts(prior, chains * batch, generator).clamp(-2.0, 2.0)
    sampler = HMC(step_size=0.1, path_length=1.5, max_leapfrog=24, jitter=0.3, mass="diagonal")
    drawn = sample(sampler, target, start, plan, generator).draws
    by_set = drawn.unflatten(1, (chains, batch))  # (s, chains, B, p)
    with torch.no_grad():
        each = [_process(theta, d).log_density(task, context) for theta in by_set.flatten(0, 1)]
    density = torch.stack(each).logsumexp(0) - math.log(len(each))
    return Sampled(density, _r_hat(by_set))


def _r_hat(draws: Tensor) -> Tensor:
    """Greatest R-hat (B,) of draws (samples, chains, B, p)."""
    found = diagnose(draws.flatten(2)).r_hat
    return found.unflatten(0, draws.shape[2:]).amax(1)


# -- weights of a small network -------------------------------------------------------------------


def _log_likelihood(prior: BNNClassification, weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Log probability of labels y (*B, n) at x (*B, n, d) by weights (*B, size), summed over n."""
    logit = prior.logit(x, weights)
    return -F.binary_cross_entropy_with_logits(logit, y.expand_as(logit), reduction="none").sum(-1)


def _log_mean_probability(logits: Tensor, y: Tensor) -> Tensor:
    """Log probability (B, q) of labels y under the average over draws of logits (s, B, q)."""
    chance = logits.sigmoid().mean(0)
    return torch.where(y > 0.5, chance, 1.0 - chance).clamp_min(1e-12).log()


def mean_field(
    task: TaskBatch,
    context: int,
    prior: BNNClassification,
    generator: torch.Generator,
    steps: int = 1000,
    draws: int = 8,
) -> Tensor:
    r"""Log probabilities (B, q) by mean-field variational inference, all data sets at once.

    Adam climbs :math:`E_q \log p(y \mid w) - KL(q \| N(0, I))` with reparameterised draws; its rate
    falls along half a cosine. Predictions average 500 draws.
    """
    x, y = task.x[:, :context], task.y[:, :context]
    mean = 0.3 * torch.randn(len(task), prior.size, generator=generator)
    log_sd = torch.full_like(mean, -1.5)
    for parameter in (mean, log_sd):
        parameter.requires_grad_()
    optimizer = torch.optim.Adam([mean, log_sd], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        noise = torch.randn(draws, *mean.shape, generator=generator)
        fit = _log_likelihood(prior, mean + log_sd.exp() * noise, x, y).mean(0)
        divergence = 0.5 * (mean.square() + (2.0 * log_sd).exp() - 1.0) - log_sd
        loss = (divergence.sum(1) - fit).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        noise = torch.randn(500, *mean.shape, generator=generator)
        logits = prior.logit(task.x[:, context:], mean + log_sd.exp() * noise)
    return _log_mean_probability(logits, task.y[:, context:])


def sampled_network(
    task: TaskBatch,
    context: int,
    prior: BNNClassification,
    generator: torch.Generator,
    plan: Plan,
    chains: int = 4,
) -> Sampled:
    """Posterior predictive with weights drawn by Hamiltonian Monte Carlo.

    R-hat is of the logits at five test rows, since units of the network can change places.
    """
    x, y = (t[:, :context].repeat(chains, *[1] * (t.ndim - 1)) for t in (task.x, task.y))

    def target(weights: Tensor) -> Tensor:
        return _log_likelihood(prior, weights, x, y) - 0.5 * weights.square().sum(1)

    start = prior.weights(chains * len(task), generator)
    sampler = HMC(step_size=0.1, path_length=2.0, max_leapfrog=32, jitter=0.3, mass="diagonal")
    drawn = sample(sampler, target, start, plan, generator).draws
    by_set = drawn.unflatten(1, (chains, len(task)))  # (s, chains, B, size)
    logits = prior.logit(task.x[:, context:], by_set)
    density = _log_mean_probability(logits.flatten(0, 1), task.y[:, context:])
    return Sampled(density, _r_hat(logits[..., :5]))
