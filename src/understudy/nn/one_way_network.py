"""Networks whose convolutions are rewritten as one-way filters (arXiv 2304.04964), and back.

Before training (``one_way``) the factors are drawn afresh; after it (``truncated``) they
approximate the kernels that were learnt. Which convolutions are rewritten depends on their shapes
alone, so that the same network and plan always give the same layers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, Literal, TypeAlias

from torch import nn

from understudy.core.convert import Swap, layers, swap
from understudy.core.cost import count_parameters
from understudy.core.errors import UserError
from understudy.nn.one_way_conv import ONE_WAY, OneWay
from understudy.nn.one_way_filters import MODES, WAYS, Mode, OneWayFilters, Way

Start: TypeAlias = Literal["fresh", "truncated"]


@dataclass(frozen=True)
class OneWayPlan:
    """Which convolutions of a network become one-way filters, and of which kind.

    Parameters
    ----------
    rank : int
        Terms R of a kernel.
    mode : {"per_filter", "shared", "spatial"}
        See :mod:`understudy.nn.one_way_filters`.
    skip : tuple of str
        Names of convolutions that stay, with ``*`` for any part; ``"first"`` and ``"last"`` are
        the ends of the network, which stay by default.
    min_kernel : int
        Those with fewer points along every axis stay; of one point there is nothing to separate.
    """

    rank: int = 1
    mode: Mode = "per_filter"
    skip: tuple[str, ...] = ("first", "last")
    min_kernel: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "skip", tuple(self.skip))  # JSON has lists
        if self.mode not in MODES:
            raise UserError(f"mode must be one of {', '.join(MODES)}, found {self.mode!r}")
        if self.rank < 1 or self.min_kernel < 2:
            raise UserError(
                "rank must be at least 1 and min_kernel at least 2, found "
                f"{self.rank} and {self.min_kernel}"
            )

    def describe(self) -> dict[str, Any]:
        """JSON of it."""
        return {
            "rank": self.rank,
            "mode": self.mode,
            "skip": list(self.skip),
            "min_kernel": self.min_kernel,
        }

    def choose(self, model: nn.Module) -> tuple[list[str], dict[str, str]]:
        """Names of the convolutions to rewrite, and of those that stay with the reason.

        Raises
        ------
        UserError
            If one that is not skipped has groups, a name to skip fits none, or none is left.
        """
        found = layers(model, tuple(ONE_WAY))
        self._check_names(found)
        left: dict[str, str] = {}
        for i, name in enumerate(found):
            reason = self._reason(model.get_submodule(name), name, i, len(found))
            if reason:
                left[name] = reason
        if len(left) == len(found):
            raise UserError(
                "no convolution of this network would become smaller by one-way filters of rank "
                f"{self.rank}: {_listed(left)}"
            )
        return [name for name in found if name not in left], left

    def _check_names(self, found: Sequence[str]) -> None:
        for pattern in self.skip:
            known = pattern in ("first", "last") or any(fnmatch(n, pattern) for n in found)
            if not known:
                raise UserError(f"no convolution is called {pattern!r}; there are {_some(found)}")

    def _reason(self, conv: nn.Module, name: str, place: int, count: int) -> str:
        """Why a convolution stays; empty where it does not."""
        if "first" in self.skip and place == 0:
            return "first"
        if "last" in self.skip and place == count - 1:
            return "last"
        if any(fnmatch(name, pattern) for pattern in self.skip):
            return "skipped by name"
        points = max(conv.kernel_size)  # type: ignore[arg-type]
        if points < self.min_kernel:
            return f"{points} point{'s' if points != 1 else ''} wide"
        if conv.groups != 1:
            raise UserError(
                f"the convolution {name!r} has {conv.groups} groups, so its channels are filtered "
                f"apart already; leave it out with skip={name!r}"
            )
        if self.mode == "spatial" and len(conv.kernel_size) == 1:  # type: ignore[arg-type]
            return "one axis"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            after = count_parameters(self.layer(conv, "fresh"))
        if after >= count_parameters(conv):
            return f"{after:,} parameters would take the place of {count_parameters(conv):,}"
        return ""

    def layer(self, conv: nn.Module, start: Start) -> OneWay:
        """One-way filters in the place of a convolution."""
        kind = next(ONE_WAY[dense] for dense in ONE_WAY if isinstance(conv, dense))
        make: Callable[..., OneWay] = kind.like if start == "fresh" else kind.from_dense
        return make(conv, self.rank, self.mode)


def one_way(
    model: nn.Module, plan: OneWayPlan, start: Start = "fresh"
) -> tuple[nn.Module, list[Swap]]:
    """Copy of a network with one-way filters; the network itself stays as it is.

    Parameters
    ----------
    model : nn.Module
    plan : OneWayPlan
    start : {"fresh", "truncated"}
        Factors drawn at random, to be trained, or those that approximate the kernels.

    Returns
    -------
    nn.Module, list of Swap
    """
    names, _ = plan.choose(model)
    return swap(model, names, lambda _, conv: plan.layer(conv, start))


def densified(model: nn.Module) -> nn.Module:
    """Copy of a network in which dense convolutions of the same function take over from filters."""
    names = layers(model, tuple(ONE_WAY.values()))
    return swap(model, names, lambda _, filters: filters.to_dense())[0]  # type: ignore[operator]


def set_way(model: nn.Module, way: Way) -> nn.Module:
    """Let all one-way filters of a network be computed in a way; the same network and function.

    Parameters
    ----------
    model : nn.Module
        It is changed, and returned.
    way : {"auto", "chain", "recomputed", "composed"}
        See :mod:`understudy.nn.one_way_filters`.
    """
    if way not in WAYS:
        raise UserError(f"way must be one of {', '.join(WAYS)}, found {way!r}")
    for module in model.modules():
        if isinstance(module, OneWayFilters):
            module.way = way
    return model


def balanced(model: nn.Module) -> nn.Module:
    """Make the factors of all one-way filters equally long; the same network and function."""
    for module in model.modules():
        if isinstance(module, OneWayFilters):
            module.balance()
    return model


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") or "none"


def _listed(left: dict[str, str]) -> str:
    return (
        "; ".join(f"{n or 'itself'}: {why}" for n, why in list(left.items())[:4]) or "it has none"
    )
