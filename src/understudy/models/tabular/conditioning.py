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

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import torch
from botorch.posteriors.gpytorch import GPyTorchPosterior
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from linear_operator import to_linear_operator
from scipy.linalg import blas, lapack
from torch import Tensor

from understudy.models.tabular.pathwise import Features

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

CELLS = 4_000_000  # of a cross-covariance computed at once: 32 MB


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

    def random_features(self, generator: torch.Generator) -> Features:
        """Features (n, p) of U (n, d) whose inner products are nearly the kernel's; g = 1."""
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

    def solve(self, B: Tensor) -> Tensor:
        """K^-1 B, (n, c)."""
        solved, _ = lapack.dpotrs(self.factor, B.numpy(), lower=1)
        return torch.from_numpy(solved)

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
    rows = max(1, CELLS // n)
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


def joint_normal(means: list[Tensor], covariances: list[Tensor]) -> GPyTorchPosterior:
    """Posterior of independent outputs from m means (*batch, q) and covariances (..., q, q)."""
    if len(means) == 1:
        return GPyTorchPosterior(_normal(means[0], covariances[0]))
    stacked = _normal(torch.stack(means, -2), torch.stack(covariances, -3))
    return GPyTorchPosterior(MultitaskMultivariateNormal.from_batch_mvn(stacked, task_dim=-1))


def _normal(mean: Tensor, covariance: Tensor) -> MultivariateNormal:
    """Normal whose factor is taken when it is needed, with jitter where points coincide."""
    return MultivariateNormal(mean, to_linear_operator(covariance))
