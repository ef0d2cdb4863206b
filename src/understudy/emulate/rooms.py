"""Train an operator of the sound in a room, and test it on sources that it has not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.linalg import one_thread
from understudy.core.loop import Event
from understudy.data.rooms import Array
from understudy.data.sound import PulseResponses
from understudy.emulate.room_file import SoundProblem
from understudy.emulate.run import Facts, Listener, Moment
from understudy.models.operators.sound import SoundOperator, SoundTraining
from understudy.simulate.acoustics import RoomAcoustics

HELD, TEST = 16, 16
"""Sources at random places that choose the weights, and that test them."""

_LEAST_SOURCES = 4
_MOST_NUMBERS = 2**29
_TOGETHER = 16  # sources that are solved side by side
_STEPS, _DECAYS = 10**9, 35.0  # the budget ends it; the learning rate falls to 0.9^35 of itself
_TELL_EVERY = 0.25  # seconds
_NARROW = 256  # width up to which threads would wait for one another where others compute


@dataclass(frozen=True)
class RoomEmulation:
    """A trained sound operator and how it was found to be.

    Attributes
    ----------
    operator : SoundOperator
    scores : dict of str to float
        On `TEST` unseen sources, over all points and times, in Pa: ``rmse`` of the operator,
        ``nearest_rmse`` of the recording of the nearest source of training, ``rms`` of the sound
        itself; ``relative_error``, the first over the last.
    facts : dict
        Sources, points and times of training, steps, seconds, whether it was interrupted, and
        ``cut``, the pressure in Pa that a pulse may have at a wall already.
    """

    operator: SoundOperator
    scores: dict[str, float]
    facts: Facts


@dataclass(frozen=True)
class RoomRecordings:
    """Runs of the solver in a room, of which an operator is made.

    Attributes
    ----------
    problem : SoundProblem
    train, held, test : PulseResponses
        From sources on a lattice, and from `HELD` and `TEST` sources at random places.
    """

    problem: SoundProblem
    train: PulseResponses
    held: PulseResponses
    test: PulseResponses


def room_recordings(
    problem: SoundProblem, seed: int = 0, listener: Callable[[int, int], None] | None = None
) -> RoomRecordings:
    """Solve the wave equation for sources on a lattice, and for some at random places.

    Parameters
    ----------
    problem : SoundProblem
    seed : int
        Of the random places.
    listener : callable (done, total), optional
        Told of sources that were solved.

    Raises
    ------
    UserError
        If too few sources fit into the region, or recordings would not fit into memory.
    """
    acoustics = problem.acoustics()
    sources = problem.sources(acoustics.pulse.wavelength)
    places = np.concatenate([sources, _scattered(problem, HELD + TEST, seed)])
    _check_size(len(sources), acoustics, len(places))
    whole, number = _solved(acoustics, places, listener), torch.arange(len(places))
    return RoomRecordings(
        problem,
        train=whole.select(number[: len(sources)]),
        held=whole.select(number[len(sources) : -TEST]),
        test=whole.select(number[-TEST:]),
    )


def emulate_room(
    recordings: RoomRecordings,
    budget: float = 300.0,
    *,
    seed: int = 0,
    device: str = "cpu",
    listener: Listener | None = None,
) -> RoomEmulation:
    """Train an operator of the sound in a room, and test it.

    Training is by SOAP, which is ahead of the paper's AdamW in short runs.

    Parameters
    ----------
    recordings : RoomRecordings
    budget : float
        Seconds of training.
    seed : int
        Of the weights and the batches.
    device : {"cpu", "cuda"}
    listener : callable (Moment), optional
        Told of training; a KeyboardInterrupt in it ends training and keeps the best.
    """
    problem, data = recordings.problem, recordings.train
    last = [-_TELL_EVERY]

    def tell(event: Event) -> None:
        if listener is not None and event.seconds >= last[0] + _TELL_EVERY:
            last[0] = event.seconds
            listener(_moment(event, budget))

    plan = SoundTraining(
        steps=_STEPS,
        points=1000,
        learning_rate=2e-2,
        decay_steps=_STEPS / _DECAYS,
        validate_every=25,
        seed=seed,
        device=device,
        optimizer="soap",
        max_seconds=budget,
        interrupt="return",
    )
    region = None if problem.region is None else np.asarray(problem.region)
    with one_thread(device == "cpu" and problem.settings.width <= _NARROW):
        operator = SoundOperator(problem.settings).fit(data, recordings.held, plan, tell, region)
        scores = _scores(operator, recordings)
    outcome = operator.outcome
    assert outcome is not None
    walls = (data.pulse.at_walls(data.room, (x, y)) for x, y in data.sources.tolist())
    facts: Facts = {
        "sources": len(data),
        "points": len(data.points),
        "times": len(data.times),
        "weights": operator.weights,
        "steps": outcome.steps,
        "seconds": outcome.seconds,
        "interrupted": outcome.reason == "interrupt",
        "cut": max(walls),
    }
    return RoomEmulation(operator, scores, facts)


def _solved(
    acoustics: RoomAcoustics, places: Array, listener: Callable[[int, int], None] | None
) -> PulseResponses:
    parts = []
    for start in range(0, len(places), _TOGETHER):
        parts.append(acoustics.solve(places[start : start + _TOGETHER]))
        if listener is not None:
            listener(min(start + _TOGETHER, len(places)), len(places))
    first = parts[0]
    return PulseResponses(
        room=first.room,
        pulse=first.pulse,
        sources=torch.cat([part.sources for part in parts]),
        points=first.points,
        times=first.times,
        pressure=torch.cat([part.pressure for part in parts]),
    )


def _scores(operator: SoundOperator, recordings: RoomRecordings) -> dict[str, float]:
    data, test = recordings.train, recordings.test
    near = data.pressure[torch.cdist(test.sources, data.sources).argmin(1)]
    rmse = _rms(operator.pressure(test.sources, test.points) - test.pressure)
    rms = _rms(test.pressure)
    return {
        "rmse": rmse,
        "nearest_rmse": _rms(near - test.pressure),
        "rms": rms,
        "relative_error": rmse / rms,
    }


def _rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def _scattered(problem: SoundProblem, count: int, seed: int) -> Array:
    """Places ``(count, 2)`` at random where sources may be."""
    room, draw = problem.room, np.random.default_rng(seed + 7919)
    low, high = problem.region or room.bounds
    at = draw.uniform(low, high, (1000 * count, 2))
    chosen: Array = at[room.clearance(at) >= problem.padding][:count]
    if len(chosen) < count:
        raise UserError(
            f"hardly any place of the room is {problem.padding:g} m from walls, and in the box of "
            "sources; use a smaller padding or another box"
        )
    return chosen


def _check_size(sources: int, acoustics: RoomAcoustics, places: int) -> None:
    if sources < _LEAST_SOURCES:
        raise UserError(
            f"{sources} sources fit into the room, at least {_LEAST_SOURCES} are needed; use a "
            "smaller spacing or padding"
        )
    numbers = places * (acoustics.steps + 1) * len(acoustics.mesh.nodes)
    if numbers > _MOST_NUMBERS:
        raise UserError(
            f"{places:,} sources at {len(acoustics.mesh.nodes):,} points and "
            f"{acoustics.steps + 1:,} times are {numbers:.2g} numbers, at most "
            f"{_MOST_NUMBERS:.2g} are kept; use a larger spacing of sources, or a smaller f_max "
            "or duration"
        )


def _moment(event: Event, budget: float) -> Moment:
    score = None if event.score is None else float(event.score.mean()) ** 0.5
    return Moment("train", event.seconds, budget, event.step, score)
