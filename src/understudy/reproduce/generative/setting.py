"""What is spent, and the fields of Darcy's equation."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from understudy.core.field_metrics import relative_l2
from understudy.simulate.pde.darcy import Darcy, Medium

SOURCE = 10.0
LOW, HIGH = 5.0, 10.0
TEST_SEED, SPARE_SEED = 1_000_000_000, 900_000_000


@dataclass(frozen=True)
class Size:
    """What a scale spends.

    Cells along a side; layers and their width; numbers of the latent vector; fields and steps of
    the operators trained by residuals; discs of a step, their radius and the mesh of the rule;
    pairs, steps, seeds, layers and width of the supervised ones; test fields; fields that are
    inverted; sensors, their signal-to-noise ratio in dB and the weight of total variation; draws
    and chains; pairs, steps, layers and width for Burgers' equation. Trainings run in as many
    processes as there are workers.
    """

    points: int
    hidden: tuple[int, ...]
    latent_dim: int
    fields: int
    steps: int
    n_centres: int
    radius: float
    n_quad: int
    pairs: int
    pair_steps: int
    pair_seeds: int
    pair_hidden: tuple[int, ...]
    test: int
    inverted: int
    sensors: tuple[tuple[int, float, float], ...]
    draws: int
    chains: int
    burgers_pairs: int
    burgers_steps: int
    burgers_hidden: tuple[int, ...]
    batch_size: int = 20
    learning_rate: float = 5e-3
    data_weight: float = 1.0
    device: str = "cpu"
    workers: int = 1


@dataclass(frozen=True)
class Fields:
    """Coefficients and solutions, ``(N, 1, n, n)``."""

    a: Tensor
    u: Tensor


def darcy_fields(size: Size, first: int, count: int, medium: Medium = "two-phase") -> Fields:
    """Coefficients and solutions of seeds from the first on."""
    darcy = Darcy(size.points, medium, SOURCE, refine=3)
    a, u = [], []
    for start in range(first, first + count, 50):
        runs = pd.DataFrame({"seed": range(start, min(start + 50, first + count))})
        a.append(darcy.inputs(runs)["coefficient"].unsqueeze(1))
        u.append(darcy.fields(runs)[:, 0])
    return Fields(torch.cat(a), torch.cat(u))


def media(size: Size, seed: int, count: int, medium: Medium = "two-phase") -> Tensor:
    """Coefficients alone."""
    runs = pd.DataFrame({"seed": [(seed + 1) * 100_000 + i for i in range(count)]})
    return Darcy(size.points, medium).inputs(runs)["coefficient"].unsqueeze(1)


def error(predicted: Tensor, true: Tensor) -> float:
    """Mean relative L2 error."""
    return float(relative_l2(predicted, true).mean())
