"""The race of the portfolio: every candidate is cross-validated inside one time budget.

Cheap candidates run first. A costly one is first tried on a single fold (on long tables, all are
tried on a subset); if a stack of it with those that stand gives it no weight it is dominated and
stopped there, and the time goes to the others. Follow-up candidates run only if what they follow
holds weight. An interruption keeps all that has finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.predictive import Predictive
from understudy.core.progress import Standing
from understudy.core.surrogate import Surrogate
from understudy.models.tabular.portfolio import Candidate, Task
from understudy.models.tabular.stacking import log_score_weights

SCREEN_ROWS = 800
"""Rows on which candidates for long tables are tried first."""

LEAST_GAIN = 0.03
"""Nats a row, averaged over outputs, that a costly candidate must add to the stack on a fold."""

FAILURES = (ValueError, RuntimeError, ArithmeticError, np.linalg.LinAlgError)
"""What a candidate may raise without ending the race."""


@dataclass(frozen=True)
class Contender:
    """A candidate that finished: fitted to all rows, with its out-of-fold predictions.

    ``out_of_fold`` is in the (transformed) units of the outputs it was given.
    """

    name: str
    surrogate: Surrogate
    out_of_fold: Predictive
    seconds: float


@dataclass
class Race:
    """A running comparison of candidates on one table.

    Parameters
    ----------
    X : ndarray (n, f)
        Features.
    Y : ndarray (n, m)
        Outputs.
    folds : int ndarray (n,)
        Fold of each row, -1 for rows that always train.
    deadline : float
        Value of `time.monotonic` at which no candidate is started any more.
    seed : int
        Of every candidate.
    listener : callable
        Receives the standings whenever they change.
    """

    X: NDArray[np.float64]
    Y: NDArray[np.float64]
    folds: NDArray[np.int_]
    deadline: float
    seed: int
    listener: Callable[[tuple[Standing, ...]], None]
    contenders: list[Contender] = field(default_factory=list)
    standings: dict[str, Standing] = field(default_factory=dict)
    interrupted: bool = False

    def run(self, candidates: Sequence[Candidate]) -> list[Contender]:
        """Run the candidates in their order and return those that finished."""
        task = Task(len(self.X), self.X.shape[1], self.Y.shape[1])
        suited = [candidate for candidate in candidates if candidate.suits(task)]
        self._announce(*(Standing(candidate.name) for candidate in suited))
        try:
            remaining = self._screened(suited)
            while remaining:
                candidate, *remaining = remaining
                self._take(candidate, len(remaining))
        except KeyboardInterrupt:
            self._stop("interrupted")
            self.interrupted = True
            if not self.contenders:
                raise
        if not self.contenders:
            reasons = "; ".join(f"{s.name}: {s.reason}" for s in self.standings.values())
            raise UserError(f"no model of the portfolio could be fitted to this table ({reasons})")
        return self.contenders

    def _take(self, candidate: Candidate, waiting: int) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0.0 and self.contenders:
            self._announce(Standing(candidate.name, "stopped", reason="out of time"))
            return
        if candidate.after is not None and not self._holds_weight(candidate.after):
            reason = f"{candidate.after} holds no weight"
            self._announce(Standing(candidate.name, "stopped", reason=reason))
            return
        share = max(left, 1.0) / (1.0 + 0.5 * waiting)
        self._announce(Standing(candidate.name, "running"))
        if candidate.costly and self.contenders and self._is_dominated(candidate, share):
            self._announce(Standing(candidate.name, "stopped", reason="dominated on a fold"))
            return
        contender = self._fitted(candidate, self.X, self.Y, self.folds, share)
        if contender is None:
            return
        self.contenders.append(contender)
        self._announce(self._standing(contender))

    def _is_dominated(self, candidate: Candidate, seconds: float) -> bool:
        """Whether a model of all folds but one would add nothing to the stack on that one."""
        surrogate = candidate.make(self.seed, seconds / (int(self.folds.max()) + 2))
        inside, outside = self.folds != 0, self.folds == 0
        try:
            unseen = surrogate.fit(self.X[inside], self.Y[inside]).predictive(self.X[outside])
        except FAILURES:
            return False  # the full run will say what is wrong
        at = torch.from_numpy(np.flatnonzero(outside[self.folds >= 0]))
        y = self.held_out_outputs[at]
        before = torch.stack([c.out_of_fold[at].log_density(y) for c in self.contenders])
        after = torch.cat([before, unseen.log_density(y).unsqueeze(0)])
        return bool((_stacked(after) - _stacked(before)).mean() < LEAST_GAIN)

    def _fitted(
        self,
        candidate: Candidate,
        X: NDArray[np.float64],
        Y: NDArray[np.float64],
        folds: NDArray[np.int_],
        seconds: float,
    ) -> Contender | None:
        start = time.perf_counter()
        surrogate = candidate.make(self.seed, seconds)
        try:
            out_of_fold = surrogate.fit_cross_validated(X, Y, folds)
        except FAILURES as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            self._announce(Standing(candidate.name, "failed", reason=reason))
            return None
        if not bool(torch.isfinite(out_of_fold.loc).all() and (out_of_fold.scale > 0).all()):
            self._announce(Standing(candidate.name, "failed", reason="non-finite predictions"))
            return None
        return Contender(candidate.name, surrogate, out_of_fold, time.perf_counter() - start)

    def _screened(self, candidates: list[Candidate]) -> list[Candidate]:
        """Candidates that hold weight in a stack on a subset of a long table."""
        if len(self.X) <= 4 * SCREEN_ROWS or len(candidates) < 3:
            return candidates
        rows = np.random.default_rng(self.seed).permutation(len(self.X))[: SCREEN_ROWS * 3 // 2]
        folds = np.where(np.arange(len(rows)) < SCREEN_ROWS, -1, 0)
        seconds = 0.15 * (self.deadline - time.monotonic()) / len(candidates)
        tried = []
        for candidate in candidates:
            if not candidate.suits(Task(len(rows), self.X.shape[1], self.Y.shape[1])):
                continue
            self._announce(Standing(candidate.name, "running", reason="on a subset"))
            tried.append(self._fitted(candidate, self.X[rows], self.Y[rows], folds, seconds))
        finished = [contender for contender in tried if contender is not None]
        if len(finished) < 2:
            return candidates
        held_out = torch.from_numpy(self.Y[rows[folds >= 0]])
        densities = torch.stack([c.out_of_fold.log_density(held_out) for c in finished])
        weights = log_score_weights(densities).amax(1)
        dominated = {c.name for c, w in zip(finished, weights, strict=True) if w < 0.03}
        for name in dominated:
            self._announce(Standing(name, "stopped", reason="dominated on a subset"))
        kept = [candidate for candidate in candidates if candidate.name not in dominated]
        self._announce(*(Standing(candidate.name) for candidate in kept))
        return kept

    def _holds_weight(self, name: str, least: float = 0.1) -> bool:
        if len(self.contenders) < 2:
            return any(contender.name == name for contender in self.contenders)
        weights = log_score_weights(self._log_densities()).amax(1)
        names = [contender.name for contender in self.contenders]
        return name in names and bool(weights[names.index(name)] >= least)

    def _log_densities(self) -> Tensor:
        y = self.held_out_outputs
        return torch.stack([c.out_of_fold.log_density(y) for c in self.contenders])

    @property
    def held_out_outputs(self) -> Tensor:
        """Outputs of the rows with a fold, (n', m)."""
        return torch.from_numpy(self.Y[self.folds >= 0])

    def _standing(self, contender: Contender) -> Standing:
        y = self.held_out_outputs
        variance = y.var(0).clamp_min(1e-300)
        nlpd = -(contender.out_of_fold.log_density(y) + 0.5 * variance.log()).mean()
        r2 = 1.0 - ((contender.out_of_fold.mean - y).square().mean(0) / variance).mean()
        return Standing(contender.name, "done", float(nlpd), float(r2), contender.seconds)

    def _stop(self, reason: str) -> None:
        for standing in list(self.standings.values()):
            if standing.status in ("waiting", "running"):
                self.standings[standing.name] = Standing(standing.name, "stopped", reason=reason)

    def _announce(self, *standings: Standing) -> None:
        self.standings.update({standing.name: standing for standing in standings})
        self.listener(tuple(self.standings.values()))


def _stacked(log_density: Tensor) -> Tensor:
    """Mean log score (m,) of the best mixture of models with log densities (J, n, m)."""
    weights = log_score_weights(log_density).unsqueeze(1)
    return torch.logsumexp(log_density + weights.log(), 0).mean(0)


def assign_folds(X: NDArray[np.float64], seed: int) -> NDArray[np.int_]:
    """Folds of the rows of X (n, d), identical inputs in the same fold.

    Ten folds up to 40 rows, five up to 5,000; above, one hold-out of 2,000 rows (fold 0) while
    the others always train (fold -1).
    """
    groups = pd.factorize(pd.util.hash_pandas_object(pd.DataFrame(X), index=False))[0]
    count = int(groups.max()) + 1
    order = np.random.default_rng(seed).permutation(count)
    if len(X) > 5_000:
        return np.where(order[groups] < round(count * 2_000 / len(X)), 0, -1)
    folds = min(10 if len(X) <= 40 else 5, count)
    if folds < 2:
        raise UserError("all rows have the same inputs; a surrogate needs at least two different")
    return order[groups] % folds
