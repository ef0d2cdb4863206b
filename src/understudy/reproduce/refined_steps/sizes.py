"""What a scale spends."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, Literal

from understudy.core.errors import UserError
from understudy.models.operators.pde_refiner import FirstGuess
from understudy.reproduce.claims import Scale


@dataclass(frozen=True)
class Budget:
    """What a scale spends; times count outputs of the solver.

    Rollouts whose horizon is compared go on for all of the test; samples, of which there are many,
    for `sampled_times`. Trainings run in as many processes as there are workers.
    """

    seeds: int
    points: int
    length: tuple[float, float]
    interval: tuple[float, float]
    transient: int
    runs: int
    times: int
    test_runs: int
    test_times: int
    network: str
    settings: dict[str, Any]
    steps: int
    short_steps: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["adam", "soap-kernels"]
    samples: int
    sampled_runs: int
    sampled_times: int
    horizon_bar: float
    antithetic: bool = False
    first_guess: FirstGuess = "noise"
    workers: int = 1
    seconds: float | None = None


CPU = Budget(
    seeds=3,
    points=64,
    length=(32.0, 32.0),
    interval=(0.2, 0.2),
    transient=360,
    runs=256,
    times=200,
    test_runs=64,
    test_times=480,
    network="dilated",
    settings={"channels": 40, "blocks": 7},
    steps=1200,
    short_steps=400,
    batch_size=32,
    learning_rate=3e-3,
    optimizer="soap-kernels",
    samples=16,
    sampled_runs=32,
    sampled_times=320,
    horizon_bar=0.75,
    antithetic=True,
    first_guess="zeros",
    workers=2,
)
SMOKE = replace(
    CPU,
    seeds=2,
    points=32,
    length=(22.0, 22.0),
    transient=40,
    runs=12,
    times=24,
    test_runs=6,
    test_times=24,
    settings={"channels": 4, "blocks": 1},
    steps=6,
    short_steps=3,
    batch_size=8,
    samples=3,
    sampled_runs=6,
    sampled_times=24,
    workers=1,
)
PAPER = Budget(
    seeds=1,
    points=256,
    length=(57.6, 70.4),
    interval=(0.18, 0.22),
    transient=360,
    runs=2048,
    times=140,
    test_runs=128,
    test_times=640,
    network="unet",
    settings={"hidden": 64, "multipliers": [1, 2, 2, 4]},
    steps=220_000,
    short_steps=55_000,
    batch_size=128,
    learning_rate=1e-4,
    optimizer="adam",
    samples=32,
    sampled_runs=64,
    sampled_times=640,
    horizon_bar=1.1,
)
TIMED = replace(
    PAPER,
    settings={"hidden": 32, "multipliers": [1, 2, 2, 2]},
    learning_rate=5e-4,
    samples=16,
)


def budget(scale: Scale) -> Budget:
    """What is spent at a scale, the wall time that the environment allows included."""
    if scale is Scale.SMOKE:
        return SMOKE
    if scale is Scale.CPU:
        return CPU
    given = os.environ.get("UNDERSTUDY_SECONDS")
    if given is None:
        return PAPER
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not seconds >= 20.0:
        raise UserError(f"UNDERSTUDY_SECONDS must be a number of at least 20, found {given!r}")
    return replace(TIMED, seconds=seconds)
