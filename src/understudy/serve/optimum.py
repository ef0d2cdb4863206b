r"""Where a served surrogate promises most: the next points to run, or the point believed best.

With the loss of an output f

.. math:: \ell(f) = f, \quad -f, \quad\text{or}\quad |f - t|

to be minimised, maximised or brought to a target t, ``improve`` proposes points one after the
other, each where the logarithm of the expected improvement (Ament et al. 2023, arXiv 2310.20708)
on the least loss of the training rows is largest, those before it pending: an expectation over
functions from the surrogate's joint posterior, in which draws that break a constraint count for
nothing. ``best`` minimises the loss of the mean where each constraint holds with a probability.
Nothing is learnt anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from understudy.core.space import Categorical, Integer, Space, nearest
from understudy.models.tabular.fitted import FittedSurrogate
from understudy.serve.refusal import Problem, invalid

Strategy: TypeAlias = Literal["improve", "best"]

_DRAWS = 64
_MOST_ROWS = 1000  # of the training table that are looked at
_CENTRES = 10
_STARTS = 4


@dataclass(frozen=True)
class Objective:
    """What is wanted of an output.

    Parameters
    ----------
    output : str
    direction : {"minimize", "maximize", "target"}
    target : float, optional
        Value to come near to.
    """

    output: str
    direction: Literal["minimize", "maximize", "target"]
    target: float | None = None

    def loss(self, y: Tensor) -> Tensor:
        """Loss of values of the output, elementwise."""
        if self.direction == "target":
            assert self.target is not None
            return (y - self.target).abs()
        return y if self.direction == "minimize" else -y


@dataclass(frozen=True)
class Constraint:
    """Limits of an output.

    Parameters
    ----------
    output : str
    lower, upper : float, optional
        At least one.
    """

    output: str
    lower: float | None = None
    upper: float | None = None

    def excess(self, y: Tensor) -> list[Tensor]:
        """How far values of the output lie beyond each limit, negative where they do not."""
        beyond = [] if self.lower is None else [self.lower - y]
        return beyond if self.upper is None else [*beyond, y - self.upper]


@dataclass(frozen=True)
class Region:
    """Part of a space: some inputs free within narrower bounds, the others fixed.

    Parameters
    ----------
    space : Space
        All inputs.
    free : Space
        Inputs that are searched.
    fixed : Tensor (d,)
        Code of each input that is not free, NaN of those that are.
    """

    space: Space
    free: Space
    fixed: Tensor

    @property
    def at(self) -> list[int]:
        """Positions of the free inputs."""
        return [self.space.names.index(name) for name in self.free.names]

    def codes(self, U: Tensor) -> Tensor:
        """Codes (..., d) of points (..., f) of the unit cube of the free inputs; differentiable."""
        found = self.fixed.expand(*U.shape[:-1], len(self.space)).clone()
        found[..., self.at] = self._codes_of(U)
        return found

    def _codes_of(self, U: Tensor) -> Tensor:
        """Codes of the space, where choices are numbered among all."""
        codes = self.free.from_unit(U)
        columns = []
        for j, item in enumerate(self.free):
            whole = self.space[item.name]
            column = codes[..., j]
            if isinstance(item, Categorical) and isinstance(whole, Categorical):
                table = torch.tensor([float(whole.choices.index(c)) for c in item.choices])
                column = table.to(U.dtype)[column.round().long().clamp(0, len(table) - 1)]
            columns.append(column)
        return torch.stack(columns, dim=-1)

    def within(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Which rows (n, d) of codes lie in it, (n,), and those as points of the cube (k, f)."""
        held = (self.fixed == X) | self.fixed.isnan()
        columns = []
        for item in self.free:
            column = X[:, self.space.names.index(item.name)]
            whole = self.space[item.name]
            if isinstance(item, Categorical) and isinstance(whole, Categorical):
                known = [item.choices.index(c) if c in item.choices else -1 for c in whole.choices]
                column = torch.tensor(known, dtype=X.dtype)[column.long()]
            columns.append(column)
        U = self.free.to_unit(torch.stack(columns, dim=-1))
        inside = held.all(1) & ((U >= 0) & (U <= 1)).all(1)
        return inside, U[inside]


def region(space: Space, bounds: Mapping[str, Any], fixed: Mapping[str, Any]) -> Region:
    """Part of a space by bounds and fixed values.

    Parameters
    ----------
    space : Space
    bounds : mapping
        Two numbers of an input, within its range; or some choices of one.
    fixed : mapping
        Value of an input.

    Raises
    ------
    Refusal
        An unknown input, one in both, bounds beyond the range, a value that is none of the
        choices, or nothing left free.
    """
    problems = [
        Problem(name[:80], f"is no input{nearest(name[:80], space.names)}")
        for name in (*bounds, *fixed)
        if name not in space
    ]
    problems += [Problem(n, "is both bounded and fixed") for n in bounds if n in fixed]
    if problems:
        raise invalid(problems)
    values = torch.full((len(space),), torch.nan, dtype=torch.float64)
    free = []
    for j, item in enumerate(space):
        narrowed = _narrowed(item, bounds[item.name]) if item.name in bounds else item
        if item.name in fixed or isinstance(narrowed, float):
            values[j] = narrowed if isinstance(narrowed, float) else _code(item, fixed[item.name])
        else:
            free.append(narrowed)
    if not free:
        raise invalid([Problem("fixed", "every input is fixed; there is nothing to search")])
    return Region(space, Space(tuple(free)), values)


def _code(item: Any, value: Any) -> float:
    if isinstance(item, Categorical):
        code = item.code(value)
        if code is None:
            raise invalid([Problem(item.name, f"the choices are {list(item.choices)[:8]}")])
        return float(code)
    whole = not isinstance(item, Integer) or value == int(value)
    if isinstance(value, bool | str) or not item.lower <= value <= item.upper or not whole:
        raise invalid([Problem(item.name, f"a value {_range(item)} is expected")])
    return float(value)


def _narrowed(item: Any, limits: Any) -> Any:
    """The input within limits, or its code where they leave one value only."""
    if isinstance(item, Categorical):
        codes = sorted({int(_code(item, choice)) for choice in limits})
        if not codes:
            raise invalid([Problem(item.name, "at least one choice is expected")])
        kept = tuple(item.choices[code] for code in codes)
        return float(codes[0]) if len(kept) == 1 else replace(item, choices=kept)
    if len(limits) != 2:
        raise invalid([Problem(item.name, "two bounds are expected, [lower, upper]")])
    lower, upper = (_code(item, limit) for limit in limits)
    if lower > upper:
        raise invalid([Problem(item.name, "the lower bound is above the upper")])
    return lower if lower == upper else replace(item, lower=lower, upper=upper)


def _range(item: Any) -> str:
    kind = "whole " if isinstance(item, Integer) else ""
    return f"within the {kind}range of the training table, {item.lower:g} to {item.upper:g},"


@dataclass(frozen=True)
class Wanted:
    """A search.

    Parameters
    ----------
    objective : Objective
    constraints : tuple of Constraint
    region : Region
    strategy : {"improve", "best"}
    probability : float in (0, 1)
        With which constraints must hold, of ``best``.
    """

    objective: Objective
    constraints: tuple[Constraint, ...]
    region: Region
    strategy: Strategy = "improve"
    probability: float = 0.9


@dataclass(frozen=True)
class Point:
    """A point found.

    Parameters
    ----------
    codes : ndarray (d,)
    feasible : float in [0, 1]
        Probability that the constraints hold, by draws of the surrogate's functions.
    """

    codes: np.ndarray
    feasible: float


def propose(model: FittedSurrogate, wanted: Wanted, points: int, seed: int = 0) -> list[Point]:
    """Return the next points to run, or the one believed best.

    Parameters
    ----------
    model : FittedSurrogate
    wanted : Wanted
    points : int
        At least 1; exactly 1 of ``best``.
    seed : int
        Of every random choice.
    """
    from understudy.search.bayesopt.cube import Cube
    from understudy.search.bayesopt.maximise import MultiStart, Search

    beliefs = _Beliefs(model, wanted)
    rng = np.random.default_rng(seed)
    cube = Cube(wanted.region.free)
    known = beliefs.known(rng)
    spread = torch.cat([known, cube.sobol(256, int(rng.integers(2**31 - 1)))])
    loss = beliefs.mean_loss(spread)
    centres = spread[loss.argsort()[:_CENTRES]]
    reference = loss[: len(known)] if bool(loss[: len(known)].isfinite().any()) else loss
    finder = MultiStart(restarts=4, raw_samples=256, iterations=30, rounds=3)
    found = known[:0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(points):
            worth = beliefs.worth(float(reference.min()), found, int(rng.integers(2**31 - 1)))
            seen = found if wanted.strategy == "best" else torch.cat([known, found])
            new = finder(Search(worth, cube, 1, centres, seen, rng))
            if wanted.strategy == "best":
                starts = torch.cat([new, cube.nearest(centres[:_STARTS])])
                new = beliefs.polished(starts, cube.levels == 0, worth)
            found = torch.cat([found, new])
    codes = wanted.region.codes(found)
    feasible = beliefs.feasible(found, seed)
    return [Point(c, f) for c, f in zip(codes.numpy(), feasible.tolist(), strict=True)]


@dataclass(frozen=True)
class _Beliefs:
    """What the surrogate says of points U (..., f) of the region's cube."""

    model: FittedSurrogate
    wanted: Wanted

    def _at(self, output: str) -> int:
        return self.model.targets.index(output)

    def posterior(self, U: Tensor) -> Any:
        return self.model.posterior(self.wanted.region.codes(U))

    def known(self, rng: np.random.Generator) -> Tensor:
        """Training rows within the region, (k, f)."""
        table = self.model.training[self.model.space.names]
        rows = rng.permutation(len(table))[:_MOST_ROWS]
        X = torch.from_numpy(self.model.space.encode(table.iloc[np.sort(rows)]))
        return self.wanted.region.within(X)[1]

    @torch.no_grad()
    def mean_loss(self, U: Tensor) -> Tensor:
        """Loss (n,) of the mean at points (n, f), infinite where a constraint does not hold."""
        mean = self.model.mean(self.wanted.region.codes(U))
        loss = self.wanted.objective.loss(mean[:, self._at(self.wanted.objective.output)])
        for constraint in self.wanted.constraints:
            for excess in constraint.excess(mean[:, self._at(constraint.output)]):
                loss = loss.masked_fill(excess > 0, torch.inf)
        return loss

    def _excesses(self) -> list[Callable[[Tensor], Tensor]]:
        """Each limit as a function of draws (..., m), positive where it does not hold."""
        found: list[Callable[[Tensor], Tensor]] = []
        for constraint in self.wanted.constraints:
            sides = len(constraint.excess(torch.zeros(())))
            at = self._at(constraint.output)
            for side in range(sides):
                found.append(partial(_excess, constraint, at, side))
        return found

    def _sampler(self, seed: int, U: Tensor) -> Any:
        from understudy.core.posterior import sampler_for

        with torch.no_grad():
            return sampler_for(self.posterior(U), _DRAWS, seed)

    @torch.no_grad()
    def feasible(self, U: Tensor, seed: int) -> Tensor:
        """Probability (n,) that all constraints hold at points (n, f), by draws."""
        if not self.wanted.constraints:
            return torch.ones(len(U), dtype=torch.float64)
        posterior = self.posterior(U.unsqueeze(1))
        draws = self._sampler(seed, U[:1].unsqueeze(1))(posterior).squeeze(2)
        held = torch.stack([excess(draws) <= 0 for excess in self._excesses()]).all(0)
        return held.to(torch.float64).mean(0)

    def worth(self, reference: float, pending: Tensor, seed: int) -> Callable[[Tensor], Tensor]:
        """What single points (b, 1, f) are worth, (b,)."""
        if self.wanted.strategy == "best":
            return self._soundness()
        from botorch.acquisition.logei import (
            qLogExpectedImprovement,
            qLogProbabilityOfFeasibility,
        )
        from botorch.acquisition.objective import GenericMCObjective

        from understudy.core.botorch_model import SurrogateModel

        objective, at = self.wanted.objective, self._at(self.wanted.objective.output)
        model = SurrogateModel(_OnCube(self))  # type: ignore[arg-type]
        shape = torch.full((1, 1, len(self.wanted.region.free)), 0.5, dtype=torch.float64)
        common = {
            "sampler": self._sampler(seed, shape),
            "X_pending": pending if len(pending) else None,
        }
        if not np.isfinite(reference):
            return qLogProbabilityOfFeasibility(model, constraints=self._excesses(), **common)
        return qLogExpectedImprovement(
            model,
            best_f=-reference,
            objective=GenericMCObjective(lambda Y, X=None: -objective.loss(Y[..., at])),
            constraints=self._excesses() or None,
            **common,
        )

    def _soundness(self) -> Callable[[Tensor], Tensor]:
        """Minus the loss of the mean, less what constraints lack of their probability."""
        at, span, z = self._at(self.wanted.objective.output), self._span, self._quantile

        def worth(U: Tensor) -> Tensor:
            posterior = self.posterior(U)
            mean, sd = posterior.mean[:, 0], posterior.variance[:, 0].clamp_min(0.0).sqrt()
            value = -self.wanted.objective.loss(mean[:, at])
            for constraint in self.wanted.constraints:
                k = self._at(constraint.output)
                for excess in constraint.excess(mean[:, k]):
                    lack = (excess + z * sd[:, k]).clamp_min(0.0) / span[k]
                    value = value - 100.0 * span[at] * lack
            return value

        return worth

    def polished(self, starts: Tensor, free: Tensor, worth: Callable[[Tensor], Tensor]) -> Tensor:
        """The best point (1, f) after descent from each start (k, f) along free coordinates.

        Where a constraint is active, the gradients of `worth` have a kink that stops a climb;
        sequential quadratic programming follows it.
        """
        moved = [self._descended(start, free) for start in starts] if bool(free.any()) else []
        candidates = torch.cat([starts, *moved])
        with torch.no_grad():
            value = worth(candidates.unsqueeze(1)).nan_to_num(nan=-torch.inf)
        return candidates[value.argmax()].unsqueeze(0)

    def _descended(self, start: Tensor, free: Tensor) -> Tensor:
        """Point (1, f) where scipy's SLSQP ends."""
        at = torch.nonzero(free)[:, 0]

        def part(k: int, u: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            x = torch.from_numpy(u.copy()).requires_grad_()
            value = self._loss_and_slack(start.index_put((at,), x))[k]
            (slope,) = torch.autograd.grad(value, x)
            return float(value.detach()), slope.numpy()

        with torch.no_grad():
            limits = len(self._loss_and_slack(start)) - 1
        constraints = [
            {
                "type": "ineq",
                "fun": lambda u, k=k: part(k, u)[0],
                "jac": lambda u, k=k: part(k, u)[1],
            }
            for k in range(1, limits + 1)
        ]
        end = minimize(
            lambda u: part(0, u),
            start[at].numpy(),
            jac=True,
            method="SLSQP",
            bounds=[(0.0, 1.0)] * len(at),
            constraints=constraints,
            options={"maxiter": 40, "ftol": 1e-9},
        )
        u = torch.from_numpy(np.clip(end.x, 0.0, 1.0))
        return start.index_put((at,), u).unsqueeze(0)

    def _loss_and_slack(self, point: Tensor) -> Tensor:
        """Loss, smooth at a target, and what each limit leaves, in spans of outputs, (1 + c,)."""
        posterior, span = self.posterior(point.unsqueeze(0)), self._span
        mean, sd = posterior.mean[0], posterior.variance[0].clamp_min(1e-30).sqrt()
        objective, at = self.wanted.objective, self._at(self.wanted.objective.output)
        loss = objective.loss(mean[at]) / span[at]
        values = [loss.square() if objective.direction == "target" else loss]
        for constraint in self.wanted.constraints:
            k = self._at(constraint.output)
            for excess in constraint.excess(mean[k]):
                values.append(-(excess + self._quantile * sd[k]) / span[k])
        return torch.stack(values)

    @property
    def _quantile(self) -> Tensor:
        """Standard deviations that a constraint must hold by, of `best`."""
        return torch.special.ndtri(torch.tensor(self.wanted.probability, dtype=torch.float64))

    @property
    def _span(self) -> Tensor:
        """Range of each output in the training table, (m,)."""
        table = self.model.training[list(self.model.targets)].to_numpy(dtype=np.float64)
        return torch.from_numpy(np.nanmax(table, 0) - np.nanmin(table, 0)).clamp_min(1e-12)


def _excess(constraint: Constraint, output: int, side: int, Y: Tensor) -> Tensor:
    return constraint.excess(Y[..., output])[side]


@dataclass(frozen=True)
class _OnCube:
    """The surrogate with points of the region's cube as its inputs, as a BoTorch model needs it."""

    beliefs: _Beliefs

    @property
    def n_outputs_(self) -> int:
        return len(self.beliefs.model.targets)

    def posterior(self, U: Tensor, observation_noise: bool = False) -> Any:
        return self.beliefs.posterior(U)
