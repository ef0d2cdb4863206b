r"""Interpolation of fields on cells by Gaussians and polynomials, linear in the field.

With :math:`\varphi(r) = \exp(-(\varepsilon r)^2)` and monomials :math:`q_k` of degree 6 and less,

.. math:: K(x) = \sum_j c_j\, \varphi(|x - x_j|) + \sum_k d_k\, q_k(x), \qquad
          K(x_i) = a_i, \quad \sum_j c_j\, q_k(x_j) = 0,

as smooth coefficients are read between cells in DGNO (arXiv 2502.06250), with
:math:`\varepsilon = 25`. The centres :math:`x_j` stay, so that the equations are solved once, for
all fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from understudy.models.operators.multionet import cell_points

EPSILON = 25.0
DEGREE = 6


@dataclass(frozen=True)
class RadialInterpolation:
    """Interpolation between fixed points.

    Parameters
    ----------
    centres : Tensor (n, 2), float64
    weights : Tensor (n + m, n), float64
        Coefficients c and d of a field's values, of which they are linear functions.
    """

    centres: Tensor
    weights: Tensor

    @classmethod
    def of(cls, centres: Tensor) -> RadialInterpolation:
        """Solve for the coefficients of every field at points ``(n, 2)``."""
        terms = _terms(centres, centres)
        n, m = len(centres), terms.shape[1] - len(centres)
        system = torch.zeros(n + m, n + m, dtype=torch.float64)
        system[:n], system[n:, :n] = terms, terms[:, n:].mT
        return cls(centres, torch.linalg.inv(system)[:, :n])

    def __call__(self, values: Tensor, x: Tensor) -> Tensor:
        """Fields ``(B, N)``, float64, at points ``(N, 2)`` of values ``(B, n)``."""
        x = x.to(self.centres)
        return (values.to(self.weights) @ self.weights.mT) @ _terms(x, self.centres).mT


def _terms(x: Tensor, centres: Tensor) -> Tensor:
    """Gaussians and monomials ``(N, n + m)`` at points ``(N, 2)`` of the unit square."""
    gaussians = torch.exp(-(EPSILON**2) * torch.cdist(x, centres).square())
    first, second = (2.0 * x - 1.0).unbind(1)
    powers = [(i, j) for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)]
    monomials = torch.stack([first**i * second**j for i, j in powers], 1)
    return torch.cat([gaussians, monomials], 1)


@lru_cache(maxsize=8)
def cell_interpolation(shape: tuple[int, ...]) -> RadialInterpolation:
    """Interpolation between the centres of the cells of the unit square."""
    return RadialInterpolation.of(cell_points(shape))


def interpolated(fields: Tensor, x: Tensor) -> Tensor:
    """Values ``(B, N)`` of fields ``(B, n, n)`` on cells at points ``(N, 2)``, no gradient."""
    shape: Sequence[int] = fields.shape[1:]
    found = cell_interpolation(tuple(shape))(fields.detach().flatten(1).cpu(), x.detach().cpu())
    return found.to(fields)
