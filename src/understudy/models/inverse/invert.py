"""One image from one measurement, with a learned prior, from files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.space import nearest
from understudy.data.images import write_image
from understudy.models.inverse.imaging_operators import LinearOperator
from understudy.models.inverse.lpn import LearnedProximalNetwork
from understudy.models.inverse.named_operators import (
    named_operator,
    read_measurement,
    shaped_measurement,
)
from understudy.models.inverse.patchwise import Patchwise
from understudy.models.inverse.plug_and_play import (
    SCHEMES,
    SPLITTINGS,
    Interrupt,
    Listener,
    Prox,
    Reconstruction,
    Splitting,
    data_scale,
    pnp_pgd,
)
from understudy.models.inverse.prior_training import psnr


@dataclass(frozen=True)
class Inverted:
    """What :func:`invert_file` found.

    Parameters
    ----------
    image, start : Tensor (channels, height, width)
        The result, and the first guess.
    true : Tensor (channels, height, width) or None
    measurement : Tensor
        As an image ``(channels, height, width)`` where it is one, else its values ``(m,)``.
    in_view : Tensor (channels, height, width), bool
        Pixels in the field of view of the measurement.
    found : Reconstruction
        How the image was come by, with a batch of one.
    facts : dict
        ``iterations``, ``residual``, ``misfit``, ``converged``, ``diverged``, ``interrupted``;
        where the clean image is known ``psnr_start`` and ``psnr``, of the pixels in view, and
        ``in_view``, their share; of pgd on images of the network's size ``objective_rises``, the
        number of iterations that raised what it minimises.
    """

    image: Tensor
    start: Tensor
    true: Tensor | None
    measurement: Tensor
    in_view: Tensor
    found: Reconstruction
    facts: dict[str, Any]


def invert_file(
    model: str | Path,
    measurement: str | Path,
    operator: str,
    *,
    noise: float | None = None,
    scheme: str = "admm",
    iterations: int = 100,
    tolerance: float = 1e-4,
    rho: float = 0.1,
    scale: float | None = None,
    step: float | None = None,
    stride: int | None = None,
    simulate: bool = False,
    seed: int = 0,
    listener: Listener | None = None,
    interrupt: Interrupt = "raise",
) -> Inverted:
    r"""Reconstruct an image.

    Parameters
    ----------
    model : path
        A learned proximal network of images.
    measurement : path
        Image or array; the clean image with `simulate`.
    operator : str
        See :func:`named_operator`.
    noise : float, positive, optional
        Deviation of the noise of the measurement, for :func:`data_scale`.
    scheme : {"admm", "pgd", "hqs"}
    rho, scale, step
        See :mod:`~understudy.models.inverse.plug_and_play`; a scale takes the place of `noise`.
    stride : int, optional
        Between patches, for images larger than the network's.
    simulate : bool
        Measure the clean image first, with noise of `seed`.
    listener, interrupt
        See :func:`~understudy.models.inverse.plug_and_play.pnp_pgd`.
    """
    if scheme not in SCHEMES:
        raise UserError(
            f"no scheme is called {scheme!r}{nearest(scheme, tuple(SCHEMES))}; there are "
            f"{', '.join(SCHEMES)}"
        )
    if noise is not None and not 0.0 < noise < math.inf:
        raise UserError(
            f"the noise must be positive, found {noise:g}; leave it out where it is not known"
        )
    lpn = LearnedProximalNetwork.load(model)
    if len(lpn.shape) != 3:
        raise UserError(f"{model} is a prior of vectors of {lpn.shape[0]} values, not of images")
    values, true = read_measurement(measurement), None
    if simulate:
        true = torch.as_tensor(values if values.ndim == 3 else values[None])
    shape = None if true is None else tuple(true.shape)
    A = named_operator(operator, lpn.shape, image_shape=shape, measured=values.shape)
    prox = _prox(lpn, A, stride)
    y = shaped_measurement(values, A) if true is None else _measured(A, true, noise, seed)
    start = A.start(y)
    watch: dict[str, Any] = {"x0": start, "listener": listener, "interrupt": interrupt}
    if scheme == "pgd":
        watch |= {"iterations": iterations, "tolerance": tolerance}
        found = pnp_pgd(y, A, prox, step=step, **watch)
    else:
        weight = _weight(rho, lpn.sigma, noise, scale)
        settings = Splitting(rho, weight, iterations, tolerance)
        found = SPLITTINGS[scheme](y, A, prox, settings, **watch)
    picture = A.picture(y)
    measured = y[0].flatten() if picture is None else picture[0]
    view = A.in_view()
    facts = _facts(found, start, true, view)
    return Inverted(found.x[0], start[0], true, measured, view, found, facts)


def _facts(
    found: Reconstruction, start: Tensor, true: Tensor | None, view: Tensor
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "iterations": found.iterations,
        "residual": float(found.residuals[-1]),
        "misfit": float(found.misfits[-1]),
        "converged": bool(found.converged),
        "diverged": bool(found.diverged),
        "interrupted": found.interrupted,
    }
    if found.rises is not None:
        facts["objective_rises"] = int(found.rises.sum())
    if true is not None:
        wanted = true[None, view]
        facts |= {
            "psnr_start": psnr(start[:, view], wanted),
            "psnr": psnr(found.x[:, view], wanted),
        }
        facts["in_view"] = float(view.float().mean())
    return facts


def write_result(found: Inverted, path: str | Path) -> Path:
    """Write the image as a ``.png`` or, all digits kept, an ``.npy``."""
    path = Path(path)
    if path.suffix.lower() == ".npy":
        with path.open("wb") as file:
            np.save(file, found.image.numpy())
        return path
    return write_image(path, found.image.numpy())


def write_side_by_side(found: Inverted, path: str | Path) -> Path:
    """Write the start, the result and, where it is known, the clean image in a row."""
    images = [found.start, found.image] + ([] if found.true is None else [found.true])
    gap = torch.ones(*found.image.shape[:2], 2)
    row = [part for image in images for part in (image, gap)][:-1]
    return write_image(path, torch.cat(row, dim=2).numpy())


def _prox(lpn: LearnedProximalNetwork, operator: LinearOperator, stride: int | None) -> Prox:
    """Network itself, or on the patches of images that are larger than its own."""
    image, own = operator.image_shape, lpn.shape
    if tuple(image) == own:
        return lpn
    if image[0] != own[0]:
        raise UserError(f"the image has {image[0]} channels, the prior is of {own[0]}")
    if min(image[1:]) < own[1]:
        raise UserError(
            f"the image has {image[1]} x {image[2]} points, the prior needs {own[1]} x {own[2]} "
            "at least"
        )
    return Patchwise(lpn, own[1], min(stride or own[1] // 2, own[1]))


def _measured(operator: LinearOperator, true: Tensor, noise: float | None, seed: int) -> Tensor:
    y = operator(true[None])
    generator = torch.Generator().manual_seed(seed)
    return y + (noise or 0.0) * torch.randn(y.shape, generator=generator)


def _weight(rho: float, sigma: float, noise: float | None, scale: float | None) -> float:
    if scale is not None:
        return scale
    return 0.5 if noise is None else data_scale(rho, sigma, noise)
