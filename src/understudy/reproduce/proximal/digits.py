"""All that is measured on handwritten digits, with one proximal and one plain network."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from understudy.data.images import handwritten_digits
from understudy.models.inverse.prior_training import psnr
from understudy.reproduce.proximal.denoisers import SIGMA, plain_denoiser, proximal
from understudy.reproduce.proximal.digit_priors import prior_orders
from understudy.reproduce.proximal.restoration import descents, restored
from understudy.reproduce.proximal.sizes import Size


@dataclass(frozen=True)
class Found:
    """What the digits gave: name of the data, figures, and shares of images, by name."""

    data: str
    values: dict[str, float]


def digits(size: Size, seed: int) -> Found:
    """Train both networks, and measure priors, restorations and descents on other digits."""
    images, name = handwritten_digits()
    x = torch.as_tensor(images)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x = x[order].to(size.device)
    held = max(size.tests + size.tuned, len(x) // 5)
    train, tune = x[held:], x[size.tests : size.tests + size.tuned]
    test = x[: size.tests]
    lpn, plain = proximal(train, size, seed), plain_denoiser(train, size, seed)
    generator = torch.Generator().manual_seed(seed)
    noisy = test + SIGMA * torch.randn(test.shape, generator=generator).to(test)
    values = {
        "noisy": psnr(noisy, test),
        "denoised LPN": psnr(lpn.in_parts(noisy), test),
        "denoised plain": psnr(plain(noisy), test),
    }
    values |= prior_orders(lpn, test, generator)
    values |= restored(lpn, plain, tune, test, size, generator)
    values |= descents(lpn, plain, test, size, generator)
    return Found(name, values)
