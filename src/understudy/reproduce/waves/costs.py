"""Memory of training, and seconds of predictions and gradients."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from understudy.core.cost import count_bytes, evaluating, latencies, peak_bytes
from understudy.models.operators.one_way import OneWayNetwork
from understudy.models.operators.wave_cnn import WaveCNN
from understudy.nn.one_way_network import set_way
from understudy.reproduce.waves.networks import RANKS, WAYS, dense_network, one_way_network
from understudy.reproduce.waves.setting import STATE, Size, zero_fields

Seconds = dict[str, dict[str, float]]
"""By layout and network."""

_LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


def training_bytes(network: nn.Module, size: Size) -> tuple[int, int, int]:
    """Bytes that training takes.

    Returns
    -------
    own : int
        Of weights, gradients and Adam's two moments.
    kept : int
        Of what is kept for the gradient of a batch.
    most : int
        At once while it is computed, gradients included.
    """
    network.train()
    device = next(network.parameters()).device
    u = zero_fields(size, size.batch_size).to(device)
    kept: dict[int, int] = {}

    def keep(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        out = network(u)
    del out
    held = sum(n for place, n in kept.items() if place not in own)
    return 4 * count_bytes(network), held, peak_bytes(_gradient(network, u), network)


def timed(size: Size, seed: int, kernel: int, rank: int) -> tuple[Seconds, Seconds]:
    """Least seconds of predictions and of gradients.

    Parameters
    ----------
    size : Size
    seed : int
    kernel : int
        Points along a side of it.
    rank : int
        Of the one-way network whose gradient is computed in every way.
    """
    channels, points, batch, rounds = size.timed
    wide = replace(size, channels=channels, kernel=kernel)
    torch.manual_seed(seed)
    u = torch.randn(batch, STATE, points, points).to(size.device)
    networks: dict[str, nn.Module] = {"dense": dense_network(wide)}
    networks |= {f"rank {r}": one_way_network(wide, r) for r in RANKS}
    ways = {f"rank {rank} {way}": set_way(one_way_network(wide, rank), way) for way in WAYS}
    # of one thread on a processor that others use too
    clock = time.perf_counter if size.device == "cuda" else time.process_time
    found: tuple[Seconds, Seconds] = ({}, {})
    for layout, memory_format in _LAYOUTS.items():
        for network in (*networks.values(), *ways.values()):
            network.to(size.device)
            _cnn(network).memory_format = memory_format
        calls = {name: _forward(network, u) for name, network in networks.items()}
        found[0][layout] = latencies(calls, rounds, clock)
        calls = {name: _gradient(network, u) for name, network in (networks | ways).items()}
        found[1][layout] = latencies(calls, rounds, clock)
    return found


def _cnn(network: nn.Module) -> WaveCNN:
    inner = network.network if isinstance(network, OneWayNetwork) else network
    assert isinstance(inner, WaveCNN)
    return inner


def _forward(network: nn.Module, u: Tensor) -> Callable[[], Any]:
    def call() -> Any:
        with evaluating(network):
            return network(u)

    return call


def _gradient(network: nn.Module, u: Tensor) -> Callable[[], Any]:
    network.train()

    def call() -> None:
        network.zero_grad()
        network(u).square().mean().backward()

    return call
