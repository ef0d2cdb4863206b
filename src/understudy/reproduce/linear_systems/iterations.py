"""Right-hand sides of four kinds, and how many iterations solvers need for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from understudy.core.differences import poisson_matrix
from understudy.core.linear_solver import Array, SolveResult, SPDOperator, conjugate_gradients
from understudy.models.inverse.dcdm import DeepConjugateDirection
from understudy.models.inverse.krylov import IncompleteCholesky, deflated_cg
from understudy.models.inverse.ritz import RitzVectors

TOLERANCE, TEST_SEED, DEFLATED = 1e-4, 1_000_000, 16

Iterations = Mapping[str, Array]
"""Iterations of each right-hand side, by their kind."""

Quotient = Callable[[Iterations, Iterations], float]


def right_hand_sides(A: SPDOperator, shape: tuple[int, ...], count: int) -> dict[str, Array]:
    """Right-hand sides ``(n, count)`` of four kinds, none of them of the training law."""
    draw = np.random.default_rng(TEST_SEED)
    white = draw.standard_normal((A.n, count))
    axes = np.stack(np.meshgrid(*((np.arange(m) + 0.5) / m for m in shape), indexing="ij"))
    axes = axes[..., None]
    ends = (len(shape), *[1] * len(shape), count)
    waves = np.prod(np.sin(np.pi * draw.integers(1, 4, ends) * axes), axis=0)
    distance = np.sqrt(((axes - draw.uniform(0.2, 0.8, ends)) ** 2).sum(0))
    smooth = waves + (distance < draw.uniform(0.1, 0.3, count))
    point = np.zeros((A.n, count))
    point[draw.integers(0, A.n, count), np.arange(count)] = 1.0
    return {
        "white noise": white,
        "A times white noise": A.apply(white),
        "smooth and a disc": smooth.reshape(A.n, count),
        "point source": point,
    }


def by_kind(
    sides: Mapping[str, Array], solve: Callable[[Array], SolveResult]
) -> tuple[dict[str, Array], SolveResult]:
    """Solve all kinds at once; iterations of each, those of what did not converge infinite."""
    result = solve(np.concatenate(list(sides.values()), axis=1))
    iterations = np.where(result.converged, result.iterations, np.inf)
    ends = np.cumsum([b.shape[1] for b in sides.values()])[:-1]
    return dict(zip(sides, np.split(iterations, ends), strict=True)), result


def mean_by_kind(iterations: Iterations) -> dict[str, float]:
    """Mean iterations of each kind."""
    return {kind: float(found.mean()) for kind, found in iterations.items()}


def least_quotient(above: Iterations, below: Iterations) -> float:
    """Smallest quotient of mean iterations over the kinds."""
    return min(mean_by_kind(above)[kind] / mean_by_kind(below)[kind] for kind in above)


def quotient_of_all(above: Iterations, below: Iterations) -> float:
    """Quotient of the iterations of all right-hand sides together."""
    first, second = (float(np.concatenate(list(x.values())).mean()) for x in (above, below))
    return first / second


def in_words(iterations: Iterations) -> str:
    """Say the mean iterations of each kind."""
    return ", ".join(f"{kind} {mean:.3g}" for kind, mean in mean_by_kind(iterations).items())


JUDGED: tuple[tuple[Quotient, str, str], ...] = (
    (quotient_of_all, "all right-hand sides together", "all four kinds together"),
    (least_quotient, "every kind by itself", "worst of four kinds"),
)


@dataclass(frozen=True)
class Course:
    """Iterations on one grid, by every solver that needs no table of seconds."""

    cg: Iterations
    dcdm: Mapping[int, Iterations]

    def gain(self, seed: int, of: Quotient = least_quotient) -> float:
        """Iterations of CG over those of the network of a seed."""
        return of(self.cg, self.dcdm[seed])

    def said(self) -> str:
        """Mean iterations of CG and of the first seed, by kind."""
        first = self.dcdm[min(self.dcdm)]
        return f"CG {in_words(self.cg)}; DCDM {in_words(first)} (first seed)"


def course_on(
    shape: tuple[int, ...], count: int, solvers: Mapping[int, DeepConjugateDirection]
) -> Course:
    """Solve `count` right-hand sides of each kind on a grid by CG and by the networks."""
    A = SPDOperator(poisson_matrix(shape))
    sides = right_hand_sides(A, shape, count)
    cg, _ = by_kind(sides, lambda b: conjugate_gradients(A, b, tol=TOLERANCE))
    dcdm = {
        seed: by_kind(sides, partial(solver.on(*shape).solve, A, tol=TOLERANCE))[0]
        for seed, solver in solvers.items()
    }
    return Course(cg, dcdm)


def rivals_on(shape: tuple[int, ...], count: int) -> dict[str, Iterations]:
    """Solve the same by conjugate gradients with IC(0) and with deflation."""
    A = SPDOperator(poisson_matrix(shape))
    sides = right_hand_sides(A, shape, count)
    M = IncompleteCholesky.of(A)
    W = RitzVectors.of(A, min(300, A.n)).lowest(DEFLATED)
    return {
        "IC(0)": by_kind(
            sides, lambda b: conjugate_gradients(A, b, tol=TOLERANCE, preconditioner=M)
        )[0],
        f"deflated by {DEFLATED}": by_kind(sides, lambda b: deflated_cg(A, b, W, tol=TOLERANCE))[0],
    }
