"""Claims on shorter trainings: levels, schedules and fewer data."""

from __future__ import annotations

from understudy.reproduce.claims import Claim
from understudy.reproduce.refined_steps.study import Study, matched_variance
from understudy.reproduce.refined_steps.waves import STRIDE, first


def ablation(study: Study) -> list[Claim]:
    """How many levels, and how they are spaced, at the floor that suits these short trainings."""
    seed, steps = study.seeds[0], study.budget.short_steps
    if not _time_for(study, 6):
        return []
    variance = matched_variance(study.fit("one-step", seed, steps))
    errors = {
        K: study.error(study.fit("refiner", seed, steps, refinements=K, variance=variance))
        for K in (1, 2, 3, 4)
    }
    cosine = study.error(study.fit("refiner", seed, steps, variance=variance, schedule="cosine"))
    listed = ", ".join(f"K={K} {error:.2g}" for K, error in errors.items())
    told = (
        f"one-step squared errors by K: {listed}; cosine {cosine:.2g}; smallest noise variance "
        f"{variance:.2g}, {steps} steps each"
    )
    schedules = Claim.over_seeds(
        {seed: cosine / errors[3]},
        statement="A schedule of diffusion models with as few steps is clearly worse",
        paper_figure="standard diffusion ends at about 89 s, K=3 at 97.5 s (from memory)",
        metric="squared one-step error with the cosine over that with the geometric schedule, K=3",
        bar=1.5,
        direction="at least",
        reason=told,
    )
    levels = Claim.over_seeds(
        {seed: errors[4] / errors[1]},
        statement="More refinements help, at the same smallest noise",
        paper_figure="K = 1, 2, 3, 4, 8: 90, 94, 97.5, 98, 98 s (from memory)",
        metric="squared one-step error at K=4 over that at K=1",
        bar=1.0,
        direction="at most",
        reason=told,
    )
    return [schedules, levels]


def efficiency(study: Study) -> list[Claim]:
    """How much worse a few trajectories in training make the test."""
    seed, spent = study.seeds[0], study.budget
    if not _time_for(study, 2):
        return []
    runs = max(spent.runs // 10, 1)
    plain = study.fit("one-step", seed, spent.short_steps, runs)
    refiner = study.fit("refiner", seed, spent.short_steps, runs, variance=matched_variance(plain))
    seen = first(study.train, STRIDE * runs)
    gaps, told = [], []
    for model in (plain, refiner):
        test, train = study.error(model), study.error(model, seen)
        gaps.append(test / train)
        told.append(f"{train:.2g} in training and {test:.2g} in test")
    claim = Claim.over_seeds(
        {seed: gaps[1] / gaps[0]},
        statement="PDE-Refiner needs fewer data",
        paper_figure="with 10 % of the data it is as good as the U-Net with all (from memory)",
        metric=(
            "squared one-step error in test over that in training, PDE-Refiner's ratio over the "
            f"one-step model's, {runs} trajectories"
        ),
        bar=1.0,
        direction="at most",
        reason=f"one-step model {told[0]}, refiner {told[1]}; {spent.short_steps} steps each",
    )
    return [claim]


def _time_for(study: Study, trainings: int) -> bool:
    """Whether so many short trainings still fit."""
    slowest = max(study.milliseconds.values(), default=0.0)
    return study.left > 10.0 + trainings * (1e-3 * slowest * study.budget.short_steps + 3.0)
