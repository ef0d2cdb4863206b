"""Whether the prior of digits rises with noise, with blur, and between two digits."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from understudy.models.inverse.lpn import LearnedProximalNetwork


def prior_orders(
    lpn: LearnedProximalNetwork, test: Tensor, generator: torch.Generator
) -> dict[str, float]:
    """Shares of images of which the prior has the right order, and the largest residual."""
    noise = torch.randn(test.shape, generator=generator).to(test)
    noisy = [test + level * noise for level in (0.0, 0.1, 0.2, 0.3)]
    soft = [test, *(blurred(test, sigma) for sigma in (1.0, 2.0, 3.0, 4.0))]
    middle = 0.5 * (test + test.roll(1, 0))
    groups = [torch.stack(noisy), torch.stack(soft), middle[None]]
    found = lpn.prior(torch.cat([group.flatten(0, 1) for group in groups]))
    parts = found.value.split([len(group) * len(test) for group in groups])
    by_noise, by_blur, between = (part.reshape(-1, len(test)) for part in parts)
    ends = torch.maximum(by_noise[0], by_noise[0].roll(1))
    return {
        "noise": rising(by_noise),
        "blur": rising(by_blur),
        "middle": float((between[0] > ends).double().mean()),
        "residual": float(found.residual.max()),
    }


def rising(values: Tensor) -> float:
    """Share of columns that rise throughout."""
    return float((values.diff(dim=0) > 0.0).all(0).double().mean())


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of the same size, dark outside."""
    width = 2 * math.ceil(3 * sigma)
    padded = nn.functional.pad(x, [width // 2] * 4)
    t = torch.arange(width + 1, dtype=x.dtype, device=x.device) - width // 2
    line = torch.exp(-0.5 * (t / sigma) ** 2)
    kernel = torch.outer(line, line) / line.sum() ** 2
    return nn.functional.conv2d(padded, kernel[None, None])
