"""Digits, scores, and networks that are trained when they are first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from understudy.core.metrics import classification_calibration_error
from understudy.models.tabular.sparse_bayesian import Perceptron
from understudy.nn.sparse_bayesian import MeanField, bayesianize, draw_weights, outputs_of_draws
from understudy.nn.sparse_training import SparseSubspaceInference

SIZES = (64, 256, 256, 10)
DENSITIES = (0.1, 0.05, 0.02)


@dataclass(frozen=True)
class Size:
    """What a scale spends."""

    seeds: int
    epochs: int
    delta: int
    samples: int
    digits: int
    convolution_seeds: int
    convolution_epochs: int
    channels: int


@dataclass(frozen=True)
class Digits:
    """Standardised pixels (B, n, 64) and labels (B, n) of B splits into training and test rows."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor

    @classmethod
    def split(cls, seeds: range, rows: int) -> Digits:
        """Draw a stratified split of the first rows for each seed; a quarter is for the test."""
        X, y = load_digits(return_X_y=True)
        X = (X[:rows] - X.mean()) / X.std()
        parts = [
            train_test_split(X, y[:rows], test_size=0.25, stratify=y[:rows], random_state=seed)
            for seed in seeds
        ]
        x, test_x, labels, test_labels = (np.stack(part) for part in zip(*parts, strict=True))
        return cls(
            torch.from_numpy(x).float(),
            torch.from_numpy(labels),
            torch.from_numpy(test_x).float(),
            torch.from_numpy(test_labels),
        )


@dataclass(frozen=True)
class Scores:
    """Accuracy, negative log likelihood and calibration error of each seed, (B,)."""

    accuracy: np.ndarray
    nll: np.ndarray
    ece: np.ndarray

    @classmethod
    def of(cls, probabilities: Tensor, labels: Tensor) -> Scores:
        """Scores of probabilities (B, n, c) of labels (B, n)."""
        right = (probabilities.argmax(-1) == labels).double().mean(-1)
        likelihood = probabilities.gather(-1, labels.unsqueeze(-1)).clamp_min(1e-12).log()
        errors = [
            classification_calibration_error(p.numpy(), t.numpy())
            for p, t in zip(probabilities, labels, strict=True)
        ]
        return cls(right.numpy(), -likelihood.mean((-2, -1)).double().numpy(), np.array(errors))


class Study:
    """Trains networks when they are first asked for."""

    def __init__(self, size: Size, seeds: range) -> None:
        self.size, self.seeds = size, seeds
        self.digits = Digits.split(seeds, size.digits)
        self.training = SparseSubspaceInference(epochs=size.epochs, delta=size.delta, seed=seeds[0])
        self._found: dict[tuple[object, ...], Scores] = {}

    def network(self, density: float, init: MeanField | None = None) -> nn.Module:
        """Untrained stack of a network a seed."""
        return bayesianize(
            Perceptron(SIZES, normalised=True),
            density,
            sparse_first=True,
            init=init,
            networks=len(self.seeds),
            seed=self.seeds[0],
        )

    def trained(self, density: float, init: MeanField | None = None, **settings: Any) -> nn.Module:
        """Train a stack; a dense support has nowhere to move."""
        model = self.network(density, init)
        replace(self.training, **settings).fit(model, self.digits.x, self.digits.y)
        return model

    def scores(self, density: float, init: MeanField | None = None, **settings: Any) -> Scores:
        """Scores of the averaged predictions of networks drawn from a trained stack."""
        key = (density, init, *sorted(settings.items()))
        if key not in self._found:
            self._found[key] = self.score(self.trained(density, init, **settings))
        return self._found[key]

    def probabilities(self, model: nn.Module, x: Tensor) -> Tensor:
        """Mean softmax (B, n, c) of drawn networks at x (B, n, 64)."""
        with torch.no_grad():
            draws = draw_weights(model, self.size.samples, seed=self.seeds[0])
            return outputs_of_draws(model, draws, x).softmax(-1).mean(0)

    def score(self, model: nn.Module) -> Scores:
        """Scores of a trained stack on its test rows."""
        return Scores.of(self.probabilities(model, self.digits.test_x), self.digits.test_y)

    @cached_property
    def dense(self) -> nn.Module:
        """Stack at density 1."""
        return self.trained(1.0)

    @cached_property
    def dense_scores(self) -> Scores:
        """Its scores."""
        return self.score(self.dense)

    @cached_property
    def sparse(self) -> dict[float, nn.Module]:
        """Stack trained by SSVI at each density."""
        return {density: self.trained(density) for density in DENSITIES}

    @cached_property
    def sparse_scores(self) -> dict[float, Scores]:
        """Their scores."""
        return {density: self.score(model) for density, model in self.sparse.items()}

    def by_seed(self, values: np.ndarray) -> dict[int, float]:
        """Values (B,) by seed."""
        return dict(zip(self.seeds, map(float, values), strict=True))


def listed(values: Mapping[Any, Any], form: str = ".3f") -> str:
    """Means by name or number, as text."""
    names = {key: f"{key:g}" if isinstance(key, float) else key for key in values}
    return ", ".join(f"{names[key]}: {np.mean(v):{form}}" for key, v in values.items())
