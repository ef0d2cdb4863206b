r"""DGNO for Burgers' equation between walls, without one solution (arXiv 2502.06250).

.. math:: u_t + u u_x = \nu u_{xx} \text{ on } (-1, 1) \times (0, T], \qquad u(\pm 1, t) = 0,
          \qquad u(x, 0) = a(x)

The first field is what the latent vector stands for, and one decoder gives it with all that follows
from it: :math:`u = \cos(\pi x/2)\, G_u(\beta)(x, t)` with
:math:`\beta = \tanh(\mathrm{encoder}(a))`. Residuals are weak in x alone, on an interval of radius
R around :math:`x_c`, at one time,

.. math:: r = \langle (u_t + u u_x) v \rangle + \nu \langle u_x v' \rangle

with the radial function of Wendland of one dimension (L = 3), its slope scaled so that the rule
is exact for linear :math:`u_x`. The loss is

.. math:: w_{pde} \Big(\mathrm{mean}\, \|r\| + \sum_{\text{largest}} r^2\Big)
          + w_{data}\, \mathrm{mean}\, \|u(\cdot, 0) - a\|

with norms over residuals and cells, means over fields, and the 2500 largest of all squares; weights
500 and 5000, ten points on an interval and R = 1e-4 are those of the paper's code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.loop import Outcome, shuffled_batches
from understudy.core.operator import Operator
from understudy.models.operators.multionet import MultiONet
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.training import (
    Listener,
    Stored,
    Training,
    read_operator,
    save_operator,
)
from understudy.models.operators.weak_residual import latin_hypercube, wendland

_HARDEST = 2500
_CHUNK = 256


@lru_cache
def interval_rule(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Points, test function and its scaled slope ``(n,)`` of a rule on (-1, 1), float64."""
    if n < 4:
        raise UserError(f"a rule on an interval needs at least 4 points, found {n}")
    q = torch.linspace(-1.0, 1.0, n, dtype=torch.float64)
    v, gradient = wendland(q.unsqueeze(1))
    slope = gradient[:, 0]
    return q, v, slope * (-v.mean() / (q * slope).mean())


@dataclass(frozen=True)
class BurgersResidual:
    """Weak residuals of Burgers' equation.

    Parameters
    ----------
    viscosity : float
    duration : float
        T.
    radius : float
        R of the intervals.
    n_centres : int
        Intervals at each step, each at a time of its own.
    n_quad : int
        Points of an interval.
    """

    viscosity: float = 0.1 / math.pi
    duration: float = 1.0
    radius: float = 1e-4
    n_centres: int = 100
    n_quad: int = 10

    def __post_init__(self) -> None:
        if min(self.viscosity, self.duration) <= 0.0 or not 0.0 < self.radius < 1.0:
            raise UserError(
                "viscosity and duration must be positive, and the radius between 0 and 1, found "
                f"{self.viscosity:g}, {self.duration:g} and {self.radius:g}"
            )
        if self.n_centres < 1:
            raise UserError(f"n_centres must be at least 1, found {self.n_centres}")
        interval_rule(self.n_quad)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Places and times ``(n_centres * n_quad, 2)``, float64, interval by interval."""
        centres = latin_hypercube(self.n_centres, generator)
        q, _, _ = interval_rule(self.n_quad)
        x = (1.0 - self.radius) * (2.0 * centres[:, :1] - 1.0) + self.radius * q
        t = self.duration * centres[:, 1:].expand_as(x)
        return torch.stack([x, t], -1).reshape(-1, 2)

    def residuals(self, u: Tensor, u_x: Tensor, u_t: Tensor) -> Tensor:
        """Residuals ``(B, n_centres)`` of fields ``(B, n_centres * n_quad)`` and their slopes."""
        _, v, slope = (each.to(u) for each in interval_rule(self.n_quad))
        weak = (u_t + u * u_x).unflatten(1, (-1, len(v))) * v
        weak = weak + u_x.unflatten(1, (-1, len(v))) * (self.viscosity / self.radius * slope)
        return weak.mean(-1)


class WaveFields(FieldNetwork):
    """Encoder of a first field, and decoder of what follows.

    Parameters
    ----------
    cells : int
        Of first fields.
    latent_dim : int
        64 in the paper's code.
    hidden, activation
        As of :class:`~understudy.models.operators.multionet.MultiONet`.
    duration : float
        Time at which :meth:`forward` asks.
    """

    kind = "wave-fields"
    points: Tensor

    def __init__(
        self,
        cells: int,
        latent_dim: int = 64,
        hidden: Sequence[int] = (80,) * 6,
        activation: str = "tanh-sin",
        duration: float = 1.0,
    ) -> None:
        super().__init__()
        self.settings = {
            "cells": cells,
            "latent_dim": latent_dim,
            "hidden": [int(n) for n in hidden],
            "activation": activation,
            "duration": duration,
        }
        self.cells, self.duration = cells, duration
        (x,) = Grid.of(cells, lower=-1.0, upper=1.0, placement="cells").axes()
        self.register_buffer("points", x.float(), persistent=False)
        sizes = (cells, 128, 128, 64, 64, latent_dim)
        self.encoder = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))
        self.u = MultiONet(2, latent_dim, hidden, activation)

    def latent(self, a: Tensor) -> Tensor:
        """Vectors ``(B, latent_dim)`` of first fields ``(B, 1, cells)``."""
        h = a.flatten(1)
        *hidden, last = self.encoder
        for layer in hidden:
            h = F.elu(layer(h))
        return torch.tanh(last(h))

    def solution(self, xt: Tensor, beta: Tensor) -> Tensor:
        """Fields ``(B, N)`` at places and times ``(N, 2)``."""
        return torch.cos(0.5 * math.pi * xt[:, 0]) * self.u(xt, beta)

    def slopes(self, xt: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fields and their slopes in x and t, each ``(B, N)``."""
        values, rates = self.u.basis_with_gradient(xt)
        c = self.u.coefficients(beta)
        inner, (inner_x, inner_t) = self.u.combine(c, values), torch.matmul(c, rates.mT)
        angle = 0.5 * math.pi * xt[:, 0]
        factor, slope = torch.cos(angle), -0.5 * math.pi * torch.sin(angle)
        return factor * inner, factor * inner_x + slope * inner, factor * inner_t

    def at(self, time: float) -> Tensor:
        """Centres of the cells at a time, ``(cells, 2)``."""
        return torch.stack([self.points, torch.full_like(self.points, time)], 1)

    def forward(self, u: Tensor, p: Tensor | None = None) -> Tensor:
        """Last fields ``(B, 1, cells)`` of first fields ``(B, 1, cells)``."""
        return self.solution(self.at(self.duration), self.latent(u)).unsqueeze(1)


class BurgersNeuralOperator(Operator):
    """From first fields of Burgers' equation to all later ones, trained on first fields alone.

    Parameters
    ----------
    cells, latent_dim, hidden, activation
        As of :class:`WaveFields`.
    residual : BurgersResidual, optional
        The equation and its residuals.
    data_weight, pde_weight : float
        Of the loss.
    """

    model = "burgers-dgno"
    inputs = ("u0",)
    outputs = ("u",)
    parameters = ()

    def __init__(
        self,
        cells: int = 128,
        latent_dim: int = 64,
        hidden: Sequence[int] = (80,) * 6,
        activation: str = "tanh-sin",
        residual: BurgersResidual | None = None,
        data_weight: float = 5000.0,
        pde_weight: float = 500.0,
    ) -> None:
        residual = residual or BurgersResidual()
        network = WaveFields(cells, latent_dim, hidden, activation, residual.duration)
        self._begin(network, residual, data_weight, pde_weight)

    def _begin(
        self, network: WaveFields, residual: BurgersResidual, data: float, pde: float
    ) -> None:
        self.network, self.residual = network, residual
        self.data_weight, self.pde_weight = data, pde
        self.grid = Grid.of(network.cells, lower=-1.0, upper=1.0, placement="cells")
        self.outcome: Outcome | None = None

    def fit(
        self, a: Tensor, training: Training | None = None, listener: Listener | None = None
    ) -> Self:
        """Train on first fields ``(N, 1, cells)``, at centres of cells, without solutions."""
        plan = training or Training()
        self.network.to(plan.device)
        fields = self._placed(a)
        batches = shuffled_batches(len(fields), plan.batch_size, plan.seed)

        def loss(step: int) -> Tensor:
            generator = torch.Generator().manual_seed(1_000_003 * plan.seed + step)
            return self._loss(fields[batches(step).to(fields.device)], generator)

        self.outcome = plan.run(self.network, loss, None, listener)
        return self

    def _loss(self, a: Tensor, generator: torch.Generator) -> Tensor:
        """Loss of first fields ``(B, 1, cells)``."""
        network, beta = self.network, self.network.latent(a)
        xt = self.residual.draw(generator).to(a)
        squares = self.residual.residuals(*network.slopes(xt, beta)).square()
        hardest = squares.flatten().topk(min(_HARDEST, squares.numel())).values.sum()
        pde = (squares.sum(1) + 1e-12).sqrt().mean() + hardest
        first = network.solution(network.at(0.0), beta) - a[:, 0]
        return self.pde_weight * pde + self.data_weight * first.norm(dim=1).mean()

    def _placed(self, a: Tensor) -> Tensor:
        self._checked_fields(a, (None, 1), "first fields")
        if tuple(a.shape[2:]) != self.grid.shape:
            raise UserError(
                f"first fields have {tuple(a.shape[2:])} cells, the operator {self.grid.shape}"
            )
        return a.to(next(self.network.parameters()))

    @torch.no_grad()
    def predict(self, u: Tensor, params: Tensor | None = None) -> Tensor:
        """Last fields ``(B, 1, cells)`` of first fields ``(B, 1, cells)``, float32."""
        self._checked_parameters(params, len(u))
        parts = [self.network(part) for part in self._placed(u).split(_CHUNK)]
        return torch.cat(parts).float().cpu()

    @torch.no_grad()
    def solution(self, a: Tensor, xt: Tensor) -> Tensor:
        """Fields ``(B, N)`` of first fields ``(B, 1, cells)`` at places and times ``(N, 2)``.

        Raises
        ------
        UserError
            If a place is beyond the walls, or a time before the start or after the end.
        """
        limits = torch.tensor([[-1.0, 0.0], [1.0, self.residual.duration]]).to(xt)
        if xt.ndim != 2 or xt.shape[1] != 2:
            raise UserError(f"places and times must be of shape (N, 2), found {tuple(xt.shape)}")
        if not bool(((xt >= limits[0]) & (xt <= limits[1])).all()):
            raise UserError(
                f"places must lie between -1 and 1 and times between 0 and "
                f"{self.residual.duration:g}"
            )
        first = self._placed(a)
        return self.network.solution(xt.to(first), self.network.latent(first)).cpu()

    def save(self, path: str | Path) -> Path:
        """Write to a ``.us`` file, from which :meth:`load` restores it."""
        settings: dict[str, Any] = {
            "residual": asdict(self.residual),
            "data_weight": self.data_weight,
            "pde_weight": self.pde_weight,
        }
        return save_operator(path, self.model, self.network, self.grid, settings, {})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read from a ``.us`` file."""
        return cls.restore(read_operator(path, cls.model))

    @classmethod
    def restore(cls, stored: Stored) -> Self:
        """Make one of what was stored."""
        new, settings = cls.__new__(cls), stored.settings
        assert isinstance(stored.network, WaveFields)
        residual = BurgersResidual(**settings["residual"])
        new._begin(stored.network, residual, settings["data_weight"], settings["pde_weight"])
        return new
