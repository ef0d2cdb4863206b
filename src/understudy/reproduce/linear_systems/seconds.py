"""Claims of processor time, of one thread, beside solvers that need no training."""

from __future__ import annotations

import importlib
import time
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from understudy.core.differences import poisson_matrix
from understudy.core.errors import UserError
from understudy.core.linear_solver import Array, SolveResult, SPDOperator
from understudy.models.inverse.comparison import Timing, compare, timed
from understudy.models.inverse.dcdm import DeepConjugateDirection
from understudy.models.inverse.krylov import deflated_cg
from understudy.models.inverse.pretrained import pretrained
from understudy.models.inverse.ritz import RitzVectors
from understudy.reproduce.claims import Claim
from understudy.reproduce.linear_systems.iterations import DEFLATED, TOLERANCE, right_hand_sides
from understudy.reproduce.linear_systems.sizes import Size

_MOST_TIMED = 300


def in_seconds(size: Size, solver: DeepConjugateDirection, seed: int) -> list[Claim]:
    """Measure on squares with a trained network, on cubes with that of the package."""
    plane, space = (replace(s, maxiter=_MOST_TIMED) for s in (solver, pretrained("3d")))
    squares = {n: _timings((n, n), plane.on(n, n), size) for n in size.squares}
    cubes = {n: _timings((n,) * 3, space.on(n, n, n), size) for n in size.cubes}
    claims = []
    for table, power in ((squares, 2), (cubes, 3)):
        gain = {n: row["CG"].seconds / row["DCDM"].seconds for n, row in table.items()}
        first, last = min(table), max(table)
        said = "; ".join(
            f"{n}^{power}: " + ", ".join(map(str, row.values())) for n, row in table.items()
        )
        claims += [
            Claim.over_seeds(
                {seed: gain[last] / gain[first]},
                statement=f"The gain in time over CG grows with the grid, {power} dimensions",
                paper_figure="speed-ups grow with N, on a GPU (from memory)",
                metric=f"processor time of CG over DCDM's, {last}^{power} over {first}^{power}",
                bar=1.0,
                direction="at least",
                reason="seconds as in the next claim",
            ),
            Claim.over_seeds(
                {seed: gain[last]},
                statement=f"It is faster than CG on the largest grid, {power} dimensions",
                paper_figure="speed-ups on a GPU (from memory)",
                metric=f"processor time of CG over DCDM's to 1e-4, {last}^{power}, one thread",
                bar=1.0,
                direction="at least",
                reason=f"processor time, smooth right-hand side, set-up + solution: {said}",
            ),
        ]
    return claims


def _timings(
    shape: tuple[int, ...], solver: DeepConjugateDirection, size: Size
) -> dict[str, Timing]:
    A = SPDOperator(poisson_matrix(shape))
    b = right_hand_sides(A, shape, 1)["smooth and a disc"]
    found = compare(A, b, solver, TOLERANCE, time.process_time)
    if size.deflated >= A.n:
        found.append(
            timed(
                f"deflated by {DEFLATED}",
                lambda: RitzVectors.of(A, min(200, A.n)).lowest(DEFLATED),
                lambda W: deflated_cg(A, b, W, tol=TOLERANCE),
                time.process_time,
            )
        )
    amg, matrix = _pyamg(), csr_matrix(A.matrix)
    for name, make in (
        ("AMG", amg.ruge_stuben_solver),
        ("SA-AMG", amg.smoothed_aggregation_solver),
    ):
        found.append(
            timed(name, partial(make, matrix), partial(_multigrid, b[:, 0]), time.process_time)
        )
    return {timing.name: timing for timing in found}


def _pyamg() -> Any:
    try:
        return importlib.import_module("pyamg")
    except ModuleNotFoundError as error:
        raise UserError("this measurement needs pyamg, of the extra 'baselines'") from error


def _multigrid(b: Array, hierarchy: Any) -> SolveResult:
    residuals: list[float] = []
    x = hierarchy.solve(b, tol=TOLERANCE, accel="cg", residuals=residuals)
    left = np.asarray(residuals) / residuals[0]
    return SolveResult(x, left, np.asarray(len(left) - 1), np.asarray(left[-1] < TOLERANCE))
