"""Refusal of parameters with which an equation makes no sense."""

from __future__ import annotations

from torch import Tensor

from understudy.core.errors import UserError


def require_positive(values: dict[str, Tensor], *names: str) -> None:
    """Refuse the first value of these inputs that is not above 0."""
    for name in names:
        bad = ~(values[name].detach() > 0)
        if bool(bad.any()):
            run = int(bad.nonzero()[0])
            found = float(values[name][run])
            raise UserError(f"input {name!r} of run {run + 1} must be positive, found {found:g}")


def require_courant(number: Tensor, limit: float, remedy: str) -> None:
    """Refuse the first run ``(B,)`` whose waves would cross more cells a step than the limit."""
    number = number.detach()
    if bool((number > limit).any()):
        run = int((number > limit).nonzero()[0])
        raise UserError(
            f"run {run + 1}: waves cross {float(number[run]):.2g} cells a time step, the most that "
            f"is stable is {limit:g}; use {remedy}"
        )
