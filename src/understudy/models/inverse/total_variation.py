r"""Total variation (Rudin, Osher & Fatemi 1992): the prior by hand to compare with.

Its proximal operator

.. math:: \arg\min_x \tfrac12|x - y|^2 + \lambda \sum_i |(\nabla x)_i|

is found from the dual problem by projected gradients with momentum (Beck & Teboulle 2009): with
:math:`x = y - \lambda\nabla^\top p`,

.. math:: p \leftarrow P\big(q + \tfrac{1}{8\lambda}\nabla(y - \lambda\nabla^\top q)\big)

where P shortens vectors longer than 1 and q is p carried on a little.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from understudy.core.errors import UserError


class TotalVariation:
    """Proximal operator of total variation, isotropic, each channel by itself.

    Parameters
    ----------
    weight : float, positive
        Lambda.
    iterations : int
        Of the dual problem.
    """

    def __init__(self, weight: float, iterations: int = 50) -> None:
        if not 0.0 < weight < math.inf:
            raise UserError(f"the weight of total variation must be positive, found {weight}")
        self.weight, self.iterations = weight, iterations

    @torch.no_grad()
    def __call__(self, y: Tensor) -> Tensor:
        """Images ``(B, channels, height, width)`` of the same."""
        p = q = torch.zeros(2, *y.shape, dtype=y.dtype, device=y.device)
        t = 1.0
        for _ in range(self.iterations):
            x = y - self.weight * _adjoint(q)
            new = q + _differences(x) / (8.0 * self.weight)
            new = new / new.norm(dim=0).clamp_min(1.0)
            t, before = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * t**2)), t
            q, p = new + (before - 1.0) / t * (new - p), new
        return y - self.weight * _adjoint(p)


def _differences(x: Tensor) -> Tensor:
    """Forward differences down and to the right, ``(2, *x.shape)``, zero at the end."""
    return torch.stack([F.pad(x.diff(dim=-2), (0, 0, 0, 1)), F.pad(x.diff(dim=-1), (0, 1))])


def _adjoint(p: Tensor) -> Tensor:
    """Transpose of :func:`_differences`."""
    down, right = p[0][..., :-1, :], p[1][..., :-1]
    return (
        F.pad(down, (0, 0, 1, 0))
        - F.pad(down, (0, 0, 0, 1))
        + F.pad(right, (1, 0))
        - F.pad(right, (0, 1))
    )
