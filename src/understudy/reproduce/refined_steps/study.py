"""Pairs of models, trained alike, and what is measured on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from understudy.core.executor import executor
from understudy.core.field_metrics import spectrum
from understudy.core.linalg import one_thread
from understudy.core.loop import Event
from understudy.models.operators.captured import captured
from understudy.models.operators.network import build
from understudy.models.operators.one_step import LearnedStepper, OneStepModel
from understudy.models.operators.pde_refiner import PDERefiner, ScheduleName
from understudy.models.operators.training import Training
from understudy.reproduce.refined_steps.sizes import Budget
from understudy.reproduce.refined_steps.waves import (
    STRIDE,
    Trajectories,
    first,
    split,
    trajectories,
)

PAPER_VARIANCE = 4e-7
WEAK = 1e-3  # share of the largest amplitude below which a mode is weak
TEST_SEED = 1_000_000
HELD_OUT = 8  # runs beside those of training, on which errors are measured that settings follow

_SHARE = 0.38  # of the wall time, for each of the two long trainings
_SHORT = 15  # times shorter is an ablation
_TRIAL = 300  # steps by which the speed is measured


@dataclass
class Study:
    """Problem, budget and clock."""

    budget: Budget
    seeds: Sequence[int]
    device: torch.device
    train: Trajectories
    held_out: Trajectories
    test: Trajectories
    begun: float
    amplitude: Tensor
    milliseconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def start(cls, spent: Budget, seed: int) -> Study:
        """Solve the equation for training, for settings and for the test."""
        begun = time.perf_counter()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        whole = trajectories(spent, spent.runs + HELD_OUT, spent.times, 10_000 * seed, device)
        train, held_out = split(whole, STRIDE * spent.runs)
        fields, told = trajectories(
            spent, spent.test_runs, spent.test_times, TEST_SEED + 10_000 * seed, device
        )
        test = (fields[::STRIDE].cpu(), None if told is None else told[::STRIDE])
        amplitude = spectrum(test[0], 1).flatten(0, -2).mean(0)
        seeds = range(seed, seed + spent.seeds)
        study = cls(spent, seeds, device, train, held_out, test, begun, amplitude)
        if spent.seconds is not None:
            study.budget = study.timed(spent.seconds)
        return study

    def timed(self, seconds: float) -> Budget:
        """Budget of as many steps as fit, by the speed of some."""
        self.fit("refiner", seed=0, steps=_TRIAL)
        share = 1e3 * _SHARE * (seconds - (time.perf_counter() - self.begun))
        steps = max(int(share / max(self.milliseconds["refiner"], 1e-3)), 20)
        return replace(self.budget, steps=steps, short_steps=max(steps // _SHORT, 10))

    @property
    def dt(self) -> float:
        """Time in a step of a model, on average."""
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
                antithetic=spent.antithetic,
                first_guess=spent.first_guess,
                parameter_scaling="none",
            )
        plan = Training(
            steps=steps,
            batch_size=spent.batch_size,
            learning_rate=spent.learning_rate,
            optimizer=spent.optimizer,
            max_seconds=self._most(seconds),
            validate_every=steps,
            seed=seed,
            device=self.device.type,
        )
        fields, told = first(self.train, STRIDE * (runs or spent.runs))
        u = torch.zeros(spent.batch_size, shape["in_channels"], spent.points, device=self.device)
        p = torch.zeros(spent.batch_size, numbers + refined, device=self.device)
        clock = Clock(self.device, max(steps // 2, 1))
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

    def rollouts(
        self, model: LearnedStepper, runs: int, samples: int = 1, times: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Rollouts ``(runs, samples, T, 1, points)`` and the truth ``(runs, T, 1, points)``.

        They end after so many outputs of the solver, if not with the test.
        """
        fields, told = first(self.test, runs)
        fields = fields if times is None else fields[:, : times // STRIDE]
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
class Clock:
    """Times steps, and keeps a device from falling behind unseen."""

    device: torch.device
    most: int
    marks: list[tuple[int, float]] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Note the time now and then."""
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
class Pair:
    """The two models of a seed."""

    seed: int
    plain: LearnedStepper
    refiner: LearnedStepper
    variance: float
    milliseconds: dict[str, float]

    @classmethod
    def train(cls, study: Study, seed: int) -> Pair:
        """Train the one-step model, and PDE-Refiner from its error on, for as many steps."""
        steps = study.budget.steps
        plain = study.fit("one-step", seed, steps, seconds=0.45 * study.left)
        variance = matched_variance(plain)
        refiner = study.fit(
            "refiner", seed, steps_of(plain), variance=variance, seconds=study.left - 40.0
        )
        return cls(seed, plain, refiner, variance, study.milliseconds)


def matched_variance(plain: LearnedStepper) -> float:
    """Smallest noise variance that suits a trained one-step model's error, at least the paper's."""
    assert plain.outcome is not None and plain.outcome.score is not None
    return min(max(float(plain.outcome.score) / 4.0, PAPER_VARIANCE), 0.1)


def made(tasks: Sequence[Callable[[], Any]], workers: int) -> Iterator[Any]:
    """Results of tasks in their order, made when asked for unless there are several workers."""
    if workers == 1:
        return (task() for task in tasks)
    with executor("local", workers) as pool:
        return iter(list(pool.map(_do, tasks)))


def _do(task: Callable[[], Any]) -> Any:
    with one_thread():
        return task()


def steps_of(model: LearnedStepper) -> int:
    """Steps for which a model was trained."""
    return 0 if model.outcome is None else model.outcome.steps
