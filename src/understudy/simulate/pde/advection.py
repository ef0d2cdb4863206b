r"""Advection at constant speed, exactly.

.. math:: u_t + \beta u_x = 0, \qquad u(t, x) = u_0(x - \beta t), \qquad x \in [0, 1)
    \text{ periodic}

Every Fourier mode turns by :math:`e^{-2\pi i k \beta t}`. The first field is that of PDEBench
(Takamoto et al. 2022, arXiv 2210.07182) without its occasional windows: two sines of amplitude
U(0, 1), 1 to 8 waves and any phase, on which CAPE (arXiv 2304.14118) is trained for several speeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from understudy.core.grid import Grid
from understudy.core.space import Continuous, Space
from understudy.simulate.pde.exponential import Nonlinear
from understudy.simulate.pde.random_fields import Sines
from understudy.simulate.pde.semilinear import SEED, SemilinearSimulator, derivative


class Advection(SemilinearSimulator):
    """A profile that moves.

    Parameters
    ----------
    points : int
        128 in CAPE; even.
    steps : int
        Outputs after the first; 40 in CAPE.
    duration : float
        2 in PDEBench.
    """

    channels = ("u",)
    space = Space((Continuous("speed", 0.1, 5.0), SEED))

    def __init__(self, points: int = 128, steps: int = 40, duration: float = 2.0) -> None:
        super().__init__(Grid.of(points), steps, 1)
        self.duration = duration

    def _interval(self, values: dict[str, Tensor]) -> Tensor:
        return torch.full_like(values["speed"], self.duration / self.steps)

    def _linear(self, values: dict[str, Tensor]) -> Tensor:
        return -values["speed"].reshape(-1, 1, 1) * derivative(self.fine.shape[0])

    def _nonlinear(self, values: dict[str, Tensor]) -> Nonlinear:
        return lambda w, t: torch.zeros_like(w)

    def _march(self, values: dict[str, Tensor], start: Tensor | None) -> Iterator[Tensor]:
        field = self._draw(values) if start is None else start
        yield field
        n, w, speed = field.shape[-1], torch.fft.rfft(field), values["speed"]
        shift = self.duration / self.steps
        tracked = speed.requires_grad or speed.device.type != "cpu"
        turn = _turn(n, speed * shift) if tracked else _known_turn(n, tuple(speed.tolist()), shift)
        for _ in range(self.steps):
            w = w * turn
            yield torch.fft.irfft(w, n=n)

    def _draw(self, values: dict[str, Tensor]) -> Tensor:
        return Sines.draw(values["seed"], 2, (0.0, 1.0), (1, 8)).at(self.fine.axes()[0])[:, None]


def _turn(n: int, way: Tensor) -> Tensor:
    """Factor ``(B, 1, n // 2 + 1)`` of the modes of profiles that go so far ``(B,)``."""
    return torch.exp(-way.reshape(-1, 1, 1) * derivative(n))


@lru_cache(maxsize=4)
@torch.inference_mode(False)  # kept for whoever needs gradients
def _known_turn(n: int, speed: tuple[float, ...], time: float) -> Tensor:
    return _turn(n, torch.tensor(speed, dtype=torch.float64) * time)
