r"""Splitting in two parts whose solutions are known, extrapolated to order 8.

.. math:: u' = A u + B(u), \qquad S_h = \Phi^B_{h/2}\, \Phi^A_h\, \Phi^B_{h/2}

A step of Strang (1968) has order 2 and only even powers of h in its error, so that sums of n steps
of length h/n with the weights of Richardson

.. math:: u(t + h) \approx \sum_{n=1}^{4} w_n\, S_{h/n}^n u(t), \qquad
    w_n = \prod_{m \ne n} \frac{n^2}{n^2 - m^2}

cancel the first three of them. A step costs ten solutions of A and fourteen of B. No stiffness
limits h, as both are exact; where A damps waves that matter more than about e-fold in a step, the
order seen is lower, down to 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Flow: TypeAlias = Callable[[Tensor], Tensor]
"""Solution after a time that was fixed."""
Flows: TypeAlias = Callable[[Tensor], Sequence[Flow]]
"""Solutions after times ``(S, B)``."""

_COUNTS = (1, 2, 3, 4)


def weight(n: int) -> float:
    """Weight of n steps."""
    return math.prod(n**2 / (n**2 - m**2) for m in _COUNTS if m != n)


def march(u: Tensor, linear: Flows, pointwise: Flows, h: Tensor) -> Iterator[Tensor]:
    """States after each step from u, without end.

    Parameters
    ----------
    u : Tensor (B, ...)
    linear, pointwise
        Solutions of A and of B.
    h : Tensor (B,)
    """
    times = h / torch.tensor(_COUNTS, dtype=h.dtype).unsqueeze(1)
    flows = zip(linear(times), pointwise(times), pointwise(times / 2.0), strict=True)
    parts = [(n, weight(n), *own) for n, own in zip(_COUNTS, flows, strict=True)]
    while True:
        u = torch.stack([share * _strang(u, n, *own) for n, share, *own in parts]).sum(0)
        yield u


def _strang(u: Tensor, n: int, linear: Flow, whole: Flow, half: Flow) -> Tensor:
    u = linear(half(u))
    for _ in range(n - 1):
        u = linear(whole(u))
    return half(u)
