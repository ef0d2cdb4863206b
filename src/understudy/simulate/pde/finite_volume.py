r"""What finite volumes share: limited slopes, fluxes of Harten, Lax and van Leer, Heun's method.

.. math:: w_i' = -\frac{F_{i+1/2} - F_{i-1/2}}{\Delta x}, \qquad
    F = \frac{s^+ f(a) - s^- f(b) + s^- s^+ (b - a)}{s^+ - s^-}

between states a and b at both sides of a face, by lines through the cells whose slopes are
monotonised central differences (van Leer 1977), with the slowest and the fastest wave
:math:`s^- \le 0 \le s^+` (Harten, Lax & van Leer 1983). Heun's method keeps bounds (Shu & Osher
1988). Every run takes time steps of its own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.simulator import FieldSimulator, Parameters

COURANT = 0.4
_MOST_STEPS = 100_000


class FiniteVolumeSimulator(FieldSimulator):
    """Base of systems of conservation laws.

    Parameters
    ----------
    grid : Grid
        Of equal spacing along each axis.
    steps : int
        Outputs after the first.
    duration : float
        Time of the last output.
    """

    def __init__(self, grid: Grid, steps: int, duration: float) -> None:
        if steps < 1 or not duration > 0:
            raise UserError(
                f"steps must be at least 1 and duration positive, found {steps} and {duration:g}"
            )
        self.grid, self.steps, self.duration = grid, steps, duration

    @abstractmethod
    def _draw(self, values: dict[str, Tensor]) -> Tensor:
        """First fields ``(B, C, *space)``."""

    @abstractmethod
    def _conserved(self, field: Tensor) -> Tensor:
        """Conserved quantities of fields."""

    @abstractmethod
    def _primitive(self, w: Tensor) -> Tensor:
        """Fields of conserved quantities."""

    @abstractmethod
    def _rate(self, w: Tensor, values: dict[str, Tensor]) -> Tensor:
        """Rate of change of conserved quantities."""

    @abstractmethod
    def _step(self, w: Tensor, values: dict[str, Tensor]) -> Tensor:
        """Longest stable time step ``(B,)``."""

    @abstractmethod
    def _waves(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Speed along the last axis, and speed of waves in what moves so, ``(B, 1, *space)``."""

    @abstractmethod
    def _physical(self, w: Tensor, u: Tensor) -> Tensor:
        """Flux along the last axis of conserved quantities that move at u."""

    def times(self, params: Parameters) -> Tensor:  # noqa: D102
        runs = len(next(iter(self.values(params).values())))
        line = torch.linspace(0.0, self.duration, self.steps + 1, dtype=torch.float64)
        return line.repeat(runs, 1)

    def initial(self, params: Parameters) -> Tensor:  # noqa: D102
        return self._draw(self.values(params))

    def _march(self, values: dict[str, Tensor], start: Tensor | None) -> Iterator[Tensor]:
        field = self._draw(values) if start is None else start
        yield field
        w = self._conserved(field)
        for _ in range(self.steps):
            w = self._output(w, values)
            yield self._primitive(w)

    def _output(self, w: Tensor, values: dict[str, Tensor]) -> Tensor:
        """State an output later; runs that are there already wait for the others."""
        rows = (-1, *[1] * (w.ndim - 1))
        left = torch.full((len(w),), self.duration / self.steps, dtype=torch.float64)
        for _ in range(_MOST_STEPS):
            if not bool((left > 0).any()):  # nor where it is NaN
                return w
            h = torch.minimum(self._step(w.detach(), values), left)
            dt = h.reshape(rows)
            first = w + dt * self._rate(w, values)
            second = 0.5 * (w + first + dt * self._rate(first, values))
            w = torch.where((left > 0).reshape(rows), second, w)
            w = torch.where(h.isnan().reshape(rows), torch.nan, w)
            left = left - h
        return torch.where((left > 0).reshape(rows), torch.nan, w)

    def _sweep(self, wide: Tensor) -> Tensor:
        """Rate of change by fluxes along the last axis, which has two more cells at both ends."""
        difference = wide.diff(dim=-1)
        slope = limited(difference[..., :-1], difference[..., 1:])
        centre = wide[..., 1:-1]
        a, b = (centre + slope / 2)[..., :-1], (centre - slope / 2)[..., 1:]
        return -self._flux(a, b).diff(dim=-1) / self.grid.spacing[-1]

    def _flux(self, a: Tensor, b: Tensor) -> Tensor:
        (ua, ca), (ub, cb) = self._waves(a), self._waves(b)
        slow = torch.minimum(ua - ca, ub - cb).clamp_max(0.0)
        fast = torch.maximum(ua + ca, ub + cb).clamp_min(0.0)
        through = fast * self._physical(a, ua) - slow * self._physical(b, ub)
        return (through + slow * fast * (b - a)) / (fast - slow)


def limited(before: Tensor, after: Tensor) -> Tensor:
    """Slope from the differences on both sides: none at an extremum, else at most twice either."""
    central = (before + after) / 2
    least = torch.minimum(central.abs(), 2.0 * torch.minimum(before.abs(), after.abs()))
    return torch.where(before * after > 0, central.sign() * least, 0.0)
