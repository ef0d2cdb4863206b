"""What each scale of the reproduction of learned proximal networks spends."""

from __future__ import annotations

from dataclasses import dataclass

from understudy.reproduce.claims import Scale


@dataclass(frozen=True)
class Size:
    """What a scale spends: shares of the paper's schedules of numbers, steps and images.

    A lattice has a Fibonacci number of points, and the second coordinate goes on by the former such
    number; `late` is that of the last stages, where few samples are near enough to count.
    """

    warm_up: float
    matching: float
    mixture: float
    lattice: tuple[int, int]
    late: tuple[int, int]
    seeds: int
    hidden: int
    batch: int
    steps: int
    plain_steps: int
    tests: int
    tuned: int
    admm: int
    pgd: int
    workers: int = 2
    device: str = "cpu"


SIZES = {
    Scale.SMOKE: Size(
        warm_up=1e-3,
        matching=1e-3,
        mixture=1e-3,
        lattice=(21, 13),
        late=(34, 21),
        seeds=1,
        hidden=2,
        batch=8,
        steps=8,
        plain_steps=8,
        tests=4,
        tuned=2,
        admm=2,
        pgd=3,
        workers=1,
    ),
    Scale.CPU: Size(
        warm_up=0.25,
        matching=1.0,
        mixture=0.25,
        lattice=(233, 144),
        late=(610, 377),
        seeds=2,
        hidden=16,
        batch=32,
        steps=3000,
        plain_steps=1500,
        tests=50,
        tuned=12,
        admm=40,
        pgd=400,
    ),
    Scale.PAPER: Size(
        warm_up=1.0,
        matching=1.0,
        mixture=1.0,
        lattice=(1597, 987),
        late=(2584, 1597),
        seeds=3,
        hidden=64,
        batch=200,
        steps=20_000,
        plain_steps=20_000,
        tests=100,
        tuned=50,
        admm=80,
        pgd=2000,
        device="cuda",
    ),
}
