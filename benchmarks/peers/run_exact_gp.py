"""Our ``ExactGP`` by itself, with its defaults."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from answer import Answer, main
from run_botorch_matern import log_likelihood

from understudy.models.tabular.exact_gp import ExactGP


def fit(X: np.ndarray, Y: np.ndarray, seed: int) -> Callable[[np.ndarray], Answer]:
    model = ExactGP().fit(X, Y)

    def predict(X_test: np.ndarray) -> Answer:
        predictive = model.predictive(X_test)
        details = {"log_likelihood": log_likelihood(model.to_botorch())}
        mean, sd = predictive.mean, predictive.sd
        return {"mean": mean.numpy(), "sd": sd.numpy(), "details": details}

    return predict


if __name__ == "__main__":
    main(fit, ("understudy", "torch"), warm_up=20)
