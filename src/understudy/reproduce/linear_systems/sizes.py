"""What each scale of the reproduction of direction networks spends."""

from __future__ import annotations

from dataclasses import dataclass

from understudy.reproduce.claims import Scale


@dataclass(frozen=True)
class Size:
    """What a scale spends: the grid of training and its Ritz vectors, and the grids of the tests.

    `count` right-hand sides of each kind on the grids `small`, `mid`, `large`; obstacles fill
    `shares` of the grid `mid`; seconds are measured on squares and cubes. So many `workers` train a
    network each at a time; `plain` of the seeds are also trained without the emphasis.
    """

    points: int
    ritz: int
    steps: int
    seeds: int
    count: int
    mid: int
    large: int
    cube: int
    shares: tuple[float, ...]
    squares: tuple[int, ...]
    cubes: tuple[int, ...]
    deflated: int
    smoke: tuple[int, ...] = (10, 20, 30)
    device: str = "cpu"
    workers: int = 1
    plain: int = 1


SIZES = {
    Scale.SMOKE: Size(12, 60, 150, 1, 2, 16, 20, 8, (0.0, 0.2), (8, 16), (6, 8), 300, (2, 4)),
    Scale.CPU: Size(
        points=32,
        ritz=800,
        steps=1500,
        seeds=3,
        count=8,
        mid=64,
        large=128,
        cube=32,
        shares=(0.0, 0.05, 0.1, 0.2, 0.3),
        squares=(32, 64, 128, 256, 512),
        cubes=(32, 48, 64),
        deflated=33_000,
        workers=2,
        plain=2,
    ),
    Scale.PAPER: Size(
        points=128,
        ritz=8000,
        steps=200_000,
        seeds=3,
        count=16,
        mid=256,
        large=512,
        cube=128,
        shares=(0.0, 0.05, 0.1, 0.2, 0.3),
        squares=(128, 256, 512, 1024),
        cubes=(64, 128, 192),
        deflated=300_000,
        device="cuda",
        plain=3,
    ),
}
