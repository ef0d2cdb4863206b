r"""Slope of a flux where solutions have shocks: WENO of fifth order (Jiang & Shu 1996).

.. math:: \partial_x f(u_i) \approx \frac{\hat f_{i+1/2} - \hat f_{i-1/2}}{h}, \qquad
    \hat f_{i+1/2} = \sum_{r=0}^{2} w_r\, q_r, \qquad
    w_r \propto \frac{d_r}{(\varepsilon + \beta_r)^2}

with three parabolas :math:`q_r` through three values each, weighed by their smoothness
:math:`\beta_r`; the flux is split as :math:`f^\pm = (f \pm a u)/2` with a the fastest wave of a
run (Lax-Friedrichs).
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPSILON = 1e-6


def weno_slope(f: Tensor, u: Tensor, speed: Tensor, h: float) -> Tensor:
    """Slope ``(..., n)`` of a flux f of periodic fields u ``(..., n)``.

    Parameters
    ----------
    f, u : Tensor (..., n)
    speed : Tensor, broadcast to u
        At least the largest magnitude of df/du.
    h : float
        Distance of neighbours.
    """
    right = 0.5 * (f + speed * u)
    left = 0.5 * (f - speed * u)
    through = _upwind(right) + _upwind(left.flip(-1)).roll(1, -1).flip(-1)
    return (through - through.roll(1, -1)) / h


def _upwind(f: Tensor) -> Tensor:
    """Flux ``(..., n)`` through the right ends of cells, of waves that go to the right."""
    a, b, c, d, e = (f.roll(shift, -1) for shift in (2, 1, 0, -1, -2))
    rough = (
        13 / 12 * (a - 2 * b + c) ** 2 + 0.25 * (a - 4 * b + 3 * c) ** 2,
        13 / 12 * (b - 2 * c + d) ** 2 + 0.25 * (b - d) ** 2,
        13 / 12 * (c - 2 * d + e) ** 2 + 0.25 * (3 * c - 4 * d + e) ** 2,
    )
    parabolas = (2 * a - 7 * b + 11 * c, -b + 5 * c + 2 * d, 2 * c + 5 * d - e)
    weights = [share / (_EPSILON + r) ** 2 for share, r in zip((0.1, 0.6, 0.3), rough, strict=True)]
    total = torch.stack([w * q for w, q in zip(weights, parabolas, strict=True)]).sum(0)
    return total / (6.0 * (weights[0] + weights[1] + weights[2]))
