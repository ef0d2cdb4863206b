"""Denoisers of digits: a proximal network, a plain one, and BM3D."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from understudy.core.loop import Settings, Trainer
from understudy.models.inverse.icnn import ConvexConvNet
from understudy.models.inverse.lpn import LearnedProximalNetwork
from understudy.models.inverse.proximal_matching import fit_lpn, image_schedule
from understudy.reproduce.proximal.sizes import Size

SIGMA = 0.1
"""Noise that networks of digits are trained with."""


class PlainDenoiser(nn.Module):
    """Convolutions that tell the noise of an image (as DnCNN does, arXiv 1608.03981)."""

    def __init__(self, width: int, depth: int = 5) -> None:
        super().__init__()
        sizes = [1, *[width] * (depth - 1), 1]
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, y: Tensor) -> Tensor:
        """Images ``(B, 1, height, width)`` of noisy ones."""
        return y - torch.as_tensor(self.layers(y))


class BM3D:
    """Images denoised one by one by the package bm3d."""

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma

    def __call__(self, y: Tensor) -> Tensor:
        """Images ``(B, 1, height, width)`` of noisy ones."""
        from bm3d import bm3d

        images = [bm3d(image, self.sigma) for image in y.squeeze(1).double().cpu().numpy()]
        return torch.as_tensor(np.stack(images)).unsqueeze(1).to(y)


def proximal(train: Tensor, size: Size, seed: int) -> LearnedProximalNetwork:
    """Proximal network of digits ``(n, 1, 28, 28)``, by absolute error, then proximal matching."""
    torch.manual_seed(seed)
    lpn = LearnedProximalNetwork(ConvexConvNet(hidden=size.hidden), SIGMA)
    fit_lpn(
        *(lpn, lambda n, g: train[torch.randint(len(train), (n,), generator=g)]),
        image_schedule(784, size.steps, size.steps),
        batch_size=size.batch,
        seed=seed,
        device=size.device,
    )
    return lpn


def plain_denoiser(train: Tensor, size: Size, seed: int) -> Callable[[Tensor], Tensor]:
    """Plain network of digits ``(n, 1, 28, 28)``, by squared error."""
    torch.manual_seed(seed)
    network = PlainDenoiser(size.hidden).to(size.device)
    generator = torch.Generator().manual_seed(seed)

    def loss(step: int) -> Tensor:
        clean = train[torch.randint(len(train), (size.batch,), generator=generator)]
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        return (network(clean + SIGMA * noise) - clean).square().mean()

    settings = Settings(max_steps=size.plain_steps)
    Trainer(network, torch.optim.Adam(network.parameters(), 1e-3), settings).run(loss)

    @torch.no_grad()
    def denoise(y: Tensor) -> Tensor:
        return torch.as_tensor(network(y))

    return denoise


def has_bm3d() -> bool:
    """Whether the package bm3d is installed."""
    from importlib.util import find_spec

    return find_spec("bm3d") is not None
