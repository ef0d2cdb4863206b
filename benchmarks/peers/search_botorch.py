"""BoTorch with its defaults: `SingleTaskGP` (mixed where a choice is), qLogNEI or qLogNEHVI.

Inputs are in the unit cube, logarithmic where the space says so; choices are codes.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.fit import fit_gpytorch_mll
from botorch.models import MixedSingleTaskGP, ModelListGP, SingleTaskGP
from botorch.models.transforms import Standardize
from botorch.optim import optimize_acqf
from botorch.optim.optimize_mixed import optimize_acqf_mixed_alternating
from dialogue import Config, Values, serve
from gpytorch.mlls import ExactMarginalLogLikelihood, SumMarginalLogLikelihood
from torch import Tensor

RESTARTS, RAW = 10, 512


class BoTorch:
    def __init__(self, problem: dict[str, Any]) -> None:
        torch.manual_seed(problem["seed"])
        self.inputs, self.objectives = problem["inputs"], problem["objectives"]
        self.reference = problem["reference_point"]
        self.signs = torch.tensor(
            [1.0 if o["direction"] == "maximize" else -1.0 for o in self.objectives]
        ).double()
        self.X: list[list[float]] = []
        self.Y: list[list[float]] = []

    def tell(self, config: Config, values: Values) -> None:
        self.X.append([encode(item, config[item["name"]]) for item in self.inputs])
        self.Y.append([values[objective["name"]] for objective in self.objectives])

    def ask(self, n: int) -> list[Config]:
        X = torch.tensor(self.X, dtype=torch.float64)
        Y = self.signs * torch.tensor(self.Y, dtype=torch.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self._maximise(self._acquisition(X, Y), n)
        return [
            {item["name"]: decode(item, u) for item, u in zip(self.inputs, row, strict=True)}
            for row in found.tolist()
        ]

    def _model(self, X: Tensor, y: Tensor) -> SingleTaskGP:
        choices = [j for j, item in enumerate(self.inputs) if "choices" in item]
        transform = Standardize(m=1)
        if choices:
            return MixedSingleTaskGP(X, y, cat_dims=choices, outcome_transform=transform)
        return SingleTaskGP(X, y, outcome_transform=transform)

    def _acquisition(self, X: Tensor, Y: Tensor) -> Any:
        models = [self._model(X, Y[:, [j]]) for j in range(Y.shape[1])]
        if len(models) == 1:
            fit_gpytorch_mll(ExactMarginalLogLikelihood(models[0].likelihood, models[0]))
            return qLogNoisyExpectedImprovement(models[0], X_baseline=X, prune_baseline=True)
        model = ModelListGP(*models)
        fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
        reference = (self.signs * torch.tensor(self.reference, dtype=torch.float64)).tolist()
        return qLogNoisyExpectedHypervolumeImprovement(
            model, ref_point=reference, X_baseline=X, prune_baseline=True
        )

    def _maximise(self, acquisition: Any, n: int) -> Tensor:
        d = len(self.inputs)
        discrete = {j: levels(item) for j, item in enumerate(self.inputs) if levels(item)}
        if not discrete:
            bounds = torch.tensor([[0.0] * d, [1.0] * d], dtype=torch.float64)
            return optimize_acqf(acquisition, bounds, n, RESTARTS, RAW, sequential=True)[0]
        top = [max(discrete[j]) if j in discrete else 1.0 for j in range(d)]
        bounds = torch.tensor([[0.0] * d, top], dtype=torch.float64)
        choices = {j: v for j, v in discrete.items() if "choices" in self.inputs[j]}
        whole = {j: v for j, v in discrete.items() if j not in choices}
        return optimize_acqf_mixed_alternating(
            acquisition,
            bounds,
            discrete_dims=whole,
            cat_dims=choices,
            q=n,
            num_restarts=RESTARTS,
            raw_samples=RAW,
        )[0]


def levels(item: dict[str, Any]) -> list[float]:
    """Values that a discrete input takes in the model: codes, or shares of the range."""
    if "choices" in item:
        return [float(code) for code in range(len(item["choices"]))]
    if item["type"] == "integer":
        return [encode(item, value) for value in range(item["lower"], item["upper"] + 1)]
    return []


def encode(item: dict[str, Any], value: Any) -> float:
    if "choices" in item:
        return float(item["choices"].index(value))
    low, high = item["lower"], item["upper"]
    if item.get("log"):
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def decode(item: dict[str, Any], u: float) -> Any:
    if "choices" in item:
        return item["choices"][round(u)]
    low, high = item["lower"], item["upper"]
    if item.get("log"):
        return min(max(low * math.exp(u * math.log(high / low)), low), high)
    value = low + u * (high - low)
    return round(value) if item["type"] == "integer" else value


if __name__ == "__main__":
    serve(BoTorch, ("botorch", "gpytorch", "torch"))
