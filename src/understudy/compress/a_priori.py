"""A-priori compression of convolutional networks (Boukraichi et al. 2023, arXiv 2304.04964).

A network is compressed *before* it is trained: its convolutions are rewritten as products of
one-way filters (:mod:`understudy.nn.one_way_filters`), whose factors are what is then learnt, so
that no dense kernel is ever stored, trained or decomposed. Compression *a posteriori*, which
decomposes the kernels of a trained network, is here for comparison and for networks that cannot be
trained again.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from understudy.core.convert import Change, Swap, compare
from understudy.core.cost import count_bytes, count_parameters
from understudy.core.errors import UserError
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.network import FieldNetwork
from understudy.models.operators.one_step import LearnedStepper, OneStepModel
from understudy.models.operators.one_way import OneWayNetwork
from understudy.nn.one_way_filters import Mode
from understudy.nn.one_way_network import OneWayPlan, Start, one_way

Operator = TypeVar("Operator", bound=LearnedStepper | FieldMap)


@dataclass(frozen=True)
class Compression:
    """What became of a network.

    Attributes
    ----------
    plan : OneWayPlan
    before, after : nn.Module
    swaps : list of Swap
        Convolutions that were rewritten.
    left : dict of str to str
        Those that stayed, and why.
    """

    plan: OneWayPlan
    before: nn.Module
    after: nn.Module
    swaps: list[Swap]
    left: dict[str, str]

    @property
    def ratio(self) -> float:
        """Parameters of the whole network before by those after."""
        return count_parameters(self.before) / count_parameters(self.after)

    def table(self) -> list[dict[str, Any]]:
        """Row for each convolution that was rewritten and for the whole: parameters and bytes."""
        pairs = [(s.name, s.before, s.after) for s in self.swaps]
        return [
            _row(name, *_sizes(before), *_sizes(after))
            for name, before, after in [*pairs, ("all", self.before, self.after)]
        ]

    def measured(self, *inputs: Any, rounds: int = 7) -> list[dict[str, Any]]:
        """The same with multiply-accumulates and times for given inputs of the network.

        Times are the least of some rounds, dense and one-way in turns, and depend on the machine,
        the threads and the sizes: fewer multiplications need not take less time.
        """
        found = compare(self.before, self.after, self.swaps, *inputs, rounds=rounds)
        return [_row_of(change) for change in found]


def _sizes(module: nn.Module) -> tuple[int, int]:
    return count_parameters(module), count_bytes(module)


def _row(name: str, dense: int, dense_bytes: int, small: int, small_bytes: int) -> dict[str, Any]:
    return {
        "layer": name,
        "parameters_before": dense,
        "parameters_after": small,
        "ratio": dense / max(small, 1),
        "bytes_before": dense_bytes,
        "bytes_after": small_bytes,
    }


def _row_of(change: Change) -> dict[str, Any]:
    old, new = change.before, change.after
    return _row(change.name, old.parameters, old.bytes, new.parameters, new.bytes) | {
        "macs_before": old.macs,
        "macs_after": new.macs,
        "ms_before": 1e3 * old.seconds,
        "ms_after": 1e3 * new.seconds,
        "speedup": change.speedup,
    }


def compress_a_priori(
    model: nn.Module,
    rank: int = 1,
    mode: Mode = "per_filter",
    skip: Sequence[str] = ("first", "last"),
    min_kernel: int = 2,
) -> tuple[nn.Module, Compression]:
    """Untrained network with one-way filters in the place of convolutions, to be trained.

    Parameters
    ----------
    model : nn.Module
        A fresh network; it stays as it is. Of a trained one the filters forget what it learnt.
    rank : int
        Terms of each kernel; 1 is the paper's basic layer.
    mode : {"per_filter", "shared", "spatial"}
        See :mod:`understudy.nn.one_way_filters`.
    skip : sequence of str
        Convolutions to leave: ``"first"``, ``"last"``, or names, ``*`` for any part of one.
    min_kernel : int
        Those with fewer points along every axis stay; of 1 x 1 there is nothing to gain. So do
        those that would not become smaller.

    Returns
    -------
    nn.Module, Compression
        A `FieldNetwork` comes back as one, so that operators of it can be kept in files.

    Raises
    ------
    UserError
        If a convolution has groups, or none is left to rewrite.
    """
    return _compressed(model, OneWayPlan(rank, mode, tuple(skip), min_kernel), "fresh")


def truncate(
    model: nn.Module,
    rank: int = 1,
    mode: Mode = "per_filter",
    skip: Sequence[str] = ("first", "last"),
    min_kernel: int = 2,
) -> tuple[nn.Module, Compression]:
    """Compress a *trained* network: its kernels are decomposed; the arguments are the same."""
    return _compressed(model, OneWayPlan(rank, mode, tuple(skip), min_kernel), "truncated")


def _compressed(model: nn.Module, plan: OneWayPlan, start: Start) -> tuple[nn.Module, Compression]:
    if isinstance(model, OneWayNetwork):
        raise UserError("the network has one-way filters already")
    _, left = plan.choose(model)
    if isinstance(model, FieldNetwork):
        network = OneWayNetwork(model, plan, start)
        return network, Compression(plan, model, network, network.swaps, left)
    after, swaps = one_way(model, plan, start)
    return after, Compression(plan, model, after, swaps, left)


def rebuilt(
    operator: Operator, plan: OneWayPlan, start: Start = "fresh"
) -> tuple[Operator, Compression]:
    """Operator with a compressed network; the operator itself stays as it is.

    Parameters
    ----------
    operator : LearnedStepper or FieldMap
    plan : OneWayPlan
    start : {"fresh", "truncated"}
        A fresh one has to be fitted before it is of any use; a truncated one can be used as it is.
    """
    network, report = _compressed(operator.network, plan, start)
    assert isinstance(network, FieldNetwork)
    new = copy.copy(operator)
    new.network = network
    new.outcome = None
    return new, report


def example_inputs(operator: LearnedStepper | FieldMap, batch: int = 1) -> tuple[Tensor, ...]:
    """What the network of an operator is given for so many fields: zeros of its shapes."""
    import torch

    shape = operator.grid.shape
    if isinstance(operator, FieldMap):
        channels = len(operator.inputs)
    elif isinstance(operator, OneStepModel):
        channels = operator.history * len(operator.inputs)
    else:
        raise UserError(
            f"an operator of the kind {operator.model!r} gives its network more than fields"
        )
    fields = torch.zeros(batch, channels, *shape)
    numbers = len(operator.parameters)
    return (fields, torch.zeros(batch, numbers)) if numbers else (fields,)
