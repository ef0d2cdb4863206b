"""Transformers and DeepONets, trained side by side on the same trajectories."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor, nn

from understudy.core.executor import executor
from understudy.core.expressions import ExpressionList
from understudy.core.field_metrics import relative_l2
from understudy.core.linalg import one_thread
from understudy.data.trajectories import TrajectorySet
from understudy.models.operators.equation_tokens import ExpressionTokenizer
from understudy.models.operators.prose import PROSE, PROSEPrediction
from understudy.models.operators.prose_network import PROSEArchitecture, Variant
from understudy.models.operators.prose_training import PROSETraining
from understudy.reproduce.equations.rivals import deeponet, fitted_deeponet
from understudy.reproduce.equations.setting import Forecast, Size, Task


@dataclass(frozen=True)
class Models:
    """Networks of one seed."""

    multimodal: PROSE
    no_text: PROSE


def new_network(size: Size, variant: Variant) -> PROSE:
    """Untrained transformer of a scale."""
    widest = max(family.dim for family in size.families)
    tokenizer = ExpressionTokenizer(widest)
    sizes = PROSEArchitecture(
        len(tokenizer), widest, size.width, size.heads, *size.layers, variant, size.max_tokens
    )
    return PROSE(tokenizer, sizes, units="trajectory")


@dataclass(frozen=True)
class Trained:
    """Networks by seed, and the seconds of processor time that each training took.

    Parameters
    ----------
    own : mapping of int to Models
    same_steps, same_time : mapping of int to Forecast
        DeepONets after as many steps as the transformer with symbols, and after as much time.
    seconds : mapping of str to float
        By kind of training, means over seeds.
    """

    own: dict[int, Models]
    same_steps: dict[int, Forecast]
    same_time: dict[int, Forecast]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Job:
    """A training, whose weights another process can send back.

    Parameters
    ----------
    variant : str, optional
        Of a transformer; of None a DeepONet is trained.
    """

    size: Size
    train: TrajectorySet
    seed: int
    steps: int
    variant: Variant | None

    def weights(self) -> tuple[dict[str, Tensor], float]:
        """Train on one thread; weights, and seconds of processor time."""
        start = time.process_time()
        with one_thread(self.size.device == "cpu"):
            torch.manual_seed(self.seed)
            network = self._network()
        return network.cpu().state_dict(), time.process_time() - start

    def _network(self) -> nn.Module:
        size = self.size
        if self.variant is None:
            return fitted_deeponet(size, self.train, self.seed, self.steps)
        plan = PROSETraining(
            steps=self.steps,
            batch_size=size.batch_size,
            learning_rate=size.learning_rate,
            warmup=size.warmup,
            decay=size.decay,
            optimizer=size.optimizer,
            start=size.start,
            query_points=size.query_points,
            seed=self.seed,
            device=size.device,
        )
        # two of three steps have the longer input, in either network
        long, short = size.given
        return new_network(size, self.variant).fit(self.train, (long, long, short), plan).network


def trained(size: Size, train: TrajectorySet, seeds: Sequence[int]) -> Trained:
    """Train transformers and DeepONets of all seeds, the longest trainings first."""
    some = seeds[: size.long_rivals]
    kinds: dict[str, tuple[Sequence[int], int, Variant | None]] = {
        "with symbols": (seeds, size.steps, "multimodal"),
        "long DeepONet": (some, size.steps * size.rival_steps, None),
        "without symbols": (seeds, size.steps, "no-text"),
        "DeepONet": (seeds, size.steps, None),
    }
    jobs = {
        (kind, seed): Job(size, train, seed, steps, variant)
        for kind, (its, steps, variant) in kinds.items()
        for seed in its
    }
    if size.workers == 1:
        found = [job.weights() for job in jobs.values()]
    else:
        with executor("local", size.workers) as pool:
            found = pool.map(Job.weights, list(jobs.values()))
    weights = {key: pair[0] for key, pair in zip(jobs, found, strict=True)}
    seconds = {key: pair[1] for key, pair in zip(jobs, found, strict=True)}

    def model(variant: Variant, its: Mapping[str, Tensor]) -> PROSE:
        restored = new_network(size, variant).prepared(train, size.given)
        restored.network.load_state_dict(its)
        return restored

    def rival(kind: str) -> dict[int, Forecast]:
        return {seed: deeponet(size, weights[kind, seed]) for seed in kinds[kind][0]}

    own = {
        seed: Models(
            model("multimodal", weights["with symbols", seed]),
            model("no-text", weights["without symbols", seed]),
        )
        for seed in seeds
    }
    means = {kind: fmean(seconds[kind, seed] for seed in its) for kind, (its, *_) in kinds.items()}
    return Trained(own, rival("DeepONet"), rival("long DeepONet"), means)


def forecast(
    model: PROSE,
    test: Task,
    given: int,
    noise: float = 0.02,
    guesses: Sequence[ExpressionList] | None = None,
    t: Tensor | None = None,
) -> Tensor:
    """Solutions at the times after the input, or at others, with the right guess or others."""
    data = test.at
    t = data.t[max(model.given) :] if t is None else t
    guesses = test.equations if guesses is None else guesses
    return model.forecast(data.t[:given], test.inputs(given, noise), guesses, t)


def mean_error(model: PROSE, test: Task, given: int, noise: float = 0.02) -> float:
    """Mean relative L2 error of the forecasts."""
    first = max(model.given)
    said = forecast(model, test, given, noise)
    return float(relative_l2(said, test.at.u[:, first:]).mean())


def answers(
    model: PROSE, test: Task, given: int, guesses: Sequence[ExpressionList] | None = None
) -> PROSEPrediction:
    """Solutions and equations."""
    t = test.at.t
    guesses = test.equations if guesses is None else guesses
    return model.predict(t[:given], test.inputs(given), guesses, t[max(model.given) :])
