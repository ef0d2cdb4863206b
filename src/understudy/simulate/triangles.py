"""Meshes of triangles, by scikit-fem, and what media and rims mean on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from understudy.core.errors import UserError

Array: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.intp]

_PARALLEL = 1e-9


def scikit_fem() -> Any:
    """Return the package, or say which extra brings it."""
    try:
        import skfem
    except ImportError as error:
        raise UserError(
            "waves by finite elements need scikit-fem; install it with "
            "pip install 'understudy[fields]'"
        ) from error
    return skfem


def triangles(mesh: Any) -> Any:
    """Mesh of the unit square of so many squares a side, or the mesh that is given.

    The nodes of the square are in rows of equal x.
    """
    if not isinstance(mesh, int):
        return mesh
    if mesh < 2:
        raise UserError(f"a mesh needs at least 2 squares a side, found {mesh}")
    skfem = scikit_fem()
    side = np.linspace(0.0, 1.0, mesh + 1)
    made = skfem.MeshTri.init_tensor(side, side)
    order = np.lexsort((made.p[1], made.p[0]))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return skfem.MeshTri(
        np.ascontiguousarray(made.p[:, order]), np.ascontiguousarray(place[made.t])
    )


def at_nodes(value: float | ArrayLike, count: int, name: str) -> Array:
    """Positive values ``(M, n)`` of a number, one medium ``(n,)`` or several ``(M, n)``."""
    found = np.asarray(value, dtype=np.float64)
    if found.ndim == 0:
        found = np.full(count, float(found))
    if found.shape[-1] != count or found.ndim > 2:
        raise UserError(f"{name} has shape {found.shape}, the mesh has {count} nodes")
    if not bool((found > 0).all()):
        raise UserError(f"{name} must be positive")
    return found.reshape(-1, count)


def weighted_blocks(
    terms: Sequence[tuple[Any, Array]], inside: Indices, place: Indices | None = None
) -> tuple[Any, Array]:
    """Blocks of a sparse matrix, one a medium, and the row sums of each before rows are left out.

    Parameters
    ----------
    terms : sequence of (COO data of a form, array (M, triangles))
        Local matrices and the weight of each on each triangle; they are summed.
    inside : array of int
        Rows and columns that stay.
    place : array of int, optional
        New number of each degree of freedom.

    Returns
    -------
    csr_array (M I, M I), array (M I,)
    """
    from scipy import sparse

    number: Callable[[Any], Any] = (lambda k: k) if place is None else place.__getitem__
    first = terms[0][0]
    rows, columns = (number(index) for index in first.indices)
    blocks, sums = [], []
    for medium in range(len(terms[0][1])):
        values = sum(
            local.data.reshape(-1, weights.shape[1]) * weights[medium] for local, weights in terms
        )
        whole = sparse.csr_array((np.ravel(values), (rows, columns)))
        blocks.append(whole[inside][:, inside])
        sums.append(np.asarray(whole.sum(axis=1))[inside])
    return sparse.block_diag(blocks, format="csr"), np.concatenate(sums)


def nodes_of_rims(mesh: Any) -> list[Indices]:
    """Nodes on rims of constant x, and on rims of constant y, of a mesh with no other rims."""
    facets = mesh.facets[:, mesh.boundary_facets()]
    run = np.abs(mesh.p[:, facets[1]] - mesh.p[:, facets[0]])  # (2, facets)
    along = run < _PARALLEL * run.sum(axis=0)
    if not bool(along.any(axis=0).all()):
        raise UserError("a rim slides only along the axes; this mesh has rims that are oblique")
    return [np.unique(facets[:, flat]) for flat in along]
