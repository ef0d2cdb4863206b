r"""Infinite-width Bayesian network as a surrogate: an exact Gaussian process with its kernel.

Li et al. (2024), "A study of Bayesian neural network surrogates for Bayesian optimization", arXiv
2305.20028, section 2 (I-BNN). The kernel :math:`k` is that of `understudy.nn.infinite_width` on
inputs :math:`\sqrt{r_k}\, x_k`, with the relevances :math:`r_k`, the variances of weights and
biases, the output scale and the noise of

.. math:: y = c + f(x) + \varepsilon, \qquad f \sim GP(0, s^2 k), \qquad
          \varepsilon \sim N(0, \sigma^2)

at the mode of their posterior for each output (the paper keeps the kernel fixed and learns noise
and mean: ``learn_kernel=False``). Conditioning, cross-validation and joint predictions are those of
any exact process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor

from understudy.core.errors import UserError
from understudy.models.tabular.gaussian_process import GaussianProcess, check_process
from understudy.models.tabular.marginal_likelihood import MarginalLikelihood, Prior
from understudy.models.tabular.pathwise import Features
from understudy.nn.gaussian_expectation import NAMED
from understudy.nn.infinite_width import nngp, nngp_variance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_WIDTH = 512  # of a random network that stands for an infinitely wide one


@dataclass(frozen=True)
class NetworkKernel:
    """Kernels of g infinitely wide networks.

    Parameters
    ----------
    depth : int
    activation : str
    relevance : Tensor (g, d)
        Factor of each squared input.
    weight_variance, bias_variance, outputscale : Tensor (g,)
    """

    depth: int
    activation: str
    relevance: Tensor
    weight_variance: Tensor
    bias_variance: Tensor
    outputscale: Tensor

    def _inputs(self, A: Tensor) -> Tensor:
        """Inputs about the middle of the unit cube, weighted, (*batch, g, p, d)."""
        return (2.0 * A - 1.0).unsqueeze(-3) * self.relevance.sqrt().unsqueeze(-2)

    def __call__(self, A: Tensor, B: Tensor) -> Tensor:
        """Covariances (*batch, g, p, q) of A (*batch, p, d) with B (q, d) or (*batch, q, d)."""
        w, b, s = (
            value[:, None, None]
            for value in (self.weight_variance, self.bias_variance, self.outputscale)
        )
        return s * nngp(self._inputs(A), self._inputs(B), self.depth, self.activation, w, b)

    def diagonal(self, A: Tensor) -> Tensor:
        """Variances (*batch, g, p)."""
        w, b, s = (
            value[:, None] for value in (self.weight_variance, self.bias_variance, self.outputscale)
        )
        return s * nngp_variance(self._inputs(A), self.depth, self.activation, w, b)

    def random_features(self, generator: torch.Generator) -> Features:
        """Features (n, p) of U (n, d) whose inner products are nearly the kernel's; g = 1.

        They are a constant and the last hidden layer of a wide random network.
        """
        w, b, s = self.weight_variance.sqrt(), self.bias_variance.sqrt(), self.outputscale.sqrt()
        activation = NAMED[self.activation]
        sizes = [self.relevance.shape[1]] + [_WIDTH] * self.depth
        layers = [
            (
                w * fan**-0.5 * torch.randn((fan, _WIDTH), generator=generator, dtype=w.dtype),
                b * torch.randn((1, _WIDTH), generator=generator, dtype=w.dtype),
            )
            for fan in sizes[:-1]
        ]

        def features(U: Tensor) -> Tensor:
            h = self._inputs(U)[0]
            for weight, bias in layers:
                h = activation(h @ weight + bias)
            constant = torch.ones_like(h[:, :1])
            return s * torch.cat([b * constant, w * _WIDTH**-0.5 * h], dim=1)

        return features

    def process(self, index: int) -> NetworkKernel:
        """Return the kernel of one process."""
        at = slice(index, index + 1)
        return NetworkKernel(
            self.depth,
            self.activation,
            self.relevance[at],
            self.weight_variance[at],
            self.bias_variance[at],
            self.outputscale[at],
        )

    @classmethod
    def of(cls, depth: int, activation: str, parameters: Tensor) -> NetworkKernel:
        """Return the kernel of parameters (g, d + 4): relevances, weight, bias, noise, scale."""
        return cls(
            depth,
            activation,
            parameters[:, :-4],
            parameters[:, -4],
            parameters[:, -3],
            parameters[:, -1],
        )


class NetworkLikelihood(MarginalLikelihood):
    """Marginal likelihood of a network's kernel; its gradient by reverse differentiation.

    Parameters
    ----------
    X : Tensor (n, d)
        Inputs in the unit cube.
    depth : int
    activation : str
    prior : Prior
        Of theta (d + 4,): logarithms of relevances, weight and bias variance, noise, output scale.
    """

    def __init__(self, X: Tensor, depth: int, activation: str, prior: Prior) -> None:
        super().__init__(len(X), prior)
        self.X = X
        self.depth = depth
        self.activation = activation

    def _fill(self, theta: Array) -> None:
        self._theta = torch.tensor(theta, requires_grad=True)
        kernel = NetworkKernel.of(self.depth, self.activation, self._theta.exp().unsqueeze(0))
        self._covariance = kernel(self.X, self.X)[0]
        self._K[...] = self._covariance.detach().numpy()

    def _kernel_gradient(self) -> Array:
        lower = torch.from_numpy(np.tril(self._K))
        lower.diagonal().mul_(0.5)
        M = lower + lower.mT
        (gradient,) = torch.autograd.grad(self._covariance, self._theta, 0.5 * M)
        return gradient.numpy()[:-2]


def network_prior(
    inputs: int,
    depth: int,
    activation: str,
    weight_variance: float,
    bias_variance: float,
    learn_kernel: bool,
    min_noise: float,
) -> Prior:
    r"""Prior of a network's hyperparameters, and where to start.

    .. math:: \log r_k \sim N(0, 2^2), \quad
              \log \sigma_w^2, \log \sigma_b^2 \sim N(\text{given}, 1), \quad
              \sigma^2 \sim \mathrm{LogNormal}(-4, 1)

    and a wide prior on the output scale, about that at which functions have variance 1 in the
    middle of the cube.
    """
    kernel = np.r_[np.zeros(inputs), math.log(weight_variance), math.log(bias_variance)]
    floor, free = math.log(min_noise), float(learn_kernel)

    def unit_scale(relevance: float) -> float:
        if not learn_kernel:
            return 0.0
        inside = torch.full((1, inputs), (relevance / 3.0) ** 0.5, dtype=torch.float64)
        weight, bias = (torch.tensor([v]).double() for v in (weight_variance, bias_variance))
        return -math.log(float(nngp_variance(inside, depth, activation, weight, bias)))

    shifts = (0.0, 2.0) if learn_kernel else (0.0,)
    starts = [
        np.r_[kernel[:-2] + shift, kernel[-2:], max(noise, floor), unit_scale(math.exp(shift))]
        for noise in (-5.0, -8.0, -2.0)
        for shift in shifts
    ]
    reach = free * np.r_[np.full(inputs, 9.0), 3.0, 5.0]
    scale = unit_scale(1.0)
    return Prior(
        loc=np.r_[kernel, -4.0, scale],
        sd=np.r_[np.full(inputs, 2.0), 1.0, 1.0, 1.0, 2.0],
        lower=np.r_[kernel - reach, floor, scale - 9.0 * free],
        upper=np.r_[kernel + reach, 2.0, scale + 9.0 * free],
        starts=np.array(starts),
    )


class InfiniteWidthSurrogate(GaussianProcess):
    """Gaussian process with the kernel of an infinitely wide Bayesian network.

    Parameters
    ----------
    depth : int or sequence of int
        Hidden layers, or several numbers of them, of which the most probable is taken; 3 in the
        paper. On tables of simulations 2 predict as well at half the cost.
    activation : str
        A name of `understudy.nn.gaussian_expectation.NAMED`. ReLU and erf have kernels in closed
        form; others, such as GELU, cost some ten times as much to fit.
    weight_variance, bias_variance : float
        Of the network's prior: where learning starts, or kept.
    learn_kernel : bool
        Whether relevances, variances and output scale are learnt, or only noise and mean.
    min_noise : float
        Least noise variance, as a fraction of an output's variance.
    max_exact : int
        Rows up to which all of them choose the hyperparameters; a random subset does above.
    fold_iterations : int, optional
        As in `ExactGP`.
    max_seconds : float, optional
        Time after which the best hyperparameters so far are kept.
    seed : int
        Of the random subset.

    Attributes
    ----------
    depth_ : int
        Hidden layers of the fitted network.
    """

    depth_: int

    def __init__(
        self,
        *,
        depth: int | Sequence[int] = 2,
        activation: str = "relu",
        weight_variance: float = 10.0,
        bias_variance: float = 1.3,
        learn_kernel: bool = True,
        min_noise: float = 1e-6,
        max_exact: int = 600,
        fold_iterations: int | None = None,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        self.depth = depth
        self.activation = activation
        self.weight_variance = weight_variance
        self.bias_variance = bias_variance
        self.learn_kernel = learn_kernel
        self.min_noise = min_noise
        self.max_exact = max_exact
        self.fold_iterations = fold_iterations
        self.max_seconds = max_seconds
        self.seed = seed

    def _check(self, rows: int) -> None:
        if self.activation not in NAMED:
            accepted = ", ".join(NAMED)
            raise UserError(f"activation must be one of {accepted}, got {self.activation!r}")
        if not self._depths or min(self._depths) < 1:
            raise UserError(f"depth must be at least 1 hidden layer, got {self.depth!r}")
        if min(self.weight_variance, self.bias_variance) <= 0.0:
            raise UserError(
                f"weight_variance and bias_variance must be positive, "
                f"got {self.weight_variance!r} and {self.bias_variance!r}"
            )
        check_process(self, rows)

    @property
    def _depths(self) -> list[int]:
        """Numbers of hidden layers to choose from."""
        return [self.depth] if isinstance(self.depth, int) else list(self.depth)

    def _most_probable(self, U: Tensor, Z: Tensor) -> Tensor:
        tried: list[tuple[float, int, Tensor]] = []
        for depth in self._depths:
            self.depth_ = depth
            theta = super()._most_probable(U, Z)
            tried.append((self._misfit(theta, U, Z), depth, theta))
        _, self.depth_, theta = min(tried, key=lambda one: one[0])
        return theta

    def _misfit(self, theta: Tensor, U: Tensor, Z: Tensor) -> float:
        """Negative log posterior of hyperparameters (m, p) or (1, p); 0 with one depth only."""
        if len(self._depths) == 1:
            return 0.0
        rows = torch.arange(len(U))[: self.max_exact]  # any will do to compare
        likelihood, targets = self._likelihood(U[rows]), Z[rows].numpy()
        if len(theta) < Z.shape[1]:
            return float(likelihood.values(theta[0].numpy(), targets).sum())
        pairs = zip(theta.numpy(), targets.T, strict=True)
        return sum(float(likelihood.values(t, y[:, None])[0]) for t, y in pairs)

    def _copy(self) -> InfiniteWidthSurrogate:
        copy: InfiniteWidthSurrogate = clone(self)
        copy.depth_ = self.depth_
        return copy

    def _state(self) -> dict[str, Tensor]:
        return super()._state() | {"depth": torch.tensor(self.depth_)}

    def _load(self, state: dict[str, Tensor]) -> None:
        self.depth_ = int(state["depth"]) if "depth" in state else self._depths[0]
        super()._load(state)

    def _likelihood(self, U: Tensor) -> NetworkLikelihood:
        prior = network_prior(
            U.shape[1],
            self.depth_,
            self.activation,
            self.weight_variance,
            self.bias_variance,
            self.learn_kernel,
            self.min_noise,
        )
        return NetworkLikelihood(U, self.depth_, self.activation, prior)

    def _kernel(self, parameters: Tensor) -> NetworkKernel:
        return NetworkKernel.of(self.depth_, self.activation, parameters)
