r"""Training on data sets drawn from a prior: every batch is fresh, so nothing can be over-fitted.

The loss :math:`-\log q(y_i \mid x_i, D)` of a row that is asked about, given the others, is up to a
constant the divergence of the answer from the prior's exact posterior predictive (Müller et al.
2022, arXiv 2112.10510).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from understudy.core.bars import borders_of
from understudy.core.loop import Event, Settings, Trainer, cosine
from understudy.models.incontext.encoding import Encoding
from understudy.models.incontext.heads import Head
from understudy.models.incontext.task import Prior, TaskBatch
from understudy.nn.in_context import PFNTransformer
from understudy.nn.soap import SOAP

FARTHEST = 20.0
"""Outcomes beyond so many deviations of their context are taken as that far."""


@dataclass(frozen=True)
class Pretraining:
    """How long and how a network is trained on a prior.

    Parameters
    ----------
    steps : int
        Optimiser steps.
    batch : int
        Data sets a step.
    rows : int
        Rows of a data set, context and questions together.
    least_context, most_context : int
        Range of the context size n, drawn with weight 1 / (rows - n), which gives every n the same
        number of questions; ``most_context`` is rows - 1 where not given.
    uniform_context : bool
        Draw n evenly instead, as learning curves do.
    questions : int, optional
        Rows asked about at most: data sets are then drawn with n + ``questions`` rows, which costs
        less where few rows are read. All of the other rows by default.
    optimizer : {"adam", "soap"}
        SOAP (:class:`~understudy.nn.soap.SOAP`) needs fewer data sets; the papers have Adam.
    learning_rate, warmup, clip_norm : float
        The optimiser's rate, the share of the steps in which it rises, and the largest norm of a
        gradient.
    weight_decay : float
    seed : int
    device, precision : str
        As Lightning Fabric calls them, e.g. ``"cuda"`` and ``"bf16-mixed"``.
    compiled : bool
        Whether to compile the layers; pays on a GPU.
    checkpoint : Path, optional
        Where the state is kept, and taken up again if it is there.
    log_every : int
        Steps between lines of the log.
    max_seconds : float, optional
        Wall time at most; the learning rate has then fallen to 0 all the same.
    """

    steps: int
    batch: int = 64
    rows: int = 64
    least_context: int = 0
    most_context: int | None = None
    uniform_context: bool = False
    questions: int | None = None
    optimizer: Literal["adam", "soap"] = "adam"
    learning_rate: float = 3e-4
    warmup: float = 0.25
    clip_norm: float = 1.0
    weight_decay: float = 0.0
    seed: int = 0
    device: str = "cpu"
    precision: str = "32-true"
    compiled: bool = False
    checkpoint: Path | None = None
    log_every: int = 100
    max_seconds: float | None = None


@dataclass(frozen=True)
class Line:
    """One line of a training log: mean loss since the last, in nats a question."""

    step: int
    data_sets: int
    seconds: float
    loss: float


def sample_borders(
    prior: Prior, encoding: Encoding, plan: Pretraining, bars: int, data_sets: int = 2000
) -> Tensor:
    """Borders of bars of equal prior mass, for outcomes as the network reads them."""
    generator = torch.Generator().manual_seed(plan.seed + 1)
    outcomes = []
    for n in _contexts(plan, 20, generator):
        task = prior.sample(max(data_sets // 20, 1), plan.rows, generator)
        shift, scale = encoding.outcome_scale(task.y[:, :n])
        z = (task.target.double() - shift) / scale
        outcomes.append(z[:, n:].clamp(-FARTHEST, FARTHEST).reshape(-1))
    return borders_of(torch.cat(outcomes), bars).float()


def _contexts(plan: Pretraining, count: int, generator: torch.Generator) -> list[int]:
    most = plan.rows - 1 if plan.most_context is None else min(plan.most_context, plan.rows - 1)
    sizes = torch.arange(plan.least_context, most + 1)
    weights = torch.ones(len(sizes)) if plan.uniform_context else 1.0 / (plan.rows - sizes)
    drawn = torch.multinomial(weights, count, replacement=True, generator=generator)
    return [int(n) for n in sizes[drawn]]


def encoded(task: TaskBatch, context: int, encoding: Encoding) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, outcomes and targets as the network reads them, for a context of that size."""
    x = encoding.rows(task.x, task.used)
    shift, scale = encoding.outcome_scale(task.y[:, :context])
    y = (task.y - shift) / scale
    target = task.target[:, context:]
    if encoding.outcomes != "raw":
        target = ((target - shift) / scale).clamp(-FARTHEST, FARTHEST)
    return x, y.clamp(-FARTHEST, FARTHEST), target


def pretrain(
    network: PFNTransformer,
    prior: Prior,
    encoding: Encoding,
    head: Head,
    plan: Pretraining,
    on_line: Callable[[Line], None] | None = None,
) -> list[Line]:
    """Train a network in place and return the log.

    Every step's data sets follow from the seed and the step's number, so that a resumed run sees
    what it would have seen.

    Parameters
    ----------
    network : PFNTransformer
    prior : Prior
    encoding : Encoding
    head : Head
    plan : Pretraining
    on_line : callable (Line) -> None, optional
        Called with every line of the log.

    Returns
    -------
    list of Line
    """
    device = torch.device(plan.device)
    network.to(device).train()
    settings = Settings(
        max_steps=plan.steps,
        max_seconds=plan.max_seconds,
        schedule=cosine(warmup=plan.warmup),
        clip_norm=plan.clip_norm,
        checkpoint=plan.checkpoint,
        device=plan.device,
        precision=plan.precision,
    )
    with _compiled(network, plan.compiled):
        trainer = Trainer(network, _optimizer(network, plan), settings)
        if plan.checkpoint is not None and plan.checkpoint.exists():
            trainer.resume(plan.checkpoint)
        log = _Log(plan, on_line)

        def loss(step: int) -> Tensor:
            n, generator = step_draws(plan, step, device)
            rows = plan.rows if plan.questions is None else min(n + plan.questions, plan.rows)
            x, y, target = encoded(prior.sample(plan.batch, rows, generator), n, encoding)
            value = head.loss(trainer.model(x, y, n), target).mean()
            log.add(value.detach())
            return value

        trainer.run(loss, on_step=log.step)
        log.close(trainer.step, trainer.seconds)
    network.eval()
    return log.lines


def _optimizer(network: PFNTransformer, plan: Pretraining) -> Any:
    if plan.optimizer == "soap":
        return SOAP(
            network.parameters(),
            lr=plan.learning_rate,
            weight_decay=plan.weight_decay,
            largest_side=1024,
        )
    return torch.optim.AdamW(
        network.parameters(),
        lr=plan.learning_rate,
        weight_decay=plan.weight_decay,
        fused=True if plan.device == "cuda" else None,
    )


def step_draws(plan: Pretraining, step: int, device: torch.device) -> tuple[int, torch.Generator]:
    """Context size and generator of a step."""
    seed = (plan.seed * 1_000_003 + step) & 0x7FFFFFFFFFFF
    context = _contexts(plan, 1, torch.Generator().manual_seed(seed))[0]
    return context, torch.Generator(device).manual_seed(seed)


@contextmanager
def _compiled(network: PFNTransformer, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    plain: Any = network._through
    network._through = torch.compile(plain)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del network._through


class _Log:
    def __init__(self, plan: Pretraining, on_line: Callable[[Line], None] | None) -> None:
        self.plan, self.on_line, self.lines = plan, on_line, list[Line]()
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, loss: Tensor) -> None:
        self._sum = loss if self._sum is None else self._sum + loss
        self._count += 1

    def step(self, event: Event) -> None:
        if event.step % self.plan.log_every == 0:
            self.close(event.step, event.seconds)

    def close(self, step: int, seconds: float) -> None:
        """Write a line of what has come since the last one."""
        if self._sum is None:
            return
        mean = float(self._sum) / self._count
        line = Line(step, step * self.plan.batch, round(seconds, 1), mean)
        self.lines.append(line)
        self._sum, self._count = None, 0
        if self.on_line is not None:
            self.on_line(line)
