r"""What a network costs: parameters, bytes, multiplications and time.

A multiply-accumulate (MAC) is one product and its sum; a convolution of :math:`C` to :math:`O`
channels has :math:`O\,C\prod_d k_d` of them at each point of its output (of its input where it is
transposed), divided by its groups. They are counted while the network runs, so that what it
computes from its inputs' sizes is seen; element by element work, Fourier transforms and sums are
not counted. Time is measured, and need not follow them: work that waits for memory has few.
Memory is that of tensors as they come and go, without what a kernel needs for itself.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Cost:
    """Cost of a module for given inputs.

    Attributes
    ----------
    parameters : int
        Numbers that are learnt, each once where modules share it.
    bytes : int
        Of parameters and buffers as they are stored.
    macs : int
        Multiply-accumulates of one forward pass.
    seconds : float
        Least time of a forward pass over the repeats; NaN where it was not measured.
    """

    parameters: int
    bytes: int
    macs: int
    seconds: float


def count_parameters(module: nn.Module) -> int:
    """Numbers that are learnt, each once."""
    return sum(p.numel() for p in module.parameters())


def count_bytes(module: nn.Module) -> int:
    """Bytes of parameters and buffers, each once."""
    kept = [*module.parameters(), *module.buffers()]
    return sum(t.numel() * t.element_size() for t in kept)


def count_macs(module: nn.Module, *inputs: Any) -> int:
    """Multiply-accumulates of one forward pass on these inputs, without gradients."""
    with evaluating(module), FlopCounterMode(display=False) as counter:
        module(*inputs)
    return int(counter.get_total_flops()) // 2


def peak_bytes(call: Callable[[], Any], *modules: nn.Module) -> int:
    """Most bytes of tensors that a call makes and has at once.

    Parameters
    ----------
    call : callable () -> anything
        It is made twice: what is made by the first only, such as gradients, is not new.
    modules : nn.Module
        Their parameters and buffers were there before.
    """
    call()
    with _Alive(modules) as alive:
        call()
    return alive.most


class _Alive(TorchDispatchMode):
    """Bytes of the tensors that operations give, until they are gone."""

    def __init__(self, before: Iterable[nn.Module]) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: dict[int, int] = {}
        for module in before:
            for t in (*module.parameters(), *module.buffers()):
                self._know(t.untyped_storage(), 0)
                if t.grad is not None:
                    self._know(t.grad.untyped_storage(), 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, Tensor):
                self._see(t.untyped_storage())
        return out

    def _see(self, storage: Any) -> None:
        if storage._cdata not in self.known:
            self._know(storage, storage.nbytes())
            self.most = max(self.most, self.now)

    def _know(self, storage: Any, size: int) -> None:
        if storage._cdata not in self.known:
            self.known[storage._cdata] = size
            self.now += size
            weakref.finalize(storage, self._gone, storage._cdata)

    def _gone(self, place: int) -> None:
        self.now -= self.known.pop(place)


def latencies(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int = 7,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Least seconds of each call over rounds in which all take their turns.

    What else a machine does slows one call or another, and only ever slows; turns and the least
    make little of it. Each call is made once before, unmeasured.

    Parameters
    ----------
    calls : mapping of str to callable () -> anything
        What is measured; a GPU is waited for.
    rounds : int
    clock : callable () -> float
        Seconds; on a busy machine ``time.process_time`` tells what one thread computes from what
        it waits for.
    """
    for call in calls.values():
        call()
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            best[name] = min(best[name], _seconds(call, clock))
    return best


def _seconds(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    _synchronise()
    start = clock()
    call()
    _synchronise()
    return clock() - start


def _synchronise() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def cost(module: nn.Module, *inputs: Any, rounds: int = 0) -> Cost:
    """Cost of a module for these inputs; with no rounds its time is not measured."""
    seconds = float("nan")
    if rounds:
        with evaluating(module):
            seconds = latencies({"": lambda: module(*inputs)}, rounds)[""]
    return Cost(
        parameters=count_parameters(module),
        bytes=count_bytes(module),
        macs=count_macs(module, *inputs),
        seconds=seconds,
    )


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without gradients and in evaluation mode; afterwards each part is in its own mode again."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes.items():
            part.training = training


def inputs_of(model: nn.Module, names: list[str], *inputs: Any) -> dict[str, tuple[Any, ...]]:
    """What the modules of these names are given in one forward pass of a model.

    One that is called more than once is told by its last call, one that is not called is left out.
    """
    seen: dict[str, tuple[Any, ...]] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> None:
            seen[name] = tuple(t.detach() if isinstance(t, Tensor) else t for t in given)

        return hook

    handles = [model.get_submodule(name).register_forward_pre_hook(keep(name)) for name in names]
    try:
        with evaluating(model):
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return {name: seen[name] for name in names if name in seen}
