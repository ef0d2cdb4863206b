r"""Differences across the faces of the cells of a box, as sparse matrices.

Along an axis of m cells there are m + 1 faces; outside the box values are 0. With one D for each
axis, :math:`\sum D^\top D` is the matrix of second differences of Poisson's equation, whose values
vanish one cell beyond the last centres.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp


def face_differences(shape: Sequence[int]) -> list[sp.csr_array]:
    """Differences D across the faces of each axis, ``(faces, cells)``.

    Parameters
    ----------
    shape : sequence of int
        Cells along each axis; the last is the fastest.
    """
    found = []
    for axis, m in enumerate(shape):
        one = sp.diags_array([np.ones(m), -np.ones(m)], offsets=[0, -1], shape=(m + 1, m))
        before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        wide = sp.kron(sp.kron(sp.eye_array(before), one), sp.eye_array(after))
        found.append(sp.csr_array(wide))
    return found


def poisson_matrix(shape: Sequence[int]) -> sp.csr_array:
    """Second differences on a box, ``(cells, cells)``: 4 or 6 on the diagonal, -1 beside it."""
    parts = [D.T @ D for D in face_differences(shape)]
    return sp.csr_array(sum(parts[1:], start=parts[0]))
