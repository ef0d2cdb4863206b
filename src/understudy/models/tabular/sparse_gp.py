r"""Sparse Gaussian process for long tables: the collapsed bound in one pass over the rows.

Titsias (2009), "Variational learning of inducing variables in sparse Gaussian processes". With M
inducing inputs, correlations :math:`C = k(Z, Z) = L L^\top` among them and :math:`\phi_i = L^{-1}
k(Z, x_i)`, all that a table of n rows says is :math:`A = \sum_i \phi_i \phi_i^\top` and :math:`b =
\sum_i \phi_i y_i`, added up in chunks. With :math:`A = V \Lambda V^\top`, :math:`w = V^\top b` and
features :math:`\psi(x) = V^\top L^{-1} k(Z, x)`, everything is diagonal:

.. math:: \log p(y) \ge -\tfrac12 \Big[ (n - M) \log \sigma^2
          + \sum_l \log(\sigma^2 + s^2 \lambda_l)
          + \frac{1}{\sigma^2} \Big( |y|^2 - \sum_l \frac{s^2 w_l^2}{\sigma^2 + s^2 \lambda_l} \Big)
          + \frac{s^2}{\sigma^2} \Big( n - \sum_l \lambda_l \Big) \Big] + \text{const},

.. math:: E[f(x)] = \sum_l \psi_l \frac{s^2 w_l}{\sigma^2 + s^2 \lambda_l}, \qquad
          \mathrm{Var}[f(x)] = s^2 - s^2 \sum_l \psi_l^2
          \frac{s^2 \lambda_l}{\sigma^2 + s^2 \lambda_l}.

So noise and output scale are refitted to all rows, and to all but each fold, at no cost. The
length-scales come from an exact process on a random subset, the inducing inputs from k-means on
scaled inputs.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.linalg import blas
from scipy.optimize import minimize
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.linalg import cholesky
from understudy.core.predictive import Predictive
from understudy.core.surrogate import Surrogate
from understudy.models.tabular.conditioning import joint_normal
from understudy.models.tabular.exact_gp import StationaryKernel
from understudy.models.tabular.marginal_likelihood import (
    FAMILIES,
    Deadline,
    Prior,
    StationaryLikelihood,
    dimension_scaled,
    most_probable,
    most_probable_shared,
)
from understudy.models.tabular.pathwise import Functions

if TYPE_CHECKING:
    from botorch.posteriors.gpytorch import GPyTorchPosterior
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_CELLS = 2_000_000  # of a block of covariances: 16 MB
_CLUSTER_ROWS = 20_000  # from which k-means learns
_OWN_KERNELS = 4  # outputs up to which each has its own length-scales
_JITTER = 1e-10  # relative to a variance; small enough for functions without noise


@dataclass(frozen=True)
class Basis:
    """Correlations with the inducing inputs of g processes.

    Parameters
    ----------
    kernel : StationaryKernel
        Of g processes with output scale 1.
    inducing : Tensor (g, M, d)
    """

    kernel: StationaryKernel
    inducing: Tensor

    def correlations(self, process: int, U: Tensor) -> Tensor:
        """Correlations (*batch, p, M) of U (*batch, p, d) with one process's inducing inputs."""
        return self.kernel.process(process)(U, self.inducing[process])[..., 0, :, :]

    def factor(self, process: int) -> Tensor:
        """Lower Cholesky factor L of the correlations among the inducing inputs, (M, M)."""
        C = self.correlations(process, self.inducing[process])
        return cholesky(C + _JITTER * torch.eye(len(C), dtype=C.dtype))


@dataclass(frozen=True)
class Statistics:
    """What rows say about one process and the k outputs that follow it; statistics add up.

    Parameters
    ----------
    gram : ndarray (M, M)
        A.
    moments : ndarray (M, k + 1)
        b of each output and of a column of ones.
    products : ndarray (k + 1, k + 1)
        Inner products of outputs and ones.
    """

    gram: Array
    moments: Array
    products: Array

    def __sub__(self, other: Statistics) -> Statistics:
        return Statistics(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Diagonal:
    """Posterior of one process and its k outputs in the basis where it is diagonal.

    Parameters
    ----------
    rotation : Tensor (M, M)
        V' L^-1, which turns correlations into features.
    mean : Tensor (k,)
        Constant means.
    weights : Tensor (M, k)
        Posterior means of the features' coefficients.
    explained : Tensor (M, k)
        Share of each squared feature by which the prior variance falls.
    outputscale, noise : Tensor (k,)
        s^2 and sigma^2.
    """

    rotation: Tensor
    mean: Tensor
    weights: Tensor
    explained: Tensor
    outputscale: Tensor
    noise: Tensor

    def marginals(self, correlations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of observations (p, k) from correlations (p, M)."""
        features = _product(correlations, self.rotation.mT)
        mean = self.mean + features @ self.weights
        reduction = features.square_() @ self.explained
        return mean, self.outputscale * (1.0 - reduction).clamp_min(0.0) + self.noise


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Matrix product by NumPy's BLAS, the faster one for float64 on many processors."""
    return torch.from_numpy(a.numpy() @ b.numpy())


def solve(basis: Basis, process: int, statistics: Statistics, prior: Prior) -> Diagonal:
    """Posterior at the output scale and noise that maximise the bound plus their log prior."""
    factor = basis.factor(process)
    gram, moments = torch.from_numpy(statistics.gram), torch.from_numpy(statistics.moments)
    spectrum, vectors = torch.linalg.eigh(gram)
    spectrum = spectrum.clamp_min(0.0)
    projected = vectors.mT @ moments
    rotation = torch.linalg.solve_triangular(factor.mT, vectors, upper=True).mT.contiguous()
    found = [
        _best_scales(spectrum.numpy(), projected[:, [j, -1]].numpy(), products, prior)
        for j, products in enumerate(_pairs(statistics.products))
    ]
    scale, noise, mean = (
        torch.tensor(values, dtype=gram.dtype) for values in zip(*found, strict=True)
    )
    shrunk = scale / (noise + scale * spectrum.unsqueeze(1))
    weights = shrunk * (projected[:, :-1] - mean * projected[:, -1:])
    return Diagonal(rotation, mean, weights, shrunk * spectrum.unsqueeze(1), scale, noise)


def _pairs(products: Array) -> list[Array]:
    """Inner products (2, 2) of each output and the ones."""
    k = len(products) - 1
    return [products[np.ix_([j, k], [j, k])] for j in range(k)]


def _best_scales(
    spectrum: Array, projected: Array, products: Array, prior: Prior
) -> tuple[float, float, float]:
    """Output scale, noise and mean that maximise the bound of one output."""
    n, rest = products[1, 1], max(products[1, 1] - spectrum.sum(), 0.0)

    def inner(noise: float, scale: float) -> Array:
        shrunk = projected * (scale / (noise + scale * spectrum))[:, None]
        return (products - projected.T @ shrunk) / noise

    def objective(theta: Array) -> float:
        noise, scale = np.exp(theta)
        forms = inner(noise, scale)
        quadratic = forms[0, 0] - forms[0, 1] ** 2 / forms[1, 1]
        log_det = (n - len(spectrum)) * theta[0] + np.log(noise + scale * spectrum).sum()
        penalty = 0.5 * np.square((theta - prior.loc[-2:]) / prior.sd[-2:]).sum() + theta[0]
        return float((0.5 * (quadratic + log_det + rest * scale / noise) + penalty) / n)

    bounds = list(zip(prior.lower[-2:], prior.upper[-2:], strict=True))
    levels = [np.linspace(low, high, 12) for low, high in bounds]
    starts = [np.array(start) for start in itertools.product(*levels)]
    result = minimize(objective, min(starts, key=objective), method="L-BFGS-B", bounds=bounds)
    noise, scale = np.exp(result.x)
    forms = inner(noise, scale)
    return float(scale), float(noise), float(forms[0, 1] / forms[1, 1])


class SparseGP(Surrogate):
    """Sparse Gaussian process regression for tables too long for an exact one.

    Parameters
    ----------
    kernel : {"matern52", "rbf"}
        As in `ExactGP`.
    inducing : int
        Number of inducing inputs, M; fewer where there are fewer rows.
    subset : int
        Rows whose exact marginal likelihood chooses the length-scales.
    min_noise : float
        Least noise variance, as a fraction of an output's variance.
    max_seconds : float, optional
        Time that the choice of length-scales may take.
    seed : int
        Of the subset and of k-means.
    """

    def __init__(
        self,
        *,
        kernel: str = "matern52",
        inducing: int = 1000,
        subset: int = 1000,
        min_noise: float = 1e-6,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        self.kernel = kernel
        self.inducing = inducing
        self.subset = subset
        self.min_noise = min_noise
        self.max_seconds = max_seconds
        self.seed = seed

    # -- fitting ------------------------------------------------------------------------------

    def _fit(self, U: Tensor, Z: Tensor) -> None:
        self._fit_to(U, Z, np.zeros(len(U), dtype=int))

    def _fit_to(self, U: Tensor, Z: Tensor, folds: NDArray[np.int_]) -> list[dict[int, Statistics]]:
        """Fit to all rows; return the statistics of each process and fold."""
        self._choose_basis(U, Z)
        statistics = [
            self._statistics(g, U, Z[:, self.followers(g)].numpy(), folds)
            for g in range(len(self._basis.inducing))
        ]
        self._parts = [
            solve(self._basis, g, _total(of.values()), self._hyperprior(U.shape[1]))
            for g, of in enumerate(statistics)
        ]
        return statistics

    def _hyperprior(self, inputs: int) -> Prior:
        return dimension_scaled(inputs, min_noise=self.min_noise)

    def _choose_basis(self, U: Tensor, Z: Tensor) -> None:
        """Set the length-scales, inducing inputs and the process of each output."""
        if self.kernel not in FAMILIES:
            accepted = ", ".join(FAMILIES)
            raise UserError(f"kernel must be one of {accepted}, got {self.kernel!r}")
        if self.inducing < 1 or self.subset < 2:
            raise UserError(
                f"inducing must be at least 1 and subset at least 2, "
                f"got {self.inducing} and {self.subset}"
            )
        m = Z.shape[1]
        generator = np.random.default_rng(self.seed)
        rows = generator.permutation(len(U))[: self.subset]
        Y = np.asfortranarray(Z.numpy()[rows])
        likelihood = StationaryLikelihood(
            U.numpy()[rows], self.kernel, self._hyperprior(U.shape[1])
        )
        deadline = Deadline.after(self.max_seconds)
        find = most_probable if m <= _OWN_KERNELS else most_probable_shared
        theta = np.atleast_2d(find(likelihood, Y, deadline))
        self._process = torch.arange(m).clamp_max(len(theta) - 1)
        lengthscale = torch.from_numpy(np.exp(theta[:, :-2]))
        kernel = StationaryKernel(self.kernel, lengthscale, torch.ones(len(theta)).double())
        near = U[generator.permutation(len(U))[:_CLUSTER_ROWS]]
        self._basis = Basis(kernel, torch.stack([self._centres(near, l) for l in lengthscale]))

    def _centres(self, U: Tensor, lengthscale: Tensor) -> Tensor:
        """Inducing inputs (M, d): centres of k-means where distance is that of the kernel."""
        from sklearn.cluster import MiniBatchKMeans

        if len(U) <= self.inducing:
            return U.clone()
        means = MiniBatchKMeans(
            self.inducing,
            init="random",
            n_init=1,
            max_iter=10,
            batch_size=4096,
            random_state=self.seed,
        )
        scaled = (U / lengthscale).numpy().astype(np.float32)
        return torch.from_numpy(means.fit(scaled).cluster_centers_).to(U.dtype) * lengthscale

    @property
    def basis(self) -> Basis:
        """Inducing inputs of all processes, and correlations with them."""
        return self._basis

    @property
    def parts(self) -> Sequence[Diagonal]:
        """Each process given the training rows."""
        return self._parts

    def followers(self, process: int) -> Tensor:
        """Outputs that follow a process."""
        return torch.nonzero(self._process == process)[:, 0]

    def _statistics(
        self, process: int, U: Tensor, Y: Array, folds: NDArray[np.int_]
    ) -> dict[int, Statistics]:
        """Statistics of one process for each fold, added up in chunks of rows."""
        M = self._basis.inducing.shape[1]
        factor = np.asfortranarray(self._basis.factor(process).numpy())
        columns = np.column_stack([Y, np.ones(len(Y))])
        found: dict[int, Statistics] = {}
        for fold in np.unique(folds):
            rows = np.flatnonzero(folds == fold)
            gram, moments = np.zeros((M, M), order="F"), np.zeros((M, columns.shape[1]))
            for chunk in np.array_split(rows, math.ceil(len(rows) * M / _CELLS)):
                cross = self._basis.correlations(process, U[torch.from_numpy(chunk)]).numpy()
                white = blas.dtrsm(1.0, factor, cross.T, lower=1, overwrite_b=1)
                blas.dsyrk(1.0, white, beta=1.0, c=gram, lower=1, overwrite_c=1)
                moments += white @ columns[chunk]
            gram = np.tril(gram) + np.tril(gram, -1).T
            found[int(fold)] = Statistics(gram, moments, columns[rows].T @ columns[rows])
        return found

    # -- cross-validation ---------------------------------------------------------------------

    def _fit_folds(self, U: Tensor, Z: Tensor, folds: NDArray[np.int_]) -> Predictive:
        statistics = self._fit_to(U, Z, folds)
        mean, variance = torch.empty_like(Z), torch.empty_like(Z)
        for g, of in enumerate(statistics):
            outputs, total = self.followers(g), _total(of.values())
            for fold in sorted(set(of) - {-1}):
                part = solve(self._basis, g, total - of[fold], self._hyperprior(U.shape[1]))
                rows = torch.from_numpy(np.flatnonzero(folds == fold))
                for chunk in rows.split(max(1, _CELLS // self._basis.inducing.shape[1])):
                    cells = torch.meshgrid(chunk, outputs, indexing="ij")
                    mean[cells], variance[cells] = part.marginals(
                        self._basis.correlations(g, U[chunk])
                    )
        held = torch.from_numpy(folds >= 0)
        return Predictive.gaussian(mean, variance.sqrt())[held]

    # -- predictions --------------------------------------------------------------------------

    def _predictive(self, U: Tensor) -> Predictive:
        mean = torch.empty(len(U), len(self._process), dtype=U.dtype)
        variance = torch.empty_like(mean)
        rows = max(1, _CELLS // self._basis.inducing.shape[1])
        for g, part in enumerate(self._parts):
            found = [part.marginals(self._basis.correlations(g, c)) for c in U.split(rows)]
            outputs = self.followers(g)
            mean[:, outputs] = torch.cat([m for m, _ in found])
            variance[:, outputs] = torch.cat([v for _, v in found])
        return Predictive.gaussian(mean, variance.sqrt())

    def _expected(self, U: Tensor, outputs: Tensor) -> Tensor:
        mean = torch.empty(len(U), len(self._process), dtype=U.dtype)
        rows = max(1, _CELLS // self._basis.inducing.shape[1])
        for g, part in enumerate(self._parts):
            weights = part.rotation.mT @ part.weights
            found = [_product(self._basis.correlations(g, c), weights) for c in U.split(rows)]
            mean[:, self.followers(g)] = part.mean + torch.cat(found)
        return mean[:, outputs]

    def _functions(self, count: int, generator: torch.Generator) -> Functions:
        parts = []
        for g, part in enumerate(self._parts):
            features = self._basis.kernel.process(g).random_features(generator)
            inducing = features(self._basis.inducing[g])
            shape = (count, inducing.shape[1], len(part.mean))
            theta = torch.randn(shape, generator=generator, dtype=inducing.dtype)
            fresh = torch.randn(
                (count, *part.weights.shape), generator=generator, dtype=inducing.dtype
            )
            root = part.outputscale.sqrt()
            drawn = part.weights + root * (1.0 - part.explained).clamp_min(0.0).sqrt() * fresh
            change = drawn - root * (part.rotation @ (inducing @ theta))
            parts.append((features, root * theta, change, part))
        most = max(1, _CELLS // self._basis.inducing.shape[1])

        def values(U: Tensor) -> Tensor:
            found = torch.empty(count, len(U), len(self._process), dtype=U.dtype)
            for g, (features, theta, change, part) in enumerate(parts):
                for rows in torch.arange(len(U)).split(most):
                    basis = self._basis.correlations(g, U[rows]) @ part.rotation.mT
                    drawn = part.mean + features(U[rows]) @ theta + basis @ change
                    found[:, rows.unsqueeze(1), self.followers(g)] = drawn
            return found

        return values

    def _posterior(self, U: Tensor, observation_noise: bool) -> GPyTorchPosterior:
        eye = torch.eye(U.shape[-2], dtype=U.dtype)
        means: list[Tensor] = [U] * len(self._process)
        covariances: list[Tensor] = [U] * len(self._process)
        for g, part in enumerate(self._parts):
            features = self._basis.correlations(g, U) @ part.rotation.mT
            own = self._basis.kernel.process(g)(U, U)[..., 0, :, :]
            for at, j in enumerate(self.followers(g).tolist()):
                left = own - (features * part.explained[:, at]) @ features.mT
                noise = part.noise[at] * eye if observation_noise else 0.0
                means[j] = part.mean[at] + features @ part.weights[:, at]
                covariances[j] = part.outputscale[at] * left + noise
        return joint_normal(means, covariances)

    def _state(self) -> dict[str, Tensor]:
        state = {
            "process": self._process,
            "inducing": self._basis.inducing,
            "lengthscale": self._basis.kernel.lengthscale,
        }
        for g, part in enumerate(self._parts):
            state |= {f"{g}.{f.name}": getattr(part, f.name) for f in fields(Diagonal)}
        return state

    def _load(self, state: dict[str, Tensor]) -> None:
        self._process = state["process"]
        lengthscale = state["lengthscale"]
        ones = torch.ones(len(lengthscale), dtype=lengthscale.dtype)
        kernel = StationaryKernel(self.kernel, lengthscale, ones)
        self._basis = Basis(kernel, state["inducing"])
        names = [f.name for f in fields(Diagonal)]
        self._parts = [
            Diagonal(**{name: state[f"{g}.{name}"] for name in names})
            for g in range(len(lengthscale))
        ]


def _total(parts: Iterable[Statistics]) -> Statistics:
    return reduce(operator.add, parts)
