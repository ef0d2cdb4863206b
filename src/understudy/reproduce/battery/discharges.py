"""Discharges of the paper's cell by the single-particle model, and what is made known of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.models.physics.battery import CellData
from understudy.reproduce.battery.curves import CORNERS, drawn
from understudy.search.measurement import Checks
from understudy.simulate.battery import SingleParticleModel
from understudy.simulate.battery.spm import mesh_of

SHELLS = 32
"""Of a particle."""


@dataclass(frozen=True)
class Discharges:
    """Discharges by the solver, that surrogates are tested on.

    Parameters
    ----------
    model : SingleParticleModel
    test : Tensor (n, 2)
        Parameters of the test: (2, 2), the corners, five random ones.
    voltage : Tensor (n, T)
    """

    model: SingleParticleModel
    test: Tensor
    voltage: Tensor

    @classmethod
    def made(cls) -> Discharges:
        """By a mesh an order of magnitude finer in voltage than what is measured."""
        model = SingleParticleModel(kinetics="linear", shells=SHELLS)
        g = torch.Generator().manual_seed(12)
        low, high = torch.tensor([0.5, 1.0]), torch.tensor([4.0, 10.0])
        random = low + (high - low) * torch.rand(5, 2, generator=g)
        test = torch.cat([torch.tensor([(2.0, 2.0), *CORNERS]), random]).double()
        return cls(model, test, model.evaluate(test))

    @property
    def times(self) -> Tensor:
        """(T,)."""
        return torch.tensor(self.model.times, dtype=torch.float64)


UNSEEN = (0, 5, 6, 7, 8, 9)
"""Rows of the test that are no corners."""


def corner_data(model: SingleParticleModel, inside: int, seed: int) -> CellData:
    """Voltages of the corners at every fourth time, and stoichiometries at random places.

    Parameters
    ----------
    model : SingleParticleModel
    inside : int
        Places in the particles of each corner.
    seed : int
    """
    theta = torch.tensor(CORNERS, dtype=torch.float64)
    solution = model.solve(theta, profiles=True)
    few = torch.arange(0, len(solution.times), 4)
    times = solution.times[few]
    at = torch.cat([times.repeat(len(theta))[:, None], theta.repeat_interleave(len(times), 0)], 1)
    g = torch.Generator().manual_seed(seed)
    n = inside * len(theta)
    k, i, j = (
        torch.randint(0, most, (n,), generator=g) for most in (len(theta), len(times), SHELLS)
    )
    radii = centres(model)
    rows = torch.cat([times[i][:, None], theta[k], radii[j][:, None]], 1)
    sides = [solution.profiles[s].expand(len(theta), -1, -1) for s in ("negative", "positive")]
    values = torch.stack([each[k, few[i], j] for each in sides], 1)
    return CellData(at, solution.voltage[:, few].reshape(-1), None, rows, values)


def centres(model: SingleParticleModel) -> Tensor:
    """Relative radii (m,) at which shells have about their mean."""
    cubes = torch.cat([torch.zeros(1).double(), mesh_of(model.cell.negative, SHELLS).mean])
    faces = cubes.cumsum(0).clamp_max(1.0) ** (1.0 / 3.0)
    return 0.75 * faces.pow(4).diff() / faces.pow(3).diff()


def further_runs(model: SingleParticleModel, count: int, seed: int) -> Checks:
    """Discharges of the solver at parameters drawn from the prior."""
    theta = drawn(count, seed)
    return Checks(theta, model.evaluate(theta))
