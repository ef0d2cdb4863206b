r"""A pulse that spreads in a square whose rim is held, by finite elements.

.. math:: \partial_t^2 u = \nabla \cdot (c^2 \nabla u) \text{ on } (0, 1)^2, \qquad u = 0
    \text{ on the boundary}, \qquad u(0) = \exp(-|x - x_0|^2/(2 w^2)), \quad \partial_t u(0) = 0

solved by :mod:`understudy.simulate.wave`. A medium is ``uniform`` or ``random``: smooth,

.. math:: c = 1 + 0.3 \tanh \sum_{k \ne 0,\, k_i < 4} \frac{2 \xi_k}{1 + |k|^2}
    \cos(\pi k_1 x) \cos(\pi k_2 y), \qquad \xi_k \sim N(0, 1),

between 0.7 and 1.3. The waves are those of Boukraichi et al. (2023, arXiv 2304.04964), of whose
data nothing is public and whose text was not at hand: pulse, medium and mesh are reconstructed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.simulator import Parameters
from understudy.core.space import Continuous, Integer, Space
from understudy.simulate.pde.checks import require_positive
from understudy.simulate.pde.draws import normal
from understudy.simulate.pde.finite_elements import FiniteElementWave
from understudy.simulate.undamped import Scheme
from understudy.simulate.wave import WaveFEM2D

Medium: TypeAlias = Literal["uniform", "random"]

_PLACE = (Continuous("x", 0.25, 0.75), Continuous("y", 0.25, 0.75))
_WIDTH = Continuous("width", 0.03, 0.08)
_MODES = 4
_STREAM = 21


def gaussian(values: dict[str, Tensor], s: Tensor) -> Tensor:
    """Gaussians ``(B, N, N)`` about (x, y), of a width, at all nodes of an axis ``(N,)``."""
    x, y, w = (values[name].detach()[:, None] for name in ("x", "y", "width"))
    along = [(-((s - centre) ** 2) / (2 * w**2)).exp() for centre in (x, y)]
    return along[0][:, :, None] * along[1][:, None, :]


def held(s: Tensor) -> Tensor:
    """One inside and zero on the rim ``(N, N)``."""
    inside = torch.ones_like(s)
    inside[0] = inside[-1] = 0.0
    return inside[:, None] * inside


def smooth_speed(seeds: Tensor, s: Tensor) -> Tensor:
    """Random speeds ``(B, N, N)`` between 0.7 and 1.3 at all nodes of an axis ``(N,)``."""
    k = torch.arange(_MODES)
    power = 2.0 / (1.0 + k[:, None] ** 2 + k**2)
    power[0, 0] = 0.0
    modes = power * normal(seeds, _STREAM, k[:, None] * _MODES + k)
    waves = torch.cos(torch.pi * k[:, None] * s)
    return 1.0 + 0.3 * torch.tanh(waves.T @ modes @ waves)


class Wave(FiniteElementWave):
    """Displacement and velocity at the nodes inside.

    A random medium is the last channel, which stays as it is, so that whoever goes on from the
    fields knows it. There are no gradients. Needs scikit-fem (extra ``fields``).

    Parameters
    ----------
    points : int
        Nodes inside along each axis.
    steps, duration
        Fields after the first one, and the time of the last.
    substeps : int
        Time steps of the solver for each of them.
    refinement : int
        The mesh is that many times finer than the points at which fields are given.
    medium : {"uniform", "random"}
    scheme : {"newmark", "central"}
    """

    def __init__(
        self,
        points: int = 63,
        steps: int = 16,
        duration: float = 1.0,
        substeps: int = 8,
        refinement: int = 1,
        medium: Medium = "uniform",
        scheme: Scheme = "newmark",
    ) -> None:
        if medium not in ("uniform", "random"):
            raise UserError(f"medium must be 'uniform' or 'random', found {medium!r}")
        super().__init__(points, steps, duration, substeps, refinement, scheme)
        self.medium = medium
        moving = ("displacement", "velocity")
        self.channels = moving if medium == "uniform" else (*moving, "speed")
        medium_input = (
            Continuous("speed", 0.7, 1.3)
            if medium == "uniform"
            else Integer("medium_seed", 0, 2**31 - 1)
        )
        self.space = Space((*_PLACE, _WIDTH, medium_input))

    def initial(self, params: Parameters) -> Tensor:  # noqa: D102
        values = self.values(params)
        u = self._coarse(self._pulse(values))
        fields = [u, torch.zeros_like(u)]
        if self.medium == "random":
            fields.append(self._coarse(self._speed(values)))
        return torch.stack(fields, dim=1)

    def inputs(self, params: Parameters) -> dict[str, Tensor]:
        """Speed ``(B, n, n)``."""
        return {"speed": self._coarse(self._speed(self.values(params)))}

    def _check(self, values: dict[str, Tensor]) -> None:
        require_positive(values, "width")
        if self.medium == "uniform":
            require_positive(values, "speed")

    def _pulse(self, values: dict[str, Tensor]) -> Tensor:
        """Displacement ``(B, N, N)`` at all nodes, zero on the rim."""
        return gaussian(values, self._axis()) * held(self._axis())

    def _speed(self, values: dict[str, Tensor]) -> Tensor:
        """Speed ``(B, N, N)`` at all nodes."""
        s = self._axis()
        if self.medium == "uniform":
            return values["speed"].detach()[:, None, None].expand(-1, len(s), len(s))
        return smooth_speed(values["medium_seed"], s)

    def _march(self, values: dict[str, Tensor], start: Tensor | None) -> Iterator[Tensor]:
        pulse, speed = self._pulse(values), self._speed(values)
        u, v = pulse, torch.zeros_like(pulse)
        if start is not None:
            if self.refinement > 1:
                raise UserError("fields can be gone on from with refinement 1 only")
            u, v = (torch.nn.functional.pad(start[:, i].detach(), (1, 1, 1, 1)) for i in (0, 1))
            if self.medium == "random":
                speed = speed.clone()
                speed[:, 1:-1, 1:-1] = start[:, 2].detach()
        shape = speed.shape
        given = self._coarse(speed).unsqueeze(1) if self.medium == "random" else speed[:, :0, :0]
        c = speed.flatten(1).numpy()
        same = bool((c == c[:1]).all())
        solver = WaveFEM2D(shape[1] - 1, c[:1] if same else c)
        fields = solver.march(
            u.flatten(1).numpy(),
            v.flatten(1).numpy(),
            *self._plan,
        )
        for displacement, velocity in fields:
            pair = np.stack([displacement, velocity], axis=1)
            both = self._coarse(torch.from_numpy(pair).unflatten(2, shape[1:]))
            yield torch.cat([both, given], dim=1) if self.medium == "random" else both
