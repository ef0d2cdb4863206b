"""A study: a problem and its trials, in a storage that outlives every process.

The problem is kept with the study, so that a study is only gone on with for the same question.
Outcomes of constraints, reasons of failures and times are kept with each trial as attributes that
Optuna's dashboard shows.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import UserError
from understudy.core.search import Config, Problem
from understudy.core.space import nearest
from understudy.search.storage import Storage

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

PROBLEM = "understudy:problem"
OUTCOMES = "outcomes"
REASON = "reason"
SECONDS = "seconds"
SUGGESTION = "suggestion_seconds"
WORKER = "worker"
LOST = "lost"

_STATES = {"COMPLETE": "done", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


@dataclass(frozen=True)
class Trial:
    """One run of the objective.

    Parameters
    ----------
    number : int
        From 0, in the order in which trials were begun.
    state : str
        done, failed, running or waiting (to be run again).
    config : dict
        A value for each input.
    outcomes : dict, optional
        Of a trial that is done.
    feasible : bool
        Whether its outcomes satisfy every constraint.
    reason : str
        Of a failure.
    seconds, suggestion_seconds : float
        That the run and its suggestion took; NaN where not known.
    """

    number: int
    state: str
    config: Config
    outcomes: Mapping[str, float] | None = None
    feasible: bool = False
    reason: str = ""
    seconds: float = math.nan
    suggestion_seconds: float = math.nan

    @property
    def finished(self) -> bool:
        """Whether it is done or failed."""
        return self.state in ("done", "failed")


@dataclass
class Study:
    """Trials of a problem.

    Parameters
    ----------
    storage : Storage
    problem : Problem
    optuna : optuna.Study
    """

    storage: Storage
    problem: Problem
    optuna: optuna.Study
    _seen: dict[int, Trial] = field(default_factory=dict, init=False, repr=False)

    @property
    def name(self) -> str:
        """Name of the study in its storage."""
        return self.optuna.study_name

    @cached_property
    def id(self) -> int:
        """Number of the study in its storage."""
        return self.storage.rdb.get_study_id_from_name(self.name)

    def trial_id(self, number: int) -> int:
        """Return the number in the storage of a trial."""
        return self.storage.rdb.get_trial_id_from_study_id_trial_number(self.id, number)

    def trials(self) -> list[Trial]:
        """All trials, also of other machines; those that are finished are read once."""
        for frozen in self.optuna.get_trials(deepcopy=False):
            known = self._seen.get(frozen.number)
            if known is None or not known.finished:
                self._seen[frozen.number] = self._trial(frozen)
        return [self._seen[number] for number in sorted(self._seen)]

    def best(self) -> Trial | None:
        """Best feasible trial, of the first objective; None before there is one."""
        objective = self.problem.objectives[0]
        found = [trial for trial in self.trials() if trial.feasible and trial.outcomes]
        return max(
            found,
            key=lambda trial: objective.sign * (trial.outcomes or {})[objective.name],
            default=None,
        )

    def front(self) -> list[Trial]:
        """Feasible trials that no other is better than in every objective, best first."""
        found = [trial for trial in self.trials() if trial.feasible and trial.outcomes]
        if not found:
            return []
        first = self.problem.objectives[0]
        values = np.array(
            [
                [part.sign * (trial.outcomes or {})[part.name] for part in self.problem.objectives]
                for trial in found
            ]
        )
        kept = [trial for trial, on in zip(found, _on_front(values), strict=True) if on]
        return sorted(kept, key=lambda trial: -first.sign * (trial.outcomes or {})[first.name])

    def _trial(self, frozen: FrozenTrial) -> Trial:
        attributes = frozen.user_attrs
        outcomes = self._outcomes(frozen)
        return Trial(
            number=frozen.number,
            state=_STATES.get(frozen.state.name, "failed"),
            config={
                name: frozen.params[name]
                for name in self.problem.space.names
                if name in frozen.params
            },
            outcomes=outcomes,
            feasible=outcomes is not None and self.problem.feasible(outcomes),
            reason=_reason(frozen),
            seconds=float(attributes.get(SECONDS, math.nan)),
            suggestion_seconds=float(attributes.get(SUGGESTION, math.nan)),
        )

    def _outcomes(self, frozen: FrozenTrial) -> dict[str, float] | None:
        if frozen.state.name != "COMPLETE" or not frozen.values:
            return None
        names = (objective.name for objective in self.problem.objectives)
        outcomes = dict(zip(names, frozen.values, strict=True))
        kept = {**frozen.user_attrs.get(OUTCOMES, {}), **outcomes}
        return {name: float(kept.get(name, math.nan)) for name in self.problem.outcomes}


def _reason(frozen: FrozenTrial) -> str:
    return str(frozen.user_attrs.get(REASON, "")) if frozen.state.name == "FAIL" else ""


def _on_front(values: np.ndarray) -> np.ndarray:
    """Which rows (n, m) of values, large is good, no other row is at least as good as and better.

    Of equal rows the first counts.
    """
    on = np.ones(len(values), dtype=bool)
    for i in np.lexsort(-values.T[::-1]):
        if on[i]:
            worse = (values <= values[i]).all(axis=1)
            worse[i] = False
            on &= ~worse
    return on


# -- beginning and going on ----------------------------------------------------------------------


def open_study(
    storage: Storage,
    name: str,
    problem: Problem,
    *,
    resume: bool = False,
    sampler: BaseSampler | None = None,
) -> Study:
    """Begin a study, or go on with it.

    Parameters
    ----------
    storage : Storage
    name : str
    problem : Problem
    resume : bool
        Whether to go on with a study that exists, here or on another machine; refused otherwise.
        One that does not exist is begun in any case.
    sampler : optuna.samplers.BaseSampler, optional
        What suggests configurations.

    Raises
    ------
    UserError
        The study exists already, or is of another problem; says which difference there is.
    """
    import optuna

    asked = describe(problem)
    with storage.exclusive(name):
        names = [found.study_name for found in storage.rdb.get_all_studies()]
        if name not in names:
            study = optuna.create_study(
                storage=storage.rdb,
                study_name=name,
                directions=[objective.direction for objective in problem.objectives],
                sampler=sampler,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what Optuna calls experimental
                study.set_metric_names([objective.name for objective in problem.objectives])
            study.set_user_attr(PROBLEM, asked)
            return Study(storage, problem, study)
        study = optuna.load_study(storage=storage.rdb, study_name=name, sampler=sampler)
    kept = study.user_attrs.get(PROBLEM)
    if kept is None:
        raise UserError(
            f"study {name!r} of {storage} was made by another program; take another name"
        )
    different = difference(kept, asked)
    if different:
        raise UserError(f"study {name!r} of {storage} is of another problem: {different}")
    if not resume:
        raise UserError(
            f"study {name!r} of {storage} exists already; --resume goes on with it, "
            "--name NAME begins another"
        )
    return Study(storage, problem, study)


def describe(problem: Problem) -> dict[str, Any]:
    """Problem as plain values that are kept with a study."""

    def bound(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "inputs": {item["name"]: item for item in json.loads(problem.space.to_json())["inputs"]},
        "objectives": {part.name: {"direction": part.direction} for part in problem.objectives},
        "constraints": {
            part.name: {"lower": bound(part.lower), "upper": bound(part.upper)}
            for part in problem.constraints
        },
    }


def difference(kept: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """First difference between two descriptions of problems, empty where there is none."""
    for section in ("inputs", "objectives", "constraints"):
        before, now = kept.get(section, {}), asked[section]
        kind = section[:-1]
        for name in before:
            if name not in now:
                return f"its {kind} {name!r} is not in the file{nearest(name, list(now))}"
        for name in now:
            if name not in before:
                return f"it has no {kind} {name!r}{nearest(name, list(before))}"
            found = _different(before[name], now[name])
            if found:
                return f"{kind} {name!r} has {found}"
        if list(before) != list(now):
            return f"its {section} are in another order: {', '.join(before)}"
    return ""


def _different(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    for key in ("type", *now):
        if key in now and before.get(key) != now[key]:
            return f"{key} {_told(before.get(key))} there and {_told(now[key])} in the file"
    return ""


def _told(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(str, value)) + "]"
    return "none" if value is None else str(value)
