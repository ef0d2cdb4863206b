r"""Families of coefficients that a generative operator knows (arXiv 2502.06250).

A medium says what the encoder sees of a coefficient, how it is read between cells, what the decoded
number :math:`G_a(\beta)(x)` means, and which form the residuals have.

:class:`TwoPhase`, the likelihood ``"bernoulli"``: either of two values,
:math:`P(a(x) = a_+ \mid \beta) = \mathrm{sigmoid}\, G_a`; read from the cell; residuals with a flux
of its own, as the coefficient jumps.

:class:`Continuous`, the likelihood ``"gaussian"``: positive and smooth, its mean
:math:`m + s\, G_a` with mean m and deviation s of the training fields; read by Gaussian radial
functions; residuals without a flux. The misfit is the plain norm :math:`\|a - G_a\|` over the cells
as in the paper's code; in terms of chances that is :math:`p(a \mid \beta) \propto
\exp(-n \|a - G_a(\beta)\|)` with n cells and a in units of s, whose typical deviation of a cell is
:math:`s / \sqrt n`. That deviation is taken for draws.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from understudy.core.errors import UserError
from understudy.models.operators.radial_interpolation import interpolated


class Medium(ABC):
    """What all families share."""

    likelihood: ClassVar[str]
    mixed: ClassVar[bool]
    """Whether residuals have a flux of its own."""

    @abstractmethod
    def fitted(self, a: Tensor) -> Medium:
        """Family in units of training fields ``(N, 1, n, n)``."""

    @abstractmethod
    def scaled(self, a: Tensor) -> Tensor:
        """Coefficients ``(B, 1, n, n)`` in units of the network, float64.

        Raises
        ------
        UserError
            If one is not of the family.
        """

    @abstractmethod
    def at(self, scaled: Tensor, x: Tensor) -> Tensor:
        """Coefficients ``(B, N)`` at points ``(N, 2)`` of the unit square."""

    @abstractmethod
    def misfit(self, decoded: Tensor, scaled: Tensor) -> Tensor:
        r"""Values :math:`-\log p(a \mid \beta)/n` ``(B,)``, up to a constant, of n cells."""

    @abstractmethod
    def mean(self, decoded: Tensor) -> Tensor:
        r"""Mean of :math:`p(a \mid \beta)`, of decoded numbers of any shape."""

    @abstractmethod
    def variance(self, decoded: Tensor, cells: int) -> Tensor:
        r"""Variance of :math:`p(a \mid \beta)` in each cell."""

    @abstractmethod
    def draw(self, decoded: Tensor, cells: int, generator: torch.Generator) -> Tensor:
        r"""Coefficients drawn from :math:`p(a \mid \beta)`, a point at a time."""

    @abstractmethod
    def interval(
        self, decoded: Tensor, ends: tuple[float, float], cells: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Quantiles ``(I, N)`` of the coefficient over draws ``(I, S, N)``, lower and upper."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """JSON that :func:`medium_of` reads."""


@dataclass(frozen=True)
class TwoPhase(Medium):
    """Either of two values.

    Parameters
    ----------
    low, high : float
        Rising and positive; 5 and 10 in the paper.
    """

    low: float = 5.0
    high: float = 10.0

    likelihood: ClassVar[str] = "bernoulli"
    mixed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0.0 < self.low < self.high < math.inf:
            raise UserError(
                f"phases must be two rising positive numbers, found {self.low:g}, {self.high:g}"
            )

    def fitted(self, a: Tensor) -> TwoPhase:  # noqa: D102
        return self

    def scaled(self, a: Tensor) -> Tensor:
        """Coefficients as -1 and 1."""
        scaled = 2.0 * (a.to(torch.float64) - self.low) / (self.high - self.low) - 1.0
        strange = (scaled.abs() - 1.0).abs() > 1e-5
        if bool(strange.any()):
            raise UserError(
                f"coefficients of this operator are {self.low:g} or {self.high:g}, "
                f"found {float(a[strange][0]):g}"
            )
        return scaled

    def at(self, scaled: Tensor, x: Tensor) -> Tensor:
        """Coefficients of the cells in which the points are."""
        shape = torch.tensor(scaled.shape[2:])
        i, j = (x * shape).long().minimum(shape - 1).unbind(-1)
        return self.low + (self.high - self.low) * 0.5 * (scaled[:, 0, i, j] + 1.0)

    def misfit(self, decoded: Tensor, scaled: Tensor) -> Tensor:  # noqa: D102
        truth = 0.5 * (scaled.flatten(1) + 1.0)
        return F.binary_cross_entropy_with_logits(decoded, truth, reduction="none").mean(1)

    def mean(self, decoded: Tensor) -> Tensor:  # noqa: D102
        return self.low + (self.high - self.low) * torch.sigmoid(decoded)

    def variance(self, decoded: Tensor, cells: int) -> Tensor:  # noqa: D102
        p = torch.sigmoid(decoded)
        return (self.high - self.low) ** 2 * p * (1.0 - p)

    def draw(self, decoded: Tensor, cells: int, generator: torch.Generator) -> Tensor:  # noqa: D102
        uniform = torch.rand(decoded.shape, generator=generator)
        return torch.where(uniform < torch.sigmoid(decoded), self.high, self.low)

    def interval(  # noqa: D102
        self, decoded: Tensor, ends: tuple[float, float], cells: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        p = torch.sigmoid(decoded).mean(1)
        lower, upper = (torch.where(1.0 - p >= q, self.low, self.high) for q in ends)
        return lower, upper

    def describe(self) -> dict[str, Any]:  # noqa: D102
        return {"likelihood": self.likelihood, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Continuous(Medium):
    """Smooth and positive.

    Parameters
    ----------
    shift, scale : float
        Mean and deviation of all cells of the training fields; 0 and 1 before training.
    """

    shift: float = 0.0
    scale: float = 1.0

    likelihood: ClassVar[str] = "gaussian"
    mixed: ClassVar[bool] = False

    def fitted(self, a: Tensor) -> Continuous:  # noqa: D102
        spread = float(a.double().std(correction=0))
        return Continuous(float(a.double().mean()), spread if spread > 0.0 else 1.0)

    def scaled(self, a: Tensor) -> Tensor:  # noqa: D102
        low = float(a.min())
        if low <= 0.0:
            raise UserError(f"coefficients must be positive, found {low:g}")
        return (a.to(torch.float64) - self.shift) / self.scale

    def at(self, scaled: Tensor, x: Tensor) -> Tensor:
        """Coefficients interpolated between the centres of cells."""
        return self.shift + self.scale * interpolated(scaled[:, 0], x)

    def misfit(self, decoded: Tensor, scaled: Tensor) -> Tensor:  # noqa: D102
        return ((decoded - scaled.flatten(1)).square().sum(1) + 1e-12).sqrt()

    def mean(self, decoded: Tensor) -> Tensor:  # noqa: D102
        return self.shift + self.scale * decoded

    def variance(self, decoded: Tensor, cells: int) -> Tensor:  # noqa: D102
        return torch.full_like(decoded, self.scale**2 / cells)

    def draw(self, decoded: Tensor, cells: int, generator: torch.Generator) -> Tensor:  # noqa: D102
        noise = torch.randn(decoded.shape, generator=generator)
        return self.mean(decoded) + self.scale / math.sqrt(cells) * noise

    def interval(  # noqa: D102
        self, decoded: Tensor, ends: tuple[float, float], cells: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        drawn = self.draw(decoded, cells, generator)
        lower, upper = (drawn.quantile(q, dim=1) for q in ends)
        return lower, upper

    def describe(self) -> dict[str, Any]:  # noqa: D102
        return {"likelihood": self.likelihood, "shift": self.shift, "scale": self.scale}


_MEDIA: dict[str, type[TwoPhase] | type[Continuous]] = {
    kind.likelihood: kind for kind in (TwoPhase, Continuous)
}


def medium_of(description: Mapping[str, Any]) -> TwoPhase | Continuous:
    """Family of a description, see :meth:`Medium.describe`.

    Raises
    ------
    UserError
        If its likelihood is neither ``"bernoulli"`` nor ``"gaussian"``.
    """
    rest = {name: value for name, value in description.items() if name != "likelihood"}
    likelihood = description.get("likelihood")
    if likelihood not in _MEDIA:
        raise UserError(f"likelihood must be one of {', '.join(_MEDIA)}, found {likelihood!r}")
    return _MEDIA[likelihood](**rest)
