r"""Deep kernel learning of Li, Rudner & Wilson (2024, arXiv 2305.20028).

For each output a network with features :math:`\phi_w(x)`, its last hidden layer, and

.. math:: y = c + f(\phi_w(x)) + \varepsilon, \qquad f \sim GP(0, s^2 k_{5/2}(r)), \quad
          r^2 = \sum_k (\phi_k - \phi_k')^2 / \ell_k^2, \quad \varepsilon \sim N(0, \sigma^2).

The network, with a linear layer on top, first learns by squared error; then :math:`w` and the
hyperparameters climb the marginal likelihood of all rows under the gamma priors of
`understudy.models.tabular.gamma_prior`, by Adam. There is no validation and no early stopping:
`understudy.models.tabular.deep_kernel` is the same model made for use.

Hyperparameters move in their logarithms, ten times as fast as weights. The official code moves them
as they are, so that noise, which it starts at 2, is still above 1 after the 1000 steps that
suffice on Ackley's function; here it starts at 0.1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from understudy.core.predictive import Predictive
from understudy.core.surrogate import Surrogate
from understudy.models.tabular.conditioning import joint_normal
from understudy.models.tabular.gamma_prior import LENGTHSCALE, NOISE, OUTPUTSCALE
from understudy.nn.bayesian_mlp import FlatMLP
from understudy.nn.mlp import ACTIVATIONS
from understudy.sample.warm_start import maximise

if TYPE_CHECKING:
    from botorch.posteriors import Posterior

LEAST_NOISE = 1e-4
_FASTER = 10.0  # hyperparameters than weights
_FIRST_LENGTH, _FIRST_SCALE, _FIRST_NOISE = math.log(2.0), math.log(2.0), 0.1  # as in GPyTorch


def matern52(a: Tensor, b: Tensor) -> Tensor:
    """Matern-5/2 correlations (..., p, q) of a (..., p, k) and b (..., q, k) at length-scale 1."""
    squares = a.square().sum(-1).unsqueeze(-1) + b.square().sum(-1).unsqueeze(-2)
    r = (5.0 * (squares - 2.0 * a @ b.mT).clamp_min(1e-14)).sqrt()
    return (1.0 + r + r.square() / 3.0) * torch.exp(-r)


class Parameters(NamedTuple):
    """Weights and hyperparameters of m deep kernels."""

    weights: Tensor  # (m, dim)
    lengths: Tensor  # (m, k)
    outputscale: Tensor  # (m,)
    noise: Tensor  # (m,)
    mean: Tensor  # (m,)


class DeepKernelLikelihood:
    """Log marginal likelihood and prior of deep kernels at positions (m, dim).

    Parameters
    ----------
    trunk : FlatMLP
        Up to the last hidden layer, before its activation.
    x : Tensor (n, d)
    y : Tensor (n, m)
        An output for each kernel.
    """

    def __init__(self, trunk: FlatMLP, x: Tensor, y: Tensor) -> None:
        self.trunk, self.x, self.y = trunk, x, y

    @property
    def features(self) -> int:
        """Number of features."""
        return self.trunk.sizes[-1]

    def start(self, weights: Tensor) -> Tensor:
        """Position (m, dim) with these weights of the trunk."""
        hyper = torch.cat(
            [
                torch.full((self.features,), math.log(_FIRST_LENGTH)),
                torch.tensor([math.log(_FIRST_SCALE), math.log(_FIRST_NOISE), 0.0]),
            ]
        )
        hyper = hyper.to(weights) / _FASTER
        return torch.cat([weights, hyper.expand(len(weights), -1)], dim=1)

    def split(self, position: Tensor) -> Parameters:
        """Parameters at a position (m, dim)."""
        weights, hyper = position[:, : self.trunk.dim], _FASTER * position[:, self.trunk.dim :]
        k = self.features
        return Parameters(
            weights,
            hyper[:, :k].exp(),
            hyper[:, k].exp(),
            hyper[:, k + 1].exp() + LEAST_NOISE,
            hyper[:, k + 2],
        )

    def scaled_features(self, at: Parameters, x: Tensor) -> Tensor:
        """Features over length-scales, (m, n, k), of x (n, d)."""
        activation = ACTIVATIONS[self.trunk.activation]
        return activation(self.trunk(at.weights, x)) / at.lengths.unsqueeze(1)

    def condition(self, at: Parameters) -> tuple[Tensor, Tensor, Tensor]:
        """Features of the rows (m, n, k), factor (m, n, n) and whitened errors (m, n, 1)."""
        a = self.scaled_features(at, self.x)
        covariance = at.outputscale[:, None, None] * matern52(a, a)
        noise = at.noise[:, None, None] * torch.eye(a.shape[1], dtype=a.dtype)
        factor = torch.linalg.cholesky(covariance + noise)
        error = (self.y.T - at.mean.unsqueeze(1)).unsqueeze(2)
        return a, factor, torch.linalg.solve_triangular(factor, error, upper=False)

    def __call__(self, position: Tensor) -> Tensor:
        """Log density (m,), up to a constant."""
        at = self.split(position)
        _, factor, white = self.condition(at)
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        prior = _log_gamma(at.lengths, *LENGTHSCALE).sum(1)
        prior = prior + _log_gamma(at.outputscale, *OUTPUTSCALE) + _log_gamma(at.noise, *NOISE)
        return prior - log_det - 0.5 * white.square().sum((1, 2))


def _log_gamma(value: Tensor, shape: float, rate: float) -> Tensor:
    return (shape - 1.0) * value.log() - rate * value


class DeepKernelProcess(Surrogate):
    """Gaussian process on the features of a network, trained on all rows.

    Parameters
    ----------
    hidden : tuple of int
        The last is the number of features; (128, 128, 128), and (256, 256) for many inputs.
    activation : str
    pretraining_steps : int
        Of Adam, of length 1e-3, on the squared error; 1000 in the paper.
    steps : int
        Of Adam on the marginal likelihood; 5000 in the paper, 1000 on Ackley's function.
    learning_rate : float
        1e-3 in the paper, 1e-4 for many inputs.
    max_seconds : float, optional
    seed : int
    """

    chunk_rows = 1024

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] = (128, 128, 128),
        activation: str = "tanh",
        pretraining_steps: int = 1000,
        steps: int = 5000,
        learning_rate: float = 1e-3,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.pretraining_steps = pretraining_steps
        self.steps = steps
        self.learning_rate = learning_rate
        self.max_seconds = max_seconds
        self.seed = seed

    def _fit(self, U: Tensor, Z: Tensor) -> None:
        widths = tuple(map(int, self.hidden))
        trunk = FlatMLP((U.shape[1], *widths), self.activation)
        seconds = None if self.max_seconds is None else 0.5 * self.max_seconds
        likelihood = DeepKernelLikelihood(trunk, U, Z)
        start = likelihood.start(self._pretrained(U, Z, seconds)[:, : trunk.dim])
        position = maximise(likelihood, start, self.steps, self.learning_rate, seconds)
        self._adopt(likelihood, position.detach())

    def _pretrained(self, U: Tensor, Z: Tensor, seconds: float | None) -> Tensor:
        """Weights (m, dim) of a network for each output that has learnt by squared error."""
        network = FlatMLP((U.shape[1], *map(int, self.hidden), 1), self.activation)
        theta = network.initial(Z.shape[1], torch.Generator().manual_seed(self.seed))
        target = Z.T.unsqueeze(2)

        def fit(theta: Tensor) -> Tensor:
            return -(network(theta, U) - target).square().mean((1, 2))

        return maximise(fit, theta, self.pretraining_steps, 1e-3, seconds)

    @torch.no_grad()
    def _adopt(self, likelihood: DeepKernelLikelihood, position: Tensor) -> None:
        self._likelihood, self._position = likelihood, position
        self._at = likelihood.split(position)
        self._rows, self._factor, self._white = likelihood.condition(self._at)

    def _conditional(self, U: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (m, n), whitened covariances with the rows (m, rows, n), features (m, n, k)."""
        features = self._likelihood.scaled_features(self._at, U)
        cross = self._at.outputscale[:, None, None] * matern52(self._rows, features)
        half = torch.linalg.solve_triangular(self._factor, cross, upper=False)
        mean = self._at.mean.unsqueeze(1) + (half * self._white).sum(1)
        return mean, half, features

    def _predictive(self, U: Tensor) -> Predictive:
        mean, half, _ = self._conditional(U)
        variance = (self._at.outputscale.unsqueeze(1) - half.square().sum(1)).clamp_min(0.0)
        return Predictive.gaussian(mean.T, (variance + self._at.noise.unsqueeze(1)).sqrt().T)

    def _posterior(self, U: Tensor, observation_noise: bool) -> Posterior:
        *batch, q, d = U.shape
        mean, half, features = self._conditional(U.reshape(-1, d))
        m = len(mean)
        white = half.reshape(m, half.shape[1], *batch, q).movedim(1, -2)
        a = features.reshape(m, *batch, q, -1)
        scale = self._at.outputscale.reshape(m, *[1] * (len(batch) + 2))
        own = self._at.noise if observation_noise else 1e-6 * self._at.outputscale
        eye = torch.eye(q, dtype=U.dtype) * own.reshape(scale.shape)
        covariance = scale * matern52(a, a) - white.mT @ white + eye
        return joint_normal(list(mean.reshape(m, *batch, q)), list(covariance))

    def _state(self) -> dict[str, Tensor]:
        likelihood = self._likelihood
        return {"position": self._position, "x": likelihood.x, "y": likelihood.y}

    def _load(self, state: dict[str, Tensor]) -> None:
        sizes = (state["x"].shape[1], *map(int, self.hidden))
        likelihood = DeepKernelLikelihood(FlatMLP(sizes, self.activation), state["x"], state["y"])
        self._adopt(likelihood, state["position"])
