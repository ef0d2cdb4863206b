r"""Darcy flow through a random medium.

.. math:: -\nabla \cdot (a \nabla u) = f \text{ on } (0, 1)^2, \qquad u = 0 \text{ on the boundary}

Finite volumes: through the face between cells i and j flows :math:`a_{ij} (u_i - u_j)` with the
harmonic mean :math:`a_{ij} = 2 a_i a_j/(a_i + a_j)`, and through a face of the boundary
:math:`2 a_i u_i`.
The equations of all runs are solved together by conjugate gradients with the Poisson equation,
which sines of cells make diagonal, as preconditioner: the condition is at most the contrast of a,
at every resolution. Any other solver can be given.

Media: ``smooth`` is that of the Fourier neural operator (Li et al. 2020, arXiv 2010.08895), a = 12
where a field :math:`N(0, (-\Delta + 9 I)^{-2})` without flux is positive and 3 elsewhere; ``rough``
the same with :math:`\tau = 20`, for pieces of some 1/20; ``two-phase`` is 10 where a field
:math:`N(0, (-\Delta + 25 I)^{-3})` is positive and 5 elsewhere; ``multiscale`` is
:math:`\prod_{k=1}^6 (1 + \tfrac12\cos a_k\pi(x + y))(1 + \tfrac12\sin a_k\pi(y - 3x))` with
:math:`a_k \sim U(2^{k-1}, 1.5 \cdot 2^{k-1})`. MgNO (arXiv 2310.19809) is trained on media of the
three kinds; exact laws of its rough and multiscale data are not known to us.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from understudy.core.differences import face_differences
from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.linear_solver import (
    Array,
    LinearSolver,
    OperatorFamily,
    SolverName,
    solver_of,
)
from understudy.core.simulator import FieldSimulator, Parameters
from understudy.core.space import Space
from understudy.simulate.pde.bases import cell_sine_basis
from understudy.simulate.pde.draws import uniform
from understudy.simulate.pde.random_fields import square_field
from understudy.simulate.pde.semilinear import SEED

Medium: TypeAlias = Literal["smooth", "rough", "multiscale", "two-phase", "cosines"]
MEDIA = ("smooth", "rough", "multiscale", "two-phase", "cosines")


class Darcy(FieldSimulator):
    """Pressure in a medium; ``inputs`` gives the coefficient.

    Parameters
    ----------
    points : int
        Cells along each axis.
    medium : {"smooth", "rough", "multiscale", "two-phase", "cosines"}
    source : float
        f, everywhere.
    refine : int
        Cells of the solver along each cell, an odd number, so that both have their centres in
        common; the coefficient is constant in a cell.
    solver : {"sines", "direct", "cg"} or LinearSolver
        ``"sines"`` are conjugate gradients with sines of cells as preconditioner, ``"cg"`` are
        plain. A solver of one's own gets a function that multiplies each run by its own matrix.
    """

    channels = ("pressure",)
    space = Space((SEED,))

    def __init__(
        self,
        points: int = 64,
        medium: Medium = "smooth",
        source: float = 1.0,
        refine: int = 1,
        solver: Literal["sines"] | SolverName | LinearSolver = "sines",
    ) -> None:
        if medium not in MEDIA:
            raise UserError(f"medium must be one of {', '.join(MEDIA)}, found {medium!r}")
        if refine < 1 or refine % 2 == 0:
            raise UserError(f"refine must be an odd number of cells, found {refine}")
        self.grid = Grid.of(points, points, placement="cells")
        self.medium, self.source, self.refine = medium, source, refine
        self._direct = solver == "direct"
        self._solver = None if solver == "sines" else solver_of(solver)

    def times(self, params: Parameters) -> Tensor:  # noqa: D102
        return torch.zeros(len(self.values(params)["seed"]), 1, dtype=torch.float64)

    def initial(self, params: Parameters) -> Tensor:
        """Zeros, from which the solution is sought."""
        return torch.zeros(len(self.times(params)), 1, *self.grid.shape, dtype=torch.float64)

    def inputs(self, params: Parameters) -> dict[str, Tensor]:
        """Coefficient a ``(B, n, n)``."""
        return {"coefficient": self._coefficient(self.values(params)["seed"])}

    def _coefficient(self, seed: Tensor) -> Tensor:
        n = self.grid.shape[0]
        if self.medium == "multiscale":
            x, y = torch.meshgrid(*self.grid.axes(), indexing="ij")
            k = torch.arange(6)
            scale = 2.0**k * (1.0 + 0.5 * uniform(seed, 8, k)) * math.pi
            scale = scale[:, :, None, None]
            waves = (1 + (scale * (x + y)).cos() / 2) * (1 + (scale * (y - 3 * x)).sin() / 2)
            return waves.prod(1)
        if self.medium == "cosines":
            return _cosines(seed, *self.grid.axes())
        if self.medium == "two-phase":
            field = square_field(seed, n, 1.0, 5.0, 3.0)
            return torch.where(field >= 0, 10.0, 5.0).to(torch.float64)
        field = square_field(seed, n, 1.0, 3.0 if self.medium == "smooth" else 20.0, 2.0)
        return torch.where(field >= 0, 12.0, 3.0).to(torch.float64)

    def _march(self, values: dict[str, Tensor], start: Tensor | None) -> Iterator[Tensor]:
        a = self._coefficient(values["seed"])
        m = self.refine
        a = a.repeat_interleave(m, 1).repeat_interleave(m, 2)
        guess = None
        if start is not None:
            guess = start[:, 0].repeat_interleave(m, 1).repeat_interleave(m, 2)
        f = torch.full_like(a, self.source)
        if self._solver is None:
            u = solve_darcy(a, f, guess)
        elif self._direct:
            u = _solve_at_once(self._solver, a, f)
        else:
            u = solve_darcy_by(self._solver, a, f)
        yield u[:, m // 2 :: m, m // 2 :: m].unsqueeze(1)


def _cosines(seed: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Coefficients ``(B, n, n)`` between 0.6 and 5.4, sums of three waves."""
    j = torch.arange(3)
    amplitude, phase = 1.6 * (uniform(seed, 9, j) - 0.5), 2.0 * math.pi * uniform(seed, 10, j)
    k, m = ((7.0 * uniform(seed, stream, j)).floor() - 3.0 for stream in (11, 12))
    along = (k[..., None] * x)[..., None] + (m[..., None] * y)[..., None, :]
    waves = torch.cos(math.pi * along + phase[..., None, None])
    return 3.0 + (amplitude[..., None, None] * waves).sum(1)


def solve_darcy(
    a: Tensor,
    f: Tensor,
    guess: Tensor | None = None,
    tolerance: float = 1e-10,
    max_iterations: int = 2000,
) -> Tensor:
    """Pressures ``(B, n, n)`` in cells of the unit square.

    Parameters
    ----------
    a, f : Tensor (B, n, n), float64
        Positive coefficients, and sources.
    guess : Tensor (B, n, n), optional
    tolerance : float
        Norm of the residual over that of f.
    max_iterations : int
        A run that has not converged by then is NaN.
    """
    if not bool((a > 0).all()):
        raise UserError("coefficients must be positive")
    n = a.shape[-1]
    # a run's first or last faces are walls, whose other side is as far as half a cell
    across = _faces(a)
    down = _faces(a.mT).mT
    basis = cell_sine_basis(n)
    k = torch.arange(1, n + 1, dtype=torch.float64)
    rate = 4.0 * torch.sin(math.pi * k / (2 * n)) ** 2
    rates = rate[:, None] + rate

    def apply(u: Tensor) -> Tensor:
        return _divergence(across, u) + _divergence(down.mT, u.mT).mT

    def precondition(r: Tensor) -> Tensor:
        return basis.T @ ((basis @ r @ basis.T) / rates) @ basis

    def dot(x: Tensor, y: Tensor) -> Tensor:
        return (x * y).sum((1, 2), keepdim=True)

    b = f / n**2
    u = torch.zeros_like(b) if guess is None else guess.to(b)
    r = b - apply(u)
    z = precondition(r)
    p, rz, goal = z, dot(r, z), tolerance**2 * dot(b, b)
    for _ in range(max_iterations):
        going = dot(r, r) > goal
        if not bool(going.any()):
            break
        flow = apply(p)
        step = torch.where(going, rz / dot(p, flow), 0.0)  # runs that are done stay as they are
        u, r = u + step * p, r - step * flow
        z = precondition(r)
        after = dot(r, z)
        p = torch.where(going, z + after / rz * p, p)
        rz = torch.where(going, after, rz)
    return torch.where(dot(r, r) > goal, torch.nan, u)


def solve_darcy_by(solver: LinearSolver, a: Tensor, f: Tensor) -> Tensor:
    """Pressures ``(B, n, n)`` by an iterative solver, each run with its own matrix.

    Parameters
    ----------
    solver : LinearSolver
    a, f : Tensor (B, n, n), float64
        Positive coefficients, and sources. A run that does not converge is NaN.
    """
    count, n = len(a), a.shape[-1]
    faces = torch.stack([_faces(a), _faces(a.mT)], dim=1)

    def apply(faces: Array, X: Array) -> Array:
        across, down = torch.from_numpy(faces).unbind(1)
        u = torch.from_numpy(X.T.copy()).reshape(-1, n, n)
        flow = _divergence(across, u) + _divergence(down, u.mT).mT
        return np.asarray(flow.reshape(len(u), -1).numpy().T)

    b = (f / n**2).reshape(count, -1).numpy().T
    result = solver.solve(OperatorFamily(apply, faces.numpy()), b)
    x = np.where(result.converged, result.x, np.nan)
    return torch.from_numpy(x.T.copy()).reshape(a.shape)


def _solve_at_once(solver: LinearSolver, a: Tensor, f: Tensor) -> Tensor:
    """All runs as one block-diagonal matrix."""
    n = a.shape[-1]
    across, down = _faces(a), _faces(a.mT).mT
    one = sp.eye_array(len(a), format="csr")
    terms = []
    for D, faces in zip(face_differences((n, n)), (down, across), strict=True):
        blocks = sp.csr_array(sp.kron(one, D))
        terms.append(blocks.T @ sp.diags_array(faces.reshape(-1).numpy()) @ blocks)
    x = solver.solve(sp.csr_array(terms[0] + terms[1]), (f / n**2).reshape(-1).numpy()).x
    return torch.from_numpy(x).reshape(a.shape)


class _Solution(torch.autograd.Function):
    """Pressures, differentiable in the coefficient by the adjoint equation."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, f: Tensor) -> Tensor:
        u = solve_darcy(a, f)
        ctx.save_for_backward(a, u)
        return u

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        a, u = ctx.saved_tensors
        adjoint = solve_darcy(a, gradients[0] * a.shape[-1] ** 2)
        with torch.enable_grad():
            leaf = a.detach().requires_grad_()
            flow = _divergence(_faces(leaf), u) + _divergence(_faces(leaf.mT), u.mT).mT
            (rate,) = torch.autograd.grad((adjoint * flow).sum(), leaf)
        return -rate, None


def darcy_solution(a: Tensor, f: Tensor) -> Tensor:
    r"""Pressures ``(B, n, n)`` as by :func:`solve_darcy`, with gradients in the coefficient.

    With :math:`A(a) u = b` and a function J of u, :math:`dJ/da = -\lambda^\top (dA/da)\, u` where
    :math:`A \lambda = dJ/du`: a gradient costs one more solution.
    """
    out: Tensor = _Solution.apply(a, f)
    return out


def _faces(a: Tensor) -> Tensor:
    """Conductances ``(B, n, n + 1)`` of the faces along the last axis."""
    inner = 2.0 * a[..., 1:] * a[..., :-1] / (a[..., 1:] + a[..., :-1])
    return torch.cat([2.0 * a[..., :1], inner, 2.0 * a[..., -1:]], dim=-1)


def _divergence(conductance: Tensor, u: Tensor) -> Tensor:
    """What flows out of cells along the last axis ``(B, n, n)``."""
    padded = torch.nn.functional.pad(u, (1, 1))
    flux = conductance * (padded[..., :-1] - padded[..., 1:])
    return flux[..., 1:] - flux[..., :-1]
