"""How good an operator is on runs that it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from understudy.core.field_metrics import (
    correlation,
    first_below,
    nrmse,
    relative_l2,
    reliable_horizon,
    spectrum,
)
from understudy.core.operator import Operator, Stepper
from understudy.emulate.fields import FieldSet

THRESHOLD = 0.8
SAMPLES = 8
_EXAMPLES = 3
_MOST_PAIRS = 256


@dataclass(frozen=True)
class RolloutEvaluation:
    """A :class:`Stepper` on M runs of T steps.

    Attributes
    ----------
    one_step : float
        Mean relative error of a single step from true fields.
    nrmse, persistence : Tensor (T,)
        Normalised error at each step, and that of a field that stays as it was.
    correlation : Tensor (T,)
        Mean over runs.
    horizon : Tensor (M,)
        Time until the correlation falls below 0.8.
    believed : Tensor (M,), optional
        Time until rollouts of the same run disagree, where the operator has such.
    rank_correlation : float, optional
        Spearman's, of horizon and believed.
    spectrum_true, spectrum_predicted : Tensor (K,)
        Mean amplitude at the last step.
    end : float
        T dt, beyond which no horizon can be seen.
    true, predicted : Tensor (E, T + 1, C, *space)
        A few runs.
    """

    one_step: float
    nrmse: Tensor
    persistence: Tensor
    correlation: Tensor
    horizon: Tensor
    believed: Tensor | None
    rank_correlation: float | None
    spectrum_true: Tensor
    spectrum_predicted: Tensor
    end: float
    true: Tensor
    predicted: Tensor

    def scores(self) -> dict[str, Any]:
        """Figures to print."""
        record: dict[str, Any] = {
            "test_runs": len(self.horizon),
            "steps": len(self.nrmse),
            "one_step_error": self.one_step,
            "rollout_nrmse": float(self.nrmse.mean()),
            "persistence_nrmse": float(self.persistence.mean()),
            "horizon_mean": float(self.horizon.mean()),
            "horizon_least": float(self.horizon.min()),
            "rollout_time": self.end,
        }
        if self.believed is not None:
            record["believed_horizon_mean"] = float(self.believed.mean())
            record["horizon_rank_correlation"] = self.rank_correlation
        return record


@dataclass(frozen=True)
class MapEvaluation:
    """An operator of steady problems on M runs.

    Attributes
    ----------
    errors : Tensor (M,)
        Relative errors.
    mean_field : float
        Mean relative error of the training runs' mean field.
    given, true, predicted : Tensor (E, C, *space)
        A few runs: median, worst and best.
    """

    errors: Tensor
    mean_field: float
    given: Tensor
    true: Tensor
    predicted: Tensor

    def scores(self) -> dict[str, Any]:
        """Figures to print."""
        return {
            "test_runs": len(self.errors),
            "relative_error": float(self.errors.mean()),
            "relative_error_median": float(self.errors.median()),
            "relative_error_worst": float(self.errors.max()),
            "mean_field_error": self.mean_field,
        }


Evaluation = RolloutEvaluation | MapEvaluation


def evaluate(operator: Operator, test: FieldSet, train: FieldSet, seed: int = 0) -> Evaluation:
    """Score an operator on the runs of `test`."""
    if isinstance(operator, Stepper):
        return _rollouts(operator, test, seed)
    return _maps(operator, test, train)


def _rollouts(operator: Stepper, test: FieldSet, seed: int) -> RolloutEvaluation:
    history, numbers = operator.history, test.numbers
    start = test.fields[:, 0] if history == 1 else test.fields[:, :history]
    true = test.fields[:, history:]
    steps, dims = true.shape[1], len(test.grid.shape)
    count = SAMPLES if operator.stochastic else 1
    paths = operator.rollout(start, steps, numbers, samples=count, seed=seed)[:, :, 1:]
    path = torch.where(paths[:, 0].isfinite(), paths[:, 0], 1e6)
    alike = torch.nan_to_num(correlation(path.double(), true.double()), nan=-1.0)
    horizon = first_below(alike, test.dt, THRESHOLD)
    believed = ranks = None
    if operator.stochastic:
        believed = reliable_horizon(paths.double(), test.dt, THRESHOLD)
        ranks = _spearman(horizon, believed)
    stays = test.fields[:, history - 1 : history].expand_as(true)
    shown = min(_EXAMPLES, len(test))
    before = test.fields[:shown, history - 1 : history]
    return RolloutEvaluation(
        one_step=_one_step(operator, test),
        nrmse=nrmse(path, true).clamp(max=1e6).mean((0, 2)),
        persistence=nrmse(stays, true).mean((0, 2)),
        correlation=alike.mean(0),
        horizon=horizon,
        believed=believed,
        rank_correlation=ranks,
        spectrum_true=spectrum(true[:, -1], dims).flatten(0, 1).mean(0),
        spectrum_predicted=spectrum(path[:, -1], dims).flatten(0, 1).mean(0),
        end=steps * test.dt,
        true=torch.cat([before, true[:shown]], dim=1),
        predicted=torch.cat([before, path[:shown]], dim=1),
    )


def _one_step(operator: Stepper, test: FieldSet) -> float:
    """Mean relative error of a step over pairs drawn evenly from all runs and times."""
    history, numbers = operator.history, test.numbers
    starts = test.fields.shape[1] - history
    pairs = torch.cartesian_prod(torch.arange(len(test)), torch.arange(starts))
    pairs = pairs[:: max(1, len(pairs) // _MOST_PAIRS)]
    rows, times = pairs.T
    past = test.fields[rows[:, None], times[:, None] + torch.arange(history)]
    p = None if numbers is None else numbers[rows]
    ahead = operator.step(past[:, 0] if history == 1 else past, p)
    return float(relative_l2(ahead, test.fields[rows, times + history]).mean())


def _maps(operator: Operator, test: FieldSet, train: FieldSet) -> MapEvaluation:
    assert test.given is not None
    true = test.fields[:, 0]
    predicted = operator.predict(test.given, test.numbers)
    errors = relative_l2(predicted, true)
    mean = train.fields[:, 0].mean(0).expand_as(true)
    order = errors.argsort()
    shown = torch.stack([order[len(order) // 2], order[-1], order[0]])
    return MapEvaluation(
        errors,
        float(relative_l2(mean, true).mean()),
        test.given[shown],
        true[shown],
        predicted[shown],
    )


def _spearman(a: Tensor, b: Tensor) -> float | None:
    """Rank correlation; None where one of both does not vary."""
    from scipy.stats import spearmanr

    if len(a) < 3 or len(a.unique()) < 2 or len(b.unique()) < 2:
        return None
    return float(spearmanr(a.numpy(), b.numpy()).statistic)
