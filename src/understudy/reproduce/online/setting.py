"""What each scale spends on online and on offline training."""

from __future__ import annotations

from dataclasses import dataclass

from understudy.reproduce.claims import Scale


@dataclass(frozen=True)
class Budget:
    """What online and offline training spend on a problem.

    Parameters
    ----------
    offline, online : int
        Runs of either.
    updates, batch : int
        Of both.
    seeds : int
    """

    offline: int
    online: int
    updates: int
    batch: int
    seeds: int


@dataclass(frozen=True)
class Size:
    """What a scale spends.

    Parameters
    ----------
    points, steps, width
        Nodes along a side and steps of the heat equation, and width of its perceptron; waves have
        as many steps.
    heat, fno, mp_pde, ranking, breed : Budget
        Of online against offline training by network, of buffers and of samplers.
    fno_width, mp_pde_width, mp_pde_depth
        Of the networks of waves.
    waves, window : int
        Points of the combined equation, and steps that are predicted at once.
    streamed : int
        Runs of the stream whose memory is measured.
    slowed_seconds : float
        Of each measurement of a rate.
    killed : int
        Processes that are killed.
    validation : int
        Runs that judge; the Lorenz system has twenty times as many.
    """

    points: int
    steps: int
    width: int
    heat: Budget
    fno: Budget
    mp_pde: Budget
    fno_width: int
    mp_pde_width: int
    mp_pde_depth: int
    waves: int
    window: int
    ranking: Budget
    streamed: int
    slowed_seconds: float
    killed: int
    breed: Budget
    validation: int


SIZES = {
    Scale.SMOKE: Size(
        points=8,
        steps=8,
        width=16,
        heat=Budget(4, 12, 30, 8, 1),
        fno=Budget(2, 6, 18, 4, 1),
        mp_pde=Budget(2, 6, 18, 4, 1),
        fno_width=8,
        mp_pde_width=32,
        mp_pde_depth=1,
        waves=24,
        window=2,
        ranking=Budget(2, 8, 9, 8, 1),
        streamed=20,
        slowed_seconds=1.0,
        killed=1,
        breed=Budget(4, 20, 40, 16, 1),
        validation=4,
    ),
    Scale.CPU: Size(
        points=32,
        steps=50,
        width=256,
        heat=Budget(50, 1000, 3000, 32, 3),
        fno=Budget(8, 96, 600, 16, 3),
        mp_pde=Budget(5, 60, 200, 16, 3),
        fno_width=16,
        mp_pde_width=32,
        mp_pde_depth=3,
        waves=48,
        window=10,
        ranking=Budget(10, 300, 478, 32, 3),
        streamed=200,
        slowed_seconds=6.0,
        killed=2,
        breed=Budget(0, 300, 3000, 64, 3),
        validation=10,
    ),
    Scale.PAPER: Size(
        points=100,
        steps=100,
        width=256,
        heat=Budget(250, 20_000, 60_000, 64, 5),
        fno=Budget(512, 8192, 60_000, 16, 5),
        mp_pde=Budget(512, 8192, 60_000, 16, 5),
        fno_width=64,
        mp_pde_width=128,
        mp_pde_depth=6,
        waves=100,
        window=25,
        ranking=Budget(25, 10_000, 31_562, 32, 5),
        streamed=2000,
        slowed_seconds=30.0,
        killed=10,
        breed=Budget(0, 4000, 40_000, 64, 5),
        validation=20,
    ),
}
