r"""Deep kernel learning: a Gaussian process on the features of a network.

Wilson et al. 2016, arXiv 1511.02222. With features :math:`\phi_w(x)`,

.. math:: y = f(\phi_w(x)) + \varepsilon, \qquad f \sim GP(c, s^2 k_{5/2}), \qquad
          k_{5/2}(r) = (1 + \sqrt5 r + \tfrac53 r^2) e^{-\sqrt5 r},
          \quad r^2 = \sum_l (\phi_l - \phi'_l)^2 / \ell_l^2

and :math:`w, \ell, s, \sigma` maximise the marginal likelihood. Outputs share the features and have
kernels of their own. Priors are those of Li et al. 2024, arXiv 2305.20028: Gamma(2, 0.15) on
:math:`s^2`, Gamma(1.1, 0.05) on :math:`\sigma^2`, and Gamma(3, 6) on lengthscales as shares of the
range of a feature. Features here have unit deviation and a range of about six, so it is
Gamma(3, 1) on theirs.

The marginal likelihood of a deep kernel overfits worse than the network alone (Ober et al. 2021,
arXiv 2102.12108), so: the network first learns by squared error, stopped by rows it has not seen;
features are its last hidden layer on few whitened principal axes; the likelihood is then climbed on
small random subsets of rows, and stopped when the density of held-out rows falls.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from botorch.posteriors import GPyTorchPosterior
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from torch import Tensor, nn

from understudy.core.loop import Settings, Trainer, cosine
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
from understudy.models.tabular.pathwise import Functions, matheron, scaled, waves
from understudy.nn.soap import SOAP

if TYPE_CHECKING:
    from botorch.posteriors import Posterior
    from numpy.typing import NDArray

_LEAST_NOISE = 1e-6
_RANGE = 6.0  # of a feature of unit deviation


def matern(a: Tensor, b: Tensor) -> Tensor:
    """Matern-5/2 correlation (..., n, k) x (..., l, k) -> (..., n, l) at unit lengthscale."""
    squares = a.square().sum(-1).unsqueeze(-1) + b.square().sum(-1).unsqueeze(-2)
    r = (5.0 * (squares - 2.0 * a @ b.mT).clamp_min(1e-14)).sqrt()
    return (1.0 + r + r.square() / 3.0) * torch.exp(-r)


class DeepKernel(nn.Module):
    """B deep kernels with m outputs each.

    Parameters
    ----------
    network : Regressor
        B trained networks.
    x : Tensor (n, d)
        Rows whose features set the principal axes.
    noise : Tensor (m,)
        First guess of the noise variance.
    features : int
        Principal axes kept.
    """

    def __init__(self, network: Regressor, x: Tensor, noise: Tensor, features: int) -> None:
        super().__init__()
        self.network = network
        h = network.mlp.features(x)
        centre = h.mean(1, keepdim=True)
        _, values, axes = torch.linalg.svd(h - centre, full_matrices=False)
        kept = min(features, values.shape[1])
        least = 1e-3 * values[:, :1]  # axes on which rows hardly differ are not blown up
        scale = math.sqrt(len(x)) / torch.maximum(values, least)[:, None, :kept]
        B, m = len(h), len(noise)
        self.centre: Tensor
        self.axes: Tensor
        self.register_buffer("centre", centre)
        self.register_buffer("axes", axes.mT[..., :kept] * scale)
        self.lengths = nn.Parameter(torch.full((B, m, 1, kept), 3.0).log().to(h.dtype))
        self.outputscale = nn.Parameter(torch.zeros(B, m, dtype=h.dtype))
        self.noise = nn.Parameter(noise.clamp(1e-4, 1.0).log().expand(B, m).clone())
        self.mean = nn.Parameter(torch.zeros(B, m, dtype=h.dtype))

    def features(self, x: Tensor) -> Tensor:
        """Features over lengthscales (B, m, n, k) of x (n, d) or (B, n, d)."""
        z = (self.network.mlp.features(x) - self.centre) @ self.axes
        return z.unsqueeze(1) / self.lengths.exp()

    def noise_variance(self) -> Tensor:
        """Noise variance sigma^2, (B, m)."""
        return self.noise.exp() + _LEAST_NOISE

    def factor(self, a: Tensor) -> Tensor:
        """Cholesky factor (B, m, n, n) of the covariance of observations at features a."""
        eye = torch.eye(a.shape[-2], dtype=a.dtype)
        covariance = self.outputscale.exp()[..., None, None] * matern(a, a)
        return torch.linalg.cholesky(covariance + self.noise_variance()[..., None, None] * eye)

    def negative_log_likelihood(self, x: Tensor, Z: Tensor) -> Tensor:
        """Of observations Z (B, n, m) at x (B, n, d), a row, (B,)."""
        factor = self.factor(self.features(x))
        error = (Z.mT - self.mean.unsqueeze(-1)).unsqueeze(-1)
        white = torch.linalg.solve_triangular(factor, error, upper=False)
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        total = 0.5 * white.square().sum((-2, -1)) + log_det
        return (total.sum(-1) - self.log_prior()) / x.shape[-2]

    def log_prior(self) -> Tensor:
        """Gamma log densities of lengthscales, outputscale and noise, up to a constant, (B,)."""

        def gamma(log: Tensor, shape: float, rate: float) -> Tensor:
            return ((shape - 1.0) * log - rate * log.exp()).flatten(1).sum(1)

        first = gamma(self.lengths, 3.0, 6.0 / _RANGE) + gamma(self.outputscale, 2.0, 0.15)
        return first + gamma(self.noise, 1.1, 0.05)

    def pick(self, which: slice) -> DeepKernel:
        """Return a copy of some of the kernels, without gradients."""
        part = DeepKernel.__new__(DeepKernel)
        nn.Module.__init__(part)
        part.network = self.network.pick(which)
        for name in ("centre", "axes"):
            part.register_buffer(name, getattr(self, name)[which].clone())
        for name in ("lengths", "outputscale", "noise", "mean"):
            value = getattr(self, name).detach()[which].clone()
            setattr(part, name, nn.Parameter(value, requires_grad=False))
        return part


class Conditioned:
    """Deep kernels conditioned on rows.

    Parameters
    ----------
    kernel : DeepKernel
        B of them.
    x : Tensor (n, d) or (B, n, d)
    Z : Tensor (n, m) or (B, n, m)
    """

    def __init__(self, kernel: DeepKernel, x: Tensor, Z: Tensor) -> None:
        self.kernel, self.x, self.Z = kernel, x, Z
        with torch.no_grad():
            self.rows = kernel.features(x)
            self.factor = kernel.factor(self.rows)
            error = (Z.mT - kernel.mean.unsqueeze(-1)).unsqueeze(-1)
            self.weights = torch.cholesky_solve(error, self.factor)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and marginal variance of the function, (B, n, m), at x (n, d) or (B, n, d)."""
        mean, white, _ = self._cross(x)
        scale = self.kernel.outputscale.exp().unsqueeze(-1)
        return mean.mT, (scale - white.square().sum(-2)).clamp_min(0.0).mT

    def mean(self, x: Tensor) -> Tensor:
        """Mean of the function, (B, n, m), at x (n, d) or (B, n, d)."""
        scale = self.kernel.outputscale.exp()[..., None, None]
        cross = matern(self.kernel.features(x), self.rows)
        return (self.kernel.mean[..., None, None] + cross @ (scale * self.weights))[..., 0].mT

    def joint(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, q, m) and covariance (B, m, q, q) of the function at x (B, q, d)."""
        mean, white, features = self._cross(x)
        prior = self.kernel.outputscale.exp()[..., None, None] * matern(features, features)
        return mean.mT, prior - white.mT @ white

    def _cross(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.kernel.features(x)
        scale = self.kernel.outputscale.exp()[..., None, None]
        cross = scale * matern(self.rows, features)
        mean = self.kernel.mean.unsqueeze(-1) + (cross * self.weights).sum(-2)
        return mean, torch.linalg.solve_triangular(self.factor, cross, upper=False), features


class DeepKernelSurrogate(Surrogate):
    """Gaussian process on the features of a network.

    Parameters
    ----------
    features : int
        Principal axes of the last hidden layer that the kernel sees.
    activation : str
    width, depth : int
        Of the hidden layers.
    pretraining_steps : int, optional
        Steps on the squared error; by default from the number of rows.
    steps : int
        Steps on the marginal likelihood at most.
    learning_rate : float
        Of the kernel's parameters there; the network's is a tenth of it.
    max_seconds : float, optional
        Wall time of a fit.
    seed : int
    """

    chunk_rows = 1024

    def __init__(
        self,
        *,
        features: int = 8,
        activation: str = "silu",
        width: int = 64,
        depth: int = 2,
        pretraining_steps: int | None = None,
        steps: int = 100,
        learning_rate: float = 3e-2,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        self.features = features
        self.activation = activation
        self.width = width
        self.depth = depth
        self.pretraining_steps = pretraining_steps
        self.steps = steps
        self.learning_rate = learning_rate
        self.max_seconds = max_seconds
        self.seed = seed

    def _fit(self, U: Tensor, Z: Tensor) -> None:
        self._fit_folds(U, Z, inner_folds(len(U), self.seed))

    def _fit_folds(self, U: Tensor, Z: Tensor, folds: NDArray[np.int_]) -> Predictive:
        start, folds = time.monotonic(), np.asarray(folds)
        self._shift, self._spread = U.mean(0), U.std(0).clamp_min(0.1)
        x = self.standardised(U)
        committee = train_committee(x.float(), Z.float(), folds, self._recipe())
        tested = torch.from_numpy(folds >= 0)
        noise = (committee.mean.mean(0).double() - Z[tested]).square().mean(0)
        held = [np.flatnonzero(folds == k) for k in np.unique(folds[folds >= 0])]
        repeats = len(committee.folded.line) // len(held)
        network = _joined(committee.folded, committee.network, repeats)
        anchors = torch.from_numpy(self._some_rows(np.arange(len(x)), 2_000))
        kernel = DeepKernel(network, x[anchors], noise, self.features)
        interrupted = committee.interrupted or self._climb(kernel, x, Z, held, start)
        most = _most_conditioned(Z.shape[1])
        rows = torch.from_numpy(self._some_rows(np.arange(len(x)), most))
        self._process = Conditioned(kernel.pick(slice(len(held), None)), x[rows], Z[rows])
        moments = self._held_out(kernel, x, Z, held)
        order = torch.from_numpy(np.argsort(np.concatenate(held)))
        moments = Moments(*(getattr(moments, name)[order] for name in vars(moments)))
        self._factors = scale_variances(moments, Z[tested])
        if interrupted:
            raise KeyboardInterrupt
        return moments.gaussian(self._factors)

    def _recipe(self) -> Recipe:
        return Recipe(
            members=1,
            activation=self.activation,
            width=self.width,
            depth=self.depth,
            steps=self.pretraining_steps,
            loss=squared_error,
            seconds=None if self.max_seconds is None else 0.4 * self.max_seconds,
            seed=self.seed,
        )

    def _some_rows(self, rows: NDArray[np.int_], most: int) -> NDArray[np.int_]:
        return np.random.default_rng(self.seed).permutation(rows)[:most]

    def _climb(
        self, kernel: DeepKernel, x: Tensor, Z: Tensor, held: list[NDArray[np.int_]], start: float
    ) -> bool:
        """Maximise the marginal likelihood of all kernels; return whether that was interrupted.

        Kernel b misses fold b, the last one none. Held-out rows stop all of them together.
        """
        n, B, m = *x.shape[:1], len(held) + 1, Z.shape[1]
        size = min(n - max(map(len, held)), 256, max(64, int(math.sqrt(4e6 / (B * m)))))
        kept = [np.setdiff1d(np.arange(n), rows) for rows in held] + [np.arange(n)]
        generator = np.random.default_rng(self.seed)

        def loss(step: int) -> Tensor:
            rows = np.stack([generator.choice(own, size, replace=False) for own in kept])
            return kernel.negative_log_likelihood(x[rows], Z[rows]).sum()

        some = min(2 * size, n - max(map(len, held)))
        inside = np.stack([self._some_rows(own, some) for own in kept[:-1]])
        fewest = min(min(map(len, held)), 200)
        outside = np.stack([self._some_rows(rows, fewest) for rows in held])

        def validate() -> Tensor:
            folded = kernel.pick(slice(0, len(held)))
            mean, variance = Conditioned(folded, x[inside], Z[inside]).moments(x[outside])
            variance = variance + folded.noise_variance().unsqueeze(1)
            return 0.5 * (variance.log() + (Z[outside] - mean).square() / variance).mean()

        own = [kernel.lengths, kernel.outputscale, kernel.noise, kernel.mean]
        shared = [*kernel.network.mlp.weights[:-1], *kernel.network.mlp.biases[:-1]]
        for parameter in shared:
            parameter.requires_grad_(True)
        groups = [
            {"params": own, "lr": self.learning_rate},
            {"params": shared, "lr": 0.1 * self.learning_rate},
        ]
        left = None if self.max_seconds is None else self.max_seconds - (time.monotonic() - start)
        settings = Settings(
            max_steps=self.steps,
            max_seconds=None if left is None else max(0.6 * left, 0.1),
            schedule=cosine(warmup=0.05, flat=0.5),
            validate_every=10 if self.steps <= 500 else 50,
            patience=4,
            interrupt="return",
        )
        adam = SOAP(groups, betas=(0.9, 0.99), largest_side=1)
        trainer = Trainer(kernel, adam, settings)
        return trainer.run(loss, validate).reason == "interrupt"

    def _held_out(
        self, kernel: DeepKernel, x: Tensor, Z: Tensor, held: list[NDArray[np.int_]]
    ) -> Moments:
        """Moments of the rows of every fold, fold after fold, by kernels that missed them."""
        most = min(_most_conditioned(Z.shape[1]), 1_000)
        parts = []
        for k, rows in enumerate(held):
            own = kernel.pick(slice(k, k + 1))
            inside = self._some_rows(np.setdiff1d(np.arange(len(x)), rows), most)
            process = Conditioned(own, x[inside], Z[inside])
            chunks = [process.moments(x[part]) for part in torch.from_numpy(rows).split(1024)]
            mean = torch.cat([chunk[0][0] for chunk in chunks])
            variance = torch.cat([chunk[1][0] for chunk in chunks])
            parts.append((mean, own.noise_variance()[0].expand_as(mean), variance))
        return Moments(*(torch.cat(values) for values in zip(*parts, strict=True)))

    @property
    def process(self) -> Conditioned:
        """The process on features, given the training rows."""
        return self._process

    @property
    def variance_factors(self) -> Tensor:
        """Factors a, c and b (3, m) of its noise and of its disagreement; see `scale_variances`."""
        return self._factors

    def standardised(self, U: Tensor) -> Tensor:
        """Inputs (n, d) as the networks take them, of those in the unit cube."""
        return (U - self._shift) / self._spread

    def _predictive(self, U: Tensor) -> Predictive:
        mean, variance = self._process.moments(self.standardised(U))
        noise = self._process.kernel.noise_variance()[0].expand_as(mean[0])
        return Moments(mean[0], noise, variance[0]).gaussian(self._factors)

    def _expected(self, U: Tensor, outputs: Tensor) -> Tensor:
        return self._process.mean(self.standardised(U))[0][:, outputs]

    def _functions(self, count: int, generator: torch.Generator) -> Functions:
        process, kernel = self._process, self._process.kernel
        axes, m = process.rows.shape[-1], process.rows.shape[1]
        scale, noise = kernel.outputscale.exp()[0], kernel.noise_variance()[0]
        waved = waves("matern52", torch.ones(axes).double(), torch.ones(()).double(), generator)
        drawn = []
        for j in range(m):
            factor, rows = process.factor[0, j], process.rows[0, j]
            features = scaled(waved, scale[j].sqrt())
            solve = partial(_solved, factor)
            found = matheron(features, rows, noise[j], solve, 1, count, generator)
            drawn.append((features, rows, *found))

        def values(U: Tensor) -> Tensor:
            x = self.standardised(U)
            at = kernel.features(x)[0]
            away = [
                features(a) @ theta - s * matern(a, rows) @ correction
                for a, s, (features, rows, theta, correction) in zip(at, scale, drawn, strict=True)
            ]
            apart = torch.stack(away, dim=-1).movedim(1, 0)
            return process.mean(x)[0] + self._factors[1].sqrt() * apart

        return values

    def _posterior(self, U: Tensor, observation_noise: bool) -> Posterior:
        *batch, q, d = U.shape
        x = self.standardised(U)
        a, c, b = self._factors
        noise = a * self._process.kernel.noise_variance()[0] + b
        own = noise if observation_noise else 1e-4 * noise  # a little keeps the factor exact
        joint = [self._process.joint(rows) for rows in x.reshape(-1, q, d)]
        mean = torch.cat([values for values, _ in joint]).reshape(*batch, q, -1)
        covariance = torch.cat([values for _, values in joint])
        covariance = covariance.reshape(*batch, *covariance.shape[1:]) * c[:, None, None]
        covariance = covariance + own[:, None, None] * torch.eye(q, dtype=U.dtype)
        if mean.shape[-1] == 1:
            return GPyTorchPosterior(MultivariateNormal(mean[..., 0], covariance[..., 0, :, :]))
        stacked = MultivariateNormal(mean.mT, covariance)
        return GPyTorchPosterior(MultitaskMultivariateNormal.from_batch_mvn(stacked, task_dim=-1))

    def _state(self) -> dict[str, Tensor]:
        process = self._process
        state = {"shift": self._shift, "spread": self._spread, "factors": self._factors}
        state |= {"x": process.x, "Z": process.Z}
        return state | {f"kernel.{k}": v for k, v in process.kernel.state_dict().items()}

    def _load(self, state: dict[str, Tensor]) -> None:
        self._shift, self._spread = state["shift"], state["spread"]
        self._factors, x, Z = state["factors"], state["x"], state["Z"]
        own = {k.removeprefix("kernel."): v for k, v in state.items() if k.startswith("kernel.")}
        network = Regressor(1, x.shape[1], Z.shape[1], self.width, self.depth, self.activation)
        kept = own["axes"].shape[-1]
        kernel = DeepKernel(network.double(), x, torch.ones_like(Z[0]), kept)
        kernel.load_state_dict(own)
        self._process = Conditioned(kernel.requires_grad_(False), x, Z)


def _solved(factor: Tensor, B: Tensor) -> Tensor:
    return torch.cholesky_solve(B, factor)


def _most_conditioned(outputs: int) -> int:
    """Rows conditioned on: 1,700 for one output, fewer for more, so that prediction stays fast."""
    return int(math.sqrt(3e6 / outputs))


def _joined(folded: Regressor, members: Regressor, repeats: int) -> Regressor:
    """The first network of every fold, then the member, in double precision."""
    joined = folded.pick(slice(None, None, repeats)).double()
    for parameter, last in zip(joined.parameters(), members.parameters(), strict=True):
        parameter.data = torch.cat([parameter.data, last.data.double()])
    return joined
