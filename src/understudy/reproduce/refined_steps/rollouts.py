"""Claims on steps and rollouts of pairs of models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scipy.stats import spearmanr

from understudy.core.field_metrics import (
    correlation_time,
    mean_correlation_time,
    reliable_horizon,
    spectrum_error,
)
from understudy.reproduce.claims import Claim
from understudy.reproduce.refined_steps.study import WEAK, Pair, Study, steps_of


def spectral(study: Study, pairs: Sequence[Pair]) -> Claim:
    """Errors of weak modes after one step."""
    weak = study.weak()
    ratios, told = {}, []
    for pair in pairs:
        plain, refined = (
            spectrum_error(*study.one_step(model, study.test), 1)
            for model in (pair.plain, pair.refiner)
        )
        ratios[pair.seed] = float(plain[weak].mean() / refined[weak].mean())
        told.append(f"{plain[weak].mean():.2g} to {refined[weak].mean():.2g}")
    return Claim.over_seeds(
        ratios,
        statement="Refinement gets the weak frequencies right that a squared error overlooks",
        paper_figure="spectra of one-step errors; their numbers are not at hand",
        metric=(
            f"error of the one-step model over PDE-Refiner's (K=3), mean amplitude over modes "
            f"{int(weak.nonzero()[0])} and beyond, whose own is below {WEAK:g} of the largest"
        ),
        bar=3.0,
        direction="at least",
        reason=f"errors {'; '.join(told)}; {study.spending()}",
    )


def horizon(study: Study, pairs: Sequence[Pair]) -> Claim:
    """Time for which rollouts are correlated with the truth."""
    ratios, told = {}, []
    for pair in pairs:
        horizons, errors = [], []
        for model in (pair.plain, pair.refiner):
            paths, true = study.rollouts(model, study.budget.test_runs)
            horizons.append(mean_correlation_time(paths[:, 0], true, study.dt))
            errors.append(study.error(model))
        ratios[pair.seed] = horizons[1] / max(horizons[0], study.dt)
        told.append(
            f"{horizons[0]:.1f} and {horizons[1]:.1f} s with squared one-step errors "
            f"{errors[0]:.2g} and {errors[1]:.2g} after {steps_of(pair.plain)} and "
            f"{steps_of(pair.refiner)} steps, smallest noise variance {pair.variance:.2g}"
        )
    return Claim.over_seeds(
        ratios,
        statement="Rollouts stay correlated with the truth for longer",
        paper_figure="K=3: 97.5 s, MSE-trained U-Net: 75 s (from memory), a ratio of 1.3",
        metric=(
            "time until the correlation, averaged over trajectories, falls below 0.8: PDE-Refiner "
            "(K=3) over the one-step model, at equal steps of training"
        ),
        bar=study.budget.horizon_bar,
        direction="at least",
        reason=f"one-step model and refiner: {'; '.join(told)}; {study.spending()}",
    )


def uncertainty(study: Study, pair: Pair) -> Iterator[Claim]:
    """Whether samples tell when a rollout ends being right."""
    spent = study.budget
    if study.left < 10.0:
        return
    paths, true = study.rollouts(
        pair.refiner, spent.sampled_runs, spent.samples, spent.sampled_times
    )
    estimated = reliable_horizon(paths, study.dt)
    each = correlation_time(
        paths.flatten(0, 1), true.repeat_interleave(spent.samples, dim=0), study.dt
    )
    actual = each.reshape(len(true), spent.samples).mean(1)
    constant = any(bool(times.max() - times.min() < 1e-9) for times in (estimated, actual))
    rank = 0.0 if constant else float(spearmanr(estimated.numpy(), actual.numpy()).statistic)
    means = f"means {float(estimated.mean()):.1f} and {float(actual.mean()):.1f} s"
    what = f"{spent.samples} samples of {spent.sampled_runs} test trajectories"
    yield Claim.over_seeds(
        {pair.seed: rank},
        statement="Samples part when a rollout cannot be believed any more",
        paper_figure="R^2 of 0.8 to 0.9 between both times (from memory)",
        metric=f"Spearman's correlation of estimated and true horizon, {what}",
        bar=0.5,
        direction="at least",
        reason=f"estimated and true horizon: {means}",
    )
    yield Claim.over_seeds(
        {pair.seed: float(estimated.mean()) / max(float(actual.mean()), study.dt)},
        statement="Samples part before the error is large",
        paper_figure="the estimate is at or below the true horizon (from memory)",
        metric=f"mean estimated over mean true horizon, {what}",
        bar=1.0,
        direction="at most",
        reason=f"estimated and true horizon: {means}",
    )
