r"""Priors on weights under which a network's functions look like those of a Gaussian process.

Tran, Rossi, Milios & Filippone (2022, arXiv 2011.12829): with :math:`f(X)` the values of a random
function at a measurement set :math:`X` of N points, drawn anew at every step, choose the parameters
:math:`\psi` of a prior on weights (see `understudy.nn.layer_priors`) to minimise the Wasserstein
distance

.. math:: W_1 = \max_{\phi} \sum_k E_{f \sim p_\psi} \phi(f_k(X)) - E_{f \sim GP}\, \phi(f_k(X))

over critics :math:`\phi: R^N \to R` of slope at most 1, summed over the outputs k. The critic is a
network N-200-200-1 with softplus, fitted by Adagrad with the penalty

.. math:: 10 \sum_k E (|\nabla\phi(\hat f_k)| - 1)^2, \qquad
          \hat f = u f_{\text{net}} + (1 - u) f_{\text{GP}}, \quad u \sim U(0, 1) .

Each step (1) draws :math:`X`, and S functions of the network and of the process; (2) starts a new
critic; (3) fits it to other S functions of each, without gradient to :math:`\psi`, until the norm
of its gradient is below a threshold; (4) takes a step of RMSprop down :math:`W_1` of the first
functions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from understudy.core.errors import UserError
from understudy.core.linalg import cholesky
from understudy.core.progress import Listener, Progress
from understudy.nn.bayesian_mlp import FlatMLP
from understudy.nn.layer_priors import (
    LAYER_PRIORS,
    LayerPrior,
    fixed_gaussian,
    fixed_hierarchical,
)

CRITIC_WIDTH = 200

# -- the functions wanted -----------------------------------------------------------------------


class RandomFunctions(Protocol):
    """A distribution over functions with one or several independent outputs."""

    def sample_functions(self, X: Tensor, functions: int, generator: torch.Generator) -> Tensor:
        """Values (N, S, out) of S functions at points X (N, d)."""
        ...


def _rbf(X: Tensor, lengthscale: Tensor, variance: Tensor) -> Tensor:
    """Covariances (*batch, N, N) at X (N, d), lengthscale (*batch, d), variance (*batch,)."""
    scaled = X.double() / lengthscale.unsqueeze(-2)
    return variance[..., None, None] * torch.cdist(scaled, scaled).square().mul(-0.5).exp()


def _draws(covariance: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    return cholesky(covariance) @ normal


@dataclass(frozen=True)
class RBFProcess:
    r"""Zero-mean Gaussian process, :math:`k = v \exp(-\tfrac12 \sum_i (x_i - x_i')^2 / l_i^2)`.

    Parameters
    ----------
    lengthscale : float or tuple of float
        Of all inputs, or of each.
    variance : float
    outputs : int
        Independent processes.
    """

    lengthscale: float | tuple[float, ...] = 1.0
    variance: float = 1.0
    outputs: int = 1

    def __post_init__(self) -> None:
        scales = (
            self.lengthscale if isinstance(self.lengthscale, tuple | list) else (self.lengthscale,)
        )
        if not all(0.0 < scale < math.inf for scale in (*scales, self.variance)):
            raise UserError(
                "lengthscale and variance of a process must be positive and finite, got "
                f"{self.lengthscale} and {self.variance}"
            )

    def covariance(self, X: Tensor) -> Tensor:
        """Covariance (N, N) of one output at points X (N, d), in double precision."""
        lengthscale = torch.tensor(self.lengthscale, dtype=torch.float64).expand(X.shape[1])
        return _rbf(X, lengthscale, torch.tensor(self.variance, dtype=torch.float64))

    def sample_functions(self, X: Tensor, functions: int, generator: torch.Generator) -> Tensor:
        """Values (N, S, out) of S functions at points X (N, d), in double precision."""
        drawn = _draws(self.covariance(X), (len(X), functions * self.outputs), generator)
        return drawn.unflatten(1, (functions, self.outputs))


@dataclass(frozen=True)
class HierarchicalRBFProcess:
    r"""Gaussian process whose lengthscales and variance are drawn anew for each function.

    :math:`\log l_i \sim N(\log\sqrt{2d}, 1)` for each of d inputs, :math:`\log v \sim N(0.1, 1)`:
    what the paper takes for standardised tables.

    Parameters
    ----------
    outputs : int
        Processes with the same lengthscales and variance.
    """

    outputs: int = 1

    def sample_functions(self, X: Tensor, functions: int, generator: torch.Generator) -> Tensor:
        """Values (N, S, out) of S functions at points X (N, d), in double precision."""
        shape = (functions, X.shape[1])
        log_scale = torch.randn(shape, generator=generator, dtype=torch.float64)
        log_variance = torch.randn(functions, generator=generator, dtype=torch.float64)
        lengthscale = (log_scale + 0.5 * math.log(2.0 * X.shape[1])).exp()
        covariance = _rbf(X, lengthscale, (log_variance + 0.1).exp())
        drawn = _draws(covariance, (functions, len(X), self.outputs), generator)
        return drawn.transpose(0, 1)


# -- where functions are compared ---------------------------------------------------------------

MeasurementSet = Callable[[torch.Generator], Tensor]
"""Draws points (N, d)."""


@dataclass(frozen=True)
class Grid:
    """The same equidistant points of one input at every step.

    Parameters
    ----------
    low, high : float
    points : int
        200 on [-6, 6] as in the paper's one-dimensional example.
    """

    low: float = -6.0
    high: float = 6.0
    points: int = 200

    def __call__(self, generator: torch.Generator) -> Tensor:
        """Points (N, 1)."""
        return torch.linspace(self.low, self.high, self.points, dtype=torch.float64).unsqueeze(1)


@dataclass(frozen=True)
class TrainingAndUniform:
    """Rows of the training inputs, and points uniform in their range.

    Parameters
    ----------
    x : Tensor (n, d)
        Training inputs.
    points : int
        N; 100 as in the paper's tables.
    share : float in [0, 1]
        Of rows, drawn without replacement; 0.7 as in the paper.
    """

    x: Tensor
    points: int = 100
    share: float = 0.7

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0 or self.points < 1:
            raise UserError(
                "a measurement set needs at least one point and a share in [0, 1], got "
                f"{self.points} and {self.share}"
            )
        if self.rows > len(self.x):
            raise UserError(
                f"a measurement set of {self.points} points with a share of {self.share} takes "
                f"{self.rows} rows, and there are only {len(self.x)}: lower either"
            )

    @property
    def rows(self) -> int:
        """How many of the points are rows."""
        return round(self.share * self.points)

    def __call__(self, generator: torch.Generator) -> Tensor:
        """Points (N, d)."""
        chosen = torch.randperm(len(self.x), generator=generator)[: self.rows]
        low, high = self.x.amin(0), self.x.amax(0)
        shape = (self.points - self.rows, self.x.shape[1])
        uniform = torch.rand(shape, generator=generator, dtype=self.x.dtype)
        return torch.cat([self.x[chosen], low + (high - low) * uniform])


def minibatch(x: Tensor, points: int) -> TrainingAndUniform:
    """Rows of the training inputs x (n, d) only, as the paper takes for classification."""
    return TrainingAndUniform(x, points, share=1.0)


# -- the distance -------------------------------------------------------------------------------


class Critic(nn.Module):
    """Network N-200-200-1 with softplus on vectors of function values, with its slope.

    Weights start Xavier-normal and biases from N(0, 1).

    Parameters
    ----------
    points : int
        N.
    generator : torch.Generator
    dtype : torch.dtype
    """

    def __init__(self, points: int, generator: torch.Generator, dtype: torch.dtype) -> None:
        super().__init__()
        sizes = (points, CRITIC_WIDTH, CRITIC_WIDTH, 1)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=dtype)

        self.weights = nn.ParameterList(
            normal(i, o) * math.sqrt(2.0 / (i + o)) for i, o in pairwise(sizes)
        )
        self.biases = nn.ParameterList(normal(o) for o in sizes[1:])

    def forward(self, f: Tensor) -> Tensor:
        """Values (s,) at function values f (s, N)."""
        h = f
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = softplus(torch.addmm(bias, h, weight))
        return torch.addmm(self.biases[-1], h, self.weights[-1]).squeeze(1)

    def slope(self, f: Tensor) -> Tensor:
        """Norms (s,) of the gradients in f (s, N)."""
        first, second, last = self.weights
        z1 = torch.addmm(self.biases[0], f, first)
        z2 = torch.addmm(self.biases[1], softplus(z1), second)
        back = (torch.sigmoid(z2) * last.squeeze(1)) @ second.mT
        return ((torch.sigmoid(z1) * back) @ first.mT).norm(dim=1)

    @torch.no_grad()
    def loss_gradients(
        self, network: Tensor, process: Tensor, between: Tensor, penalty: float, one_sided: bool
    ) -> list[Tensor]:
        r"""Gradients, in all weights but the last bias, of the loss that fits the critic.

        .. math:: L = \sum_r \lambda (|\nabla\phi(\hat f_r)| - 1)^2 - \phi(f_r) + \phi(g_r)

        over rows, written out: it takes half the time of two passes of autograd.

        Parameters
        ----------
        network, process, between : Tensor (r, N)
            :math:`f`, :math:`g` and :math:`\hat f`.
        penalty : float
            :math:`\lambda`.
        one_sided : bool
            Whether slopes below 1 go free.

        Returns
        -------
        list of Tensor
            Of weights and biases by turns.
        """
        first, second, last = (weight.detach() for weight in self.weights)
        r, c = len(between), last.squeeze(1)
        x = torch.cat([network, process, between])
        z1 = torch.addmm(self.biases[0], x, first)
        h1, s1 = softplus(z1), torch.sigmoid(z1)
        z2 = torch.addmm(self.biases[1], h1, second)
        h2, s2 = softplus(z2[: 2 * r]), torch.sigmoid(z2)
        up = torch.ones(2 * r, dtype=x.dtype)
        up[:r] = -1.0
        d_z2 = s2 * c
        b1, b2, p = s1[2 * r :], s2[2 * r :], d_z2[2 * r :].clone()
        v = p @ second.mT
        u = b1 * v
        slope = u @ first.mT
        norm = slope.norm(dim=1)
        excess = (norm - 1.0).clamp_min(0.0) if one_sided else norm - 1.0
        d_slope = slope.mul_((2.0 * penalty * excess / norm).unsqueeze(1))
        d_u = d_slope @ first
        d_v = d_u * b1
        d_p = d_v @ second
        d_last = h2.mT @ up + (d_p * b2).sum(0)
        d_z2[: 2 * r] *= up.unsqueeze(1)
        d_z2[2 * r :] *= d_p * (1.0 - b2)
        d_z1 = (d_z2 @ second.mT).mul_(s1)
        d_z1[2 * r :] += d_u * u * (1.0 - b1)
        d_second = torch.addmm(d_v.mT @ p, h1.mT, d_z2)
        d_first = torch.addmm(d_slope.mT @ u, x.mT, d_z1)
        return [d_first, d_z1.sum(0), d_second, d_z2.sum(0), d_last.unsqueeze(1)]


def wasserstein(critic: Critic, network: Tensor, process: Tensor) -> Tensor:
    """Difference of a critic's means, summed over outputs, for functions (N, S, out) of each."""
    values = critic(torch.cat([_vectors(network), _vectors(process)]))
    first, second = values.tensor_split(2)
    return network.shape[2] * (first.mean() - second.mean())


def _vectors(functions: Tensor) -> Tensor:
    """Function values (N, S, out) as vectors (S * out, N)."""
    return functions.permute(1, 2, 0).flatten(0, 1)


@dataclass(frozen=True)
class MatchHistory:
    """What each step of a match found.

    Parameters
    ----------
    distance : Tensor (steps,)
        Wasserstein distance estimated on functions that the critic has not seen.
    critic_steps : Tensor (steps,)
        Steps of the critic.
    seconds : float
    """

    distance: Tensor
    critic_steps: Tensor
    seconds: float

    def smoothed(self, share: float = 0.1) -> tuple[float, float]:
        """Mean distance over the first three steps, and over the last share of all."""
        last = max(1, round(share * len(self.distance)))
        return float(self.distance[:3].mean()), float(self.distance[-last:].mean())


@dataclass
class FunctionalPriorMatcher:
    """Fits a prior on weights so that the network's functions look like those of a process.

    Parameters
    ----------
    process : RandomFunctions
        Such as `RBFProcess`.
    prior : LayerPrior
        Its parameters are changed in place. The computation runs in their precision.
    measurement : callable
        Draws the points at which functions are compared: `Grid`, `TrainingAndUniform`,
        `minibatch`.
    functions : int
        S; 512 in the paper's one-dimensional example, 128 for tables.
    steps : int
        Of the prior; 200 in the paper for tables, 800 in one dimension.
    learning_rate : float
        Of RMSprop; 0.05 and 0.01 likewise.
    critic_steps : int
        At most, for each step of the prior; 200 and 1000 likewise.
    critic_learning_rate : float
        Of Adagrad; 0.02 and 0.08 likewise.
    threshold : float
        Norm of the critic's gradient at which it is fitted; 0.1 and 0.01 likewise.
    penalty : float
        Weight of the slope penalty.
    one_sided : bool
        Whether slopes below 1 go free ("lp"; Petzka et al. 2018, arXiv 1709.08894).
    one_memory : bool
        Whether Adagrad's sums of squared gradients go on from critic to critic, as in the official
        code, whose rate of 0.08 needs it: the first steps of all at that rate overshoot.
    max_seconds : float, optional
    listener : callable, optional
        Receives `Progress`.
    seed : int
    """

    process: RandomFunctions
    prior: LayerPrior
    measurement: MeasurementSet
    functions: int = 128
    steps: int = 200
    learning_rate: float = 0.05
    critic_steps: int = 200
    critic_learning_rate: float = 0.02
    threshold: float = 0.1
    penalty: float = 10.0
    one_sided: bool = False
    one_memory: bool = False
    max_seconds: float | None = None
    listener: Listener | None = field(default=None, repr=False)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("functions", "steps", "critic_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "critic_learning_rate", "penalty"):
            if not getattr(self, name) > 0.0:
                raise UserError(f"{name} must be positive, got {getattr(self, name)}")

    @torch.enable_grad()
    def fit(self) -> MatchHistory:
        """Fit the prior; an end of the time keeps what there is.

        Raises
        ------
        UserError
            If process and network have different numbers of outputs.
        """
        generator = torch.Generator().manual_seed(self.seed)
        parameters = list(self.prior.parameters())
        optimiser = torch.optim.RMSprop(parameters, lr=self.learning_rate)
        distances: list[float] = []
        used: list[int] = []
        memory: list[Tensor] = []
        begin = time.perf_counter()
        for _ in range(self.steps):
            X = self.measurement(generator).to(parameters[0])
            network, process = self._both(X, generator)
            _check_outputs(network, process)
            if not self.one_memory:
                memory = []
            critic, steps = self._critic(X, memory, generator)
            distance = wasserstein(critic, network, process)
            gradients = torch.autograd.grad(distance, parameters)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimiser.step()
            distances.append(float(distance.detach()))
            used.append(steps)
            seconds = time.perf_counter() - begin
            self._report(distances, seconds)
            if self.max_seconds is not None and seconds > self.max_seconds:
                break
        optimiser.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - begin
        return MatchHistory(torch.tensor(distances), torch.tensor(used), seconds)

    def _both(self, X: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Values (N, S, out) of functions of the network, and of the process."""
        process = self.process.sample_functions(X, self.functions, generator).to(X)
        return self.prior.sample_functions(X, self.functions, generator), process

    def _critic(
        self, X: Tensor, memory: list[Tensor], generator: torch.Generator
    ) -> tuple[Critic, int]:
        """Fit a new critic to functions of its own."""
        with torch.no_grad():
            network, process = self._both(X, generator)
        critic = Critic(len(X), generator, X.dtype)
        return critic, self._fit_critic(critic, network, process, memory, generator)

    @torch.no_grad()
    def _fit_critic(
        self,
        critic: Critic,
        network: Tensor,
        process: Tensor,
        squares: list[Tensor],
        generator: torch.Generator,
    ) -> int:
        """Fit by Adagrad to functions (N, S, out) of each, and return the steps taken.

        ``squares`` are its sums of squared gradients so far, none at first, and are added to.
        """
        f, g, functions = _vectors(network), _vectors(process), network.shape[1]
        pairs = zip(critic.weights, critic.biases, strict=True)
        parameters = [parameter for pair in pairs for parameter in pair][:-1]
        if not squares:
            squares.extend(torch.zeros_like(parameter) for parameter in parameters)
        for step in range(self.critic_steps):
            u = torch.rand(functions, generator=generator, dtype=f.dtype)
            u = u.repeat_interleave(network.shape[2]).unsqueeze(1)
            gradients = critic.loss_gradients(
                f, g, torch.lerp(g, f, u), self.penalty, self.one_sided
            )
            torch._foreach_div_(gradients, float(functions))
            norms = torch._foreach_norm(gradients)
            if float(torch.stack(norms).norm()) < self.threshold:
                return step
            torch._foreach_addcmul_(squares, gradients, gradients)
            scales = torch._foreach_sqrt(squares)
            torch._foreach_add_(scales, 1e-10)
            torch._foreach_addcdiv_(parameters, gradients, scales, value=-self.critic_learning_rate)
        return self.critic_steps

    def _report(self, distances: list[float], seconds: float) -> None:
        if self.listener is not None:
            budget = math.inf if self.max_seconds is None else self.max_seconds
            said = f"step {len(distances)} of {self.steps}, distance {distances[-1]:.3g}"
            self.listener(Progress("match prior", seconds, budget, said))


def _check_outputs(network: Tensor, process: Tensor) -> None:
    if network.shape != process.shape:
        raise UserError(
            f"the process has {process.shape[2]} output(s) and the network {network.shape[2]}: "
            "they must be as many"
        )


# -- what a surrogate asks for ------------------------------------------------------------------


@dataclass(frozen=True)
class FunctionalPrior:
    """How to match a prior for the inputs of a table, which are standardised.

    Parameters
    ----------
    family : {"gaussian", "hierarchical", "flow"}
        Of the prior on weights: GPi-G, GPi-H, GPi-NF in the paper.
    lengthscale : float, optional
        Of all inputs; by default both it and the variance are drawn anew for each function (see
        `HierarchicalRBFProcess`).
    variance : float
        Of the process; without effect if no lengthscale is given.
    points, share : int, float
        Measurement set (see `TrainingAndUniform`); a short table has as many points as its rows
        allow.
    functions, steps, learning_rate, critic_steps, critic_learning_rate, threshold
        See `FunctionalPriorMatcher`.
    """

    family: str = "gaussian"
    lengthscale: float | None = None
    variance: float = 1.0
    points: int = 100
    share: float = 0.7
    functions: int = 128
    steps: int = 200
    learning_rate: float = 0.05
    critic_steps: int = 200
    critic_learning_rate: float = 0.02
    threshold: float = 0.1

    def __post_init__(self) -> None:
        if self.family not in LAYER_PRIORS:
            known = ", ".join(LAYER_PRIORS)
            raise UserError(f"family of a prior must be one of {known}, got {self.family!r}")

    def match(
        self, network: FlatMLP, x: Tensor, seed: int, max_seconds: float | None = None
    ) -> LayerPrior:
        """Return a prior on the network's weights, matched on inputs x (n, d)."""
        outputs = network.sizes[-1]
        process: RandomFunctions = HierarchicalRBFProcess(outputs)
        if self.lengthscale is not None:
            process = RBFProcess(self.lengthscale, self.variance, outputs)
        points = min(self.points, int(len(x) / self.share)) if self.share else self.points
        prior = LAYER_PRIORS[self.family](network).float()
        FunctionalPriorMatcher(
            process,
            prior,
            TrainingAndUniform(x, points, self.share),
            functions=self.functions,
            steps=self.steps,
            learning_rate=self.learning_rate,
            critic_steps=self.critic_steps,
            critic_learning_rate=self.critic_learning_rate,
            threshold=self.threshold,
            max_seconds=max_seconds,
            seed=seed,
        ).fit()
        return prior.double()


FIXED: dict[str, Callable[[FlatMLP], LayerPrior]] = {
    "fixed": fixed_gaussian,
    "fixed-hierarchical": fixed_hierarchical,
}
FUNCTIONAL = {
    "functional": FunctionalPrior(),
    "functional-hierarchical": FunctionalPrior("hierarchical"),
    "functional-flow": FunctionalPrior("flow"),
}
PRIORS = (*FIXED, *FUNCTIONAL)
"""Names of priors that a surrogate accepts."""

PriorChoice = str | dict[str, object] | FunctionalPrior | LayerPrior
"""A name of `PRIORS`, how to match one (or its fields as a dict), or a prior as it is."""


def layer_prior(
    choice: PriorChoice,
    network: FlatMLP,
    x: Tensor,
    seed: int,
    max_seconds: float | None = None,
) -> LayerPrior:
    """Return the prior on the network's weights that was asked for.

    Parameters
    ----------
    choice : str, dict, FunctionalPrior or LayerPrior
    network : FlatMLP
    x : Tensor (n, d)
        Inputs as the network sees them.
    seed : int
    max_seconds : float, optional
        Of a match.

    Raises
    ------
    UserError
        If there is no such prior, or it is of another network.
    """
    if isinstance(choice, LayerPrior):
        if choice.network.sizes != network.sizes:
            raise UserError(
                f"the prior is of a network of widths {choice.network.sizes}, and the surrogate's "
                f"is {network.sizes}"
            )
        return choice
    if isinstance(choice, str) and choice in FIXED:
        return FIXED[choice](network)
    return _recipe(choice).match(network, x, seed, max_seconds)


def _recipe(choice: str | dict[str, object] | FunctionalPrior) -> FunctionalPrior:
    if isinstance(choice, FunctionalPrior):
        return choice
    if isinstance(choice, str):
        if choice not in FUNCTIONAL:
            raise UserError(f"prior must be one of {', '.join(PRIORS)}, got {choice!r}")
        return FUNCTIONAL[choice]
    try:
        return FunctionalPrior(**choice)  # type: ignore[arg-type]
    except TypeError as error:
        raise UserError(f"prior cannot be made of {choice!r} ({error})") from error
