r"""Reactions with diffusion: a front in one dimension, patterns in two.

:class:`FisherKPP`, on the unit interval, periodic:

.. math:: u_t = \nu u_{xx} + \rho u (1 - u)

:class:`FitzHughNagumo`, on the square :math:`(-1, 1)^2` without flux through its edges:

.. math:: u_t = D_u \Delta u + u - u^3 - k - v, \qquad v_t = D_v \Delta v + u - v

Both are those of PDEBench (Takamoto et al. 2022, arXiv 2210.07182). Fourier modes and cosines of
cells make diffusion diagonal, and ETDRK4 steps them. PDEBench draws the first state of the second
cell by cell; here it is a Gaussian field with the same variance at every resolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache, lru_cache, partial
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from understudy.core.grid import Grid
from understudy.core.space import Continuous, Space
from understudy.simulate.pde import splitting
from understudy.simulate.pde.bases import cosine_basis
from understudy.simulate.pde.checks import require_positive
from understudy.simulate.pde.exponential import Nonlinear
from understudy.simulate.pde.random_fields import Sines, square_field
from understudy.simulate.pde.semilinear import (
    SEED,
    Precision,
    Scheme,
    SemilinearSimulator,
    square,
    wavenumbers,
)

_FEW = 128  # points, for which a product with a matrix costs less than two transforms
_TAU = 20.0  # inverse length over which the first state of a pattern varies


class FisherKPP(SemilinearSimulator):
    """A concentration between 0 and 1 that spreads and grows.

    Parameters
    ----------
    points, steps, duration
        1024 points, 100 outputs after the first and 1 in PDEBench.
    substeps : int
        Time steps an output.
    precision : {"double", "single"}
    scheme : {"runge-kutta", "adams", "splitting"}
        See :class:`~understudy.simulate.pde.semilinear.SemilinearSimulator`; "splitting" takes
        diffusion and growth in turns, both exactly, in double precision.
    """

    channels = ("u",)
    own_schemes = ("splitting",)
    space = Space((Continuous("diffusivity", 0.1, 5.0), Continuous("growth", 1.0, 10.0), SEED))

    def __init__(
        self,
        points: int = 256,
        steps: int = 100,
        duration: float = 1.0,
        substeps: int = 2,
        precision: Precision = "double",
        scheme: Scheme | Literal["splitting"] = "runge-kutta",
    ) -> None:
        self.split = scheme == "splitting"
        stepped: Scheme = "runge-kutta" if scheme == "splitting" else scheme
        super().__init__(Grid.of(points), steps, substeps, precision=precision, scheme=stepped)
        self.duration = duration

    def _check(self, values: dict[str, Tensor]) -> None:
        require_positive(values, "diffusivity", "growth")

    def _interval(self, values: dict[str, Tensor]) -> Tensor:
        return torch.full_like(values["growth"], self.duration / self.steps)

    def _linear(self, values: dict[str, Tensor]) -> Tensor:
        diffusivity, growth = (values[n].reshape(-1, 1, 1) for n in ("diffusivity", "growth"))
        return growth - diffusivity * (2.0 * math.pi * wavenumbers(self.fine.shape[0])) ** 2

    def _square_factor(self, values: dict[str, Tensor]) -> Tensor:
        return -values["growth"].reshape(-1, 1, 1).expand(-1, -1, self.fine.shape[0] // 2 + 1)

    def _nonlinear(self, values: dict[str, Tensor]) -> Nonlinear:
        growth, n = self._rounded(self._square_factor(values)[..., :1]), self.fine.shape[0]
        return lambda w, t: growth * square(w, n)

    def _march(self, values: dict[str, Tensor], start: Tensor | None) -> Iterator[Tensor]:
        if not self.split:
            yield from super()._march(values, start)
            return
        u = self._draw(values) if start is None else start
        yield u
        inputs = (values["diffusivity"], values["growth"], self._interval(values) / self.substeps)
        march = splitting.march(u[:, 0], _parts(self.grid.shape[0], *inputs))
        for u in islice(march, self.substeps - 1, self.substeps * self.steps, self.substeps):
            yield u[:, None]

    def _draw(self, values: dict[str, Tensor]) -> Tensor:
        sines = Sines.draw(values["seed"], 2, (0.0, 1.0), (1, 8))
        most = sines.amplitude.sum(1, keepdim=True)
        return ((sines.at(self.fine.axes()[0]) / most + 1.0) / 2.0).unsqueeze(1)


def _parts(n: int, diffusivity: Tensor, growth: Tensor, h: Tensor) -> splitting.Parts:
    """What steps of the runs ``(B,)`` need; those of the last few batches are known."""
    inputs = (diffusivity, growth, h)
    if any(x.requires_grad or x.device.type != "cpu" for x in inputs):
        return _new_parts(n, *inputs)
    return _known_parts(n, *(x.contiguous().numpy().tobytes() for x in inputs))


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # kept for whoever needs gradients
def _known_parts(n: int, *inputs: bytes) -> splitting.Parts:
    return _new_parts(n, *(torch.frombuffer(bytearray(x), dtype=torch.float64) for x in inputs))


def _new_parts(n: int, diffusivity: Tensor, growth: Tensor, h: Tensor) -> splitting.Parts:
    return splitting.parts(
        lambda times: _diffusion(diffusivity * times, n), lambda times: _logistic(growth * times), h
    )


def _logistic(times: Tensor) -> list[splitting.Flow]:
    r"""Solutions of :math:`u' = u (1 - u)` after times ``(S, B)``."""
    pairs = zip(torch.exp(-times)[..., None], -torch.expm1(-times)[..., None], strict=True)
    return [partial(_grown, *pair) for pair in pairs]


def _grown(kept: Tensor, gained: Tensor, u: Tensor) -> Tensor:
    return u / torch.addcmul(kept, gained, u)


def _diffusion(times: Tensor, n: int) -> list[splitting.Flow]:
    """Solutions of :math:`u' = u_{xx}` on the periodic unit interval after times ``(S, B)``."""
    rates = (2.0 * math.pi * wavenumbers(n)) ** 2
    same = not times.requires_grad and bool((times == times[:, :1]).all())
    if n > _FEW or not same:
        return [partial(_spread, decay) for decay in torch.exp(-times[..., None] * rates)]
    waves = _waves_of_points(n)
    mixing = torch.fft.irfft(waves * torch.exp(-times[:, :1, None] * rates), n=n)  # symmetric
    return [partial(torch.matmul, other=m) for m in mixing]


@cache
@torch.inference_mode(False)  # kept for whoever needs gradients
def _waves_of_points(n: int) -> Tensor:
    return torch.fft.rfft(torch.eye(n, dtype=torch.float64))


def _spread(decay: Tensor, u: Tensor) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(u) * decay, n=u.shape[-1])


class FitzHughNagumo(SemilinearSimulator):
    """An activator u and an inhibitor v.

    Parameters
    ----------
    points, steps, duration
        128 along each axis, 100 outputs after the first and 5 in PDEBench.
    substeps : int, optional
        Time steps an output; by default of at most 1/40, which the cubic term needs.
    precision : {"double", "single"}
    scheme : {"runge-kutta", "adams"}
        See :class:`~understudy.simulate.pde.semilinear.SemilinearSimulator`.
    """

    channels = ("u", "v")
    space = Space(
        (
            Continuous("diffusivity_u", 5e-4, 2e-3),
            Continuous("diffusivity_v", 2.5e-3, 1e-2),
            Continuous("threshold", 0.0, 0.01),
            SEED,
        )
    )

    def __init__(
        self,
        points: int = 64,
        steps: int = 100,
        duration: float = 5.0,
        substeps: int | None = None,
        precision: Precision = "double",
        scheme: Scheme = "runge-kutta",
    ) -> None:
        grid = Grid.of(points, points, lower=-1.0, upper=1.0, placement="cells")
        if substeps is None:
            substeps = max(1, math.ceil(40.0 * duration / max(steps, 1)))
        super().__init__(grid, steps, substeps, precision=precision, scheme=scheme)
        self.duration = duration
        self._basis = cosine_basis(points)

    def _check(self, values: dict[str, Tensor]) -> None:
        require_positive(values, "diffusivity_u", "diffusivity_v")

    def _interval(self, values: dict[str, Tensor]) -> Tensor:
        return torch.full_like(values["threshold"], self.duration / self.steps)

    def _linear(self, values: dict[str, Tensor]) -> Tensor:
        waves = (math.pi / 2.0 * torch.arange(self.grid.shape[0], dtype=torch.float64)) ** 2
        both = torch.stack([values["diffusivity_u"], values["diffusivity_v"]], dim=1)
        return -both[:, :, None, None] * (waves[:, None] + waves)

    def _nonlinear(self, values: dict[str, Tensor]) -> Nonlinear:
        k = self._rounded(values["threshold"].reshape(-1, 1, 1))
        basis = self._rounded(self._basis)

        def reaction(w: Tensor, t: Tensor | float) -> Tensor:
            u, v = (basis.T @ w @ basis).unbind(1)
            rate = torch.stack([u - u * u * u - k - v, u - v], dim=1)
            return basis @ rate @ basis.T

        return reaction

    def _draw(self, values: dict[str, Tensor]) -> Tensor:
        n, variance = self.grid.shape[0], 4.0 * math.pi * _TAU**2  # of each cell about 1
        fields = [square_field(values["seed"], n, variance, _TAU, 2.0, s) for s in (6, 7)]
        return torch.stack(fields, dim=1)

    def _transform(self, field: Tensor) -> Tensor:
        return self._basis @ field @ self._basis.T

    def _inverse(self, w: Tensor) -> Tensor:
        return self._basis.T @ w.double() @ self._basis
