"""Random numbers on a generator's device, in the laws that priors are made of."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(generator: torch.Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Uniform numbers in [low, high)."""
    u = torch.rand(*shape, generator=generator, device=generator.device)
    return low + (high - low) * u


def normal(generator: torch.Generator, *shape: int, mean: float = 0.0, sd: float = 1.0) -> Tensor:
    """Normal numbers."""
    return mean + sd * torch.randn(*shape, generator=generator, device=generator.device)


def gamma(generator: torch.Generator, *shape: int, concentration: float, rate: float) -> Tensor:
    """Gamma numbers of a shape (concentration) and a rate."""
    alpha = torch.full(shape, concentration, device=generator.device)
    return torch._standard_gamma(alpha, generator=generator) / rate


def beta(generator: torch.Generator, *shape: int, a: float, b: float) -> Tensor:
    """Beta numbers in (0, 1)."""
    first = gamma(generator, *shape, concentration=a, rate=1.0)
    return first / (first + gamma(generator, *shape, concentration=b, rate=1.0)).clamp_min(1e-12)


def integers(generator: torch.Generator, *shape: int, low: int, high: int) -> Tensor:
    """Whole numbers in low .. high, ends included."""
    return torch.randint(low, high + 1, shape, generator=generator, device=generator.device)


def happens(generator: torch.Generator, *shape: int, chance: float) -> Tensor:
    """Whether an event of that chance happens, as booleans."""
    return uniform(generator, *shape) < chance
