"""Where an acquisition function is largest, over continuous, discrete and mixed spaces."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from botorch.exceptions.errors import OptimizationGradientError
from botorch.generation.gen import gen_candidates_scipy
from torch import Tensor

from understudy.search.bayesopt.acquisition import Worth
from understudy.search.bayesopt.cube import Cube

EVERYWHERE = 2000
"""Configurations of a finite space up to which all of them are looked at."""

_POINTS = 4096  # evaluated at once


@dataclass(frozen=True)
class Search:
    """What a maximiser is given.

    Parameters
    ----------
    worth : callable
        Acquisition function, (b, q, d) to (b,).
    cube : Cube
    batch : int
        Points found together, q.
    centres : Tensor (k, d)
        Promising points, the best first.
    seen : Tensor (s, d)
        Points that were or are being run: proposed again only when no other is left.
    rng : numpy.random.Generator
    """

    worth: Worth
    cube: Cube
    batch: int
    centres: Tensor
    seen: Tensor
    rng: np.random.Generator

    @torch.no_grad()
    def values(self, U: Tensor) -> Tensor:
        """Return what batches (b, q, d) are worth, (b,), in chunks; nothing where that is NaN."""
        rows = max(1, _POINTS // U.shape[1])
        found = torch.cat([self.worth(part) for part in U.split(rows)])
        return found.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)

    def unseen(self, U: Tensor) -> Tensor:
        """Which batches (b, q, d) hold neither a point that was seen nor one twice, (b,)."""
        b, q, d = U.shape
        new = self.cube.new(U.reshape(-1, d), self.seen).reshape(b, q).all(1)
        gap = torch.cdist(U, U, p=float("inf")) + 2.0 * torch.eye(q, dtype=U.dtype)
        return new & (gap.amin((1, 2)) > 1e-9)

    def seed(self) -> int:
        """Return a fresh seed."""
        return int(self.rng.integers(2**31 - 1))


class Maximiser(Protocol):
    """Finds the q points (q, d) that are worth most together."""

    def __call__(self, search: Search) -> Tensor:
        """Return points (q, d) of the cube that are configurations."""
        ...


@dataclass(frozen=True)
class MultiStart:
    r"""Ascent from the best of many points, alternating with moves of discrete coordinates.

    Raw points are half quasi-random and half perturbations of promising points, of about twenty
    coordinates each and of sizes from a tenth to a thousandth: in many dimensions improvements lie
    near what is good already (Rashidi et al. 2024; Papenmeier et al. 2025, arXiv 2502.09198). The
    best, and some at random in favour of better ones, climb by L-BFGS along continuous coordinates;
    then each moves to its best neighbour in the discrete ones until none is better. Spaces of up to
    `EVERYWHERE` configurations are looked at as a whole.

    Parameters
    ----------
    restarts : int
    raw_samples : int
    iterations : int
        Of L-BFGS, each time.
    rounds : int
        Alternations at most.
    """

    restarts: int = 8
    raw_samples: int = 512
    iterations: int = 60
    rounds: int = 6

    def __call__(self, search: Search) -> Tensor:
        """Return the best points (q, d) found, new ones if there are any."""
        if search.batch == 1 and search.cube.size <= EVERYWHERE:
            return _first_unseen(search, search.cube.everywhere().unsqueeze(1))
        raw = self._raw(search)
        worth = search.values(raw)
        start = raw[_chosen(worth, self.restarts, search.rng)]
        found = self._climbed(search, start)
        return _first_unseen(search, torch.cat([found, raw[worth.topk(min(64, len(raw))).indices]]))

    def _raw(self, search: Search) -> Tensor:
        """Points to start from, (r, q, d)."""
        cube, q = search.cube, search.batch
        half = self.raw_samples // 2
        wide = cube.sobol(half * q, search.seed())
        exponent = search.rng.uniform(-3.0, -1.0, (half * q, 1))
        near = cube.around(search.centres, half * q, torch.from_numpy(10.0**exponent), search.rng)
        best = cube.nearest(search.centres[: self.restarts].clamp(0.0, 1.0))
        seeds = best.unsqueeze(1) if q == 1 else best[:0].reshape(0, q, cube.dimension)
        return torch.cat([part.reshape(-1, q, cube.dimension) for part in (wide, near, seeds)])

    def _climbed(self, search: Search, U: Tensor) -> Tensor:
        free = search.cube.free
        if bool(free.any()):
            U = search.cube.nearest(ascend(search, U, free, self.iterations))
        if bool((search.cube.levels == 0).all()):
            return U
        worth = search.values(U)
        for _ in range(self.rounds):
            moved, better = _best_neighbours(search, U, worth)
            if bool(free.any()):
                moved[better] = self._improved(search, moved[better], free)
            U, worth, before = moved, search.values(moved), worth
            if not bool((worth > before + 1e-9).any()):
                break
        return U

    def _improved(self, search: Search, U: Tensor, free: Tensor) -> Tensor:
        """Climb again, where rounding does not undo the gain."""
        if len(U) == 0:
            return U
        climbed = search.cube.nearest(ascend(search, U, free, self.iterations))
        better = search.values(climbed) > search.values(U)
        return torch.where(better[:, None, None], climbed, U)


@dataclass(frozen=True)
class RelaxAndRound:
    """Ascent as if every coordinate were continuous; discrete ones are rounded down at the end.

    The batch is that of the highest value after rounding. Defaults are those of Li et al. 2024
    (arXiv 2305.20028), which are few.

    Parameters
    ----------
    restarts : int
    raw_samples : int
    iterations : int
        Of L-BFGS.
    """

    restarts: int = 2
    raw_samples: int = 16
    iterations: int = 10

    def __call__(self, search: Search) -> Tensor:
        """Return the best of the rounded points, (q, d)."""
        d = search.cube.dimension
        engine = torch.quasirandom.SobolEngine(search.batch * d, scramble=True, seed=search.seed())
        raw = engine.draw(self.raw_samples, dtype=torch.float64).reshape(-1, search.batch, d)
        start = raw[_chosen(search.values(raw), self.restarts, search.rng)]
        smooth = search.cube.smooth
        found = ascend(search, start, smooth, self.iterations) if bool(smooth.any()) else start
        return _first_unseen(search, search.cube.floored(torch.cat([found, raw])), len(found))


def ascend(search: Search, U: Tensor, free: Tensor, iterations: int) -> Tensor:
    """Climb from batches (b, q, d) by L-BFGS along free coordinates (d,), each by itself.

    A batch comes back as it was where no better one is found.
    """

    def worth(X: Tensor) -> Tensor:
        return search.worth(torch.where(free, X, X.detach()))

    with warnings.catch_warnings(record=True):  # BoTorch would have them shown always
        try:
            found, value = gen_candidates_scipy(
                U, worth, lower_bounds=0.0, upper_bounds=1.0, options={"maxiter": iterations}
            )
        except OptimizationGradientError:  # not a number: the start is as good as it gets
            return U
    lost = ~torch.isfinite(value) | (value < search.values(U))
    return torch.where(lost[:, None, None], U, found.detach())


def _chosen(worth: Tensor, restarts: int, rng: np.random.Generator) -> Tensor:
    """Rows to start from: half the best, half at random with odds that grow with their value."""
    worth = worth.nan_to_num(nan=-torch.inf, neginf=-1e30)
    best = worth.argsort(descending=True, stable=True)
    sure = best[: (restarts + 1) // 2]
    rest = best[(restarts + 1) // 2 :]
    spread = worth[rest].std().clamp_min(1e-12) if len(rest) > 1 else torch.ones(())
    odds = worth[rest] / spread + torch.from_numpy(rng.gumbel(size=len(rest)))
    return torch.cat([sure, rest[odds.argsort(descending=True)[: restarts - len(sure)]]])


def _best_neighbours(search: Search, U: Tensor, worth: Tensor) -> tuple[Tensor, Tensor]:
    """Best neighbour of each batch (b, q, d) that is new and better; and which have one, (b,)."""
    b, q, d = U.shape
    moved = search.cube.nearest(search.cube.moves(search.rng).of(U))
    flat = moved.reshape(-1, q, d)
    values = search.values(flat).masked_fill(~search.unseen(flat), -torch.inf).reshape(b, -1)
    top, at = values.max(1)
    stuck = ~search.unseen(U)
    better = (top > worth + 1e-9) | (stuck & torch.isfinite(top))
    return torch.where(better[:, None, None], moved[torch.arange(b), at], U), better


def _first_unseen(search: Search, U: Tensor, preferred: int | None = None) -> Tensor:
    """Points (q, d) of the most valuable batch of (b, q, d) that is new, else of a random one.

    Of the first ``preferred`` batches the best is taken if it is new, before all others.
    """
    first = U[:preferred]
    for candidates in (first, U):
        new = candidates[search.unseen(candidates)]
        if len(new):
            return new[search.values(new).argmax()]
    q, d = U.shape[1:]
    fresh = search.cube.sobol(256 * q, search.seed()).reshape(-1, q, d)
    new = fresh[search.unseen(fresh)]
    if len(new) == 0 and q == 1 and search.cube.size <= 1e5:
        everywhere = search.cube.everywhere().unsqueeze(1)
        new = everywhere[search.unseen(everywhere)]
    candidates = new if len(new) else U
    return candidates[search.values(candidates).argmax()]
