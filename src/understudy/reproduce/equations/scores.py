"""How wrong forecasts and equations are, and equations by least squares to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor, nn

from understudy.core.expressions import ExpressionList, evaluate_each
from understudy.core.field_metrics import relative_l2
from understudy.models.operators.prose import PROSEPrediction
from understudy.reproduce.equations.regression import fitted_numbers, smoothed, tree_forecast
from understudy.reproduce.equations.setting import Size, Task, by_tree

WINDOWS = (5, 7, 9)
"""Of smoothing before slopes are taken."""


def typical(size: Size, test: Task) -> list[ExpressionList]:
    """The right tree with mean parameters, of each trajectory."""
    mean = {family.skeleton: family.mean_equation for family in size.families}
    return [mean[test.at.skeletons[k]] for k in test.at.which.tolist()]


def _same_tree(written: ExpressionList | None, true: ExpressionList) -> bool:
    return written is not None and written.skeleton == true.skeleton


def right_trees(said: PROSEPrediction, test: Task) -> float:
    """Share of equations whose tree is the true one."""
    pairs = zip(said.expression, test.equations, strict=True)
    return fmean(_same_tree(a, b) for a, b in pairs)


def expression_errors(written: Sequence[ExpressionList | None], test: Task) -> Tensor:
    """Relative error of right-hand sides on 50 points of [-5, 5]^d, NaN without an equation."""
    generator = torch.Generator().manual_seed(3)
    d = test.at.u.shape[2]
    points = 10.0 * torch.rand(50, d, generator=generator, dtype=torch.float64) - 5.0
    true = test.equations
    some = [t if w is None or w.dim != t.dim else w for w, t in zip(written, true, strict=True)]
    said = evaluate_each(some, points)
    error = relative_l2(said, evaluate_each(true, points))
    missing = torch.tensor(
        [w is None or w.dim != t.dim for w, t in zip(written, true, strict=True)]
    )
    return torch.where(missing | ~torch.isfinite(error), torch.nan, error)


def forecast_errors(said: PROSEPrediction, test: Task) -> Tensor:
    """Relative L2 errors of solutions over the last times, (N,)."""
    assert said.u is not None
    return relative_l2(said.u, test.at.u[:, -said.u.shape[1] :])


def finite_errors(said: Tensor, true: Tensor) -> Tensor:
    """Errors, of a forecast that diverged the error of saying nothing: one."""
    errors = relative_l2(said.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).to(true), true)
    lost = ~torch.isfinite(said).flatten(1).all(1)
    return torch.where(lost, 1.0, errors.clamp_max(10.0))


def least_squares(test: Task, given: int) -> list[ExpressionList]:
    """The right trees with numbers by least squares on smoothed slopes.

    The window of smoothing is the best for each tree, told by the truth, in favour of the method.
    """
    t, u = test.at.t[:given], test.inputs(given)
    found: dict[int, ExpressionList] = {}
    for tree, rows in by_tree(test):
        some = Task(test.at[rows], test.between[rows])
        tries: list[tuple[float, list[ExpressionList]]] = []
        for window in WINDOWS:
            states, slopes = smoothed(t, u[rows, :, : tree.dim], window)
            numbers = fitted_numbers(tree, states, slopes).tolist()
            equations = [tree.with_numbers(row) for row in numbers]
            tries.append((float(expression_errors(equations, some).nanmean()), equations))
        best = min(tries, key=lambda pair: pair[0])[1]
        found |= dict(zip(rows.tolist(), best, strict=True))
    return [found[i] for i in range(len(found))]


def solution_errors(equations: Sequence[ExpressionList | None], test: Task, given: int) -> Tensor:
    """Forecast errors of solving equations from the last smoothed sample on, tree by tree."""
    u, data = test.inputs(given), test.at
    out = torch.full((len(data), len(data.t) - given, data.u.shape[2]), torch.nan)
    rows: dict[ExpressionList, list[int]] = {}
    for i, equation in enumerate(equations):
        if equation is not None and equation.dim <= data.u.shape[2]:
            rows.setdefault(equation.skeleton, []).append(i)
    for tree, some in rows.items():
        written = (equations[i] for i in some)
        numbers = torch.tensor([e.numbers for e in written if e is not None])
        start = u[some][..., : tree.dim]
        said = tree_forecast(tree, numbers, data.t[:given], start, data.t[given:])
        out[some] = nn.functional.pad(said, (0, data.u.shape[2] - tree.dim)).float()
    return finite_errors(out, data.u[:, given:])
