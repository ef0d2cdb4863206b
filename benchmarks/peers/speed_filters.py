"""Our shared one-way filters beside the CP convolution of tensorly-torch: same numbers, in turns.

    PYTHONPATH=src python benchmarks/peers/speed_filters.py

Run by ``benchmarks/waves.py`` in the environment of the package; prints one line of JSON.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import tltorch
import torch
from torch import Tensor, nn

from understudy.core.cost import latencies
from understudy.nn.one_way_conv import OneWayConv2d

CHANNELS, POINTS, BATCH, ROUNDS = 32, 32, 8, 12


def pair(kernel: int, rank: int) -> tuple[OneWayConv2d, nn.Module]:
    """Our layer and theirs with the same terms."""
    mine = OneWayConv2d(CHANNELS, CHANNELS, kernel, rank, "shared", padding=kernel // 2, bias=False)
    theirs = tltorch.FactorizedConv(
        *(CHANNELS, CHANNELS, kernel),
        bias=False,
        order=2,
        padding=kernel // 2,
        rank=rank,
        factorization="cp",
        implementation="factorized",
    )
    channels, *ways, outputs = (f.detach().mT for f in mine.factors)
    with torch.no_grad():
        theirs.weight.weights.fill_(1.0)
        for own, values in zip(theirs.weight.factors, (outputs, channels, *ways), strict=True):
            own.copy_(values)
    return mine, theirs


def gradient(layer: nn.Module, x: Tensor) -> Callable[[], Any]:
    def call() -> None:
        layer.zero_grad()
        layer(x).square().mean().backward()

    return call


def prediction(layer: nn.Module, x: Tensor) -> Callable[[], Any]:
    return torch.no_grad()(lambda: layer(x))


def main() -> None:
    torch.manual_seed(0)
    rows = []
    for kernel, rank in ((3, 32), (5, 32), (5, 64), (7, 32)):
        mine, theirs = pair(kernel, rank)
        for layout in ("contiguous_format", "channels_last"):
            x = torch.randn(BATCH, CHANNELS, POINTS, POINTS)
            x = x.to(memory_format=getattr(torch, layout)).requires_grad_()
            gap = float((mine(x) - theirs(x)).detach().norm() / mine(x).detach().norm())
            both = {"ours": mine, "theirs": theirs, "dense": mine.to_dense()}
            for what, call in (("prediction", prediction), ("gradient", gradient)):
                calls = {name: call(net, x) for name, net in both.items()}
                seconds = latencies(calls, ROUNDS, time.process_time)
                rows.append(
                    {"kernel": kernel, "rank": rank, "layout": layout, "what": what, "gap": gap}
                    | {f"{name}_ms": 1e3 * s for name, s in seconds.items()}
                )
    packages = ("tensorly-torch", "tensorly", "torch")
    print(json.dumps({"rows": rows, "versions": {name: version(name) for name in packages}}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
