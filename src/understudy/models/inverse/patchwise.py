"""A proximal operator of small images on larger ones."""

from __future__ import annotations

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.models.inverse.plug_and_play import Prox


class Patchwise:
    """A proximal operator of small images on larger ones: overlapping patches, averaged.

    Where all pixels are in as many patches, the average is the gradient of the sum of convex
    functions of patches and thus a proximal operator too. At the sides, where patches are fewer, it
    is one in a norm that weighs pixels by the number of their patches.

    Parameters
    ----------
    prox : callable (B, channels, size, size) -> the same
    size : int
        Height and width of a patch.
    stride : int
        Between patches; the last of a row ends at the side.
    """

    def __init__(self, prox: Prox, size: int, stride: int) -> None:
        if not 1 <= stride <= size:
            raise UserError(f"the stride of patches must be in 1 to {size}, found {stride}")
        self.prox, self.size, self.stride = prox, size, stride

    @torch.no_grad()
    def __call__(self, y: Tensor) -> Tensor:
        """Denoise images ``(B, channels, height, width)``, no smaller than a patch."""
        places = [self._places(n) for n in y.shape[2:]]
        corners = [(r, c) for r in places[0] for c in places[1]]
        n = self.size
        patches = torch.cat([y[:, :, r : r + n, c : c + n] for r, c in corners])
        total, count = torch.zeros_like(y), torch.zeros_like(y[:1, :1])
        parts = torch.cat([self.prox(part) for part in patches.split(64)])
        for (r, c), part in zip(corners, parts.chunk(len(corners)), strict=True):
            total[:, :, r : r + n, c : c + n] += part
            count[:, :, r : r + n, c : c + n] += 1.0
        return total / count

    def _places(self, n: int) -> list[int]:
        if n < self.size:
            raise UserError(f"an image of {n} points is smaller than the patch of {self.size}")
        places = list(range(0, n - self.size + 1, self.stride))
        return places if places[-1] == n - self.size else [*places, n - self.size]
