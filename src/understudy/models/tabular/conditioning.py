r"""Exact conditioning of Gaussian processes: what every covariance function shares.

With :math:`K` the covariance of the n training outputs y, noise included, :math:`\alpha = K^{-1}
(y - c)` and the constant mean :math:`c = 1^\top K^{-1} y / 1^\top K^{-1} 1`,

.. math:: E[f(x)] = c + k(x)^\top \alpha, \qquad
          \mathrm{Cov}[f(x), f(x')] = k(x, x') - k(x)^\top K^{-1} k(x').

Leaving out rows I, and refitting c to the others, has a closed form (Sundararajan & Keerthi 2001):

.. math:: E[y_I] = y_I - P_{II}^{-1} \alpha_I, \qquad
          \mathrm{Cov}[y_I] = \left([K^{-1}]_{II}\right)^{-1}, \qquad
          P = K^{-1} - \frac{K^{-1} 1 1^\top K^{-1}}{1^\top K^{-1} 1}.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch
from botorch.posteriors.gpytorch import GPyTorchPosterior
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from scipy.linalg import blas, lapack
from torch import Tensor

from understudy.core.predictive import Predictive
from understudy.core.surrogate import Surrogate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_CELLS = 4_000_000  # of a cross-covariance computed at once: 32 MB


class Kernel(Protocol):
    """Covariance function of g independent processes, differentiable in its inputs."""

    def __call__(self, A: Tensor, B: Tensor) -> Tensor:
        """Covariances (*batch, g, p, q) of A (*batch, p, d) with B (q, d) or (*batch, q, d)."""
        ...

    def diagonal(self, A: Tensor) -> Tensor:
        """Variances (*batch, g, p) at A (*batch, p, d)."""
        ...

    def process(self, index: int) -> Self:
        """Return the kernel of one process, as g = 1."""
        ...


@dataclass(frozen=True)
class Prior:
    """A Gaussian process prior of m outputs, before it has seen data.

    Parameters
    ----------
    kernel : Kernel
        Of g processes.
    noise : Tensor (g,)
        Variance of the observation noise of each process.
    process : LongTensor (m,)
        Which process each output follows.
    spread : Tensor (m,)
        Factor of covariance and noise of each output.
    """

    kernel: Kernel
    noise: Tensor
    process: Tensor
    spread: Tensor

    @classmethod
    def independent(cls, kernel: Kernel, noise: Tensor) -> Prior:
        """One process for each output."""
        return cls(kernel, noise, torch.arange(len(noise)), torch.ones_like(noise))


@dataclass(frozen=True)
class Conditioned:
    """One process, conditioned on outputs that follow it.

    Parameters
    ----------
    factor : ndarray (n, n)
        Lower Cholesky factor of K, in Fortran order; its upper triangle is not zeroed.
    weights : ndarray (n, k)
        alpha of its k outputs.
    mean : ndarray (k,)
        Constant mean c of each.
    """

    factor: Array
    weights: Array
    mean: Array

    def quadratic(self, Y: Array) -> Array:
        """(y - c)' K^-1 (y - c) of each output (n, k), (k,)."""
        return np.einsum("ij,ij->j", Y - self.mean, self.weights)

    def held_out(self, Y: Array, folds: NDArray[np.int_]) -> tuple[Array, Array]:
        """Means (n, k) and variances (n,) of rows by the process that has not seen their fold."""
        inverse, _ = lapack.dpotri(self.factor, lower=1)
        sums = blas.dsymv(1.0, inverse, np.ones(len(inverse)), lower=1)
        mean, variance = Y.copy(), np.ones(len(Y))
        for fold in np.unique(folds[folds >= 0]):
            I = np.flatnonzero(folds == fold)
            block = np.tril(inverse[np.ix_(I, I)])
            block = block + np.tril(block, -1).T
            projected = block - np.outer(sums[I], sums[I]) / sums.sum()
            mean[I] -= np.linalg.solve(projected, self.weights[I])
            variance[I] = np.linalg.inv(block).diagonal()
        return mean, variance

    def leave_one_out(self, Y: Array) -> tuple[Array, Array]:
        """Means (n, k) and variances (n,) of each row by the process without it."""
        inverse, _ = lapack.dpotri(self.factor, lower=1)
        sums = blas.dsymv(1.0, inverse, np.ones(len(inverse)), lower=1)
        projected = inverse.diagonal() - np.square(sums) / sums.sum()
        return Y - self.weights / projected[:, None], 1.0 / inverse.diagonal()


def condition(kernel: Kernel, noise: float, X: Tensor, Y: Array) -> Conditioned:
    """Condition one process on outputs Y (n, k) at X (n, d), factorising in place."""
    K = covariance(kernel, X)
    K.ravel(order="K")[:: len(K) + 1] += noise
    factor = _factorised(K, noise)
    solved, _ = lapack.dpotrs(factor, np.column_stack([Y, np.ones(len(Y))]), lower=1)
    ones = solved[:, -1]
    mean = solved[:, :-1].sum(0) / ones.sum()
    return Conditioned(factor, solved[:, :-1] - np.outer(ones, mean), mean)


def covariance(kernel: Kernel, X: Tensor) -> Array:
    """Lower triangle of the covariance of one process at X (n, d), in Fortran order."""
    n = len(X)
    K = np.empty((n, n), order="F")
    rows = max(1, _CELLS // n)
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        K[start:, start:stop] = kernel(X[start:stop], X[start:])[0].numpy().T
    return K


def _factorised(K: Array, noise: float) -> Array:
    """Lower Cholesky factor in place of K; rounding can take its definiteness if noise is tiny."""
    diagonal = K.diagonal().copy()
    upper = K.T.copy() if noise < 1e-5 * diagonal.max() and len(K) < 4_000 else None
    for jitter in (0.0, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5):
        if jitter > 0.0 and upper is not None:
            K[...] = upper.T
            K.ravel(order="K")[:: len(K) + 1] = diagonal * (1.0 + jitter)
        _, info = lapack.dpotrf(K, lower=1, clean=0, overwrite_a=1)
        if info == 0:
            return K
        if upper is None:
            break
    raise np.linalg.LinAlgError("the covariance of the training rows is not positive definite")


class GaussianProcess(Surrogate):
    """Exact Gaussian process regression with a constant mean: all but the choice of its prior.

    A subclass sets ``_prior``, and calls `_condition`, in ``_fit`` and ``_load``.
    """

    _prior: Prior
    _inputs: Tensor
    _targets: Tensor

    def _condition(self, prior: Prior, U: Tensor, Z: Tensor) -> None:
        """Take the posterior given U (n, d) and Z (n, m)."""
        self._prior, self._inputs, self._targets = prior, U, Z
        self._conditioned = [
            condition(prior.kernel.process(g), float(noise), U, Z[:, self._followers(g)].numpy())
            for g, noise in enumerate(prior.noise)
        ]

    def _rescale(self) -> None:
        """Set the spread of each output to its most likely value given everything else."""
        spread = torch.ones_like(self._prior.spread)
        for g, part in enumerate(self._conditioned):
            outputs = self._followers(g)
            quadratic = part.quadratic(self._targets[:, outputs].numpy())
            spread[outputs] = torch.from_numpy(quadratic / len(self._targets))
        self._prior = replace(self._prior, spread=spread.clamp_min(1e-6))

    def _followers(self, process: int) -> Tensor:
        """Outputs that follow a process."""
        return torch.nonzero(self._prior.process == process)[:, 0]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the factors out of a pickle: they follow from the rest."""
        state = dict(super().__getstate__())
        state.pop("_conditioned", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_prior" in state:
            self._condition(self._prior, self._inputs, self._targets)

    # -- predictions --------------------------------------------------------------------------

    @property
    def _mean(self) -> Tensor:
        """Constant mean of each output, (m,)."""
        mean = torch.empty_like(self._prior.spread)
        for g, part in enumerate(self._conditioned):
            mean[self._followers(g)] = torch.from_numpy(part.mean)
        return mean

    def _predictive(self, U: Tensor) -> Predictive:
        rows = max(1, _CELLS // len(self._inputs))
        parts = [self._marginals(chunk) for chunk in U.split(rows)]
        mean, variance = (torch.cat(columns) for columns in zip(*parts, strict=True))
        return Predictive.gaussian(mean, variance.sqrt())

    def _marginals(self, U: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of observations, (n, m)."""
        prior = self._prior
        mean = torch.empty(len(U), len(prior.spread), dtype=U.dtype)
        variance = torch.empty_like(mean)
        for g, part in enumerate(self._conditioned):
            kernel, outputs = prior.kernel.process(g), self._followers(g)
            cross = kernel(U, self._inputs)[0].numpy()
            mean[:, outputs] = torch.from_numpy(part.mean + cross @ part.weights)
            half = blas.dtrsm(1.0, part.factor, cross.T, lower=1, overwrite_b=1)
            explained = torch.from_numpy(np.einsum("ij,ij->j", half, half))
            left = (kernel.diagonal(U)[0] - explained).clamp_min(0.0) + prior.noise[g]
            variance[:, outputs] = left.unsqueeze(1)
        return mean, variance * prior.spread

    def _posterior(self, U: Tensor, observation_noise: bool) -> GPyTorchPosterior:
        *batch, q, _ = U.shape
        prior = self._prior
        cross = prior.kernel(U, self._inputs)
        own = prior.kernel(U, U)
        if observation_noise:
            own = own + prior.noise[:, None, None] * torch.eye(q, dtype=U.dtype)
        means: list[Tensor] = [U] * len(prior.spread)
        covariances: list[Tensor] = [U] * len(prior.spread)
        for g, part in enumerate(self._conditioned):
            here = cross[..., g, :, :]
            columns = here.reshape(-1, here.shape[-1]).mT
            factor = torch.from_numpy(part.factor.T).mT
            half = torch.linalg.solve_triangular(factor, columns, upper=False)
            half = half.mT.reshape(*batch, q, -1)
            left = own[..., g, :, :] - half @ half.mT
            mean = torch.from_numpy(part.mean) + here @ torch.from_numpy(part.weights)
            for at, j in enumerate(self._followers(g).tolist()):
                means[j], covariances[j] = mean[..., at], prior.spread[j] * left
        return joint_normal(means, covariances)

    # -- what it would have said --------------------------------------------------------------

    def _held_out(self, folds: NDArray[np.int_]) -> Predictive:
        """Closed-form predictions (of rows with a fold) at these hyperparameters."""
        mean, variance = torch.empty_like(self._targets), torch.empty_like(self._targets)
        for g, part in enumerate(self._conditioned):
            outputs = self._followers(g)
            values, spread = part.held_out(self._targets[:, outputs].numpy(), folds)
            mean[:, outputs] = torch.from_numpy(values)
            variance[:, outputs] = torch.from_numpy(spread).unsqueeze(1)
        held = torch.from_numpy(folds >= 0)
        return Predictive.gaussian(mean, (variance * self._prior.spread).sqrt())[held]

    def leave_one_out(self) -> Predictive:
        """Return each training row's predictive by the process without it, in closed form.

        Hyperparameters are those of all rows.
        """
        mean, variance = torch.empty_like(self._targets), torch.empty_like(self._targets)
        for g, part in enumerate(self._conditioned):
            outputs = self._followers(g)
            values, spread = part.leave_one_out(self._targets[:, outputs].numpy())
            mean[:, outputs] = torch.from_numpy(values)
            variance[:, outputs] = torch.from_numpy(spread).unsqueeze(1)
        predictive = Predictive.gaussian(mean, (variance * self._prior.spread).sqrt())
        return predictive.affine(self._y_shift, self._y_scale)


def joint_normal(means: list[Tensor], covariances: list[Tensor]) -> GPyTorchPosterior:
    """Posterior of independent outputs from m means (*batch, q) and covariances (..., q, q)."""
    if len(means) == 1:
        return GPyTorchPosterior(MultivariateNormal(means[0], covariances[0]))
    stacked = MultivariateNormal(torch.stack(means, -2), torch.stack(covariances, -3))
    return GPyTorchPosterior(MultitaskMultivariateNormal.from_batch_mvn(stacked, task_dim=-1))
