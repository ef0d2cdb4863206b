r"""Random fields, drawn mode by mode: finer grids show the same field.

Sums of sines, and Gaussian fields :math:`N(0, C)` by their Karhunen-Loeve expansion

.. math:: u(x) = \sum_k \sqrt{\lambda_k}\, \xi_k\, \varphi_k(x), \qquad \xi_k \sim N(0, 1)

with :math:`\varphi_k` the Fourier modes of the unit torus or the cosines of the unit square
without flux. For :math:`C = \sigma^2 (-\Delta + \tau^2 I)^{-\alpha}` the eigenvalues are
:math:`\sigma^2 (|k|^2 + \tau^2)^{-\alpha}`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.simulate.pde.bases import cosine_basis
from understudy.simulate.pde.draws import normal, uniform

_ROW = 1 << 20  # of the index of a mode in two dimensions


@dataclass(frozen=True)
class Sines:
    r"""Sums :math:`\sum_j A_j \sin(\omega_j t + 2\pi l_j x + \varphi_j)` with period 1, one a run.

    Attributes are Tensors ``(B, J)``.
    """

    amplitude: Tensor
    wavenumber: Tensor
    phase: Tensor
    frequency: Tensor

    @classmethod
    def draw(
        cls,
        seed: Tensor,
        count: int,
        amplitudes: tuple[float, float],
        wavenumbers: tuple[int, int],
        frequencies: tuple[float, float] = (0.0, 0.0),
    ) -> Sines:
        """Uniform amplitudes, frequencies, phases and whole wavenumbers (both ends included)."""
        j = torch.arange(count)
        low, high = wavenumbers

        def between(stream: int, ends: tuple[float, float]) -> Tensor:
            return ends[0] + (ends[1] - ends[0]) * uniform(seed, stream, j)

        wavenumber = low + (uniform(seed, 1, j) * (high - low + 1)).floor()
        phase = 2.0 * math.pi * uniform(seed, 2, j)
        return cls(between(0, amplitudes), wavenumber, phase, between(3, frequencies))

    def at(self, x: Tensor, t: Tensor | None = None) -> Tensor:
        """Values ``(B, n)`` at points ``(n,)`` and times ``(B,)``, 0 by default."""
        phase = self.phase if t is None else self.phase + self.frequency * t.unsqueeze(-1)
        angle = 2.0 * math.pi * self.wavenumber.unsqueeze(-1) * x + phase.unsqueeze(-1)
        return (self.amplitude.unsqueeze(-1) * angle.sin()).sum(1)


def periodic_field(
    seed: Tensor, shape: tuple[int, int], variance: float, tau: float, alpha: float
) -> Tensor:
    r"""Gaussian fields ``(B, *shape)`` of mean 0 on the unit torus, without their constant mode.

    The covariance is :math:`\sigma^2 (-\Delta + \tau^2 I)^{-\alpha}` with :math:`\sigma^2` the
    variance.
    """
    n, m = shape
    kx = torch.fft.fftfreq(n, 1.0 / n, dtype=torch.float64)[:, None]
    ky = torch.arange(m // 2 + 1, dtype=torch.float64)
    power = variance * (4.0 * math.pi**2 * (kx**2 + ky**2) + tau**2) ** -alpha
    power = torch.where((kx.abs() < n / 2) & (ky < m / 2) & (kx**2 + ky**2 > 0), power, 0.0)
    index = (kx * _ROW + ky).to(torch.int64)
    # mode k and its mirror image -k share a complex normal number
    real = normal(seed, 4, index) + normal(seed, 4, -index)
    imaginary = normal(seed, 5, index) - normal(seed, 5, -index)
    modes = torch.complex(real, imaginary) * power.sqrt() / 2.0
    return torch.fft.irfft2(modes, s=shape, norm="forward")


def square_field(
    seed: Tensor, n: int, variance: float, tau: float, alpha: float, stream: int = 6
) -> Tensor:
    r"""Gaussian fields ``(B, n, n)`` on cells of the unit square, without flux and constant mode.

    The covariance is :math:`\sigma^2 (-\Delta + \tau^2 I)^{-\alpha}` with Neumann boundaries;
    fields of different streams are independent.
    """
    k = torch.arange(n)
    squares = (math.pi * k.to(torch.float64)) ** 2
    power = variance * (squares[:, None] + squares + tau**2) ** -alpha
    power[0, 0] = 0.0
    coefficient = power.sqrt() * normal(seed, stream, k[:, None] * _ROW + k)
    basis = math.sqrt(n) * cosine_basis(n)  # of norm 1 on the unit square
    return basis.T @ coefficient @ basis
