r"""Which inputs matter: Sobol' indices of a function of independent inputs, by Monte Carlo.

For inputs uniform over a `Space` (on the logarithmic scale where an input is logarithmic),
the share of the variance of :math:`f` that input i explains alone, and with all its interactions:

.. math:: S_i = \frac{\mathrm{Var}\,E[f \mid x_i]}{\mathrm{Var}\,f}, \qquad
          T_i = \frac{E\,\mathrm{Var}[f \mid x_{\sim i}]}{\mathrm{Var}\,f}.

With matrices A and B of n independent rows and :math:`A_B^{(i)}`, which is A with column i of B
(Saltelli et al. 2010, Comput. Phys. Commun. 181, 259-270, table 2, estimators b and f),

.. math:: S_i \approx \frac{\tfrac1n \sum f(B)\,\bigl(f(A_B^{(i)}) - f(A)\bigr)}{V}, \qquad
          T_i \approx \frac{\tfrac1{2n} \sum \bigl(f(A) - f(A_B^{(i)})\bigr)^2}{V},

f centred, V its variance over A and B. Every output shares the evaluations, and a bootstrap
replicate is a reweighting of rows, so that all replicates are one matrix product.

Where f is the mean of a surrogate, whole functions :math:`f_s` drawn from its posterior say how far
the indices could be from those of the mean (Le Gratiet, Cannamela & Iooss 2014, SIAM/ASA J.
Uncertainty Quantification 2, 336-363). Replicate r of an index S is then

.. math:: S_r[f] + \bigl(S[f_s] - S[f]\bigr), \qquad s = r \bmod \text{draws},

a bootstrap replicate with all rows, plus a difference on few rows, in which most of the Monte Carlo
error cancels. Intervals are of these replicates, and reach to the estimate where it lies outside:
functions the runs do not rule out vary more than their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.space import Continuous, Space

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

MONTE_CARLO = "Monte Carlo error only; the surrogate's own error is not in the intervals"
IN_PART = "Monte Carlo error and part of the surrogate's own uncertainty: trees do not tell it"
WITH_SURROGATE = "Monte Carlo error and the surrogate's own uncertainty"

DRAW_ROWS = 128
"""Rows of the base matrices at which drawn functions are evaluated."""

_ROWS_AT_ONCE = 32_768
_COLUMNS_AT_ONCE = 2_000


def sobol_indices(
    predict: Callable[[Tensor], Floats],
    space: Space,
    n: int = 1024,
    seed: int = 0,
    *,
    targets: Sequence[str] | None = None,
    draws: Callable[[Tensor], Floats] | None = None,
    drawn: ArrayLike | None = None,
    draw_rows: int = DRAW_ROWS,
    level: float = 0.95,
    replicates: int = 200,
) -> pd.DataFrame:
    """First and total Sobol' indices of every output, with intervals.

    Parameters
    ----------
    predict : callable
        Maps points (rows, d) in code units to outputs (rows, m): a surrogate's mean. Evaluated at
        n (d + 2) points.
    space : Space
        Independent inputs; each whole number and choice is equally likely.
    n : int
        Rows of a base matrix; a power of two keeps the Sobol' sequence balanced.
    seed : int
        Of the scrambled sequence and of the bootstrap.
    targets : sequence of str, optional
        Names of the outputs; their numbers 0, 1, ... otherwise.
    draws : callable, optional
        Maps points (rows, d) to the same s whole functions at every call, (s, rows, m). Given
        them, the intervals hold the surrogate's own uncertainty as well.
    drawn : array (m,), optional
        Which share of each output's uncertainty the functions have; 1 by default.
    draw_rows : int
        Rows of the base matrices at which functions are evaluated, at most.
    level : float in (0, 1)
        Coverage of the percentile intervals.
    replicates : int
        Bootstrap replicates.

    Returns
    -------
    DataFrame
        Columns target, input, first, first_low, first_high, total, total_low, total_high, and
        interval, which says what the intervals hold. Indices of an output that does not vary are
        0. Small indices can come out slightly negative.
    """
    if n < 2:
        raise UserError(f"n, the rows of a base matrix, must be at least 2, found {n}")
    A, B = _base_matrices(space, n, seed)
    values = _evaluate(lambda X: np.asarray(predict(X)).reshape(1, len(X), -1), A, B)
    counts = _bootstrap_counts(n, replicates, seed)
    estimates = [index[0, 0] for index in indices(*values, np.ones((1, n)))]
    clouds = [index[0] for index in indices(*values, counts)]
    shares = np.zeros(values[0].shape[-1]) if draws is None else np.ones(values[0].shape[-1])
    if draws is not None:
        shares = shares if drawn is None else np.asarray(drawn, dtype=np.float64)
        apart = _apart(values, draws, A, B, min(n, draw_rows))
        for cloud, differences in zip(clouds, apart, strict=True):
            cloud += differences[np.arange(replicates) % len(differences)]
    tail = 0.5 * (1.0 - level)
    columns = []
    for estimate, cloud in zip(estimates, clouds, strict=True):
        low, high = np.quantile(cloud, [tail, 1.0 - tail], axis=0)
        columns += [estimate, np.minimum(low, estimate), np.maximum(high, estimate)]
    table = _table(space.names, targets, tuple(columns))
    held = [MONTE_CARLO if s <= 0 else WITH_SURROGATE if s >= 0.999 else IN_PART for s in shares]
    return table.assign(interval=np.repeat(np.asarray(held, dtype=object), len(space)))


def held(table: pd.DataFrame) -> str:
    """Say what the intervals of a table hold, output by output where they differ."""
    if "interval" not in table or table.empty:
        return MONTE_CARLO
    outputs = table.groupby("interval", sort=False)["target"].unique()
    if len(outputs) == 1:
        return str(outputs.index[0])
    return "; ".join(f"{kind} ({', '.join(map(str, of))})" for kind, of in outputs.items())


def _apart(
    values: tuple[Floats, Floats, Floats],
    draws: Callable[[Tensor], Floats],
    A: Tensor,
    B: Tensor,
    rows: int,
) -> tuple[Floats, Floats]:
    """How far the indices of drawn functions are from those of the mean, (s, d, m) each."""
    once = np.ones((1, rows))
    fA, fB, fAB = (part[..., :rows, :] for part in values)
    mean = indices(fA, fB, fAB, once)
    functions = indices(*_evaluate(draws, A[:rows], B[:rows]), once)
    first, total = (f[:, 0] - m[0] for f, m in zip(functions, mean, strict=True))
    return first, total


def indices(fA: Floats, fB: Floats, fAB: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Estimate first and total indices under row weights.

    Parameters
    ----------
    fA, fB : array (s, n, m)
        Values of s functions at the rows of A and of B.
    fAB : array (s, d, n, m)
        Values at the rows of the d mixed matrices.
    counts : array (r, n)
        How often each replicate holds each row; n in sum.

    Returns
    -------
    first, total : array (s, r, d, m)
    """
    s, d, n, m = fAB.shape
    first, total = (np.empty((s, len(counts), d, m)) for _ in range(2))
    weights = counts / n
    for f in range(s):
        centre = (fA[f].sum(0) + fB[f].sum(0) + fAB[f].sum((0, 1))) / (n * (d + 2))
        a, b = fA[f] - centre, fB[f] - centre
        mean = 0.5 * weights @ (a + b)  # (r, m)
        variance = 0.5 * weights @ (np.square(a) + np.square(b)) - np.square(mean)
        varies = variance > 1e-20 * (np.square(centre) + np.square(a).max(0))
        safe = np.where(varies, variance, 1.0)
        step = max(1, _COLUMNS_AT_ONCE // m)
        for start in range(0, d, step):
            change = fAB[f, start : start + step] - fA[f]  # (j, n, m)
            alone = np.tensordot(weights, b * change, (1, 1))  # (r, j, m)
            whole = 0.5 * np.tensordot(weights, np.square(change), (1, 1))
            keep = np.s_[f, :, start : start + step]
            first[keep] = np.where(varies[:, None], alone / safe[:, None], 0.0)
            total[keep] = np.where(varies[:, None], whole / safe[:, None], 0.0)
    return first, total


def _base_matrices(space: Space, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """A and B, (n, d) in code units, halves of one scrambled Sobol' sequence."""
    from scipy.stats.qmc import Sobol

    sequence = Sobol(d=2 * len(space), scramble=True, rng=np.random.default_rng(seed))
    U = torch.from_numpy(sequence.random_base2((n - 1).bit_length())[:n])
    return _codes(space, U[:, : len(space)]), _codes(space, U[:, len(space) :])


def _codes(space: Space, U: Tensor) -> Tensor:
    """Codes of uniform points (n, d): whole numbers and choices in equal shares."""
    lower, upper = space.bounds
    stepped = lower + torch.minimum((U * (upper - lower + 1.0)).floor(), upper - lower)
    smooth = torch.tensor([isinstance(item, Continuous) for item in space])
    return torch.where(smooth, space.from_unit(U), stepped)


def _evaluate(
    functions: Callable[[Tensor], Floats], A: Tensor, B: Tensor
) -> tuple[Floats, Floats, Floats]:
    """Values (s, n, m) at A and B and (s, d, n, m) at the mixed matrices, some blocks at a time."""
    n, d = A.shape
    with torch.no_grad():
        fA, fB = np.split(np.asarray(functions(torch.cat([A, B])), dtype=np.float64), 2, axis=1)
        parts = []
        for block in torch.arange(d).split(max(1, _ROWS_AT_ONCE // (n * len(fA)))):
            mixed = A.repeat(len(block), 1, 1)
            mixed[torch.arange(len(block)), :, block] = B[:, block].T
            found = np.asarray(functions(mixed.reshape(-1, d)), dtype=np.float64)
            parts.append(found.reshape(len(fA), len(block), n, -1))
    return fA, fB, np.concatenate(parts, axis=1)


def _bootstrap_counts(n: int, replicates: int, seed: int) -> Floats:
    generator = np.random.default_rng(seed)
    return generator.multinomial(n, np.full(n, 1.0 / n), size=replicates).astype(np.float64)


def _table(
    inputs: list[str], targets: Sequence[str] | None, columns: tuple[Floats, ...]
) -> pd.DataFrame:
    """Long table of columns (d, m), outputs outermost."""
    import pandas as pd

    d, m = columns[0].shape
    names = np.arange(m) if targets is None else np.asarray(targets, dtype=object)
    heads = ("first", "first_low", "first_high", "total", "total_low", "total_high")
    values = {head: column.T.reshape(-1) for head, column in zip(heads, columns, strict=True)}
    return pd.DataFrame({"target": np.repeat(names, d), "input": inputs * m, **values})
