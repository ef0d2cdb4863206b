"""A network whose passes are replayed by the device as one graph of kernels.

Small networks on fast devices wait for the processor to launch their hundreds of kernels one by
one. Within :func:`captured`, forward and backward pass of a network in training mode are recorded
once (CUDA graphs) and replayed since, bit for bit; the parameters are read anew each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from understudy.models.operators.network import FieldNetwork


@contextmanager
def captured(network: FieldNetwork, u: Tensor, p: Tensor | None = None) -> Iterator[None]:
    """Record a network for a while; nothing happens off CUDA devices.

    Parameters
    ----------
    network : FieldNetwork
        On its device. Its parameters must stay where they are.
    u, p : Tensor
        Of the shapes, the dtype and the device that every call in training has.
    """
    if u.device.type != "cuda":
        yield
        return
    mode = network.training
    network.train()
    given = (u,) if p is None else (u, p)
    cudnn = torch.backends.cudnn
    before, cudnn.benchmark = cudnn.benchmark, True  # shapes are fixed, so that trying pays
    try:
        cast(Any, torch.cuda.make_graphed_callables)(network, given)
    finally:
        cudnn.benchmark = before
    try:
        yield
    finally:
        del network.forward  # the recorded one, which hides that of the class
        network.train(mode)
