r"""Claims of PDE-Refiner (Lippe et al. 2023, arXiv 2308.05732), on Kuramoto-Sivashinsky waves.

A one-step model and PDE-Refiner share network, data, optimiser and the number of steps.
At ``paper`` scale fields have 256 points, lengths and time steps vary as in the paper, and the
network is its U-Net; at ``cpu`` scale the length is 32, with 64 points, and the network a small
dilated one. Both step by four outputs of the solver, about 0.8. The smallest noise variance is a
quarter of the one-step model's squared error in units of the increments, and at least the paper's
4e-7: what is trained for a shorter time errs more, and its chain has to start from there.

At ``paper`` scale ``UNDERSTUDY_SECONDS`` bounds the wall time: both models are then trained for as
many steps as fit, with a U-Net of 4.6 instead of 54 million parameters. The time that is left goes
to the ablations.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.field_metrics import (
    correlation_time,
    mean_correlation_time,
    reliable_horizon,
    spectrum,
    spectrum_error,
)
from understudy.core.loop import Event
from understudy.models.operators.captured import captured
from understudy.models.operators.network import build
from understudy.models.operators.one_step import LearnedStepper, OneStepModel
from understudy.models.operators.pde_refiner import PDERefiner, ScheduleName, full_precision
from understudy.models.operators.training import Training
from understudy.reproduce.claims import Claim, Scale
from understudy.simulate.pde.kuramoto_sivashinsky import KuramotoSivashinsky

PAPER_VARIANCE = 4e-7
STRIDE = 4  # outputs of the solver in a step of a model
WEAK = 1e-3  # share of the largest amplitude below which a mode is weak
TEST_SEED = 1_000_000
HELD_OUT = 8  # runs beside those of training, on which errors are measured that settings follow

Trajectories = tuple[Tensor, Tensor | None]
"""Fields ``(N, T, 1, n)`` and parameters ``(N, P)``."""


@dataclass(frozen=True)
class _Budget:
    """What a scale spends; times count outputs of the solver."""

    seeds: int
    points: int
    length: tuple[float, float]
    interval: tuple[float, float]
    transient: int
    runs: int
    times: int
    test_runs: int
    test_times: int
    network: str
    settings: dict[str, Any]
    steps: int
    short_steps: int
    batch_size: int
    learning_rate: float
    samples: int
    sampled_runs: int
    horizon_bar: float
    seconds: float | None = None


_CPU = _Budget(
    seeds=3,
    points=64,
    length=(32.0, 32.0),
    interval=(0.2, 0.2),
    transient=360,
    runs=256,
    times=200,
    test_runs=64,
    test_times=320,
    network="dilated",
    settings={"channels": 40, "blocks": 7},
    steps=1200,
    short_steps=400,
    batch_size=32,
    learning_rate=1e-3,
    samples=16,
    sampled_runs=32,
    horizon_bar=0.75,
)
_SMOKE = replace(
    _CPU,
    seeds=2,
    points=32,
    length=(22.0, 22.0),
    transient=40,
    runs=12,
    times=24,
    test_runs=6,
    test_times=24,
    settings={"channels": 4, "blocks": 1},
    steps=6,
    short_steps=3,
    batch_size=8,
    samples=3,
    sampled_runs=6,
)
_PAPER = _Budget(
    seeds=1,
    points=256,
    length=(57.6, 70.4),
    interval=(0.18, 0.22),
    transient=360,
    runs=2048,
    times=140,
    test_runs=128,
    test_times=640,
    network="unet",
    settings={"hidden": 64, "multipliers": [1, 2, 2, 4]},
    steps=220_000,
    short_steps=55_000,
    batch_size=128,
    learning_rate=1e-4,
    samples=32,
    sampled_runs=64,
    horizon_bar=1.1,
)
_TIMED = replace(
    _PAPER,
    settings={"hidden": 32, "multipliers": [1, 2, 2, 2]},
    learning_rate=5e-4,
    samples=16,
)
_SHARE = 0.38  # of the wall time, for each of the two long trainings
_SHORT = 15  # times shorter is an ablation
_TRIAL = 300  # steps by which the speed is measured


def run(scale: Scale, seed: int = 0) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``smoke`` shows that the path runs; ``paper`` is meant for a GPU.
    seed : int
        Of the first repetition; the others follow it.
    """
    return list(measure(budget(scale), seed))


def budget(scale: Scale) -> _Budget:
    """What is spent at a scale, the wall time that the environment allows included."""
    if scale is Scale.SMOKE:
        return _SMOKE
    if scale is Scale.CPU:
        return _CPU
    given = os.environ.get("UNDERSTUDY_SECONDS")
    if given is None:
        return _PAPER
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not seconds >= 20.0:
        raise UserError(f"UNDERSTUDY_SECONDS must be a number of at least 20, found {given!r}")
    return replace(_TIMED, seconds=seconds)


def measure(spent: _Budget, seed: int = 0) -> Iterator[Claim]:
    """Claims one after the other, the headline first; ablations for which no time is left are not.

    Parameters
    ----------
    spent : budget
        See :func:`budget`.
    seed : int
    """
    with full_precision():
        study = _Study.start(spent, seed)
        pairs = [_Pair.train(study, s) for s in study.seeds]
        yield _spectral(study, pairs)
        yield _horizon(study, pairs)
        yield from _uncertainty(study, pairs[0])
        yield from _ablation(study)
        yield from _efficiency(study)


# -- data and training ----------------------------------------------------------------------------


def trajectories(
    spent: _Budget, runs: int, times: int, first_seed: int, device: torch.device
) -> Trajectories:
    """Fields at the steps of a model, ``(runs * STRIDE, times // STRIDE, 1, n)``, on the device.

    Each run gives a trajectory for each output with which it can begin. Parameters are the time
    step and the spacing, scaled to 0 to 10 as in the official code; none where neither varies.
    """
    low = torch.tensor([spent.length[0], spent.interval[0]], dtype=torch.float64)
    high = torch.tensor([spent.length[1], spent.interval[1]], dtype=torch.float64)
    generator = torch.Generator().manual_seed(first_seed)
    drawn = low + (high - low) * torch.rand(runs, 2, generator=generator, dtype=torch.float64)
    seeds = first_seed + torch.arange(runs, dtype=torch.float64)
    codes = torch.stack((drawn[:, 0], drawn[:, 1], torch.ones_like(seeds), seeds), dim=1)
    with torch.device(device):
        solver = KuramotoSivashinsky(spent.points, times - 1, spent.transient)
        fields = solver.fields(codes.to(device))
    whole = fields[:, : times // STRIDE * STRIDE].unflatten(1, (-1, STRIDE))
    fields = whole.transpose(1, 2).flatten(0, 1)
    if spent.length[0] == spent.length[1]:
        return fields, None
    told = torch.stack((drawn[:, 1] - 0.15, drawn[:, 0] / spent.points - 0.2), dim=1) * 100.0
    return fields, told.float().repeat_interleave(STRIDE, dim=0)


def _split(data: Trajectories, count: int) -> tuple[Trajectories, Trajectories]:
    fields, told = data
    if told is None:
        return (fields[:count], None), (fields[count:], None)
    return (fields[:count], told[:count]), (fields[count:], told[count:])


def _first(data: Trajectories, count: int) -> Trajectories:
    return _split(data, count)[0]


@dataclass
class _Study:
    """Problem, budget and clock."""

    budget: _Budget
    seeds: Sequence[int]
    device: torch.device
    train: Trajectories
    held_out: Trajectories
    test: Trajectories
    begun: float
    amplitude: Tensor
    milliseconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def start(cls, spent: _Budget, seed: int) -> _Study:
        begun = time.perf_counter()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        whole = trajectories(spent, spent.runs + HELD_OUT, spent.times, 10_000 * seed, device)
        train, held_out = _split(whole, STRIDE * spent.runs)
        fields, told = trajectories(
            spent, spent.test_runs, spent.test_times, TEST_SEED + 10_000 * seed, device
        )
        test = (fields[::STRIDE].cpu(), None if told is None else told[::STRIDE])
        amplitude = spectrum(test[0], 1).flatten(0, -2).mean(0)
        seeds = range(seed, seed + spent.seeds)
        study = cls(spent, seeds, device, train, held_out, test, begun, amplitude)
        if spent.seconds is not None:
            study.budget = study._timed(spent.seconds)
        return study

    def _timed(self, seconds: float) -> _Budget:
        """Budget of as many steps as fit, by the speed of some."""
        self.fit("refiner", seed=0, steps=_TRIAL)
        share = 1e3 * _SHARE * (seconds - (time.perf_counter() - self.begun))
        steps = max(int(share / max(self.milliseconds["refiner"], 1e-3)), 20)
        return replace(self.budget, steps=steps, short_steps=max(steps // _SHORT, 10))

    @property
    def dt(self) -> float:
        return STRIDE * sum(self.budget.interval) / 2.0

    @property
    def left(self) -> float:
        """Seconds that may still be spent."""
        if self.budget.seconds is None:
            return float("inf")
        return self.budget.seconds - (time.perf_counter() - self.begun)

    def fit(
        self,
        kind: str,
        seed: int,
        steps: int,
        runs: int | None = None,
        refinements: int = 3,
        variance: float = PAPER_VARIANCE,
        schedule: ScheduleName = "geometric",
        seconds: float | None = None,
    ) -> LearnedStepper:
        """One-step model or refiner of some steps of training, on the first runs if not all."""
        spent, told = self.budget, self.train[1]
        numbers = 0 if told is None else told.shape[1]
        refined = kind == "refiner"
        shape = {"in_channels": 2 if refined else 1, "out_channels": 1}
        layout = {**spent.settings, **shape, "num_params": numbers + refined}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build({"kind": spent.network, "settings": layout})
        network.to(self.device)
        model: LearnedStepper = OneStepModel(network, parameter_scaling="none")
        if refined:
            model = PDERefiner(
                network,
                num_refinement_steps=refinements,
                min_noise_variance=variance,
                schedule=schedule,
                parameter_scaling="none",
            )
        plan = Training(
            steps=steps,
            batch_size=spent.batch_size,
            learning_rate=spent.learning_rate,
            max_seconds=self._most(seconds),
            validate_every=steps,
            seed=seed,
            device=self.device.type,
        )
        fields, told = _first(self.train, STRIDE * (runs or spent.runs))
        u = torch.zeros(spent.batch_size, shape["in_channels"], spent.points, device=self.device)
        p = torch.zeros(spent.batch_size, numbers + refined, device=self.device)
        clock = _Clock(self.device, max(steps // 2, 1))
        with captured(network, u, p if numbers + refined else None):
            model.fit(
                fields,
                told,
                dt=self.dt,
                validation=self.held_out,
                training=plan,
                listener=clock,
            )
        self.milliseconds[kind] = clock.milliseconds
        return model

    def _most(self, seconds: float | None) -> float | None:
        """Seconds that a training may take: as many as are given, or all but some."""
        if self.budget.seconds is None:
            return None
        return max(self.left - 15.0 if seconds is None else seconds, 1.0)

    def one_step(self, model: LearnedStepper, data: Trajectories) -> tuple[Tensor, Tensor]:
        """Predicted and true fields ``(n, 1, points)`` after one step, 10 from each trajectory."""
        fields, told = data
        chosen = torch.linspace(0, fields.shape[1] - 2, min(10, fields.shape[1] - 1)).long()
        before, after = (fields[:, c].flatten(0, 1).cpu() for c in (chosen, chosen + 1))
        known = None if told is None else told.repeat_interleave(len(chosen), dim=0)
        return model.step(before, known), after

    def error(self, model: LearnedStepper, data: Trajectories | None = None) -> float:
        """Mean squared error of one step."""
        predicted, true = self.one_step(model, data or self.test)
        return float((predicted - true).square().mean())

    def rollouts(self, model: LearnedStepper, runs: int, samples: int = 1) -> tuple[Tensor, Tensor]:
        """Rollouts ``(runs, samples, T, 1, points)`` and the truth ``(runs, T, 1, points)``."""
        fields, told = _first(self.test, runs)
        paths = model.rollout(fields[:, 0], fields.shape[1] - 1, told, samples)
        return paths[:, :, 1:], fields[:, 1:]

    def weak(self) -> Tensor:
        """Which modes ``(K,)`` are weak: beyond the largest one and below a share of it."""
        modes = torch.arange(len(self.amplitude))
        found = (modes > self.amplitude.argmax()) & (
            self.amplitude < WEAK * float(self.amplitude.max())
        )
        return found if bool(found.any()) else modes == modes[-1]

    def spending(self) -> str:
        """What was spent, for the reasons of claims."""
        spent = self.budget
        layout = ", ".join(f"{name} {value}" for name, value in spent.settings.items())
        return (
            f"{spent.steps} steps of batch {spent.batch_size} of a {spent.network} network with "
            f"{layout}, {self.milliseconds['refiner']:.3g} ms a step; the paper trains some 220,000"
        )


@dataclass
class _Clock:
    """Times steps, and keeps a device from falling behind unseen."""

    device: torch.device
    most: int
    marks: list[tuple[int, float]] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        if event.step % min(50, self.most) and event.step > 1:
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.marks.append((event.step, time.perf_counter()))

    @property
    def milliseconds(self) -> float:
        """Time of a step, the first ones left out where there are others."""
        (first, begun), (last, ended) = self.marks[min(1, len(self.marks) - 2)], self.marks[-1]
        return 1e3 * (ended - begun) / max(last - first, 1)


@dataclass(frozen=True)
class _Pair:
    """The two models of a seed."""

    seed: int
    plain: LearnedStepper
    refiner: LearnedStepper
    variance: float

    @classmethod
    def train(cls, study: _Study, seed: int) -> _Pair:
        steps = study.budget.steps
        plain = study.fit("one-step", seed, steps, seconds=0.45 * study.left)
        variance = matched_variance(plain)
        refiner = study.fit(
            "refiner", seed, _steps(plain), variance=variance, seconds=study.left - 40.0
        )
        return cls(seed, plain, refiner, variance)


def matched_variance(plain: LearnedStepper) -> float:
    """Smallest noise variance that suits a trained one-step model's error, at least the paper's."""
    assert plain.outcome is not None and plain.outcome.score is not None
    return min(max(float(plain.outcome.score) / 4.0, PAPER_VARIANCE), 0.1)


def _steps(model: LearnedStepper) -> int:
    return 0 if model.outcome is None else model.outcome.steps


# -- claims ---------------------------------------------------------------------------------------


def _spectral(study: _Study, pairs: Sequence[_Pair]) -> Claim:
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


def _horizon(study: _Study, pairs: Sequence[_Pair]) -> Claim:
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
            f"{errors[0]:.2g} and {errors[1]:.2g} after {_steps(pair.plain)} and "
            f"{_steps(pair.refiner)} steps, smallest noise variance {pair.variance:.2g}"
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


def _uncertainty(study: _Study, pair: _Pair) -> Iterator[Claim]:
    spent = study.budget
    if study.left < 10.0:
        return
    paths, true = study.rollouts(pair.refiner, spent.sampled_runs, spent.samples)
    estimated = reliable_horizon(paths, study.dt)
    each = correlation_time(
        paths.flatten(0, 1), true.repeat_interleave(spent.samples, dim=0), study.dt
    )
    actual = each.reshape(len(true), spent.samples).mean(1)
    constant = float(estimated.std()) == 0.0 or float(actual.std()) == 0.0
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


def _ablation(study: _Study) -> Iterator[Claim]:
    """How many levels, and how they are spaced, at the floor that suits these short trainings."""
    seed, steps = study.seeds[0], study.budget.short_steps
    if not _time_for(study, 6):
        return
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
    yield Claim.over_seeds(
        {seed: cosine / errors[3]},
        statement="A schedule of diffusion models with as few steps is clearly worse",
        paper_figure="standard diffusion ends at about 89 s, K=3 at 97.5 s (from memory)",
        metric="squared one-step error with the cosine over that with the geometric schedule, K=3",
        bar=1.5,
        direction="at least",
        reason=told,
    )
    yield Claim.over_seeds(
        {seed: errors[4] / errors[1]},
        statement="More refinements help, at the same smallest noise",
        paper_figure="K = 1, 2, 3, 4, 8: 90, 94, 97.5, 98, 98 s (from memory)",
        metric="squared one-step error at K=4 over that at K=1",
        bar=1.0,
        direction="at most",
        reason=told,
    )


def _efficiency(study: _Study) -> Iterator[Claim]:
    seed, spent = study.seeds[0], study.budget
    if not _time_for(study, 2):
        return
    runs = max(spent.runs // 10, 1)
    plain = study.fit("one-step", seed, spent.short_steps, runs)
    refiner = study.fit("refiner", seed, spent.short_steps, runs, variance=matched_variance(plain))
    seen = _first(study.train, STRIDE * runs)
    gaps, told = [], []
    for model in (plain, refiner):
        test, train = study.error(model), study.error(model, seen)
        gaps.append(test / train)
        told.append(f"{train:.2g} in training and {test:.2g} in test")
    yield Claim.over_seeds(
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


def _time_for(study: _Study, trainings: int) -> bool:
    """Whether so many short trainings still fit."""
    slowest = max(study.milliseconds.values())
    return study.left > 10.0 + trainings * (1e-3 * slowest * study.budget.short_steps + 3.0)
