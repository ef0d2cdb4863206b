r"""Sparse Student-t process classifier with the kernel of an infinitely wide network.

Lee, Yun, Yang & Lee (2022), "Scale Mixtures of Neural Network Gaussian Processes", arXiv
2107.01408, classification by softmax (SVTP); with a known scale it is the sparse variational
Gaussian process (SVGP; Hensman et al. 2015). C latent functions share the kernel k and one scale,
:math:`f_c \mid s \sim GP(0, s k)`, :math:`s \sim \mathrm{InvGamma}(\alpha, \beta)`. With inducing
inputs Z, :math:`K = k(Z, Z) + \epsilon I`, :math:`A = k(X, Z) K^{-1}` and

.. math:: q(u_c \mid s) = N(\mu_c, s S_c), \quad S_c \text{ diagonal}, \qquad
          q(s) = \mathrm{InvGamma}(a, b),

.. math:: f_c \mid s \sim N\left(A \mu_c,\; s\,(A S_c A^\top + k(X, X) - A\, k(Z, X))\right),

the bound that is maximised, over everything, is

.. math:: \sum_i E\left[\log \mathrm{softmax}(f(x_i))_{y_i}\right] - \mathrm{KL},

.. math:: \mathrm{KL} = \tfrac12 \sum_c \left(\log\det K - \log\det S_c - I
          + \mathrm{tr}\, K^{-1} S_c + \tfrac ab\, \mu_c^\top K^{-1} \mu_c\right)
          + \mathrm{KL}(q(s) \,\|\, p(s)).

Each draw takes one s for all classes and then Gaussians given s; the official code draws Student's
t independently for every class and point, which has not this joint distribution.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from scipy.stats import qmc
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.core.linalg import cholesky, one_thread
from understudy.core.loop import Settings, Trainer, shuffled_batches
from understudy.nn.infinite_width import nngp, nngp_variance
from understudy.nn.pair_moments import pair_moments
from understudy.nn.scale_prior import InverseGamma, PointMass, ScalePrior, scale_prior

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

_EPSILON = 1e-6
_LEAST = 1e-12
_ROWS_AT_ONCE = 256


class SparseTProcess(nn.Module):
    """Inducing variables, scale and kernel of C latent functions.

    Parameters
    ----------
    inducing : Tensor (i, d)
        Z to start from.
    classes : int
    depth, activation, skip
        Of the network.
    weight_std, bias_std : float
        Of its weights and biases, to start from.
    prior : InverseGamma or PointMass
        Of the scale. With a point mass the scale of the kernel is learnt in its place.
    """

    def __init__(
        self,
        inducing: Tensor,
        classes: int,
        depth: int,
        activation: str,
        skip: float,
        weight_std: float,
        bias_std: float,
        prior: InverseGamma | PointMass,
    ) -> None:
        super().__init__()
        self.depth, self.activation, self.skip, self.prior = depth, activation, skip, prior
        self.Z = nn.Parameter(inducing.clone())
        self.mean = nn.Parameter(inducing.new_zeros(classes, len(inducing)))
        self.log_weight = nn.Parameter(inducing.new_tensor(math.log(weight_std)))
        self.log_bias = nn.Parameter(inducing.new_tensor(math.log(bias_std)))
        heavy = isinstance(prior, InverseGamma)
        alpha, beta = (prior.alpha, prior.beta) if isinstance(prior, InverseGamma) else (1.0, 1.0)
        shape = inducing.new_tensor([math.log(alpha), math.log(beta)])
        self.log_scale = nn.Parameter(inducing.new_zeros(()), requires_grad=not heavy)
        self.log_shape = nn.Parameter(shape, requires_grad=heavy)
        with torch.no_grad():  # where the divergence is least
            least = torch.cholesky_inverse(self.factor()).diagonal().reciprocal()
        self.log_variance = nn.Parameter(least.log().repeat(classes, 1))

    @property
    def q(self) -> InverseGamma | PointMass:
        """Posterior of the scale."""
        if isinstance(self.prior, PointMass):
            return self.prior
        a, b = self.log_shape.detach().exp().tolist()
        return InverseGamma(a, b)

    @property
    def variance(self) -> Tensor:
        """Diagonals of S, (C, i)."""
        return self.log_variance.exp()

    def _network(self) -> tuple[Any, ...]:
        squares = (2.0 * self.log_weight).exp(), (2.0 * self.log_bias).exp()
        return (self.depth, self.activation, *squares, self.skip)

    def factor(self) -> Tensor:
        """Lower Cholesky factor of K = k(Z, Z) + eps I."""
        K = self.log_scale.exp() * nngp(self.Z, self.Z, *self._network())
        return cholesky(K + _EPSILON * torch.eye(len(K), dtype=K.dtype))

    def latent(self, X: Tensor, L: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances (C, n) of the latent functions at X (n, d), given s = 1."""
        scale, network = self.log_scale.exp(), self._network()
        half = torch.linalg.solve_triangular(L, scale * nngp(self.Z, X, *network), upper=False)
        A = torch.linalg.solve_triangular(L.mT, half, upper=True)  # (i, n), the transpose of A
        left = scale * nngp_variance(X, *network) - half.square().sum(0)
        variance = self.variance @ A.square() + left.clamp_min(0.0)
        return self.mean @ A, variance.clamp_min(_LEAST)

    def draw_scales(self, count: int) -> Tensor:
        """Draws of s, (count,), differentiable in the parameters of q."""
        if isinstance(self.prior, PointMass):
            return self.Z.new_full((count,), float(self.prior.value))
        a, b = self.log_shape.exp()
        return b / torch.distributions.Gamma(a, 1.0).rsample(torch.Size([count]))

    def divergence(self, L: Tensor) -> Tensor:
        """KL of q from the prior."""
        classes, inducing = self.mean.shape
        inverse = torch.cholesky_inverse(L)
        white = torch.linalg.solve_triangular(L, self.mean.mT, upper=False)
        expected, extra = self._scale_terms()
        log_dets = 2.0 * classes * L.diagonal().log().sum() - self.variance.log().sum()
        trace = (self.variance * inverse.diagonal()).sum()
        whole = log_dets - classes * inducing + trace + expected * white.square().sum()
        return 0.5 * whole + extra

    def _scale_terms(self) -> tuple[Tensor, Tensor]:
        """Expectation of 1/s under q, and KL(q(s), p(s))."""
        if isinstance(self.prior, PointMass):
            return torch.tensor(1.0 / self.prior.value), torch.tensor(0.0)
        a, b = self.log_shape.exp()
        alpha, beta = self.prior.alpha, self.prior.beta
        gammas = torch.lgamma(torch.tensor(alpha, dtype=a.dtype)) - torch.lgamma(a)
        shapes = alpha * (b / beta).log() + (a - alpha) * torch.digamma(a)
        return a / b, shapes + gammas + (beta - b) * a / b

    def log_likelihood(self, X: Tensor, y: Tensor, L: Tensor, draws: int) -> Tensor:
        """Mean log probability of classes y (n,) at X (n, d), over draws of s and f."""
        mean, variance = self.latent(X, L)
        s = self.draw_scales(draws)[:, None, None]
        f = mean + (s * variance).sqrt() * torch.randn((draws, *mean.shape), dtype=mean.dtype)
        chosen = f.gather(1, y.expand(draws, 1, -1)).squeeze(1)
        return (chosen - f.logsumexp(1)).mean()

    def probabilities(self, X: Tensor, L: Tensor, points: Tensor) -> Tensor:
        """Probabilities (n, C) at X (n, d), by points (k, C + 1) of the unit cube."""
        mean, variance = self.latent(X, L)
        s = self.q.quantile(points[:, 0])[:, None, None]
        z = torch.special.ndtri(points[:, 1:]).unsqueeze(-1)
        return (mean + (s * variance).sqrt() * z).softmax(1).mean(0).mT


class SparseTProcessClassifier(ClassifierMixin, BaseEstimator):
    """Classifier by a sparse Student-t process, or Gaussian process, of an infinitely wide network.

    Inputs are taken as they are: put a `StandardScaler` before it where they have units.

    Parameters
    ----------
    scale_prior : InverseGamma, PointMass, str or sequence
        ``InverseGamma(2, 2)`` as in the official code; ``"point-mass"`` is the sparse Gaussian
        process.
    num_inducing : int
        Inducing inputs, at most the rows: trained from rows with the same number of each class.
    depth : int
        Hidden layers.
    activation : str
        A name of `understudy.nn.gaussian_expectation.NAMED`.
    skip : float
        Coefficient of skip connections: 1 for a dense residual network.
    weight_std, bias_std : float
        Of weights and biases, to start from; 1 and 1e-8 as in the official code. Without biases a
        ReLU network is linear on every ray from the origin, which is right for many inputs; with
        few, start from 0.5 or so.
    learning_rate, batch_size, max_epochs
        Of Adam; 0.01, 100 and 300 as in the official code.
    num_samples : int
        Draws of the latent functions in each step; 100 as in the official code.
    max_seconds : float, optional
        Time after which training stops.
    seed : int

    Attributes
    ----------
    classes_ : array (c,)
    scale_ : InverseGamma or PointMass
        Posterior of the scale.
    n_steps_ : int
        Steps taken.
    """

    def __init__(
        self,
        *,
        scale_prior: ScalePrior | str | Sequence[Any] = ("inverse-gamma", 2.0, 2.0),
        num_inducing: int = 200,
        depth: int = 4,
        activation: str = "relu",
        skip: float = 0.0,
        weight_std: float = 1.0,
        bias_std: float = 1e-8,
        learning_rate: float = 1e-2,
        batch_size: int = 100,
        max_epochs: int = 300,
        num_samples: int = 100,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        self.scale_prior = scale_prior
        self.num_inducing = num_inducing
        self.depth = depth
        self.activation = activation
        self.skip = skip
        self.weight_std = weight_std
        self.bias_std = bias_std
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.num_samples = num_samples
        self.max_seconds = max_seconds
        self.seed = seed

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit to rows X (n, d) and classes y (n,).

        Raises
        ------
        UserError
            If a parameter cannot be accepted.
        """
        prior = self._checked_prior()
        checked, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if self.num_inducing < len(self.classes_):
            raise UserError(
                f"num_inducing must be at least the number of classes, {len(self.classes_)}, "
                f"got {self.num_inducing!r}"
            )
        rows, labels = torch.from_numpy(np.array(checked)), torch.from_numpy(codes.reshape(-1))
        stds = (self.weight_std, self.bias_std)
        network = (len(self.classes_), self.depth, self.activation, self.skip, *stds)
        with one_thread(), torch.random.fork_rng(devices=[]):
            chosen = self._inducing_rows(codes.reshape(-1))
            self.process_ = SparseTProcess(rows[chosen], *network, prior)
            self._train(rows, labels)
        self.scale_ = self.process_.q
        return self

    def _checked_prior(self) -> InverseGamma | PointMass:
        prior = scale_prior(self.scale_prior)
        if not isinstance(prior, InverseGamma | PointMass):
            raise UserError(
                f"scale_prior must be inverse-gamma or point-mass for a classifier, got {prior!r}"
            )
        pair_moments(self.activation)
        positive = ("depth", "weight_std", "bias_std", "learning_rate")
        for name in (*positive, "batch_size", "max_epochs", "num_samples"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be positive, got {getattr(self, name)!r}")
        return prior

    def _inducing_rows(self, codes: NDArray[np.int_]) -> Tensor:
        """Rows whose classes take turns, in random order."""
        order = np.random.default_rng(self.seed).permutation(len(codes))
        turn = np.empty(len(codes), dtype=np.int_)
        for code in range(len(self.classes_)):
            own = order[codes[order] == code]
            turn[own] = np.arange(len(own))
        return torch.from_numpy(order[np.argsort(turn[order], kind="stable")][: self.num_inducing])

    def _train(self, X: Tensor, y: Tensor) -> None:
        process, n = self.process_, len(X)
        batches = shuffled_batches(n, self.batch_size, self.seed)
        steps = self.max_epochs * max(1, n // min(self.batch_size, n))

        def loss(step: int) -> Tensor:
            torch.manual_seed(hash((self.seed, step)) & 0x7FFFFFFF)
            rows, L = batches(step), process.factor()
            fit = process.log_likelihood(X[rows], y[rows], L, self.num_samples)
            return process.divergence(L) / n - fit

        optimiser = torch.optim.Adam(process.parameters(), self.learning_rate)
        settings = Settings(max_steps=steps, max_seconds=self.max_seconds)
        self.n_steps_ = Trainer(process, optimiser, settings).run(loss).steps

    @torch.no_grad()
    def predict_proba(self, X: ArrayLike, draws: int = 1024) -> NDArray[np.float64]:
        """Probabilities (n, c) of the classes at rows X (n, d).

        Parameters
        ----------
        X : array (n, d)
        draws : int
            Quasi-random draws of scale and latent functions; a power of 2.
        """
        check_is_fitted(self, "process_")
        rows = torch.from_numpy(np.array(validate_data(self, X, reset=False, dtype=np.float64)))
        sobol = qmc.Sobol(len(self.classes_) + 1, rng=self.seed).random(draws)
        points = torch.from_numpy(sobol).clamp(1e-9, 1.0 - 1e-9)
        L = self.process_.factor()
        parts = [self.process_.probabilities(part, L, points) for part in rows.split(_ROWS_AT_ONCE)]
        return torch.cat(parts).numpy()

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Classes (n,) of rows X (n, d)."""
        best = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[best])
