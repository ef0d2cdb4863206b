"""Training for equal times, and the errors that it came to."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from understudy.core.cost import count_parameters
from understudy.core.field_metrics import relative_l2
from understudy.core.loop import Event
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.sobolev import DifferenceLoss, SobolevLoss
from understudy.models.operators.training import Training
from understudy.reproduce.elliptic.networks import mgno
from understudy.reproduce.elliptic.setting import Pairs, Size

Loss = Callable[[Tensor, Tensor], Tensor]

_EDGE = 1.0 / 16.0
"""Share of a side that is called near the boundary: four of 64 points."""

_RATES = {"MgNO": 3e-3, "FNO": 2e-2, "U-Net": 1e-2, "U-NO": 2e-2}
"""Learning rates."""

TIMED = (4, 6)
"""Turns and steps by which times of steps are compared."""


@dataclass(frozen=True)
class Fit:
    """What a training came to.

    Parameters
    ----------
    model : FieldMap
    weights, steps : int
        Of the network, and of its training.
    h1, l2, train_l2, edge : float
        Relative errors on the tests, in training and in the outer sixteenth of the tests, means
        over fields.
    """

    model: FieldMap
    weights: int
    steps: int
    h1: float
    l2: float
    train_l2: float
    edge: float


class Bench:
    """Trains networks for equal times.

    Parameters
    ----------
    size : Size
    """

    def __init__(self, size: Size) -> None:
        self.size = size
        self._costs = {"MgNO": 1.0}

    def fits(
        self,
        name: str,
        make: Callable[[], FieldNetwork],
        pairs: Mapping[int, Pairs],
        steps: int,
        loss: Loss | None = None,
        weight_decay: float = 1e-4,
    ) -> dict[int, Fit]:
        """Train a network on the pairs of each seed, for the time of so many steps of MgNO.

        Parameters
        ----------
        name : str
            The part before a comma is the network's, and says its learning rate; what a step costs
            is measured once a name.
        make : callable
            Makes an untrained network.
        pairs : mapping of seed to Pairs
        steps : int
            Of MgNO.
        loss : callable, optional
            The paper's relative H1 norm unless given.
        weight_decay : float
        """
        plan = Training(
            batch_size=self.size.batch_size,
            learning_rate=_RATES[name.split(",")[0]],
            weight_decay=weight_decay,
            warmup=0.2,
            floor=0.005,
            ema_decay=None,
            clip_norm=None,
            device=self.size.device,
            interrupt="raise",
        )
        loss = loss or SobolevLoss()
        if name not in self._costs:
            self._costs[name] = self._cost(FieldMap(make(), loss=loss), plan, pairs)
        affordable = max(2, round(steps / self._costs[name]))
        return {
            seed: _trained(make, loss, some, replace(plan, steps=affordable, seed=seed))
            for seed, some in pairs.items()
        }

    def _cost(self, model: FieldMap, plan: Training, pairs: Mapping[int, Pairs]) -> float:
        """Time of a step over that of a step of MgNO."""
        some = next(iter(pairs.values()))
        yardstick = FieldMap(mgno(self.size), loss=SobolevLoss())
        turns, steps = TIMED
        plan = replace(plan, steps=steps, learning_rate=1e-6)
        times = [
            (_fastest_step(model, plan, some), _fastest_step(yardstick, plan, some))
            for _ in range(turns)
        ]
        mine, its = (min(of) for of in zip(*times, strict=True))
        return mine / its


def _fastest_step(model: FieldMap, plan: Training, pairs: Pairs) -> float:
    ends: list[float] = []

    def tick(event: Event) -> None:
        if plan.device == "cuda":
            torch.cuda.synchronize()
        ends.append(time.perf_counter())

    model.fit(pairs.x, pairs.y, grid=pairs.grid, training=plan, listener=tick)
    return min(b - a for a, b in itertools.pairwise(ends))


def _trained(make: Callable[[], FieldNetwork], loss: Loss, pairs: Pairs, plan: Training) -> Fit:
    torch.manual_seed(plan.seed)
    model = FieldMap(make(), loss=loss)
    model.fit(pairs.x, pairs.y, grid=pairs.grid, training=plan)
    return measured(model, pairs, plan.steps)


def measured(model: FieldMap, pairs: Pairs, steps: int) -> Fit:
    """Errors of a network that was trained on pairs for so many steps."""
    predicted, true = model.predict(pairs.test_x), pairs.test_y
    band = max(1, round(_EDGE * true.shape[-1]))
    edge = torch.ones(true.shape[2:], dtype=torch.bool)
    edge[band:-band, band:-band] = False
    return Fit(
        model=model,
        weights=count_parameters(model.network),
        steps=steps,
        h1=float(DifferenceLoss(pairs.grid.spacing)(predicted, true)),
        l2=float(relative_l2(predicted, true).mean()),
        train_l2=float(relative_l2(model.predict(pairs.x), pairs.y).mean()),
        edge=float(relative_l2(predicted[..., edge], true[..., edge]).mean()),
    )
