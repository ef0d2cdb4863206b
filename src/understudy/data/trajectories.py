"""Trajectories of many systems of differential equations, with the equation of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.expressions import ExpressionList


@dataclass(frozen=True)
class TrajectorySet:
    """Trajectories at common times; equations share a few trees and differ in their numbers.

    Parameters
    ----------
    t : Tensor (T,)
        Increasing times.
    u : Tensor (N, T, d_max)
        States, zero in the components that a system does not have.
    skeletons : sequence of ExpressionList
        The different trees, numbers masked.
    which : LongTensor (N,)
        Tree of each trajectory.
    numbers : Tensor (N, K)
        Coefficients of each, in prefix order, NaN after the last.

    Raises
    ------
    UserError
        If sizes do not fit one another, times do not increase or states are not finite.
    """

    t: Tensor
    u: Tensor
    skeletons: tuple[ExpressionList, ...]
    which: Tensor
    numbers: Tensor

    def __post_init__(self) -> None:
        check_times(self.t, "times")
        if self.u.ndim != 3 or self.u.shape[1] != len(self.t):
            raise UserError(
                f"trajectories must be (N, {len(self.t)}, d) at {len(self.t)} times, "
                f"found {tuple(self.u.shape)}"
            )
        if len(self.which) != len(self.u) or len(self.numbers) != len(self.u):
            raise UserError(
                f"{len(self.u)} trajectories need as many equations, found {len(self.which)} "
                f"trees and {len(self.numbers)} rows of numbers"
            )
        if not bool(torch.isfinite(self.u).all()):
            raise UserError("trajectories must be finite; leave out those that diverge")
        largest = max(skeleton.dim for skeleton in self.skeletons)
        if largest > self.u.shape[2]:
            raise UserError(
                f"a system has {largest} components, trajectories have {self.u.shape[2]}"
            )

    def __len__(self) -> int:
        return len(self.u)

    @cached_property
    def dims(self) -> Tensor:
        """Components of each system, (N,)."""
        return torch.tensor([skeleton.dim for skeleton in self.skeletons])[self.which]

    @cached_property
    def mask(self) -> Tensor:
        """Which components are real, bool (N, d_max)."""
        return torch.arange(self.u.shape[2]) < self.dims[:, None]

    def equation(self, i: int) -> ExpressionList:
        """The complete equation of a trajectory."""
        skeleton = self.skeletons[int(self.which[i])]
        return skeleton.with_numbers(self.numbers[i, : len(skeleton.numbers)].tolist())

    def __getitem__(self, rows: Tensor) -> TrajectorySet:
        """Some of the trajectories, by a tensor of numbers or booleans."""
        return replace(self, u=self.u[rows], which=self.which[rows], numbers=self.numbers[rows])

    @classmethod
    def concatenate(cls, sets: Sequence[TrajectorySet]) -> TrajectorySet:
        """All trajectories of sets at the same times, in their order."""
        first = sets[0]
        if any(not torch.equal(s.t, first.t) for s in sets):
            raise UserError("trajectories of different times cannot be put together")
        skeletons = tuple(dict.fromkeys(k for s in sets for k in s.skeletons))
        place = {skeleton: i for i, skeleton in enumerate(skeletons)}
        width = max(s.u.shape[2] for s in sets)
        count = max(s.numbers.shape[1] for s in sets)
        pad = torch.nn.functional.pad
        return cls(
            first.t,
            torch.cat([pad(s.u, (0, width - s.u.shape[2])) for s in sets]),
            skeletons,
            torch.cat([torch.tensor([place[k] for k in s.skeletons])[s.which] for s in sets]),
            torch.cat(
                [pad(s.numbers, (0, count - s.numbers.shape[1]), value=torch.nan) for s in sets]
            ),
        )


def check_times(t: Tensor, what: str) -> None:
    """Refuse times that are not a row of finite numbers that increases."""
    if t.ndim != 1 or len(t) < 1 or not bool(torch.isfinite(t).all()):
        raise UserError(f"{what} must be a row of finite numbers, found {tuple(t.shape)}")
    if len(t) > 1 and not bool((t.diff() > 0).all()):
        k = int((t.diff() <= 0).nonzero()[0])
        raise UserError(f"{what} must increase, found {float(t[k]):g} before {float(t[k + 1]):g}")
