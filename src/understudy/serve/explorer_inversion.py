r"""Which inputs give a value of an output: several different answers with their probability.

An answer x is judged by what the surrogate's predictive distribution promises there. With the
marginal probabilities :math:`p_0` that the output is within a tolerance of its target and
:math:`p_1 \dots p_c` that each constraint holds, all of them hold with probability at least

.. math:: P(x) = \max\bigl(0,\; 1 - \textstyle\sum_i (1 - p_i)\bigr)

(Bonferroni), however the outputs depend on one another. Far from any answer that is 0 everywhere,
so the search goes by :math:`P(x)` less the distance of the means from what is wanted, in ranges of
the outputs: a Sobol design and the runs, then rounds of smaller and smaller steps around the best
points that are far enough from one another to be different answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from understudy.core.warp import WarpedPredictive
from understudy.models.tabular.fitted import FittedSurrogate
from understudy.serve.optimum import Constraint, Region

_DESIGN = 2048
_CHILDREN = 512
_STEPS = (0.1, 0.04, 0.016, 0.006, 0.002)  # of the unit cube
_APART = 0.15  # root mean square distance of different answers, of the unit cube
_MOST_ROWS = 1000
_TOLERANCE = 0.02  # of the range of the runs


@dataclass(frozen=True)
class Aim:
    """What is looked for.

    Parameters
    ----------
    output : str
    target : float
    tolerance : float
        How far from the target still counts.
    constraints : tuple of Constraint
        Limits of outputs.
    region : Region
        Where to look.
    """

    output: str
    target: float
    tolerance: float
    constraints: tuple[Constraint, ...]
    region: Region

    @property
    def limits(self) -> list[tuple[str, float, float]]:
        """Output, lower and upper limit of everything that must hold."""
        wanted = (self.output, self.target - self.tolerance, self.target + self.tolerance)
        rest = [(c.output, _or(c.lower, -np.inf), _or(c.upper, np.inf)) for c in self.constraints]
        return [wanted, *rest]


@dataclass(frozen=True)
class Answer:
    """Inputs found.

    Parameters
    ----------
    codes : ndarray (d,)
    probability : float in [0, 1]
        At least this, that the output is within the tolerance and all constraints hold.
    reached : bool
        Whether the means are there.
    """

    codes: np.ndarray
    probability: float
    reached: bool


def usual_tolerance(model: FittedSurrogate, output: str) -> float:
    """2 % of the range of an output in the training table."""
    return _TOLERANCE * float(spans(model)[model.targets.index(output)])


def spans(model: FittedSurrogate) -> Tensor:
    """Range of each output in the training table, (m,)."""
    table = model.training[list(model.targets)].to_numpy(dtype=np.float64)
    return torch.from_numpy(np.nanmax(table, 0) - np.nanmin(table, 0)).clamp_min(1e-12)


def runs_within(model: FittedSurrogate, region: Region) -> Tensor:
    """Complete training rows within a region, as points (k, f) of its cube."""
    table = model.training[model.space.names].dropna()[:_MOST_ROWS]
    return region.within(torch.from_numpy(model.space.encode(table)))[1]


def invert(model: FittedSurrogate, aim: Aim, points: int, seed: int = 0) -> list[Answer]:
    """Find inputs that give what is aimed at, the most probable first.

    Parameters
    ----------
    model : FittedSurrogate
    aim : Aim
    points : int
        Answers at most; fewer where there are no more that differ.
    seed : int

    Returns
    -------
    list of Answer
        Those whose means reach the aim, or the one that comes nearest.
    """
    from understudy.search.bayesopt.cube import Cube

    rng = np.random.default_rng(seed)
    cube = Cube(aim.region.free)
    worth = _Worth(model, aim)
    design = cube.sobol(_DESIGN, int(rng.integers(2**31 - 1)))
    U = torch.cat([runs_within(model, aim.region), design])
    best = distinct(U, worth(U)[0], points)
    for step in _STEPS:
        parents = U[best]
        scale = torch.full((cube.dimension,), step, dtype=torch.float64)
        U = torch.cat([parents, cube.around(parents, _CHILDREN, scale, rng)])
        best = distinct(U, worth(U)[0], points)
    found = U[best]
    _, probability, reached = worth(found)
    kept = reached.nonzero()[:, 0] if bool(reached.any()) else torch.zeros(1, dtype=torch.long)
    codes = aim.region.codes(found).numpy()
    answers = [Answer(codes[k], float(probability[k]), bool(reached[k])) for k in kept.tolist()]
    return sorted(answers, key=lambda answer: -answer.probability)


def distinct(U: Tensor, worth: Tensor, points: int) -> Tensor:
    """Rows of points U (n, f), from the worthiest (n,) on, that differ from those before them."""
    order = worth.argsort(descending=True)
    sorted_, apart = U[order], _APART * U.shape[1] ** 0.5
    free = torch.ones(len(U), dtype=torch.bool)
    chosen: list[int] = []
    while len(chosen) < points and bool(free.any()):
        k = int(free.to(torch.uint8).argmax())
        chosen.append(k)
        free &= (sorted_ - sorted_[k]).norm(dim=1) >= apart
    return order[chosen]


@dataclass(frozen=True)
class _Worth:
    """What points U (n, f) of the region are worth, the bound P, whether the means are there."""

    model: FittedSurrogate
    aim: Aim

    @torch.no_grad()
    def __call__(self, U: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        believed = self.model.predictive(self.aim.region.codes(U).numpy())
        mean, span = believed.mean, spans(self.model)
        lack = torch.zeros(len(U), dtype=torch.float64)
        short, within = lack.clone(), torch.ones(len(U), dtype=torch.bool)
        for at, (output, lower, upper) in enumerate(self.aim.limits):
            j = self.model.targets.index(output)
            lack += 1.0 - _between(believed.output(j), lower, upper)
            m = mean[:, j]
            within &= (m >= lower) & (m <= upper)
            beyond = (m - self.aim.target).abs() if at == 0 else _excess(m, lower, upper)
            short += beyond / span[j]
        probability = (1.0 - lack).clamp_min(0.0)
        return probability - short, probability, within


def _between(believed: WarpedPredictive, lower: float, upper: float) -> Tensor:
    """Probability (n,) that one output lies between two limits."""
    ends = [torch.full((len(believed), 1), end, dtype=torch.float64) for end in (lower, upper)]
    below = [_cdf(believed, end) for end in ends]
    return (below[1] - below[0]).clamp(0.0, 1.0)


def _cdf(believed: WarpedPredictive, y: Tensor) -> Tensor:
    if bool(y.isinf().all()):
        return (y[:, 0] > 0).to(torch.float64)
    return believed.cdf(y)[:, 0]


def _excess(values: Tensor, lower: float, upper: float) -> Tensor:
    return (lower - values).clamp_min(0.0) + (values - upper).clamp_min(0.0)


def _or(limit: float | None, otherwise: float) -> float:
    return otherwise if limit is None else limit
