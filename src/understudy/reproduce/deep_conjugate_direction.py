r"""Claims of the deep conjugate direction method (Kaneda et al. 2023, arXiv 2205.10763), measured.

Two-dimensional networks are trained here, on the Ritz vectors of one small empty box with air
around it; the three-dimensional one is that of the package, whose file holds its log. Right-hand
sides are of four kinds, none of the training law: white noise, A times white noise, a smooth field
with a disc, a point source; behind obstacles they are divergences of simulated smoke. Tolerances
are relative to the first residual and everything starts from 0. Seconds are those of the processor,
of one thread.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from understudy.core.differences import poisson_matrix
from understudy.core.errors import UserError
from understudy.core.executor import executor
from understudy.core.linalg import one_thread
from understudy.core.linear_solver import (
    Array,
    SolveResult,
    SPDOperator,
    conjugate_gradients,
)
from understudy.models.inverse.comparison import Timing, compare, timed
from understudy.models.inverse.dcdm import DeepConjugateDirection, learn_solver
from understudy.models.inverse.krylov import IncompleteCholesky, deflated_cg
from understudy.models.inverse.pretrained import RECIPES, pretrained
from understudy.models.inverse.ritz import RitzVectors
from understudy.models.operators.training import Training
from understudy.reproduce.claims import Claim, Scale
from understudy.simulate.pde.pressure import Smoke, obstacles, pressure_matrix

TOLERANCE, TIGHT = 1e-4, 1e-8
_MOST, _MOST_TIMED = 1000, 300
_DEFLATED = 16
_TEST_SEED = 1_000_000


@dataclass(frozen=True)
class _Size:
    """What a scale spends: the grid of training and its Ritz vectors, and the grids of the tests.

    `count` right-hand sides of each kind on the grids `small`, `mid`, `large`; obstacles fill
    `shares` of the grid `mid`; seconds are measured on squares and cubes. So many `workers` train a
    network each at a time; `plain` of the seeds are also trained without the emphasis.
    """

    points: int
    ritz: int
    steps: int
    seeds: int
    count: int
    mid: int
    large: int
    cube: int
    shares: tuple[float, ...]
    squares: tuple[int, ...]
    cubes: tuple[int, ...]
    deflated: int
    smoke: tuple[int, ...] = (10, 20, 30)
    device: str = "cpu"
    workers: int = 1
    plain: int = 1


_SIZES = {
    Scale.SMOKE: _Size(12, 60, 150, 1, 2, 16, 20, 8, (0.0, 0.2), (8, 16), (6, 8), 300, (2, 4)),
    Scale.CPU: _Size(
        points=32,
        ritz=800,
        steps=4600,
        seeds=3,
        count=8,
        mid=64,
        large=128,
        cube=32,
        shares=(0.0, 0.05, 0.1, 0.2, 0.3),
        squares=(32, 64, 128, 256, 512),
        cubes=(32, 48, 64),
        deflated=33_000,
        workers=2,
        plain=2,
    ),
    Scale.PAPER: _Size(
        points=128,
        ritz=8000,
        steps=200_000,
        seeds=3,
        count=16,
        mid=256,
        large=512,
        cube=128,
        shares=(0.0, 0.05, 0.1, 0.2, 0.3),
        squares=(128, 256, 512, 1024),
        cubes=(64, 128, 192),
        deflated=300_000,
        device="cuda",
        plain=3,
    ),
}

Iterations = Mapping[str, Array]
"""Iterations of each right-hand side, by their kind."""

Quotient = Callable[[Iterations, Iterations], float]


def run(scale: Scale, seed: int) -> list[Claim]:
    """Measure the claims.

    Parameters
    ----------
    scale : Scale
        ``cpu`` trains on 32 x 32 cells for 4600 steps a network, ``paper`` on 128 x 128 for
        200,000 on a GPU.
    seed : int
        Of the first repetition; the others follow it.
    """
    size = _SIZES[scale]
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
            *_obstacles(size, boosted),
            *_seconds(size, boosted[seed], seed),
        ]


def _learnt(size: _Size, seed: int, boost: float) -> DeepConjugateDirection:
    shape = (size.points, size.points)
    A, plan = poisson_matrix(shape), _training(size, seed)
    return replace(learn_solver(A, shape, plan, size.ritz, boost=boost), maxiter=_MOST)


def _training(size: _Size, seed: int) -> Training:
    """Adam from 1e-3 down to 2e-5, 10 fresh residuals a step: as the shipped network is trained."""
    return replace(
        RECIPES["2d"].training,
        steps=size.steps,
        seed=seed,
        device=size.device,
        interrupt="raise",
    )


# -- right-hand sides -----------------------------------------------------------------------


def right_hand_sides(A: SPDOperator, shape: tuple[int, ...], count: int) -> dict[str, Array]:
    """Right-hand sides ``(n, count)`` of four kinds, none of them of the training law."""
    draw = np.random.default_rng(_TEST_SEED)
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


def _by_kind(
    sides: Mapping[str, Array], solve: Callable[[Array], SolveResult]
) -> tuple[dict[str, Array], SolveResult]:
    """Solve all kinds at once; iterations of each, those of what did not converge infinite."""
    result = solve(np.concatenate(list(sides.values()), axis=1))
    iterations = np.where(result.converged, result.iterations, np.inf)
    ends = np.cumsum([b.shape[1] for b in sides.values()])[:-1]
    return dict(zip(sides, np.split(iterations, ends), strict=True)), result


def _mean(iterations: Iterations) -> dict[str, float]:
    return {kind: float(found.mean()) for kind, found in iterations.items()}


def _worst(above: Iterations, below: Iterations) -> float:
    """Smallest quotient of mean iterations over the kinds."""
    return min(_mean(above)[kind] / _mean(below)[kind] for kind in above)


def _together(above: Iterations, below: Iterations) -> float:
    """Quotient of the iterations of all right-hand sides together."""
    first, second = (float(np.concatenate(list(x.values())).mean()) for x in (above, below))
    return first / second


def _quotient(above: float, below: float) -> float:
    """Quotient of two gains; not a number where the first did not converge."""
    return above / below if below > 0.0 else math.nan


def _said(iterations: Iterations) -> str:
    return ", ".join(f"{kind} {mean:.3g}" for kind, mean in _mean(iterations).items())


_JUDGED: tuple[tuple[Quotient, str, str], ...] = (
    (_together, "all right-hand sides together", "all four kinds together"),
    (_worst, "every kind by itself", "worst of four kinds"),
)


@dataclass(frozen=True)
class _Course:
    """Iterations on one grid, by every solver that needs no table of seconds."""

    cg: Iterations
    dcdm: Mapping[int, Iterations]

    def gain(self, seed: int, of: Quotient = _worst) -> float:
        return of(self.cg, self.dcdm[seed])

    def said(self) -> str:
        first = self.dcdm[min(self.dcdm)]
        return f"CG {_said(self.cg)}; DCDM {_said(first)} (first seed)"


def _course(
    shape: tuple[int, ...], count: int, solvers: Mapping[int, DeepConjugateDirection]
) -> _Course:
    A = SPDOperator(poisson_matrix(shape))
    sides = right_hand_sides(A, shape, count)
    cg, _ = _by_kind(sides, lambda b: conjugate_gradients(A, b, tol=TOLERANCE))
    dcdm = {
        seed: _by_kind(sides, partial(solver.on(*shape).solve, A, tol=TOLERANCE))[0]
        for seed, solver in solvers.items()
    }
    return _Course(cg, dcdm)


# -- claims ---------------------------------------------------------------------------------


def _iterations(size: _Size, solvers: Mapping[int, DeepConjugateDirection]) -> list[Claim]:
    n, m, large = size.points, size.mid, size.large
    small, mid, wide = (
        _course((side, side), count, solvers)
        for side, count in ((n, size.count), (m, size.count), (large, max(1, size.count // 2)))
    )
    losses = ", ".join(f"{solver.facts['loss']:.4f}" for solver in solvers.values())
    trained = f"{size.steps} steps, held-out loss {losses}"
    rivals = _preconditioned((m, m), size.count)
    worst = {s: max(_mean(mid.dcdm[s]).values()) for s in solvers}
    widest = {s: max(_mean(wide.dcdm[s]).values()) for s in solvers}
    fewer = {s: min(_worst(rival, mid.dcdm[s]) for rival in rivals.values()) for s in solvers}
    named = "; ".join(f"{name} {_said(rival)}" for name, rival in rivals.items())
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
            for of, said, judged in _JUDGED
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


def _preconditioned(shape: tuple[int, ...], count: int) -> dict[str, Iterations]:
    A = SPDOperator(poisson_matrix(shape))
    sides = right_hand_sides(A, shape, count)
    M = IncompleteCholesky.of(A)
    W = RitzVectors.of(A, min(300, A.n)).lowest(_DEFLATED)
    return {
        "IC(0)": _by_kind(
            sides, lambda b: conjugate_gradients(A, b, tol=TOLERANCE, preconditioner=M)
        )[0],
        f"deflated by {_DEFLATED}": _by_kind(sides, lambda b: deflated_cg(A, b, W, tol=TOLERANCE))[
            0
        ],
    }


def _in_space(size: _Size) -> list[Claim]:
    solver = replace(pretrained("3d"), maxiter=_MOST)
    seed = int(solver.facts["seed"])
    shape = (size.cube,) * 3
    course = _course(shape, max(1, size.count // 4), {seed: solver})
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


def _conjugacy(size: _Size, solvers: Mapping[int, DeepConjugateDirection]) -> list[Claim]:
    shape = (size.mid, size.mid)
    with_two = _course(shape, size.count, solvers).dcdm
    without = _course(shape, size.count, {s: replace(x, q=0) for s, x in solvers.items()}).dcdm
    first = min(solvers)
    return [
        Claim.over_seeds(
            {s: of(without[s], with_two[s]) for s in solvers},
            statement=f"Conjugacy with former directions matters, {named}",
            paper_figure="ablation (from memory)",
            metric=f"iterations with q = 0 over those with q = 2, {size.mid}^2, {judged}",
            bar=2.0,
            direction="at least",
            reason=f"q = 0: {_said(without[first])}; q = 2: {_said(with_two[first])}",
        )
        for of, named, judged in _JUDGED
    ]


def _tight(size: _Size, solvers: Mapping[int, DeepConjugateDirection]) -> list[Claim]:
    shape = (size.mid, size.mid)
    A = SPDOperator(poisson_matrix(shape))
    sides = right_hand_sides(A, shape, size.count)
    reached, once, told = {}, {}, []
    for seed, solver in solvers.items():
        iterations, result = _by_kind(sides, partial(solver.on(*shape).solve, A, tol=TIGHT))
        b = np.concatenate(list(sides.values()), axis=1)
        left = np.linalg.norm(b - A.apply(result.x), axis=0) / np.linalg.norm(b, axis=0)
        reached[seed] = float(left.max())
        once[seed] = float(result.residuals[1].mean())
        told.append(_said(iterations))
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
    size: _Size,
    boosted: Mapping[int, DeepConjugateDirection],
    plain: Mapping[int, DeepConjugateDirection],
) -> Claim:
    kind, values, told = "smooth and a disc", {}, ""
    for side in (size.mid, size.points):
        shape = (side, side)
        more, less = (_course(shape, size.count, some).dcdm for some in (plain, boosted))
        values = {s: _mean(more[s])[kind] / _mean(less[s])[kind] for s in plain}
        told = f"{told}; {side} x {side}: " + ", ".join(
            f"{_mean(more[s])[kind]:.3g} and {_mean(less[s])[kind]:.3g}" for s in plain
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


def _obstacles(size: _Size, solvers: Mapping[int, DeepConjugateDirection]) -> list[Claim]:
    """Divergences of smoke behind discs, boxes and blobs, which no network was trained on."""
    done: dict[int, list[float]] = {s: [] for s in solvers}
    ratio: dict[int, dict[float, float]] = {s: {} for s in solvers}
    rows = []
    for share in size.shares:
        cg: list[float] = []
        own: dict[int, list[float]] = {s: [] for s in solvers}
        for kind in ("discs", "boxes", "blobs"):
            solid = obstacles((size.mid, size.mid), share, kind, _TEST_SEED)
            A = SPDOperator(pressure_matrix(solid))
            frames = list(Smoke(solid).run(max(size.smoke), runs=2, seed=_TEST_SEED))
            b = np.concatenate([frames[t - 1].divergence for t in size.smoke], axis=1)
            cg.append(conjugate_gradients(A, b, tol=TOLERANCE).iterations.mean())
            for s, solver in solvers.items():
                result = solver.on(size.mid, size.mid).solve(A, b, tol=TOLERANCE)
                own[s].append(result.iterations.mean())
                done[s].append(result.converged.mean())
        for s in solvers:
            ratio[s][share] = float(np.mean(cg) / np.mean(own[s]))
        mine = np.mean([np.mean(own[s]) for s in solvers])
        rows.append(f"{share:.0%}: CG {np.mean(cg):.3g}, DCDM {mine:.3g}")
    curve = "; ".join(rows)
    asked = 0.2
    return [
        Claim.over_seeds(
            {s: float(np.mean(found)) for s, found in done.items()},
            statement="Trained on an empty box, it converges behind obstacles",
            paper_figure="smoke past a bunny, weights of the empty box (from memory)",
            metric="share of right-hand sides that reach 1e-4, up to 30 % of the cells solid",
            bar=1.0,
            direction="at least",
            reason=f"mean iterations by the share of solid cells: {curve}",
        ),
        Claim.over_seeds(
            {s: found[asked] for s, found in ratio.items()},
            statement="With a fifth of the cells solid it still needs no more iterations than CG",
            paper_figure="not the paper: a re-implementation saw CG overtake at 20 to 30 %",
            metric=f"iterations of CG over those of DCDM, 20 % solid, {size.mid} x {size.mid}",
            bar=1.0,
            direction="at least",
            reason=f"mean iterations by the share of solid cells: {curve}",
        ),
    ]


# -- seconds --------------------------------------------------------------------------------


def _seconds(size: _Size, solver: DeepConjugateDirection, seed: int) -> list[Claim]:
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
    shape: tuple[int, ...], solver: DeepConjugateDirection, size: _Size
) -> dict[str, Timing]:
    A = SPDOperator(poisson_matrix(shape))
    b = right_hand_sides(A, shape, 1)["smooth and a disc"]
    found = compare(A, b, solver, TOLERANCE, time.process_time)
    if size.deflated >= A.n:
        found.append(
            timed(
                f"deflated by {_DEFLATED}",
                lambda: RitzVectors.of(A, min(200, A.n)).lowest(_DEFLATED),
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
