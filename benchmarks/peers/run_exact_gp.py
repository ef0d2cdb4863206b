"""Our ``ExactGP`` by itself, with its defaults."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from answer import Answer, main

from understudy.models.tabular.exact_gp import ExactGP


def fit(X: np.ndarray, Y: np.ndarray, seed: int) -> Callable[[np.ndarray], Answer]:
    model = ExactGP().fit(X, Y)

    def predict(X_test: np.ndarray) -> Answer:
        predictive = model.predictive(torch.as_tensor(X_test))
        details = {"log_likelihood": model.log_marginal_likelihood_.tolist()}
        return {
            "mean": predictive.mean.numpy(),
            "sd": predictive.sd.numpy(),
            "details": details,
        }

    return predict


if __name__ == "__main__":
    main(fit, ("understudy", "torch"))
