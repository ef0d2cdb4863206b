"""Coefficients from sparse readings, by the posterior and by a search over pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from understudy.models.operators.dgno import DeepGenerativeNeuralOperator
from understudy.models.operators.latent_posterior import LatentPosterior
from understudy.reproduce.claims import Claim
from understudy.reproduce.generative.setting import (
    HIGH,
    LOW,
    SOURCE,
    SPARE_SEED,
    Fields,
    Size,
    darcy_fields,
)
from understudy.simulate.pde.darcy import darcy_solution


@dataclass(frozen=True)
class Readings:
    """Sensors ``(N,)`` as cells, readings ``(I, N)`` and their noise ``(I,)``."""

    cells: Tensor
    y: Tensor
    noise: Tensor


def read(size: Size, fields: Fields, sensors: int, decibel: float, seed: int) -> Readings:
    """Solutions at random cells, with noise of a ratio to their size."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(size.points**2, generator=generator)[:sensors]
    u = fields.u.flatten(1)[:, cells].double()
    noise = u.square().mean(1).sqrt() * 10.0 ** (-decibel / 20.0)
    errors = torch.randn(u.shape, generator=generator, dtype=torch.float64)
    return Readings(cells, u + noise[:, None] * errors, noise)


@dataclass(frozen=True)
class Recovered:
    """Relative error of the coefficient, share of right cells; means over fields."""

    error: float
    right: float

    @classmethod
    def of(cls, a: Tensor, true: Tensor) -> Recovered:
        """Of coefficients ``(I, n, n)``."""
        middle = 0.5 * (LOW + HIGH)
        error = (a - true).flatten(1).norm(dim=1) / true.flatten(1).norm(dim=1)
        right = ((a > middle) == (true > middle)).double().mean()
        return cls(float(error.mean()), float(right))

    def told(self) -> str:
        """Both in words."""
        return f"{100 * self.error:.1f} %, {100 * self.right:.1f} % of the cells"


def inversions(
    size: Size, seed: int, operator: DeepGenerativeNeuralOperator, test: Fields
) -> list[Claim]:
    """Claims on fields found from readings."""
    some = Fields(test.a[: size.inverted], test.u[: size.inverted])
    spare = darcy_fields(size, SPARE_SEED, size.inverted)
    true = some.a[:, 0]
    claims: list[Claim] = []
    for sensors, decibel, weight in size.sensors:
        readings = read(size, some, sensors, decibel, seed)
        posterior = _posterior(size, seed, operator, readings, spare)
        own = Recovered.of(posterior.mean.double(), true)
        other = Recovered.of(by_total_variation(size, readings, weight), true)
        claims += _claims_of(seed, sensors, decibel, own, other, posterior, true)
    return claims


def _posterior(
    size: Size,
    seed: int,
    operator: DeepGenerativeNeuralOperator,
    readings: Readings,
    spare: Fields,
) -> LatentPosterior:
    """By Hamiltonian Monte Carlo, with the noise and the operator's own error."""
    off = (operator.predict(spare.a) - spare.u).flatten(1)[:, readings.cells]
    own_error = float(off.square().mean().sqrt())
    return operator.infer(
        readings.y,
        operator.network.points[readings.cells].cpu().double(),
        (readings.noise.square() + own_error**2).sqrt(),
        "hmc",
        chains=size.chains,
        samples=size.draws,
        burn_in=size.draws,
        n_centres=size.n_centres,
        seed=seed,
    )


def _claims_of(
    seed: int,
    sensors: int,
    decibel: float,
    own: Recovered,
    other: Recovered,
    posterior: LatentPosterior,
    true: Tensor,
) -> list[Claim]:
    lower, upper = posterior.interval(0.9)
    inside = (true.flatten(1) >= lower) & (true.flatten(1) <= upper)
    covered, decided = float(inside.double().mean()), float((lower == upper).double().mean())
    where = f"{sensors} sensors, {decibel:g} dB"
    told = f"posterior mean {own.told()}; pixels with total variation {other.told()}"
    common: dict[str, Any] = {
        "paper_figure": "rough inverse problem, 100 sensors, 25 dB: error of a 0.104",
        "seeds": (seed,),
    }
    return [
        Claim(
            statement=f"A discontinuous coefficient is found from {where}",
            metric=f"relative L2 error of a, {where}",
            bar=0.16,
            direction="at most",
            measured=own.error,
            reason=told,
            **common,
        ),
        Claim(
            statement=f"Its phases are found from {where}",
            metric=f"share of cells of the right phase, {where}",
            bar=0.9,
            direction="at least",
            measured=own.right,
            reason=told,
            **common,
        ),
        Claim(
            statement=f"It finds more than a search over pixels does from {where}",
            metric=f"relative L2 error of a over that of pixels with total variation, {where}",
            bar=1.0,
            direction="at most",
            measured=own.error / other.error,
            reason=told,
            **common,
        ),
        Claim(
            statement=f"It knows how sure it is with {where}",
            metric=f"distance of the coverage of the 90 % band of a from 87.5 %, {where}",
            bar=0.125,
            direction="at most",
            measured=abs(covered - 0.875),
            reason=f"covered {100 * covered:.1f} %, with one phase alone in the band of "
            f"{100 * decided:.1f} % of the cells",
            **common,
        ),
    ]


def by_total_variation(size: Size, readings: Readings, weight: float, steps: int = 150) -> Tensor:
    """Coefficients ``(I, n, n)`` by Adam over all cells, with the exact solver."""
    n, fields = size.points, len(readings.y)
    theta = torch.zeros(fields, n, n, dtype=torch.float64, requires_grad=True)
    f = torch.full((fields, n, n), SOURCE, dtype=torch.float64)
    optimizer = torch.optim.Adam([theta], 0.2)
    for _ in range(steps if size.steps > 100 else 2):
        share = torch.sigmoid(theta)
        u = darcy_solution(LOW + (HIGH - LOW) * share, f).flatten(1)[:, readings.cells]
        misfit = 0.5 * ((u - readings.y) / readings.noise[:, None]).square().sum()
        variation = share.diff(dim=1).abs().sum() + share.diff(dim=2).abs().sum()
        optimizer.zero_grad()
        (misfit + weight * variation).backward()
        optimizer.step()
    return LOW + (HIGH - LOW) * torch.sigmoid(theta.detach())
