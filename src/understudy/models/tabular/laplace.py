r"""Linearised Laplace: one trained network, Gaussian about its weights.

With Jacobians :math:`J(x) = \partial f(x)/\partial\theta` at the trained weights
:math:`\theta_*`, noise :math:`\sigma^2` and prior :math:`\theta \sim N(0, \delta^{-1} I)`, the
generalised Gauss-Newton posterior and the linearised predictive are (Immer et al. 2021,
arXiv 2008.08400; Daxberger et al. 2021, arXiv 2106.14806)

.. math:: \Sigma^{-1} = \tfrac{1}{\sigma^2} \sum_i J_i^\top J_i + \delta I, \qquad
          \mathrm{Cov}[f(x), f(x')] = J(x) \Sigma J(x')^\top

and :math:`\sigma^2, \delta` maximise the evidence (Immer et al. 2021, arXiv 2104.04975)

.. math:: \log p(y \mid \theta_*) - \tfrac{\delta}{2} |\theta_*|^2 + \tfrac{P}{2} \log\delta
          - \tfrac12 \log|\Sigma^{-1}| .

*Last layer*: :math:`\Sigma` is exact, one matrix for all outputs, as the Jacobian of every output
is :math:`\psi(x) = [h(x), x, 1]`. *All layers*: hidden layers add Kronecker factors
:math:`\sum_i a_i a_i^\top \otimes \tfrac1n \sum_i g_i g_i^\top` (Martens & Grosse 2015), each with
a :math:`\delta` of its own; a layer's Jacobian is the outer product of its input :math:`a` and the
gradient :math:`g` of its output, so it is never formed. Covariances among outputs are left out.

The evidence sees only the rows of training. Two factors for each output, found on rows that the
networks of other folds had not seen, scale noise and covariance as in `deep_ensemble`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from botorch.posteriors import GPyTorchPosterior
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.predictive import Predictive
from understudy.core.surrogate import Surrogate
from understudy.models.tabular.committee import (
    Recipe,
    Regressor,
    inner_folds,
    squared_error,
    train_committee,
)
from understudy.models.tabular.deep_ensemble import Moments, scale_variances
from understudy.models.tabular.pathwise import Functions

if TYPE_CHECKING:
    from botorch.posteriors import Posterior
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Jacobian:
    """Gradients of the outputs in factored form at n points.

    Parameters
    ----------
    mean : Tensor (n, m)
    last : Tensor (n, h + d + 1)
        Input of the last layer, psi.
    inputs : list of Tensor (n, i + 1)
        Inputs of the hidden layers, with a 1 for the bias.
    gradients : list of Tensor (n, m, o)
        Gradients of the outputs in the hidden layers' pre-activations.
    """

    mean: Tensor
    last: Tensor
    inputs: list[Tensor]
    gradients: list[Tensor]

    @classmethod
    def of(cls, network: Regressor, x: Tensor, hidden: bool) -> Jacobian:
        """Of the first network of a stack, differentiable in x."""
        mlp, m = network.mlp, network.outputs
        one = torch.ones_like(x[:, :1])
        h = x
        inputs: list[Tensor] = []
        slopes: list[Tensor] = []
        for weight, bias in zip(mlp.weights[:-1], mlp.biases[:-1], strict=True):
            inputs.append(torch.cat([h, one], dim=1))
            z = h @ weight[0] + bias[0]
            h, slope = torch.func.jvp(mlp.activation, (z,), (torch.ones_like(z),))[:2]
            slopes.append(slope)
        out = mlp.weights[-1][0, :, :m]
        mean = h @ out + mlp.biases[-1][0, :, :m] + x @ network.line[0]
        last = torch.cat([h, x, one], dim=1)
        if not hidden:
            return cls(mean, last, [], [])
        gradient = out.T.expand(x.shape[0], m, -1)
        gradients: list[Tensor] = []
        for layer in reversed(range(len(slopes))):
            gradient = gradient * slopes[layer].unsqueeze(1)
            gradients.insert(0, gradient)
            gradient = gradient @ mlp.weights[layer][0].T
        return cls(mean, last, inputs, gradients)


@dataclass(frozen=True)
class Curvature:
    """The posterior of one network's weights, diagonal in stored bases.

    Parameters
    ----------
    noise : Tensor (m,)
        Evidence-tuned noise variance.
    last_basis : Tensor (p, p)
    last_variance : Tensor (p, m)
        Variance of the last layer's weights along that basis, for each output.
    input_bases, gradient_bases : list of Tensor
        Eigenvectors of the Kronecker factors of each hidden layer.
    variances : list of Tensor (i + 1, o)
        Variance of the hidden weights along them.
    """

    noise: Tensor
    last_basis: Tensor
    last_variance: Tensor
    input_bases: list[Tensor]
    gradient_bases: list[Tensor]
    variances: list[Tensor]

    @classmethod
    def fit(cls, network: Regressor, x: Tensor, Z: Tensor, hidden: bool) -> Curvature:
        """Curvature at the rows x (n, d), Z (n, m), with evidence-tuned noise and priors."""
        parts = [Jacobian.of(network, rows, hidden) for rows in x.split(4096)]
        n, last = len(x), sum(part.last.T @ part.last for part in parts)
        error = torch.cat([part.mean for part in parts]) - Z
        squares, basis = torch.linalg.eigh(last)
        final = torch.cat([network.mlp.weights[-1][0, :, : network.outputs], network.line[0]])
        noise, precision = maximise_evidence(
            squares.clamp_min(0.0), error.square().sum(0), final.square().sum(0), n
        )
        last_variance = 1.0 / (squares.clamp_min(0.0).unsqueeze(1) / noise + precision)
        curvature = cls(noise, basis, last_variance, [], [], [])
        for layer in range(len(parts[0].inputs)):
            curvature._add_layer(parts, layer, network.mlp.weights[layer][0], n)
        return curvature

    def _add_layer(self, parts: list[Jacobian], layer: int, weight: Tensor, n: int) -> None:
        root = self.noise.sqrt().reshape(1, -1, 1)
        first = sum(part.inputs[layer].T @ part.inputs[layer] for part in parts)
        flat = [(part.gradients[layer] / root).flatten(0, 1) for part in parts]
        second = sum(g.T @ g for g in flat) / n
        a, input_basis = torch.linalg.eigh(first)
        g, gradient_basis = torch.linalg.eigh(second)
        product = torch.outer(a.clamp_min(0.0), g.clamp_min(0.0))
        self.input_bases.append(input_basis)
        self.gradient_bases.append(gradient_basis)
        self.variances.append(1.0 / (product + prior_precision(product, weight.square().sum())))

    def half(self, jacobian: Jacobian) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Rotated inputs, rotated gradients and weight variances of every hidden layer."""
        return [
            (a @ A, g @ G, v)
            for a, g, A, G, v in zip(
                jacobian.inputs,
                jacobian.gradients,
                self.input_bases,
                self.gradient_bases,
                self.variances,
                strict=True,
            )
        ]

    def variance(self, jacobian: Jacobian) -> Tensor:
        """Marginal variance of the function, (n, m)."""
        total = (jacobian.last @ self.last_basis).square() @ self.last_variance
        for a, g, v in self.half(jacobian):
            total = total + torch.einsum("ni,io,nmo->nm", a.square(), v, g.square())
        return total

    def covariance(self, jacobian: Jacobian, batch: torch.Size, q: int) -> Tensor:
        """Joint covariance of q points, (*batch, m, q, q)."""
        last = (jacobian.last @ self.last_basis).reshape(*batch, 1, q, -1)
        scaled = last * self.last_variance.T.unsqueeze(1)
        total = scaled @ last.mT
        for a, g, v in self.half(jacobian):
            whole = a[:, None, :, None] * g[:, :, None, :] * v.sqrt()
            whole = whole.flatten(2).reshape(*batch, q, g.shape[1], -1).transpose(-2, -3)
            total = total + whole @ whole.mT
        return total


def maximise_evidence(
    squares: Tensor, error: Tensor, norm: Tensor, rows: int
) -> tuple[Tensor, Tensor]:
    """Noise variance and prior precision (m,) of linear layers with the same inputs.

    Parameters
    ----------
    squares : Tensor (p,)
        Eigenvalues of the inputs' Gram matrix.
    error, norm : Tensor (m,)
        Sum of squared errors, and squared norm of the weights, of each output.
    rows : int
    """
    noise = (error / rows).clamp_min(1e-8)
    precision = len(squares) / norm.clamp_min(1e-8)
    for _ in range(100):  # MacKay's fixed point: gamma weights are determined by the data
        gamma = (squares.unsqueeze(1) / (squares.unsqueeze(1) + noise * precision)).sum(0)
        precision = (gamma / norm.clamp_min(1e-8)).clamp(1e-4, 1e8)
        noise = (error / (rows - gamma).clamp_min(0.1 * rows)).clamp_min(1e-8)
    return noise, precision


def prior_precision(eigenvalues: Tensor, norm: Tensor) -> Tensor:
    """Prior precision of a layer by the same fixed point, from the eigenvalues of its GGN."""
    precision = eigenvalues.numel() / norm.clamp_min(1e-8)
    for _ in range(100):
        gamma = (eigenvalues / (eigenvalues + precision)).sum()
        precision = (gamma / norm.clamp_min(1e-8)).clamp(1e-4, 1e8)
    return precision


class LaplaceSurrogate(Surrogate):
    """One network with a linearised Laplace posterior.

    Parameters
    ----------
    weights : {"last", "all"}
        Layers whose weights are uncertain; all give the better densities, at no notable cost.
    activation : str
    width, depth : int
        Of the hidden layers.
    max_steps : int, optional
        Optimiser steps; by default from the number of rows.
    max_seconds : float, optional
        Wall time of the training.
    seed : int
    """

    chunk_rows = 2048

    def __init__(
        self,
        *,
        weights: Literal["last", "all"] = "all",
        activation: str = "silu",
        width: int = 64,
        depth: int = 2,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        self.weights = weights
        self.activation = activation
        self.width = width
        self.depth = depth
        self.max_steps = max_steps
        self.max_seconds = max_seconds
        self.seed = seed

    def _fit(self, U: Tensor, Z: Tensor) -> None:
        self._fit_folds(U, Z, inner_folds(len(U), self.seed))

    def _fit_folds(self, U: Tensor, Z: Tensor, folds: NDArray[np.int_]) -> Predictive:
        if self.weights not in ("last", "all"):
            raise UserError(f'weights must be "last" or "all", got {self.weights!r}')
        folds = np.asarray(folds)
        self._shift, self._spread = U.mean(0), U.std(0).clamp_min(0.1)
        x = (U - self._shift) / self._spread
        committee = train_committee(x.float(), Z.float(), folds, self._recipe())
        self._network = committee.network.double()
        self._curvature = Curvature.fit(self._network, x, Z, self._hidden)
        self._factors = torch.ones(3, Z.shape[1], dtype=Z.dtype)
        moments = self._held_out(committee.folded.double(), x, Z, folds)
        self._factors = scale_variances(moments, Z[torch.from_numpy(folds >= 0)])
        if committee.interrupted:
            raise KeyboardInterrupt
        return moments.gaussian(self._factors)

    def _held_out(
        self, folded: Regressor, x: Tensor, Z: Tensor, folds: NDArray[np.int_]
    ) -> Moments:
        """Moments of the rows with a fold, each by the networks that missed it."""
        kinds = np.unique(folds[folds >= 0])
        repeats = len(folded.line) // len(kinds)
        mean, variance, noise = torch.zeros_like(Z), torch.zeros_like(Z), torch.zeros_like(Z)
        for k, fold in enumerate(kinds):
            network = folded.pick(slice(k * repeats, k * repeats + 1))
            inside = torch.from_numpy(folds != fold)
            curvature = Curvature.fit(network, x[inside], Z[inside], self._hidden)
            rows = torch.from_numpy(np.flatnonzero(folds == fold))
            for part in rows.split(self.chunk_rows):
                jacobian = Jacobian.of(network, x[part], self._hidden)
                mean[part], variance[part] = jacobian.mean, curvature.variance(jacobian)
                noise[part] = curvature.noise
        tested = torch.from_numpy(folds >= 0)
        return Moments(mean[tested], noise[tested], variance[tested])

    @property
    def _hidden(self) -> bool:
        return self.weights == "all"

    def _recipe(self) -> Recipe:
        return Recipe(
            members=1,
            activation=self.activation,
            width=self.width,
            depth=self.depth,
            steps=self.max_steps,
            loss=squared_error,
            seconds=self.max_seconds,
            seed=self.seed,
        )

    def _predictive(self, U: Tensor) -> Predictive:
        x = (U - self._shift) / self._spread
        jacobian = Jacobian.of(self._network, x, self._hidden)
        noise = self._curvature.noise.expand_as(jacobian.mean)
        moments = Moments(jacobian.mean, noise, self._curvature.variance(jacobian))
        return moments.gaussian(self._factors)

    def _expected(self, U: Tensor, outputs: Tensor) -> Tensor:
        return self._network((U - self._shift) / self._spread)[0][0][:, outputs]

    def _functions(self, count: int, generator: torch.Generator) -> Functions:
        curvature, root = self._curvature, self._factors[1].sqrt()

        def normal(variance: Tensor) -> Tensor:
            shape = (count, *variance.shape)
            fresh = torch.randn(shape, generator=generator, dtype=variance.dtype)
            return variance.sqrt() * fresh

        last = curvature.last_basis @ normal(curvature.last_variance)
        hidden = [normal(variance) for variance in curvature.variances]

        def some(U: Tensor) -> Tensor:
            jacobian = Jacobian.of(self._network, (U - self._shift) / self._spread, self._hidden)
            away = jacobian.last @ last
            for (a, g, _), weight in zip(curvature.half(jacobian), hidden, strict=True):
                away = away + torch.einsum("sno,nmo->snm", a @ weight, g)
            return jacobian.mean + root * away

        return lambda U: torch.cat([some(rows) for rows in U.split(512)], dim=1)

    def _posterior(self, U: Tensor, observation_noise: bool) -> Posterior:
        *batch, q, d = U.shape
        x = ((U - self._shift) / self._spread).reshape(-1, d)
        jacobian = Jacobian.of(self._network, x, self._hidden)
        a, c, b = self._factors
        covariance = c[:, None, None] * self._curvature.covariance(jacobian, torch.Size(batch), q)
        noise = a * self._curvature.noise + b
        own = noise if observation_noise else 1e-4 * noise  # a little keeps the factor exact
        covariance = covariance + own[:, None, None] * torch.eye(q, dtype=U.dtype)
        mean = jacobian.mean.reshape(*batch, q, -1)
        if mean.shape[-1] == 1:
            return GPyTorchPosterior(MultivariateNormal(mean[..., 0], covariance[..., 0, :, :]))
        stacked = MultivariateNormal(mean.mT, covariance)
        return GPyTorchPosterior(MultitaskMultivariateNormal.from_batch_mvn(stacked, task_dim=-1))

    def _state(self) -> dict[str, Tensor]:
        state = {"shift": self._shift, "spread": self._spread, "factors": self._factors}
        state |= {f"network.{k}": v for k, v in self._network.state_dict().items()}
        for f in fields(Curvature):
            value = getattr(self._curvature, f.name)
            named = enumerate(value) if isinstance(value, list) else [("", value)]
            state |= {f"curvature.{f.name}.{i}": tensor for i, tensor in named}
        return state

    def _load(self, state: dict[str, Tensor]) -> None:
        self._shift, self._spread = state["shift"], state["spread"]
        self._factors = state["factors"]
        own = {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
        members, inputs, outputs = own["line"].shape
        network = Regressor(members, inputs, outputs, self.width, self.depth, self.activation)
        self._network = network.double().requires_grad_(False)
        self._network.load_state_dict(own)
        layers = range(self.depth if self._hidden else 0)
        single = ("noise", "last_basis", "last_variance")
        several = ("input_bases", "gradient_bases", "variances")
        parts: dict[str, Any] = {name: state[f"curvature.{name}."] for name in single}
        for name in several:
            parts[name] = [state[f"curvature.{name}.{i}"] for i in layers]
        self._curvature = Curvature(**parts)
