"""Images for a page: PNG files within it, enlarged by whole numbers."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from understudy.data.images import png

_WIDTH = 240
"""Of small images on a page, about, in its points; larger ones are shown as they are."""
_WIDEST = 520


def picture(title: str, image: Tensor) -> dict[str, Any]:
    """Title, PNG in base64, and size on the page of an image ``(channels, height, width)``."""
    height, width = image.shape[1:]
    factor = max(1, round(_WIDTH / width))
    scale = min(1.0, _WIDEST / (factor * width))
    values = np.asarray(image.detach().cpu().float())
    return {
        "title": title,
        "png": base64.b64encode(png(values)).decode(),
        "width": round(scale * factor * width),
        "height": round(scale * factor * height),
    }


def stretched(image: Tensor) -> Tensor:
    """Values from the least to the largest as 0 to 1; a constant image is grey."""
    low, high = image.min(), image.max()
    return (image - low) / (high - low) if bool(high > low) else torch.full_like(image, 0.5)


def difference(image: Tensor, true: Tensor) -> tuple[Tensor, float]:
    """Error about grey, and the size of the error that is black or white."""
    error = image - true
    largest = max(float(error.abs().max()), 1e-6)
    return 0.5 + 0.5 * error / largest, largest


def tiled(images: Tensor, columns: int, gap: int = 1) -> Tensor:
    """Images ``(n, channels, height, width)`` in rows on one, with white between."""
    rows = []
    for part in images.split(columns):
        blank = torch.ones_like(images[:1]).expand(columns - len(part), -1, -1, -1)
        rows.append(_joined(list(torch.cat([part, blank])), 2, gap))
    return _joined(rows, 1, gap)


def _joined(images: Sequence[Tensor], axis: int, gap: int) -> Tensor:
    shape = list(images[0].shape)
    shape[axis] = gap
    white = torch.ones(shape)
    parts = [part for image in images for part in (image, white)][:-1]
    return torch.cat(parts, axis)
