r"""Proximal operators and priors of numbers, where both are known.

Of a Laplacian the operator shrinks by one, of a mixture of Gaussians it is found on a grid.
Networks see a Fibonacci lattice, shifted anew at each step, of clean value and noise instead of
independent draws: as random, and as faithful with a tenth of the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from understudy.models.inverse.icnn import InputConvexNet
from understudy.models.inverse.lpn import LearnedProximalNetwork
from understudy.models.inverse.proximal_matching import (
    Stage,
    fit_lpn,
    number_matching,
    number_warm_up,
)
from understudy.reproduce.proximal.sizes import Size


@dataclass(frozen=True)
class Lattice:
    """Pairs of clean value and noise on a lattice that is shifted at random at each step.

    Parameters
    ----------
    quantile : callable (n,) -> (n,)
        Clean values of probabilities in (0, 1).
    points, across : int
        Neighbouring Fibonacci numbers.
    """

    quantile: Callable[[Tensor], Tensor]
    points: int
    across: int

    def clean(self, count: int, generator: torch.Generator) -> Tensor:
        """Clean values ``(count, 1)``."""
        return self.quantile(self._shifted(1, generator)).float().unsqueeze(1)

    def noise(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Noise ``(count, 1)`` of the clean values in the order in which they came."""
        return torch.special.ndtri(self._shifted(self.across, generator)).float().unsqueeze(1)

    def _shifted(self, stride: int, generator: torch.Generator) -> Tensor:
        at = torch.arange(self.points, dtype=torch.float64) * stride / self.points
        shift = torch.rand(1, generator=generator, dtype=torch.float64)
        return ((at + shift) % 1.0).clamp(1e-9, 1.0 - 1e-9)

    def fit(self, lpn: LearnedProximalNetwork, schedule: Sequence[Stage], seed: int) -> None:
        """Train a network of numbers."""
        fit_lpn(
            *(lpn, self.clean, schedule),
            batch_size=self.points,
            seed=seed,
            noise=self.noise,
        )


def laplace_quantile(u: Tensor) -> Tensor:
    """Values ``(n,)`` of a Laplacian of probabilities."""
    v = u - 0.5
    return -v.sign() * torch.log1p(-2.0 * v.abs())


_MODE, _SPREAD = 2.0, 0.5


def mixture_quantile(u: Tensor) -> Tensor:
    """Of two normals at -2 and 2 of deviation 0.5: one has the lower half of probabilities."""
    side = torch.where(u < 0.5, -1.0, 1.0)
    return _MODE * side + _SPREAD * torch.special.ndtri((2.0 * u) % 1.0).clamp(-6.0, 6.0)


def _untrained(seed: int) -> LearnedProximalNetwork:
    torch.manual_seed(seed)
    return LearnedProximalNetwork(InputConvexNet(), 1.0)


def laplacian(size: Size, seed: int) -> dict[str, float]:
    """Errors of operators and priors of a Laplacian, by the loss that they are trained with."""
    lattice = Lattice(laplace_quantile, *size.lattice)
    found: dict[str, float] = {}
    lpn = _untrained(seed)
    lattice.fit(lpn, number_warm_up(size.warm_up), seed)
    found |= _errors(lpn, "L1")
    _match(lpn, laplace_quantile, size.matching, size, seed)
    found |= _errors(lpn, "PM")
    squared = _untrained(seed)
    lattice.fit(squared, number_warm_up(size.warm_up, nn.MSELoss()), seed)
    return found | _errors(squared, "L2")


def _match(
    lpn: LearnedProximalNetwork,
    quantile: Callable[[Tensor], Tensor],
    share: float,
    size: Size,
    seed: int,
) -> None:
    """Proximal matching, with the larger lattice from gamma 0.2 on."""
    stages = number_matching(share)
    early = [stage for stage in stages if stage.loss.gamma > 0.2]  # type: ignore[attr-defined]
    Lattice(quantile, *size.lattice).fit(lpn, early, seed + 1000)
    Lattice(quantile, *size.late).fit(lpn, stages[len(early) :], seed + 2000)


def _errors(lpn: LearnedProximalNetwork, name: str) -> dict[str, float]:
    """Against shrinkage by one on [-4, 4], and against |x| on [-3, 3]."""
    y = torch.linspace(-4.0, 4.0, 801)[:, None]
    soft = y.sign() * (y.abs() - 1.0).clamp_min(0.0)
    error = lpn.in_parts(y) - soft
    x = torch.linspace(-3.0, 3.0, 121)[:, None]
    prior = lpn.prior(x)
    return {
        f"{name} worst": float(error.abs().max()),
        f"{name} rmse": float(error.square().mean().sqrt()),
        f"{name} prior": after_affine(prior.value, x.abs().squeeze(1)),
        f"{name} residual": float(prior.residual.max()),
    }


def after_affine(value: Tensor, true: Tensor) -> float:
    """Root mean square of what is left of the truth after the best affine function of a value."""
    columns = torch.stack([value, torch.ones_like(value)], 1).double()
    best = torch.linalg.lstsq(columns, true.double()[:, None]).solution
    return float((columns @ best - true[:, None]).square().mean().sqrt())


def mixture(size: Size, seed: int) -> dict[str, float]:
    """Largest error of the operator of two modes, but for where it jumps."""
    lattice = Lattice(mixture_quantile, *size.lattice)
    lpn = _untrained(seed)
    lattice.fit(lpn, number_warm_up(size.mixture), seed)
    y = torch.cat([torch.linspace(-4.0, -0.5, 141), torch.linspace(0.5, 4.0, 141)])[:, None]
    exact = exact_mixture(y)
    before = lpn.in_parts(y)
    _match(lpn, mixture_quantile, size.mixture, size, seed)
    after = lpn.in_parts(y)
    return {
        "L1": float((before - exact).abs().max()),
        "PM": float((after - exact).abs().max()),
    }


def exact_mixture(y: Tensor) -> Tensor:
    """Minimiser over a fine grid of half the square distance less the log density."""
    x = torch.linspace(-6.0, 6.0, 24_001, dtype=torch.float64)
    density = sum((-0.5 * ((x - m) / _SPREAD) ** 2).exp() for m in (-_MODE, _MODE))
    value = 0.5 * (x - y.double()).square() - torch.as_tensor(density).log()
    return x[value.argmin(1)].float().unsqueeze(1)
