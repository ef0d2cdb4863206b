r"""Waves in an elastic solid by finite elements: plane strain.

.. math:: \rho\, \partial_t^2 u = \nabla \cdot \sigma + \rho f, \qquad
    \sigma = \lambda (\nabla \cdot u) I + 2 \mu\, \varepsilon(u), \qquad
    \varepsilon(u) = \tfrac12 (\nabla u + \nabla u^T)

for a displacement u of two components. Pressure waves, without rotation, travel at
:math:`c_p = \sqrt{(\lambda + 2\mu)/\rho}`, shear waves, without divergence, at
:math:`c_s = \sqrt{\mu/\rho}`; rims turn one kind into the other. A rim is held (``zero``,
:math:`u = 0`), without traction (``free``, :math:`\sigma n = 0`) or frictionless against a wall
(``sliding``, :math:`u \cdot n = 0` and no traction along it).

With piecewise linear functions on triangles, assembled by scikit-fem, strains are constant on
each triangle; :math:`\lambda, \mu` and :math:`\rho` count with their means there. In time it
goes on by :mod:`understudy.simulate.undamped`: Newmark with the consistent mass, or central
differences with the lumped one, whose limit is some :math:`h/c_p`. Linear triangles lock where a
solid hardly changes volume, that is for :math:`c_p \gg c_s`.
"""

from __future__ import annotations

from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from understudy.core.errors import UserError
from understudy.simulate.triangles import (
    Array,
    Indices,
    at_nodes,
    nodes_of_rims,
    scikit_fem,
    triangles,
    weighted_blocks,
)
from understudy.simulate.undamped import UndampedSystem

Rim: TypeAlias = Literal["zero", "free", "sliding"]
RIMS = ("zero", "free", "sliding")


class ElasticFEM2D(UndampedSystem):
    """Elastic waves on a mesh of triangles, in one solid or several; fields are ``(..., 2, n)``.

    Needs scikit-fem (extra ``fields``).

    Parameters
    ----------
    mesh : int or skfem.MeshTri
        Squares along each side of the unit square, cut into triangles, or any mesh.
    pressure_speed, shear_speed : float, array (n,) or array (M, n)
        Speeds of both kinds of waves at the nodes, with :math:`3 c_p^2 > 4 c_s^2`, without which
        a solid is not stable.
    density : float, array (n,) or array (M, n)
    boundary : {"zero", "free", "sliding"}
        A rim slides only where it is parallel to an axis.

    Attributes
    ----------
    nodes : array (n, 2)
        Where they are. Of the unit square they are in rows of equal x, so that a component's
        values ``reshape(side + 1, side + 1)`` have x first.
    """

    def __init__(
        self,
        mesh: Any,
        pressure_speed: float | ArrayLike,
        shear_speed: float | ArrayLike,
        density: float | ArrayLike = 1.0,
        boundary: Rim = "free",
    ) -> None:
        if boundary not in RIMS:
            raise UserError(f"boundary must be one of {', '.join(RIMS)}, found {boundary!r}")
        made = triangles(mesh)
        self.nodes: Array = np.ascontiguousarray(made.p.T)
        self.boundary = boundary
        count = len(self.nodes)
        given = {
            "pressure_speed": pressure_speed,
            "shear_speed": shear_speed,
            "density": density,
        }
        c_p, c_s, rho = _together({k: at_nodes(v, count, k) for k, v in given.items()})
        if not bool((3 * c_p**2 > 4 * c_s**2).all()):
            raise UserError(
                "pressure_speed must be more than sqrt(4/3) times shear_speed; with less a solid "
                "gives way to compression"
            )
        skfem = scikit_fem()
        basis = skfem.Basis(made, skfem.ElementVector(skfem.ElementTriP1()))
        inertia, volume, shape = _forms(skfem)
        mu = rho * c_s**2
        weights = [values[:, made.t].mean(axis=1) for values in (rho, rho * c_p**2 - 2 * mu, mu)]
        inside = _moving(made, boundary)
        place = np.empty(2 * count, dtype=np.intp)
        place[basis.nodal_dofs] = np.arange(2 * count).reshape(2, count)
        local = [form.coo_data(basis) for form in (inertia, volume, shape)]
        M, lumped = weighted_blocks([(local[0], weights[0])], inside, place)
        K, _ = weighted_blocks(list(zip(local[1:], weights[1:], strict=True)), inside, place)
        super().__init__(M, K, lumped, inside, (2, count))

    @classmethod
    def of_lame(
        cls,
        mesh: Any,
        lame_lambda: float | ArrayLike,
        lame_mu: float | ArrayLike,
        density: float | ArrayLike = 1.0,
        boundary: Rim = "free",
    ) -> Self:
        r"""Solid of Lame's parameters :math:`\lambda` and :math:`\mu` instead of speeds."""
        lam, mu, rho = (np.asarray(v, np.float64) for v in (lame_lambda, lame_mu, density))
        if not bool((mu > 0).all()) or not bool((3 * lam + 2 * mu > 0).all()):
            raise UserError("lame_mu and 3 lame_lambda + 2 lame_mu must be positive")
        return cls(mesh, np.sqrt((lam + 2 * mu) / rho), np.sqrt(mu / rho), density, boundary)


def _forms(skfem: Any) -> tuple[Any, Any, Any]:
    r"""Forms of :math:`\rho`, :math:`\lambda` and :math:`\mu`, each 1."""
    from skfem.helpers import ddot, div, dot, sym_grad

    inertia = skfem.BilinearForm(lambda u, v, _: dot(u, v))
    volume = skfem.BilinearForm(lambda u, v, _: div(u) * div(v))
    shape = skfem.BilinearForm(lambda u, v, _: 2.0 * ddot(sym_grad(u), sym_grad(v)))
    return inertia, volume, shape


def _together(values: dict[str, Array]) -> list[Array]:
    """All for the same number of media ``(M, n)``."""
    media = {len(found) for found in values.values()} - {1}
    if len(media) > 1:
        sizes = ", ".join(f"{name} of {len(found)}" for name, found in values.items())
        raise UserError(f"media must be as many everywhere, found {sizes}")
    most = max(media, default=1)
    return [np.broadcast_to(found, (most, found.shape[1])) for found in values.values()]


def _moving(mesh: Any, boundary: Rim) -> Indices:
    """Degrees of freedom, of flat fields (2, n), that the rim does not hold."""
    count = mesh.p.shape[1]
    held = np.zeros((2, count), dtype=bool)
    if boundary == "zero":
        held[:, mesh.boundary_nodes()] = True
    elif boundary == "sliding":
        for component, nodes in enumerate(nodes_of_rims(mesh)):
            held[component, nodes] = True
    return np.flatnonzero(~held.ravel())
