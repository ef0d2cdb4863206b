"""Networks that learn from solutions: MultiONet against DeepONet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import pandas as pd
import torch

from understudy.models.operators.deeponet import DeepONet
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.multionet import FieldMultiONet
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.training import Training
from understudy.reproduce.claims import Claim
from understudy.reproduce.generative.setting import TEST_SEED, Fields, Size, darcy_fields, error
from understudy.simulate.pde.walled_burgers import WalledBurgers


@dataclass(frozen=True)
class Pairs:
    """Training from pairs."""

    size: Size
    seed: int
    test: Fields
    last_only: bool

    def result(self) -> float:
        """Error on test fields."""
        size = self.size
        pairs = darcy_fields(size, (self.seed + 1) * 100_000, size.pairs)
        torch.manual_seed(self.seed)
        shape = [size.points] * 2
        network = FieldMultiONet(1, 1, shape, size.pair_hidden, last_only=self.last_only)
        plan = _plan(size, size.pair_steps, self.seed)
        model = FieldMap(network).fit(pairs.a.float(), pairs.u, training=plan)
        return error(model.predict(self.test.a.float()), self.test.u)


def _plan(size: Size, steps: int, seed: int) -> Training:
    return Training(
        steps=steps,
        batch_size=50,
        learning_rate=2e-3,
        clip_norm=None,
        seed=seed,
        device=size.device,
        interrupt="raise",
    )


def supervised(size: Size, pairs: Sequence[Pairs], errors: Sequence[float]) -> Claim:
    """MultiONet against DeepONet."""
    found: dict[bool, dict[int, float]] = {False: {}, True: {}}
    for task, value in zip(pairs, errors, strict=True):
        found[task.last_only][task.seed] = value
    means = ", ".join(
        f"{name} {100 * fmean(found[last].values()):.2f} %"
        for name, last in (("MultiONet", False), ("DeepONet", True))
    )
    return Claim.over_seeds(
        {seed: value / found[True][seed] for seed, value in found[False].items()},
        statement="With solutions to learn from, a MultiONet errs less than a DeepONet of its size",
        paper_figure="rough Darcy, supervised: 1.49 % and 1.61 %, a ratio of 0.93",
        metric="relative L2 error of u, MultiONet over DeepONet, equal depth, width and steps",
        bar=0.9,
        direction="at most",
        reason=f"errors {means} after {size.pair_steps} steps on {size.pairs} pairs",
    )


# -- Burgers' equation -----------------------------------------------------------------------------

VISCOSITY = 0.1 / math.pi
_CELLS = 128
Kind = Literal["multionet", "deeponet", "last layer"]
KINDS: tuple[Kind, ...] = ("multionet", "deeponet", "last layer")


def burgers_fields(first: int, count: int) -> Fields:
    """First fields and those of time 1, ``(N, 1, 128)``."""
    runs = pd.DataFrame({"seed": range(first, first + count), "viscosity": VISCOSITY})
    fields = WalledBurgers(_CELLS).fields(runs)
    return Fields(fields[:, 0], fields[:, 1])


@dataclass(frozen=True)
class BurgersPairs:
    """Training of one of the networks, all of one depth and width."""

    size: Size
    seed: int
    kind: Kind
    pairs: Fields
    test: Fields

    def network(self) -> FieldNetwork:
        """Untrained: with hidden tangents, the DeepONet has the weights of the paper's."""
        hidden = self.size.burgers_hidden
        width, depth = hidden[0], len(hidden)
        if self.kind == "deeponet":
            return DeepONet(1, 1, [_CELLS], width, width, depth, "plain", "tanh")
        return FieldMultiONet(1, 1, [_CELLS], hidden, last_only=self.kind == "last layer")

    def result(self) -> float:
        """Error on test fields."""
        torch.manual_seed(self.seed)
        plan = _plan(self.size, self.size.burgers_steps, self.seed)
        model = FieldMap(self.network()).fit(self.pairs.a, self.pairs.u, training=plan)
        return error(model.predict(self.test.a), self.test.u)


def burgers_plans(size: Size, seeds: Sequence[int]) -> list[BurgersPairs]:
    """All trainings; those of a seed have their pairs in common."""
    test = burgers_fields(TEST_SEED, size.test)
    plans = []
    for seed in seeds:
        pairs = burgers_fields((seed + 1) * 100_000, size.burgers_pairs)
        plans += [BurgersPairs(size, seed, kind, pairs, test) for kind in KINDS]
    return plans


def burgers(size: Size, plans: Sequence[BurgersPairs], errors: Sequence[float]) -> list[Claim]:
    """MultiONet against both DeepONets."""
    found: dict[Kind, dict[int, float]] = {kind: {} for kind in KINDS}
    for plan, value in zip(plans, errors, strict=True):
        found[plan.kind][plan.seed] = value
    told = ", ".join(
        f"{kind} {100 * fmean(values.values()):.2f} %" for kind, values in found.items()
    )
    names: dict[Kind, str] = {
        "deeponet": "the DeepONet of the paper, with hyperbolic tangents",
        "last layer": "a DeepONet with its own activations, of which only the last layer speaks",
    }
    return [
        Claim.over_seeds(
            {seed: value / found[other][seed] for seed, value in found["multionet"].items()},
            statement=f"Of Burgers' equation a MultiONet learns more than {name}",
            paper_figure="Burgers, supervised: 0.50 % and 1.45 %, a ratio of 0.34",
            metric="relative L2 error of u at time 1, MultiONet over "
            f"{'DeepONet' if other == 'deeponet' else 'last layer alone'}, equal depth, width "
            "and steps",
            bar=0.6,
            direction="at most",
            reason=f"errors {told} after {size.burgers_steps} steps on {size.burgers_pairs} pairs",
        )
        for other, name in names.items()
    ]
