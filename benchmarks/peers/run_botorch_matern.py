"""BoTorch's ``SingleTaskGP`` with a Matern-5/2 ARD kernel and its dimension-scaled prior."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from answer import Answer, main
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.transforms import Normalize, Standardize
from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior
from gpytorch.mlls import ExactMarginalLogLikelihood

warnings.filterwarnings("ignore")


def matern(inputs: int, outputs: int) -> torch.nn.Module:
    batch = torch.Size([outputs] if outputs > 1 else [])
    return get_covar_module_with_dim_scaled_prior(
        ard_num_dims=inputs, batch_shape=batch, use_rbf_kernel=False
    )


def log_likelihood(model: SingleTaskGP) -> list[float]:
    """Log marginal likelihood of every standardised output, without the priors."""
    model.train()
    with torch.no_grad():
        prior = model.likelihood(model(*model.train_inputs))
        return prior.log_prob(model.train_targets).reshape(-1).tolist()


def fit(X: np.ndarray, Y: np.ndarray, seed: int) -> Callable[[np.ndarray], Answer]:
    torch.manual_seed(seed)
    model = SingleTaskGP(
        torch.as_tensor(X),
        torch.as_tensor(Y),
        covar_module=matern(X.shape[1], Y.shape[1]),
        input_transform=Normalize(X.shape[1]),
        outcome_transform=Standardize(Y.shape[1]),
    )
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))

    def predict(X_test: np.ndarray) -> Answer:
        model.eval()
        posterior = model.posterior(torch.as_tensor(X_test), observation_noise=True)
        mean, sd = posterior.mean.detach(), posterior.variance.detach().sqrt()
        details = {"log_likelihood": log_likelihood(model)}
        return {"mean": mean.numpy(), "sd": sd.numpy(), "details": details}

    return predict


if __name__ == "__main__":
    main(fit, ("botorch", "gpytorch", "torch"), warm_up=20)
