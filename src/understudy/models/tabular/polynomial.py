r"""Polynomials with error bars: Bayesian linear regression on products of Legendre polynomials.

Each output is :math:`y = w_0 + \phi(u)^\top w + \varepsilon` with a flat prior on :math:`w_0`,
:math:`w \sim N(0, \tau^2 I)` and :math:`\varepsilon \sim N(0, \sigma^2)`. With centred features
:math:`\Phi = P S V^\top`, :math:`z = P^\top y`, :math:`N = n - 1` and :math:`\lambda =
\sigma^2/\tau^2`, the evidence at its best :math:`\tau^2 = Q/N` is (MacKay 1992)

.. math:: \log p(y) = -\tfrac12 \Big[ N \log Q + \sum_l \log(s_l^2 + \lambda)
          + (N - r) \log\lambda \Big] + c, \qquad
          Q = \sum_l \frac{z_l^2}{s_l^2 + \lambda} + \frac{|y|^2 - |z|^2}{\lambda},

one number a grid point, so :math:`\lambda` costs nothing once the spectrum is known. With the hat
matrix :math:`H = 11^\top/n + P \,\mathrm{diag}(s^2/(s^2+\lambda)) P^\top` and residuals
:math:`e = y - Hy`, leaving out the rows :math:`k` gives exactly

.. math:: y_k - \hat y_{-k} = (I - H_{kk})^{-1} e_k, \qquad
          \mathrm{Var}[y_k \mid y_{-k}] = \sigma^2 (I - H_{kk})^{-1}.

Leave-one-out densities choose the basis of each output; leave-fold-out ones are its
cross-validation. Terms of order :math:`k` are shrunk by :math:`2^{-(k-1)}`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from botorch.posteriors import GPyTorchPosterior
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.predictive import Predictive
from understudy.core.surrogate import Surrogate
from understudy.models.tabular.pathwise import Functions

if TYPE_CHECKING:
    from botorch.posteriors import Posterior
    from numpy.typing import NDArray

_MAX_WORK = 2e9  # multiplications in a Gram matrix: about 0.1 s of one core
_MAX_FEATURES = 5e6  # rows times terms: 40 MB
_MAX_SPECTRUM = 700  # side of a matrix decomposed: about 0.1 s


def legendre(U: Tensor) -> Tensor:
    """Return 1 and normalised Legendre polynomials of orders 1 to 3, (..., 1 + 3 d), on [0, 1]."""
    x = 2.0 * U - 1.0
    first = math.sqrt(3.0) * x
    second = math.sqrt(5.0) * 0.5 * (3.0 * x.square() - 1.0)
    third = math.sqrt(7.0) * 0.5 * (5.0 * x.square() - 3.0) * x
    return torch.cat([torch.ones_like(x[..., :1]), first, second, third], dim=-1)


def terms(inputs: int, degree: int, interactions: bool) -> Tensor:
    """Return the terms of a basis as columns of `legendre` multiplied together, (p, 3)."""
    order = [[1 + k * inputs + i for i in range(inputs)] for k in range(degree)]
    rows = [(column, 0, 0) for columns in order for column in columns]
    if interactions and degree >= 2:
        rows += [(a, b, 0) for a, b in combinations(order[0], 2)]
    if interactions and degree >= 3:
        pairs = [(i, j) for i in range(inputs) for j in range(inputs) if i != j]
        rows += [(order[1][i], order[0][j], 0) for i, j in pairs]
        rows += list(combinations(order[0], 3))
    return torch.tensor(rows)


def evaluate(basis: Tensor, U: Tensor) -> Tensor:
    """Return the features (..., p) of a basis (p, 3) at U (..., d)."""
    columns, inputs = legendre(U), U.shape[-1]
    values = columns[..., basis[:, 0]]
    for factor in range(1, 3):
        if bool(basis[:, factor].any()):
            values = values * columns[..., basis[:, factor]]
    order = ((basis - 1).div(inputs, rounding_mode="floor") + 1).sum(1)
    return values * 0.5 ** (order - 1).to(U.dtype)


@dataclass(frozen=True)
class Spectrum:
    """A basis on the training rows.

    Parameters
    ----------
    basis : LongTensor (p, 3)
    centre : Tensor (p,)
        Mean of each feature.
    rotation : Tensor (p, r)
        Right singular vectors V.
    squares : Tensor (r,)
        Squared singular values.
    rows : Tensor ()
        Number of rows, n.
    """

    basis: Tensor
    centre: Tensor
    rotation: Tensor
    squares: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Regression:
    """Outputs (m of them) regressed on one basis.

    Parameters
    ----------
    spectrum : Spectrum
    outputs : LongTensor (m,)
        Which outputs of the table they are.
    intercept, ratio, variance : Tensor (m,)
        Mean, lambda and the prior variance tau^2.
    weights : Tensor (r, m)
        Posterior mean of the rotated coefficients.
    """

    spectrum: Spectrum
    outputs: Tensor
    intercept: Tensor
    ratio: Tensor
    variance: Tensor
    weights: Tensor

    @property
    def noise(self) -> Tensor:
        """Noise variance sigma^2, (m,)."""
        return self.ratio * self.variance

    @property
    def shrinkage(self) -> Tensor:
        """Posterior covariance of the rotated coefficients over sigma^2, diagonal, (r, m)."""
        return 1.0 / (self.spectrum.squares.unsqueeze(1) + self.ratio)


def decompose(basis: Tensor, U: Tensor) -> tuple[Spectrum, Tensor]:
    """Return the spectrum of a basis on U (n, d) and the rotated features P S (n, r)."""
    features = evaluate(basis, U)
    centre = features.mean(0)
    features = features - centre
    n, p = features.shape
    if p <= n:
        squares, rotation = torch.linalg.eigh(features.mT @ features)
        kept = squares > squares[-1].clamp_min(1e-300) * 1e-13
        squares, rotation = squares[kept], rotation[:, kept]
        rotated = features @ rotation
    else:
        squares, left = torch.linalg.eigh(features @ features.mT)
        kept = squares > squares[-1].clamp_min(1e-300) * 1e-13
        squares, left = squares[kept], left[:, kept]
        rotated = left * squares.sqrt()
        rotation = features.mT @ (left / squares.sqrt())
    return Spectrum(basis, centre, rotation, squares, torch.tensor(n)), rotated


def maximise_evidence(spectrum: Spectrum, rotated: Tensor, Z: Tensor) -> Regression:
    """Return the regression of every output (n, m) with its best lambda and tau^2."""
    intercept = Z.mean(0)
    squares, n = spectrum.squares.unsqueeze(1), len(Z)
    projected = rotated.mT @ (Z - intercept)
    z2 = projected.square() / squares
    rest = ((Z - intercept).square().sum(0) - z2.sum(0)).clamp_min(1e-12)
    low = math.log(1e-10 * float(spectrum.squares[-1]))
    high = math.log(1e3 * float(spectrum.squares[-1]) + n)

    def fit(ratio: Tensor) -> tuple[Tensor, Tensor]:
        """Evidence and Q of lambda, from (g, m)."""
        total = squares + ratio.unsqueeze(1)
        quadratic = (z2 / total).sum(1) + rest / ratio
        log_det = total.log().sum(1) + (n - 1 - len(squares)) * ratio.log()
        return -0.5 * ((n - 1) * quadratic.log() + log_det), quadratic

    centre, width = torch.full_like(intercept, 0.5 * (low + high)), 0.5 * (high - low)
    for _ in range(4):  # each round looks 10 times closer
        grid = centre + width * torch.linspace(-1.0, 1.0, 41, dtype=Z.dtype).unsqueeze(1)
        grid = grid.clamp(low, high)
        evidence, _ = fit(grid.exp())
        centre, width = grid.gather(0, evidence.argmax(0, keepdim=True))[0], 0.1 * width
    ratio = centre.exp()
    variance = fit(ratio.unsqueeze(0))[1][0] / max(n - 1, 1)
    weights = projected / (squares + ratio)
    return Regression(spectrum, torch.arange(Z.shape[1]), intercept, ratio, variance, weights)


def leave_one_out(regression: Regression, rotated: Tensor, Z: Tensor) -> Tensor:
    """Return the mean leave-one-out log density of every output, (m,)."""
    slack = 1.0 - 1.0 / len(Z) - rotated.square() @ regression.shrinkage
    slack = slack.clamp_min(1e-10)
    error = (Z - regression.intercept - rotated @ regression.weights) / slack
    variance = regression.noise / slack
    return -0.5 * (variance.log() + error.square() / variance).mean(0)


def leave_folds_out(
    regression: Regression, rotated: Tensor, Z: Tensor, folds: NDArray[np.int_]
) -> tuple[Tensor, Tensor]:
    """Return mean and variance of every row with a fold by the regression without it, (n, m)."""
    n = len(Z)
    features = torch.cat([torch.ones(n, 1, dtype=Z.dtype), rotated], dim=1)
    mean, variance = torch.empty_like(Z), torch.empty_like(Z)
    for fold in np.unique(folds[folds >= 0]):
        k = torch.from_numpy(np.flatnonzero(folds == fold))
        F, y = features[k], Z[k]
        residual = y - regression.intercept - rotated[k] @ regression.weights
        primal = len(k) > F.shape[1]
        gram = F.mT @ F if primal else None
        for j in range(Z.shape[1]):
            scale = F.new_full((F.shape[1],), 1.0 / n)
            scale[1:] = regression.shrinkage[:, j]
            if gram is not None:  # (I - F D F')^-1 = I + F (D^-1 - F'F)^-1 F'
                factor = _cholesky(torch.diag(1.0 / scale) - gram)
                half = torch.linalg.solve_triangular(factor, F.mT, upper=False)
                error = residual[:, j] + half.mT @ (half @ residual[:, j])
                inflation = 1.0 + half.square().sum(0)
            else:
                factor = _cholesky(torch.eye(len(k), dtype=Z.dtype) - (F * scale) @ F.mT)
                inverse = torch.cholesky_inverse(factor)
                error, inflation = inverse @ residual[:, j], inverse.diagonal()
            mean[k, j] = y[:, j] - error
            variance[k, j] = regression.noise[j] * inflation
    return mean, variance


def _cholesky(matrix: Tensor) -> Tensor:
    """Cholesky factor, with what rounding took from the diagonal put back."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    jitter = 1e-12 * matrix.diagonal().abs().mean()
    while bool(failed):
        jitter = 10.0 * jitter
        eye = torch.eye(len(matrix), dtype=matrix.dtype)
        factor, failed = torch.linalg.cholesky_ex(matrix + jitter * eye)
    return factor


class PolynomialSurrogate(Surrogate):
    """Bayesian polynomial regression whose basis is chosen for each output.

    The bases tried are linear, diagonal quadratic and cubic, full quadratic and full cubic, as far
    as the table's size lets them be fitted in a moment. Linear always is tried; where rows times
    inputs exceed 5 million, it learns from a random part of the rows.

    Parameters
    ----------
    degree : {1, 2, 3}, optional
        Highest degree tried; 3 by default.
    interactions : bool
        Whether products of inputs are tried.
    """

    def __init__(self, *, degree: int = 3, interactions: bool = True) -> None:
        self.degree = degree
        self.interactions = interactions

    def _fit(self, U: Tensor, Z: Tensor) -> None:
        rows = self._rows(*U.shape)
        self._regress(U[rows], Z[rows])

    def _rows(self, rows: int, inputs: int) -> Tensor | slice:
        most = int(_MAX_FEATURES / inputs)
        if rows <= most:
            return slice(None)
        return torch.randperm(rows, generator=torch.Generator().manual_seed(0))[:most]

    def _regress(self, U: Tensor, Z: Tensor) -> list[tuple[Regression, Tensor]]:
        """Fit every basis, keep for each output the best, return those with their features."""
        if self.degree not in (1, 2, 3):
            raise UserError(f"degree must be 1, 2 or 3, got {self.degree!r}")
        best = torch.full((Z.shape[1],), -math.inf, dtype=Z.dtype)
        choice = torch.zeros(Z.shape[1], dtype=torch.long)
        fitted: list[Any] = []
        for basis in self._bases(*U.shape):
            spectrum, rotated = decompose(basis, U)
            regression = maximise_evidence(spectrum, rotated, Z)
            score = leave_one_out(regression, rotated, Z).nan_to_num(nan=-math.inf)
            better = score > best + (0.0 if not fitted else 1e-3)
            best, choice = torch.where(better, score, best), choice.masked_fill(better, len(fitted))
            fitted.append((regression, rotated))
        pairs = [
            (_some_outputs(regression, torch.nonzero(choice == b)[:, 0]), rotated)
            for b, (regression, rotated) in enumerate(fitted)
        ]
        pairs = [pair for pair in pairs if len(pair[0].outputs)]
        self._regressions = [regression for regression, _ in pairs]
        return pairs

    def _bases(self, rows: int, inputs: int) -> list[Tensor]:
        sizes = {
            (1, False): inputs,
            (2, False): 2 * inputs,
            (3, False): 3 * inputs,
            (2, True): 2 * inputs + math.comb(inputs, 2),
            (3, True): 3 * inputs + 3 * math.comb(inputs, 2) + math.comb(inputs, 3),
        }
        return [
            terms(inputs, degree, mixed)
            for (degree, mixed), p in sizes.items()
            if degree == 1
            or (
                degree <= self.degree
                and (self.interactions or not mixed)
                and rows * p <= _MAX_FEATURES
                and rows * p * min(rows, p) <= _MAX_WORK
                and min(rows, p) <= _MAX_SPECTRUM
            )
        ]

    def _fit_folds(self, U: Tensor, Z: Tensor, folds: NDArray[np.int_]) -> Predictive:
        rows = self._rows(*U.shape)
        seen, outputs, held = U[rows], Z[rows], np.asarray(folds)[rows]
        mean, variance = torch.empty_like(outputs), torch.empty_like(outputs)
        for regression, rotated in self._regress(seen, outputs):
            j = regression.outputs
            mean[:, j], variance[:, j] = leave_folds_out(regression, rotated, outputs[:, j], held)
        tested = torch.from_numpy(held >= 0)
        if isinstance(rows, slice):
            return Predictive.gaussian(mean, variance.sqrt())[tested]
        whole = self._predictive_chunks(U)  # right as it is for the rows not learnt from
        at = rows[tested]
        whole.loc[0, at], whole.scale[0, at] = mean[tested], variance.sqrt()[tested]
        return whole[torch.from_numpy(np.asarray(folds) >= 0)]

    def _predictive(self, U: Tensor) -> Predictive:
        mean = torch.empty(len(U), self._outputs(), dtype=U.dtype)
        variance = torch.empty_like(mean)
        for r in self._regressions:
            features = evaluate(r.spectrum.basis, U) - r.spectrum.centre
            rotated = features @ r.spectrum.rotation
            unseen = (features.square().sum(1) - rotated.square().sum(1)).clamp_min(0.0)
            known = rotated.square() @ r.shrinkage + 1.0 / r.spectrum.rows + 1.0
            mean[:, r.outputs] = r.intercept + rotated @ r.weights
            variance[:, r.outputs] = r.noise * known + r.variance * unseen.unsqueeze(1)
        return Predictive.gaussian(mean, variance.sqrt())

    def _expected(self, U: Tensor, outputs: Tensor) -> Tensor:
        mean = torch.empty(len(U), self._outputs(), dtype=U.dtype)
        for r in self._regressions:
            weights = r.spectrum.rotation @ r.weights
            features = evaluate(r.spectrum.basis, U) - r.spectrum.centre
            mean[:, r.outputs] = r.intercept + features @ weights
        return mean[:, outputs]

    def _functions(self, count: int, generator: torch.Generator) -> Functions:
        parts = []
        for r in self._regressions:
            rotation, outputs = r.spectrum.rotation, len(r.outputs)

            def normal(rows: int, outputs: int = outputs) -> Tensor:
                shape = (count, rows, outputs)
                return torch.randn(shape, generator=generator, dtype=torch.float64)

            known = r.weights + (r.noise * r.shrinkage).sqrt() * normal(rotation.shape[1])
            prior = r.variance.sqrt() * normal(len(rotation))
            weights = prior + rotation @ (known - rotation.mT @ prior)
            intercept = r.intercept + (r.noise / r.spectrum.rows).sqrt() * normal(1)
            parts.append((r, weights, intercept))

        def values(U: Tensor) -> Tensor:
            found = torch.empty(count, len(U), self._outputs(), dtype=U.dtype)
            for r, weights, intercept in parts:
                features = evaluate(r.spectrum.basis, U) - r.spectrum.centre
                found[:, :, r.outputs] = intercept + features @ weights
            return found

        return values

    def _posterior(self, U: Tensor, observation_noise: bool) -> Posterior:
        m, q = self._outputs(), U.shape[-2]
        means: list[Tensor] = [U] * m
        covariances: list[Tensor] = [U] * m
        eye = torch.eye(q, dtype=U.dtype)
        for r in self._regressions:
            features = evaluate(r.spectrum.basis, U) - r.spectrum.centre
            rotated = features @ r.spectrum.rotation
            unseen = features @ features.mT - rotated @ rotated.mT
            for at, j in enumerate(r.outputs.tolist()):
                known = (rotated * r.shrinkage[:, at]) @ rotated.mT + 1.0 / r.spectrum.rows
                own = float(observation_noise) + 1e-6  # a little noise keeps the factor exact
                means[j] = r.intercept[at] + rotated @ r.weights[:, at]
                covariances[j] = r.noise[at] * (known + own * eye) + r.variance[at] * unseen
        if m == 1:
            return GPyTorchPosterior(MultivariateNormal(means[0], covariances[0]))
        stacked = MultivariateNormal(torch.stack(means, -2), torch.stack(covariances, -3))
        return GPyTorchPosterior(MultitaskMultivariateNormal.from_batch_mvn(stacked, task_dim=-1))

    @property
    def regressions(self) -> Sequence[Regression]:
        """Fitted regressions, each of some of the outputs."""
        return self._regressions

    def _outputs(self) -> int:
        return sum(len(regression.outputs) for regression in self._regressions)

    def _state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for i, regression in enumerate(self._regressions):
            for part in (regression, regression.spectrum):
                for f in fields(part):
                    value = getattr(part, f.name)
                    state |= {f"{i}.{f.name}": value} if isinstance(value, Tensor) else {}
        return state

    def _load(self, state: dict[str, Tensor]) -> None:
        count = 1 + max(int(name.split(".")[0]) for name in state)
        self._regressions = []
        for i in range(count):
            spectrum = Spectrum(**{f.name: state[f"{i}.{f.name}"] for f in fields(Spectrum)})
            rest = {f.name: state[f"{i}.{f.name}"] for f in fields(Regression)[1:]}
            self._regressions.append(Regression(spectrum, **rest))


def _some_outputs(regression: Regression, at: Tensor) -> Regression:
    chosen = {f.name: getattr(regression, f.name)[..., at] for f in fields(Regression)[1:]}
    return Regression(regression.spectrum, **chosen)
