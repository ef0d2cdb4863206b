"""The direction networks that come with the package, and the command that makes them.

    python -m understudy.models.inverse.pretrained 2d --seed 0
    python -m understudy.models.inverse.pretrained 3d --seed 0 --minutes 12

Each is trained on the pressure of an empty box with air around it, and writes
``weights/<name>.safetensors`` beside this file, with its training log inside. Ctrl-C keeps a
checkpoint, and the same command goes on from it.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from understudy.core.differences import poisson_matrix
from understudy.core.errors import UserError
from understudy.core.loop import Event
from understudy.core.space import nearest
from understudy.models.inverse.dcdm import (
    DEFAULT_TRAINING,
    DeepConjugateDirection,
    learn_solver,
    network_of,
    tensors_of,
)
from understudy.models.operators.training import Training

FOLDER = Path(__file__).with_name("weights")


@dataclass(frozen=True)
class Recipe:
    """How one of the shipped networks is made."""

    grid: tuple[int, ...]
    num_ritz: int
    training: Training


_IN_PLANE = replace(DEFAULT_TRAINING, warmup=0.002, floor=0.02)
"""One minute of one core."""

_IN_SPACE = replace(
    DEFAULT_TRAINING,
    steps=4000,
    batch_size=8,
    learning_rate=1e-3,
    warmup=0.0125,
    floor=0.02,
    validate_every=200,
    optimizer="adam",
)
"""Ten minutes of one core.

With 3e-3, as in two dimensions once, a network for 24^3 cells had learnt nothing in 200 steps.
"""

RECIPES = {
    "2d": Recipe((32, 32), 800, _IN_PLANE),
    "3d": Recipe((16, 16, 16), 800, _IN_SPACE),
}


def pretrained(name: str) -> DeepConjugateDirection:
    """Solver with a network that comes with the package, for any square or cube.

    Parameters
    ----------
    name : {"2d", "3d"}
        Trained on 32 x 32 and 16 x 16 x 16 cells with air around them.
    """
    if name not in RECIPES:
        raise UserError(f"no pre-trained network {name!r}{nearest(name, list(RECIPES))}")
    return _read(FOLDER / f"{name}.safetensors")


@cache
def _read(path: Path) -> DeepConjugateDirection:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stored:
        facts = json.loads(stored.metadata()["understudy"])
        tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
    return DeepConjugateDirection(network_of(facts["network"], tensors), facts=facts)


def main(arguments: list[str]) -> None:
    """Train one of the shipped networks."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("--steps", type=int, help="optimiser steps; the recipe's by default")
    parser.add_argument("--minutes", type=float, help="wall time at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=FOLDER)
    chosen = parser.parse_args(arguments)
    recipe = RECIPES[chosen.name]
    chosen.output.mkdir(parents=True, exist_ok=True)
    path = chosen.output / f"{chosen.name}.safetensors"
    checkpoint = path.with_suffix(".training.safetensors")
    changes: dict[str, Any] = {"seed": chosen.seed, "device": chosen.device, "interrupt": "raise"}
    if chosen.minutes:
        changes["max_seconds"] = 60.0 * chosen.minutes
    if chosen.steps:
        changes["steps"] = chosen.steps
    plan = replace(recipe.training, checkpoint=checkpoint, **changes)

    def show(event: Event) -> None:
        if event.step % plan.validate_every == 0 and event.score is not None:
            print(f"{event.step} {event.seconds:.0f} s {float(event.score):.5f}", flush=True)

    solver = learn_solver(
        poisson_matrix(recipe.grid),
        recipe.grid,
        plan,
        recipe.num_ritz,
        listener=show,
    )
    _write(solver, path)
    checkpoint.unlink(missing_ok=True)


def _write(solver: DeepConjugateDirection, path: Path) -> None:
    from safetensors.torch import save_file

    network: Any = solver.model
    machine = {"torch": torch.__version__, "machine": platform.machine()}
    facts = {"network": network.settings, **solver.facts, **machine}
    part = path.with_name(path.name + ".part")
    save_file(tensors_of(network), part, metadata={"understudy": json.dumps(facts)})
    part.replace(path)


if __name__ == "__main__":
    main(sys.argv[1:])
