r"""Quadratic equations on few points: real arithmetic, and transforms as small matrices.

.. math:: \hat w_k' = L_k \hat w_k + f_k\, \widehat{u^2}_k

with real L and a real or an imaginary f steps at a fraction of the cost of fast transforms where
these take longer to be called than to compute. On :math:`M = 3n/2` points :math:`x_j = j/M`, on
which the product of n points has no aliases, a field is the sum of four parts,

.. math:: a = \sum_{k\text{ even}} r_k \cos 2\pi k x, \quad b = \sum_{k\text{ odd}} r_k
    \cos 2\pi k x, \quad c = \sum_{k\text{ even}} s_k \sin 2\pi k x, \quad
    d = \sum_{k\text{ odd}} s_k \sin 2\pi k x

each of which is known everywhere from a quarter of the points, as cosines are even and sines odd
about 0, and about 1/4 where k is odd the other way round:

.. math:: \begin{pmatrix} u(x) \\ u(\frac12 - x) \\ u(\frac12 + x) \\ u(-x) \end{pmatrix} =
    \begin{pmatrix} 1 & 1 & 1 & 1 \\ 1 & -1 & -1 & 1 \\ 1 & -1 & 1 & -1 \\ 1 & 1 & -1 & -1
    \end{pmatrix} \begin{pmatrix} a \\ b \\ c \\ d \end{pmatrix}, \qquad 0 \le x \le \tfrac14

So a transform is one product with four matrices of n/4 by 3n/8, and one with that matrix of signs.

What a stage of a time step adds up, whole w and known values of N with their functions of hL, is
one sum over a stack of arrays, whose weights contain f. A stage is six calls of NumPy, without
memory being taken, whatever the scheme.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from understudy.simulate.pde.exponential import AdamsStep, ExponentialStep, Row

Array: TypeAlias = np.ndarray
MOST_POINTS = 192
"""Where products of matrices still cost less than fast transforms of many runs."""
_TOGETHER = 64  # runs, whose arrays stay in the cache of a core
_PACKED = 8  # runs in which a product of matrices is computed, whatever their number
_SIGNS = np.array([[1, 1, 1, 1], [1, -1, -1, 1], [1, -1, 1, -1], [1, 1, -1, -1]])
_TURNED = [2, 3, 0, 1]  # where parts go if all waves are multiplied by i


def suits(step: ExponentialStep | AdamsStep, factor: Tensor, w: Tensor) -> bool:
    """Whether modes ``(B, 1, n // 2 + 1)`` can be stepped here, without gradients."""
    n = 2 * (w.shape[-1] - 1)
    tracked = any(x.requires_grad for x in (w, factor, step.whole))
    real = not step.whole.is_complex() and (not factor.is_complex() or not bool(factor.real.any()))
    return real and not tracked and w.device.type == "cpu" and n % 8 == 0 and n <= MOST_POINTS


def march(
    step: ExponentialStep | AdamsStep, factor: Tensor, w: Tensor, outputs: int, substeps: int
) -> Iterator[Tensor]:
    """Modes ``(B, 1, n // 2 + 1)`` after each of so many outputs, in the precision of w.

    Parameters
    ----------
    step : ExponentialStep or AdamsStep
        In float64, of real L; of shapes ``(B or 1, 1, n // 2 + 1)``.
    factor : Tensor (B or 1, 1, n // 2 + 1)
        Real or imaginary f.
    w : Tensor (B, 1, n // 2 + 1)
        Complex.
    """
    kind = np.float32 if w.dtype == torch.complex64 else np.float64
    turned = factor.is_complex()
    real = factor.imag if turned else factor
    real = real[:1] if bool((real == real[:1]).all()) else real
    square = _known_square(2 * (w.shape[-1] - 1), turned, kind)
    runs = [slice(i, i + _TOGETHER) for i in range(0, len(w), _TOGETHER)]
    marches = []
    for own in runs:
        state = split(w[own], kind)

        def weights(rows: Sequence[Row], own: slice = own, like: Array = state) -> list[Array]:
            return [_weights(row, real, own, like) for row in rows]

        start = step.start if isinstance(step, AdamsStep) else step
        advance = _stages(weights(start.rows()), square, state)
        if isinstance(step, AdamsStep):
            explicit, implicit = weights(step.rows())
            marches.append(_adams(explicit, implicit, advance, square, state))
        else:
            marches.append(_runge_kutta(advance, square, state))
    for _ in range(outputs):
        ends = (_after(march, substeps) for march in marches)
        yield torch.cat([joined(end, w[own]) for end, own in zip(ends, runs, strict=True)])


@dataclass(frozen=True)
class Square:
    """From the parts of a field ``(4, B, K)`` to those of its square, times i if ``turned``.

    ``to_points`` is ``(4, K, P)``, ``to_modes`` ``(4, P, K)``; ``mirror`` and ``fold`` are the
    matrices of signs that go to four points and come back.
    """

    to_points: Array
    mirror: Array
    fold: Array
    to_modes: Array

    @classmethod
    def of(cls, n: int, turned: bool, kind: type) -> Square:
        """For fields of n points, a multiple of 8."""
        points = 3 * n // 2
        j = np.arange(points // 4 + 1)
        k = np.arange(2)[:, None] + 2 * np.arange(n // 4 + 1)  # (parity, K)
        angle = 2.0 * np.pi * k[:, :, None] * j / points
        waves = np.concatenate([np.cos(angle), -np.sin(angle)])
        given = np.tile(np.where(k == 0, 1.0, 2.0) * (k < n // 2), (2, 1))  # the last has no square
        kept = np.tile(k <= n // 2, (2, 1))
        twice = np.where((j == 0) | (j == points // 4), 0.5, 1.0)  # points that are own mirrors
        to_modes = (waves * kept[:, :, None] * twice / points).swapaxes(1, 2)
        fold = _SIGNS.T
        if turned:
            sign = np.array([-1.0, -1.0, 1.0, 1.0])
            to_modes, fold = sign[:, None, None] * to_modes[_TURNED], fold[_TURNED]
        parts = (waves * given[:, :, None], _SIGNS, fold, to_modes)
        return cls(*(np.ascontiguousarray(part, dtype=kind) for part in parts))

    def into(self, like: Array) -> Callable[[Array, Array], Array]:
        """A function that writes the square of parts like these into others."""
        values = np.empty((4, like.shape[1], self.to_points.shape[2]), like.dtype)
        parts = np.empty_like(values)
        flat_values, flat_parts = values.reshape(4, -1), parts.reshape(4, -1)

        def square(w: Array, out: Array) -> Array:
            np.matmul(w, self.to_points, out=parts)
            np.matmul(self.mirror, flat_parts, out=flat_values)
            np.multiply(values, values, out=values)
            np.matmul(self.fold, flat_values, out=flat_parts)
            return np.matmul(parts, self.to_modes, out=out)

        return square


_known_square = lru_cache(maxsize=8)(Square.of)

Advance: TypeAlias = Callable[[Array, Array], None]
"""Makes a step in place, of a state and its square."""


def _runge_kutta(advance: Advance, square: Square, w: Array) -> Iterator[Array]:
    """The state after each step; it is overwritten by the next."""
    known, first = square.into(w), np.empty_like(w)
    while True:
        advance(w, known(w, first))
        yield w


def _stages(rows: Sequence[Array], square: Square, like: Array) -> Advance:
    """A step of ETDRK4."""
    stack, stage = np.empty((5, *like.shape), like.dtype), np.empty_like(like)
    *inner, end = (_for_each_run(row, like) for row in rows)
    stages = [(stack[: len(row)], row, stack[i]) for i, row in enumerate(inner, start=2)]
    known = square.into(like)

    def advance(w: Array, first: Array) -> None:
        stack[0], stack[1] = w, first
        for seen, row, out in stages:
            known(_sum(seen, row, stage), out)
        _sum(stack, end, w)

    return advance


def _adams(
    explicit: Array, implicit: Array, start: Advance, square: Square, w: Array
) -> Iterator[Array]:
    """The state after each step; it is overwritten by the next.

    The stack is the state, the squares of the last ones, of which each new one replaces the oldest,
    and the guess's.
    """
    past = len(explicit) - 1
    stack, guess = np.empty((past + 2, *w.shape), w.dtype), np.empty_like(w)
    turns = [[0, *(1 + (i - j) % past for j in range(past)), past + 1] for i in range(past)]
    pairs = [
        tuple(_for_each_run(row[turn[: len(row)]], w) for row in (explicit, implicit))
        for turn in turns
    ]
    known = square.into(w)
    state, latest, guessed, seen = stack[0], list(stack[1:-1]), stack[-1], stack[:-1]
    state[:] = w
    for i in count():
        known(state, latest[i % past])
        if i < past - 1:
            start(state, latest[i])
        else:
            predict, correct = pairs[i % past]
            known(_sum(seen, predict, guess), guessed)
            state[:] = _sum(stack, correct, guess)
        yield state


def _sum(stack: Array, weights: Array, out: Array) -> Array:
    return np.einsum("spbk,spbk->pbk", stack, weights, out=out)


def _after(march: Iterator[Array], steps: int) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):  # a run may leave the finite numbers
        for _ in range(steps):
            state = next(march)
    return state


def _weights(row: Row, factor: Tensor, own: slice, like: Array) -> Array:
    """Weights ``(S, 4, 1 or B', K)`` of a state and of squares: functions of hL for w and N."""
    state, *known = row
    both = torch.stack(torch.broadcast_tensors(state, *(f * factor for f in known)))[:, :, 0]
    if both.shape[1] > 1:
        both = both[:, own]
    runs = 1 if both.shape[1] == 1 else like.shape[1]  # beyond the last, weights are 0
    found = np.zeros((len(row), 4, runs, like.shape[2]), like.dtype)
    for parity in (0, 1):
        part = both[..., parity::2].numpy()
        found[:, parity::2, : part.shape[1], : part.shape[2]] = part[:, None]
    return found


def _for_each_run(weights: Array, like: Array) -> Array:
    """The same, repeated in memory, over which sums run without a break."""
    return np.ascontiguousarray(np.broadcast_to(weights, (len(weights), *like.shape)))


def split(w: Tensor, kind: type) -> Array:
    """Parts ``(4, B', K)`` of modes ``(B, 1, n // 2 + 1)``; B' is a multiple of 8."""
    n, runs = 2 * (w.shape[-1] - 1), -(-len(w) // _PACKED) * _PACKED
    parts: Array = np.zeros((4, runs, n // 4 + 1), kind)
    modes = w[:, 0].numpy()
    for parity in (0, 1):
        own = modes[:, parity::2]
        parts[parity, : len(w), : own.shape[1]] = own.real
        parts[2 + parity, : len(w), : own.shape[1]] = own.imag
    return parts


def joined(parts: Array, like: Tensor) -> Tensor:
    """Modes of parts: the inverse of :func:`split`."""
    modes = np.empty((len(like), like.shape[-1]), np.result_type(parts.dtype, np.complex64))
    for parity in (0, 1):
        own = modes[:, parity::2]
        own.real = parts[parity, : len(own), : own.shape[1]]
        own.imag = parts[2 + parity, : len(own), : own.shape[1]]
    return torch.from_numpy(modes)[:, None]
