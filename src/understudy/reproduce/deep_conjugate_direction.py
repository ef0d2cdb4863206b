r"""Claims of the deep conjugate direction method (Kaneda et al. 2023, arXiv 2205.10763), measured.

Two-dimensional networks are trained here, on the Ritz vectors of one small empty box with air
around it; the three-dimensional one is that of the package, whose file holds its log. Right-hand
sides are of four kinds, none of the training law: white noise, A times white noise, a smooth field
with a disc, a point source; behind obstacles they are divergences of simulated smoke. Tolerances
are relative to the first residual and everything starts from 0. Seconds are those of the processor,
of one thread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from understudy.core.differences import poisson_matrix
from understudy.core.executor import executor
from understudy.core.linalg import one_thread
from understudy.core.linear_solver import SPDOperator
from understudy.models.inverse.dcdm import DeepConjugateDirection, learn_solver
from understudy.models.inverse.pretrained import RECIPES, pretrained
from understudy.models.operators.training import Training
from understudy.reproduce.claims import Claim, Scale
from understudy.reproduce.linear_systems.behind_obstacles import behind_obstacles
from understudy.reproduce.linear_systems.iterations import (
    JUDGED,
    by_kind,
    course_on,
    in_words,
    least_quotient,
    mean_by_kind,
    right_hand_sides,
    rivals_on,
)
from understudy.reproduce.linear_systems.seconds import in_seconds
from understudy.reproduce.linear_systems.sizes import SIZES, Size

TIGHT, _MOST = 1e-8, 1000


def run(scale: Scale, seed: int) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``cpu`` trains on 32 x 32 cells for 1500 steps a network, ``paper`` on 128 x 128 for
        200,000 on a GPU.
    seed : int
        Of the first repetition; the others follow it.
    """
    size = SIZES[scale]
    seeds = range(seed, seed + size.seeds)
    with executor("local", size.workers) as pool:
        with_emphasis = {s: pool.submit(_learnt, size, s, 9.0) for s in seeds}
        without = {s: pool.submit(_learnt, size, s, 1.0) for s in seeds[: size.plain]}
        boosted = {s: job.result() for s, job in with_emphasis.items()}
        plain = {s: job.result() for s, job in without.items()}
    with one_thread():
        return [
            *_iterations(size, boosted),
            *_in_space(size),
            *_conjugacy(size, boosted),
            *_tight(size, boosted),
            _boost(size, boosted, plain),
            *behind_obstacles(size, boosted),
            *in_seconds(size, boosted[seed], seed),
        ]


def _learnt(size: Size, seed: int, boost: float) -> DeepConjugateDirection:
    shape = (size.points, size.points)
    A, plan = poisson_matrix(shape), _training(size, seed)
    return replace(learn_solver(A, shape, plan, size.ritz, boost=boost), maxiter=_MOST)


def _training(size: Size, seed: int) -> Training:
    """SOAP from 3e-3 down to 6e-5, 10 fresh residuals a step: as the shipped network is trained."""
    return replace(
        RECIPES["2d"].training,
        steps=size.steps,
        seed=seed,
        device=size.device,
        interrupt="raise",
    )


def _iterations(size: Size, solvers: Mapping[int, DeepConjugateDirection]) -> list[Claim]:
    n, m, large = size.points, size.mid, size.large
    small, mid, wide = (
        course_on((side, side), count, solvers)
        for side, count in ((n, size.count), (m, size.count), (large, max(1, size.count // 2)))
    )
    losses = ", ".join(f"{solver.facts['loss']:.4f}" for solver in solvers.values())
    trained = f"{size.steps} steps, held-out loss {losses}"
    rivals = rivals_on((m, m), size.count)
    worst = {s: max(mean_by_kind(mid.dcdm[s]).values()) for s in solvers}
    widest = {s: max(mean_by_kind(wide.dcdm[s]).values()) for s in solvers}
    fewer = {
        s: min(least_quotient(rival, mid.dcdm[s]) for rival in rivals.values()) for s in solvers
    }
    named = "; ".join(f"{name} {in_words(rival)}" for name, rival in rivals.items())
    return [
        Claim.over_seeds(
            {s: small.gain(s) for s in solvers},
            statement="Far fewer iterations than conjugate gradients, on the grid of training",
            paper_figure="some 16 iterations to 4 digits where CG needs hundreds (from memory)",
            metric=f"iterations of CG over those of DCDM to 1e-4, {n} x {n}, worst of four kinds",
            bar=4.0,
            direction="at least",
            reason=f"{small.said()}; {trained}",
        ),
        Claim.over_seeds(
            worst,
            statement="Weights serve a grid of twice as many points a side",
            paper_figure="figures on 128 and 256 points with weights of 64 (from memory)",
            metric=f"mean iterations to 1e-4, {m} x {m}, worst of four kinds",
            bar=12.0,
            direction="at most",
            reason=mid.said(),
        ),
        *(
            Claim.over_seeds(
                {s: _quotient(mid.gain(s, of), small.gain(s, of)) for s in solvers},
                statement=f"The lead over conjugate gradients rises with the grid, {said}",
                paper_figure="as above",
                metric=f"CG over DCDM at {m} x {m}, over that at {n} x {n}, {judged}",
                bar=1.0,
                direction="at least",
                reason="iterations as in the claims above",
            )
            for of, said, judged in JUDGED
        ),
        Claim.over_seeds(
            widest,
            statement="Weights serve a grid of four times as many points a side",
            paper_figure="as above",
            metric=f"mean iterations to 1e-4, {large} x {large}, worst of four kinds",
            bar=40.0,
            direction="at most",
            reason=wide.said(),
        ),
        Claim.over_seeds(
            fewer,
            statement="Fewer iterations than IC(0)-preconditioned and deflated conjugate gradients",
            paper_figure="several dozen iterations of either at 64 to 128 points (from memory)",
            metric=f"iterations of the better rival over DCDM's, {m} x {m}, worst of four kinds",
            bar=1.0,
            direction="at least",
            reason=named,
        ),
    ]


def _in_space(size: Size) -> list[Claim]:
    solver = replace(pretrained("3d"), maxiter=_MOST)
    seed = int(solver.facts["seed"])
    shape = (size.cube,) * 3
    course = course_on(shape, max(1, size.count // 4), {seed: solver})
    box = " x ".join(map(str, solver.facts["grid"]))
    return [
        Claim.over_seeds(
            {seed: course.gain(seed)},
            statement="Far fewer iterations than conjugate gradients in three dimensions",
            paper_figure="some 16 iterations to 4 digits where CG needs hundreds (from memory)",
            metric=f"iterations of CG over those of DCDM to 1e-4, {size.cube}^3, worst of four",
            bar=4.0,
            direction="at least",
            reason=f"{course.said()}; trained on {box} for {solver.facts['steps']} steps",
        )
    ]


def _conjugacy(size: Size, solvers: Mapping[int, DeepConjugateDirection]) -> list[Claim]:
    alone = {s: replace(x, q=0) for s, x in solvers.items()}
    (without, with_two), (wide_without, wide) = (
        [course_on((side, side), count, some).dcdm for some in (alone, solvers)]
        for side, count in ((size.mid, size.count), (size.large, max(1, size.count // 2)))
    )
    first = min(solvers)
    return [
        Claim.over_seeds(
            {s: of(without[s], with_two[s]) for s in solvers},
            statement=f"Conjugacy with former directions matters, {named}",
            paper_figure="ablation (from memory)",
            metric=f"iterations with q = 0 over those with q = 2, {size.mid}^2, {judged}",
            bar=2.0,
            direction="at least",
            reason=(
                f"q = 0: {in_words(without[first])}; q = 2: {in_words(with_two[first])}; "
                f"{size.large}^2: {np.mean([of(wide_without[s], wide[s]) for s in solvers]):.3g}"
            ),
        )
        for of, named, judged in JUDGED
    ]


def _tight(size: Size, solvers: Mapping[int, DeepConjugateDirection]) -> list[Claim]:
    shape = (size.mid, size.mid)
    A = SPDOperator(poisson_matrix(shape))
    sides = right_hand_sides(A, shape, size.count)
    reached, once, told = {}, {}, []
    for seed, solver in solvers.items():
        iterations, result = by_kind(sides, partial(solver.on(*shape).solve, A, tol=TIGHT))
        b = np.concatenate(list(sides.values()), axis=1)
        left = np.linalg.norm(b - A.apply(result.x), axis=0) / np.linalg.norm(b, axis=0)
        reached[seed] = float(left.max())
        once[seed] = float(result.residuals[1].mean())
        told.append(in_words(iterations))
    return [
        Claim.over_seeds(
            reached,
            statement="It converges to any tolerance",
            paper_figure="figures of convergence (from memory)",
            metric=f"largest norm of b - A x over that of b, asked for 1e-8, {size.mid}^2",
            bar=TIGHT,
            direction="at most",
            reason=f"iterations to 1e-8: {told[0]} (first seed)",
        ),
        Claim.over_seeds(
            once,
            statement="One evaluation of the network does not",
            paper_figure="property of networks",
            metric="the same after one evaluation with the best step, mean",
            bar=0.05,
            direction="at least",
            reason="a trial of the method had 0.05 to 1",
        ),
    ]


def _boost(
    size: Size,
    boosted: Mapping[int, DeepConjugateDirection],
    plain: Mapping[int, DeepConjugateDirection],
) -> Claim:
    kind, values, told = "smooth and a disc", {}, ""
    for side in (size.mid, size.points):
        shape = (side, side)
        more, less = (course_on(shape, size.count, some).dcdm for some in (plain, boosted))
        values = {s: mean_by_kind(more[s])[kind] / mean_by_kind(less[s])[kind] for s in plain}
        told = f"{told}; {side} x {side}: " + ", ".join(
            f"{mean_by_kind(more[s])[kind]:.3g} and {mean_by_kind(less[s])[kind]:.3g}"
            for s in plain
        )
    return Claim.over_seeds(
        values,
        statement="Training residuals with nine times more of the low half of the spectrum matter",
        paper_figure="section on training data (from memory)",
        metric="iterations without over those with, smooth right-hand sides, the grid of training",
        bar=1.5,
        direction="at least",
        reason=f"without and with, by seed{told}",
    )


def _quotient(above: float, below: float) -> float:
    """Quotient of two gains; not a number where the first did not converge."""
    return above / below if below > 0.0 else math.nan
