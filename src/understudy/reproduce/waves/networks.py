"""Dense and one-way networks of a scale, the shared, and the narrow that is a control."""

from __future__ import annotations

from understudy.core.cost import count_parameters
from understudy.models.operators.one_way import OneWayNetwork
from understudy.models.operators.wave_cnn import WaveCNN
from understudy.nn.one_way_filters import Way
from understudy.nn.one_way_network import OneWayPlan
from understudy.reproduce.waves.setting import STATE, Size

RANKS = (1, 2, 4)
"""Terms of a one-way filter, of which one number stands for the method."""

WAYS: tuple[Way, ...] = ("chain", "recomputed", "composed")
"""In which one-way filters can be computed; which is taken unless one is named goes by sizes."""

_SHARED_AS = 2
"""The shared terms are so many that they have the weights of this rank of filters."""


def dense_network(size: Size, channels: int | None = None) -> WaveCNN:
    """Dense network of a scale, or one of so many channels."""
    return WaveCNN(
        *(STATE, STATE),
        channels=channels or size.channels,
        kernel=size.kernel,
        blocks=size.blocks,
    )


def one_way_network(size: Size, rank: int) -> OneWayNetwork:
    """The same network with one-way filters of a rank; its two ends stay dense."""
    return OneWayNetwork(dense_network(size), OneWayPlan(rank))


def shared_network(size: Size) -> OneWayNetwork:
    """Shared terms with no more weights a layer than filters of rank 2."""
    C, k = size.channels, size.kernel
    rank = max(_SHARED_AS * C * (C + 2 * k) // (2 * (C + k)), 1)
    return OneWayNetwork(dense_network(size), OneWayPlan(rank, "shared"))


def narrow_network(size: Size, weights: int) -> WaveCNN:
    """The narrowest dense network of no fewer weights."""
    channels = 1
    while count_parameters(network := dense_network(size, channels)) < weights:
        channels += 1
    return network
