r"""Exponential time differencing of fourth order for stiff equations, ETDRK4.

.. math:: w' = L w + N(w, t), \qquad
    w(t + h) \approx e^{hL} w + h \sum_i b_i(hL)\, N(w_i, t_i)

with a diagonal L (Cox & Matthews 2002); the functions :math:`b_i` of :math:`z = hL` are means over
a circle around z in the complex plane, which keeps their digits where z is small (Kassam &
Trefethen 2005).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Nonlinear: TypeAlias = Callable[[Tensor, Tensor | float], Tensor]
_CONTOUR_POINTS = 32


@dataclass(frozen=True)
class ExponentialStep:
    """Functions of :math:`z = hL` that a step of ETDRK4 needs, each of the shape of z.

    ``whole`` and ``half`` are :math:`e^z` and :math:`e^{z/2}`, ``stage`` is
    :math:`h (e^{z/2} - 1)/z`, ``first``, ``middle`` and ``last`` weigh the stages.
    """

    whole: Tensor
    half: Tensor
    stage: Tensor
    first: Tensor
    middle: Tensor
    last: Tensor

    @classmethod
    def of(cls, L: Tensor, h: Tensor | float) -> ExponentialStep:
        """Functions of a real or complex L and a step h, which broadcast."""
        z = L * h
        angle = math.pi * (torch.arange(_CONTOUR_POINTS, dtype=torch.float64) + 0.5)
        turn = 2.0 if z.is_complex() else 1.0  # on the real axis the upper half is enough
        circle = torch.polar(torch.ones_like(angle), turn * angle / _CONTOUR_POINTS)
        sums = [torch.zeros_like(z)] * 4
        for point in circle:  # one at a time: all would take 32 times the memory
            r = z + point
            e, e2, r3 = torch.exp(r), torch.exp(r / 2.0), r**3
            terms = (
                (e2 - 1.0) / r,
                (-4.0 - r + e * (4.0 - 3.0 * r + r**2)) / r3,
                (2.0 + r + e * (r - 2.0)) / r3,
                (-4.0 - 3.0 * r - r**2 + e * (4.0 - r)) / r3,
            )
            sums = [s + (f if z.is_complex() else f.real) for s, f in zip(sums, terms, strict=True)]
        return cls(z.exp(), (z / 2).exp(), *(f * h / _CONTOUR_POINTS for f in sums))

    def advance(
        self, w: Tensor, nonlinear: Nonlinear, t: Tensor | float = 0.0, h: Tensor | float = 0.0
    ) -> Tensor:
        """State after a step from w at time t; h matters only where N depends on time."""
        n0 = nonlinear(w, t)
        free = self.half * w
        s1 = free + self.stage * n0
        n1 = nonlinear(s1, t + h / 2)
        n2 = nonlinear(free + self.stage * n1, t + h / 2)
        n3 = nonlinear(self.half * s1 + self.stage * (2.0 * n2 - n0), t + h)
        return self.whole * w + self.first * n0 + 2.0 * self.middle * (n1 + n2) + self.last * n3
