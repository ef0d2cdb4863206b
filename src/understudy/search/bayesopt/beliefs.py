"""What is believed about all outcomes after some runs, as one BoTorch model on the unit cube."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.models.model import Model
from botorch.posteriors import Posterior
from botorch.posteriors.posterior_list import PosteriorList
from botorch.utils.sampling import draw_sobol_normal_samples
from torch import Tensor

from understudy.core.botorch_model import SurrogateModel
from understudy.core.search import Observation, Problem
from understudy.core.surrogate import Surrogate
from understudy.models.tabular.exact_gp import ExactGP
from understudy.models.tabular.gaussian_process import GaussianProcess
from understudy.search.bayesopt.cube import Cube
from understudy.search.bayesopt.improvement import Moments
from understudy.search.bayesopt.outcomes import Interval, Scale, intervals, signs
from understudy.search.bayesopt.portfolio import (
    Portfolio,
    fit_members,
    named,
    reproducible,
    scaled,
)
from understudy.search.bayesopt.processes import Processes

RUNS = 0.0
"""Level above which the outcome of `failure_model` means that a run does not fail."""


@dataclass(frozen=True)
class Supposed:
    """Values (s, p, m) drawn at points, and moments at others in each of these s cases."""

    values: Tensor
    moments: Moments


class JointModel(Model):
    """Independent surrogates of the outcomes, seen from the unit cube.

    Parameters
    ----------
    cube : Cube
    parts : sequence of Surrogate
        Their outputs are the model's, one part after the other.
    """

    def __init__(self, cube: Cube, parts: Sequence[Surrogate]) -> None:
        super().__init__()
        self.cube = cube
        self.parts = tuple(parts)
        gaussian = tuple(part for part in self.parts if isinstance(part, GaussianProcess))
        self.processes = Processes(gaussian) if len(gaussian) == len(self.parts) else None

    @property
    def num_outputs(self) -> int:
        """Number of outcomes."""
        return sum(part.n_outputs_ for part in self.parts)

    @property
    def batch_shape(self) -> torch.Size:
        """Empty: one model."""
        return torch.Size()

    @property
    def is_gaussian(self) -> bool:
        """Whether every outcome is a Gaussian process."""
        return self.processes is not None

    def moments(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations (b, m) at single points X (b, d) of the unit cube."""
        if self.processes is not None:
            mean, variance = self.processes.marginals(self.cube.features(X))
            return mean, variance.sqrt()
        posterior = self.posterior(X.unsqueeze(-2))
        return posterior.mean.squeeze(-2), posterior.variance.clamp_min(0.0).sqrt().squeeze(-2)

    def supposing(self, U: Tensor, normals: Tensor) -> Supposed:
        """Processes further conditioned on values drawn at points (p, d), of (s, p, m) normals."""
        if self.processes is None:
            raise TypeError("only Gaussian processes are conditioned in closed form")
        with torch.no_grad():
            found = self.processes.supposing(self.cube.features(U), normals)
        return Supposed(found.values, lambda X: found.moments(self.cube.features(X)))

    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
        **kwargs: Any,
    ) -> Posterior:
        """Joint posterior at points X (*batch, q, d) of the unit cube."""
        features = self.cube.features(X)
        whole = self._all(features)
        return whole if posterior_transform is None else posterior_transform(whole)

    def _all(self, features: Tensor) -> Posterior:
        if self.processes is not None:
            return self.processes.joint(features)
        each = [SurrogateModel(part).posterior(features) for part in self.parts]
        return each[0] if len(each) == 1 else PosteriorList(*each)


@dataclass(frozen=True)
class Beliefs:
    """A model of all outcomes, and the runs it has learnt from.

    Parameters
    ----------
    model : JointModel
        Outputs are the problem's outcomes on the learnt scale, and last, where a run failed,
        whether a run succeeds.
    U : Tensor (n, d)
        Runs with outcomes, on the unit cube.
    Z : Tensor (n, m)
        Those outcomes on the learnt scale.
    scales : list of Scale
        Of the m outcomes.
    intervals : list of Interval
        Constraints on the model's outputs; success of the run is one.
    objectives : int
        How many of the outputs, the first ones, are objectives.
    """

    model: JointModel
    U: Tensor
    Z: Tensor
    scales: list[Scale]
    intervals: list[Interval]
    objectives: int
    feasible: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "feasible", self.satisfied(self.Z))

    def satisfied(self, values: Tensor) -> Tensor:
        """Which values (..., m or more) satisfy the constraints on these m outputs, (...)."""
        held = torch.ones(values.shape[:-1], dtype=torch.bool)
        for interval in self.intervals:
            if interval.output < values.shape[-1]:
                for excess in interval.excess(values):
                    held &= excess <= 1e-9
        return held

    @property
    def values(self) -> Tensor:
        """Objectives of the runs, (n, k): large is good."""
        return self.Z[:, : self.objectives]

    def supposing(self, U: Tensor, cases: int, seed: int) -> Supposed:
        """Return what would be believed if outcomes at points (p, d) were known.

        They are drawn in some cases; where there are no points, there is one case.
        """
        p, m = len(U), self.model.num_outputs
        if p == 0:
            normals = torch.zeros(1, 0, m, dtype=U.dtype)
        else:
            normals = draw_sobol_normal_samples(p * m, cases, dtype=U.dtype, seed=seed)
        return self.model.supposing(U, normals.reshape(len(normals), p, m))

    def expected(self) -> Tensor:
        """Objectives of the runs as the model explains them, without their noise, (n, k)."""
        with torch.no_grad():
            mean, _ = self.model.moments(self.U)
        return mean[:, : self.objectives]


def learn(
    problem: Problem,
    cube: Cube,
    observations: Sequence[Observation],
    surrogate: str | Surrogate,
    portfolio: Portfolio,
    seed: int,
) -> Beliefs:
    """Fit surrogates of all outcomes to what was observed.

    Parameters
    ----------
    problem : Problem
    cube : Cube
    observations : sequence of Observation
        At least two with outcomes.
    surrogate : str or Surrogate
        ``"portfolio"``, or one for all outcomes.
    portfolio : Portfolio
    seed : int
    """
    runs = [o for o in observations if o.values is not None]
    U = cube.points([o.config for o in runs])
    Y = torch.tensor(
        [[o.values[name] for name in problem.outcomes] for o in runs if o.values is not None],
        dtype=torch.float64,
    )
    features = cube.features(U)
    parts: list[Surrogate]
    if surrogate == "portfolio":
        learnt = fit_members(features, Y, signs(problem), portfolio)
        parts, scales = [part.surrogate for part in learnt], [part.scale for part in learnt]
        Z = torch.stack([s.learnt(Y[:, j]) for j, s in enumerate(scales)], 1)
    else:
        Z, scales = scaled(Y, signs(problem))
        parts = [reproducible(named(surrogate), seed).fit(features.numpy(), Z.numpy())]
    limits = intervals(problem, scales)
    if len(runs) < len(observations):
        parts.append(failure_model(cube, observations))
        limits.append(Interval(len(scales), RUNS, np.inf))
    model = JointModel(cube, parts)
    return Beliefs(model, U, Z, scales, limits, len(problem.objectives))


def failure_model(cube: Cube, observations: Sequence[Observation]) -> ExactGP:
    """Gaussian process of whether runs succeed: 1 where they did, -1 where they failed.

    Least-squares classification (Rasmussen & Williams 2006, section 6.5): the probability that a
    run succeeds is that of a value above 0.
    """
    labels = np.array([-1.0 if o.failed else 1.0 for o in observations])
    X = cube.features(cube.points([o.config for o in observations]))
    return ExactGP(min_noise=1e-2).fit(X.numpy(), labels)
