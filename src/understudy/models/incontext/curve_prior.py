r"""A prior over learning curves (Adriaensen et al. 2023, arXiv 2310.20447, section 3.1).

A curve of m epochs is a sum of parametric growth curves with un-normalised weights, plus noise of
one standard deviation a curve:

.. math:: f(t) = \sum_k w_k\, f_k(t; \theta_k), \qquad y_t = f(t) + \sigma\,\varepsilon_t, \qquad
          w_k \sim U(0, 1), \quad \ln\sigma \sim N(-4, 1), \quad \varepsilon_t \sim N(0, 1)

for :math:`t = 1 \dots m`. All is redrawn where the noise-free curve does not end above its start,
:math:`f(m) \le f(1)`, or leaves [0, 1], or is not a number. Noisy values may leave [0, 1].

The paper's three components, which are the default, are

.. math:: \text{pow3} = c - a\,t^{-\alpha}, \qquad \text{ilog2} = c - \frac{a}{\ln(t + 1)}, \qquad
          \text{janoschek} = \alpha - (\alpha - \beta)\,e^{-\kappa t^{\delta}}.

The other eight growth curves are those of Domhan, Springenberg & Hutter (2015, table 1). The laws
of all parameters are those of the paper's official code, whose noise law its authors prefer to the
printed :math:`\ln\sigma^2 \sim N(-8, 2)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.models.incontext.task import TaskBatch

EPOCHS = 100
"""Steps m of a curve in the paper."""

COMPONENTS = ("pow3", "ilog2", "janoschek")
"""Growth curves of the paper's prior."""

_SHARE = 8
_POOL = 1 << 17
_HOPELESS = 1 << 22


@dataclass(frozen=True)
class Law:
    """Law of one parameter: of an unconstrained variable, and a link from it to the parameter.

    Parameters
    ----------
    kind : {"uniform", "normal"}
        Law of the variable.
    first, second : float
        Its lower and upper end, or its mean and standard deviation.
    link : {"identity", "exp", "complement"}
        The parameter is the variable z, exp(z), or 1 - exp(z).
    """

    kind: str
    first: float
    second: float
    link: str = "identity"

    def __post_init__(self) -> None:
        if self.kind not in ("uniform", "normal"):
            raise ValueError(f"a law is uniform or normal, not {self.kind!r}")
        if self.link not in ("identity", "exp", "complement"):
            raise ValueError(f"a link is identity, exp or complement, not {self.link!r}")
        spread = self.second - self.first if self.kind == "uniform" else self.second
        if not 0.0 < spread < math.inf:
            raise ValueError(f"the spread of {self} must be positive and finite")

    def parameter(self, z: Tensor) -> Tensor:
        """Parameter that belongs to the variable z."""
        if self.link == "identity":
            return z
        return z.exp() if self.link == "exp" else -torch.expm1(z)


@dataclass(frozen=True)
class GrowthCurve:
    """A parametric curve and the laws of its parameters.

    Parameters
    ----------
    laws : tuple of Law
        One a parameter, in the order in which ``value`` takes them.
    value : callable
        Maps the times (T,) and each parameter (..., 1) to values (..., T).
    """

    laws: tuple[Law, ...]
    value: Callable[..., Tensor]


def _power(t: Tensor, exponent: Tensor) -> Tensor:
    return torch.exp(exponent * t.log())


def _uniform(low: float, high: float) -> Law:
    return Law("uniform", low, high)


def _normal(mean: float, sd: float) -> Law:
    return Law("normal", mean, sd)


def _log_normal(mean: float, sd: float) -> Law:
    return Law("normal", mean, sd, "exp")


def _log_uniform(low: float, high: float) -> Law:
    return Law("uniform", low, high, "exp")


NOISE = _log_normal(-4.0, 1.0)
"""Law of the standard deviation of a curve's noise."""

GROWTH_CURVES: Mapping[str, GrowthCurve] = MappingProxyType(
    {
        "pow3": GrowthCurve(
            (_uniform(0.0, 1.25), _uniform(-0.6, 0.6), _log_normal(0.0, 2.0)),
            lambda t, c, a, alpha: c - a * _power(t, -alpha),
        ),
        "ilog2": GrowthCurve(
            (_uniform(0.0, 1.0), _uniform(-0.5, 0.5)),
            lambda t, c, a: c - a / torch.log(t + 1.0),
        ),
        "janoschek": GrowthCurve(
            (
                _uniform(0.0, 1.0),
                _uniform(0.0, 2.0),
                _log_normal(-2.0, 1.0),
                _log_normal(0.0, 0.5),
            ),
            lambda t, alpha, beta, kappa, delta: (
                alpha - (alpha - beta) * torch.exp(-kappa * _power(t, delta))
            ),
        ),
        "log_power": GrowthCurve(
            (_normal(0.8, 0.1), _normal(1.0, 1.0), _uniform(-3.0, 0.0)),
            lambda t, a, b, c: a / (1.0 + torch.exp(c * (t.log() - b))),
        ),
        "weibull": GrowthCurve(
            (
                _uniform(0.0, 1.5),
                _uniform(0.0, 1.0),
                _log_normal(-2.0, 1.0),
                _log_normal(0.0, 0.5),
            ),
            lambda t, alpha, beta, kappa, delta: (
                alpha - (alpha - beta) * torch.exp(-_power(kappa * t, delta))
            ),
        ),
        "mmf": GrowthCurve(
            (
                _normal(0.8, 0.1),
                _normal(0.2, 0.1),
                _log_normal(0.0, 2.0),
                _log_normal(0.0, 1.0),
            ),
            lambda t, alpha, beta, kappa, delta: (
                alpha - (alpha - beta) / (1.0 + _power(kappa * t, delta))
            ),
        ),
        "vapour_pressure": GrowthCurve(
            (_uniform(-2.0, 0.0), _uniform(-4.0, 0.0), _log_uniform(-8.0, 0.0)),
            lambda t, a, b, c: torch.exp(a + b / t + c * t.log()),
        ),
        "log_log_linear": GrowthCurve(
            (_log_normal(-2.0, 1.0), _log_uniform(0.0, 1.0)),
            lambda t, a, b: torch.log(a * t.log() + b),
        ),
        "exp4": GrowthCurve(
            (
                _normal(0.8, 0.1),
                _log_normal(-2.0, 1.0),
                _log_normal(0.0, 0.5),
                _log_normal(0.0, 1.0),
            ),
            lambda t, c, a, b, alpha: c - torch.exp(b - a * _power(t, alpha)),
        ),
        "pow4": GrowthCurve(
            (
                Law("uniform", -5.0, 0.0, "complement"),
                _log_normal(-3.0, 2.0),
                _log_uniform(0.0, 1.0),
                _log_normal(0.0, 1.0),
            ),
            lambda t, c, a, b, alpha: c - _power(a * t + b, -alpha),
        ),
        "hill3": GrowthCurve(
            (_normal(0.8, 0.1), _log_normal(1.0, 1.0), _log_normal(1.0, 2.0)),
            lambda t, theta, eta, kappa: theta / (1.0 + _power(kappa / t, eta)),
        ),
    }
)
"""The growth curves of Domhan, Springenberg & Hutter (2015) by name, with their prior laws."""


class CurvePrior:
    """Prior over learning curves that rise from epoch 1 to the last within [0, 1].

    A curve is described by D variables: a weight for each component, then the variables of the
    components' parameters, then the logarithm of the noise. D is 13 for the default.

    Parameters
    ----------
    components : sequence of str
        Names in `GROWTH_CURVES`, each at most once; the paper's three by default. Acceptance falls
        steeply with their number.
    noise : Law
        Law of the standard deviation of the noise, with link ``"exp"``.

    Attributes
    ----------
    features : int
        Inputs of a row: the epoch.
    laws : tuple of Law
        Of the D variables.
    """

    features = 1

    def __init__(self, components: Sequence[str] = COMPONENTS, noise: Law = NOISE) -> None:
        unknown = [name for name in components if name not in GROWTH_CURVES]
        if unknown or not components or len(set(components)) < len(components):
            found = ", ".join(components) or "none"
            raise UserError(
                f"components must be different names among {', '.join(GROWTH_CURVES)}, got {found}"
            )
        if noise.link != "exp":
            raise UserError("the law of the noise must have link 'exp': the noise is positive")
        self.components = tuple(components)
        self.noise = noise
        weights = (_uniform(0.0, 1.0),) * len(components)
        shapes = (law for name in components for law in GROWTH_CURVES[name].laws)
        self.laws: tuple[Law, ...] = (*weights, *shapes, noise)

    def __repr__(self) -> str:
        return f"CurvePrior({', '.join(self.components)})"

    def sample(self, batch: int, rows: int, generator: torch.Generator) -> TaskBatch:
        """Draw curves as tasks whose rows are epochs in order; targets are the noisy values.

        Parameters
        ----------
        batch : int
            Curves B.
        rows : int
            Epochs m, at least 2.
        generator : torch.Generator
            Everything is drawn on its device.

        Returns
        -------
        TaskBatch
            x (B, m, 1) the epochs as t / 101, as the paper's m = 100 has it; y and target (B, m).
        """
        _, noisy = self.curves(batch, rows, generator)
        t = torch.arange(1, rows + 1, dtype=noisy.dtype, device=noisy.device)
        x = (t / (EPOCHS + 1)).expand(batch, rows).unsqueeze(-1)
        return TaskBatch(x, noisy, noisy)

    def curves(
        self,
        batch: int,
        rows: int,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Tensor, Tensor]:
        """Draw curves without and with noise.

        Returns
        -------
        clean, noisy : Tensor (batch, rows)
            Values at epochs 1 to ``rows``.

        Raises
        ------
        UserError
            If next to none of the draws of these components is accepted.
        """
        z, clean = self.accepted(batch, rows, generator, dtype)
        epsilon = torch.randn(clean.shape, generator=generator, dtype=dtype, device=z.device)
        return clean, clean + self.noise.parameter(z[:, -1:]) * epsilon

    def accepted(
        self,
        batch: int,
        rows: int,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Tensor, Tensor]:
        """Draw variables (batch, D) of accepted curves, and these curves (batch, rows)."""
        if batch < 1 or rows < 2:
            raise UserError(f"curves are at least 1, of 2 epochs, got {batch} of {rows}")
        t = torch.arange(1, rows + 1, dtype=dtype, device=generator.device)
        kept: list[tuple[Tensor, Tensor]] = []
        found = drawn = 0
        while found < batch:
            size = self._pool(batch, found, drawn)
            z = self.draw(size, generator, dtype)
            clean = self.curve(z, t)
            (index,) = acceptable(clean).nonzero(as_tuple=True)
            kept.append((z[index], clean[index]))
            found, drawn = found + len(index), drawn + size
        z, clean = (torch.cat(parts)[:batch] for parts in zip(*kept, strict=True))
        return z, clean

    def _pool(self, batch: int, found: int, drawn: int) -> int:
        """Draws for the next pool, by the share that was accepted of those before."""
        if found > 0:
            return min(_POOL, math.ceil(1.5 * (batch - found) * drawn / found) + 32)
        if drawn >= _HOPELESS:
            raise UserError(
                f"none of {drawn} curves of {', '.join(self.components)} stays within [0, 1] "
                "and ends above its start: name fewer components"
            )
        return min(_POOL, _SHARE * max(batch, drawn, 32))

    def draw(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Draw variables (n, D) from their laws, before any curve is rejected."""
        device = generator.device
        shape = (n, len(self.laws))
        uniform = torch.rand(shape, generator=generator, dtype=dtype, device=device)
        normal = torch.randn(shape, generator=generator, dtype=dtype, device=device)
        bounded, first, second = self._tables(dtype, device)
        return torch.where(bounded, first + (second - first) * uniform, first + second * normal)

    def log_density(self, z: Tensor) -> Tensor:
        """Log density (...) of variables z (..., D), before any curve is rejected."""
        bounded, first, second = self._tables(z.dtype, z.device)
        spread = torch.where(bounded, second - first, second)
        inside = torch.where((z >= first) & (z <= second), 0.0, -math.inf)
        bell = -0.5 * ((z - first) / spread).square() - 0.5 * math.log(2.0 * math.pi)
        return (torch.where(bounded, inside, bell) - spread.log()).sum(-1)

    def curve(self, z: Tensor, t: Tensor) -> Tensor:
        """Noise-free curves (..., T) of variables z (..., D) at epochs t (T,), 1 the first."""
        start = len(self.components)
        total = torch.zeros((), dtype=z.dtype, device=z.device)
        for k, name in enumerate(self.components):
            family = GROWTH_CURVES[name]
            variables = z[..., start : start + len(family.laws)].split(1, dim=-1)
            parameters = [law.parameter(v) for law, v in zip(family.laws, variables, strict=True)]
            total = total + z[..., k : k + 1] * family.value(t, *parameters)
            start += len(family.laws)
        return total

    def _tables(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Of the D variables: whether they are bounded, and the two numbers of their laws."""
        bounded = torch.tensor([law.kind == "uniform" for law in self.laws], device=device)
        numbers = torch.tensor(
            [[law.first, law.second] for law in self.laws], dtype=dtype, device=device
        )
        return bounded, numbers[:, 0], numbers[:, 1]


def acceptable(clean: Tensor) -> Tensor:
    """Whether noise-free curves (..., m) end above their start and stay within [0, 1]: (...)."""
    within = ((clean >= 0.0) & (clean <= 1.0)).all(-1)
    return within & (clean[..., -1] > clean[..., 0])
