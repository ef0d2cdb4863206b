"""Measurements by a few words, as ``blur:sigma=1``, and files of measured values."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.space import nearest
from understudy.data.images import read_image
from understudy.models.inverse.imaging_operators import (
    CompressedSensing,
    GaussianBlur,
    Identity,
    Inpainting,
    LinearOperator,
    MatrixOperator,
    Radon,
    blur_width,
)

_ARRAYS = (".npy", ".npz")
_OPTIONS = {
    "denoise": (),
    "blur": ("sigma",),
    "inpaint": ("file",),
    "cs": ("ratio", "measurements", "seed"),
    "radon": ("angles",),
    "matrix": ("file",),
}
EXAMPLES = "denoise, blur:sigma=1, inpaint:mask.png, cs:ratio=4, radon:angles=60, matrix:A.npy"


def named_operator(
    text: str,
    network_shape: tuple[int, ...],
    *,
    image_shape: tuple[int, ...] | None = None,
    measured: tuple[int, ...] | None = None,
) -> LinearOperator:
    """Operator of a text.

    Parameters
    ----------
    text : str
        A name, and after a colon its options ``key=value`` joined by commas, or a file. See
        :data:`EXAMPLES`.
    network_shape : tuple of int
        Channels, height and width of the images where nothing else says them.
    image_shape : tuple of int, optional
        Of an image that will be measured.
    measured : tuple of int, optional
        Shape of what was measured, by which the size of the image is known where `image_shape` is
        not given.

    Raises
    ------
    UserError
        If there is no such operator, or an option is missing, unknown or no number.
    """
    name, _, rest = text.partition(":")
    if name not in _OPTIONS:
        raise UserError(
            f"no operator is called {name!r}{nearest(name, tuple(_OPTIONS))}; there are {EXAMPLES}"
        )
    options = _options(name, rest)
    shape = image_shape or _image_shape(name, options, measured, network_shape)
    makers: dict[str, Callable[[], LinearOperator]] = {
        "denoise": lambda: Identity(shape),
        "blur": lambda: GaussianBlur(shape, _number(name, options, "sigma")),
        "inpaint": lambda: _inpainting(options["file"], shape),
        "cs": lambda: CompressedSensing(shape, _measurements(options, shape), _seed(options)),
        "radon": lambda: _tomography(shape, _whole(name, options, "angles")),
        "matrix": lambda: MatrixOperator(_matrix(options["file"]), shape),
    }
    return makers[name]()


def read_measurement(path: str | Path) -> np.ndarray:
    """Measured values of an ``.npy`` or ``.npz`` file of one array, or of an image.

    Raises
    ------
    UserError
        If it cannot be read, holds several arrays, or values that are no finite numbers.
    """
    path = Path(path)
    if path.suffix.lower() not in _ARRAYS:
        return read_image(path)
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.lib.npyio.NpzFile):
            with found:
                if len(found.files) != 1:
                    raise UserError(f"{path} must hold one array, found {', '.join(found.files)}")
                found = found[found.files[0]]
        values = np.asarray(found, dtype=np.float32)
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} holds no array of numbers: {error}") from error
    if not np.isfinite(values).all():
        raise UserError(f"{path} has values that are not finite numbers")
    return values


def shaped_measurement(values: np.ndarray, operator: LinearOperator) -> Tensor:
    """Values as one measurement ``(1, *measurement_shape)`` of an operator."""
    wanted = operator.measurement_shape
    if values.size != math.prod(wanted):
        raise UserError(
            f"the measurement has the shape {values.shape}; the operator gives {tuple(wanted)}"
        )
    return torch.as_tensor(values).float().reshape(1, *wanted)


def _options(name: str, rest: str) -> dict[str, str]:
    known = _OPTIONS[name]
    if known == ("file",):
        if not rest:
            raise UserError(f"{name} needs a file, as in {name}:FILE")
        return {"file": rest}
    options = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if key not in known or not equals:
            takes = ", ".join(f"{key}=" for key in known) or "no options"
            raise UserError(f"{name} takes {takes}, found {part!r}")
        options[key] = value
    return options


def _number(name: str, options: dict[str, str], key: str) -> float:
    try:
        return float(options[key])
    except KeyError:
        raise UserError(f"{name} needs {key}=, as in {EXAMPLES}") from None
    except ValueError:
        raise UserError(f"{name}: {key} must be a number, found {options[key]!r}") from None


def _whole(name: str, options: dict[str, str], key: str) -> int:
    value = _number(name, options, key)
    if value != int(value):
        raise UserError(f"{name}: {key} must be a whole number, found {options[key]}")
    return int(value)


def _image_shape(
    name: str,
    options: dict[str, str],
    measured: tuple[int, ...] | None,
    network_shape: tuple[int, ...],
) -> tuple[int, ...]:
    """Shape of the image that a measurement is of."""
    if measured is None or name in ("cs", "matrix"):
        return network_shape
    if name == "radon":
        return (1, measured[-1], measured[-1])
    shape = (1, *measured) if len(measured) == 2 else measured
    if len(shape) != 3:
        raise UserError(f"{name} is for images; the measurement has the shape {measured}")
    if name != "blur":
        return shape
    more = blur_width(_number(name, options, "sigma")) - 1
    return (shape[0], shape[1] + more, shape[2] + more)


def _inpainting(file: str, shape: tuple[int, ...]) -> Inpainting:
    mask = torch.as_tensor(read_measurement(file))
    mask = mask.amax(0) if mask.ndim == 3 else mask
    if tuple(mask.shape) != tuple(shape[1:]):
        raise UserError(
            f"the mask {file} has {' x '.join(map(str, mask.shape))} points, the image "
            f"{shape[1]} x {shape[2]}"
        )
    return Inpainting(mask, shape[0])


def _measurements(options: dict[str, str], shape: tuple[int, ...]) -> int:
    if "measurements" in options:
        return _whole("cs", options, "measurements")
    ratio = _number("cs", options, "ratio")
    if not ratio >= 1.0:
        raise UserError(f"cs: ratio, pixels a measurement, must be at least 1, found {ratio:g}")
    return max(1, round(shape[1] * shape[2] / ratio))


def _seed(options: dict[str, str]) -> int:
    return _whole("cs", options, "seed") if "seed" in options else 0


def _tomography(shape: tuple[int, ...], angles: int) -> Radon:
    if shape[0] != 1 or shape[1] != shape[2]:
        raise UserError(f"tomography is of square images of one channel, found {tuple(shape)}")
    return Radon(shape[1], angles)


def _matrix(file: str) -> Tensor:
    return torch.as_tensor(read_measurement(file))
