"""Sizes of the fields and parameters that an operator was trained on, to start rollouts of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from understudy.core.scaling import Scaling
from understudy.models.operators.one_step import LearnedStepper
from understudy.serve.operators import HostedOperator

_REACH = 1.7  # deviations of an even distribution on either side of its mean


def scales(hosted: HostedOperator) -> dict[str, Any]:
    """Mean and deviation of each field that goes in, and a usual range of each parameter.

    An operator that does not change units says 0 and 1 of fields, and of parameters 0 to 1.
    """
    own = hosted.operator
    steps = isinstance(own, LearnedStepper)
    mean, sd = _of_fields(own.field_units, len(own.inputs), own.grid.shape, steps)
    fields = [
        {"name": name, "mean": m, "sd": s}
        for name, m, s in zip(own.inputs, mean.tolist(), sd.tolist(), strict=True)
    ]
    lower, upper = _of_parameters(own.parameter_units, len(own.parameters))
    if getattr(own, "parameter_scaling", "") == "log":
        lower, upper = lower.exp(), upper.exp()
    parameters = [
        {"name": name, "lower": a, "upper": b}
        for name, a, b in zip(own.parameters, lower.tolist(), upper.tolist(), strict=True)
    ]
    return {"model": hosted.name, "fields": fields, "parameters": parameters}


def _of_fields(
    units: Scaling, channels: int, space: tuple[int, ...], steps: bool
) -> tuple[Tensor, Tensor]:
    """Shift and scale of each channel (C,), over all points."""
    zero = torch.zeros(*((1, 1) if steps else (1,)), channels, *space)
    shift = units.inverse(zero)
    around = [k for k in range(zero.ndim) if k != zero.ndim - len(space) - 1]
    return shift.mean(around), (units.inverse(zero + 1.0) - shift).mean(around)


def _of_parameters(numbers: Scaling, count: int) -> tuple[Tensor, Tensor]:
    """Lower and upper ends (P,) of usual values, before a logarithm is undone."""
    if not count or bool((numbers.scale == 1.0).all() & (numbers.shift == 0.0).all()):
        return torch.zeros(count), torch.ones(count)
    reach = torch.full((1, count), _REACH)
    return numbers.inverse(-reach)[0], numbers.inverse(reach)[0]
