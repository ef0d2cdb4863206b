r"""What semilinear equations on a grid share: modes, time steps, output at equal intervals.

.. math:: \hat w' = L \hat w + \hat N(w, t)

An equation gives its L, diagonal in the modes of the grid, and its N; time goes by ``scheme``, with
a whole number of steps between two outputs. Where N is a multiple of the square, there are few
points and nothing carries gradients, steps are those of :mod:`understudy.simulate.pde.quadratic`,
whose numbers differ by rounding.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from functools import cache
from itertools import islice
from types import EllipsisType
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.simulator import FieldSimulator, Parameters
from understudy.core.space import Integer
from understudy.simulate.pde import quadratic
from understudy.simulate.pde.exponential import AdamsStep, ExponentialStep, Nonlinear

SEED = Integer("seed", 0, 2**31 - 1)
Precision: TypeAlias = Literal["double", "single"]
Scheme: TypeAlias = Literal["runge-kutta", "adams"]


CARRIED: dict[Scheme, float] = {"runge-kutta": 2.6, "adams": 1.0}
"""Frequency times step up to which modes without damping are stable, a little below the limit."""


class SemilinearSimulator(FieldSimulator):
    """Base of equations that are stepped in modes; by default those of Fourier.

    Parameters
    ----------
    grid : Grid
        On which fields are given.
    steps : int
        Outputs after the first.
    substeps : int
        Time steps between two outputs.
    refinement : int
        How many times finer than the output the grid of the computation is.
    precision : {"double", "single"}
        Of the computation. Single takes about two thirds of the time and rounds every time step to
        7 digits.
    scheme : {"runge-kutta", "adams"}
        ETDRK4, or predictor and corrector of order 5 after three steps of it, which at small errors
        takes a fraction of the evaluations; see :mod:`understudy.simulate.pde.exponential`.
    """

    precision: Precision = "double"
    scheme: Scheme = "runge-kutta"
    own_schemes: tuple[str, ...] = ()  # beside these two, of one equation
    _driven = False  # whether N depends on time

    def __init__(
        self,
        grid: Grid,
        steps: int,
        substeps: int,
        refinement: int = 1,
        precision: Precision = "double",
        scheme: Scheme = "runge-kutta",
    ) -> None:
        if precision not in ("double", "single"):
            raise UserError(f"precision must be 'double' or 'single', found {precision!r}")
        if scheme not in ("runge-kutta", "adams"):
            known = " or ".join(map(repr, ("runge-kutta", "adams", *self.own_schemes)))
            raise UserError(f"scheme must be {known}, found {scheme!r}")
        if precision != "double":
            self.precision = precision
        if scheme != "runge-kutta":
            self.scheme = scheme
        counts = {"steps": steps, "substeps": substeps, "refinement": refinement}
        for name, count in counts.items():
            if count < 1:
                raise UserError(f"{name} must be at least 1, found {count}")
        if grid.placement == "periodic" and any(n % 2 for n in grid.shape):
            raise UserError(f"a periodic grid needs an even number of points, found {grid.shape}")
        self.grid, self.steps, self.substeps, self.refinement = grid, steps, substeps, refinement
        shape = tuple(n * refinement for n in grid.shape)
        self.fine = Grid(shape, grid.lower, grid.upper, grid.placement)

    @abstractmethod
    def _linear(self, values: dict[str, Tensor]) -> Tensor:
        """L ``(B, 1 or C, *modes)``."""

    @abstractmethod
    def _nonlinear(self, values: dict[str, Tensor]) -> Nonlinear:
        """N of modes ``(B, C, *modes)`` at times ``(B,)``."""

    def _square_factor(self, values: dict[str, Tensor]) -> Tensor | None:
        """Factor ``(B or 1, 1, *modes)`` of the modes of the square of a field, if N is that."""
        return None

    @abstractmethod
    def _interval(self, values: dict[str, Tensor]) -> Tensor:
        """Time ``(B,)`` between two outputs."""

    @abstractmethod
    def _draw(self, values: dict[str, Tensor]) -> Tensor:
        """First fields ``(B, C, *space)`` on the fine grid."""

    def _rate(self, values: dict[str, Tensor], start: Tensor) -> Tensor | None:
        """Frequency ``(B, 1, *modes)`` at which the fastest flow of the first fields carries modes.

        None where nothing is carried, so that no step is too long for it.
        """
        return None

    def times(self, params: Parameters) -> Tensor:  # noqa: D102
        codes = self._codes(params)
        return self._times(codes, self.values(codes))

    def _times(self, codes: Tensor, values: dict[str, Tensor]) -> Tensor:
        return torch.outer(self._interval(values), _counts(self.steps + 1))

    def initial(self, params: Parameters) -> Tensor:  # noqa: D102
        return self._sampled(self._draw(self.values(params)))

    def _march(self, values: dict[str, Tensor], start: Tensor | None) -> Iterator[Tensor]:
        field = self._draw(values) if start is None else self._refined(start)
        step = self._stable_step(values, field)
        yield self._sampled(field)
        start_modes = self._rounded(self._transform(field))
        for w in self._modes(values, start_modes, self.steps, step):
            yield self._sampled(self._inverse(w))

    def _modes(
        self,
        values: dict[str, Tensor],
        w: Tensor,
        steps: int,
        step: ExponentialStep | AdamsStep | None = None,
    ) -> Iterator[Tensor]:
        """Modes at each of so many outputs."""
        step, factor = step or self._step(values), self._square_factor(values)
        if factor is not None and quadratic.suits(step, factor, w):
            yield from quadratic.march(step, factor, w, steps, self.substeps)
            return
        h = self._interval(values) / self.substeps
        step = step.each(self._rounded)
        nonlinear, pairs = self._nonlinear(values), w.is_complex() and not step.whole.is_complex()
        if pairs:  # a real factor of real and imaginary parts costs half of a complex one
            w, step, of_modes = torch.view_as_real(w), step.each(_paired), nonlinear

            def nonlinear(w: Tensor, t: Tensor | float) -> Tensor:
                return torch.view_as_real(of_modes(torch.view_as_complex(w), t))

        known = h if self._driven else 0.0
        march = step.march(w, nonlinear, known, steps * self.substeps)
        for w in islice(march, self.substeps - 1, None, self.substeps):
            yield torch.view_as_complex(w) if pairs else w

    def _stable_step(self, values: dict[str, Tensor], start: Tensor) -> ExponentialStep | AdamsStep:
        """The step, or an error where it is too long for the flow of the first fields."""
        step, rate = self._step(values), self._rate(values, start)
        if rate is not None:
            require_stable(step, rate, self.steps * self.substeps)
        return step

    def _step(self, values: dict[str, Tensor]) -> ExponentialStep | AdamsStep:
        """Functions of hL, of the first run only where they are the same for all."""
        L = self._linear(values)
        h = (self._interval(values) / self.substeps).reshape(-1, *[1] * (L.ndim - 1))
        z = L * h
        if not z.requires_grad and bool((z == z[:1]).all()) and bool((h == h[:1]).all()):
            L, h = L[:1], h[:1]
        kind = ExponentialStep if self.scheme == "runge-kutta" else AdamsStep
        return kind.of(L, h)

    def _rounded(self, x: Tensor) -> Tensor:
        """A state or a factor in the precision of the computation."""
        return x if self.precision == "double" else x.to(_SINGLE[x.dtype])

    def _after(self, values: dict[str, Tensor], w: Tensor, outputs: int) -> Tensor:
        """Modes after so many outputs."""
        kept = deque(self._modes(values, w, outputs), maxlen=1)
        return kept[0] if kept else w

    def _sampled(self, field: Tensor) -> Tensor:
        every = [slice(None, None, self.refinement)] * len(self.grid.shape)
        index: tuple[EllipsisType | slice, ...] = (..., *every)
        return field[index]

    def _refined(self, field: Tensor) -> Tensor:
        """Interpolate by Fourier modes to the fine grid."""
        if self.refinement == 1:
            return field
        dims = tuple(range(-len(self.grid.shape), 0))
        coarse = torch.fft.fftshift(torch.fft.fftn(field, dim=dims, norm="forward"), dim=dims)
        for dim, n, fine in zip(dims, self.grid.shape, self.fine.shape, strict=True):
            before = (fine - n) // 2
            pad = [0, 0] * (-dim - 1) + [before, fine - n - before]
            coarse = torch.nn.functional.pad(coarse, pad)
        modes = torch.fft.ifftshift(coarse, dim=dims)
        return torch.fft.ifftn(modes, dim=dims, norm="forward").real

    def _transform(self, field: Tensor) -> Tensor:
        dims = tuple(range(-len(self.fine.shape), 0))
        return torch.fft.rfftn(field, dim=dims, norm="forward")

    def _inverse(self, w: Tensor) -> Tensor:
        dims = tuple(range(-len(self.fine.shape), 0))
        return torch.fft.irfftn(w, s=self.fine.shape, dim=dims, norm="forward")


@torch.no_grad()
def require_stable(step: ExponentialStep | AdamsStep, rate: Tensor, steps: int) -> None:
    """Refuse runs in which a mode that flows at the rate ``(B, 1, *modes)`` would grow by itself.

    By more than a factor e in so many steps; slower parts of the flow are looked at as well. Where
    all runs have one step, the fastest decides.
    """
    run = int(rate.flatten(1).amax(1).argmax()) if len(step.whole) == 1 else 0
    fastest = rate[run : run + 1] if len(step.whole) == 1 else rate
    growth = torch.stack([step.growth(1.0j * part * fastest) for part in (0.4, 0.7, 1.0)]).amax(0)
    most = growth.flatten(1).amax(1)
    worst = int(most.argmax())
    if not float(most[worst]) <= math.exp(1.0 / steps):
        raise UserError(
            f"run {run + worst + 1}: the time step is unstable, as flow grows "
            f"{float(most[worst]):.3g}-fold in each; use more substeps"
        )


_SINGLE = {torch.float64: torch.float32, torch.complex128: torch.complex64}


def _paired(f: Tensor) -> Tensor:
    """A real function ``(..., 2)`` for real and imaginary parts."""
    return f.unsqueeze(-1).expand(*f.shape, 2).contiguous()


@cache
@torch.inference_mode(False)  # kept for whoever needs gradients
def _counts(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float64)


@cache
@torch.inference_mode(False)  # kept for whoever needs gradients
def wavenumbers(n: int) -> Tensor:
    """Whole wavenumbers ``(n // 2 + 1,)`` of a real transform, float64."""
    return torch.arange(n // 2 + 1, dtype=torch.float64)


@cache
@torch.inference_mode(False)  # kept for whoever needs gradients
def derivative(n: int) -> Tensor:
    r""":math:`2\pi i k` ``(n // 2 + 1,)`` with period 1; 0 for the last mode, without slope."""
    k = wavenumbers(n)
    return 2.0j * math.pi * torch.where(k < n / 2, k, 0.0)


def square(w: Tensor, n: int) -> Tensor:
    """Modes of the square of a real field of n points, by 3n/2 points and so without aliasing."""
    fine = torch.fft.irfft(w[..., : n // 2], n=3 * n // 2, norm="forward")
    return torch.fft.rfft(fine * fine, norm="forward")[..., : n // 2 + 1]
