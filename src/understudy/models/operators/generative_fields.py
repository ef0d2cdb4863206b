r"""Networks of DGNO (arXiv 2502.06250): encoder of a coefficient, decoders of fields.

All decoders are MultiONets of one vector :math:`\beta` (:class:`GenerativeFields`) or of the
coefficient's cells (:class:`SensorFields`). Solutions are zero on the boundary of the unit square
by a factor, :math:`u = \sin \pi x_1 \sin \pi x_2\, G_u`. :class:`PointwiseFields` is the DeepONet
of the paper's comparison, with a branch of convolutions and rectifiers in its trunk.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.core.errors import UserError
from understudy.models.operators.multionet import MultiONet, cell_points
from understudy.models.operators.network import FieldNetwork

_FEATURES = 64
_FIRST_LOG_VARIANCE = -6.0  # of a variational encoder, so that training begins near a point


class FieldEncoder(nn.Module):
    r"""Numbers of a field: three convolutions of stride two, three dense layers.

    140,416 weights for 29 x 29 cells and 128 numbers, as in the paper.

    Parameters
    ----------
    shape : (int, int)
        Cells along each axis, at least 15.
    outward : int
        Numbers.
    """

    def __init__(self, shape: Sequence[int], outward: int) -> None:
        super().__init__()
        left = [(((n - 1) // 2 - 1) // 2 - 1) // 2 for n in shape]
        if len(left) != 2 or min(left) < 1:
            raise UserError(
                f"an encoder needs a field of two axes and at least 15 cells each, found {shape}"
            )
        channels = (1, _FEATURES, _FEATURES, _FEATURES)
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, 3, 2) for i, o in pairwise(channels))
        sizes = (_FEATURES * math.prod(left), 128, 128, outward)
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))

    def forward(self, a: Tensor) -> Tensor:
        """``(B, outward)`` of fields ``(B, 1, *shape)``."""
        for convolution in self.convolutions:
            a = F.silu(convolution(a))
        h = a.flatten(1)
        *hidden, last = self.layers
        for layer in hidden:
            h = F.silu(layer(h))
        out: Tensor = last(h)
        return out


class VariationalEncoder(nn.Module):
    r"""A Gaussian of :math:`z = \mathrm{artanh}\, \beta`: mean and log-variance, of a network each.

    Parameters
    ----------
    shape, latent_dim
        As of :class:`FieldEncoder`.
    """

    def __init__(self, shape: Sequence[int], latent_dim: int) -> None:
        super().__init__()
        self.mean = FieldEncoder(shape, latent_dim)
        self.log_variance = FieldEncoder(shape, latent_dim)
        last = self.log_variance.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, _FIRST_LOG_VARIANCE)

    def forward(self, a: Tensor) -> Tensor:
        """Means ``(B, latent_dim)`` of fields ``(B, 1, *shape)``."""
        out: Tensor = self.mean(a)
        return out

    def draw(self, a: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        r"""One :math:`z = \mu + \sigma \varepsilon` ``(B, latent_dim)``, and divergences ``(B,)``.

        The Kullback-Leibler divergence from :math:`\prod (1 - \tanh^2 z)/2`, which is the law of z
        where :math:`\beta` is uniform: that of the Gaussian's entropy exactly, of the prior at the
        draw.
        """
        mean, log_variance = self.mean(a), self.log_variance(a)
        z = mean + (0.5 * log_variance).exp() * noise
        entropy = 0.5 * (log_variance + math.log(2.0 * math.pi) + 1.0).sum(1)
        return z, -entropy - log_prior(z)


def log_prior(z: Tensor) -> Tensor:
    r"""Log density ``(B,)`` of :math:`z = \mathrm{artanh}\, \beta` ``(B, d)``, uniform vectors."""
    return (math.log(2.0) - 2.0 * (z + F.softplus(-2.0 * z))).sum(1)


class DecodedFields(FieldNetwork):
    """Solutions at points anywhere, zero on the boundary of the unit square.

    Attributes
    ----------
    shape : tuple of int
        Cells of coefficients.
    points : Tensor (n n, 2)
        Their centres.
    """

    shape: tuple[int, ...]
    points: Tensor

    def _cells(self, shape: Sequence[int]) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.register_buffer("points", cell_points(self.shape).float(), persistent=False)

    @abstractmethod
    def latent(self, a: Tensor) -> Tensor:
        """Vectors ``(B, d)`` of scaled coefficients ``(B, 1, *shape)``."""

    @abstractmethod
    def solution(self, x: Tensor, beta: Tensor) -> Tensor:
        """Solutions ``(B, N)`` at points ``(N, 2)``."""

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        """Solutions ``(B, 1, *shape)`` of scaled coefficients ``(B, 1, *shape)``."""
        values = self.solution(self.points, self.latent(u))
        return values.unflatten(1, self.shape).unsqueeze(1)


class WeakFields(DecodedFields):
    """Decoders of a solution and of its flux; a subclass says in :meth:`latent` of what."""

    u: MultiONet
    flux: nn.ModuleList

    def _decoders(
        self,
        shape: Sequence[int],
        latent_dim: int,
        hidden: Sequence[int],
        activation: str,
        mixed: bool,
        last_only: bool = False,
    ) -> None:
        self._cells(shape)
        self.u = MultiONet(2, latent_dim, hidden, activation, last_only)
        self.flux = nn.ModuleList(
            MultiONet(2, latent_dim, hidden, activation, last_only) for _ in range(2 * mixed)
        )

    def solution(self, x: Tensor, beta: Tensor) -> Tensor:  # noqa: D102
        return bubble(x)[0] * self.u(x, beta)

    def gradient(self, x: Tensor, beta: Tensor) -> Tensor:
        """Gradients ``(2, B, N)`` of solutions at points ``(N, 2)``."""
        return Solutions.at(self.u, x).gradient(beta)

    def fluxes(self, x: Tensor, beta: Tensor) -> Tensor:
        """Fluxes ``(2, B, N)`` at points ``(N, 2)``."""
        return torch.stack([decoder(x, beta) for decoder in self.flux])


class GenerativeFields(WeakFields):
    """Encoder, and decoders of solution, flux and coefficient.

    Parameters
    ----------
    shape : (int, int)
        Cells along each axis.
    latent_dim : int
        128 in the paper.
    hidden : sequence of int
        Layers of the decoders.
    activation : str
        Of the decoders.
    mixed : bool
        Whether there is a flux.
    variational : bool
        Whether the encoder gives a Gaussian, see :class:`VariationalEncoder`.
    """

    kind = "dgno"

    def __init__(
        self,
        shape: Sequence[int],
        latent_dim: int = 128,
        hidden: Sequence[int] = (80,) * 6,
        activation: str = "tanh-sin",
        mixed: bool = True,
        variational: bool = False,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "shape": [int(n) for n in shape],
            "latent_dim": latent_dim,
            "hidden": [int(n) for n in hidden],
            "activation": activation,
            "mixed": mixed,
            "variational": variational,
        }
        self.latent_dim = latent_dim
        encoder = VariationalEncoder if variational else FieldEncoder
        self.encoder = encoder(shape, latent_dim)
        self._decoders(shape, latent_dim, hidden, activation, mixed)
        self.a = MultiONet(2, latent_dim, hidden, activation)

    def latent(self, a: Tensor) -> Tensor:  # noqa: D102
        return torch.tanh(self.encoder(a))


class SensorFields(WeakFields):
    """Decoders of solution and flux that see the coefficient's cells.

    Parameters
    ----------
    shape, hidden, activation, mixed
        As of :class:`GenerativeFields`.
    last_only : bool
        Whether decoders are DeepONets.
    """

    kind = "sensor-fields"

    def __init__(
        self,
        shape: Sequence[int],
        hidden: Sequence[int] = (80,) * 6,
        activation: str = "tanh-sin",
        last_only: bool = False,
        mixed: bool = True,
    ) -> None:
        super().__init__()
        self.settings = {
            "shape": [int(n) for n in shape],
            "hidden": [int(n) for n in hidden],
            "activation": activation,
            "last_only": last_only,
            "mixed": mixed,
        }
        self._decoders(shape, math.prod(shape), hidden, activation, mixed, last_only)

    def latent(self, a: Tensor) -> Tensor:  # noqa: D102
        return a.flatten(1)


class PointwiseFields(DecodedFields):
    """DeepONet of solutions: an encoder as its branch, a perceptron with rectifiers as its trunk.

    190,337 weights for 29 x 29 cells with 128 functions and four layers, as in the paper's
    comparison.

    Parameters
    ----------
    shape : (int, int)
    width, depth : int
        Units and layers of the trunk, whose last one are the functions.
    """

    kind = "pointwise-fields"

    def __init__(self, shape: Sequence[int], width: int = 128, depth: int = 4) -> None:
        super().__init__()
        if min(width, depth) < 1:
            raise UserError("a trunk has at least one layer of one unit")
        self.settings = {"shape": [int(n) for n in shape], "width": width, "depth": depth}
        self._cells(shape)
        self.branch = FieldEncoder(shape, width)
        sizes = (2, *[width] * depth)
        self.trunk = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        self.bias = nn.Parameter(torch.zeros(()))

    def latent(self, a: Tensor) -> Tensor:
        """Weights ``(B, width)`` of the trunk's functions."""
        out: Tensor = self.branch(a)
        return out

    def solution(self, x: Tensor, beta: Tensor) -> Tensor:
        """Solutions ``(B, N)`` at points ``(N, 2)`` for weights ``(B, width)``."""
        h = x
        for layer in self.trunk:
            h = F.relu(layer(h))
        return bubble(x)[0] * torch.addmm(self.bias, beta, h.mT)


def bubble(x: Tensor) -> tuple[Tensor, Tensor]:
    r""":math:`\sin \pi x_1 \sin \pi x_2` ``(N,)`` and its gradient ``(2, N)`` at ``(N, 2)``."""
    (s1, s2), (c1, c2) = (f(math.pi * x).unbind(-1) for f in (torch.sin, torch.cos))
    return s1 * s2, math.pi * torch.stack([c1 * s2, s1 * c2])


@dataclass(frozen=True)
class Solutions:
    """A decoder of solutions at points that stay: what depends on the points alone.

    Parameters
    ----------
    decoder : MultiONet
    values : Tensor (N, l h)
    rates : Tensor (2, N, l h)
    factor, slope : Tensor (N,), (2, N)
        Factor that is zero on the boundary, and its gradient.
    """

    decoder: MultiONet
    values: Tensor
    rates: Tensor
    factor: Tensor
    slope: Tensor

    @classmethod
    def at(cls, decoder: MultiONet, x: Tensor) -> Solutions:
        """At points ``(N, 2)``."""
        return cls(decoder, *decoder.basis_with_gradient(x), *bubble(x))

    def gradient(self, beta: Tensor) -> Tensor:
        """Gradients ``(2, B, N)``."""
        c = self.decoder.coefficients(beta)
        inner = self.decoder.combine(c, self.values)
        return torch.matmul(c, self.rates.mT) * self.factor + inner * self.slope.unsqueeze(1)
