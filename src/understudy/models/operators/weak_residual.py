r"""Weak residuals of an elliptic equation on tiny discs (arXiv 2502.06250, section on residuals).

For :math:`-\nabla \cdot (K \nabla u) = f` with a flux :math:`s = K \nabla u` of its own, which is
smoother across the jumps of a discontinuous K than :math:`\nabla u` is, residuals are

.. math:: r^1 = |s - K \nabla u|^2, \qquad
          r^2 = \langle s \cdot \nabla v \rangle - \langle f v \rangle

with means over quadrature points of a disc of radius R around a centre :math:`x_c`, and v the
compactly supported radial function of Wendland with :math:`L = \lfloor d/2 \rfloor + 3`,

.. math:: v &= (1 - r)^{L+2} \big((L^2 + 4L + 3) r^2 + (3L + 6) r + 3\big)/3, \qquad
              r = |x - x_c|/R \\
          \nabla v &= -\frac{x - x_c}{R^2} (1 - r)^{L+1}
              \big((L^3 + 8L^2 + 19L + 12) r + L^2 + 7L + 12\big)/3

which is zero on the rim with its gradient. Nothing of K is ever differentiated, and nothing of u
and s more than once. Centres are a new Latin hypercube at each step; the loss is

.. math:: \mathrm{mean}\, r^1 + \sqrt{n_c}\, \mathrm{mean}\, (r^2)^2 .

A smooth K needs no flux of its own. With :math:`s = K \nabla u` only :math:`r^2` is left, and the
loss is the mean over fields of its norm over the discs, and the sum of its largest squares (1000 in
the paper's code) of all fields and discs, which are the hardest.

The rule takes the points of an :math:`n \times n` mesh of :math:`[-1, 1]^2` inside the disc, all of
one weight. It errs: for a linear s it finds
:math:`\langle s \cdot \nabla v \rangle = -c\, \langle v \rangle\, \nabla \cdot s` with
c = 0.988 for n = 7, which makes u too large by 1.25 %. Here :math:`\nabla v` is divided by c, so
that the rule is exact for linear fluxes, whatever n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from understudy.core.errors import UserError

HARDEST = 1000
"""Largest squared residuals that count once more, as in the paper's code."""


def wendland(q: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``(Q,)`` and gradients ``(Q, d)`` at points ``(Q, d)`` of the unit ball, R = 1."""
    L = q.shape[-1] // 2 + 3
    r = q.norm(dim=-1)
    inside = (1.0 - r).clamp_min(0.0)
    v = inside ** (L + 2) * ((L**2 + 4 * L + 3) * r**2 + (3 * L + 6) * r + 3.0) / 3.0
    slope = (L**3 + 8 * L**2 + 19 * L + 12) * r + L**2 + 7 * L + 12
    return v, -q * (inside ** (L + 1) * slope / 3.0).unsqueeze(-1)


@dataclass(frozen=True)
class DiscRule:
    """Quadrature on the unit disc, all points of one weight.

    Parameters
    ----------
    points : Tensor (Q, 2), float64
    v : Tensor (Q,)
        Test function.
    gradient : Tensor (Q, 2)
        Of it, scaled so that linear fluxes are exact.
    """

    points: Tensor
    v: Tensor
    gradient: Tensor


@lru_cache
def disc_rule(n: int) -> DiscRule:
    """Rule of an n x n mesh of the square around the disc: 25 points for n = 7, 45 for n = 9."""
    if n < 4:
        raise UserError(f"a rule on a disc needs a mesh of at least 4 points a side, found {n}")
    axis = torch.linspace(-1.0, 1.0, n, dtype=torch.float64)
    mesh = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    q = mesh[mesh.norm(dim=1) < 1.0 - 1e-12]
    v, gradient = wendland(q)
    c = -(q * gradient).sum(1).mean() / (2.0 * v.mean())
    return DiscRule(q, v, gradient / c)


def latin_hypercube(points: int, generator: torch.Generator) -> Tensor:
    """Points ``(points, 2)`` of the unit square, one in each of as many rows and columns."""
    strata = torch.stack([torch.randperm(points, generator=generator) for _ in range(2)], 1)
    within = torch.rand(points, 2, generator=generator, dtype=torch.float64)
    return (strata + within) / points


@dataclass(frozen=True)
class WeakResidual:
    """Weak residuals of Darcy's equation on the unit square.

    Parameters
    ----------
    source : float
        f.
    radius : float
        R of the discs; 1e-4 in the paper.
    n_centres : int
        Discs at each step; 300 in the paper for discontinuous K.
    n_quad : int
        Mesh points a side of the rule, at least 4; 7 or 9 in the paper's code.
    """

    source: float = 10.0
    radius: float = 1e-4
    n_centres: int = 300
    n_quad: int = 9

    def __post_init__(self) -> None:
        if not 0.0 < self.radius < 0.5:
            raise UserError(
                f"radius must be between 0 and 0.5, so that a disc fits into the unit square, "
                f"found {self.radius:g}"
            )
        if self.n_centres < 1:
            raise UserError(f"n_centres must be at least 1, found {self.n_centres}")
        if not math.isfinite(self.source):
            raise UserError(f"source must be finite, found {self.source}")
        disc_rule(self.n_quad)

    @property
    def quadrature(self) -> int:
        """Q, points of a disc."""
        return len(disc_rule(self.n_quad).points)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Quadrature points ``(n_centres * Q, 2)`` of new discs, float64, disc by disc."""
        centres = latin_hypercube(self.n_centres, generator)
        centres = self.radius + (1.0 - 2.0 * self.radius) * centres
        q = disc_rule(self.n_quad).points
        return (centres.unsqueeze(1) + self.radius * q).reshape(-1, 2)

    def balance(self, flux: Tensor) -> Tensor:
        r"""Residuals :math:`r^2` ``(B, n_centres)`` of fluxes ``(2, B, n_centres * Q)``."""
        rule = disc_rule(self.n_quad)
        gradient = (rule.gradient.T / (self.radius * len(rule.v))).to(flux)
        per_disc = flux.unflatten(-1, (-1, len(rule.v)))
        weighted = (per_disc * gradient[:, None, None]).sum((0, -1))
        return weighted - self.source * float(rule.v.mean())

    def mismatch(self, flux: Tensor, k_gradient: Tensor) -> Tensor:
        r"""Residuals :math:`r^1` ``(B, n_centres)`` of s and :math:`K \nabla u`, as `balance`."""
        square = (flux - k_gradient).square().sum(0)
        return square.unflatten(-1, (-1, self.quadrature)).mean(-1)

    def squares(self, flux: Tensor | None, k_gradient: Tensor) -> tuple[Tensor, ...]:
        """Squared residuals ``(B, n_centres)``, r1 and r2, or r2 alone without a flux."""
        if flux is None:
            return (self.balance(k_gradient).square(),)
        return self.mismatch(flux, k_gradient), self.balance(flux).square()

    def by_field(self, squares: tuple[Tensor, ...]) -> Tensor:
        """Losses ``(B,)`` of each field by itself; without a flux its norm and all its squares."""
        if len(squares) == 1:
            total = squares[0].sum(1)
            return (total + 1e-12).sqrt() + total
        mismatch, balance = squares
        return mismatch.mean(1) + math.sqrt(self.n_centres) * balance.mean(1)

    def loss(self, flux: Tensor, k_gradient: Tensor) -> Tensor:
        r"""Loss of fluxes and of :math:`K \nabla u`, both ``(2, B, n_centres * Q)``."""
        weight = math.sqrt(self.n_centres)
        balance = self.balance(flux).square().mean()
        return self.mismatch(flux, k_gradient).mean() + weight * balance

    def primal_loss(self, k_gradient: Tensor, hardest: int = HARDEST) -> Tensor:
        r"""Loss of :math:`K \nabla u` ``(2, B, n_centres * Q)`` of smooth K, without a flux."""
        squares = self.balance(k_gradient).square()
        norms = (squares.sum(1) + 1e-12).sqrt()
        return norms.mean() + squares.flatten().topk(min(hardest, squares.numel())).values.sum()
