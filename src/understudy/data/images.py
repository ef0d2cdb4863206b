"""Images as arrays between 0 and 1: from files, and handwritten digits. Needs scikit-image."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""Of files that are taken for images in a folder."""

_DIGITS = "vision/mnist-t10k-images-idx3-ubyte.gz"


def read_image(path: str | Path, channels: int | None = None) -> np.ndarray:
    """Read one image.

    Parameters
    ----------
    path : str or Path
    channels : {1, 3}, optional
        Grey or colour; what is in the file is changed to it. As in the file by default.

    Returns
    -------
    array (channels, height, width)
        float32 in [0, 1]; an opacity is dropped.

    Raises
    ------
    UserError
        If it is no image, or has more than two dimensions and a channel.
    """
    imread = _skimage("io").imread
    try:
        image = _skimage("util").img_as_float32(imread(path))
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{path} is no image that can be read: {error}") from error
    if image.ndim == 3 and image.shape[2] in (2, 4):
        image = image[..., :-1]
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3):
        raise UserError(f"{path} has the shape {image.shape}; an image is grey or in colour")
    if channels == 1 and image.shape[2] == 3:
        image = _skimage("color").rgb2gray(image)[..., None]
    elif channels == 3 and image.shape[2] == 1:
        image = image.repeat(3, axis=2)
    if not np.isfinite(image).all():
        raise UserError(f"{path} has values that are not finite numbers")
    return np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)


def read_images(folder: str | Path, channels: int = 1, at_least: int = 1) -> list[np.ndarray]:
    """Read all images of a folder and its folders, in the order of their names.

    Parameters
    ----------
    folder : str or Path
    channels : {1, 3}
    at_least : int
        Points along the shorter side; smaller images are refused.

    Returns
    -------
    list of array (channels, height, width)
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise UserError(f"{folder} has no image; accepted are {', '.join(SUFFIXES)}")
    images = [read_image(path, channels) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if min(image.shape[1:]) < at_least:
            raise UserError(
                f"{path} has {image.shape[1]} x {image.shape[2]} points; "
                f"{at_least} x {at_least} are needed"
            )
    return images


def write_image(path: str | Path, image: np.ndarray) -> Path:
    """Write an image ``(channels, height, width)``, cut to [0, 1], with 8 bits a value."""
    path = Path(path)
    try:
        _skimage("io").imsave(path, _eight_bits(image), check_contrast=False)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write the image {path}: {error}") from error
    return path


def png(image: np.ndarray) -> bytes:
    """Content of a PNG file of an image ``(channels, height, width)``, cut to [0, 1]."""
    from io import BytesIO

    from PIL import Image  # scikit-image brings it

    content = BytesIO()
    Image.fromarray(_eight_bits(image)).save(content, "png")
    return content.getvalue()


def _eight_bits(image: np.ndarray) -> np.ndarray:
    """Values of 0 to 255, ``(height, width)`` or with channels last."""
    values = np.rint(255.0 * np.clip(image, 0.0, 1.0)).astype(np.uint8).transpose(1, 2, 0)
    return values[..., 0] if values.shape[2] == 1 else values


def handwritten_digits() -> tuple[np.ndarray, str]:
    """Images of handwritten digits, and which they are.

    The 10,000 test images of MNIST, 28 x 28, where the folder ``UNDERSTUDY_DATA`` has them; else
    the 1,797 of scikit-learn, 8 x 8, enlarged to 28 x 28.

    Returns
    -------
    images : array (n, 1, 28, 28)
        float32 in [0, 1].
    name : {"MNIST", "digits"}
    """
    folder = os.environ.get("UNDERSTUDY_DATA")
    path = Path(folder, _DIGITS) if folder else None
    if path is not None and path.exists():
        content = gzip.decompress(path.read_bytes())
        values = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 1, 28, 28)
        return values.astype(np.float32) / 255.0, "MNIST"
    from sklearn.datasets import load_digits

    small = load_digits().images.astype(np.float32) / 16.0
    zoomed = np.stack([_skimage("transform").resize(image, (28, 28)) for image in small])
    return zoomed[:, None].astype(np.float32), "digits"


def _skimage(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"skimage.{module}")
    except ModuleNotFoundError as error:
        raise UserError("images need scikit-image: pip install 'understudy[inverse]'") from error
