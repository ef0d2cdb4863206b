"""``AutoEmulate(x, y)`` with its defaults.

It holds out a fifth of the rows given to it to choose its model, and its best result stays fitted
on the rest. A second answer, ``refit``, is the same configuration fitted on all rows by its own
``fit_from_reinitialized``; its cost is added to that of the first.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from answer import Answer, cpu_seconds, main
from autoemulate import AutoEmulate

warnings.filterwarnings("ignore")
logging.getLogger("autoemulate").setLevel(logging.ERROR)


def moments(model: Any, X: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    mean, variance = model.predict_mean_and_variance(torch.as_tensor(X, dtype=torch.float32))
    shape = (len(X), -1)
    sd = None if variance is None else variance.detach().double().sqrt().numpy().reshape(shape)
    return mean.detach().double().numpy().reshape(shape), sd


def fit(X: np.ndarray, Y: np.ndarray, seed: int) -> Callable[[np.ndarray], Answer]:
    compared = AutoEmulate(X, Y, random_seed=seed, show_progress_bar=False)
    best = compared.best_result()

    def predict(X_test: np.ndarray) -> Answer:
        mean, sd = moments(best.model, X_test)
        wall, cpu = time.perf_counter(), cpu_seconds()
        refit = compared.fit_from_reinitialized(X, Y, random_seed=seed)
        extra = {
            "refit_wall_s": time.perf_counter() - wall,
            "refit_cpu_s": cpu_seconds() - cpu,
        }
        refit_mean, refit_sd = moments(refit, X_test)
        table = compared.summarise()[["model_name", "r2_test"]]
        details = {
            "model": best.model_name,
            "params": {key: getattr(v, "__name__", str(v)) for key, v in best.params.items()},
            "leaderboard": [[name, float(r2)] for name, r2 in table.itertuples(index=False)],
            **extra,
        }
        return {
            "mean": mean,
            "sd": sd,
            "refit_mean": refit_mean,
            "refit_sd": refit_sd,
            "details": details,
        }

    return predict


if __name__ == "__main__":
    main(fit, ("autoemulate", "torch", "gpytorch", "numpy"))
