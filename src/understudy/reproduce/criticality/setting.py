"""Sizes of ensembles and trainings by which criticality is measured."""

from __future__ import annotations

from dataclasses import dataclass

from understudy.reproduce.claims import Scale


@dataclass(frozen=True)
class Budget:
    """What a scale spends.

    Parameters
    ----------
    seeds : int
    networks, widths
        Networks a seed, and their widths, by which fluctuations are measured.
    deep_networks, deep
        Networks a seed whose signals are followed, and layers of what is called deep.
    training_steps : int
        Of the deep networks.
    rate_steps, rate_depths, rate_width
        Of the trainings by which best learning rates are found.
    tangent_widths, tangent_networks
        Of the ensembles whose tangent kernels are measured.
    """

    seeds: int
    networks: int
    deep_networks: int
    widths: tuple[int, ...]
    deep: int
    training_steps: int
    rate_steps: int
    rate_depths: tuple[int, int]
    rate_width: int
    tangent_widths: tuple[int, int]
    tangent_networks: int


BUDGETS = {
    Scale.SMOKE: Budget(2, 50, 5, (60, 120), 4, 3, 3, (2, 4), 16, (8, 16), 100),
    Scale.CPU: Budget(
        3, 20_000, 60, (30, 60, 120, 240), 50, 300, 40, (8, 32), 100, (50, 100), 6000
    ),
    Scale.PAPER: Budget(
        5, 100_000, 1000, (30, 60, 120, 240), 50, 1000, 300, (8, 32), 400, (50, 100), 100_000
    ),
}
