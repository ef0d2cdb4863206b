"""Swap modules of a network for others, and say what that changed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from understudy.core.cost import Cost, cost, evaluating, inputs_of, latencies
from understudy.core.errors import UserError


@dataclass(frozen=True)
class Swap:
    """A module of a network and what came in its place."""

    name: str
    before: nn.Module
    after: nn.Module


@dataclass(frozen=True)
class Change:
    """What a swap, or all of them, did to the cost of a module.

    Attributes
    ----------
    name : str
        The module's place in the network; ``"all"`` is the whole network.
    kind : str
        Name of the class that came in its place.
    before, after : Cost
    """

    name: str
    kind: str
    before: Cost
    after: Cost

    @property
    def ratio(self) -> float:
        """Parameters before by those after."""
        return self.before.parameters / max(self.after.parameters, 1)

    @property
    def speedup(self) -> float:
        """Seconds before by those after; NaN where they were not measured."""
        return self.before.seconds / self.after.seconds


def layers(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> list[str]:
    """Names of the modules of these classes, in order; a shared one by its first name."""
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def swap(
    model: nn.Module, names: Iterable[str], replacement: Callable[[str, nn.Module], nn.Module]
) -> tuple[nn.Module, list[Swap]]:
    """Copy of a model in which some modules are replaced; the model itself stays as it is.

    Parameters
    ----------
    model : nn.Module
    names : iterable of str
        Of the modules to replace, see :func:`layers`; ``""`` is the model itself.
    replacement : callable (name, module) -> module
        What comes in its place; the module itself where it stays.

    Returns
    -------
    nn.Module, list of Swap
        One that is used in several places is replaced by one in all of them.
    """
    wanted = list(names)
    before = dict(model.named_modules())
    for name in wanted:
        if name not in before:
            raise UserError(f"the network has no module {name!r}")
    swaps = [Swap(name, before[name], replacement(name, before[name])) for name in wanted]
    done = [s for s in swaps if s.after is not s.before]
    # what deepcopy finds in its memo it takes for the copy
    memo: dict[int, Any] = {id(s.before): s.after for s in done}
    return copy.deepcopy(model, memo), done


def compare(
    before: nn.Module, after: nn.Module, swaps: Iterable[Swap], *inputs: Any, rounds: int = 7
) -> list[Change]:
    """Cost of each swapped module, and at the end of the whole network, before and after.

    Parameters
    ----------
    before, after : nn.Module
        The network, and the copy that :func:`swap` made of it.
    swaps : iterable of Swap
    *inputs
        Of the network; each module is measured on what it gets of them.
    rounds : int
        In which times are measured, before and after in turns; 0 measures none.
    """
    made = list(swaps)
    given = inputs_of(before, [s.name for s in made], *inputs)
    changes = [
        _change(s.name, s.before, s.after, given[s.name], rounds) for s in made if s.name in given
    ]
    return [*changes, _change("all", before, after, inputs, rounds)]


def _change(
    name: str, before: nn.Module, after: nn.Module, inputs: tuple[Any, ...], rounds: int
) -> Change:
    costs = {"before": cost(before, *inputs), "after": cost(after, *inputs)}
    if rounds:
        with evaluating(before), evaluating(after):
            calls = {"before": lambda: before(*inputs), "after": lambda: after(*inputs)}
            times = latencies(calls, rounds)
        costs = {when: replace(found, seconds=times[when]) for when, found in costs.items()}
    return Change(name, type(after).__name__, costs["before"], costs["after"])
