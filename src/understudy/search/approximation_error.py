r"""The error of a surrogate in a likelihood: Bayesian approximation error.

J. Kaipio & E. Somersalo (2007), *Statistical inverse problems: discretization, model reduction and
inverse crimes*, J. Comput. Appl. Math. 198, 493-504. The errors of a surrogate :math:`f` at
neighbouring measurements are alike; taken as independent noise they average out, and the posterior
is too sure. Instead, :math:`N` further runs :math:`y_j` of the solver at the measured conditions,
with parameters :math:`\theta_j` drawn from the prior, give residual curves

.. math:: r_j = y_j - f(\theta_j), \qquad m = \bar r, \qquad
          S = \frac{1}{N - 1} \sum_j (r_j - m)(r_j - m)^\top ,

and the likelihood takes the error as Gaussian with these moments, independent of the parameters
(the *enhanced error model*),

.. math:: y \mid \theta, \sigma \sim
          N\big(f(\theta) + m,\; \operatorname{diag}(\sigma^2 + s^2(\theta)) + E\big).

Few runs cannot tell an n x n covariance. With outputs scaled to be of one size,

.. math:: E = g\,\big((1 - \rho) S + \rho \mu I\big), \quad \mu = \operatorname{tr} S / n, \quad
          g = \Big(1 + \frac1N\Big) \frac{N - 1}{N - 3} ,

where g makes E the covariance of Student's t that predicts the next residual when mean and variance
are estimated, and :math:`\rho` is the one under which each run is likeliest given the others
(leave-one-out likelihood: Hoffbeck & Landgrebe 1996, IEEE Trans. Pattern Anal. Mach. Intell. 18,
763-767, with the identity as target). It is small where all residuals are made of the same few
shapes, and near 1 where they have nothing in common. Without run j the mean and S are

.. math:: r_j - m_{-j} = \frac{N}{N - 1} x_j, \qquad
          S_{-j} = \frac{1}{N - 2} \Big( \sum_i x_i x_i^\top - \frac{N}{N - 1} x_j x_j^\top \Big),
          \qquad x_j = r_j - m ,

so one singular value decomposition serves all j and :math:`\rho`. What the surrogate says of its
own error already is not counted twice: the mean of :math:`s^2` over the runs is taken from the
diagonal :math:`g \rho \mu I`, down to 0.

E is thus of rank N - 1 plus diagonal, :math:`B B^\top + \operatorname{diag}(\delta)`. With
:math:`v = \sigma^2 + s^2 + \delta` and :math:`W = \operatorname{diag}(v)^{-1/2} B`, everything
needs the Cholesky factor of :math:`I + W^\top W` only (Woodbury), :math:`O(n N^2)` for each draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.search.measurement import Checks, Model, check_units

LEAST = 8
"""Runs without which nothing can be said of an error."""

_TINY = 1e-10  # of the largest singular value: rounding


@dataclass(frozen=True)
class ApproximationError:
    """Gaussian error of a surrogate at n measured conditions.

    Parameters
    ----------
    mean : Tensor (n,)
        m, of the solver less the surrogate.
    factor : Tensor (n, k)
        B.
    diagonal : Tensor (n,)
        Of what B does not hold, not below 0.
    size : Tensor (n,)
        Root mean square of the residuals of the runs.
    runs : int
        N.
    """

    mean: Tensor
    factor: Tensor
    diagonal: Tensor
    size: Tensor
    runs: int

    @classmethod
    def of(cls, model: Model, checks: Checks) -> Self:
        """Error of a model in runs of the solver that it was not trained on.

        Parameters
        ----------
        model : Model
        checks : Checks
            At least 8, with parameters drawn from the prior.

        Raises
        ------
        UserError
            Too few runs, runs of another length or in other units, a prediction that is not finite.
        """
        N, n = checks.y.shape
        if N < LEAST:
            raise UserError(
                f"to know the error of a surrogate takes {LEAST} runs of the solver at least, "
                f"better 20; found {N}"
            )
        if n != len(model.group):
            raise UserError(f"the model predicts {len(model.group)} values, a run has {n}")
        with torch.no_grad():
            predicted, variance = model(checks.theta)
        R = checks.y - predicted
        bad = (~torch.isfinite(R)).any(1).nonzero().flatten().tolist()
        if bad:
            raise UserError(f"run {bad[0] + 1} or its prediction is not finite")
        for m, output in enumerate(model.outputs):
            at = model.group == m
            check_units(output, checks.y[:, at], predicted[:, at])
        mean = R.mean(0)
        factor, diagonal = _shrunk(R - mean, model.group)
        diagonal = (diagonal - variance.mean(0)).clamp_min(0.0)
        return cls(mean, factor, diagonal, R.square().mean(0).sqrt(), N)

    @property
    def variance(self) -> Tensor:
        """Diagonal (n,) of E."""
        return self.factor.square().sum(1) + self.diagonal

    @property
    def covariance(self) -> Tensor:
        """E, (n, n)."""
        return self.factor @ self.factor.T + torch.diag(self.diagonal)

    def weight(self, sigma: Tensor) -> float:
        """Deviation of the error in its main direction, over that of noise sigma (n,) there.

        Independent errors as large as the noise have 1; one shape of n such values, the root of n.
        """
        level = self.diagonal / sigma.square()
        if not self.factor.shape[1]:
            return float(level.max().sqrt())
        U, S, _ = torch.linalg.svd(self.factor / sigma.unsqueeze(1), full_matrices=False)
        return float((S[0].square() + U[:, 0].square() @ level).sqrt())

    def said(self, group: Tensor, noise: Mapping[str, float]) -> str:
        """How large the error is against the noise, in words.

        Parameters
        ----------
        group : LongTensor (n,)
            Which output each value is of.
        noise : mapping of str to float
            Of each output, in order.
        """
        parts = []
        for m, (output, sigma) in enumerate(noise.items()):
            size = float(self.size[group == m].square().mean().sqrt())
            parts.append(f"{output} {size:.3g}, {size / sigma:.2g} of the noise")
        weight = self.weight(torch.tensor(list(noise.values()), dtype=torch.float64)[group])
        return (
            f"error of the surrogate in {self.runs} runs: {'; '.join(parts)}. Its mean is taken "
            f"out; what is left weighs {weight:.2g} of the noise in its main direction"
        )


def _shrunk(X: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Factor (n, k) and diagonal (n,) of E from centred residuals (N, n)."""
    N, n = X.shape
    squares = torch.zeros(int(group.max()) + 1, dtype=X.dtype).index_add(
        0, group, X.square().mean(0)
    )
    scale = (squares / torch.bincount(group).clamp_min(1)).sqrt()[group]
    scale = torch.where(scale > 0.0, scale, 1.0)
    X = X / scale
    if not bool((X != 0.0).any()):
        return torch.zeros(n, 0, dtype=X.dtype), torch.zeros(n, dtype=X.dtype)
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    kept = S[0] * _TINY < S
    U, S, Vh = U[:, kept], S[kept], Vh[kept]
    rho, mu = _shrinkage(U, S, n), float(S.square().sum()) / (N - 1) / n
    g = _inflation(N)
    B = Vh.T * S * (g * (1.0 - rho) / (N - 1)) ** 0.5
    return scale.unsqueeze(1) * B, g * rho * mu * scale.square()


def _inflation(N: int) -> float:
    """The factor g."""
    return (1.0 + 1.0 / N) * (N - 1) / (N - 3)


def _shrinkage(U: Tensor, S: Tensor, n: int) -> float:
    """The rho of largest leave-one-out likelihood, from the decomposition U S V^T of X (N, n)."""
    N, k = U.shape
    rho = torch.logspace(-8.0, 0.0, 81, dtype=S.dtype).unsqueeze(1)
    a = _inflation(N - 1) * (1.0 - rho) / (N - 2)
    b = _inflation(N - 1) * rho * S.square().sum() / (N - 1) / n
    values = a * S.square() + b  # (81, k), eigenvalues of A = a X^T X + b I
    h = (S.square() / values) @ U.square().T  # x_j^T A^-1 x_j
    without = (1.0 - a * N / (N - 1) * h).clamp_min(1e-12)
    distance = (N / (N - 1)) ** 2 * h / without
    log_determinant = (values.log().sum(1, keepdim=True) + (n - k) * b.log()) + without.log()
    score = -(distance + log_determinant).sum(1)
    return float(rho[score.argmax()])


@dataclass(frozen=True)
class LowRankNormal:
    r"""Gaussians :math:`N(\mu, \operatorname{diag}(v) + B B^\top)` of c chains, differentiable.

    Parameters
    ----------
    mean : Tensor (c, n)
    variance : Tensor (c, n)
        v.
    factor : Tensor (n, k), optional
        B, of all chains.
    """

    mean: Tensor
    variance: Tensor
    factor: Tensor | None = None

    @cached_property
    def _whitened(self) -> tuple[Tensor, Tensor]:
        """W (c, n, k) and the Cholesky factor L (c, k, k) of I + W^T W."""
        assert self.factor is not None
        W = self.factor / self.variance.sqrt().unsqueeze(-1)
        eye = torch.eye(W.shape[-1], dtype=W.dtype)
        return W, torch.linalg.cholesky(eye + W.mT @ W)

    @property
    def _projector(self) -> Tensor:
        """P = L^-1 W^T (c, k, n): the inverse is D^-1/2 (I - P^T P) D^-1/2."""
        W, L = self._whitened
        return torch.linalg.solve_triangular(L, W.mT, upper=False)

    def distance(self, y: Tensor) -> Tensor:
        """Squared Mahalanobis distances (c,) of values (c, n)."""
        whitened = (y - self.mean) / self.variance.sqrt()
        square = whitened.square().sum(-1)
        if self.factor is None:
            return square
        W, L = self._whitened
        along = torch.linalg.solve_triangular(L, W.mT @ whitened.unsqueeze(-1), upper=False)
        return square - along.square().sum((-2, -1))

    def log_density(self, y: Tensor) -> Tensor:
        """Log densities (c,) of values (c, n), but for a constant."""
        log_determinant = self.variance.log().sum(-1)
        if self.factor is not None:
            diagonal = self._whitened[1].diagonal(dim1=-2, dim2=-1)
            log_determinant = log_determinant + 2.0 * diagonal.log().sum(-1)
        return -0.5 * (self.distance(y) + log_determinant)

    def draw(self, generator: torch.Generator) -> Tensor:
        """A draw of each chain, (c, n)."""
        c, n = self.mean.shape
        drawn = self.mean + self.variance.sqrt() * _normal(c, n, generator)
        if self.factor is None:
            return drawn
        return drawn + _normal(c, self.factor.shape[1], generator) @ self.factor.T

    def fisher(self, J: Tensor, G: Tensor) -> Tensor:
        r"""Information (c, d, d) of coordinates with given derivatives.

        With the inverse covariance :math:`K`,
        :math:`J^\top K J + \tfrac12 \operatorname{tr}(K V_a K V_b)`, where :math:`V_a` is diagonal
        with derivatives of v.

        Parameters
        ----------
        J, G : Tensor (c, n, d)
            Of the mean, and of log v.
        """
        J = J / self.variance.sqrt().unsqueeze(-1)
        found = J.mT @ J + 0.5 * G.mT @ G
        if self.factor is None:
            return found
        P = self._projector
        along = P @ J
        middle = torch.einsum("ckn,cnd,cln->cdkl", P, G, P).flatten(2)
        weighted = P.square().sum(1).unsqueeze(-1) * G
        return found - along.mT @ along - G.mT @ weighted + 0.5 * middle @ middle.mT


def _normal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)
