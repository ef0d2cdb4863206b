"""Train an operator on fields within a time, and check it on runs that it has not seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from understudy.core.loop import Event
from understudy.core.operator import Operator, Stepper
from understudy.emulate.evaluation import Evaluation, RolloutEvaluation, evaluate
from understudy.emulate.fields import FieldSet
from understudy.emulate.recipes import chosen, recipe
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.one_step import LearnedStepper
from understudy.models.operators.training import Training

BATCH, BATCH_OF_MAPS = 32, 8
_TELL_EVERY, _GLANCE_EVERY = 0.25, 10.0  # seconds
_GLANCE_STEPS = 24
_VALIDATE_EVERY = 25


@dataclass(frozen=True)
class Moment:
    """What a running emulation says of itself.

    ``stage`` is one of train, test, done; ``facts`` hold what else is known, such as the occupancy
    of a buffer; ``picture`` is a validation run, true and predicted so far, ``(2, T, n)``.
    """

    stage: str
    elapsed: float
    budget: float
    step: int = 0
    score: float | None = None
    samples_per_second: float = 0.0
    facts: dict[str, float] = field(default_factory=dict)
    picture: Tensor | None = None


Facts = dict[str, float | int | str | bool]

Listener = Callable[[Moment], None]
"""Is told of moments; raising KeyboardInterrupt in it ends training and keeps the best."""


@dataclass(frozen=True)
class Emulation:
    """A trained operator and how it was found to be.

    Attributes
    ----------
    model : str
        Its name.
    operator : Operator
    evaluation : Evaluation
    curve : list of (seconds, score)
        Validation score over time.
    facts : dict
        Rows of training, steps, seconds and so on.
    """

    model: str
    operator: Operator
    evaluation: Evaluation
    curve: list[tuple[float, float]]
    facts: Facts


def emulate(
    data: FieldSet,
    model: str = "auto",
    budget: float = 600.0,
    *,
    seed: int = 0,
    device: str = "cpu",
    batch_size: int | None = None,
    learning_rate: float = 1e-3,
    listener: Listener | None = None,
) -> Emulation:
    """Train an operator on stored fields.

    Parameters
    ----------
    data : FieldSet
        Of which a fifth, at most 64 runs, is kept for the test and a tenth for validation.
    model : str
        See :mod:`understudy.emulate.recipes`.
    budget : float
        Seconds of training.
    seed : int
    device : {"cpu", "cuda"}
    batch_size : int, optional
        32 trajectories' steps, or 8 fields of a steady problem, unless given.
    learning_rate : float
    listener : callable, optional

    Returns
    -------
    Emulation
    """
    torch.manual_seed(seed)
    name = chosen(model, data)
    return emulate_with(
        recipe(name, data),
        name,
        data,
        budget,
        seed=seed,
        device=device,
        batch_size=batch_size,
        learning_rate=learning_rate,
        listener=listener,
    )


def emulate_with(
    operator: Operator,
    name: str,
    data: FieldSet,
    budget: float,
    *,
    seed: int = 0,
    device: str = "cpu",
    batch_size: int | None = None,
    learning_rate: float = 1e-3,
    listener: Listener | None = None,
) -> Emulation:
    """Train an operator that is made already; the other arguments are those of `emulate`."""
    train, held, test = data.split(seed)
    size = batch_size or (BATCH_OF_MAPS if data.steady else BATCH)
    plan = Training(
        steps=10**9,
        batch_size=min(size, len(train)) if data.steady else size,
        learning_rate=learning_rate,
        max_seconds=budget,
        validate_every=_VALIDATE_EVERY,
        seed=seed,
        device=device,
    )
    track = Track(budget, plan.batch_size, listener, glance(operator, held))
    _fit(operator, train, held, plan, track)
    outcome = operator.outcome  # type: ignore[attr-defined]
    facts: Facts = {
        "train_runs": len(train),
        "dropped_runs": data.dropped,
        "steps": outcome.steps,
        "seconds": outcome.seconds,
        "interrupted": outcome.reason == "interrupt",
    }
    return tested(operator, name, test, train, track, facts, seed)


def tested(
    operator: Operator,
    name: str,
    test: FieldSet,
    train: FieldSet,
    track: Track,
    facts: Facts,
    seed: int,
) -> Emulation:
    """Score a trained operator on runs of its own, and let it remember how wrong rollouts are."""
    track.tell("test")
    found = evaluate(operator, test, train, seed)
    if isinstance(operator, LearnedStepper) and isinstance(found, RolloutEvaluation):
        operator.test_errors = tuple(found.nrmse.tolist())
    network = operator.network  # type: ignore[attr-defined]
    weights = sum(p.numel() for p in network.parameters())
    track.tell("done")
    return Emulation(name, operator, found, track.curve, {**facts, "weights": weights})


def _fit(operator: Operator, train: FieldSet, held: FieldSet, plan: Training, track: Track) -> None:
    if isinstance(operator, Stepper):
        assert isinstance(operator, LearnedStepper)
        operator.fit(
            train.fields,
            train.numbers,
            validation=(held.fields, held.numbers),
            training=plan,
            listener=track,
            **train.about,
        )
        return
    assert isinstance(operator, FieldMap)
    assert train.given is not None and held.given is not None
    operator.fit(
        train.given,
        train.fields[:, 0],
        train.numbers,
        grid=train.grid,
        inputs=train.given_channels,
        outputs=train.channels,
        parameters=train.about["parameters"],
        validation=(held.given, held.fields[:, 0], held.numbers),
        training=plan,
        listener=track,
    )


class Track:
    """Follows training: keeps the curve, tells the listener a few times a second.

    Parameters
    ----------
    budget : float
        Seconds.
    batch : int
        Samples a step.
    listener : callable, optional
    glance : callable () -> Tensor (2, T, n), optional
        Picture of the present state, asked for every ten seconds.
    """

    def __init__(
        self,
        budget: float,
        batch: int,
        listener: Listener | None,
        glance: Callable[[], Tensor] | None = None,
    ) -> None:
        self.budget, self.batch, self.listener, self.glance = budget, batch, listener, glance
        self.curve: list[tuple[float, float]] = []
        self.step, self.elapsed = 0, 0.0
        self.score: float | None = None
        self._told, self._glanced = 0.0, time.monotonic()
        self._picture: Tensor | None = None
        self._noted = 0

    def tell(self, stage: str) -> None:
        """Let the listener know of the end of training and what follows it."""
        if self.listener is not None:
            self.listener(Moment(stage, self.elapsed, self.budget, self.step, self.score))

    def __call__(self, event: Event, **facts: float) -> None:
        """Take note of a step."""
        self.step, self.elapsed = event.step, event.seconds
        if event.score is not None and event.step >= self._noted + _VALIDATE_EVERY:
            self.score, self._noted = float(event.score), event.step
            self.curve.append((event.seconds, self.score))
        now = time.monotonic()
        if self.listener is None or now - self._told < _TELL_EVERY:
            return
        self._told = now
        if self.glance is not None and now - self._glanced > _GLANCE_EVERY:
            self._picture, self._glanced = self.glance(), time.monotonic()
        rate = event.step * self.batch / max(event.seconds, 1e-9)
        moment = Moment(
            *("train", event.seconds, self.budget, event.step, self.score, rate),
            *(dict(facts), self._picture),
        )
        self.listener(moment)


def glance(operator: Operator, held: FieldSet) -> Callable[[], Tensor] | None:
    """Give the picture of a validation run in one dimension, by the present weights."""
    if not isinstance(operator, LearnedStepper) or len(held.grid.shape) > 1:
        return None
    run = held[torch.tensor([0])]
    steps = min(_GLANCE_STEPS, run.fields.shape[1] - operator.history)
    start = run.fields[:, : operator.history]
    true = run.fields[0, operator.history - 1 :, 0][: steps + 1]

    def look() -> Tensor:
        operator.network.eval()
        path = operator.rollout(start, steps, run.numbers)[0, 0, :, 0]
        operator.network.train()
        return torch.stack([true, path])

    return look
