"""``understudy.fit`` with its defaults: its predictive mixture and its calibrated intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from answer import Answer, main

import understudy


def frame(X: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])])


def fit(X: np.ndarray, Y: np.ndarray, seed: int) -> Callable[[np.ndarray], Answer]:
    targets = [f"y{j}" for j in range(Y.shape[1])]
    table = pd.concat([frame(X), pd.DataFrame(Y, columns=targets)], axis=1)
    model = understudy.fit(table, targets=targets, seed=seed)

    def predict(X_test: np.ndarray) -> Answer:
        columns = model.predict_table(frame(X_test))
        kinds = ("mean", "sd", "lower_90", "upper_90")
        arrays = {
            kind: columns[[f"{name}_{kind}" for name in targets]].to_numpy() for kind in kinds
        }
        details = {"leaderboard": model.leaderboard.to_dict("records")}
        return {**arrays, "details": details, "score": score(X_test)}

    def score(X_test: np.ndarray) -> Callable[[np.ndarray], Answer]:
        predictive = model.predictive(model.space.encode(frame(X_test)))

        def of(Y_test: np.ndarray) -> Answer:
            observed = torch.as_tensor(Y_test)
            log_density, crps = predictive.log_density(observed), predictive.crps(observed)
            return {"log_density": log_density.numpy(), "crps": crps.numpy()}

        return of

    return predict


if __name__ == "__main__":
    main(fit, ("understudy", "torch", "botorch", "scikit-learn", "numpy"))
