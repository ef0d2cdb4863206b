"""Online and offline training with as many updates, on a virtual clock, and what each comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from scipy.stats import t as student
from torch import Tensor, nn

from understudy.core.loop import Settings, Trainer, shuffled_batches
from understudy.reproduce.online.networks import Problem
from understudy.reproduce.online.setting import Budget
from understudy.simulate.stream import (
    Batch,
    Buffer,
    OnlineReport,
    OnlineSettings,
    OnlineTrainer,
    ParameterSampler,
    ReservoirBuffer,
    Sample,
    UniformSampler,
    VirtualClock,
    halving,
)
from understudy.simulate.stream.losses import SampleLoss

Choice = tuple[float, float]
"""Learning rate and weight decay."""

GRID = ((1e-3, 0.0), (3e-3, 0.0), (3e-3, 1e-4))
"""Learning rates and weight decays of which online and offline training each take their best.

The official script has 1e-3 and 1e-4. What a decay does depends on the scale of the loss: with
fields scaled to [0, 1], 1e-4 bounds what a network can reach more than the runs do.
"""

USUAL: Choice = (1e-3, 0.0)
"""Where nothing is chosen."""

VALIDATION_SEED = 20_000
"""Of the runs that judge; it and those below are apart from the seeds of the studies."""

_OFFLINE_SEED, _TUNING_SEED = 10_000, 1000


@dataclass(frozen=True)
class Gains:
    """How much less online training errs than offline training.

    Parameters
    ----------
    gains : dict of int to float
        Fall of the error by seed.
    said : str
        The errors, the choices, and the interval of the mean.
    """

    gains: dict[int, float]
    said: str


def contest(problem: Problem, spent: Budget, validation: int, seed: int) -> Gains:
    """Online against offline training of several seeds, each at its best of `GRID`.

    Parameters
    ----------
    problem : Problem
    spent : Budget
    validation : int
        Runs that judge.
    seed : int
        Of the first repetition; choices are made on a seed apart.
    """
    fixed = problem.fixed(validation, VALIDATION_SEED)
    tuning = seed + _TUNING_SEED
    data = problem.fixed(spent.offline, _OFFLINE_SEED + tuning)
    tried_offline = {c: train_offline(problem, spent, c, tuning, data, fixed) for c in GRID}
    tried_online = {c: train_online(problem, spent, c, tuning, fixed).best for c in GRID}
    offline_choice = min(GRID, key=tried_offline.__getitem__)
    online_choice = min(GRID, key=tried_online.__getitem__)
    offline: list[float] = []
    online: list[float] = []
    for own in range(seed, seed + spent.seeds):
        data = problem.fixed(spent.offline, _OFFLINE_SEED + own)
        offline.append(train_offline(problem, spent, offline_choice, own, data, fixed))
        online.append(train_online(problem, spent, online_choice, own, fixed).best)
    gains = [1.0 - new / old for new, old in zip(online, offline, strict=True)]
    said = (
        f"mean errors {fmean(online):.3g} online, {fmean(offline):.3g} offline; learning rate and "
        f"weight decay {_said(online_choice)} and {_said(offline_choice)}, chosen on a seed apart"
        f"{_interval(gains)}"
    )
    return Gains(dict(zip(range(seed, seed + spent.seeds), gains, strict=True)), said)


def _said(choice: Choice) -> str:
    return f"{choice[0]:g}, {choice[1]:g}"


def _interval(values: list[float]) -> str:
    """95 % interval of the mean, by Student's t."""
    if len(values) < 2:
        return ""
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return f"; 95 % interval {fmean(values) - half:.3f} to {fmean(values) + half:.3f}"


def train_offline(
    problem: Problem, spent: Budget, choice: Choice, seed: int, data: Batch, fixed: Batch
) -> float:
    """Best validation of training for many epochs on stored runs.

    Parameters
    ----------
    problem : Problem
    spent : Budget
    choice : (float, float)
    seed : int
        Of the network and of the order of samples.
    data, fixed : Batch
        Samples to train on, and to judge by.
    """
    network = problem.made(seed)
    schedule = _schedule(spent.updates)
    settings = Settings(
        max_steps=spent.updates,
        schedule=lambda progress: schedule(round(progress * spent.updates)),
        validate_every=max(spent.updates // 6, 1),
    )
    batch = shuffled_batches(len(data), spent.batch, seed)
    outcome = Trainer(network, optimizer_of(network, choice), settings).run(
        lambda step: problem.loss(network, data[batch(step)]).mean(),
        lambda: _score(problem, network, fixed),
    )
    assert outcome.score is not None
    return float(outcome.score)


@torch.no_grad()
def _score(problem: Problem, network: nn.Module, fixed: Batch) -> Tensor:
    parts = [problem.loss(network, part).double() for part in fixed.chunks(1024)]
    return torch.cat(parts).mean()


def train_online(
    problem: Problem,
    spent: Budget,
    choice: Choice,
    seed: int,
    fixed: Batch,
    buffer: Buffer[Sample] | None = None,
    runs_per_job: int = 10,
    sampler: ParameterSampler | None = None,
    network: nn.Module | None = None,
) -> OnlineReport:
    """Train while runs stream, on a clock where runs and updates end together.

    Parameters
    ----------
    problem : Problem
    spent : Budget
    choice : (float, float)
    seed : int
        Of the network, of the buffer and of the parameters, where these are not given.
    fixed : Batch
        Samples to judge by.
    buffer : Buffer, optional
        A reservoir with room for the runs of offline training unless given.
    runs_per_job : int
        Runs that are solved together.
    sampler : ParameterSampler, optional
        Uniform unless given.
    network : Module, optional
        Untrained; trained in place.
    """
    if buffer is None:
        capacity = spent.offline * problem.samples
        buffer = ReservoirBuffer(capacity, capacity // 5, seed)
    network = problem.made(seed) if network is None else network
    clock = VirtualClock(spent.updates / (spent.online * problem.frames))
    return OnlineTrainer(
        network,
        problem.solver,
        UniformSampler(problem.solver.space, seed) if sampler is None else sampler,
        buffer,
        optimizer_of(network, choice),
        loss=problem.loss,
        max_simulations=spent.online,
        settings=OnlineSettings(
            batch_size=spent.batch,
            windows=problem.windows,
            max_batches=spent.updates,
            schedule=_schedule(spent.updates),
            validate_every=max(spent.updates // 6, 1),
            runs_per_job=runs_per_job,
            clock=clock,
        ),
    ).run(fixed)


def optimizer_of(network: nn.Module, choice: Choice) -> torch.optim.Optimizer:
    """Adam with a learning rate and a weight decay."""
    return torch.optim.Adam(network.parameters(), lr=choice[0], weight_decay=choice[1])


def _schedule(updates: int) -> Callable[[int], float]:
    """Five halvings, as those of the heat study in proportion."""
    every = max(updates // 6, 1)
    return halving(every, 5 * every)


@torch.no_grad()
def errors_by_run(loss: SampleLoss, network: nn.Module, fixed: Batch) -> Tensor:
    """Mean loss of each run (runs,)."""
    each = torch.cat([loss(network, part).double() for part in fixed.chunks(4096)])
    runs = int(fixed.runs.max()) + 1
    total = torch.zeros(runs, dtype=torch.float64).index_add_(0, fixed.runs, each)
    return total / torch.bincount(fixed.runs, minlength=runs)
