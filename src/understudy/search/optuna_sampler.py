"""Bayesian optimisation as a sampler of Optuna: any study, storage and dashboard work with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from understudy.core.errors import UserError
from understudy.core.search import Config, Constraint, Objective, Observation, Problem
from understudy.core.space import Categorical, Continuous, Input, Integer, Space
from understudy.search.bayesopt.searcher import BayesianSearcher

if TYPE_CHECKING:
    from optuna.study import Study

_CONSTRAINTS = "constraints"  # where Optuna keeps what a constraints_func returned
_OUTCOME = "outcomes"  # prefix of user attributes with outcomes by name


@dataclass(frozen=True)
class Translation:
    """A distribution of Optuna as an input of a space, and values both ways.

    Parameters
    ----------
    input : Input
    encode, decode : callable
        From a value of Optuna to one of the space, and back.
    """

    input: Input
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def translation(name: str, distribution: BaseDistribution) -> Translation | None:
    """Return how a distribution is searched; None where it has one value or is unknown.

    Choices are numbered, since they may be of any type. A grid is searched as whole numbers, and
    whole numbers on a logarithmic scale as real ones that are rounded.
    """
    if distribution.single():
        return None
    if isinstance(distribution, CategoricalDistribution):
        choices = distribution.choices
        return Translation(
            Categorical(name, tuple(range(len(choices)))),
            lambda value: int(distribution.to_internal_repr(value)),
            lambda code: choices[int(code)],
        )
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        return None
    low, high = distribution.low, distribution.high
    kind = int if isinstance(distribution, IntDistribution) else float
    if kind is int and distribution.log:
        return Translation(
            Continuous(name, low - 0.5 + 1e-6, high + 0.5 - 1e-6, log=True),
            float,
            lambda value: min(max(round(value), low), high),
        )
    if kind is float and distribution.step is None:
        return Translation(Continuous(name, low, high, log=distribution.log), float, float)
    step = distribution.step or 1
    cells = math.floor((high - low) / step + 1e-9)
    return Translation(
        Integer(name, 0, cells),
        lambda value: round((value - low) / step),
        lambda cell: kind(low + step * int(cell)),
    )


class UnderstudySampler(BaseSampler):
    """Bayesian optimisation by `BayesianSearcher` in any Optuna study.

    Studies may have one or several directions, constraints (``constraints_func``, or those that
    trials set; at most 0 is feasible), trials that fail (learnt from: where runs fail is avoided),
    and trials that run meanwhile in this or other processes (their points are not proposed again).
    A pruned trial counts with its last intermediate value, where the study has one direction.

    Parameters that are not part of every trial so far, or whose range changes, are drawn by the
    independent sampler; so are all in the first trials where no problem is given.

    Parameters
    ----------
    problem : Problem, optional
        The space is then known before the first trial, and outcomes that are only constrained are
        read from the ``user_attrs`` of trials, by name or in a dictionary named ``outcomes``.
    seed : int
    independent_sampler : optuna.samplers.BaseSampler, optional
        `optuna.samplers.RandomSampler` by default.
    constraints_func : callable, optional
        Maps a finished trial to numbers that must not be positive.
    **options
        Of `BayesianSearcher`: ``surrogate``, ``acquisition``, ``initial`` and others.
    """

    def __init__(
        self,
        problem: Problem | None = None,
        *,
        seed: int = 0,
        independent_sampler: BaseSampler | None = None,
        constraints_func: Callable[[FrozenTrial], Sequence[float]] | None = None,
        **options: Any,
    ) -> None:
        self.problem = problem
        self.seed = seed
        self.options = options
        self.independent_sampler = independent_sampler or RandomSampler(seed=seed)
        self._constraints_func = constraints_func
        self._intersection = IntersectionSearchSpace(include_pruned=True)

    # -- what Optuna calls --------------------------------------------------------------------

    def reseed_rng(self) -> None:
        """Reseed the independent sampler; proposals follow from the history and the seed."""
        self.independent_sampler.reseed_rng()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Parameters of the problem, or those that all trials so far share."""
        if self.problem is not None:
            return dict(self.problem.space.distributions())
        shared = self._intersection.calculate(study)
        return {name: d for name, d in shared.items() if translation(name, d) is not None}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose values of the search space for a trial."""
        if not search_space:
            return {}
        inputs = {n: t for n, d in search_space.items() if (t := translation(n, d)) is not None}
        trials = study._get_trials(deepcopy=False, use_cache=False)
        return self._proposed(study, trial, trials, inputs)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a parameter that is not in the search space."""
        return self.independent_sampler.sample_independent(
            study, trial, param_name, param_distribution
        )

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Let the independent sampler prepare."""
        self.independent_sampler.before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Keep what ``constraints_func`` says of a finished trial."""
        if self._constraints_func is not None and state in (
            TrialState.COMPLETE,
            TrialState.PRUNED,
        ):
            found = tuple(float(value) for value in self._constraints_func(trial))
            if any(math.isnan(value) for value in found):
                raise UserError(f"constraints_func returned a value that is no number: {found}")
            study._storage.set_trial_system_attr(trial._trial_id, _CONSTRAINTS, found)
        self.independent_sampler.after_trial(study, trial, state, values)

    # -- from trials to observations ----------------------------------------------------------

    def _proposed(
        self,
        study: Study,
        trial: FrozenTrial,
        trials: list[FrozenTrial],
        inputs: dict[str, Translation],
    ) -> dict[str, Any]:
        names = sorted({name for t in trials for name in _constraints(t)})
        problem = _problem(study, inputs, names, self.problem)
        searcher = BayesianSearcher(problem, self.seed, **self.options)
        for other in trials:
            self._tell(searcher, other, trial.number, inputs)
        ready = sum(not o.failed for o in searcher.observations) >= 2
        runs = len(searcher.observations) + len(searcher.pending)
        if ready and runs >= searcher.initial_runs:
            config = searcher.propose(1)[0]
        else:
            config = searcher.design(trial.number, 1)[0]
        return {name: t.decode(config[name]) for name, t in inputs.items()}

    def _tell(
        self,
        searcher: BayesianSearcher,
        trial: FrozenTrial,
        asking: int,
        inputs: dict[str, Translation],
    ) -> None:
        """Add a trial to what the searcher knows, if it has all inputs."""
        if trial.number == asking or not inputs.keys() <= trial.params.keys():
            return
        config: Config = {n: t.encode(trial.params[n]) for n, t in inputs.items()}
        if trial.state == TrialState.RUNNING:
            searcher.pending.append(config)
        elif trial.state == TrialState.FAIL:
            searcher.observations.append(Observation(config, None))
        elif (values := _values(trial, searcher.problem)) is not None:
            searcher.observations.append(Observation(config, values))


def _problem(
    study: Study, inputs: dict[str, Translation], constraints: list[str], given: Problem | None
) -> Problem:
    """Return the problem of a study: objectives by number, constraints by their keys."""
    named = None if given is None else given.objectives
    objectives = tuple(
        Objective(
            f"objective {i}" if named is None else named[i].name,
            "maximize" if direction == StudyDirection.MAXIMIZE else "minimize",
            None if named is None else named[i].reference,
        )
        for i, direction in enumerate(study.directions)
        if named is None or i < len(named)
    )
    limits = tuple(Constraint(f"constraint {name}", upper=0.0) for name in constraints)
    own = () if given is None else given.constraints
    return Problem(Space(tuple(t.input for t in inputs.values())), objectives, (*own, *limits))


def _constraints(trial: FrozenTrial) -> dict[str, float]:
    """Constraints of a trial by key, in Optuna's old and new formats."""
    listed = trial.system_attrs.get(_CONSTRAINTS) or ()
    found = {str(i): float(value) for i, value in enumerate(listed)}
    prefix = f"{_CONSTRAINTS}:"
    return found | {
        key.removeprefix(prefix): float(value)
        for key, value in trial.system_attrs.items()
        if key.startswith(prefix)
    }


def _values(trial: FrozenTrial, problem: Problem) -> dict[str, float] | None:
    """Outcomes of a finished trial; None where they are not all known."""
    values = trial.values
    if trial.state == TrialState.PRUNED:
        steps = trial.intermediate_values
        values = [steps[max(steps)]] if steps and len(problem.objectives) == 1 else None
    if values is None or not all(map(math.isfinite, values)):
        return None
    kept = {k: v for k, v in trial.user_attrs.items() if isinstance(v, int | float)}
    kept |= trial.user_attrs.get(_OUTCOME, {})
    kept |= {f"constraint {name}": value for name, value in _constraints(trial).items()}
    kept |= {o.name: float(v) for o, v in zip(problem.objectives, values, strict=True)}
    if not all(name in kept and math.isfinite(kept[name]) for name in problem.outcomes):
        return None
    return {name: float(kept[name]) for name in problem.outcomes}
