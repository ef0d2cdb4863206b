"""Sparse matrices from files."""

from __future__ import annotations

from pathlib import Path

import scipy.sparse as sp

from understudy.core.errors import UserError


def read_matrix(path: str | Path) -> sp.csr_array:
    """Read a sparse matrix: ``.npz`` of `scipy.sparse.save_npz`, or ``.mtx`` of Matrix Market.

    Raises
    ------
    UserError
        If the file is of neither kind, or damaged.
    """
    path = Path(path)
    name = path.name.lower()
    if not name.endswith((".npz", ".mtx", ".mtx.gz")):
        raise UserError(f"{path} is neither .npz of SciPy nor .mtx of Matrix Market")
    try:
        if name.endswith(".npz"):
            return sp.csr_array(sp.load_npz(path))
        from scipy.io import mmread

        return sp.csr_array(mmread(path))
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except Exception as error:  # what a damaged archive or text raises is not documented
        said = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise UserError(f"{path} holds no sparse matrix: {said}") from error
