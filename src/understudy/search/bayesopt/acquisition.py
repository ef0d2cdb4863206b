r"""What a next run is worth: acquisition functions by name, of points of the unit cube.

Every one maps (b, q, d) to (b,). Constraints multiply the improvement by the probability that they
hold; where no run has satisfied them yet, that probability itself is what is maximised.

For one point of a Gaussian process, expected improvement over the best value :math:`f^*` has a
closed form, of which the logarithm can be climbed where its value has long vanished (Ament et al.
2023, arXiv 2310.20708):

.. math:: \log \mathrm{EI}(x) = \log h\!\left(\frac{\mu(x) - f^*}{\sigma(x)}\right)
          + \log \sigma(x), \qquad h(z) = \varphi(z) + z\,\Phi(z).

So has, for independent objectives, expected hypervolume improvement: with a decomposition of the
region that no run dominates into cells :math:`[l, u]` (Yang et al. 2019), it is

.. math:: \sum_{\text{cells}} \prod_k \left[\sigma_k\, h\!\left(\frac{\mu_k - l_k}{\sigma_k}\right)
          - \sigma_k\, h\!\left(\frac{\mu_k - u_k}{\sigma_k}\right)\right].
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from botorch.acquisition.logei import (
    qLogExpectedImprovement,
    qLogNoisyExpectedImprovement,
    qLogProbabilityOfFeasibility,
)
from botorch.acquisition.monte_carlo import qExpectedImprovement, qUpperConfidenceBound
from botorch.acquisition.multi_objective import logei
from botorch.acquisition.multi_objective.logei import (
    qLogExpectedHypervolumeImprovement,
    qLogNoisyExpectedHypervolumeImprovement,
)
from botorch.acquisition.multi_objective.monte_carlo import qExpectedHypervolumeImprovement
from botorch.acquisition.multi_objective.objective import IdentityMCMultiOutputObjective
from botorch.acquisition.objective import GenericMCObjective
from botorch.exceptions.warnings import BotorchWarning
from botorch.sampling.base import MCSampler
from botorch.utils.multi_objective.box_decompositions.non_dominated import (
    FastNondominatedPartitioning,
    NondominatedPartitioning,
)
from botorch.utils.multi_objective.hypervolume import infer_reference_point
from botorch.utils.multi_objective.pareto import is_non_dominated
from botorch.utils.probability.utils import log_ndtr, log_prob_normal_in
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.posterior import sampler_for
from understudy.core.space import nearest
from understudy.search.bayesopt.beliefs import Beliefs
from understudy.search.bayesopt.outcomes import Interval

Worth: TypeAlias = Callable[[Tensor], Tensor]
"""Maps points (b, q, d) of the unit cube to what they are worth together, (b,)."""

_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_FAR = -1e3  # below, log h is its asymptote


@dataclass(frozen=True)
class Request:
    """What an acquisition function is made from.

    Parameters
    ----------
    beliefs : Beliefs
    pending : Tensor (p, d)
        Points that are being run.
    reference : Tensor (k,), optional
        Point of the learnt scale from which hypervolume is measured. If it is not given: a tenth
        of the front's range beyond its worst values, or the runs' lower quartile if that is worse.
    samples : int
        Draws, where there is no closed form.
    batch : int
        Points to be found together, q.
    seed : int
    """

    beliefs: Beliefs
    pending: Tensor
    reference: Tensor | None
    samples: int
    batch: int
    seed: int

    @property
    def sampler(self) -> MCSampler:
        """Sampler of the model's posterior."""
        with torch.no_grad():
            posterior = self.beliefs.model.posterior(self.beliefs.U[:1])
        return sampler_for(posterior, self.samples, self.seed)

    @property
    def waiting(self) -> Tensor | None:
        """Points that are being run, None if there are none."""
        return self.pending if len(self.pending) else None

    @property
    def constraints(self) -> list[Callable[[Tensor], Tensor]] | None:
        """Constraints as BoTorch takes them, None if there are none."""
        found = [call for interval in self.beliefs.intervals for call in interval.callables]
        return found or None


def acquisition(name: str, request: Request) -> Worth:
    """Return an acquisition function by its name.

    Parameters
    ----------
    name : str
        ``"auto"`` or a key of `SINGLE` (one objective) or `SEVERAL`.
    request : Request
    """
    beliefs = request.beliefs
    known = SINGLE if beliefs.objectives == 1 else SEVERAL
    if name != "auto" and name not in known:
        kind = "one objective" if beliefs.objectives == 1 else "several objectives"
        raise UserError(
            f"no acquisition function {name!r} of {kind}{nearest(name, ['auto', *known])}"
        )
    if not bool(beliefs.feasible.any()):
        return feasibility(request)
    return known[_automatic(request) if name == "auto" else name](request)


def _automatic(request: Request) -> str:
    if request.beliefs.objectives > 1:
        return "log_ehvi" if not _noisy(request.beliefs) else "log_nehvi"
    noisy = request.beliefs.model.is_gaussian and _noisy(request.beliefs)
    return "log_nei" if noisy else "log_ei"


def _noisy(beliefs: Beliefs, share: float = 0.01) -> bool:
    """Whether the model lays more than a share of the objectives' variance to noise."""
    residual = (beliefs.values - beliefs.expected()).square().mean(0)
    return bool((residual > share).any())


# -- one objective ----------------------------------------------------------------------------


def log_ei(request: Request) -> Worth:
    """Log expected improvement over the best of the runs, as the model explains them."""
    beliefs, best = request.beliefs, _best(request.beliefs)
    if request.batch == 1 and request.waiting is None and beliefs.model.is_gaussian:
        return LogEI(beliefs, best)
    return qLogExpectedImprovement(
        beliefs.model,
        best,
        request.sampler,
        _first_output,
        X_pending=request.waiting,
        constraints=request.constraints,
    )


def log_nei(request: Request) -> Worth:
    """Log expected improvement over the best of the runs, which noise leaves uncertain."""
    return qLogNoisyExpectedImprovement(
        request.beliefs.model,
        request.beliefs.U,
        request.sampler,
        _first_output,
        X_pending=request.waiting,
        constraints=request.constraints,
        prune_baseline=True,
        cache_root=False,
    )


def ei(request: Request) -> Worth:
    """Expected improvement over the best observation, by samples."""
    feasible = request.beliefs.values[request.beliefs.feasible, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BotorchWarning)
        return qExpectedImprovement(
            request.beliefs.model,
            float(feasible.max()),
            request.sampler,
            _first_output,
            X_pending=request.waiting,
            constraints=request.constraints,
        )


def ucb(request: Request) -> Worth:
    r"""Upper confidence bound with :math:`\beta = 4`, by samples; constraints are not seen."""
    return qUpperConfidenceBound(
        request.beliefs.model, 4.0, request.sampler, _first_output, X_pending=request.waiting
    )


_first_output = GenericMCObjective(lambda samples, X=None: samples[..., 0])


def _best(beliefs: Beliefs) -> float:
    return float(beliefs.expected()[beliefs.feasible, 0].max())


class LogEI:
    """Log expected improvement of single points of Gaussian processes, in closed form.

    Parameters
    ----------
    beliefs : Beliefs
    best : float
        Value to improve on.
    """

    def __init__(self, beliefs: Beliefs, best: float) -> None:
        self.beliefs = beliefs
        self.best = best

    def __call__(self, U: Tensor) -> Tensor:
        """Return log EI plus the log probability that constraints hold, of (b, 1, d)."""
        mean, deviation = self.beliefs.model.moments(U.squeeze(-2))
        z = (mean[:, 0] - self.best) / deviation[:, 0]
        value = log_h(z) + deviation[:, 0].log()
        return value + _log_feasible(self.beliefs.intervals, mean, deviation)


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


def _log_feasible(intervals: list[Interval], mean: Tensor, deviation: Tensor) -> Tensor:
    """Log probability that independent outputs lie in their intervals, (b,)."""
    total = torch.zeros_like(mean[:, 0])
    for interval in intervals:
        at = interval.output
        lower = (interval.lower - mean[:, at]) / deviation[:, at]
        upper = (interval.upper - mean[:, at]) / deviation[:, at]
        if math.isinf(interval.lower):
            total = total + log_ndtr(upper)
        elif math.isinf(interval.upper):
            total = total + log_ndtr(-lower)
        else:
            total = total + log_prob_normal_in(lower, upper)
    return total


def feasibility(request: Request) -> Worth:
    """Log probability that all constraints hold."""
    beliefs = request.beliefs
    if request.batch == 1 and beliefs.model.is_gaussian and request.waiting is None:
        return lambda U: _log_feasible(beliefs.intervals, *beliefs.model.moments(U.squeeze(-2)))
    return qLogProbabilityOfFeasibility(
        beliefs.model, request.constraints or [], request.sampler, X_pending=request.waiting
    )


# -- several objectives -----------------------------------------------------------------------


def log_ehvi(request: Request) -> Worth:
    """Log expected hypervolume improvement over the front as the model explains it."""
    reference, front = _front(request)
    cells = _partitioning(reference, front)
    if request.batch == 1 and request.waiting is None and request.beliefs.model.is_gaussian:
        return LogEHVI(request.beliefs, cells.get_hypercell_bounds())
    _without_compiler()
    return qLogExpectedHypervolumeImprovement(
        request.beliefs.model,
        reference,
        cells,
        request.sampler,
        _objectives(request),
        constraints=request.constraints,
        X_pending=request.waiting,
    )


class LogEHVI:
    """Log expected hypervolume improvement of single points, in closed form.

    Parameters
    ----------
    beliefs : Beliefs
        With Gaussian processes.
    cells : Tensor (2, c, k)
        Lower and upper corners of cells that make up the region which is not dominated.
    """

    def __init__(self, beliefs: Beliefs, cells: Tensor) -> None:
        self.beliefs = beliefs
        self.lower, self.upper = cells

    def __call__(self, U: Tensor) -> Tensor:
        """Return log EHVI plus the log probability that constraints hold, of (b, 1, d)."""
        mean, deviation = self.beliefs.model.moments(U.squeeze(-2))
        k = self.beliefs.objectives
        mu, sigma = mean[:, None, :k], deviation[:, None, :k]
        above = log_h((mu - self.lower) / sigma)
        bounded = torch.isfinite(self.upper)
        beyond = log_h((mu - torch.where(bounded, self.upper, 0.0)) / sigma) - above
        share = torch.where(bounded, (-torch.expm1(beyond.clamp_max(-1e-14))), 1.0)
        value = (above + share.log() + sigma.log()).sum(-1).logsumexp(-1)
        return value + _log_feasible(self.beliefs.intervals, mean, deviation)


def _without_compiler() -> None:
    """Keep BoTorch from compiling a kernel at first use.

    That takes a minute, and hangs for ever once a process was killed while it did so.
    """
    logei._load_attempted = True


def log_nehvi(request: Request) -> Worth:
    """Log expected hypervolume improvement over a front that noise leaves uncertain."""
    reference, _ = _front(request)
    _without_compiler()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BotorchWarning)
        return qLogNoisyExpectedHypervolumeImprovement(
            request.beliefs.model,
            reference,
            request.beliefs.U,
            request.sampler,
            _objectives(request),
            constraints=request.constraints,
            X_pending=request.waiting,
            prune_baseline=True,
            cache_root=False,
            alpha=_coarseness(len(reference)),
        )


def ehvi(request: Request) -> Worth:
    """Expected hypervolume improvement over the front as the model explains it, by samples."""
    reference, front = _front(request)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BotorchWarning)
        return qExpectedHypervolumeImprovement(
            request.beliefs.model,
            reference,
            _partitioning(reference, front),
            request.sampler,
            _objectives(request),
            constraints=request.constraints,
            X_pending=request.waiting,
        )


def _objectives(request: Request) -> IdentityMCMultiOutputObjective:
    return IdentityMCMultiOutputObjective(outcomes=list(range(request.beliefs.objectives)))


def _front(request: Request) -> tuple[Tensor, Tensor]:
    """Reference point (k,) and Pareto front (p, k) of the runs that satisfy all constraints."""
    beliefs = request.beliefs
    values = beliefs.expected()[beliefs.feasible]
    front = values[is_non_dominated(values)]
    if request.reference is not None:
        return request.reference, front
    # The ends of a front that is still short lie beyond it, so it alone must not set the reference.
    return torch.minimum(infer_reference_point(front), values.quantile(0.25, dim=0)), front


def _coarseness(objectives: int) -> float:
    """Share of hypervolume that a partitioning may neglect, as in BoTorch."""
    return 0.0 if objectives <= 4 else 1e-3 if objectives == 5 else 1e-2


def _partitioning(reference: Tensor, front: Tensor) -> NondominatedPartitioning:
    if len(reference) <= 4:
        return FastNondominatedPartitioning(reference, front)
    return NondominatedPartitioning(reference, front, alpha=_coarseness(len(reference)))


SINGLE: dict[str, Callable[[Request], Worth]] = {
    "log_ei": log_ei,
    "log_nei": log_nei,
    "ei": ei,
    "ucb": ucb,
}
SEVERAL: dict[str, Callable[[Request], Worth]] = {
    "log_ehvi": log_ehvi,
    "log_nehvi": log_nehvi,
    "ehvi": ehvi,
}
