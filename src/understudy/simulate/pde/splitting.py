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


Parts: TypeAlias = Sequence[tuple[int, float, Flow, Flow, Flow]]
"""Steps in h, their weight, and solutions of A, of B, and of B after half of the time."""


def parts(linear: Flows, pointwise: Flows, h: Tensor) -> Parts:
    """What steps of length h ``(B,)`` need, of solutions of A and of B."""
    times = h / torch.tensor(_COUNTS, dtype=h.dtype).unsqueeze(1)
    flows = zip(linear(times), pointwise(times), pointwise(times / 2.0), strict=True)
    return [(n, weight(n), *own) for n, own in zip(_COUNTS, flows, strict=True)]


def march(u: Tensor, parts: Parts) -> Iterator[Tensor]:
    """States ``(B, ...)`` after each step from u, without end."""
    while True:
        total = torch.zeros_like(u)
        for n, share, *own in parts:
            total = total.add(_strang(u, n, *own), alpha=share)
        u = total
        yield u


def _strang(u: Tensor, n: int, linear: Flow, whole: Flow, half: Flow) -> Tensor:
    u = linear(half(u))
    for _ in range(n - 1):
        u = linear(whole(u))
    return half(u)
