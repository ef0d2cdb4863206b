r"""Networks that obey an equation: the base of all of them, and how they are trained.

A subclass names its coordinates, builds its fields as jets (hard conditions included) and returns
residuals; the rest is here. With E seeds, E independent networks are trained in one pass.
Training is Adam over batches of collocation points, then L-BFGS over all of them
(arXiv 2312.17329).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.core.loop import Event, Settings, Trainer
from understudy.core.progress import Listener, Progress
from understudy.models.physics.jet import Jet
from understudy.models.physics.lbfgs import lbfgs
from understudy.models.physics.residuals import (
    AnnealedWeights,
    Batch,
    Collocation,
    FixedWeights,
    Sampler,
    SelfAdaptiveWeights,
    Term,
)
from understudy.nn.soap import SOAP


@dataclass(frozen=True)
class Training:
    """How a network is made to obey.

    Parameters
    ----------
    adam_steps : int
        30,000 in the paper: 3,000 epochs of 10 batches.
    lbfgs_steps : int
        10,000 in the paper.
    rate, last_rate : float
        Learning rate of Adam for its first half; then it falls exponentially.
    points : mapping of str to int
        Collocation points of each set; 1280 for a set that is not named.
    batches : int
        In which Adam takes them.
    fresh : bool
        Whether Adam draws new points each step.
    grow_time : bool
        Whether times are squeezed at first, and stretched to their range by half of Adam's steps.
    weights : {"fixed", "annealed", "self-adaptive"}
        See `understudy.models.physics.residuals`.
    groups : mapping of str to float or Tensor (E,)
        Factors of the groups, the same for all networks or one each.
    memory : int
        Of L-BFGS.
    optimizer : {"adam", "soap"}
        Of the first phase; see `understudy.nn.soap`.
    """

    adam_steps: int = 30_000
    lbfgs_steps: int = 10_000
    rate: float = 1e-3
    last_rate: float = 1e-4
    points: Mapping[str, int] = field(default_factory=dict)
    batches: int = 10
    fresh: bool = False
    grow_time: bool = False
    weights: Literal["fixed", "annealed", "self-adaptive"] = "fixed"
    groups: Mapping[str, float | Tensor] = field(default_factory=dict)
    memory: int = 50
    optimizer: Literal["adam", "soap"] = "adam"

    def __post_init__(self) -> None:
        if self.adam_steps < 0 or self.lbfgs_steps < 0 or self.adam_steps + self.lbfgs_steps == 0:
            raise UserError("training needs at least one step")
        if self.fresh and self.weights == "self-adaptive":
            raise UserError("self-adaptive weights belong to fixed points; set fresh=False")

    def schedule(self, progress: float) -> float:
        """Factor of the learning rate: 1, then exponential to the last one."""
        return (self.last_rate / self.rate) ** max(0.0, 2.0 * progress - 1.0)

    def weighting(self) -> FixedWeights:
        """The weights it names."""
        if self.weights == "annealed":
            return AnnealedWeights(self.groups, rate=0.9 / self.batches)
        if self.weights == "self-adaptive":
            return SelfAdaptiveWeights(self.groups, start=50 * self.batches)
        return FixedWeights(self.groups)


@dataclass(frozen=True)
class History:
    """What training did.

    Parameters
    ----------
    losses : Tensor (records, E)
    steps : tuple of int
        At which they were recorded; those of L-BFGS count on from those of Adam.
    seconds : float
        CPU time.
    """

    losses: Tensor
    steps: tuple[int, ...]
    seconds: float


class PINN(nn.Module):
    """E networks that obey one equation.

    A subclass calls ``super().__init__(names, seeds)``, makes its networks, and writes
    `samplers` and `terms`.

    Parameters
    ----------
    names : sequence of str
        Coordinates, in the order of the columns of points.
    seeds : sequence of int
        One for each network.
    """

    def __init__(self, names: Sequence[str], seeds: Sequence[int] = (0,)) -> None:
        super().__init__()
        self.names = tuple(names)
        self.seeds = tuple(int(seed) for seed in seeds)
        if not self.seeds:
            raise UserError("at least one seed is needed, one for each network")
        self.history: History | None = None

    def samplers(self) -> Mapping[str, Sampler]:
        """Sets of collocation points by name."""
        raise NotImplementedError

    def terms(self, batch: Batch) -> list[Term]:
        """Residuals at collocation points (E, n, d) by set; of data too, if there are any."""
        raise NotImplementedError

    def fit(self, training: Training | None = None, listener: Listener | None = None) -> History:
        """Train, going on from the present weights.

        Parameters
        ----------
        training : Training, optional
        listener : callable, optional
            Receives `Progress` about once in a hundredth of the steps.

        Raises
        ------
        UserError
            If the loss is not finite at the start.
        """
        training = training or Training()
        self.requires_grad_(True)
        parent = getattr(self, "parent", None)
        if isinstance(parent, nn.Module):
            frozen(parent)
        begin, records = time.process_time(), list[tuple[int, Tensor]]()
        points = {name: training.points.get(name, 1280) for name in self.samplers()}
        grow = self.names.index("time") if training.grow_time else None
        where = Collocation(
            *(self.samplers(), points, self.seeds, training.batches, training.fresh, grow),
            device=next(self.parameters()).device,
        )
        weighting = training.weighting()
        if isinstance(weighting, SelfAdaptiveWeights):
            weighting.prepare(self.terms(where.whole()))
        note = _Notes(training, records, listener)
        if training.adam_steps:
            self._adam(training, where, weighting, note)
        if training.lbfgs_steps:
            whole = where.whole()
            lbfgs(
                [p for p in self.parameters() if p.requires_grad],
                lambda: weighting.loss(self.terms(whole), whole),
                training.lbfgs_steps,
                training.memory,
                on_step=lambda step, losses: note(training.adam_steps + step + 1, losses),
            )
        for p in self.parameters():
            p.grad = None
        self.history = History(
            torch.stack([losses for _, losses in records]),
            tuple(step for step, _ in records),
            time.process_time() - begin,
        )
        return self.history

    def _adam(
        self, training: Training, where: Collocation, weighting: FixedWeights, note: _Notes
    ) -> None:
        mine = [p for p in self.parameters() if p.requires_grad]
        groups = [{"params": mine, "lr": training.rate}]
        if isinstance(weighting, SelfAdaptiveWeights):
            groups.append({"params": list(weighting.parameters()), "lr": weighting.rate})
        settings = Settings(max_steps=training.adam_steps, schedule=training.schedule)
        optimizer = (
            SOAP(groups, lr=training.rate)
            if training.optimizer == "soap"
            else torch.optim.Adam(groups, foreach=True)
        )
        trainer = Trainer(self, optimizer, settings)
        last = torch.zeros(0)

        def loss(step: int) -> Tensor:
            nonlocal last
            batch = where.batch(step, step / training.adam_steps)
            terms = self.terms(batch)
            weighting.adapt(step, terms, self)
            each = weighting.loss(terms, batch)
            last = each.detach()
            if step == 0 and not bool(torch.isfinite(last).all()):
                raise UserError("the loss is not finite at the start")
            return each.sum()

        def on_step(event: Event) -> None:
            note(event.step, last)

        trainer.run(loss, on_step=on_step)


class _Notes:
    """Keeps a hundred records of each phase and tells the listener."""

    def __init__(
        self,
        training: Training,
        records: list[tuple[int, Tensor]],
        listener: Listener | None,
    ) -> None:
        self.training, self.records, self.listener = training, records, listener
        self.begin = time.perf_counter()

    def __call__(self, step: int, losses: Tensor) -> None:
        adam, whole = self.training.adam_steps, self.training.adam_steps + self.training.lbfgs_steps
        every = max(1, (adam if step <= adam else self.training.lbfgs_steps) // 100)
        if step % every and step not in (1, whole):
            return
        self.records.append((step, losses.clone()))
        if self.listener is not None:
            phase = "Adam" if step <= adam else "L-BFGS"
            text = f"{phase}: step {step} of {whole}, loss {float(losses.mean()):.3g}"
            self.listener(Progress("train", time.perf_counter() - self.begin, math.inf, text))


# -- hard conditions -------------------------------------------------------------------------------


def gate(time: Jet, tau: float, start: float = 0.0) -> Jet:
    r"""Factor :math:`1 - e^{-(t - t_0)/\tau}` that is 0 at the start and soon 1.

    A field ``gate(t) * network + initial`` has its initial value exactly.
    """
    return 1.0 - ((-1.0 / tau) * (time - start)).exp()


def vanishing(x: Jet, lower: float, upper: float) -> Jet:
    """Parabola that is 0 at both ends and 1 in the middle, for conditions of Dirichlet's kind."""
    return (4.0 / (upper - lower) ** 2) * ((x - lower) * (upper - x))


Network = TypeVar("Network", bound=nn.Module)


def frozen(model: Network) -> Network:
    """The same model, no longer trained: a parent that others correct."""
    for p in model.parameters():
        p.requires_grad_(False)
    return model.eval()


Quadrature = tuple[Tensor, Tensor]
"""Nodes (q,) and weights (q,)."""


def gauss_legendre(points: int, lower: float, upper: float) -> Quadrature:
    """Nodes and weights of a rule that is exact for polynomials of degree 2 points - 1."""
    import numpy as np

    x, w = np.polynomial.legendre.leggauss(points)
    half = 0.5 * (upper - lower)
    return torch.from_numpy(lower + half * (x + 1.0)), torch.from_numpy(half * w)
