"""A learned proximal network of a folder of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.loop import Event
from understudy.data.images import read_images
from understudy.models.inverse.icnn import ConvexConvNet, ConvexNetwork
from understudy.models.inverse.image_patches import ImagePatches
from understudy.models.inverse.lpn import LearnedProximalNetwork
from understudy.models.inverse.proximal_matching import Stage, fit_lpn, image_schedule

_VALIDATION = 64  # patches
_TENTH = 10
_VALIDATE_EVERY = 100


@dataclass(frozen=True)
class TrainedPrior:
    """A network, and what is known of its training.

    Parameters
    ----------
    lpn : LearnedProximalNetwork
    facts : dict
        ``images``, ``steps``, ``seconds``, ``interrupted``, ``psnr_noisy`` and ``psnr`` on
        patches of images that were not learnt from, where there were two at least.
    unseen, noisy : Tensor (64, channels, size, size)
        Those patches, and they with noise.
    curve : tuple of (step, loss)
        Loss of the unseen patches, the best so far, where it was looked at.
    """

    lpn: LearnedProximalNetwork
    facts: dict[str, Any]
    unseen: Tensor
    noisy: Tensor
    curve: tuple[tuple[int, float], ...]


def prior_schedule(values: int, steps: int) -> tuple[Stage, ...]:
    """Stages of the paper, half absolute error and half proximal matching."""
    return image_schedule(values, steps - steps // 2, steps // 2)


def image_network(
    channels: int, size: int, hidden: int, beta: float | None = None
) -> ConvexNetwork:
    """Network of square images: that of the paper's patches, or of its digits if 8 does not divide.

    Parameters
    ----------
    channels, size, hidden : int
        See :class:`ConvexConvNet`.
    beta : float, positive, optional
        Sharpness of the softplus; the paper's by default, 100 for patches and 10 for digits.

    Raises
    ------
    UserError
        If 4 does not divide the size.
    """
    if size < 4 or size % 4:
        raise UserError(f"the size of patches must be a multiple of 4, found {size}")
    if size % 8:
        return ConvexConvNet(channels, size, hidden, beta=10.0 if beta is None else beta)
    sharpness = 100.0 if beta is None else beta
    return ConvexConvNet.patches(channels, size, hidden, head=hidden, beta=sharpness)


def train_prior(
    folder: str | Path,
    sigma: float,
    *,
    size: int = 32,
    channels: int = 1,
    hidden: int = 16,
    beta: float | None = None,
    schedule: Sequence[Stage],
    batch_size: int = 64,
    symmetric: bool = False,
    checkpoint: Path | None = None,
    device: str = "cpu",
    seed: int = 0,
    listener: Callable[[Event], None] | None = None,
) -> TrainedPrior:
    """Train on random patches of the images of a folder.

    Every tenth image is kept apart; patches of these choose the best weights. An interrupt ends the
    training and keeps them.

    Parameters
    ----------
    folder : str or Path
    sigma : float, positive
        Deviation of the noise; images are between 0 and 1.
    size, channels, hidden, beta
        Of :func:`image_network`.
    schedule : sequence of Stage
    symmetric : bool
        See :class:`ImagePatches`.
    batch_size, checkpoint, device, seed, listener
        See :func:`fit_lpn`.
    """
    torch.manual_seed(seed)
    lpn = LearnedProximalNetwork(image_network(channels, size, hidden, beta), sigma)
    images = [torch.as_tensor(image) for image in read_images(folder, channels, size)]
    unseen = images[::_TENTH] if len(images) > 1 else images
    seen = [image for k, image in enumerate(images) if k % _TENTH] or images
    generator = torch.Generator().manual_seed(seed)
    validation = ImagePatches(unseen, size)(_VALIDATION, generator)
    curve: list[tuple[int, float]] = []

    def listen(event: Event) -> None:
        if event.step % _VALIDATE_EVERY == 0 and event.score is not None:
            curve.append((event.step, float(event.score)))
        if listener is not None:
            listener(event)

    outcome = fit_lpn(
        lpn,
        ImagePatches(seen, size, symmetric),
        schedule,
        batch_size=batch_size,
        seed=seed,
        validation=validation.to(device),
        validate_every=_VALIDATE_EVERY,
        checkpoint=checkpoint,
        device=device,
        interrupt="return",
        listener=listen,
    )
    lpn.to("cpu")
    noisy = validation + sigma * torch.randn(validation.shape, generator=generator)
    facts = {
        "images": len(images),
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 1),
        "interrupted": outcome.reason == "interrupt",
        "psnr_noisy": psnr(noisy, validation),
        "psnr": psnr(lpn.in_parts(noisy), validation),
    }
    return TrainedPrior(lpn, facts, validation, noisy, tuple(curve))


def psnr(image: Tensor, true: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of images in [0, 1], mean over images."""
    squared = (image - true).flatten(1).square().mean(1)
    return float((-10.0 * squared.clamp_min(1e-12).log10()).mean())
