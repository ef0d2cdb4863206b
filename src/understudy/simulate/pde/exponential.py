r"""Exponential time differencing for stiff equations: ETDRK4, and Adams methods of fifth order.

.. math:: w' = L w + N(w, t), \qquad
    w(t + h) \approx e^{hL} w + h \sum_i b_i(hL)\, N(w_i, t_i)

with a diagonal L (Cox & Matthews 2002). The :math:`b_i` are combinations of

.. math:: \varphi_1(z) = \frac{e^z - 1}{z}, \qquad
    \varphi_{k+1}(z) = \frac{\varphi_k(z) - 1/k!}{z}

which lose their digits where z is small; there the last of them is summed by its series, and the
others follow from it backwards.

Where steps are many, values of N that are known already replace stages (Norsett 1969; Hochbruck &
Ostermann 2010, section 2.5): with :math:`P` the polynomial through N at times
:math:`t, t - h, \dots`

.. math:: w(t + h) \approx e^{hL} w + h \int_0^1 e^{(1 - s) h L} P(t + sh)\, ds

through four of them predicts :math:`w(t + h)`, and through its N and the same four corrects it: two
evaluations of N a step in place of four.

A step is stable where no mode grows that should not: with :math:`N = i\omega w` of a mode that is
carried along at a frozen speed, both methods are linear recurrences, whose growth a step
``growth`` measures.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

Nonlinear: TypeAlias = Callable[[Tensor, Tensor | float], Tensor]
Row: TypeAlias = tuple[Tensor, ...]
"""Weights of the state and of values of N in the order in which they become known."""
_SETTLED = 32  # steps after which the root that grows most is seen
_TERMS = 17  # of the series, the last of which is below 1e-16 of the sum where |z| < 1


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
        return cls._of_phi(z, h, phi(torch.stack([z / 2.0, z])))

    @classmethod
    def _of_phi(cls, z: Tensor, h: Tensor | float, functions: Sequence[Tensor]) -> ExponentialStep:
        """Of the first three of :func:`phi` of z/2 and z, stacked."""
        half, whole = torch.stack([z / 2.0, z]).exp()
        one, two, three = (f[1] for f in functions[:3])
        return cls(
            whole,
            half,
            h / 2.0 * functions[0][0],
            h * (one - 3.0 * two + 4.0 * three),
            h * (two - 2.0 * three),
            h * (4.0 * three - two),
        )

    def each(self, change: Callable[[Tensor], Tensor]) -> ExponentialStep:
        """The same functions, each changed."""
        return ExponentialStep(*(change(getattr(self, field.name)) for field in fields(self)))

    def advance(
        self, w: Tensor, nonlinear: Nonlinear, t: Tensor | float = 0.0, h: Tensor | float = 0.0
    ) -> Tensor:
        """State after a step from w at time t; h matters only where N depends on time."""
        n0 = nonlinear(w, t)
        free = self.half * w
        s1 = torch.addcmul(free, self.stage, n0)
        n1 = nonlinear(s1, t + h / 2)
        n2 = nonlinear(torch.addcmul(free, self.stage, n1), t + h / 2)
        turned = torch.sub(n2, n0, alpha=0.5)
        n3 = nonlinear(torch.addcmul(self.half * s1, self.stage, turned, value=2.0), t + h)
        end = torch.addcmul(self.whole * w, self.first, n0)
        end = torch.addcmul(end, self.middle, n1 + n2, value=2.0)
        return torch.addcmul(end, self.last, n3)

    def rows(self) -> tuple[Row, Row, Row, Row]:
        """Three stages and the end of :meth:`advance`, each a sum over w and N of those before."""
        half, stage, middle = self.half, self.stage, 2.0 * self.middle
        none = torch.zeros_like(stage)
        third = (self.whole, (half - 1.0) * stage, none, 2.0 * stage)
        end = (self.whole, self.first, middle, middle, self.last)
        return (half, stage), (half, none, stage), third, end

    def march(
        self, w: Tensor, nonlinear: Nonlinear, h: Tensor | float, steps: int
    ) -> Iterator[Tensor]:
        """State after each of so many steps from time 0."""
        for i in range(steps):
            w = self.advance(w, nonlinear, i * h, h)
            yield w

    def growth(self, rate: Tensor) -> Tensor:
        """Factor by which a step lets modes grow where N is the complex ``rate`` times w."""
        return self.advance(torch.ones_like(rate), lambda w, t: rate * w).abs()


def _powers(*nodes: float) -> Tensor:
    """Coefficients (node, power) of the polynomials that are 1 at one node and 0 at the others."""
    return torch.from_numpy(np.linalg.inv(np.vander(nodes, increasing=True)).T.copy())


_EXPLICIT, _IMPLICIT = _powers(0.0, -1.0, -2.0, -3.0), _powers(1.0, 0.0, -1.0, -2.0, -3.0)


@dataclass(frozen=True)
class AdamsStep:
    r"""Functions of :math:`z = hL` that weigh known values of N.

    ``explicit`` are the weights of N at :math:`t, \dots, t - 3h`, ``implicit`` those at
    :math:`t + h, t, \dots, t - 3h`; ``start`` makes the first three steps.
    """

    start: ExponentialStep
    explicit: tuple[Tensor, ...]
    implicit: tuple[Tensor, ...]

    @classmethod
    def of(cls, L: Tensor, h: Tensor | float) -> AdamsStep:
        """Functions of a real or complex L and a step h, which broadcast."""
        z = L * h
        functions = phi(torch.stack([z / 2.0, z]), 5)
        moments = torch.stack([math.factorial(m) * f[1] for m, f in enumerate(functions)])
        explicit, implicit = (
            tuple((h * torch.tensordot(p.to(moments), moments[: len(p)], 1)).unbind(0))
            for p in (_EXPLICIT, _IMPLICIT)
        )
        return cls(ExponentialStep._of_phi(z, h, functions), explicit, implicit)

    @property
    def whole(self) -> Tensor:  # noqa: D102
        return self.start.whole

    def each(self, change: Callable[[Tensor], Tensor]) -> AdamsStep:
        """The same functions, each changed."""
        explicit, implicit = (tuple(map(change, w)) for w in (self.explicit, self.implicit))
        return AdamsStep(self.start.each(change), explicit, implicit)

    def rows(self) -> tuple[Row, Row]:
        """The guess and the end: sums over w, N from the latest on, and N of the guess."""
        last, *known = self.implicit
        return (self.whole, *self.explicit), (self.whole, *known, last)

    def march(
        self, w: Tensor, nonlinear: Nonlinear, h: Tensor | float, steps: int
    ) -> Iterator[Tensor]:
        """State after each of so many steps from time 0."""
        past = deque([nonlinear(w, 0.0 * h)], maxlen=len(self.explicit))
        for i in range(steps):
            after = (i + 1) * h
            if len(past) < len(self.explicit):
                w = self.start.advance(w, nonlinear, i * h, h)
            else:
                free = self.whole * w
                guess = nonlinear(_sum(free, self.explicit, past), after)
                w = _sum(free, self.implicit, [guess, *past])
            yield w
            past.appendleft(nonlinear(w, after))

    def growth(self, rate: Tensor) -> Tensor:
        """Factor by which a step lets modes grow where N is the complex ``rate`` times w.

        The largest of some later steps, as what a start excites of the other roots beats.
        """
        march = self.march(torch.ones_like(rate), lambda w, t: rate * w, 0.0, _SETTLED + 8)
        late = torch.stack([w.abs() for w in islice(march, _SETTLED, None)])
        return late.amax(0) ** (1.0 / (_SETTLED + 4))


def _sum(total: Tensor, weights: Sequence[Tensor], values: Iterable[Tensor]) -> Tensor:
    for weight, value in zip(weights, values, strict=True):
        total = torch.addcmul(total, weight, value)
    return total


def phi(z: Tensor, count: int = 3) -> list[Tensor]:
    r""":math:`\varphi_1, \varphi_2, \dots` of a real or complex z, each of its shape."""
    close = z.abs() < 1.0
    small, large = torch.where(close, z, 0.0), torch.where(close, 1.0, z)
    near = [torch.full_like(z, 1.0 / math.factorial(_TERMS + count))]
    for k in reversed(range(_TERMS)):
        near[0] = near[0] * small + 1.0 / math.factorial(k + count)
    far = [(large.exp() - 1.0) / large]
    for k in range(1, count):
        near.insert(0, near[0] * small + 1.0 / math.factorial(count - k))
        far.append((far[-1] - 1.0 / math.factorial(k)) / large)
    return [torch.where(close, a, b) for a, b in zip(near, far, strict=True)]
