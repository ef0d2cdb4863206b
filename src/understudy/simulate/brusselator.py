r"""Patterns of the Brusselator, a reaction of two substances that diffuse, and their variance.

.. math:: u_t = D_u \Delta u + a - (b + 1) u + u^2 v, \qquad v_t = D_v \Delta v + b u - u^2 v

on a square of n x n cells of side 1, without flux through its edges, from :math:`u = a` and
:math:`v = b/a` plus noise, for 20 time units (Prigogine & Lefever 1968). Li, Rudner & Wilson (2024,
arXiv 2305.20028), after Maddox et al. (2021, arXiv 2106.12997), minimise a weighted variance of the
last state; they integrate by explicit Euler steps, where this file takes the stiff part exactly:

.. math:: w' = L w + N(w), \qquad
    w(t + h) \approx e^{hL} w + h \sum_i b_i(hL)\, N(w_i)

with L the diffusion and the linear decay, which the discrete cosine transform makes diagonal, and
the four stages and weights of ETDRK4 (Cox & Matthews 2002), whose functions of :math:`hL` are means
over a circle in the complex plane (Kassam & Trefethen 2005).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.space import Continuous, Space
from understudy.simulate.objectives import ObjectiveFunction
from understudy.simulate.pde.bases import cosine_basis
from understudy.simulate.pde.exponential import ExponentialStep

DURATION = 20.0


def laplace_eigenvalues(n: int) -> Tensor:
    """Eigenvalues (n, n) of the five-point Laplacian on cells of side 1 without flux."""
    one = 2.0 * torch.cos(math.pi / n * torch.arange(n, dtype=torch.float64)) - 2.0
    return one.unsqueeze(1) + one


class BrusselatorVariance(ObjectiveFunction):
    r"""Variance of the last state, both substances and all cells together, to be made small.

    Cells are weighted 0.1, those of the outer two rings 1, as in the code of Li et al. The noise of
    the start is the same at every call, where theirs is drawn afresh.

    Every run is repeated with four times as many steps until two outcomes agree; where b is far
    above :math:`1 + a^2` the reaction is a series of explosions, which takes some thousands.

    Parameters
    ----------
    cells : int
        n; 64 in the paper.
    steps : int
        Of the first, coarsest run.
    max_steps : int
        Beyond which the last run counts whatever it agrees with.
    tolerance : float
        Relative difference of two variances that agree.
    seed : int
        Of the noise in the start.
    """

    outputs = ("variance",)
    space = Space(
        (
            Continuous("a", 0.1, 5.0),
            Continuous("b", 0.1, 5.0),
            Continuous("diffusion_u", 0.01, 5.0),
            Continuous("diffusion_v", 0.01, 5.0),
        )
    )

    def __init__(
        self,
        cells: int = 64,
        steps: int = 250,
        max_steps: int = 16_000,
        tolerance: float = 1e-3,
        seed: int = 0,
    ) -> None:
        if cells < 5 or steps < 1 or max_steps < steps:
            raise UserError(
                "cells must be at least 5 and max_steps at least steps, "
                f"found {cells}, {steps} and {max_steps}"
            )
        self.cells, self.steps, self.max_steps = cells, steps, max_steps
        self.tolerance = tolerance
        generator = torch.Generator().manual_seed(seed)
        self.noise = 0.1 * torch.randn(cells, cells, generator=generator, dtype=torch.float64)
        self._basis = cosine_basis(cells)
        self._laplace = laplace_eigenvalues(cells)

    @torch.no_grad()
    def evaluate(self, X: Tensor) -> Tensor:  # noqa: D102
        rows = X.reshape(-1, 4)
        found = self.variance(self.state(rows, self.steps))
        open_rows, steps = torch.arange(len(rows)), self.steps
        while len(open_rows) and 4 * steps <= self.max_steps:
            steps *= 4
            finer = self.variance(self.state(rows[open_rows], steps))
            agree = (finer - found[open_rows]).abs() <= self.tolerance * finer.abs()
            found[open_rows] = finer
            open_rows = open_rows[~agree]
        return found.reshape(*X.shape[:-1], 1)

    def variance(self, state: Tensor) -> Tensor:
        """Weighted variance (n,) of states (n, 2, cells, cells); NaN where a run overflowed."""
        weight = torch.ones(self.cells, self.cells, dtype=state.dtype)
        weight[2:-2, 2:-2] = 0.1
        return (state * weight).flatten(1).var(1)

    def state(self, X: Tensor, steps: int, start: Tensor | None = None) -> Tensor:
        """Concentrations (n, 2, cells, cells) at the end for codes X (n, 4).

        Parameters
        ----------
        X : Tensor (n, 4)
        steps : int
        start : Tensor (n, 2, cells, cells), optional
            Uniform with noise in v by default.
        """
        a, b, du, dv = (value[:, None, None] for value in X.unbind(-1))
        if start is None:
            start = torch.stack([a + 0.0 * self.noise, b / a + self.noise], dim=1)
        L = torch.stack([du * self._laplace - (b + 1.0), dv * self._laplace], dim=1)
        step = ExponentialStep.of(L, DURATION / steps)

        def reaction(w: Tensor, t: Tensor | float) -> Tensor:
            u, v = self._inverse(w).unbind(1)
            meeting = u * u * v
            return self._transform(torch.stack([a + meeting, b * u - meeting], dim=1))

        w = self._transform(start)
        for _ in range(steps):
            w = step.advance(w, reaction)
        return self._inverse(w)

    def _transform(self, field: Tensor) -> Tensor:
        return self._basis @ field @ self._basis.T

    def _inverse(self, field: Tensor) -> Tensor:
        return self._basis.T @ field @ self._basis
