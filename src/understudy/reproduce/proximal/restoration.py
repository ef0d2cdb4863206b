"""Digits from blurred or few values, by one iteration with several priors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.models.inverse.conjugate_gradients import conjugate_gradients
from understudy.models.inverse.imaging_operators import (
    CompressedSensing,
    GaussianBlur,
    LinearOperator,
)
from understudy.models.inverse.lpn import LearnedProximalNetwork
from understudy.models.inverse.plug_and_play import (
    Prox,
    Reconstruction,
    Splitting,
    data_scale,
    pnp_admm,
    pnp_pgd,
)
from understudy.models.inverse.prior_training import psnr
from understudy.models.inverse.total_variation import TotalVariation
from understudy.reproduce.proximal.denoisers import BM3D, SIGMA, has_bm3d
from understudy.reproduce.proximal.sizes import Size


@dataclass(frozen=True)
class Task:
    """A measurement of digits: its operator, its noise, and the rho of its iterations."""

    name: str
    operator: LinearOperator
    noise: float
    rho: float


def tasks() -> tuple[Task, ...]:
    """Blur, and a quarter of random values."""
    shape = (1, 28, 28)
    return (
        Task("deblurring", GaussianBlur(shape, _BLUR), 0.02, 0.1),
        Task("sensing", CompressedSensing(shape, 784 // 4), 1e-3, 0.05),
    )


_BLUR = 1.0

_SHARES = (0.25, 1.0, 4.0)
"""Weights of the data that are tried, over that which the noise says."""

_TOTAL_VARIATIONS = (
    *((1.0, 0.03), (1.0, 0.1), (1.0, 0.3), (0.1, 0.1)),
    *((0.1, 0.3), (0.01, 0.1), (0.01, 0.3), (0.01, 1.0)),
)
"""Weights of the data over that which the noise says, and of total variation, that are tried."""

BM3D_IMAGES, BM3D_ITERATIONS = 4, 20
"""Few, for it takes half a second an image and iteration."""


def restored(
    lpn: LearnedProximalNetwork,
    plain: Prox,
    tune: Tensor,
    test: Tensor,
    size: Size,
    generator: torch.Generator,
) -> dict[str, float]:
    """PSNR of each way, settings chosen on other digits."""
    found: dict[str, float] = {}
    for task in tasks():
        y, other = (measured(task, x, generator) for x in (test, tune))

        def restore(y: Tensor, prox: Prox, scale: float, task: Task = task) -> Tensor:
            settings = Splitting(task.rho, scale, size.admm, tolerance=1e-5)
            return pnp_admm(y, task.operator, prox, settings).x

        meant = data_scale(task.rho, SIGMA, task.noise)
        ways: dict[str, list[tuple[Prox, float]]] = {
            "LPN": [(lpn, meant * share) for share in _SHARES],
            "plain": [(plain, meant * share) for share in _SHARES],
            "TV": [(TotalVariation(weight), meant * share) for share, weight in _TOTAL_VARIATIONS],
        }
        for name, settings in ways.items():
            scores = [psnr(restore(other, prox, scale), tune) for prox, scale in settings]
            prox, scale = settings[max(range(len(scores)), key=scores.__getitem__)]
            found[f"{task.name} {name}"] = psnr(restore(y, prox, scale), test)
            if name == "LPN":
                few = restore(y[:BM3D_IMAGES], lpn, scale)
                found[f"{task.name} LPN, few"] = psnr(few, test[:BM3D_IMAGES])
        found[f"{task.name} classical"] = max(
            psnr(image, test) for image in classical(task.operator, y)
        )
        if isinstance(task.operator, GaussianBlur) and has_bm3d() and size.tests > BM3D_IMAGES:
            found[f"{task.name} BM3D"] = _with_bm3d(task, y, test, other, tune, meant)
    return found


def measured(task: Task, x: Tensor, generator: torch.Generator) -> Tensor:
    """Measurements of images, with noise."""
    y = task.operator(x)
    return y + task.noise * torch.randn(y.shape, generator=generator).to(y)


def classical(operator: LinearOperator, y: Tensor) -> list[Tensor]:
    """First guess, adjoint, and least squares by 10, 30 and 100 conjugate gradients."""
    back = operator.adjoint(y)
    solved = [conjugate_gradients(operator.normal, back, iterations=n) for n in (10, 30, 100)]
    return [operator.start(y), back, *solved]


def _with_bm3d(
    task: Task, y: Tensor, test: Tensor, other: Tensor, tune: Tensor, meant: float
) -> float:
    """PSNR of the first tests with BM3D, the weight of the data chosen on two other digits."""

    def restore(y: Tensor, share: float, iterations: int) -> Tensor:
        prox = BM3D(SIGMA)
        settings = Splitting(task.rho, meant * share, iterations)
        return pnp_admm(y, task.operator, prox, settings).x

    shares = _SHARES[1:]
    scores = [psnr(restore(other[:2], share, BM3D_ITERATIONS // 2), tune[:2]) for share in shares]
    best = shares[scores.index(max(scores))]
    return psnr(restore(y[:BM3D_IMAGES], best, BM3D_ITERATIONS), test[:BM3D_IMAGES])


def descents(
    lpn: LearnedProximalNetwork,
    plain: Prox,
    test: Tensor,
    size: Size,
    generator: torch.Generator,
) -> dict[str, float]:
    """Last changes of proximal gradient descent, and how often its objective rose."""
    task = tasks()[0]
    y = measured(task, test, generator)

    def descend(prox: Prox) -> Reconstruction:
        return pnp_pgd(y, task.operator, prox, iterations=size.pgd, tolerance=0.0)

    mine, other = descend(lpn), descend(plain)
    assert mine.rises is not None
    return {
        "pgd LPN": float(mine.residuals[-1].max()),
        "pgd plain": float(other.residuals[-1].max()),
        "pgd plain median": float(other.residuals[-1].median()),
        "pgd LPN median": float(mine.residuals[-1].median()),
        "pgd plain diverged": float(other.diverged.double().mean()),
        "rises": float(mine.rises.double().mean()),
        "pgd LPN psnr": psnr(mine.x, test),
        "pgd plain psnr": psnr(other.x, test),
    }
