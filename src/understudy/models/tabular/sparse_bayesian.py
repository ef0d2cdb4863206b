r"""Bayesian networks that hold only a share of their weights, for tables.

Li, Miao, Qiu & Zhang 2024 (arXiv 2402.11025); see `understudy.nn.sparse_bayesian` for the
posterior, `understudy.nn.sparse_subspace` for how the support moves and
`understudy.nn.sparse_training` for the loss. The regression has a Gaussian likelihood whose
variance :math:`\tau_j^2` of each output is learnt with the rest; with S networks drawn once,

.. math:: p(y \mid x) = \frac1S \sum_s N(y;\ f_s(x),\ \tau^2)

and a draw from the joint posterior is one of them at all points. The classifier averages softmaxes.

Choices of ours, as the paper is about images: the prior's deviation is
:math:`1/\sqrt{\text{active inputs}}` of a unit, since these networks, unlike the paper's, are not
normalised or are small; Adam takes the place of SGD; and the networks that miss a fold are trained
in one stack with the one that does not.
"""

from __future__ import annotations

from copy import copy, deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from understudy.core import artifact
from understudy.core.artifact import ArtifactError
from understudy.core.errors import UserError
from understudy.core.posterior import FunctionSamplePosterior
from understudy.core.predictive import Predictive
from understudy.core.surrogate import Surrogate
from understudy.models.tabular.pathwise import Functions
from understudy.models.tabular.sampled_network import merged
from understudy.nn.mlp import ACTIVATIONS
from understudy.nn.sparse_bayesian import (
    MeanField,
    bayesianize,
    draw_weights,
    outputs_of_draws,
    sparse_layers,
)
from understudy.nn.sparse_compact import CompactLayer, CompactNetwork, to_compact
from understudy.nn.sparse_training import GaussianNoise, SparseSubspaceInference, cross_entropy

if TYPE_CHECKING:
    from botorch.posteriors import Posterior
    from numpy.typing import ArrayLike, NDArray

KIND = "sparse-bayesian-classifier"
INIT = MeanField(prior_sd=None, mean_sd=None, sd=0.01, sd_spread=0.005)


class Perceptron(nn.Module):
    """Multilayer perceptron of ordinary layers, which `bayesianize` converts.

    Parameters
    ----------
    sizes : sequence of int
        Widths from input to output.
    activation : str
        One of `understudy.nn.mlp.ACTIVATIONS`.
    normalised : bool
        Whether hidden layers are normalised (over units, without parameters) before they are
        activated.
    """

    def __init__(
        self, sizes: tuple[int, ...], activation: str = "relu", normalised: bool = False
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        self.activation = ACTIVATIONS[activation]
        self.norms = nn.ModuleList(
            nn.LayerNorm(width, elementwise_affine=False) if normalised else nn.Identity()
            for width in sizes[1:-1]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (..., n, o) at x (..., n, d)."""
        for layer, norm in zip(self.layers, self.norms, strict=False):
            x = self.activation(norm(layer(x)))
        return self.layers[-1](x)


@dataclass(frozen=True)
class DrawnNetworks:
    """Whole networks drawn once from a trained one, evaluated in float64.

    Parameters
    ----------
    model : nn.Module
    draws : dict of str to Tensor (S, *shape)
    """

    model: nn.Module
    draws: dict[str, Tensor]

    @classmethod
    def of(cls, network: nn.Module, samples: int, seed: int) -> DrawnNetworks:
        """Draw from a network in float32; the same every time for the same seed."""
        draws = {name: w.double() for name, w in draw_weights(network, samples, seed).items()}
        return cls(deepcopy(network).double().requires_grad_(False), draws)

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs (S, n, o) at x (n, d), differentiable in x."""
        return outputs_of_draws(self.model, self.draws, x)


def _check_network(hidden: tuple[int, ...], activation: str, samples: int, steps: int) -> None:
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise UserError(f"activation must be one of {known}, got {activation!r}")
    if not hidden or any(int(width) < 1 for width in hidden):
        raise UserError(f"hidden must name at least one positive width, got {hidden}")
    if samples < 1 or steps < 1:
        raise UserError(f"samples and max_steps must be at least 1, got {samples} and {steps}")


def _sparse_network(
    sizes: tuple[int, ...],
    model: SparseBayesianSurrogate | SparseBayesianClassifier,
    normalised: bool,
    networks: int | None = None,
) -> nn.Module:
    with torch.device("meta"):  # whose values would be drawn and thrown away
        dense = Perceptron(sizes, model.activation, normalised)
    return bayesianize(
        dense,
        model.density,
        sparse_first=model.sparse_first,
        init=INIT,
        networks=networks,
        seed=model.seed,
    )


def _training(
    model: SparseBayesianSurrogate | SparseBayesianClassifier, rows: int
) -> SparseSubspaceInference:
    return SparseSubspaceInference(
        epochs=_epochs(model.max_steps, rows, model.batch_size),
        batch_size=model.batch_size,
        optimizer="adam",
        learning_rate=model.learning_rate,
        likelihood_rate=2.0,
        weight_decay=0.0,
        kl_scale=model.kl_scale,
        delta=max(2, min(100, model.max_steps // 20)),
        removal=model.removal,
        max_seconds=model.max_seconds,
        seed=model.seed,
    )


def _epochs(max_steps: int, rows: int, batch_size: int) -> int:
    """Epochs of about that many steps in all."""
    return max(1, round(max_steps / max(rows // min(batch_size, rows), 1)))


class SparseBayesianSurrogate(Surrogate):
    """Regression by a Bayesian network of few weights, which is as small when it is stored.

    Parameters
    ----------
    hidden : tuple of int
        Widths of the hidden layers.
    density : float in (0, 1]
        Share of the weights that is active in every layer but the first.
    sparse_first : bool
        Whether the first layer is sparse as well.
    activation : str
        One of `understudy.nn.mlp.ACTIVATIONS`.
    samples : int
        Networks drawn for predictions.
    kl_scale : float
        Temperature of the prior's pull, 1 for Bayes'; the paper's posteriors are cold, of 0.01.
    learning_rate : float
        Of Adam.
    max_steps, batch_size : int
        Of the training.
    removal : str
        One of `understudy.nn.sparse_subspace.REMOVAL`.
    max_seconds : float, optional
        Wall time of a fit.
    seed : int
    """

    chunk_rows = 512

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] = (128, 128),
        density: float = 0.1,
        sparse_first: bool = False,
        activation: str = "silu",
        samples: int = 64,
        kl_scale: float = 0.1,
        learning_rate: float = 0.01,
        max_steps: int = 2000,
        batch_size: int = 128,
        removal: str = "snr_abs",
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.density = density
        self.sparse_first = sparse_first
        self.activation = activation
        self.samples = samples
        self.kl_scale = kl_scale
        self.learning_rate = learning_rate
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.removal = removal
        self.max_seconds = max_seconds
        self.seed = seed

    # -- learning -----------------------------------------------------------------------------

    def _fit(self, U: Tensor, Z: Tensor) -> None:
        self._learn(U, Z, torch.ones(1, len(U), dtype=torch.bool))

    def _fit_folds(self, U: Tensor, Z: Tensor, folds: NDArray[np.int_]) -> Predictive:
        of = torch.from_numpy(np.asarray(folds))
        kinds = of[of >= 0].unique()
        inside = torch.stack([torch.ones_like(of) > 0, *(of != kind for kind in kinds)])
        others = self._learn(U, Z, inside)
        parts, order = [], []
        for member, kind in zip(others, kinds, strict=True):
            rows = (of == kind).nonzero()[:, 0]
            parts.append(member._predictive_chunks(U[rows]))
            order.append(rows)
        return Predictive.concatenate(parts)[torch.cat(order).argsort()]

    def _learn(self, U: Tensor, Z: Tensor, inside: Tensor) -> list[Self]:
        """Train a network for each set of rows; keep the first, return copies with the others."""
        _check_network(self.hidden, self.activation, self.samples, self.max_steps)
        spread = U.std(0)
        self._shift, self._spread = U.mean(0), torch.where(spread > 1e-12, spread, 1.0)
        x = ((U - self._shift) / self._spread).float()
        stack = self._network(U.shape[1], Z.shape[1], len(inside))
        noise = GaussianNoise(Z.shape[1], len(inside))
        outcome = _training(self, int(inside.sum(1).max())).fit(
            stack, x, Z.float(), noise, inside, interrupt="return"
        )
        variance = noise.variance.detach().double()
        members = [self, *(copy(self) for _ in inside[1:])]
        for k, member in enumerate(members):
            single = self._network(U.shape[1], Z.shape[1])
            member._keep(_one_of(stack, single, k), variance[k])
        if outcome.reason == "interrupt":
            raise KeyboardInterrupt
        return members[1:]

    def _network(self, inputs: int, outputs: int, networks: int | None = None) -> nn.Module:
        sizes = (inputs, *map(int, self.hidden), outputs)
        return _sparse_network(sizes, self, normalised=False, networks=networks)

    def _keep(self, network: nn.Module, variance: Tensor) -> None:
        """Keep a trained network, its noise variance (m,) and the functions drawn from it."""
        self._model, self._noise = network, variance
        self._drawn = DrawnNetworks.of(network, self.samples, self.seed)

    # -- predicting ---------------------------------------------------------------------------

    def _values(self, U: Tensor) -> Tensor:
        """Values (S, n, m) of the drawn functions at U (n, d)."""
        return self._drawn((U - self._shift) / self._spread)

    def _predictive(self, U: Tensor) -> Predictive:
        return merged(self._values(U), self._noise.expand(self.samples, -1))

    def _expected(self, U: Tensor, outputs: Tensor) -> Tensor:
        return self._values(U).mean(0)[:, outputs]

    def _posterior(self, U: Tensor, observation_noise: bool) -> Posterior:
        values = self._values(U.reshape(-1, U.shape[-1]))
        values = values.reshape(self.samples, *U.shape[:-1], -1)
        noise = self._noise.expand(values.shape[1:])
        return FunctionSamplePosterior(values, noise if observation_noise else None)

    def _functions(self, count: int, generator: torch.Generator) -> Functions:
        return lambda U: self._values(U)[:count]

    # -- keeping ------------------------------------------------------------------------------

    def to_compact(self) -> CompactNetwork:
        """Active weights of the fitted network and where they are, to be saved by themselves."""
        check_is_fitted(self, "n_outputs_")
        return to_compact(self._model)

    def _state(self) -> dict[str, Tensor]:
        network = {f"network.{k}": v for k, v in self.to_compact().tensors().items()}
        return {"shift": self._shift, "spread": self._spread, "noise": self._noise} | network

    def _load(self, state: dict[str, Tensor]) -> None:
        self._shift, self._spread = state["shift"], state["spread"]
        network = self._network(len(self._shift), len(state["noise"]))
        self._keep(_filled(network, state), state["noise"])


def _one_of(stack: nn.Module, single: nn.Module, k: int) -> nn.Module:
    """Give a single network the values of the k-th of a stack."""
    single.load_state_dict({name: values[k] for name, values in stack.state_dict().items()})
    return single


def _filled(network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    layers = tuple(
        CompactLayer(name, tuple(layer.mu.shape), layer.active)
        for name, layer in sparse_layers(network).items()
    )
    own = {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
    return CompactNetwork.from_tensors(layers, own).fill(network)


class SparseBayesianClassifier(ClassifierMixin, BaseEstimator):
    """Classification by a Bayesian network of few weights; a scikit-learn classifier.

    Hidden layers are normalised over their units, as the paper's are over the batch.

    Parameters
    ----------
    hidden, density, sparse_first, activation, samples, kl_scale, learning_rate, max_steps
        As of `SparseBayesianSurrogate`.
    batch_size, removal, max_seconds, seed
        Likewise.

    Attributes
    ----------
    classes_ : array (c,)
    """

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] = (256, 256),
        density: float = 0.1,
        sparse_first: bool = False,
        activation: str = "relu",
        samples: int = 32,
        kl_scale: float = 0.01,
        learning_rate: float = 0.003,
        max_steps: int = 600,
        batch_size: int = 128,
        removal: str = "snr_abs",
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.density = density
        self.sparse_first = sparse_first
        self.activation = activation
        self.samples = samples
        self.kl_scale = kl_scale
        self.learning_rate = learning_rate
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.removal = removal
        self.max_seconds = max_seconds
        self.seed = seed

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit to rows X (n, p) and classes y (n,)."""
        checked, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        _check_network(self.hidden, self.activation, self.samples, self.max_steps)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("y holds one class only: a classifier needs at least two")
        inputs = torch.from_numpy(np.array(checked))
        spread = inputs.std(0)
        shift = inputs.mean(0)
        self._scaling = shift, torch.where(spread > 1e-12 * (1.0 + shift.abs()), spread, 1.0)
        network = self._network()
        _training(self, len(inputs)).fit(
            network, self._scaled(inputs).float(), torch.from_numpy(codes), cross_entropy
        )
        return self._keep(network)

    def _keep(self, network: nn.Module) -> Self:
        self._model = network
        self._drawn = DrawnNetworks.of(network, self.samples, self.seed)
        return self

    def _network(self) -> nn.Module:
        sizes = (self.n_features_in_, *map(int, self.hidden), len(self.classes_))
        return _sparse_network(sizes, self, normalised=True)

    def _scaled(self, X: Tensor) -> Tensor:
        shift, spread = self._scaling
        return (X - shift) / spread

    @torch.no_grad()
    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities (n, c) of rows X (n, p), averaged over the drawn networks."""
        check_is_fitted(self, "classes_")
        rows = np.array(validate_data(self, X, reset=False, dtype=np.float64))
        parts = self._scaled(torch.from_numpy(rows)).split(512)
        return torch.cat([self._drawn(part).softmax(-1).mean(0) for part in parts]).numpy()

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Classes (n,) of rows X (n, p)."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]

    def to_compact(self) -> CompactNetwork:
        """Active weights of the fitted network and where they are."""
        check_is_fitted(self, "classes_")
        return to_compact(self._model)

    def save(self, path: str | Path) -> Path:
        """Write the fitted classifier to a ``.us`` file, as small as its network."""
        tensors = {f"network.{k}": v for k, v in self.to_compact().tensors().items()}
        tensors |= dict(zip(("shift", "spread"), self._scaling, strict=True))
        params = self.get_params(deep=False)
        head = {"kind": KIND, "params": params, "classes": self.classes_.tolist()}
        return artifact.write(path, head, tensors)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a classifier that `save` wrote.

        Raises
        ------
        ArtifactError
            If the file is none.
        """
        content = artifact.read(path)
        if content.manifest["kind"] != KIND:
            raise ArtifactError(f"{path} holds a {content.manifest['kind']}, not a {KIND}")
        try:
            params, classes = content.manifest["params"], content.manifest["classes"]
            model = cls(**{k: params[k] for k in cls().get_params(deep=False)})
            model.classes_ = np.array(classes)
            model._scaling = content.tensors["shift"], content.tensors["spread"]
            model.n_features_in_ = len(model._scaling[0])
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{path} does not describe a classifier: {error}") from error
        return model._keep(_filled(model._network(), content.tensors))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_model")
