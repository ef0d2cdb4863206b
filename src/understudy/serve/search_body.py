"""Bodies of requests that search, as pydantic checks them and OpenAPI describes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictBool, StrictStr

from understudy.core.space import nearest
from understudy.models.tabular.fitted import FittedSurrogate
from understudy.serve.optimum import Constraint, Objective, Strategy, Wanted, region
from understudy.serve.refusal import Problem, invalid

Value = StrictBool | FiniteFloat | StrictStr
_Name = Annotated[str, Field(max_length=1000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ObjectiveBody(_Strict):
    """What is wanted of an output."""

    output: _Name
    direction: Literal["minimize", "maximize", "target"] = "minimize"
    target: FiniteFloat | None = Field(None, description="Value to come near to.")


class ConstraintBody(_Strict):
    """Limits of an output; at least one."""

    output: _Name
    lower: FiniteFloat | None = None
    upper: FiniteFloat | None = None


class OptimizeBody(_Strict):
    """A search for the next points to run (``improve``) or the point believed best (``best``)."""

    objective: ObjectiveBody
    constraints: list[ConstraintBody] = Field(default_factory=list, max_length=16)
    bounds: dict[_Name, list[Value]] = Field(
        default_factory=dict,
        description="[lower, upper] of an input within its range, or some of its choices.",
    )
    fixed: dict[_Name, Value] = Field(default_factory=dict, description="Values of inputs.")
    strategy: Strategy = "improve"
    points: int = Field(1, ge=1, description="Points to propose; 1 with strategy best.")
    probability: float = Field(
        0.9, gt=0.0, lt=1.0, description="With which constraints hold, with strategy best."
    )
    seed: int = Field(0, ge=0, lt=2**31)

    def wanted(self, model: FittedSurrogate, most: int) -> Wanted:
        """Return the search, checked against the model (422)."""
        problems = [
            Problem(
                where, f"{part.output[:80]!r} is no output{nearest(part.output, model.targets)}"
            )
            for where, part in self._parts()
            if part.output not in model.targets
        ]
        problems += self._odd(most)
        if problems:
            raise invalid(problems)
        return Wanted(
            Objective(**self.objective.model_dump()),
            tuple(Constraint(**each.model_dump()) for each in self.constraints),
            region(model.space, self.bounds, self.fixed),
            self.strategy,
            self.probability,
        )

    def _parts(self) -> list[tuple[str, Any]]:
        rest = [(f"constraints[{at}].output", c) for at, c in enumerate(self.constraints)]
        return [("objective.output", self.objective), *rest]

    def _odd(self, most: int) -> list[Problem]:
        problems = []
        if (self.objective.direction == "target") != (self.objective.target is not None):
            problems.append(Problem("objective.target", "belongs to the direction target"))
        for at, each in enumerate(self.constraints):
            if each.lower is None and each.upper is None:
                problems.append(Problem(f"constraints[{at}]", "needs lower, upper or both"))
            elif None not in (each.lower, each.upper) and each.lower >= each.upper:  # type: ignore[operator]
                problems.append(Problem(f"constraints[{at}]", "lower must be below upper"))
        if self.points > most:
            problems.append(Problem("points", f"at most {most} are accepted"))
        if self.strategy == "best" and self.points > 1:
            problems.append(Problem("points", "strategy best gives one point"))
        return problems
