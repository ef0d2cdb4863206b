r"""The networks that come with the package, and the command that makes them.

    python -m understudy.models.incontext.pretrained regression --device cuda --minutes 10
    python -m understudy.models.incontext.pretrained classification --device cuda --minutes 10
    python -m understudy.models.incontext.pretrained curves --device cuda --minutes 10
    python -m understudy.models.incontext.pretrained regression --onward --minutes 125 --seed 1 \
        --batch 32 --questions 48 --optimizer soap --learning-rate 3e-4 --precision bf16-mixed

Each writes ``weights/<name>.safetensors`` beside this file, with its training log inside; Ctrl-C
keeps a checkpoint, and the same command goes on from it. With ``--onward`` a finished network is
trained for another run of the schedule, on new data sets.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from understudy.core.errors import UserError
from understudy.core.space import nearest
from understudy.models.incontext.encoding import Encoding
from understudy.models.incontext.heads import HeadName
from understudy.models.incontext.network_priors import TabularBNN
from understudy.models.incontext.pfn import PFN
from understudy.models.incontext.pretrain import Line, Pretraining
from understudy.models.incontext.response_prior import ResponsePrior
from understudy.models.incontext.task import Prior

FOLDER = Path(__file__).with_name("weights")


@dataclass(frozen=True)
class Recipe:
    """How one of the shipped networks is made."""

    prior: Callable[[], Prior]
    encoding: Encoding
    head: HeadName
    plan: Pretraining
    sizes: dict[str, int]
    bars: int = 1000


def _curves() -> Prior:
    from understudy.models.incontext.curve_prior import CurvePrior

    return CurvePrior()


_SIZES = {"width": 192, "depth": 6, "heads": 3, "hidden": 384}
_OF_TABLES = Pretraining(
    steps=20_000,
    batch=256,
    rows=256,
    least_context=2,
    most_context=200,
    learning_rate=7e-4,
    warmup=0.05,
)

RECIPES = {
    "regression": Recipe(
        ResponsePrior,
        Encoding(features=10, inputs="unit", outcomes="context"),
        "bars",
        _OF_TABLES,
        _SIZES,
        bars=1000,
    ),
    "classification": Recipe(
        TabularBNN,
        Encoding(features=60, inputs="standard", outcomes="raw"),
        "binary",
        _OF_TABLES,
        _SIZES,
    ),
    "curves": Recipe(
        _curves,
        Encoding(features=1, inputs="unit", outcomes="unit"),
        "bars",
        Pretraining(
            steps=20_000,
            batch=400,
            rows=100,
            least_context=1,
            uniform_context=True,
            learning_rate=7e-4,
            warmup=0.05,
        ),
        _SIZES,
        bars=1000,
    ),
}


def pretrained(name: str) -> PFN:
    """Return a copy of a network that comes with the package, yours to train further.

    Parameters
    ----------
    name : {"regression", "classification", "curves"}
    """
    return deepcopy(shared(name))


@cache
def shared(name: str) -> PFN:
    """Return a network that comes with the package, the same to all who ask: not to be changed."""
    if name not in RECIPES:
        raise UserError(f"no pre-trained network {name!r}{nearest(name, list(RECIPES))}")
    return PFN.load(FOLDER / f"{name}.safetensors")


def make(name: str, changes: dict[str, Any], on_line: Callable[[Line], None] | None = None) -> PFN:
    """Train one of the shipped networks by its recipe, with changes to its plan."""
    recipe = RECIPES[name]
    plan = replace(recipe.plan, **changes)
    start = time.perf_counter()
    model = PFN.pretrained_on(
        recipe.prior(),
        plan,
        recipe.encoding,
        recipe.head,
        bars=recipe.bars,
        on_line=on_line,
        **recipe.sizes,
    )
    return model.noted(**_made(plan, start))


def _made(plan: Pretraining, start: float) -> dict[str, Any]:
    """Where a network was trained, and how long that took."""
    cuda = plan.device == "cuda"
    device = torch.cuda.get_device_name() if cuda else platform.machine()
    seconds = round(time.perf_counter() - start)
    return {"device": device, "seconds": seconds, "torch": torch.__version__}


def go_on(name: str, changes: dict[str, Any], on_line: Callable[[Line], None] | None = None) -> PFN:
    """Train a shipped network for another run of the schedule; its log goes on too."""
    recipe, model = RECIPES[name], pretrained(name)
    before, facts = list(model.log), dict(model.facts)
    plan = replace(recipe.plan, **changes)
    start = time.perf_counter()
    model.fit(recipe.prior(), plan, on_line)
    last = before[-1]
    new = [
        Line(
            line.step + last.step,
            line.step * plan.batch + last.data_sets,
            round(line.seconds + last.seconds, 1),
            line.loss,
        )
        for line in model.log[len(before) :]
    ]
    model.log = [*before, *new]
    kept = ("seed", "batch", "questions", "optimizer", "learning_rate", "precision")
    run = {name: getattr(plan, name) for name in kept}
    run |= {"data_sets": new[-1].data_sets - last.data_sets, **_made(plan, start)}
    facts |= {"steps": new[-1].step, "data_sets": new[-1].data_sets}
    facts["onward"] = [*facts.get("onward", []), run]
    model.facts = facts
    return model


def main(arguments: list[str]) -> None:
    """Train one of the shipped networks."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("--steps", type=int, help="optimiser steps; the recipe's by default")
    parser.add_argument("--minutes", type=float, help="as many steps as fit into this time")
    parser.add_argument("--batch", type=int, help="data sets a step")
    parser.add_argument("--questions", type=int, help="rows asked about at most, a data set")
    parser.add_argument("--optimizer", choices=["adam", "soap"])
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--precision", help="of PyTorch Lightning; bf16-mixed on a GPU by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--onward", action="store_true", help="from the network that is there")
    parser.add_argument("--output", type=Path, default=FOLDER)
    chosen = parser.parse_args(arguments)
    torch.set_float32_matmul_precision("high")
    changes: dict[str, Any] = {"seed": chosen.seed, "device": chosen.device}
    if chosen.device == "cuda":
        changes |= {"precision": "bf16-mixed", "compiled": True}
    for name in ("batch", "questions", "optimizer", "learning_rate", "precision", "steps"):
        if getattr(chosen, name) is not None:
            changes[name] = getattr(chosen, name)
    if chosen.minutes:
        changes |= {"max_seconds": 60.0 * chosen.minutes, "steps": 10**9, **changes}
    chosen.output.mkdir(parents=True, exist_ok=True)
    changes["checkpoint"] = chosen.output / f"{chosen.name}.training.safetensors"

    def show(line: Line) -> None:
        print(f"{line.step} {line.data_sets} {line.seconds} {line.loss:.4f}", flush=True)

    model = (go_on if chosen.onward else make)(chosen.name, changes, show)
    model.save(chosen.output / f"{chosen.name}.safetensors")
    changes["checkpoint"].unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1:])
