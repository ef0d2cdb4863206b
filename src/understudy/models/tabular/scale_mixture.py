r"""Scale mixtures of Gaussian processes with the kernel of an infinitely wide network.

Lee, Yun, Yang & Lee (2022), "Scale Mixtures of Neural Network Gaussian Processes", arXiv
2107.01408. The variance s of a wide network's last layer has a prior H (see
`understudy.nn.scale_prior`), and noise shares it:

.. math:: f \mid s \sim GP(0, s k), \quad \varepsilon \mid s \sim N(0, s \sigma^2), \quad s \sim H.

With :math:`C = K + \sigma^2 I`, :math:`Q = (y - c)^\top C^{-1} (y - c)` and the mean m and variance
v of the Gaussian process at s = 1, a new observation is

.. math:: y_* \mid y \sim \int N(m, s v)\, p(s \mid y)\, ds, \qquad
          p(s \mid y) \propto s^{-n/2} e^{-Q/2s} h(s),

which for :math:`H = \mathrm{InvGamma}(\alpha, \beta)` is Student's t of :math:`2\alpha + n` degrees
of freedom, location m and squared scale :math:`v (2\beta + Q) / (2\alpha + n)`.

Hyperparameters of the kernel, the noise and the scale :math:`\beta/\alpha`, which is that of the
outputs, are at the mode of their posterior, by L-BFGS with exact gradients: where the paper climbs
by some ten thousand steps of Adam, some tens of evaluations do. The number of degrees of freedom is
not among them: with the scale free, the likelihood of one data set rises in :math:`\alpha` whatever
the data, up to the Gaussian process. The constant mean c is at its most likely value.

Predictive distributions are mixtures of 16 Gaussians, at the scales of the nodes of the trapezium
rule in the normal score of s: of the log density of t with 6 or more degrees of freedom the error
is at most 1e-5 in the central 99.8 % and 1e-3 in the central 99.998 %. Far outside, where t falls
as a power, the mixture falls as a Gaussian of its largest scale; `StudentTProcess.student_t` and
`ScaleMixtureSurrogate.sampled_predictive` do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import t as student
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.posterior import ScaleMixturePosterior
from understudy.core.predictive import Predictive
from understudy.models.tabular.gaussian_process import GaussianProcess
from understudy.models.tabular.infinite_width import InfiniteWidthSurrogate, NetworkLikelihood
from understudy.nn.scale_prior import (
    PROPOSALS,
    BurrXII,
    InverseGamma,
    PointMass,
    ScalePrior,
    Scales,
    WeightedScales,
    importance,
    scale_prior,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from understudy.models.tabular.marginal_likelihood import Array, Prior
    from understudy.models.tabular.pathwise import Functions

__all__ = [
    "BurrXII",
    "InverseGamma",
    "PointMass",
    "ScaleMixtureSurrogate",
    "StudentT",
    "StudentTProcess",
]

_SCORES = torch.linspace(-5.0, 5.0, 16, dtype=torch.float64)
_WEIGHTS = torch.softmax(-0.5 * _SCORES.square(), 0)


@dataclass(frozen=True)
class StudentT:
    """Student's t for n rows and m outputs.

    Parameters
    ----------
    mean, scale : Tensor (n, m)
        Location and scale.
    df : float
        Degrees of freedom. The variance is infinite up to 2, the mean undefined up to 1.
    """

    mean: Tensor
    scale: Tensor
    df: float

    def quantile(self, levels: Tensor) -> Tensor:
        """Quantiles (l, n, m) at levels (l,) in (0, 1)."""
        z = torch.from_numpy(np.atleast_1d(student.ppf(levels.numpy(), self.df)))
        return self.mean + z[:, None, None] * self.scale

    def log_prob(self, y: Tensor) -> Tensor:
        """Log density of observations (n, m), per cell."""
        z = ((y - self.mean) / self.scale).numpy()
        return torch.from_numpy(student.logpdf(z, self.df)) - self.scale.log()


class ScaleMixtureLikelihood(NetworkLikelihood):
    """Marginal likelihood of a scale mixture.

    Parameters
    ----------
    X, depth, activation, prior
        As of `NetworkLikelihood`.
    log_evidence : callable (int, Tensor (m,)) -> Tensor (m,)
        Logarithm of :math:`E_H[s^{-n/2} e^{-Q/2s}]` by n and Q.
    """

    def __init__(
        self,
        X: Tensor,
        depth: int,
        activation: str,
        prior: Prior,
        log_evidence: Callable[[int, Tensor], Tensor],
    ) -> None:
        super().__init__(X, depth, activation, prior)
        self.log_evidence = log_evidence

    def _misfit(self, quadratic: Array) -> tuple[Array, Array]:
        Q = torch.tensor(quadratic, requires_grad=True)
        with torch.enable_grad():
            value = -self.log_evidence(len(self.X), Q)
            (slope,) = torch.autograd.grad(value.sum(), Q)
        return value.detach().numpy(), 2.0 * slope.numpy()


class ScaleMixture(InfiniteWidthSurrogate):
    """What scale mixtures share; a subclass gives the evidence and the posterior of the scale."""

    _scales: Scales

    def _log_evidence(self, rows: int, quadratic: Tensor) -> Tensor:
        raise NotImplementedError

    def _posterior_scales(self, rows: int, quadratic: Tensor) -> Scales:
        """Posterior of the scales of m outputs given n rows and Q (m,)."""
        raise NotImplementedError

    @property
    def scale_roots(self) -> Tensor:
        """Square roots (k, m) of the posterior's nodes, by which deviations are multiplied."""
        return scale_nodes(self._scales, len(self._quadratic)).sqrt()

    # -- fitting ------------------------------------------------------------------------------

    def _likelihood(self, U: Tensor) -> ScaleMixtureLikelihood:
        prior = super()._likelihood(U).prior
        return ScaleMixtureLikelihood(U, self.depth_, self.activation, prior, self._log_evidence)

    def _condition(self, theta: Tensor, U: Tensor, Z: Tensor, spread: Tensor | None = None) -> None:
        super()._condition(theta, U, Z)
        self._quadratic = torch.empty(Z.shape[1], dtype=Z.dtype)
        for g, part in enumerate(self._conditioned):
            own = self.followers(g)
            self._quadratic[own] = torch.from_numpy(part.quadratic(Z[:, own].numpy()))
        self._scales = self._posterior_scales(len(U), self._quadratic)

    def _rescale(self) -> None:
        """Do nothing: the posterior of the scale sees to it."""

    # -- predictions --------------------------------------------------------------------------

    def _predictive_of(self, U: Tensor, outputs: Tensor) -> Predictive:
        gaussian = super()._predictive_of(U, outputs)
        roots = self.scale_roots[:, None, outputs]
        return over_nodes(gaussian.loc[0], roots * gaussian.scale[0])

    def _posterior(self, U: Tensor, observation_noise: bool) -> ScaleMixturePosterior:
        gaussian = super()._posterior(U, observation_noise)
        mean = self._scales.mean.expand(len(self._quadratic))
        return ScaleMixturePosterior(gaussian, self._scales.quantile, mean)

    def _functions(self, count: int, generator: torch.Generator) -> Functions:
        gaussian, m = super()._functions(count, generator), len(self._quadratic)
        u = torch.rand((count, m), generator=generator, dtype=torch.float64)
        roots = self._scales.quantile(u.clamp(1e-12, 1.0 - 1e-12)).sqrt().unsqueeze(1)

        def values(U: Tensor) -> Tensor:
            mean = self._expected(U, torch.arange(m))
            return mean + roots * (gaussian(U) - mean)

        return values

    @torch.no_grad()
    def _gaussian(self, X: ArrayLike) -> Predictive:
        """Predictive distribution at X (n, d) at s = 1, in the units of y."""
        outputs = torch.arange(self.n_outputs_)
        rows = self._scaled(torch.from_numpy(self._checked(X))).split(self.chunk_rows)
        parts = [GaussianProcess._predictive_of(self, part, outputs) for part in rows]
        return Predictive.concatenate(parts).affine(self._y_shift, self._y_scale)

    # -- cross-validation ---------------------------------------------------------------------

    def _held_out(self, folds: NDArray[np.int_]) -> Predictive:
        n, m = self._targets.shape
        loc = torch.empty_like(self._targets)
        scale = torch.ones(len(_SCORES), n, m, dtype=loc.dtype)
        for g, part in enumerate(self._conditioned):
            own, Y = self.followers(g), self._targets[:, self.followers(g)].numpy()
            mean, variance = part.held_out(Y, folds)
            known = part.weights * (Y - mean)  # what each row adds to Q, summed over its fold
            loc[:, own] = torch.from_numpy(mean)
            for fold in np.unique(folds[folds >= 0]):
                rows = np.flatnonzero(folds == fold)
                left = self._quadratic[own] - torch.from_numpy(known[rows].sum(0))
                scales = self._posterior_scales(n - len(rows), left.clamp_min(1e-12))
                nodes = (
                    scale_nodes(scales, len(own))[:, None]
                    * torch.from_numpy(variance[rows])[:, None]
                )
                scale[:, torch.from_numpy(rows)[:, None], own] = nodes.sqrt()
        held = torch.from_numpy(folds >= 0)
        return over_nodes(loc[held], scale[:, held])

    def leave_one_out(self) -> Predictive:
        """Return each training row's predictive by the process without it.

        Hyperparameters are those of all rows.
        """
        predictive = self._held_out(np.arange(len(self._targets)))
        return predictive.affine(self._y_shift, self._y_scale)


def scale_nodes(scales: Scales, outputs: int) -> Tensor:
    """Scales (k, m) at the nodes of the quadrature."""
    u = torch.special.ndtr(_SCORES).unsqueeze(1).expand(-1, outputs)
    return scales.quantile(u)


def over_nodes(loc: Tensor, scale: Tensor) -> Predictive:
    """Mixture of Gaussians at the nodes, of means (n, m) and deviations (k, n, m)."""
    return Predictive(loc.expand(scale.shape).clone(), scale, _WEIGHTS[:, None, None])


class StudentTProcess(ScaleMixture):
    r"""Student-t process with the kernel of an infinitely wide network, in closed form.

    It is the limit of wide networks whose last layer's variance is inverse gamma. Error bars have
    heavier tails than a Gaussian process's, which matters with few rows: n of them leave
    :math:`2\alpha + n` degrees of freedom.

    Parameters
    ----------
    alpha : float
        Shape of the inverse gamma; 2 as in the official code. Its rate follows from the scale of
        the outputs.
    depth, activation, weight_variance, bias_variance, learn_kernel, min_noise, max_exact, \
    fold_iterations, max_seconds, seed
        As of `InfiniteWidthSurrogate`.
    """

    def __init__(
        self,
        *,
        alpha: float = 2.0,
        depth: int | Sequence[int] = 2,
        activation: str = "relu",
        weight_variance: float = 10.0,
        bias_variance: float = 1.3,
        learn_kernel: bool = True,
        min_noise: float = 1e-6,
        max_exact: int = 600,
        fold_iterations: int | None = None,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            depth=depth,
            activation=activation,
            weight_variance=weight_variance,
            bias_variance=bias_variance,
            learn_kernel=learn_kernel,
            min_noise=min_noise,
            max_exact=max_exact,
            fold_iterations=fold_iterations,
            max_seconds=max_seconds,
            seed=seed,
        )
        self.alpha = alpha

    def _check(self, rows: int) -> None:
        super()._check(rows)
        self._scale_prior()

    def _scale_prior(self) -> InverseGamma:
        return InverseGamma(self.alpha, self.alpha)

    def _log_evidence(self, rows: int, quadratic: Tensor) -> Tensor:
        return self._scale_prior().log_evidence(rows, quadratic)

    def _posterior_scales(self, rows: int, quadratic: Tensor) -> InverseGamma:
        return self._scale_prior().posterior(rows, quadratic)

    def student_t(self, X: ArrayLike) -> StudentT:
        """Exact predictive distribution of new observations at X (n, d), in the units of y."""
        gaussian = self._gaussian(X)
        df = 2.0 * self.alpha + len(self._targets)
        widening = ((2.0 * self.alpha + self._quadratic) / df).sqrt()
        return StudentT(gaussian.loc[0], widening * gaussian.scale[0], df)


class ScaleMixtureSurrogate(ScaleMixture):
    r"""Scale mixture of Gaussian processes with any prior of the scale, by importance sampling.

    Parameters
    ----------
    scale_prior : ScalePrior, str or sequence
        `BurrXII`, `InverseGamma`, `PointMass` (which is the Gaussian process itself) or another, or
        its name and parameters, such as ``("burr-xii", 2, 1)``. The scale of the outputs is learnt
        beside it.
    num_samples : int
        Draws of the scale; 1000 as in the official code. They share one Cholesky factor.
    proposal : {"auto", "prior", "adapted"}
        As of `understudy.nn.scale_prior.importance`.
    depth, activation, weight_variance, bias_variance, learn_kernel, min_noise, max_exact, \
    fold_iterations, max_seconds, seed
        As of `InfiniteWidthSurrogate`.
    """

    def __init__(
        self,
        *,
        scale_prior: ScalePrior | str | Sequence[Any] = ("burr-xii", 2.0, 2.0),
        num_samples: int = 1000,
        proposal: str = "auto",
        depth: int | Sequence[int] = 2,
        activation: str = "relu",
        weight_variance: float = 10.0,
        bias_variance: float = 1.3,
        learn_kernel: bool = True,
        min_noise: float = 1e-6,
        max_exact: int = 600,
        fold_iterations: int | None = None,
        max_seconds: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            depth=depth,
            activation=activation,
            weight_variance=weight_variance,
            bias_variance=bias_variance,
            learn_kernel=learn_kernel,
            min_noise=min_noise,
            max_exact=max_exact,
            fold_iterations=fold_iterations,
            max_seconds=max_seconds,
            seed=seed,
        )
        self.scale_prior = scale_prior
        self.num_samples = num_samples
        self.proposal = proposal

    def _check(self, rows: int) -> None:
        super()._check(rows)
        scale_prior(self.scale_prior)
        if self.proposal not in PROPOSALS:
            accepted = ", ".join(PROPOSALS)
            raise UserError(f"proposal must be one of {accepted}, got {self.proposal!r}")
        if self.num_samples < 10:
            raise UserError(f"num_samples must be at least 10, got {self.num_samples!r}")

    def _log_evidence(self, rows: int, quadratic: Tensor) -> Tensor:
        prior = scale_prior(self.scale_prior)
        if isinstance(prior, PointMass):
            return prior.log_evidence(rows, quadratic)
        return importance(prior, rows, quadratic, self.num_samples, "adapted").log_evidence

    def _posterior_scales(self, rows: int, quadratic: Tensor) -> Scales:
        prior = scale_prior(self.scale_prior)
        if isinstance(prior, PointMass):
            return prior
        return importance(prior, rows, quadratic, self.num_samples, self.proposal)

    @torch.no_grad()
    def sampled_predictive(self, X: ArrayLike) -> Predictive:
        """Predictive distribution of new observations at X (n, d) with a component for every draw.

        That of `predictive` has 16; beyond five of its standard deviations this one is better, and
        it takes `num_samples` times as much memory as means.
        """
        gaussian = self._gaussian(X)
        if not isinstance(self._scales, WeightedScales):
            return gaussian
        scale = gaussian.scale * self._scales.values.sqrt().unsqueeze(1)
        weight = self._scales.log_weights.softmax(0).unsqueeze(1)
        return Predictive(gaussian.loc.expand(scale.shape), scale, weight)

    @property
    def effective_sample_size_(self) -> NDArray[np.float64]:
        """Effective number of the draws of each output's scale, (m,)."""
        check_is_fitted(self, "n_outputs_")
        if isinstance(self._scales, WeightedScales):
            return self._scales.effective_size.numpy()
        return np.full(self.n_outputs_, float(self.num_samples))

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the fitted surrogate as JSON-able parameters and named tensors."""
        head, tensors = super().state()
        described = scale_prior(self.scale_prior).describe()
        return head | {"params": head["params"] | {"scale_prior": described}}, tensors
