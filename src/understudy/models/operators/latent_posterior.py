r"""Posterior of the latent vector of DGNO, given readings of a solution (arXiv 2502.06250).

Readings :math:`y_i = u(x_i) + \sigma \varepsilon_i` give, with frozen decoders,

.. math:: \log p(\beta \mid y) = -\frac{1}{2 \sigma^2} \sum_i \big(u(x_i; \beta) - y_i\big)^2
          - \frac12 \sum_k \lambda_k \sum_j r^k_j + \mathrm{const}

with the squared residuals :math:`r^k_j` of disc j, of one or two kinds, in which the coefficient is
the mean of :math:`p(a \mid \beta)`. It is explored in :math:`z = \mathrm{artanh}\, \beta`, whose
prior is :math:`\prod (1 - \tanh^2 z)/2`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.models.operators.generative_fields import Solutions, log_prior
from understudy.models.operators.multionet import MultiONet
from understudy.models.operators.residual_operator import inside
from understudy.models.operators.weak_residual import WeakResidual
from understudy.sample import Chains, maximise

if TYPE_CHECKING:
    from understudy.models.operators.dgno import DeepGenerativeNeuralOperator

Method = Literal["map", "vi", "hmc"]
METHODS = ("map", "vi", "hmc")
EDGE = 0.999
"""Codes beyond are pulled back, where tanh is flat."""


@dataclass(frozen=True)
class LatentTarget:
    r"""Log density of :math:`z = \mathrm{artanh}\, \beta` for chains, each with its readings.

    Parameters
    ----------
    operator : DeepGenerativeNeuralOperator
    residual : WeakResidual
    y, noise : Tensor (c, N), (c, 1)
        Readings of each chain and their deviation.
    sensors, offset : Tensor (N, F), (N,)
        Functions of the solution at sensors.
    solutions : Solutions
        At the quadrature points of fixed discs.
    flux : pair of Tensor (Q, F)
        None where the medium needs no flux.
    a : Tensor (Q, F)
    """

    operator: DeepGenerativeNeuralOperator
    residual: WeakResidual
    y: Tensor
    noise: Tensor
    sensors: Tensor
    offset: Tensor
    solutions: Solutions
    flux: tuple[Tensor, ...]
    a: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        """At ``(c, d)``, or at ``(m c, d)`` for m points of each chain."""
        return self.likelihood(z) - 0.5 * self.virtual(z) + log_prior(z)

    def likelihood(self, z: Tensor) -> Tensor:
        """Log likelihood ``(c,)`` of the readings, up to a constant."""
        c = self.operator.network.u.coefficients(torch.tanh(z))
        u = (c @ self.sensors.mT + self.offset).unflatten(0, (-1, len(self.y)))
        return -0.5 * ((u - self.y) / self.noise).square().sum(-1).flatten()

    def virtual(self, z: Tensor) -> Tensor:
        """Residuals ``(c,)``, squared, summed and weighted by their precisions."""
        network, beta = self.operator.network, torch.tanh(z)
        decoded = network.a.combine(network.a.coefficients(beta), self.a)
        k_gradient = self.operator.medium.mean(decoded) * self.solutions.gradient(beta)
        squares = self.residual.squares(self._fluxes(beta), k_gradient)
        sums = torch.stack([each.sum(1) for each in squares])
        return self.operator.precisions.to(z) @ sums

    def _fluxes(self, beta: Tensor) -> Tensor | None:
        decoders = [d for d in self.operator.network.flux if isinstance(d, MultiONet)]
        if not decoders:
            return None
        pairs = zip(decoders, self.flux, strict=True)
        return torch.stack([d.combine(d.coefficients(beta), basis) for d, basis in pairs])

    def of(self, copies: int, chains: int) -> LatentTarget:
        """Target of another number of chains a field."""
        y, noise = (each[::copies].repeat_interleave(chains, 0) for each in (self.y, self.noise))
        return replace(self, y=y, noise=noise)

    @torch.no_grad()
    def starts(self, codes: Tensor, chains: int) -> Tensor:
        """Codes ``(c, d)`` that explain the readings of each field best, as z."""
        z = torch.atanh(codes.to(self.y).clamp(-EDGE, EDGE))
        c = self.operator.network.u.coefficients(torch.tanh(z))
        u = c @ self.sensors.mT + self.offset
        y = self.y[::chains]
        far = torch.cdist(y, u) / self.noise[::chains]
        order = far.argsort(1)
        which = order[:, torch.arange(chains) % len(z)]
        return z[which.flatten()].contiguous()


def best(z: Tensor, value: Tensor, copies: int, kept: int = 1) -> Tensor:
    """Positions ``(I * kept, d)`` of the highest values among the copies of each field."""
    which = value.unflatten(0, (-1, copies)).topk(kept, dim=1).indices
    fields = torch.arange(len(which), device=z.device).unsqueeze(1)
    return z.unflatten(0, (-1, copies))[fields, which].flatten(0, 1)


def gaussian_draws(
    target: LatentTarget, z: Tensor, chains: int, samples: int, steps: int, seed: int
) -> Tensor:
    """Draws ``(I, chains * samples, d)`` of Gaussians fitted around positions ``(c, d)``."""
    d = z.shape[1]
    generator = torch.Generator(z.device).manual_seed(seed)
    noise = torch.randn(16, *z.shape, generator=generator, dtype=z.dtype, device=z.device)
    noise = torch.cat([noise, -noise])

    def bound(position: Tensor) -> Tensor:
        mean, log_sd = position.split(d, 1)
        at = mean + log_sd.exp() * noise
        return target(at.flatten(0, 1)).unflatten(0, (len(noise), -1)).mean(0) + log_sd.sum(1)

    fitted = maximise(bound, torch.cat([z, torch.full_like(z, -2.0)], 1), steps, 0.03)
    mean, log_sd = best(fitted, bound(fitted), chains).split(d, 1)
    draws = torch.randn(
        len(mean), chains * samples, d, generator=generator, dtype=z.dtype, device=z.device
    )
    return mean.unsqueeze(1) + log_sd.exp().unsqueeze(1) * draws


@dataclass(frozen=True)
class LatentPosterior:
    r"""Posterior of coefficients, as draws of :math:`z = \mathrm{artanh}\, \beta`.

    Parameters
    ----------
    operator : DeepGenerativeNeuralOperator
    z : Tensor (I, S, d)
        S draws for each of I fields; one where the method is ``"map"``.
    method : {"map", "vi", "hmc"}
    seed : int
    chains : Chains, optional
        What was sampled, by ``"hmc"``.
    """

    operator: DeepGenerativeNeuralOperator
    z: Tensor
    method: Method
    seed: int
    chains: Chains | None = None

    @property
    def beta(self) -> Tensor:
        """Latent vectors ``(I, S, d)``."""
        return torch.tanh(self.z)

    @property
    def mean(self) -> Tensor:
        """Mean of the coefficient in the cells, ``(I, n, n)``."""
        return self._on_cells(self.operator.medium.mean(self.decoded()).mean(1))

    @property
    def std(self) -> Tensor:
        """Standard deviation of the coefficient in the cells, ``(I, n, n)``."""
        medium, decoded = self.operator.medium, self.decoded()
        within = medium.variance(decoded, self._cells).mean(1)
        return self._on_cells((within + medium.mean(decoded).var(1, correction=0)).sqrt())

    @property
    def _cells(self) -> int:
        return math.prod(self.operator.grid.shape)

    def _on_cells(self, values: Tensor) -> Tensor:
        return values.unflatten(-1, self.operator.grid.shape)

    def decoded(self, x: Tensor | None = None) -> Tensor:
        """What is decoded of each draw, ``(I, S, N)``, at points ``(N, 2)`` or the cells.

        Logits of the higher phase, or scaled coefficients; see
        :mod:`~understudy.models.operators.media`.
        """
        found = [self.operator.decoded(part, x) for part in self.beta.flatten(0, 1).split(512)]
        return torch.cat(found).unflatten(0, self.z.shape[:2])

    def sample_a(self, x: Tensor | None = None) -> Tensor:
        """Coefficients ``(I, S, N)``, one for each draw and point."""
        generator = torch.Generator().manual_seed(self.seed)
        return self.operator.medium.draw(self.decoded(x), self._cells, generator)

    def interval(self, level: float = 0.9, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Ends ``(I, N)`` of central intervals of the coefficient, from one of each draw."""
        if not 0.0 < level < 1.0:
            raise UserError(f"level must be between 0 and 1, found {level:g}")
        ends = (0.5 - level / 2.0, 0.5 + level / 2.0)
        generator = torch.Generator().manual_seed(self.seed)
        return self.operator.medium.interval(self.decoded(x), ends, self._cells, generator)

    @torch.no_grad()
    def solution(self, x: Tensor) -> Tensor:
        """Solutions ``(I, S, N)`` at points ``(N, 2)``."""
        network = self.operator.network
        points = inside(x, "points").to(network.points)
        found = [network.solution(points, part) for part in self.beta.flatten(0, 1).split(512)]
        return torch.cat(found).cpu().unflatten(0, self.z.shape[:2])
