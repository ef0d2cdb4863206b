r"""Waves on a square by finite elements.

.. math:: \partial_t^2 u = \nabla \cdot (c^2 \nabla u) + f, \qquad
    u = 0 \ \text{or}\ \partial_n u = 0 \text{ on the boundary}

With piecewise linear functions on triangles, assembled by scikit-fem, and :math:`c^2` linear on
each of them, M u'' + K u = M f, which :mod:`understudy.simulate.undamped` carries on in time.
Waves of solids are those of :mod:`understudy.simulate.elastic`.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from understudy.core.errors import UserError
from understudy.simulate.triangles import (
    Array,
    at_nodes,
    scikit_fem,
    triangles,
    weighted_blocks,
)
from understudy.simulate.undamped import UndampedSystem

Boundary: TypeAlias = Literal["zero", "free"]


class WaveFEM2D(UndampedSystem):
    """Waves on a mesh of triangles, in one medium or in several; fields are ``(..., n)``.

    Needs scikit-fem (extra ``fields``).

    Parameters
    ----------
    mesh : int or skfem.MeshTri
        Squares along each side of the unit square, cut into triangles, or any mesh.
    speed : float, array (n,) or array (M, n)
        Speed c at the nodes of the mesh; positive.
    boundary : {"zero", "free"}

    Attributes
    ----------
    nodes : array (n, 2)
        Where they are. Of the unit square they are in rows of equal x, so that values
        ``reshape(side + 1, side + 1)`` have x first.
    """

    def __init__(
        self, mesh: Any, speed: float | ArrayLike = 1.0, boundary: Boundary = "zero"
    ) -> None:
        if boundary not in ("zero", "free"):
            raise UserError(f"boundary must be 'zero' or 'free', found {boundary!r}")
        made = triangles(mesh)
        self.nodes: Array = np.ascontiguousarray(made.p.T)
        self.boundary = boundary
        count = len(self.nodes)
        c = at_nodes(speed, count, "speed")
        skfem = scikit_fem()
        from skfem.models.poisson import laplace, mass

        # where the square of the speed is linear on a triangle, the local stiffness is that of
        # speed 1 times the mean square of its corners
        squares = (c**2)[:, made.t].mean(axis=1)  # (M, triangles)
        basis = skfem.Basis(made, skfem.ElementTriP1())
        inside = np.asarray(made.interior_nodes() if boundary == "zero" else np.arange(count))
        M, lumped = weighted_blocks([(mass.coo_data(basis), np.ones_like(squares))], inside)
        K, _ = weighted_blocks([(laplace.coo_data(basis), squares)], inside)
        super().__init__(M, K, lumped, inside, (count,))
