"""One step of an operator, or its whole map, as a graph on the grid that it was trained on."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.core.operator import Operator
from understudy.models.operators.curriculum import CurriculumRollout
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.one_step import LearnedStepper, OneStepModel
from understudy.models.operators.pde_refiner import INDEX_RANGE, PDERefiner
from understudy.serve.graphs.onnx_file import Graph, difference, run
from understudy.serve.graphs.spectral import without_complex

BATCH = 3
"""Runs in the example by which PyTorch follows a graph."""


class MapGraph(nn.Module):
    """Fields ``(B, C_out, *space)`` of fields ``(B, C_in, *space)`` and parameters ``(B, P)``.

    Parameters
    ----------
    operator : FieldMap
    """

    def __init__(self, operator: FieldMap) -> None:
        super().__init__()
        self.network = without_complex(deepcopy(operator.network))
        self._operator = operator

    def forward(self, fields: Tensor, parameters: Tensor | None = None) -> Tensor:
        """Fields of the solution."""
        own = self._operator
        p = None if parameters is None else own.parameter_units.forward(parameters)
        return own.output_units.inverse(self.network(own.field_units.forward(fields), p))


class StepGraph(nn.Module):
    """Next fields ``(B, bundle, C, *space)`` of past ones ``(B, history, C, *space)``.

    Parameters
    ----------
    operator : OneStepModel or CurriculumRollout
    """

    def __init__(self, operator: LearnedStepper) -> None:
        super().__init__()
        self.network = without_complex(deepcopy(operator.network))
        self._operator = operator

    def forward(self, fields: Tensor, parameters: Tensor | None = None) -> Tensor:
        """Next fields."""
        own = self._operator
        past, p = own.field_units.forward(fields), own.scaled_parameters(parameters, fields.device)
        if isinstance(own, CurriculumRollout):
            return own.field_units.inverse(self.network(past[:, -1], p).unsqueeze(1))
        assert isinstance(own, OneStepModel)
        given = self.network(past.flatten(1, 2), p).unflatten(1, (own.bundle, -1))
        ahead = past[:, -1:] + own.change_units * given if own.difference else given
        return own.field_units.inverse(ahead)


class RefinedStepGraph(nn.Module):
    """A step of PDE-Refiner; its noise, standard normal ``(B, K + 1, C, *space)``, is an input.

    The noise of place 0 is the first guess, where that is noise; those of places 1 to K are added
    after the calls of the network but the last.

    Parameters
    ----------
    operator : PDERefiner
    """

    def __init__(self, operator: PDERefiner) -> None:
        super().__init__()
        self.network = without_complex(deepcopy(operator.network))
        self._operator = operator
        steps = range(operator.num_refinement_steps, -1, -1)
        signal, noise = operator.levels.signal.float(), operator.levels.noise.float()
        self._signal, self._noise = ([float(each[k]) for k in steps] for each in (signal, noise))
        self._weights = [operator.levels.posterior(k) for k in steps if k > 0]

    def forward(self, fields: Tensor, noise: Tensor, parameters: Tensor | None = None) -> Tensor:
        """Next fields."""
        own = self._operator
        past, p = own.field_units.forward(fields), own.scaled_parameters(parameters, fields.device)
        start, scale = own.step_units(past)
        y = noise[:, 0]
        y = y if own.first_guess == "noise" else torch.zeros_like(y)
        guess, one = y, torch.ones_like(past[:, 0].flatten(1)[:, :1])
        for at, k in enumerate(range(own.num_refinement_steps, -1, -1)):
            index = one * (k * INDEX_RANGE / own.num_refinement_steps)
            numbers = index if p is None else torch.cat((index, p), dim=1)
            v = self.network(torch.cat((past.flatten(1, 2), y), dim=1), numbers)
            guess = self._signal[at] * y - self._noise[at] * v
            if k > 0:
                of_guess, of_noisy, sd = self._weights[at]
                y = of_guess * guess + of_noisy * y + sd * noise[:, at + 1]
        return own.field_units.inverse(start + scale * guess.unflatten(1, (own.bundle, -1)))


def operator_graph(operator: Operator) -> Graph:
    """Return the graph of an operator, described.

    Raises
    ------
    UserError
        It is of a kind that has none.
    """
    if isinstance(operator, FieldMap):
        module: nn.Module = MapGraph(operator)
    elif isinstance(operator, PDERefiner):
        module = RefinedStepGraph(operator)
    elif isinstance(operator, OneStepModel | CurriculumRollout):
        module = StepGraph(operator)
    else:
        kind = getattr(operator, "model", type(operator).__name__)
        raise UserError(f"an operator of the kind {kind!r} cannot be an ONNX graph")
    given = example(operator, BATCH)
    return Graph(
        module,
        tuple(given.values()),
        tuple(given),
        ("next" if isinstance(operator, LearnedStepper) else "solution",),
        _description(operator),
    )


def example(operator: LearnedStepper | FieldMap, runs: int, seed: int = 0) -> dict[str, Tensor]:
    """Random inputs of a graph, as large as the fields and parameters learnt from."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    space, count = operator.grid.shape, len(operator.inputs)
    if isinstance(operator, FieldMap):
        given = {"fields": operator.field_units.inverse(normal(runs, count, *space))}
    else:
        past = normal(runs, operator.history, count, *space)
        given = {"fields": operator.field_units.inverse(past)}
    if isinstance(operator, PDERefiner):
        channels = operator.bundle * count
        given["noise"] = normal(runs, operator.num_refinement_steps + 1, channels, *space)
    if operator.parameters:
        given["parameters"] = _parameters(operator, normal(runs, len(operator.parameters)))
    return given


def _parameters(operator: LearnedStepper | FieldMap, z: Tensor) -> Tensor:
    if isinstance(operator, FieldMap):
        return operator.parameter_units.inverse(z)
    numbers = operator.parameter_units.inverse(z)
    return numbers.exp() if operator.parameter_scaling == "log" else numbers


def _description(operator: LearnedStepper | FieldMap) -> dict[str, Any]:
    grid = operator.grid
    described: dict[str, Any] = {
        "kind": "operator",
        "model": operator.model,
        "channels": list(operator.inputs),
        "outputs": list(operator.outputs),
        "parameters": list(operator.parameters),
        "grid": {
            "shape": list(grid.shape),
            "lower": list(grid.lower),
            "upper": list(grid.upper),
            "placement": grid.placement,
        },
    }
    if isinstance(operator, LearnedStepper):
        described |= {"dt": operator.dt, "history": operator.history, "bundle": operator.bundle}
    return described


def parity(operator: Operator, session: Any, runs: int = 8, seed: int = 1) -> float:
    """Largest difference of a session from the operator at random inputs, relative to the field.

    Differences are compared with the larger of the value and the spread of its channel; the noise
    of a refined step is the same for both.
    """
    assert isinstance(operator, LearnedStepper | FieldMap)
    given = example(operator, runs, seed)
    wanted = _step(operator, given).numpy()
    found = run(session, [each.numpy() for each in given.values()])
    flat = [x.reshape(-1, 1) for x in (found[0], wanted)]
    return difference([flat[0]], [flat[1]], np.array([wanted.std()]))


@torch.no_grad()
def _step(operator: LearnedStepper | FieldMap, given: dict[str, Tensor]) -> Tensor:
    """What the operator says, by its own code."""
    fields, p = given["fields"], given.get("parameters")
    if isinstance(operator, FieldMap):
        return operator.predict(fields, p)
    if isinstance(operator, PDERefiner):
        return RefinedStepGraph(operator)(fields, given["noise"], p)
    return operator._advance(fields, p, [])
