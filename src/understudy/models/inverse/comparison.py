"""Iterations and seconds of a learnt solver beside those of solvers that need no training."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from understudy.core.linear_solver import (
    Array,
    Operator,
    Preconditioner,
    SolveResult,
    SPDOperator,
    conjugate_gradients,
)
from understudy.models.inverse.dcdm import DeepConjugateDirection
from understudy.models.inverse.krylov import IncompleteCholesky, jacobi

T = TypeVar("T")
Clock = Callable[[], float]

_QUICK, _REPEATS = 0.5, 3


@dataclass(frozen=True)
class Timing:
    """What a solver took for some right-hand sides.

    Parameters
    ----------
    name : str
    iterations : float
        Mean over the right-hand sides.
    setup : float
        Seconds before the first of them can be solved, without training.
    seconds : float
        For all of them together; the fastest of three where that is quick.
    converged : bool
    """

    name: str
    iterations: float
    setup: float
    seconds: float
    converged: bool

    def __str__(self) -> str:
        before = f"{self.setup:.2g} + " if self.setup >= 1e-4 else ""
        lost = "" if self.converged else " (not converged)"
        return f"{self.name} {self.iterations:.3g} it., {before}{self.seconds:.2g} s{lost}"


def timed(
    name: str, prepare: Callable[[], T], solve: Callable[[T], SolveResult], clock: Clock
) -> Timing:
    """Time a set-up, and a solution with what it gave."""
    start = clock()
    prepared = prepare()
    setup = clock() - start
    times: list[float] = []
    while not times or (len(times) < _REPEATS and sum(times) < _QUICK):
        start = clock()
        result = solve(prepared)
        times.append(clock() - start)
    iterations, done = float(np.mean(result.iterations)), bool(np.all(result.converged))
    return Timing(name, iterations, setup, min(times), done)


def compare(
    A: Operator,
    b: Array,
    solver: DeepConjugateDirection,
    tol: float = 1e-4,
    clock: Clock = time.perf_counter,
) -> list[Timing]:
    """Conjugate gradients, plain and preconditioned by Jacobi and by IC(0), and a solver.

    Parameters
    ----------
    A : operator
        Where it is no matrix, the preconditioners are left out.
    b : array (n,) or (n, k)
    solver : DeepConjugateDirection
    tol : float in (0, 1)
    clock : callable
        Seconds; `time.process_time` is the fairer one on a busy machine, with one thread.
    """
    operator = SPDOperator.of(A, len(b))

    def plain(M: Preconditioner | None) -> SolveResult:
        return conjugate_gradients(operator, b, tol=tol, preconditioner=M)

    found = [timed("CG", lambda: None, plain, clock)]
    if operator.matrix is not None:
        found.append(timed("Jacobi", lambda: jacobi(operator), plain, clock))
        found.append(timed("IC(0)", lambda: IncompleteCholesky.of(operator), plain, clock))
    learnt = timed("DCDM", lambda: None, lambda _: solver.solve(operator, b, tol=tol), clock)
    return [*found, learnt]
