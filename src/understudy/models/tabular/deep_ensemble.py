r"""Deep ensemble: independently initialised networks whose disagreement is what is not known.

Lakshminarayanan et al. 2017, arXiv 1612.01474. With M networks of means :math:`\mu_i` and variances
:math:`\sigma_i^2`, the predictive is one Gaussian with the moments of their mixture. Differences:

- Half the networks are SiLU, which suits smooth simulators, half tanh, which suits rough tables;
  :math:`w` weights the halves for each output by their held-out error, so that
  :math:`\mu = \sum_k w_k \bar\mu_k`, and likewise noise :math:`\bar\sigma^2`.
- The variance is :math:`a\,\bar\sigma^2 + c\,D + b` with :math:`D` the networks' disagreement;
  :math:`a, b, c > 0` of each output maximise the likelihood of rows the networks had not seen.
- No adversarial examples.
- The rows of each fold are predicted by three networks of each kind, not by one: their error is
  then near that of the ensemble, which stacking and calibration take it for.

Draws are whole functions: function s is :math:`\sum_k w_k \mu_{k,s}`, spread about the mean so that
their variance over the unit cube is on average :math:`c\,D`.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from understudy.core.posterior import FunctionSamplePosterior
from understudy.core.predictive import Predictive
from understudy.core.surrogate import Surrogate
from understudy.models.tabular.committee import (
    Committee,
    Recipe,
    Regressor,
    inner_folds,
    train_committee,
)
from understudy.models.tabular.pathwise import Functions

if TYPE_CHECKING:
    from botorch.posteriors import Posterior
    from numpy.typing import NDArray

KINDS = ("silu", "tanh")
FOLD_NETWORKS = 3


@dataclass(frozen=True)
class Moments:
    """Mean, noise variance and disagreement of networks, each (..., n, m)."""

    mean: Tensor
    noise: Tensor
    disagreement: Tensor

    @classmethod
    def of(cls, means: Tensor, variances: Tensor, weights: Tensor) -> Moments:
        """From (k, r, ..., n, m) of k kinds with r networks each and weights (k, m)."""
        k, r = means.shape[:2]
        weight = weights.reshape(k, *[1] * (means.ndim - 2), weights.shape[-1]) / r
        mean = (weight * means).sum((0, 1))
        spread = (weight * (means - mean).square()).sum((0, 1))
        return cls(mean, (weight * variances).sum((0, 1)), spread)

    def gaussian(self, factors: Tensor) -> Predictive:
        """Gaussians (n, m) whose variances are a noise + c disagreement + b, factors (3, m)."""
        a, c, b = factors
        variance = a * self.noise + c * self.disagreement + b + 1e-10
        return Predictive.gaussian(self.mean, variance.sqrt())


def weigh_kinds(means: Tensor, Z: Tensor, least: float = 0.15) -> Tensor:
    """Weights (2, m) of two kinds that minimise the squared error of held-out means (2, n, m)."""
    apart, error = means[0] - means[1], Z - means[1]
    first = (apart * error).sum(0) / apart.square().sum(0).clamp_min(1e-12)
    first = first.clamp(least, 1.0 - least)
    return torch.stack([first, 1.0 - first])


def scale_variances(moments: Moments, Z: Tensor) -> Tensor:
    """Return (3, m) factors a, c and b by maximum likelihood on held-out rows.

    Normal priors on their logarithms keep a and c near 1 and b near a third of the mean squared
    error where rows are few.
    """
    error = (Z - moments.mean).square().numpy()
    noise, disagreement = moments.noise.numpy(), moments.disagreement.numpy()
    found = [
        _scale_one(np.stack([noise[:, j], disagreement[:, j]]), error[:, j])
        for j in range(Z.shape[1])
    ]
    return torch.from_numpy(np.stack(found, axis=1))


def _scale_one(parts: NDArray[np.float64], error: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.optimize import minimize

    parts = np.vstack([parts, np.ones_like(error)])
    start = np.array([0.0, 0.0, np.log(max(0.3 * error.mean(), 1e-9))])
    precision = np.array([1.0, 1.0, 0.1])

    def objective(logs: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        terms = np.exp(logs)[:, None] * parts
        variance = terms.sum(0) + 1e-10
        slope = 0.5 * (1.0 / variance - error / variance**2)
        away = precision * (logs - start)
        value = 0.5 * (np.log(variance) + error / variance).sum() + 0.5 * away @ (logs - start)
        return float(value), terms @ slope + away

    bounds = [(value - 12.0, value + 12.0) for value in start]
    return np.exp(minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds).x)


class DeepEnsemble(Surrogate):
    """Deep ensemble whose cross-validation is part of its training.

    Parameters
    ----------
    members : int
        Functions in the ensemble, each a SiLU and a tanh network; 5 as in the paper.
    width, depth : int
        Of the hidden layers.
    weight_decay : float
        Of SOAP.
    max_steps : int, optional
        Optimiser steps; by default from the number of rows.
    max_seconds : float, optional
        Wall time of a fit; the learning rate has annealed by then.
    seed : int
    """

    chunk_rows = 2048  # whose activations stay in a processor's cache

    def __init__(
        self,
        *,
        members: int = 5,
        width: int = 64,
        depth: int = 2,
        weight_decay: float = 0.3,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        self.members = members
        self.width = width
        self.depth = depth
        self.weight_decay = weight_decay
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.seed = seed

    def _fit(self, U: Tensor, Z: Tensor) -> None:
        self._fit_folds(U, Z, inner_folds(len(U), self.seed))

    def _fit_folds(self, U: Tensor, Z: Tensor, folds: NDArray[np.int_]) -> Predictive:
        self._shift, self._spread = U.mean(0), U.std(0).clamp_min(0.1)
        x, y = ((U - self._shift) / self._spread).float(), Z.float()
        committees: list[Committee] = []
        interrupted = False
        for k in range(len(KINDS)):
            recipe = self._recipe(k)
            recipe = replace(recipe, seconds=0.0) if interrupted else recipe
            committees.append(train_committee(x, y, np.asarray(folds), recipe))
            interrupted = interrupted or committees[-1].interrupted
        self._networks = [committee.network for committee in committees]
        means = torch.stack([committee.mean for committee in committees]).double()
        noise = torch.stack([committee.variance for committee in committees]).double()
        held_out = Z[torch.from_numpy(np.asarray(folds) >= 0)]
        # a half that was not trained after an interrupt may get no weight at all
        self._weights = weigh_kinds(means.mean(1), held_out, 0.0 if interrupted else 0.15)
        moments = Moments.of(means, noise, self._weights)
        self._factors = scale_variances(moments, held_out)
        self._stretch = self._match_spread(U.shape[1])
        if interrupted:
            raise KeyboardInterrupt
        return moments.gaussian(self._factors)

    def _recipe(self, kind: int) -> Recipe:
        return Recipe(
            members=self.members,
            fold_networks=min(FOLD_NETWORKS, self.members),
            activation=KINDS[kind],
            width=self.width,
            depth=self.depth,
            weight_decay=self.weight_decay,
            steps=self.max_steps,
            seconds=None if self.max_seconds is None else 0.5 * self.max_seconds,
            seed=2 * self.seed + kind,
        )

    def _members_at(self, U: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances (k, s, n, m) of the networks at U (n, d)."""
        x = ((U - self._shift) / self._spread).to(self._networks[0].line.dtype)
        both = [network(x) for network in self._networks]
        return torch.stack([mean for mean, _ in both]), torch.stack([var for _, var in both])

    def _predictive(self, U: Tensor) -> Predictive:
        means, variances = self._members_at(U)
        moments = Moments.of(means.double(), variances.double(), self._weights)
        return moments.gaussian(self._factors)

    def _expected(self, U: Tensor, outputs: Tensor) -> Tensor:
        x = ((U - self._shift) / self._spread).to(self._networks[0].line.dtype)
        means = torch.stack([network(x)[0].double().mean(0) for network in self._networks])
        return (self._weights.unsqueeze(1) * means).sum(0)[:, outputs]

    @torch.no_grad()
    def _match_spread(self, inputs: int) -> Tensor:
        """Factor (m,) on the functions' deviations that gives them the calibrated disagreement."""
        U = torch.quasirandom.SobolEngine(min(inputs, 1000), scramble=True, seed=0).draw(256)
        U = U.double()[:, torch.arange(inputs) % U.shape[1]]
        means, variances = self._members_at(U)
        moments = Moments.of(means.double(), variances.double(), self._weights)
        functions = (self._weights[:, None, None] * means.double()).sum(0)
        among = functions.var(0, correction=0).mean(0).clamp_min(1e-12)
        return (self._factors[1] * moments.disagreement.mean(0) / among).sqrt().clamp(0.1, 10.0)

    def _functions(self, count: int, generator: torch.Generator) -> Functions:
        def values(U: Tensor) -> Tensor:
            means, _ = self._members_at(U)
            functions = (self._weights[:, None, None] * means.double()).sum(0)
            mean = functions.mean(0)
            return (mean + self._stretch * (functions - mean))[:count]

        return values

    def _posterior(self, U: Tensor, observation_noise: bool) -> Posterior:
        shape = U.shape[:-1]
        exact = [deepcopy(network).double() for network in self._networks]
        x = ((U - self._shift) / self._spread).reshape(-1, U.shape[-1])
        both = [network(x) for network in exact]
        weights = self._weights[:, None, None]
        functions = (weights * torch.stack([mean for mean, _ in both])).sum(0)
        mean = functions.mean(0)
        functions = (mean + self._stretch * (functions - mean)).reshape(self.members, *shape, -1)
        if not observation_noise:
            return FunctionSamplePosterior(functions)
        noise = (weights * torch.stack([variance for _, variance in both])).sum(0).mean(0)
        variance = self._factors[0] * noise + self._factors[2]
        return FunctionSamplePosterior(functions, variance.reshape(*shape, -1))

    def _state(self) -> dict[str, Tensor]:
        state = {name: getattr(self, f"_{name}") for name in _STATE}
        for kind, network in zip(KINDS, self._networks, strict=True):
            state |= {f"{kind}.{name}": value for name, value in network.state_dict().items()}
        return state

    def _load(self, state: dict[str, Tensor]) -> None:
        for name in _STATE:
            setattr(self, f"_{name}", state[name])
        self._networks = []
        for kind in KINDS:
            own = {k.removeprefix(f"{kind}."): v for k, v in state.items() if k.startswith(kind)}
            members, inputs, outputs = own["line"].shape
            network = Regressor(members, inputs, outputs, self.width, self.depth, kind)
            network.load_state_dict(own)
            self._networks.append(network.requires_grad_(False))


_STATE = ("shift", "spread", "weights", "factors", "stretch")
