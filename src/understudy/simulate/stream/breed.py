r"""Breed: parameters of the next runs where the training loss is large (arXiv 2410.05860).

The fitness of a run j is how far its losses stood above those of their batches,

.. math:: q_j = \frac{1}{|T_j|} \sum_{t \in T_j} \max\left(0, \frac{\ell_{jt} - \mu}{\sigma}\right)

with mean :math:`\mu` and deviation :math:`\sigma` of the batch in which the loss
:math:`\ell_{jt}` was computed. Every P batches the law of the runs to come is renewed: with
probability R a parent among the last :math:`N_w` finished runs, drawn in proportion to q, mutated
by :math:`N(0, \Sigma)` in the unit cube; else a uniform draw. R rises linearly from 0.15 to 0.75
over 10 renewals. A child outside of the cube is drawn again with a covariance 0.3 times as large,
in the end it is the parent.

The settings are those of the documentation of the framework; that the statistic is divided by the
deviation is our reading.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.space import Space
from understudy.simulate.stream.samplers import UniformSampler

_SHRINK, _TRIES = 0.3, 10


class BreedSampler(UniformSampler):
    """Uniform draws at first, then more and more children of runs that are learned badly.

    Parameters
    ----------
    space : Space
    seed : int
    period : int
        Batches P between renewals.
    window : int
        Last finished runs :math:`N_w` that may become parents.
    deviation : float
        Of a mutation, as a share of the range of each input: 0.005 in the documentation, 0.05 to
        0.1 in later configurations.
    shares : (float, float)
        Share R of children at the first renewal and at the last.
    rises : int
        Renewals over which R rises.
    """

    def __init__(
        self,
        space: Space,
        seed: int = 0,
        period: int = 300,
        window: int = 200,
        deviation: float = 0.005,
        shares: tuple[float, float] = (0.15, 0.75),
        rises: int = 10,
    ) -> None:
        super().__init__(space, seed)
        if period < 1 or window < 1 or rises < 1 or not deviation > 0:
            raise UserError("period, window, rises and deviation must be positive")
        if not 0 <= shares[0] <= shares[1] <= 1:
            raise UserError(f"shares must rise within [0, 1], found {shares}")
        self.period, self.window, self.deviation = period, window, deviation
        self.shares, self.rises = shares, rises
        self._batches = self._renewals = 0
        self._statistics: dict[int, tuple[float, int, list[float]]] = {}
        self._finished: deque[int] = deque(maxlen=window)
        self._parents: NDArray[np.float64] = np.empty((0, len(space)))
        self._fitness: NDArray[np.float64] = np.empty(0)

    @property
    def share(self) -> float:
        """Share R of children among the next runs; 0 before the first renewal."""
        if not self._renewals or not self._fitness.sum() > 0:
            return 0.0
        low, high = self.shares
        along = min((self._renewals - 1) / max(self.rises - 1, 1), 1.0)
        return low + (high - low) * along

    def observe(self, runs: Tensor, codes: Tensor, losses: Tensor) -> None:  # noqa: D102
        values = losses.double().cpu().numpy()
        excess = np.maximum((values - values.mean()) / max(values.std(), 1e-300), 0.0)
        for run, point, q in zip(runs.tolist(), codes.tolist(), excess.tolist(), strict=True):
            total, count, _ = self._statistics.get(run, (0.0, 0, point))
            self._statistics[run] = (total + q, count + 1, point)
        self._batches += 1
        if self._batches % self.period == 0:
            self._renew()

    def finished(self, run: int) -> None:  # noqa: D102
        self._finished.append(run)

    def _renew(self) -> None:
        known = [self._statistics[run] for run in self._finished if run in self._statistics]
        if not known:
            return
        self._renewals += 1
        codes = np.array([point for _, _, point in known])
        self._parents = self.space.to_unit(torch.from_numpy(codes)).numpy()
        self._fitness = np.array([total / count for total, count, _ in known])
        oldest = min(self._finished)
        self._statistics = {run: s for run, s in self._statistics.items() if run >= oldest}

    def _points(self, start: int, count: int) -> NDArray[np.float64]:
        return np.stack([self._point(number) for number in range(start, start + count)])

    def _point(self, number: int) -> NDArray[np.float64]:
        rng = np.random.default_rng([self.seed, number])
        uniform = rng.random(len(self.space))
        if rng.random() >= self.share:
            return uniform
        parent = self._parents[
            rng.choice(len(self._parents), p=self._fitness / self._fitness.sum())
        ]
        return self._mutated(parent, rng)

    def _mutated(
        self, parent: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        variance = self.deviation**2
        for _ in range(_TRIES):
            child = parent + np.sqrt(variance) * rng.standard_normal(len(parent))
            if ((child >= 0) & (child <= 1)).all():
                return child
            variance *= _SHRINK
        return parent

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return super().state_dict() | {
            "batches": self._batches,
            "renewals": self._renewals,
            "statistics": [[run, *values] for run, values in self._statistics.items()],
            "finished": list(self._finished),
            "parents": self._parents.tolist(),
            "fitness": self._fitness.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: D102
        super().load_state_dict(state)
        self._batches, self._renewals = state["batches"], state["renewals"]
        self._statistics = {run: (q, n, point) for run, q, n, point in state["statistics"]}
        self._finished = deque(state["finished"], maxlen=self.window)
        self._parents = np.array(state["parents"]).reshape(-1, len(self.space))
        self._fitness = np.array(state["fitness"])
