r"""How a learned prior R rises as images are spoilt: by noise, by blur, by mixing two of them.

R is found by inversion, so that every value comes with the residual of its inversion; of images
that no y is mapped to, it is worth nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from understudy.models.inverse.lpn import LearnedProximalNetwork


@dataclass(frozen=True)
class PriorCurve:
    """R of images at rising levels of what spoils them.

    Parameters
    ----------
    levels : tuple of float
    value, residual : Tensor (levels, n)
        Of the prior, up to a constant, and of its inversion.
    """

    levels: tuple[float, ...]
    value: Tensor
    residual: Tensor

    @property
    def rising(self) -> float:
        """Share of images whose prior rises from each level to the next."""
        return float((self.value.diff(dim=0) > 0.0).all(0).double().mean())


def with_noise(x: Tensor, levels: Sequence[float], generator: torch.Generator) -> Tensor:
    """Images ``(n, *shape)`` with the same noise at all levels, ``(levels, n, *shape)``."""
    noise = torch.randn(x.shape, generator=generator).to(x)
    return torch.stack([x + level * noise for level in levels])


def with_blur(x: Tensor, levels: Sequence[float]) -> Tensor:
    """Images ``(n, channels, height, width)`` blurred by Gaussians, continued by reflection.

    The light of an image stays in it; with dark surroundings, strong blur would darken it too.
    """
    from scipy.ndimage import gaussian_filter

    values = x.cpu().numpy()
    stages = [gaussian_filter(values, (0.0, 0.0, level, level)) for level in levels]
    return torch.stack([torch.as_tensor(stage) for stage in stages]).to(x)


def mixed(x: Tensor, levels: Sequence[float]) -> Tensor:
    """Each image ``(n, *shape)`` and its neighbour in the batch, mixed by shares of the latter."""
    other = x.roll(1, 0)
    return torch.stack([(1.0 - share) * x + share * other for share in levels])


def prior_curve(
    lpn: LearnedProximalNetwork,
    levels: Sequence[float],
    stages: Tensor,
    iterations: int | None = None,
) -> PriorCurve:
    """Prior of images at each level.

    Parameters
    ----------
    lpn : LearnedProximalNetwork
    levels : sequence of float
    stages : Tensor (levels, n, *shape)
    iterations : int, optional
        Of each inversion at most, see :meth:`LearnedProximalNetwork.invert`.
    """
    found = lpn.prior(stages.flatten(0, 1), iterations=iterations)
    shape = stages.shape[:2]
    return PriorCurve(tuple(levels), found.value.reshape(shape), found.residual.reshape(shape))
