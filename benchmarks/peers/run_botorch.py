"""A plain BoTorch ``SingleTaskGP`` with its defaults, all outputs in one batched model."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from answer import Answer, main
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.transforms import Normalize, Standardize
from gpytorch.mlls import ExactMarginalLogLikelihood

warnings.filterwarnings("ignore")


def fit(X: np.ndarray, Y: np.ndarray, seed: int) -> Callable[[np.ndarray], Answer]:
    torch.manual_seed(seed)
    model = SingleTaskGP(
        torch.as_tensor(X),
        torch.as_tensor(Y),
        input_transform=Normalize(X.shape[1]),
        outcome_transform=Standardize(Y.shape[1]),
    )
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))

    def predict(X_test: np.ndarray) -> Answer:
        with torch.no_grad():
            posterior = model.posterior(torch.as_tensor(X_test), observation_noise=True)
        mean, sd = posterior.mean.detach(), posterior.variance.detach().sqrt()
        return {"mean": mean.numpy(), "sd": sd.numpy()}

    return predict


if __name__ == "__main__":
    main(fit, ("botorch", "gpytorch", "torch"))
