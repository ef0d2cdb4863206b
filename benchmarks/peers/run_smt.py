"""SMT's Kriging (``KRG``) with its defaults, one model an output."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from answer import Answer, main
from smt.surrogate_models import KRG

warnings.filterwarnings("ignore")


def kriging(X: np.ndarray, y: np.ndarray) -> KRG:
    model = KRG(print_global=False)
    model.set_training_values(X, y[:, None])
    model.train()
    return model


def fit(X: np.ndarray, Y: np.ndarray, seed: int) -> Callable[[np.ndarray], Answer]:
    np.random.seed(seed)
    models = [kriging(X, y) for y in Y.T]

    def predict(X_test: np.ndarray) -> Answer:
        mean = np.column_stack([model.predict_values(X_test) for model in models])
        variance = np.column_stack([model.predict_variances(X_test) for model in models])
        return {"mean": mean, "sd": np.sqrt(np.clip(variance, 0.0, None))}

    return predict


if __name__ == "__main__":
    main(fit, ("smt", "numpy", "scipy"))
