r"""Most probable hyperparameters of a Gaussian process, at a Cholesky and an inverse an evaluation.

With :math:`K = s^2 k(r) + \sigma^2 I`, :math:`r_{ij}^2 = \sum_k (x_{ik} - x_{jk})^2/\ell_k^2` and a
constant mean :math:`c = 1^\top K^{-1} y / 1^\top K^{-1} 1` at its best value, the objective is

.. math:: f = \tfrac12 (y - c)^\top \alpha + \tfrac12 \log\det K + \tfrac n2 \log 2\pi
          - \log p(\ell, \sigma^2, s^2), \qquad \alpha = K^{-1} (y - c).

With :math:`M = K^{-1} - \alpha\alpha^\top` its derivatives are
:math:`\tfrac12 \sum_{ij} M_{ij}\, \partial K_{ij}`. Those in all length-scales have the form
:math:`\partial K_{ij}/\partial \log \ell_k = h(r_{ij}) (s_{ik} - s_{jk})^2` with scaled inputs
:math:`s`, so that they come out of one product: for :math:`G = M \circ h` and row sums :math:`g`,

.. math:: \tfrac12 \sum_{ij} G_{ij} (s_{ik} - s_{jk})^2
          = \sum_i g_i s_{ik}^2 - [S^\top G S]_{kk}.

Noise and output scale cost nothing more: :math:`\mathrm{tr}(M K) = n - (y - c)^\top \alpha`. Only
one triangle of each matrix is touched, in place. Several outputs that share hyperparameters share
the evaluation (:math:`M = m K^{-1} - \sum_j \alpha_j \alpha_j^\top`).

Priors are those of Hvarfner et al. (2024, arXiv 2402.02229): log-normal length-scales that grow
with the square root of the number of inputs, log-normal noise; and a wide one on the output scale.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import blas, lapack
from scipy.optimize import OptimizeResult, minimize

Array = NDArray[np.float64]

_PANEL = 128  # columns worked on at once: they stay in the cache
_FAILED = 1e10
_TOLERANCE = 1e-6  # least relative gain of an iteration


@dataclass(frozen=True)
class Prior:
    r"""Prior of hyperparameters, the box they stay in, and where to start.

    Hyperparameters are kept as :math:`\theta`: logarithms of a kernel's p - 2 parameters, of the
    noise variance :math:`\sigma^2` and of the output scale :math:`s^2`. Each is normal a priori;
    densities are those of the parameters themselves, except for :math:`s^2`, that of its logarithm.

    Parameters
    ----------
    loc, sd : ndarray (p,)
        Mean and standard deviation of theta.
    lower, upper : ndarray (p,)
        The box; equal where a hyperparameter is fixed.
    starts : ndarray (s, p)
        Points from the best of which each search starts.
    """

    loc: Array
    sd: Array
    lower: Array
    upper: Array
    starts: Array

    def penalty(self, theta: Array) -> tuple[float, Array]:
        """Negative log density at theta, up to a constant, and its gradient."""
        jacobian = np.r_[np.ones(len(theta) - 1), 0.0]
        z = (theta - self.loc) / self.sd
        return float(0.5 * z @ z + jacobian @ theta), jacobian + z / self.sd


def dimension_scaled(inputs: int, learn_outputscale: bool = True, min_noise: float = 1e-6) -> Prior:
    r"""Prior of a stationary kernel's length-scales, noise and output scale.

    .. math:: \ell_k \sim \mathrm{LogNormal}(\sqrt2 + \tfrac12 \log d, \sqrt3), \quad
              \sigma^2 \sim \mathrm{LogNormal}(-4, 1), \quad \log s^2 \sim N(0, 2^2)

    for inputs in the unit cube and an output of variance 1. Length-scales stay above 0.025, as in
    BoTorch. Starts lie at the prior's mode and at up to seven times its length-scales.

    Parameters
    ----------
    inputs : int
        Number of inputs, d.
    learn_outputscale : bool
        Otherwise :math:`s^2 = 1`.
    min_noise : float
        Least :math:`\sigma^2`.
    """
    mean, variance = math.sqrt(2.0) + 0.5 * math.log(inputs), 3.0
    floor, scale = math.log(min_noise), 7.0 * learn_outputscale
    points = [(mean - variance + a, b) for a in (0.0, 1.0, 2.0) for b in (-5.0, -8.0, -2.0)]
    starts = [np.r_[np.full(inputs, a), max(b, floor), 0.0] for a, b in points]
    return Prior(
        loc=np.r_[np.full(inputs, mean), -4.0, 0.0],
        sd=np.r_[np.full(inputs, math.sqrt(variance)), 1.0, 2.0],
        lower=np.r_[np.full(inputs, math.log(0.025)), floor, -scale],
        upper=np.r_[np.full(inputs, 12.0), 2.0, scale],
        starts=np.array(starts),
    )


def matern52(squares: Array, log_scale: float, root: Array, work: Array, slope: Array) -> None:
    r"""Matern-5/2 covariance in place of :math:`a^2 = 5 r^2`: :math:`s^2 (1 + a + a^2/3) e^{-a}`.

    ``slope`` receives :math:`3h = s^2 (1 + a) e^{-a}`.
    """
    np.sqrt(squares, out=root)
    np.subtract(log_scale, root, out=work)
    decay, covariance = torch.from_numpy(work), torch.from_numpy(squares)
    gradient = torch.from_numpy(slope)
    torch.exp(decay, out=decay)
    torch.addcmul(decay, torch.from_numpy(root), decay, out=gradient)
    covariance.mul_(decay)
    torch.add(gradient, covariance, alpha=1.0 / 3.0, out=covariance)


def squared_exponential(
    squares: Array, log_scale: float, root: Array, work: Array, slope: Array
) -> None:
    r"""Squared-exponential covariance in place of :math:`r^2`; slope :math:`h = s^2 e^{-r^2/2}`."""
    np.multiply(squares, -0.5, out=work)
    work += log_scale
    torch.exp(torch.from_numpy(work), out=torch.from_numpy(squares))
    np.copyto(slope, squares)


@dataclass(frozen=True)
class Family:
    """A stationary kernel: scale of its argument, weight of its slope, and its function."""

    argument: float
    slope: float
    covariance: Callable[[Array, float, Array, Array, Array], None]


FAMILIES = {
    "matern52": Family(math.sqrt(5.0), 1.0 / 3.0, matern52),
    "rbf": Family(1.0, 1.0, squared_exponential),
}


class MarginalLikelihood:
    """The objective f of outputs that share hyperparameters, and its gradient.

    A subclass gives ``_fill``, which writes the lower triangle of the noise-free K, and
    ``_kernel_gradient``, which contracts the M that then lies in its place. One whose outputs are
    not normal but elliptical, a function of the quadratic form, also gives ``_misfit``.

    Parameters
    ----------
    rows : int
        Number of training rows, n.
    prior : Prior
    """

    def __init__(self, rows: int, prior: Prior) -> None:
        self.prior = prior
        self.evaluations = 0
        self._K = np.zeros((rows, rows), order="F")  # its upper triangle stays finite
        self._ones = np.ones(rows)

    def _fill(self, theta: Array) -> None:
        raise NotImplementedError

    def _kernel_gradient(self) -> Array:
        raise NotImplementedError

    def _misfit(self, quadratic: Array) -> tuple[Array, Array]:
        r"""Negative log density at quadratic forms (m,), but for the determinant; twice its slope.

        The slope weights the :math:`\alpha\alpha^\top` of its output in M.
        """
        return 0.5 * quadratic, np.ones_like(quadratic)

    def __call__(self, theta: Array, Y: Array) -> tuple[float, Array]:
        """Objective, summed over the columns of Y (n, m), and its gradient (p,)."""
        K, m = self._K, Y.shape[1]
        halves, log_det = self._factorise(theta, Y)
        if not math.isfinite(log_det):
            return _FAILED, np.zeros_like(theta)
        penalty, gradient = self.prior.penalty(theta)
        quadratic = np.einsum("ij,ij->j", halves, halves)
        misfit, weight = self._misfit(quadratic)
        alpha = np.asfortranarray(_solve(K, halves, transposed=True) * np.sqrt(weight))
        lapack.dpotri(K, lower=1, overwrite_c=1)
        trace = m * float(np.trace(K)) - float(np.einsum("ij,ij->", alpha, alpha))
        if m == 1:
            blas.dsyr(-1.0, alpha[:, 0], lower=1, a=K, overwrite_a=1)
        else:
            blas.dsyrk(-1.0, alpha, beta=float(m), c=K, lower=1, overwrite_c=1)
        noise = 0.5 * math.exp(theta[-2]) * trace
        scale = 0.5 * (m * len(K) - float(weight @ quadratic)) - noise
        gradient = m * gradient + np.r_[self._kernel_gradient(), noise, scale]
        gradient[self.prior.lower == self.prior.upper] = 0.0
        return float(misfit.sum()) + m * (log_det + penalty), gradient

    def values(self, theta: Array, Y: Array) -> Array:
        """Objective of each column of Y (n, m) at shared hyperparameters, (m,)."""
        halves, log_det = self._factorise(theta, Y)
        if not math.isfinite(log_det):
            return np.full(Y.shape[1], _FAILED)
        quadratic = np.einsum("ij,ij->j", halves, halves)
        return self._misfit(quadratic)[0] + log_det + self.prior.penalty(theta)[0]

    def _factorise(self, theta: Array, Y: Array) -> tuple[Array, float]:
        """Factor K in place; return L^-1 (y - c) of each column and half of log det 2 pi K."""
        self.evaluations += 1
        K, n = self._K, len(self._K)
        self._fill(theta)
        K.ravel(order="K")[:: n + 1] += math.exp(theta[-2])
        _, info = lapack.dpotrf(K, lower=1, clean=0, overwrite_a=1)
        if info != 0:
            return Y, math.inf
        log_det = float(np.log(K.diagonal()).sum()) + 0.5 * n * math.log(2.0 * math.pi)
        ones = blas.dtrsv(K, self._ones, lower=1)
        halves = _solve(K, Y)
        return halves - np.outer(ones, ones @ halves / (ones @ ones)), log_det


class StationaryLikelihood(MarginalLikelihood):
    """Marginal likelihood of a stationary kernel with a length-scale for every input.

    Parameters
    ----------
    X : ndarray (n, d)
        Inputs in the unit cube.
    kernel : str
        Key of `FAMILIES`.
    prior : Prior
        As by `dimension_scaled`.
    """

    def __init__(self, X: Array, kernel: str, prior: Prior) -> None:
        n, d = X.shape
        super().__init__(n, prior)
        self.X = X - X.mean(0)
        self.family = FAMILIES[kernel]
        self._slope = np.zeros((n, n), order="F")
        self._scaled = np.ones((n, d + 1), order="F")
        self._root, self._work = np.empty((2, n * min(n, _PANEL)))

    def _fill(self, theta: Array) -> None:
        K, S, n, d = self._K, self._scaled, len(self._K), self.X.shape[1]
        np.multiply(self.X, self.family.argument * np.exp(-theta[:d]), out=S[:, :d])
        blas.dsyrk(-2.0, S[:, :d], beta=0.0, c=K, lower=1, overwrite_c=1)
        norms = np.einsum("ij,ij->i", S[:, :d], S[:, :d])
        blas.dsyr2(1.0, norms, self._ones, lower=1, a=K, overwrite_a=1)
        K.ravel(order="K")[:: n + 1] = 0.0
        for start in range(0, n, _PANEL):
            stop = min(start + _PANEL, n)
            shape = (stop - start, n - start)
            panel, slope = K[start:, start:stop].T, self._slope[start:, start:stop].T
            root, work = (b[: shape[0] * shape[1]].reshape(shape) for b in (self._root, self._work))
            np.maximum(panel, 0.0, out=panel)
            self.family.covariance(panel, float(theta[-1]), root, work, slope)

    def _kernel_gradient(self) -> Array:
        M, G, S, n, d = self._K, self._slope, self._scaled, len(self._K), self.X.shape[1]
        for start in range(0, n, _PANEL):
            columns = slice(start, min(start + _PANEL, n))
            np.multiply(G[start:, columns], M[start:, columns], out=G[start:, columns])
        product = blas.dsymm(1.0, G, S, lower=1)
        S, rows = S[:, :d], product[:, d]
        total = rows @ np.square(S) - np.einsum("ij,ij->j", S, product[:, :d])
        return self.family.slope * total


def _solve(factor: Array, Y: Array, transposed: bool = False) -> Array:
    """Solve with the lower factor, or its transpose, for the columns of Y."""
    if Y.shape[1] == 1:
        return blas.dtrsv(factor, Y[:, 0], lower=1, trans=int(transposed))[:, None]
    return blas.dtrsm(1.0, factor, Y, lower=1, trans_a=int(transposed))


@dataclass(frozen=True)
class Deadline:
    """A moment, as `time.monotonic` tells it, after which the best so far is kept."""

    moment: float = math.inf

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """Return the deadline that many seconds from now; none for None."""
        return cls() if seconds is None else cls(time.monotonic() + seconds)

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return time.monotonic() > self.moment


def climb(
    likelihood: MarginalLikelihood,
    Y: Array,
    start: Array,
    deadline: Deadline,
    iterations: int = 200,
) -> Array:
    """Improve theta (p,) from a start by L-BFGS, for outputs Y (n, m) that share it."""
    size = Y.size

    def scaled(theta: Array) -> tuple[float, Array]:
        value, gradient = likelihood(theta, Y)
        return value / size, gradient / size

    def stop_late(intermediate_result: OptimizeResult) -> None:
        if deadline.passed:
            raise StopIteration

    options = {"maxcor": 20, "ftol": _TOLERANCE, "gtol": 1e-6, "maxiter": iterations}
    bounds = list(zip(likelihood.prior.lower, likelihood.prior.upper, strict=True))
    result = minimize(
        scaled,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        callback=stop_late,
        options=options,
    )
    return np.asarray(result.x)


def most_probable(likelihood: MarginalLikelihood, Y: Array, deadline: Deadline) -> Array:
    """Hyperparameters of each output (m, p) at the mode of their posterior.

    Each output starts from the best of the prior's starts, whose factorisations all outputs share,
    of the hyperparameters of the most correlated output done before, and of the mean of those done.
    """
    grid = likelihood.prior.starts
    values = np.array([likelihood.values(theta, Y) for theta in grid])
    best, least = grid[values.argmin(0)], values.min(0)
    done: dict[int, Array] = {}
    for j, parent in spanning_order(Y):
        y, start = np.asfortranarray(Y[:, [j]]), best[j]
        if not deadline.passed:
            mean = np.mean(list(done.values()), axis=0) if len(done) > 1 else None
            rivals = [r for r in (done.get(parent), mean) if r is not None]
            for rival in rivals:
                value = float(likelihood.values(rival, y)[0])
                if value < least[j]:
                    start, least[j] = rival, value
            start = climb(likelihood, y, start, deadline)
        done[j] = start
    return np.array([done[j] for j in range(Y.shape[1])])


def most_probable_shared(likelihood: MarginalLikelihood, Y: Array, deadline: Deadline) -> Array:
    """Hyperparameters (p,) at the mode of their posterior where all outputs (n, m) share them."""
    values = [likelihood.values(theta, Y).sum() for theta in likelihood.prior.starts]
    start = likelihood.prior.starts[int(np.argmin(values))]
    return climb(likelihood, np.asfortranarray(Y), start, deadline)


def spanning_order(Y: Array) -> list[tuple[int, int]]:
    """Outputs (n, m) in the order of a maximal spanning tree of |correlation|, with parents.

    The first output is its own parent.
    """
    centred = Y - Y.mean(0)
    norms = np.sqrt(np.square(centred).sum(0))
    unit = centred / np.where(norms > 0.0, norms, 1.0)
    similarity = np.abs(unit.T @ unit)
    first = int(similarity.sum(0).argmax())
    order, waiting = [(first, first)], [j for j in range(Y.shape[1]) if j != first]
    while waiting:
        done = [j for j, _ in order]
        link = similarity[np.ix_(done, waiting)]
        row, column = np.unravel_index(int(link.argmax()), link.shape)
        order.append((waiting.pop(int(column)), done[int(row)]))
    return order
