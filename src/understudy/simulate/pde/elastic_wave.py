r"""A push that spreads in a square elastic solid, as pressure and as shear waves.

.. math:: \partial_t^2 u = \nabla \cdot \sigma(u) \text{ on } (0, 1)^2, \qquad
    u(0) = \exp(-|x - x_0|^2/(2 w^2)) (\cos\alpha, \sin\alpha), \quad \partial_t u(0) = 0,

plane strain of density 1, solved by :mod:`understudy.simulate.elastic`, which says what rims may
be. A solid is ``uniform``, or ``random`` with the smooth shear speed :math:`c_s` of
:mod:`understudy.simulate.pde.wave` and :math:`c_p = \sqrt 3\, c_s` (Poisson's ratio 1/4).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.simulator import Parameters
from understudy.core.space import Continuous, Integer, Space
from understudy.simulate.elastic import RIMS, ElasticFEM2D, Rim
from understudy.simulate.pde.checks import require_positive
from understudy.simulate.pde.finite_elements import FiniteElementWave
from understudy.simulate.pde.wave import Medium, gaussian, held, smooth_speed
from understudy.simulate.undamped import Scheme

_PUSH = (
    Continuous("x", 0.25, 0.75),
    Continuous("y", 0.25, 0.75),
    Continuous("width", 0.03, 0.08),
    Continuous("angle", 0.0, 2.0 * math.pi),
)
_MOVING = ("displacement_x", "displacement_y", "velocity_x", "velocity_y")


class ElasticWave(FiniteElementWave):
    """Displacement and velocity at the nodes inside.

    Of a random solid the shear speed is the last channel, which stays as it is, so that whoever
    goes on from the fields knows it. There are no gradients. Needs scikit-fem (extra ``fields``).

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
    boundary : {"zero", "free", "sliding"}
    scheme : {"newmark", "central"}
    """

    def __init__(
        self,
        points: int = 63,
        steps: int = 16,
        duration: float = 0.6,
        substeps: int = 8,
        refinement: int = 1,
        medium: Medium = "uniform",
        boundary: Rim = "zero",
        scheme: Scheme = "newmark",
    ) -> None:
        if medium not in ("uniform", "random"):
            raise UserError(f"medium must be 'uniform' or 'random', found {medium!r}")
        if boundary not in RIMS:
            raise UserError(f"boundary must be one of {', '.join(RIMS)}, found {boundary!r}")
        super().__init__(points, steps, duration, substeps, refinement, scheme)
        self.medium, self.boundary = medium, boundary
        self.channels = _MOVING if medium == "uniform" else (*_MOVING, "shear_speed")
        speeds = (Continuous("pressure_speed", 1.6, 2.0), Continuous("shear_speed", 0.8, 1.2))
        seed = (Integer("medium_seed", 0, 2**31 - 1),)
        self.space = Space((*_PUSH, *(speeds if medium == "uniform" else seed)))

    def initial(self, params: Parameters) -> Tensor:  # noqa: D102
        values = self.values(params)
        u = self._coarse(self._push(values))
        fields = [u, torch.zeros_like(u)]
        if self.medium == "random":
            fields.append(self._coarse(self._speeds(values)[1]).unsqueeze(1))
        return torch.cat(fields, dim=1)

    def inputs(self, params: Parameters) -> dict[str, Tensor]:
        """Both speeds ``(B, n, n)``."""
        pair = self._speeds(self.values(params))
        names = ("pressure_speed", "shear_speed")
        return {name: self._coarse(c) for name, c in zip(names, pair, strict=True)}

    def _check(self, values: dict[str, Tensor]) -> None:
        require_positive(values, "width")
        if self.medium == "uniform":
            require_positive(values, "pressure_speed")
            require_positive(values, "shear_speed")

    def _push(self, values: dict[str, Tensor]) -> Tensor:
        """Displacement ``(B, 2, N, N)`` at all nodes; a rim that is held stays where it is."""
        s = self._axis()
        bump = gaussian(values, s)
        if self.boundary == "zero":
            bump = bump * held(s)
        angle = values["angle"].detach()
        way = torch.stack([angle.cos(), angle.sin()], dim=1)
        return way[:, :, None, None] * bump[:, None]

    def _speeds(self, values: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Pressure and shear speeds ``(B, N, N)`` at all nodes."""
        s = self._axis()
        if self.medium == "random":
            shear = smooth_speed(values["medium_seed"], s)
            return math.sqrt(3.0) * shear, shear
        pair = (values[name].detach() for name in ("pressure_speed", "shear_speed"))
        pressure, shear = (c[:, None, None].expand(-1, len(s), len(s)) for c in pair)
        return pressure, shear

    def _march(self, values: dict[str, Tensor], start: Tensor | None) -> Iterator[Tensor]:
        u = self._push(values)
        v = torch.zeros_like(u)
        pressure, shear = self._speeds(values)
        if start is not None:
            if self.refinement > 1 or self.boundary != "zero":
                raise UserError(
                    "fields can be gone on from with refinement 1 and boundary 'zero' only, "
                    "where they are all there is"
                )
            moving = torch.nn.functional.pad(start[:, :4].detach(), (1, 1, 1, 1))
            u, v = moving[:, :2], moving[:, 2:]
            if self.medium == "random":
                shear = shear.clone()
                shear[:, 1:-1, 1:-1] = start[:, 4].detach()
                pressure = math.sqrt(3.0) * shear
        given = self._coarse(shear).unsqueeze(1)[:, : len(self.channels) - 4]
        c_p, c_s = (c.flatten(1).numpy() for c in (pressure, shear))
        if bool((c_p == c_p[:1]).all()) and bool((c_s == c_s[:1]).all()):
            c_p, c_s = c_p[:1], c_s[:1]
        solver = ElasticFEM2D(shear.shape[1] - 1, c_p, c_s, boundary=self.boundary)
        fields = solver.march(
            u.flatten(2).numpy(),
            v.flatten(2).numpy(),
            *self._plan,
        )
        for pair in fields:
            both = torch.from_numpy(np.concatenate(pair, axis=1)).unflatten(2, shear.shape[1:])
            yield torch.cat([self._coarse(both), given], dim=1)
