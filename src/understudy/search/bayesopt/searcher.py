"""Bayesian optimisation: propose what improves most by what is believed after the runs so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.linalg import one_thread
from understudy.core.search import Config, Observation, Problem, Searcher
from understudy.core.surrogate import Surrogate
from understudy.search.bayesopt.acquisition import SEVERAL, SINGLE, Request, acquisition
from understudy.search.bayesopt.beliefs import Beliefs, learn
from understudy.search.bayesopt.cube import Cube
from understudy.search.bayesopt.maximise import Maximiser, MultiStart, RelaxAndRound, Search
from understudy.search.bayesopt.portfolio import Portfolio, named
from understudy.search.designs import design

MOST_ROWS = 400
"""Runs that a model learns from at most, by default."""

_CENTRES = 10


@dataclass
class BayesianSearcher(Searcher):
    """Bayesian optimisation of any problem with any surrogate.

    The first runs are points of a scrambled Sobol sequence. Then a surrogate of every outcome is
    fitted on all runs, and an acquisition function that it informs is maximised.

    Outcomes that are constrained are learnt, too, and improvements count by the probability that
    constraints hold; before a run satisfies them all, that probability is maximised. Where runs
    failed, so is it learnt where runs fail, as one more constraint.

    Parameters
    ----------
    problem : Problem
    seed : int
    surrogate : str or Surrogate
        ``"portfolio"`` compares exact processes of several kernels and transforms of each outcome
        by the density of rows left out; or a key of
        `understudy.search.bayesopt.portfolio.NAMED`; or any surrogate, fitted to all outcomes
        jointly on features of the unit cube.
    acquisition : str
        ``"auto"``, or for one objective ``"log_ei"``, ``"log_nei"``, ``"ei"`` or ``"ucb"``, for
        several ``"log_ehvi"``, ``"log_nehvi"`` or ``"ehvi"``.
    initial : int, optional
        Runs of the Sobol sequence; one more than inputs by default, from 5 to 10.
    joint : bool
        Whether a batch is found together, or point by point with those before it as pending.
    maximiser : Maximiser
        How the acquisition function is maximised.
    portfolio : Portfolio
        What ``surrogate="portfolio"`` compares.
    samples : int
        Draws from the posterior: where an acquisition function has no closed form, and of what
        is not known where it has one (a quarter of them with two objectives, fewer with more).
    reference : sequence of float, optional
        Worst acceptable value of each objective, from which hypervolume is measured; by default
        those that the objectives name. Where one names none: a tenth of the front's range beyond
        its worst values, or the runs' worse quartile.
    max_rows : int
        Runs learnt from; of more, the best, the latest and some of the others.
    """

    surrogate: str | Surrogate = "portfolio"
    acquisition: str = "auto"
    initial: int | None = None
    joint: bool = False
    maximiser: Maximiser = field(default_factory=MultiStart)
    portfolio: Portfolio = field(default_factory=Portfolio)
    samples: int = 128
    reference: Sequence[float] | None = None
    max_rows: int = MOST_ROWS

    def __post_init__(self) -> None:
        if self.surrogate != "portfolio":
            named(self.surrogate)
        known = SINGLE if len(self.problem.objectives) == 1 else SEVERAL
        if self.acquisition not in ("auto", *known):
            accepted = ", ".join(("auto", *known))
            raise UserError(
                f"acquisition {self.acquisition!r} does not suit {len(self.problem.objectives)} "
                f"objective(s): take one of {accepted}"
            )
        if self.initial is not None and self.initial < 0:
            raise UserError(f"initial must not be negative, got {self.initial}")
        if self.samples < 1 or self.max_rows < 2:
            raise UserError(
                f"samples must be positive and max_rows at least 2, "
                f"got {self.samples} and {self.max_rows}"
            )
        if self.reference is not None and len(self.reference) != len(self.problem.objectives):
            raise UserError(
                f"reference needs a value for each of {len(self.problem.objectives)} objectives, "
                f"got {len(self.reference)}"
            )
        self._cube = Cube(self.problem.space)

    @classmethod
    def of_the_study(
        cls,
        problem: Problem,
        seed: int = 0,
        *,
        surrogate: str | Surrogate,
        initial: int = 10,
        reference: Sequence[float] | None = None,
    ) -> BayesianSearcher:
        """As in Li et al. 2024 (arXiv 2305.20028): their acquisition functions and optimiser.

        Expected (hypervolume) improvement by 128 samples; q points together, 2 restarts of 16 raw
        samples, 10 steps of L-BFGS; discrete coordinates are rounded down, and restarts compared
        after that.

        Parameters
        ----------
        problem : Problem
        seed : int
        surrogate : str or Surrogate
        initial : int
            Sobol points, 10 to 100 in the study.
        reference : sequence of float, optional
            Reference point of several objectives, in their units.
        """
        return cls(
            problem,
            seed,
            surrogate=surrogate,
            acquisition="ei" if len(problem.objectives) == 1 else "ehvi",
            initial=initial,
            joint=True,
            maximiser=RelaxAndRound(),
            reference=reference,
        )

    @property
    def initial_runs(self) -> int:
        """Runs of the Sobol sequence."""
        if self.initial is not None:
            return self.initial
        return min(max(5, len(self.problem.space) + 1), 10)

    def propose(self, n: int) -> list[Config]:
        """Return n configurations: of the Sobol sequence first, then by the model."""
        runs = len(self.observations) + len(self.pending)
        successes = sum(not o.failed for o in self.observations)
        missing = n if successes < 2 else min(n, max(0, self.initial_runs - runs))
        chosen = self.design(runs, missing)
        if missing < n:
            with one_thread(), torch.random.fork_rng(devices=[]):
                chosen += self._by_model(n - missing, chosen)
        return chosen

    def design(self, first: int, n: int) -> list[Config]:
        """Return points of the Sobol sequence from one on, passing over those that were run."""
        return design(self, first, n)

    def _by_model(self, n: int, chosen: list[Config]) -> list[Config]:
        history = (len(self.observations), len(self.pending))
        rng = np.random.default_rng([self.seed, *history])
        torch.manual_seed(int(rng.integers(2**31 - 1)))
        beliefs = learn(
            self.problem,
            self._cube,
            self._remembered(rng),
            self.surrogate,
            self.portfolio,
            int(rng.integers(2**31 - 1)),
        )
        sizes = [n] if self.joint else [1] * n
        pending = self._cube.points([*self.pending, *chosen])
        run = self._cube.points([o.config for o in self.observations])
        new = torch.empty(0, self._cube.dimension, dtype=torch.float64)
        for q in sizes:
            found = self._best(beliefs, torch.cat([pending, new]), run, q, rng)
            new = torch.cat([new, found])
        return self._cube.configs(new)

    def _best(
        self, beliefs: Beliefs, pending: Tensor, run: Tensor, q: int, rng: np.random.Generator
    ) -> Tensor:
        """Points (q, d) that are worth most beside those pending."""
        seed = int(rng.integers(2**31 - 1))
        request = Request(beliefs, pending, self._reference(beliefs), self.samples, q, seed)
        worth = acquisition(self.acquisition, request)
        seen = torch.cat([run, pending])
        return self.maximiser(Search(worth, self._cube, q, _promising(beliefs), seen, rng))

    def _reference(self, beliefs: Beliefs) -> Tensor | None:
        own = [part.reference for part in self.problem.objectives]
        named = own if self.reference is None else list(self.reference)
        if len(named) == 1 or None in named:
            return None
        value = torch.tensor(named, dtype=torch.float64)
        return torch.stack([s.learnt(v) for s, v in zip(beliefs.scales, value, strict=False)])

    def _remembered(self, rng: np.random.Generator) -> list[Observation]:
        """Runs learnt from: a quarter the best, a quarter the latest, of the rest an even part."""
        runs = self.observations
        if len(runs) <= self.max_rows:
            return runs
        share = self.max_rows // 4
        best = sorted(range(len(runs)), key=lambda i: _rank(self.problem, runs[i]))[:share]
        kept = {*best, *range(len(runs) - share, len(runs))}
        others = [i for i in range(len(runs)) if i not in kept]
        kept |= {others[i] for i in rng.permutation(len(others))[: self.max_rows - len(kept)]}
        return [runs[i] for i in sorted(kept)]


def _rank(problem: Problem, run: Observation) -> tuple[int, float]:
    """Order of runs: feasible ones by their objectives, then others, then those that failed."""
    if run.values is None:
        return 2, 0.0
    total = sum(-o.sign * run.values[o.name] for o in problem.objectives)
    return int(not problem.feasible(run.values)), total


def _promising(beliefs: Beliefs) -> Tensor:
    """Points about which to look closely, (k, d): the best runs, or those that violate least."""
    values = beliefs.values.mean(1)
    violation = torch.zeros_like(values)
    for interval in beliefs.intervals:
        if interval.output < beliefs.Z.shape[1]:
            for excess in interval.excess(beliefs.Z):
                violation = violation + excess.clamp_min(0.0)
    order = (values - 1e6 * violation).argsort(descending=True)
    front = order[:_CENTRES]
    return beliefs.U[front]
