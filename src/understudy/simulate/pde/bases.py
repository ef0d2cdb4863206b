"""Discrete sines and cosines, which make finite differences on a box diagonal."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosine_basis(n: int) -> Tensor:
    """Orthonormal discrete cosine transform (n, n), whose rows are the modes of n cells."""
    k = torch.arange(n, dtype=torch.float64)
    basis = torch.cos(math.pi / n * torch.outer(k, k + 0.5)) * math.sqrt(2.0 / n)
    basis[0] /= math.sqrt(2.0)
    return basis


def sine_basis(n: int) -> Tensor:
    """Orthonormal sines (n, n), whose rows are the modes of n nodes between two at zero."""
    k = torch.arange(1, n + 1, dtype=torch.float64)
    return torch.sin(math.pi / (n + 1) * torch.outer(k, k)) * math.sqrt(2.0 / (n + 1))


def cell_sine_basis(n: int) -> Tensor:
    """Orthonormal sines (n, n), whose rows are the modes of n cells between walls at zero."""
    k = torch.arange(1, n + 1, dtype=torch.float64)
    basis = torch.sin(math.pi / n * torch.outer(k, k - 0.5)) * math.sqrt(2.0 / n)
    basis[-1] /= math.sqrt(2.0)
    return basis
