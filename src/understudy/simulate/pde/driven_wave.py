r"""A membrane at rest that one place drives, by finite elements.

.. math:: \partial_t^2 u = \Delta u + \frac{1}{2 \pi w^2} e^{-|x - x_0|^2/(2 w^2)} \sin 2 \pi \nu t
    \text{ on } (0, 1)^2, \qquad u = 0 \text{ on the boundary}, \qquad u(0) = \partial_t u(0) = 0

for a source at :math:`x_0` of frequency :math:`\nu`, solved by :mod:`understudy.simulate.wave`:
fields of three numbers and the time, which a decoder of parameters can learn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.simulator import Parameters
from understudy.core.space import Continuous, Space
from understudy.simulate.pde.checks import require_positive
from understudy.simulate.pde.finite_elements import FiniteElementWave
from understudy.simulate.pde.wave import gaussian
from understudy.simulate.undamped import Scheme
from understudy.simulate.wave import WaveFEM2D


class DrivenWave(FiniteElementWave):
    """Displacement and velocity at the nodes inside.

    There are no gradients. Needs scikit-fem (extra ``fields``).

    Parameters
    ----------
    points : int
        Nodes inside along each axis.
    steps, duration
        Fields after the first one, and the time of the last.
    substeps : int
        Time steps of the solver for each of them.
    width : float
        Of the source.
    scheme : {"newmark", "central"}
    """

    channels = ("displacement", "velocity")
    space = Space(
        (
            Continuous("x", 0.25, 0.75),
            Continuous("y", 0.25, 0.75),
            Continuous("frequency", 1.0, 2.5),
        )
    )

    def __init__(
        self,
        points: int = 63,
        steps: int = 16,
        duration: float = 1.0,
        substeps: int = 8,
        width: float = 0.08,
        scheme: Scheme = "newmark",
    ) -> None:
        super().__init__(points, steps, duration, substeps, 1, scheme)
        if not width > 0:
            raise UserError(f"width must be positive, found {width:g}")
        self.width = width

    def initial(self, params: Parameters) -> Tensor:  # noqa: D102
        runs = len(self.values(params)["x"])
        return torch.zeros(runs, 2, *self.grid.shape, dtype=torch.float64)

    def _check(self, values: dict[str, Tensor]) -> None:
        require_positive(values, "frequency")

    def _march(self, values: dict[str, Tensor], start: Tensor | None) -> Iterator[Tensor]:
        if start is not None:
            raise UserError("a driven wave starts at rest; it cannot be gone on from other fields")
        s = self._axis()
        nodes = len(s)
        wide = torch.full_like(values["x"], self.width)
        shape = gaussian(values | {"width": wide}, s) / (2 * math.pi * self.width**2)
        push = shape.flatten(1).numpy()
        turns = 2 * math.pi * values["frequency"].detach().numpy()[:, None]
        fields = WaveFEM2D(nodes - 1).march(
            np.zeros_like(push),
            None,
            *self._plan,
            load=lambda t: push * np.sin(turns * t),
        )
        for pair in fields:
            both = torch.from_numpy(np.stack(pair, axis=1)).unflatten(2, (nodes, nodes))
            yield self._coarse(both)
