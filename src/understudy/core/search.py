"""The contract of a search: ask for configurations to run, tell what became of them.

Bayesian optimisation, bandits, architecture search and bit allocation all speak it, so that each
can be swapped for each and counted in the same budget.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from understudy.core.errors import UserError
from understudy.core.space import Space

Config = dict[str, Any]
"""A value for each input of a `Space`."""

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Objective:
    """An outcome to be made as small, or as large, as possible.

    Parameters
    ----------
    name : str
    direction : {"minimize", "maximize"}
    reference : float, optional
        Worst acceptable value, from which the hypervolume of several objectives is measured.
    """

    name: str
    direction: Direction = "minimize"
    reference: float | None = None

    def __post_init__(self) -> None:
        if self.direction not in ("minimize", "maximize"):
            raise UserError(
                f"objective {self.name!r}: the direction is 'minimize' or 'maximize', "
                f"got {self.direction!r}"
            )
        if self.reference is not None and not math.isfinite(self.reference):
            raise UserError(
                f"objective {self.name!r}: reference must be finite, got {self.reference}"
            )

    @property
    def sign(self) -> float:
        """1 where large is good, -1 where small is."""
        return 1.0 if self.direction == "maximize" else -1.0


@dataclass(frozen=True)
class Constraint:
    """An outcome that must lie between bounds, both included; one of them may be infinite."""

    name: str
    lower: float = -math.inf
    upper: float = math.inf

    def __post_init__(self) -> None:
        if not self.lower < self.upper:
            raise UserError(
                f"constraint {self.name!r}: the lower bound {self.lower:g} must be below "
                f"the upper bound {self.upper:g}"
            )
        if math.isinf(self.lower) and math.isinf(self.upper):
            raise UserError(f"constraint {self.name!r} needs a finite lower or upper bound")

    def allows(self, value: float) -> bool:
        """Whether a value satisfies the constraint."""
        return self.lower <= value <= self.upper


@dataclass(frozen=True)
class Problem:
    """What is searched, and for what.

    Parameters
    ----------
    space : Space
    objectives : tuple of Objective
        One, or several whose trade-off is sought.
    constraints : tuple of Constraint
        On outcomes that are measured with the objectives.
    """

    space: Space
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...] = ()

    def __post_init__(self) -> None:
        if not self.objectives:
            raise UserError("a problem needs at least one objective")
        names = [objective.name for objective in self.objectives]
        if len(set(names)) < len(names):
            raise UserError(f"two objectives have the same name, of {', '.join(names)}")

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Names of all that a run must give: objectives first, then other constrained outcomes."""
        named = [objective.name for objective in self.objectives]
        named += [constraint.name for constraint in self.constraints]
        return tuple(dict.fromkeys(named))

    def feasible(self, values: Mapping[str, float]) -> bool:
        """Whether outcomes satisfy every constraint."""
        return all(part.allows(values[part.name]) for part in self.constraints)


@dataclass(frozen=True)
class Observation:
    """A configuration that was run, and its outcomes: None where the run failed.

    ``values`` has a finite number for each of `Problem.outcomes`.
    """

    config: Config
    values: Mapping[str, float] | None

    @property
    def failed(self) -> bool:
        """Whether there are no outcomes."""
        return self.values is None


def observed(problem: Problem, config: Config, values: Mapping[str, Any] | None) -> Observation:
    """Observation of a run; one without a finite number for every outcome counts as failed."""
    if values is None:
        return Observation(dict(config), None)
    try:
        numbers = {name: float(values[name]) for name in problem.outcomes}
    except (KeyError, TypeError, ValueError):
        return Observation(dict(config), None)
    finite = all(map(math.isfinite, numbers.values()))
    return Observation(dict(config), numbers if finite else None)


@dataclass
class Searcher(ABC):
    """Proposes configurations and learns from their outcomes.

    A subclass writes `propose` only, a function of the problem and the history.

    Parameters
    ----------
    problem : Problem
    seed : int
        Same seed and same history, same proposals.
    """

    problem: Problem
    seed: int = 0
    observations: list[Observation] = field(default_factory=list, init=False)
    pending: list[Config] = field(default_factory=list, init=False)

    @abstractmethod
    def propose(self, n: int) -> list[Config]:
        """Return n configurations, given ``observations`` and ``pending``."""

    def ask(self, n: int = 1) -> list[Config]:
        """Return n configurations to run; they are pending until told of."""
        if n < 1:
            raise UserError(f"ask for at least one configuration, not {n}")
        proposed = self.propose(n)
        self.pending.extend(proposed)
        return proposed

    def tell(self, configs: Sequence[Config], values: Sequence[Mapping[str, Any] | None]) -> None:
        """Learn outcomes by name of configurations, asked for or not; None where a run failed."""
        if len(configs) != len(values):
            raise UserError(f"{len(configs)} configurations were told with {len(values)} outcomes")
        for config, outcome in zip(configs, values, strict=True):
            self.observations.append(observed(self.problem, config, outcome))
            if config in self.pending:
                self.pending.remove(config)
