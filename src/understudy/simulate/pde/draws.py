r"""Random numbers that depend on a seed and an index alone, for many seeds at once.

Each number is the output function of SplitMix64 (Steele, Lea & Flood 2014) of a counter,

.. math:: u = 2^{-53} \left(\lfloor s(s(s(\text{seed}) + \text{stream}) \oplus s(\text{index}))
    / 2^{11} \rfloor + \tfrac12\right)

so that what is drawn for one Fourier mode of one run depends neither on the other runs of a batch
nor on how many modes a grid resolves.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def uniform(seed: Tensor, stream: int, index: Tensor) -> Tensor:
    """Uniform numbers ``(B, *index)`` between 0 and 1, float64.

    Parameters
    ----------
    seed : Tensor (B,)
        Whole numbers, of any dtype.
    stream : int
        Sets apart what is drawn for different ends.
    index : Tensor, int64
        Which of the numbers of a stream; of any shape, and of any sign.
    """
    key = _mixed(_mixed(seed.detach().to(torch.int64)) + stream)
    bits = _mixed(key.reshape(-1, *[1] * index.ndim) ^ _mixed(index))
    return (_shifted(bits, 11).to(torch.float64) + 0.5) * 2.0**-53


def normal(seed: Tensor, stream: int, index: Tensor) -> Tensor:
    """Standard normal numbers ``(B, *index)``, float64, by Box and Muller; see :func:`uniform`."""
    radius = (-2.0 * uniform(seed, 2 * stream, index).log()).sqrt()
    return radius * (2.0 * math.pi * uniform(seed, 2 * stream + 1, index)).cos()


def _mixed(x: Tensor) -> Tensor:
    x = x + _GOLDEN
    x = (x ^ _shifted(x, 30)) * _FIRST
    x = (x ^ _shifted(x, 27)) * _SECOND
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right of signed numbers."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
