"""Random patches of images, to learn from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from understudy.core.errors import UserError


class ImagePatches:
    """Draws square patches of images at random places, optionally mirrored and turned.

    Parameters
    ----------
    images : sequence of Tensor (channels, height, width)
        No smaller than a patch; each is as likely as its number of places.
    size : int
        Height and width of a patch.
    symmetric : bool
        Whether patches are mirrored and turned by quarters at random. Not for what has a right way
        up, such as digits.
    """

    def __init__(self, images: Sequence[Tensor], size: int, symmetric: bool = False) -> None:
        if not images:
            raise UserError("there are no images to take patches of")
        for k, image in enumerate(images):
            if image.ndim != 3 or min(image.shape[1:]) < size:
                raise UserError(
                    f"image {k + 1} has the shape {tuple(image.shape)}; patches have "
                    f"{size} x {size} points"
                )
        self.size, self.symmetric = size, symmetric
        self._flat = torch.cat([image.reshape(image.shape[0], -1) for image in images], dim=1)
        heights = torch.tensor([image.shape[1] for image in images])
        self._widths = torch.tensor([image.shape[2] for image in images])
        self._starts = (heights * self._widths).cumsum(0) - heights * self._widths
        self._rows, self._columns = heights - size + 1, self._widths - size + 1
        self._places = (self._rows * self._columns).double()

    def __call__(self, count: int, generator: torch.Generator) -> Tensor:
        """Patches ``(count, channels, size, size)``."""
        which = torch.multinomial(self._places, count, replacement=True, generator=generator)
        u, v = torch.rand(2, count, generator=generator, dtype=torch.float64)
        row = (u * self._rows[which]).long()
        column = (v * self._columns[which]).long()
        width = self._widths[which]
        corner = self._starts[which] + row * width + column
        step = torch.arange(self.size)
        pixels = corner[:, None, None] + step[:, None] * width[:, None, None] + step
        patches = self._flat[:, pixels].transpose(0, 1)
        return self._turned(patches, generator) if self.symmetric else patches

    def _turned(self, patches: Tensor, generator: torch.Generator) -> Tensor:
        """All eight symmetries of the square, each as likely, patch by patch."""
        flips = torch.rand(3, len(patches), generator=generator) < 0.5
        for flip, dims in zip(flips[:2], (2, 3), strict=True):
            patches = torch.where(_like(flip), patches.flip(dims), patches)
        return torch.where(_like(flips[2]), patches.transpose(2, 3), patches)


def _like(choice: Tensor) -> Tensor:
    return choice[:, None, None, None]
