r"""Waves of one frequency in a medium of random speed.

.. math:: -\Delta u - \frac{\omega^2}{c^2}\, u = f \text{ on } (0, 1)^2, \qquad
    \partial_n u = g \text{ at the top}, \qquad \partial_n u = 0 \text{ on the other sides}

With five-point differences on n x n cells the rows :math:`u_i` of cells satisfy
:math:`-u_{i-1} + T_i u_i - u_{i+1} = b_i`, which elimination by blocks solves without iterations,

.. math:: D_i = T_i - D_{i-1}^{-1}, \qquad b_i' = b_i + D_{i-1}^{-1} b_{i-1}', \qquad
    u_i = D_i^{-1} (b_i' + u_{i+1})

for all runs at once. The medium is that of De Hoop et al. (2022, arXiv 2203.13181), on which MgNO
(arXiv 2310.19809) is trained: :math:`\omega = 1000`, :math:`c = 20 + \tanh \tilde c` with
:math:`\tilde c \sim N(0, (-\Delta + 9 I)^{-2})` without flux and constant mode, g = 1 for
:math:`0.35 \le x \le 0.65` and 0 elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.simulator import FieldSimulator, Parameters
from understudy.core.space import Space
from understudy.simulate.pde.random_fields import square_field
from understudy.simulate.pde.semilinear import SEED

_RESIDUAL = 1e-6


class Helmholtz(FieldSimulator):
    r"""Displacement in a medium; ``inputs`` gives the speed.

    Parameters
    ----------
    points : int
        Cells along each axis; 101 nodes in the paper.
    frequency : float
        Omega; a wave is about :math:`40\\pi/\\omega` long.
    """

    channels = ("displacement",)
    space = Space((SEED,))

    def __init__(self, points: int = 64, frequency: float = 1000.0) -> None:
        if not frequency > 0:
            raise UserError(f"frequency must be positive, found {frequency:g}")
        cells = 2.0 * torch.pi * 19.0 / frequency * points
        if cells < 6.0:
            raise UserError(
                f"the shortest wave of frequency {frequency:g} would have {cells:.1f} cells of "
                f"{points} points, at least 6 are needed"
            )
        self.grid = Grid.of(points, points, placement="cells")
        self.frequency = frequency

    def times(self, params: Parameters) -> Tensor:  # noqa: D102
        return torch.zeros(len(self.values(params)["seed"]), 1, dtype=torch.float64)

    def initial(self, params: Parameters) -> Tensor:
        """Zeros; a start changes nothing."""
        return torch.zeros(len(self.times(params)), 1, *self.grid.shape, dtype=torch.float64)

    def inputs(self, params: Parameters) -> dict[str, Tensor]:
        """Speed c ``(B, n, n)``."""
        return {"speed": self._speed(self.values(params)["seed"])}

    def _speed(self, seed: Tensor) -> Tensor:
        return 20.0 + square_field(seed, self.grid.shape[0], 1.0, 3.0, 2.0).tanh()

    def _march(self, values: dict[str, Tensor], start: Tensor | None) -> Iterator[Tensor]:
        x, _ = self.grid.axes()
        g = ((x >= 0.35) & (x <= 0.65)).to(torch.float64)
        square = (self.frequency / self._speed(values["seed"])) ** 2
        source = torch.zeros_like(square)
        source[..., -1] = g * len(x)  # flux through the top over the height of a cell
        yield solve_helmholtz(square, source).unsqueeze(1)


def solve_helmholtz(square: Tensor, f: Tensor) -> Tensor:
    r"""Solve :math:`-\Delta u - s u = f` without flux through the sides of the unit square.

    Parameters
    ----------
    square, f : Tensor (B, n, n), float64
        Squares s of wavenumbers and sources in cells; negative s are possible.

    Returns
    -------
    Tensor (B, n, n), NaN for a run whose residual is not below 1e-6 of its sources.
    """
    n = square.shape[-1]
    ends = torch.zeros(n, dtype=torch.float64)
    ends[0] = ends[-1] = 1.0  # no flux: a cell at a side has a neighbour less
    neighbours = torch.diag(torch.ones(n - 1, dtype=torch.float64), 1)
    neighbours = neighbours + neighbours.T
    diagonal = 4.0 - ends - ends[:, None] - square / n**2
    b = f / n**2
    inverse = torch.linalg.inv(torch.diag_embed(diagonal[:, 0]) - neighbours)
    inverses, sources = [inverse], [b[:, 0]]
    for i in range(1, n):
        sources.append(b[:, i] + (inverse @ sources[-1].unsqueeze(-1)).squeeze(-1))
        inverse = torch.linalg.inv(torch.diag_embed(diagonal[:, i]) - neighbours - inverse)
        inverses.append(inverse)
    rows = [torch.zeros_like(b[:, 0])]
    for i in range(n - 1, -1, -1):
        rows.append((inverses[i] @ (sources[i] + rows[-1]).unsqueeze(-1)).squeeze(-1))
    u = torch.stack(rows[:0:-1], dim=1)
    zero = torch.nn.functional.pad(u, (1, 1, 1, 1))
    around = zero[:, 2:, 1:-1] + zero[:, :-2, 1:-1] + zero[:, 1:-1, 2:] + zero[:, 1:-1, :-2]
    residual = (diagonal * u - around - b).flatten(1).norm(dim=1)
    good = residual <= _RESIDUAL * b.flatten(1).norm(dim=1)
    return torch.where(good[:, None, None], u, torch.nan)
