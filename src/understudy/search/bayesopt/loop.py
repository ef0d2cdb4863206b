"""The loop of Bayesian optimisation on a simulator: design, fit, propose, run, and what came of it.

Li, Rudner & Wilson (2024, arXiv 2305.20028): scrambled Sobol points, then rounds of q points each
by an acquisition function of a surrogate that is fitted to all runs; the measure is the best value
so far, or the hypervolume that the runs dominate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from botorch.utils.multi_objective.box_decompositions.dominated import DominatedPartitioning
from numpy.typing import NDArray

from understudy.core.errors import UserError
from understudy.core.search import Config, Objective, Problem, Searcher
from understudy.core.simulator import Simulator
from understudy.core.surrogate import Surrogate
from understudy.search.bayesopt.searcher import BayesianSearcher
from understudy.search.designs import RandomSearcher, SobolSearcher

STUDY = "study"


@dataclass(frozen=True)
class History:
    """What a search ran, in order.

    Parameters
    ----------
    configs : tuple of dict
        The n configurations.
    values : ndarray (n, m)
        Their outcomes, in the units of the simulator; NaN where a run failed.
    best : ndarray (n,)
        Best value of a single objective up to each run, or hypervolume of several; NaN before the
        first run that did not fail.
    seconds : tuple of float
        Wall time of each round's proposal.
    """

    configs: tuple[Config, ...]
    values: NDArray[np.float64]
    best: NDArray[np.float64]
    seconds: tuple[float, ...]

    @property
    def final(self) -> float:
        """Best value, or hypervolume, of all runs."""
        return float(self.best[-1])


@dataclass(frozen=True)
class BayesOptLoop:
    """Bayesian optimisation of a simulator from a Sobol design.

    Parameters
    ----------
    objective : Simulator
        Its ``problem`` says what is sought, where it has one (see
        `understudy.simulate.objectives`); otherwise every output is to be made small.
    surrogate : str or Surrogate, optional
        As in `BayesianSearcher`; None draws points at random.
    acquisition : str
        ``"study"`` as in the paper: expected (hypervolume) improvement by samples, q points
        together, with its few restarts and steps; else a name of `BayesianSearcher`, with its
        thorough search.
    q : int
        Points of a round.
    n_init : int
        Sobol points, the same for every surrogate at the same seed.
    n_iters : int
        Rounds.
    seed : int
    reference_point : tuple of float, optional
        Of several objectives; the simulator's ``reference_point`` by default.
    """

    objective: Simulator
    surrogate: str | Surrogate | None = "portfolio"
    acquisition: str = STUDY
    q: int = 5
    n_init: int = 10
    n_iters: int = 10
    seed: int = 0
    reference_point: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name, least in (("q", 1), ("n_init", 1), ("n_iters", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, got {getattr(self, name)}")
        count = len(self.problem.objectives)
        if count > 1 and (self._reference is None or len(self._reference) != count):
            raise UserError(
                f"{count} objectives need a reference point with {count} values, "
                f"got {self._reference}"
            )

    @property
    def problem(self) -> Problem:
        """What is sought."""
        known = getattr(self.objective, "problem", None)
        if isinstance(known, Problem):
            return known
        outputs = tuple(Objective(name) for name in self.objective.outputs)
        return Problem(self.objective.space, outputs)

    @property
    def _reference(self) -> tuple[float, ...] | None:
        if self.reference_point is not None:
            return self.reference_point
        return getattr(self.objective, "reference_point", None)

    def run(self) -> History:
        """Run the design and all rounds."""
        start = SobolSearcher(self.problem, self.seed)
        searcher = self._searcher()
        self._told(searcher, start.ask(self.n_init))
        seconds = []
        for _ in range(self.n_iters):
            begin = time.perf_counter()
            proposed = searcher.ask(self.q)
            seconds.append(time.perf_counter() - begin)
            self._told(searcher, proposed)
        return self._history(searcher, tuple(seconds))

    def _searcher(self) -> Searcher:
        if self.surrogate is None:
            return RandomSearcher(self.problem, self.seed)
        reference = self._reference if len(self.problem.objectives) > 1 else None
        if self.acquisition == STUDY:
            return BayesianSearcher.of_the_study(
                self.problem,
                self.seed,
                surrogate=self.surrogate,
                initial=self.n_init,
                reference=reference,
            )
        return BayesianSearcher(
            self.problem,
            self.seed,
            surrogate=self.surrogate,
            acquisition=self.acquisition,
            initial=self.n_init,
            reference=reference,
        )

    def _told(self, searcher: Searcher, configs: list[Config]) -> None:
        """Run configurations and tell the searcher of them."""
        import pandas as pd

        results = self.objective.run_many(pd.DataFrame(configs)).to_dict("records")
        searcher.tell(configs, [{str(k): v for k, v in row.items()} for row in results])

    def _history(self, searcher: Searcher, seconds: tuple[float, ...]) -> History:
        names = self.problem.outcomes
        values = np.array(
            [
                [np.nan] * len(names) if run.values is None else [run.values[n] for n in names]
                for run in searcher.observations
            ]
        )
        configs = tuple(dict(run.config) for run in searcher.observations)
        return History(configs, values, self._progress(values), seconds)

    def _progress(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Best value or hypervolume up to each of the runs (n, m)."""
        signs = np.array([objective.sign for objective in self.problem.objectives])
        good = signs * values
        if len(signs) == 1:
            return signs[0] * np.fmax.accumulate(good[:, 0])
        assert self._reference is not None
        reference = torch.from_numpy(signs * np.array(self._reference))
        return _hypervolumes(torch.from_numpy(good), reference)


def _hypervolumes(Y: torch.Tensor, reference: torch.Tensor) -> NDArray[np.float64]:
    """Hypervolume that the first 1, 2, ..., n of points Y (n, k), large is good, dominate."""
    found = []
    for n in range(1, len(Y) + 1):
        rows = Y[:n]
        rows = rows[torch.isfinite(rows).all(1)]
        if len(rows) == 0:
            found.append(0.0)
            continue
        partitioning = DominatedPartitioning(ref_point=reference, Y=rows)
        found.append(float(partitioning.compute_hypervolume()))
    return np.array(found)
