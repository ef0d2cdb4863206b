r"""The heat equation between walls of constant temperature, in one and two dimensions.

.. math:: u_t = \kappa \Delta u \text{ on } (0, 1)^d, \qquad u = u_0 \text{ at } t = 0, \qquad
    u = u_w \text{ on wall } w

With central differences at n nodes inside, sines make :math:`\kappa\Delta_h` diagonal, and each
amplitude follows :math:`c' = -\lambda c + g` with g from the walls. A step of length h is

.. math:: c^+ = \frac{c + h g}{1 + h\lambda}, \qquad
    c^+ = \frac{(1 - h\lambda/2)\, c + h g}{1 + h\lambda/2}, \qquad
    c^+ = e^{-h\lambda} c + \frac{1 - e^{-h\lambda}}{\lambda}\, g

for implicit Euler (order 1, the scheme of the heat study of online training, arXiv 2306.16133),
Crank-Nicolson (order 2, oscillates where a wall jumps) and the exact solution of the differences.
Temperatures U(100, 500) and 100 steps of 0.01 are those of that study, as far as it is known. The
implicit schemes can also be solved as linear systems :math:`(1 + h\kappa\theta L)\, u^+ = \dots`
with :math:`L = -\Delta_h`, by any solver: sines are faster, but a solver that one wants to try, or
to trust elsewhere, meets a problem with a known answer here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from understudy.core.differences import poisson_matrix
from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.linear_solver import LinearSolver, SolverName, SPDOperator, solver_of
from understudy.core.simulator import FieldSimulator, Parameters
from understudy.core.space import Continuous, Space
from understudy.simulate.pde.bases import sine_basis

Scheme: TypeAlias = Literal["implicit_euler", "crank_nicolson", "exact"]
_WALLS = ("left", "right", "bottom", "top")


class Heat(FieldSimulator):
    """Temperature at the nodes inside an interval or a square.

    Parameters
    ----------
    points : int
        Nodes inside, along each axis.
    dimensions : {1, 2}
    steps : int
        Outputs after the first.
    time_step : float
        Between outputs, and of the scheme.
    diffusivity : float
    scheme : {"implicit_euler", "crank_nicolson", "exact"}
    solver : {"sines", "direct", "cg"} or LinearSolver
        How an implicit step is solved. Others than ``"sines"`` get a sparse matrix, and the runs as
        right-hand sides; a run that does not converge is NaN from then on.
    """

    channels = ("temperature",)

    def __init__(
        self,
        points: int = 64,
        dimensions: int = 2,
        steps: int = 100,
        time_step: float = 0.01,
        diffusivity: float = 1.0,
        scheme: Scheme = "implicit_euler",
        solver: Literal["sines"] | SolverName | LinearSolver = "sines",
    ) -> None:
        if dimensions not in (1, 2):
            raise UserError(f"dimensions must be 1 or 2, found {dimensions}")
        if scheme not in ("implicit_euler", "crank_nicolson", "exact"):
            raise UserError(
                f"scheme must be 'implicit_euler', 'crank_nicolson' or 'exact', found {scheme!r}"
            )
        if steps < 1 or not time_step > 0 or not diffusivity > 0:
            raise UserError(
                "steps must be at least 1, time_step and diffusivity positive, "
                f"found {steps}, {time_step:g} and {diffusivity:g}"
            )
        self.grid = Grid.of(*[points] * dimensions, placement="interior")
        self.steps, self.time_step = steps, time_step
        self.diffusivity, self.scheme = diffusivity, scheme
        names = ("initial", *_WALLS[: 2 * dimensions])
        self.space = Space(tuple(Continuous(name, 100.0, 500.0, unit="K") for name in names))
        self._basis = sine_basis(points)
        self._solver = None if solver == "sines" else solver_of(solver)
        if self._solver is not None and scheme == "exact":
            raise UserError("scheme 'exact' is solved by sines only")

    def times(self, params: Parameters) -> Tensor:  # noqa: D102
        runs = len(self.values(params)["initial"])
        return (self.time_step * torch.arange(self.steps + 1, dtype=torch.float64)).repeat(runs, 1)

    def initial(self, params: Parameters) -> Tensor:  # noqa: D102
        return self._uniform(self.values(params))

    def _uniform(self, values: dict[str, Tensor]) -> Tensor:
        level = values["initial"].reshape(-1, *[1] * (1 + len(self.grid.shape)))
        return level.expand(-1, 1, *self.grid.shape)

    def _march(self, values: dict[str, Tensor], start: Tensor | None) -> Iterator[Tensor]:
        field = self._uniform(values) if start is None else start
        yield field
        if self._solver is not None:
            yield from self._solved(self._solver, values, field)
            return
        keep, gain = self._step()
        c, g = self._transform(field), self._transform(self._walls(values))
        for _ in range(self.steps):
            c = keep * c + gain * g
            yield self._transform(c)

    def _solved(
        self, solver: LinearSolver, values: dict[str, Tensor], field: Tensor
    ) -> Iterator[Tensor]:
        """Steps as linear systems; columns are runs."""
        n, h = self.grid.shape[0], self.time_step
        L = self.diffusivity * (n + 1) ** 2 * poisson_matrix(self.grid.shape)
        share = 1.0 if self.scheme == "implicit_euler" else 0.5
        one = sp.eye_array(L.shape[0], format="csr")
        A, known = SPDOperator(one + h * share * L), one - h * (1.0 - share) * L
        source = h * self._walls(values).flatten(1).numpy().T
        u = field.flatten(1).expand(source.shape[1], -1).numpy().T
        for _ in range(self.steps):
            result = solver.solve(A, known @ u + source)
            u = np.where(result.converged, result.x, np.nan)
            yield torch.from_numpy(u.T.copy()).reshape(-1, 1, *self.grid.shape)
            u = np.nan_to_num(u)

    def _step(self) -> tuple[Tensor, Tensor]:
        """Factors of c and of g in a step."""
        n, h = self.grid.shape[0], self.time_step
        k = torch.arange(1, n + 1, dtype=torch.float64)
        one = 4.0 * (n + 1) ** 2 * torch.sin(math.pi * k / (2 * (n + 1))) ** 2
        rate = self.diffusivity * (one if len(self.grid.shape) == 1 else one[:, None] + one)
        if self.scheme == "implicit_euler":
            return 1.0 / (1.0 + h * rate), h / (1.0 + h * rate)
        if self.scheme == "crank_nicolson":
            return (1.0 - h * rate / 2) / (1.0 + h * rate / 2), h / (1.0 + h * rate / 2)
        return torch.exp(-h * rate), -torch.expm1(-h * rate) / rate

    def _walls(self, values: dict[str, Tensor]) -> Tensor:
        """What the walls add to the differences ``(B, 1, *space)``."""
        d, n = len(self.grid.shape), self.grid.shape[0]
        total = torch.zeros(1, 1, *self.grid.shape, dtype=torch.float64)
        for i, name in enumerate(_WALLS[: 2 * d]):
            axis, end = i // 2, -(i % 2)
            touched = torch.zeros(n, dtype=torch.float64)
            touched[end] = self.diffusivity * (n + 1) ** 2
            beside = touched.reshape([n if a == axis else 1 for a in range(d)])
            total = total + values[name].reshape(-1, 1, *[1] * d) * beside
        return total

    def _transform(self, field: Tensor) -> Tensor:
        """To amplitudes of sines, and back."""
        along = field @ self._basis
        return along if len(self.grid.shape) == 1 else self._basis @ along
