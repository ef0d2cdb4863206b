"""What next runs are worth: acquisition functions by name, of points of the unit cube.

Every one maps (b, q, d) to (b,). Constraints multiply the improvement by the probability that they
hold; where no run has satisfied them yet, that probability itself is what is maximised. Single
points of Gaussian processes are judged in closed form (see
`understudy.search.bayesopt.improvement`), all else by samples.
"""

from __future__ import annotations

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
from botorch.utils.multi_objective.hypervolume import infer_reference_point
from botorch.utils.multi_objective.pareto import is_non_dominated
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.posterior import sampler_for
from understudy.core.space import nearest
from understudy.search.bayesopt.bars import in_context, log_bar_ei
from understudy.search.bayesopt.beliefs import Beliefs
from understudy.search.bayesopt.improvement import (
    LogEHVI,
    LogEI,
    cells,
    coarseness,
    log_feasible,
    partitioning,
)

Worth: TypeAlias = Callable[[Tensor], Tensor]
"""Maps points (b, q, d) of the unit cube to what they are worth together, (b,)."""


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
        Draws, where there is no closed form; and of values that are not known, where there is one.
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
    def closed_form(self) -> bool:
        """Whether single points of Gaussian processes are asked for."""
        return self.batch == 1 and self.beliefs.model.is_gaussian

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


def feasibility(request: Request) -> Worth:
    """Log probability that all constraints hold."""
    beliefs = request.beliefs
    if request.closed_form and request.waiting is None:
        return lambda U: log_feasible(beliefs.intervals, *beliefs.model.moments(U.squeeze(-2)))
    return qLogProbabilityOfFeasibility(
        beliefs.model, request.constraints or [], request.sampler, X_pending=request.waiting
    )


# -- one objective ----------------------------------------------------------------------------


def log_ei(request: Request) -> Worth:
    """Log expected improvement over the best of the runs, as the model explains them."""
    beliefs = request.beliefs
    best = beliefs.expected()[beliefs.feasible, 0].max()
    network = in_context(beliefs)
    if network is not None and request.batch == 1:
        return log_bar_ei(beliefs, network, request.pending, best)
    if request.closed_form:
        drawn = beliefs.supposing(request.pending, request.samples, request.seed)
        return LogEI(drawn.moments, _best(beliefs, drawn.values, best), beliefs.intervals)
    return qLogExpectedImprovement(
        beliefs.model,
        float(best),
        request.sampler,
        _first_output,
        X_pending=request.waiting,
        constraints=request.constraints,
    )


def log_nei(request: Request) -> Worth:
    """Log expected improvement over the best of the runs, which noise leaves uncertain."""
    beliefs = request.beliefs
    if request.closed_form:
        drawn = beliefs.supposing(_uncertain(request), request.samples, request.seed)
        least = drawn.values[..., 0].amin()
        return LogEI(drawn.moments, _best(beliefs, drawn.values, least), beliefs.intervals)
    return qLogNoisyExpectedImprovement(
        beliefs.model,
        beliefs.U,
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


def _best(beliefs: Beliefs, values: Tensor, least: Tensor) -> Tensor:
    """Best of values drawn (s, p, m) that satisfies all constraints, or at least a value, (s,)."""
    counted = torch.where(beliefs.satisfied(values), values[..., 0], least)
    return torch.cat([least.expand(len(values), 1), counted], 1).amax(1)


# -- several objectives -----------------------------------------------------------------------


def log_ehvi(request: Request) -> Worth:
    """Log expected hypervolume improvement over the front as the model explains it."""
    beliefs = request.beliefs
    reference, front = _front(request)
    if request.closed_form:
        drawn = beliefs.supposing(request.pending, _cases(request), request.seed)
        known = front.expand(len(drawn.values), *front.shape)
        whole = torch.cat([known, _counted(beliefs, drawn.values, reference)], 1)
        return LogEHVI(drawn.moments, cells(whole, reference), beliefs.intervals)
    _without_compiler()
    return qLogExpectedHypervolumeImprovement(
        beliefs.model,
        reference,
        partitioning(reference, front),
        request.sampler,
        _objectives(request),
        constraints=request.constraints,
        X_pending=request.waiting,
    )


def log_nehvi(request: Request) -> Worth:
    """Log expected hypervolume improvement over a front that noise leaves uncertain."""
    beliefs = request.beliefs
    reference, _ = _front(request)
    if request.closed_form:
        drawn = beliefs.supposing(_uncertain(request), _cases(request), request.seed)
        whole = _counted(beliefs, drawn.values, reference)
        return LogEHVI(drawn.moments, cells(whole, reference), beliefs.intervals)
    _without_compiler()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BotorchWarning)
        return qLogNoisyExpectedHypervolumeImprovement(
            beliefs.model,
            reference,
            beliefs.U,
            request.sampler,
            _objectives(request),
            constraints=request.constraints,
            X_pending=request.waiting,
            prune_baseline=True,
            cache_root=False,
            alpha=coarseness(len(reference)),
        )


def ehvi(request: Request) -> Worth:
    """Expected hypervolume improvement over the front as the model explains it, by samples."""
    reference, front = _front(request)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BotorchWarning)
        return qExpectedHypervolumeImprovement(
            request.beliefs.model,
            reference,
            partitioning(reference, front),
            request.sampler,
            _objectives(request),
            constraints=request.constraints,
            X_pending=request.waiting,
        )


def _cases(request: Request) -> int:
    """Fewer draws than of one objective: a front is made, and looked through, for each."""
    return max(1, request.samples // (4 if request.beliefs.objectives == 2 else 16))


def _counted(beliefs: Beliefs, values: Tensor, reference: Tensor) -> Tensor:
    """Objectives (s, p, k) of values drawn; the reference where they violate a constraint."""
    held = beliefs.satisfied(values).unsqueeze(-1)
    return torch.where(held, values[..., : beliefs.objectives], reference)


def _uncertain(request: Request) -> Tensor:
    """Points whose values have to be drawn: runs that may be among the best, and those pending."""
    beliefs = request.beliefs
    U = beliefs.U[beliefs.feasible]
    drawn = beliefs.supposing(U, request.samples, request.seed).values[..., : beliefs.objectives]
    return torch.cat([U[is_non_dominated(drawn).any(0)], request.pending])


def _without_compiler() -> None:
    """Keep BoTorch from compiling a kernel at first use.

    That takes a minute, and hangs for ever once a process was killed while it did so.
    """
    logei._load_attempted = True


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
