r"""Priors of the variance of a wide network's last layer: scale mixtures of Gaussian processes.

Lee, Yun, Yang & Lee (2022, arXiv 2107.01408). Where the variance s of the read-out has a prior H,
an infinitely wide network is

.. math:: f \mid s \sim GP(0, s k), \qquad s \sim H,

and n observations with quadratic form :math:`Q = y^\top C^{-1} y` know of s by the likelihood
:math:`s^{-n/2} e^{-Q / 2s}`. For :math:`H = \mathrm{InvGamma}(\alpha, \beta)` the posterior is
:math:`\mathrm{InvGamma}(\alpha + n/2, \beta + Q/2)`, and f is a Student-t process. For any other H,
importance sampling:

.. math:: s_j \sim q, \qquad w_j \propto s_j^{-n/2} e^{-Q / 2 s_j}\, \frac{h(s_j)}{q(s_j)}

with stratified draws of :math:`q = H` or, where that leaves too few effective draws, of a defensive
mixture: half from the inverse gamma whose logarithm has the mode, and the curvature there, of the
posterior's, which is the posterior itself where H is inverse gamma; and half from one of the same
mode and a sixteenth of the shape, for the tails.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from scipy.special import gammaincinv
from torch import Tensor

from understudy.core.errors import UserError

PROPOSALS = ("auto", "prior", "adapted")
_LOG_GRID = torch.linspace(-60.0, 60.0, 241, dtype=torch.float64)
_WIDER = 16.0  # the wide half of the adapted draws has this share of the other's shape
_LEAST_EFFECTIVE = 0.1  # share of effective draws below which the prior is left as proposal


class Scales(Protocol):
    """Distribution of the scales s of m outputs."""

    @property
    def mean(self) -> Tensor:
        """Mean (m,); infinite where there is none."""
        ...

    def quantile(self, u: Tensor) -> Tensor:
        """Quantiles at probabilities u (..., m)."""
        ...


class ScalePrior:
    """Prior of a scale: a density with quantiles.

    A subclass gives ``log_density(s)`` and ``quantile(u)``, entry by entry.
    """

    name: ClassVar[str]

    def log_density(self, s: Tensor) -> Tensor:
        """Log density at s > 0, entry by entry."""
        raise NotImplementedError

    def quantile(self, u: Tensor) -> Tensor:
        """Quantiles at probabilities u in (0, 1), entry by entry."""
        raise NotImplementedError

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Independent draws (count,), float64."""
        u = torch.rand(count, generator=generator, dtype=torch.float64)
        return self.quantile(u.clamp(1e-16, 1.0 - 1e-16))

    def describe(self) -> list[Any]:
        """Name and parameters, as JSON can hold them; `scale_prior` takes them back."""
        return [self.name, *asdict(self).values()]  # type: ignore[call-overload]


@dataclass(frozen=True)
class InverseGamma(ScalePrior):
    r"""Density proportional to :math:`s^{-\alpha - 1} e^{-\beta / s}`: a Student-t process.

    Parameters
    ----------
    alpha, beta : float or Tensor (m,)
        Positive; 2 as in the official code. At :math:`\alpha \le 1` the mean is infinite.
    """

    alpha: Any = 2.0
    beta: Any = 2.0
    name: ClassVar[str] = "inverse-gamma"

    def __post_init__(self) -> None:
        _require_positive("InverseGamma", alpha=self.alpha, beta=self.beta)

    def log_density(self, s: Tensor) -> Tensor:
        """Log density at s > 0, entry by entry."""
        a, b = (torch.as_tensor(v, dtype=torch.float64) for v in (self.alpha, self.beta))
        return a * b.log() - torch.lgamma(a) - (a + 1.0) * s.log() - b / s

    def quantile(self, u: Tensor) -> Tensor:
        """Quantiles at probabilities u (..., m)."""
        a = np.asarray(self.alpha)
        rate = torch.from_numpy(np.asarray(gammaincinv(a, 1.0 - u.double().numpy())))
        return self.beta / rate.clamp_min(1e-300)

    @property
    def mean(self) -> Tensor:
        """Mean; infinite for alpha <= 1."""
        a = torch.as_tensor(self.alpha, dtype=torch.float64)
        mean: Tensor = self.beta / torch.where(a > 1.0, a - 1.0, 0.0)
        return mean

    def posterior(self, rows: int, quadratic: Tensor) -> InverseGamma:
        """Exact posterior given n rows with quadratic forms (m,)."""
        alpha = torch.full_like(quadratic, self.alpha + 0.5 * rows)
        return InverseGamma(alpha, self.beta + 0.5 * quadratic)

    def log_evidence(self, rows: int, quadratic: Tensor) -> Tensor:
        r"""Logarithm of :math:`E_H[s^{-n/2} e^{-Q/2s}]`, (m,)."""
        a, n = self.alpha, 0.5 * rows
        constant = a * math.log(self.beta) - math.lgamma(a) + math.lgamma(a + n)
        return constant - (a + n) * (self.beta + 0.5 * quadratic).log()


@dataclass(frozen=True)
class BurrXII(ScalePrior):
    r"""Density :math:`c\, d\, s^{c-1} (1 + s^c)^{-d-1}`.

    Parameters
    ----------
    c, d : float
        Positive; the official grid is 1, 2 and 3 for each. The mean is infinite for cd <= 1.
    """

    c: float = 2.0
    d: float = 2.0
    name: ClassVar[str] = "burr-xii"

    def __post_init__(self) -> None:
        _require_positive("BurrXII", c=self.c, d=self.d)

    def log_density(self, s: Tensor) -> Tensor:
        """Log density at s > 0, entry by entry."""
        log_s = s.log()
        tail = torch.nn.functional.softplus(self.c * log_s, threshold=40.0)
        return math.log(self.c * self.d) + (self.c - 1.0) * log_s - (self.d + 1.0) * tail

    def quantile(self, u: Tensor) -> Tensor:
        """Quantiles at probabilities u in (0, 1), entry by entry."""
        return torch.expm1(-torch.log1p(-u.double()) / self.d) ** (1.0 / self.c)


@dataclass(frozen=True)
class PointMass(ScalePrior):
    """Known scale: the Gaussian process itself.

    Parameters
    ----------
    value : float
        Positive.
    """

    value: float = 1.0
    name: ClassVar[str] = "point-mass"

    def __post_init__(self) -> None:
        _require_positive("PointMass", value=self.value)

    def quantile(self, u: Tensor) -> Tensor:
        """Return the value, whatever the probability."""
        return torch.full(u.shape, float(self.value), dtype=torch.float64)

    @property
    def mean(self) -> Tensor:
        """Return the value."""
        return torch.tensor([float(self.value)], dtype=torch.float64)

    def posterior(self, rows: int, quadratic: Tensor) -> PointMass:
        """Return itself: there is nothing to learn."""
        return self

    def log_evidence(self, rows: int, quadratic: Tensor) -> Tensor:
        r"""Logarithm of :math:`s^{-n/2} e^{-Q/2s}`, (m,)."""
        return -0.5 * rows * math.log(self.value) - 0.5 * quadratic / self.value


_PRIORS: dict[str, type[ScalePrior]] = {p.name: p for p in (InverseGamma, BurrXII, PointMass)}


def scale_prior(which: Any) -> ScalePrior:
    """Return a prior given as such, by name, or by name and parameters.

    Parameters
    ----------
    which : ScalePrior, str or sequence
        ``BurrXII(2, 1)``, ``"burr-xii"`` or ``("burr-xii", 2, 1)``.

    Raises
    ------
    UserError
        If there is no such prior, or a parameter is not positive.
    """
    if isinstance(which, ScalePrior):
        return which
    name, *parameters = [which] if isinstance(which, str) else list(which)
    if name not in _PRIORS:
        raise UserError(f"scale_prior must be one of {', '.join(_PRIORS)}, got {name!r}")
    return _PRIORS[name](*parameters)


@dataclass(frozen=True)
class WeightedScales:
    """Weighted draws of the scales of m outputs.

    Parameters
    ----------
    values : Tensor (j, m)
    log_weights : Tensor (j, m)
        Not normalised: their mean is the evidence.
    """

    values: Tensor
    log_weights: Tensor

    @property
    def log_evidence(self) -> Tensor:
        """Estimate of the logarithm of the evidence, (m,)."""
        return torch.logsumexp(self.log_weights, 0) - math.log(len(self.values))

    @property
    def effective_size(self) -> Tensor:
        """Effective number of draws, (m,), from 1 to j."""
        twice = torch.logsumexp(2.0 * self.log_weights, 0)
        return (2.0 * torch.logsumexp(self.log_weights, 0) - twice).exp()

    @property
    def mean(self) -> Tensor:
        """Mean of each scale, (m,)."""
        return (self.log_weights.softmax(0) * self.values).sum(0)

    def quantile(self, u: Tensor) -> Tensor:
        """Quantiles at probabilities u (..., m), interpolated in log s and the normal score."""
        result = torch.empty(u.shape, dtype=torch.float64)
        for j in range(u.shape[-1]):
            order = self.values[:, j].argsort()
            weight = self.log_weights[:, j].softmax(0)[order]
            middle = (weight.cumsum(0) - 0.5 * weight).clamp(1e-15, 1.0 - 1e-15)
            score = torch.special.ndtri(middle).numpy()
            at = torch.special.ndtri(u[..., j].double()).numpy()
            found = np.interp(at, score, self.values[order, j].log().numpy())
            result[..., j] = torch.from_numpy(np.asarray(found))
        return result.exp()


def importance(
    prior: ScalePrior, rows: int, quadratic: Tensor, draws: int = 1000, proposal: str = "auto"
) -> WeightedScales:
    """Posterior of the scales of m outputs by importance sampling, differentiable in Q.

    Parameters
    ----------
    prior : ScalePrior
        With a density.
    rows : int
        Number n of observations.
    quadratic : Tensor (m,)
        Q of each output.
    draws : int
        Stratified, 1000 as in the official code.
    proposal : {"auto", "prior", "adapted"}
        The prior; the mixture near the posterior; or the first of them that leaves a tenth of the
        draws effective.
    """
    if proposal == "auto":
        found = importance(prior, rows, quadratic, draws, "prior")
        if bool((found.effective_size >= _LEAST_EFFECTIVE * draws).all()):
            return found
        proposal = "adapted"
    u = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    n, Q = 0.5 * rows, quadratic.unsqueeze(0)
    if proposal == "prior":
        s = prior.quantile(u).unsqueeze(1).expand(-1, len(quadratic))
        return WeightedScales(s, -n * s.log() - 0.5 * Q / s)
    near = _matched(prior, rows, quadratic.detach())
    wide = InverseGamma(near.alpha / _WIDER, near.beta / _WIDER)
    s = torch.cat(
        [q.quantile(u[::2].unsqueeze(1).expand(-1, len(quadratic))) for q in (near, wide)]
    )
    log_q = torch.logaddexp(near.log_density(s), wide.log_density(s)) - math.log(2.0)
    likelihood = -n * s.log() - 0.5 * Q / s
    return WeightedScales(s, likelihood + prior.log_density(s) - log_q)


def _matched(prior: ScalePrior, rows: int, quadratic: Tensor) -> InverseGamma:
    """Inverse gammas like the posteriors of log s, in their modes and the curvatures there."""

    def slope(x: Tensor) -> Tensor:
        log_density = x + prior.log_density(x.exp())
        (of_prior,) = torch.autograd.grad(log_density.sum(), x, create_graph=True)
        return -0.5 * rows + 0.5 * quadratic * (-x).exp() + of_prior

    with torch.enable_grad():
        grid = _LOG_GRID.unsqueeze(1).expand(-1, len(quadratic)).clone().requires_grad_()
        last = (slope(grid).detach() > 0.0).double().sum(0).long().clamp(1, len(grid) - 1)
        low, high = _LOG_GRID[last - 1], _LOG_GRID[last]
        x, curvature = 0.5 * (low + high), torch.zeros_like(low)
        for _ in range(6):  # Newton's method from within a quarter of the mode
            x = x.detach().requires_grad_()
            value = slope(x)
            (curvature,) = torch.autograd.grad(value.sum(), x)
            step = value.detach() / curvature.clamp_max(-1e-3)
            x = torch.minimum(torch.maximum(x.detach() - step, low), high)
    a = (-curvature).clamp_min(0.1)
    return InverseGamma(a, a * x.exp())


def _require_positive(name: str, **parameters: Any) -> None:
    for parameter, value in parameters.items():
        if not isinstance(value, int | float | Tensor) or isinstance(value, bool):
            raise UserError(f"{parameter} of {name} must be a number, got {value!r}")
        tensor = torch.as_tensor(value, dtype=torch.float64)
        if not bool(((tensor > 0.0) & tensor.isfinite()).all()):
            raise UserError(f"{parameter} of {name} must be positive and finite, got {value!r}")
