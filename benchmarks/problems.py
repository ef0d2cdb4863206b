"""What `optimize.py` searches: fixed before any result was looked at."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from understudy.core.search import Objective, Problem
from understudy.core.simulator import Simulator
from understudy.core.space import Categorical, Continuous, Integer, Space
from understudy.simulate.functions import Borehole, Hartmann6
from understudy.simulate.objectives import (
    Ackley,
    Branin,
    BraninCurrin,
    NetworkDraw,
    OilSorbent,
    PestControl,
    PolynomialDraw,
)

Values = dict[str, float]


@dataclass(frozen=True)
class Task:
    """A simulator, what its outputs are to become, and what is known of its optimum."""

    simulator: Simulator
    direction: str = "minimize"
    best: float | None = None
    reference_point: tuple[float, ...] | None = None

    @property
    def problem(self) -> Problem:
        names = self.simulator.outputs
        return Problem(
            self.simulator.space, tuple(Objective(name, self.direction) for name in names)
        )

    def evaluate(self, configs: list[dict[str, Any]]) -> list[Values]:
        table = self.simulator.run_many(pd.DataFrame(configs))
        return [{str(k): float(v) for k, v in row.items()} for row in table.to_dict("records")]

    def losses(self, values: list[Values]) -> np.ndarray:
        """Outcomes (n, m), all to be minimised."""
        sign = 1.0 if self.direction == "minimize" else -1.0
        return sign * np.array([[row[name] for name in self.simulator.outputs] for row in values])

    def history(self, values: list[Values]) -> list[float]:
        """Least loss so far after each evaluation, as regret where the best is known.

        Of several outputs, minus the hypervolume.
        """
        losses = self.losses(values)
        if self.reference_point is None:
            sign = 1.0 if self.direction == "minimize" else -1.0
            floor = 0.0 if self.best is None else sign * self.best
            return (np.minimum.accumulate(losses[:, 0]) - floor).tolist()
        return [-self._hypervolume(losses[: n + 1]) for n in range(len(losses))]

    def _hypervolume(self, losses: np.ndarray) -> float:
        from botorch.utils.multi_objective.box_decompositions import DominatedPartitioning

        sign = 1.0 if self.direction == "minimize" else -1.0
        reference = -sign * torch.tensor(self.reference_point, dtype=torch.float64)
        found = DominatedPartitioning(ref_point=reference, Y=-torch.from_numpy(losses))
        return float(found.compute_hypervolume())


class SupportVectors(Simulator):
    """Cross-validated error of support-vector regression on scikit-learn's diabetes table."""

    space = Space(
        (
            Categorical("kernel", ("rbf", "poly", "sigmoid", "linear")),
            Continuous("C", 1e-2, 1e3, log=True),
            Continuous("epsilon", 1e-2, 1e2, log=True),
            Continuous("gamma", 1e-3, 1e1, log=True),
            Integer("degree", 2, 5),
            Categorical("shrinking", (False, True)),
        )
    )
    outputs = ("rmse",)

    def run(self, params: Any) -> Values:
        return {"rmse": _svr_error(**self._complete(params))}


@cache
def _svr_error(**settings: Any) -> float:
    from sklearn.datasets import load_diabetes
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    X, y = load_diabetes(return_X_y=True)
    settings = {k: v.item() if hasattr(v, "item") else v for k, v in settings.items()}
    model = make_pipeline(StandardScaler(), SVR(**settings, max_iter=5_000))
    folds = KFold(5, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the solver stops early is part of the problem
        predicted = cross_val_predict(model, X, y, cv=folds)
    return float(np.sqrt(np.mean((predicted - y) ** 2)))


def _of(simulator: Any) -> Task:
    return Task(simulator, simulator.direction, simulator.best, simulator.reference_point)


TASKS: dict[str, Callable[[], Task]] = {
    "branin": lambda: _of(Branin()),
    "hartmann6": lambda: Task(Hartmann6(), best=Hartmann6.minimum),
    "borehole": lambda: Task(Borehole()),
    "ackley10": lambda: _of(Ackley(10)),
    "network-100": lambda: _of(NetworkDraw(100)),
    "polynomial-200": lambda: _of(PolynomialDraw(200)),
    "pest-control": lambda: _of(PestControl()),
    "support-vectors": lambda: Task(SupportVectors()),
    "branin-currin": lambda: _of(BraninCurrin()),
    "oil-sorbent": lambda: _of(OilSorbent()),
}
