r"""Linearised Laplace of Li, Rudner & Wilson (2024, arXiv 2305.20028), over all weights.

One network is trained by Adam on the mean squared error, with weight decay. About its weights
:math:`\theta_*`, with Jacobians J of the outputs, noise variance :math:`\sigma^2` and prior
precision :math:`\delta`,

.. math:: \Sigma^{-1} = \delta I + \bigoplus_l \Big(\sum_i a_{il} a_{il}^\top\Big) \otimes
          \Big(\frac{1}{n \sigma^2} \sum_i g_{il} g_{il}^\top\Big), \qquad
          \mathrm{Cov}[f(x), f(x')] = J(x) \Sigma J(x')^\top

with a layer's input :math:`a` and the gradient :math:`g` of an output in what the layer puts out
(Ritter et al. 2018; Daxberger et al. 2021, arXiv 2106.14806), and :math:`\delta` climbs the
evidence

.. math:: \log p(y \mid \theta_*) - \tfrac\delta2 |\theta_*|^2 + \tfrac P2 \log\delta
          - \tfrac12 \log|\Sigma^{-1}|

by 50 steps of Adam on its logarithm. Covariances among outputs are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from understudy.core.predictive import Predictive
from understudy.core.surrogate import Surrogate
from understudy.models.tabular.conditioning import joint_normal
from understudy.nn.bayesian_mlp import FlatMLP
from understudy.nn.mlp import ACTIVATIONS

if TYPE_CHECKING:
    from botorch.posteriors import Posterior

_JITTER = 1e-4


@dataclass(frozen=True)
class LayerFactors:
    """What a network's Jacobian is made of at n points.

    Parameters
    ----------
    mean : Tensor (n, m)
    inputs : list of Tensor (n, i + 1)
        Of each layer, with a 1 for the bias.
    gradients : list of Tensor (n, m, o)
        Of the outputs in what each layer puts out.
    """

    mean: Tensor
    inputs: list[Tensor]
    gradients: list[Tensor]

    @classmethod
    def of(cls, network: FlatMLP, theta: Tensor, x: Tensor) -> LayerFactors:
        """Of weights theta (1, dim) at x (n, d), differentiable in x."""
        layers, activation = network.layers(theta), ACTIVATIONS[network.activation]
        one, h = torch.ones_like(x[:, :1]), x
        inputs, slopes = [], []
        for weight, bias in layers[:-1]:
            inputs.append(torch.cat([h, one], dim=1))
            z = h @ weight[0] + bias[0]
            h, slope = torch.func.jvp(activation, (z,), (torch.ones_like(z),))[:2]
            slopes.append(slope)
        inputs.append(torch.cat([h, one], dim=1))
        weight, bias = layers[-1]
        mean = h @ weight[0] + bias[0]
        m = mean.shape[1]
        gradients = [torch.eye(m, dtype=x.dtype).expand(len(x), m, m)]
        for (weight, _), slope in zip(reversed(layers[1:]), reversed(slopes), strict=True):
            gradients.insert(0, (gradients[0] @ weight[0].T) * slope.unsqueeze(1))
        return cls(mean, inputs, gradients)


@dataclass(frozen=True)
class KroneckerPosterior:
    """Normal distribution of the weights, diagonal in the eigenbases of each layer's factors.

    Parameters
    ----------
    input_bases, gradient_bases : list of Tensor (i + 1, i + 1), (o, o)
    variances : list of Tensor (i + 1, o)
    """

    input_bases: list[Tensor]
    gradient_bases: list[Tensor]
    variances: list[Tensor]

    @classmethod
    def fit(
        cls, factors: LayerFactors, weights: Tensor, noise: float, precision: float, steps: int
    ) -> KroneckerPosterior:
        """Of the training rows' factors, with the prior precision that the evidence leads to."""
        n, input_bases, gradient_bases, eigenvalues = len(factors.mean), [], [], []
        for a, g in zip(factors.inputs, factors.gradients, strict=True):
            first, input_basis = torch.linalg.eigh(a.T @ a)
            flat = g.flatten(0, 1)
            second, gradient_basis = torch.linalg.eigh(flat.T @ flat / (n * noise))
            input_bases.append(input_basis)
            gradient_bases.append(gradient_basis)
            eigenvalues.append(torch.outer(first.clamp_min(0.0), second.clamp_min(0.0)))
        delta = tuned_precision(eigenvalues, weights, precision, steps)
        return cls(input_bases, gradient_bases, [1.0 / (e + delta) for e in eigenvalues])

    def covariance(self, factors: LayerFactors, batch: torch.Size, q: int) -> Tensor:
        """Covariance (*batch, m, q, q) of an output at q points, for points (*batch * q)."""
        total: Tensor | float = 0.0
        for rotated in self._rotated(factors):
            whole = rotated.reshape(*batch, q, rotated.shape[1], -1).transpose(-2, -3)
            total = total + whole @ whole.mT
        assert isinstance(total, Tensor)
        return total

    def variance(self, factors: LayerFactors) -> Tensor:
        """Variance (n, m) of the outputs."""
        return torch.stack([part.square().sum(2) for part in self._rotated(factors)]).sum(0)

    def _rotated(self, factors: LayerFactors) -> list[Tensor]:
        """Jacobians (n, m, p) of each layer times a root of the weights' covariance."""
        parts = zip(
            factors.inputs,
            factors.gradients,
            self.input_bases,
            self.gradient_bases,
            self.variances,
            strict=True,
        )
        return [
            ((a @ A)[:, None, :, None] * (g @ G)[:, :, None, :] * v.sqrt()).flatten(2)
            for a, g, A, G, v in parts
        ]


def tuned_precision(
    eigenvalues: list[Tensor], weights: Tensor, precision: float, steps: int
) -> Tensor:
    """Prior precision after some steps of Adam, of length 0.1 in the logarithm, on the evidence."""
    values, norm = torch.cat([e.flatten() for e in eigenvalues]), weights.square().sum()
    log_delta = torch.tensor(precision, dtype=values.dtype).log().requires_grad_()
    adam = torch.optim.Adam([log_delta], lr=0.1, maximize=True)
    for _ in range(steps):
        delta = log_delta.exp()
        evidence = len(values) * log_delta - delta * norm - (values + delta).log().sum()
        (log_delta.grad,) = torch.autograd.grad(0.5 * evidence, log_delta)
        adam.step()
    return log_delta.detach().exp()


class LinearisedLaplace(Surrogate):
    """One network with a Kronecker-factored Laplace posterior over all its weights.

    Parameters
    ----------
    hidden : tuple of int
    activation : str
    prior_variance : float
        At which the tuning of the prior starts.
    noise_variance : float
        Of an observation, in units of the outputs' variance.
    steps : int
        Of Adam on all rows, with a cosine to zero; 1000 in the paper.
    learning_rate, weight_decay : float
        0.1 and 1e-3 in the paper.
    tuning_steps : int
        Of Adam on the evidence; 50 in the paper.
    seed : int
    """

    chunk_rows = 256

    def __init__(
        self,
        *,
        hidden: tuple[int, ...] = (128, 128, 128),
        activation: str = "tanh",
        prior_variance: float = 1.0,
        noise_variance: float = 0.1,
        steps: int = 1000,
        learning_rate: float = 0.1,
        weight_decay: float = 1e-3,
        tuning_steps: int = 50,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.activation = activation
        self.prior_variance = prior_variance
        self.noise_variance = noise_variance
        self.steps = steps
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.tuning_steps = tuning_steps
        self.seed = seed

    def _network(self, inputs: int, outputs: int) -> FlatMLP:
        return FlatMLP((inputs, *map(int, self.hidden), outputs), self.activation)

    def _fit(self, U: Tensor, Z: Tensor) -> None:
        self._mlp = self._network(U.shape[1], Z.shape[1])
        self._theta = self._trained(U, Z)
        with torch.no_grad():
            factors = LayerFactors.of(self._mlp, self._theta, U)
        self._weights = KroneckerPosterior.fit(
            factors, self._theta, self.noise_variance, 1.0 / self.prior_variance, self.tuning_steps
        )

    def _trained(self, U: Tensor, Z: Tensor) -> Tensor:
        """Weights (1, dim) of least mean squared error."""
        theta = self._mlp.initial(1, torch.Generator().manual_seed(self.seed))
        adam = torch.optim.Adam([theta], lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(1, self.steps))
        for _ in range(self.steps):
            output, pullback = self._mlp.vjp(theta, U)
            theta.grad = pullback(2.0 / Z.numel() * (output - Z))
            adam.step()
            schedule.step()
        return theta

    def _predictive(self, U: Tensor) -> Predictive:
        factors = LayerFactors.of(self._mlp, self._theta, U)
        variance = self._weights.variance(factors) + self.noise_variance
        return Predictive.gaussian(factors.mean, variance.sqrt())

    def _expected(self, U: Tensor, outputs: Tensor) -> Tensor:
        return self._mlp(self._theta, U)[0][:, outputs]

    def _posterior(self, U: Tensor, observation_noise: bool) -> Posterior:
        *batch, q, d = U.shape
        factors = LayerFactors.of(self._mlp, self._theta, U.reshape(-1, d))
        own = self.noise_variance if observation_noise else _JITTER
        covariance = self._weights.covariance(factors, torch.Size(batch), q)
        covariance = covariance + own * torch.eye(q, dtype=U.dtype)
        mean = factors.mean.reshape(*batch, q, -1)
        return joint_normal(list(mean.unbind(-1)), list(covariance.unbind(-3)))

    def _state(self) -> dict[str, Tensor]:
        state = {"theta": self._theta.detach(), "sizes": torch.tensor(self._mlp.sizes)}
        for name in ("input_bases", "gradient_bases", "variances"):
            for i, value in enumerate(getattr(self._weights, name)):
                state[f"{name}.{i}"] = value
        return state

    def _load(self, state: dict[str, Tensor]) -> None:
        sizes = state["sizes"].tolist()
        self._theta, self._mlp = state["theta"], FlatMLP(tuple(sizes), self.activation)
        layers = range(len(sizes) - 1)
        self._weights = KroneckerPosterior(
            *(
                [state[f"{name}.{i}"] for i in layers]
                for name in ("input_bases", "gradient_bases", "variances")
            )
        )
