"""What the Explorer asks for beyond the API of predictions: slices, maps, runs, doubts, answers.

Everything that follows a slider goes through the model's batcher, as predictions do; what takes
longer waits its turn with searches and sensitivities.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Response
from numpy.typing import NDArray

from understudy.core.space import nearest
from understudy.serve.batching import Arrays
from understudy.serve.explorer import add_pages
from understudy.serve.explorer_bodies import DoubtBody, InvertBody, MapBody, SlicesBody
from understudy.serve.explorer_doubt import doubts
from understudy.serve.explorer_grids import Slices, curve, plane, shortened, values_of
from understudy.serve.explorer_inversion import Aim, invert, usual_tolerance
from understudy.serve.explorer_scales import scales
from understudy.serve.formats import JSON, to_json
from understudy.serve.hosted import HostedModel, plain
from understudy.serve.operators import wrong_kind
from understudy.serve.optimum import Constraint, region
from understudy.serve.refusal import Problem, invalid
from understudy.serve.rows import Rows, check_count, encode, named

if TYPE_CHECKING:
    from understudy.serve.application import Service

_MOST_RUNS = 2000


def add_explorer(app: FastAPI, service: Service) -> None:
    """Serve the page at ``/`` and the addresses that it asks."""
    add_pages(app)
    explorer = Explorer(service)

    @app.post("/v1/models/{name}/slices", summary="A point, and slices through it")
    async def slices(name: str, body: SlicesBody) -> Response:
        return await explorer.slices(service.model(name), body)

    @app.post("/v1/models/{name}/map", summary="A plane through a point, along two inputs")
    async def map_(name: str, body: MapBody) -> Response:
        return await explorer.map(service.model(name), body)

    @app.get("/v1/models/{name}/runs", summary="Runs that the model was fitted on")
    async def runs(
        name: str,
        most: Annotated[int, Query(ge=1, le=_MOST_RUNS, description="Runs at most.")] = 500,
    ) -> Response:
        return explorer.runs(service.model(name), most)

    @app.get("/v1/models/{name}/scales", summary="Sizes of the fields an operator was trained on")
    async def scales_(name: str) -> Response:
        if name not in service.operators:
            raise wrong_kind(service.model(name).name, "operator", f"/v1/models/{name}/predict")
        return _json(scales(service.operators[name]))

    @app.post("/v1/models/{name}/doubt", summary="Where intervals are wide")
    async def doubt(name: str, body: DoubtBody) -> Response:
        return await explorer.doubt(service.model(name), body)

    @app.post("/v1/models/{name}/invert", summary="Which inputs give a value of an output")
    async def invert_(name: str, body: InvertBody) -> Response:
        return await explorer.invert(service.model(name), body)


class Explorer:
    """Answers to the Explorer.

    Parameters
    ----------
    service : Service
        Whose models, limits and queue of analyses are used.
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def slices(self, model: HostedModel, body: SlicesBody) -> Response:
        """A point with intervals of all outputs, and lines through it."""
        space, targets = model.space, model.surrogate.targets
        inputs = tuple(space.names if body.inputs is None else dict.fromkeys(body.inputs))
        outputs = tuple(targets if body.outputs is None else dict.fromkeys(body.outputs))
        _check("inputs", inputs, space.names, "input")
        _check("outputs", outputs, targets, "output")
        at = self._point(model, body.at)
        lines = Slices(space, at.X[0], inputs, body.points)
        X = lines.rows()
        check_count(len(X), self._service.limits.rows)
        columns = await _predicted(model, body.level, X)
        record = {
            "model": model.name,
            "level": body.level,
            "extrapolation": named(at.outside, space.names)[0],
            "predictions": {target: _cell(columns, target, body.level) for target in targets},
            "slices": lines.record(columns, outputs, body.level),
        }
        return _json(record)

    async def map(self, model: HostedModel, body: MapBody) -> Response:
        """Mean and ends of the interval of one output over two inputs, row by row of y."""
        space = model.space
        _check("x", (body.x,), space.names, "input")
        _check("y", (body.y,), space.names, "input")
        _check("output", (body.output,), model.surrogate.targets, "output")
        if body.x == body.y:
            raise invalid([Problem("y", "is the same input as x")])
        at = self._point(model, body.at)
        x, y, X = plane(space, at.X[0], (body.x, body.y), body.points)
        check_count(len(X), self._service.limits.rows)
        columns = await _predicted(model, body.level, X)
        record = {
            "model": model.name,
            "level": body.level,
            "output": body.output,
            "x": values_of(space[body.x], x),
            "y": values_of(space[body.y], y),
            **curve(columns, body.output, body.level, slice(None)),
        }
        return _json(record)

    def runs(self, model: HostedModel, most: int) -> Response:
        """Some rows of the training table, evenly spread over it."""
        table = model.surrogate.training
        names = [*model.space.names, *model.surrogate.targets]
        chosen = np.unique(np.linspace(0, len(table) - 1, min(most, len(table))).round())
        some = table[names].iloc[chosen.astype(int)]
        columns = {name: [_present(cell) for cell in some[name]] for name in names}
        return _json({"model": model.name, "rows": len(table), "columns": columns})

    async def doubt(self, model: HostedModel, body: DoubtBody) -> Response:
        """Widths of intervals along each input, and the points where they are widest."""
        where = region(model.space, body.bounds, body.fixed)
        found = await self._service.analysed(
            lambda: doubts(model.surrogate, where, body.level, body.points, body.seed)
        )
        names = [(each.output,) for each in found for _ in each.widest]
        codes = np.concatenate([each.widest for each in found])
        points = iter(await self._described(model, codes, body.level, names))
        outputs = {
            each.output: {**each.record, "widest": list(islice(points, len(each.widest)))}
            for each in found
        }
        return _json({"model": model.name, "level": body.level, "outputs": outputs})

    async def invert(self, model: HostedModel, body: InvertBody) -> Response:
        """Different inputs that give a value of an output, the most probable first."""
        targets = model.surrogate.targets
        _check("output", (body.output,), targets, "output")
        _check("constraints", [c.output for c in body.constraints], targets, "output")
        _check_limits(body)
        tolerance = body.tolerance or usual_tolerance(model.surrogate, body.output)
        constraints = tuple(Constraint(**each.model_dump()) for each in body.constraints)
        where = region(model.space, body.bounds, body.fixed)
        aim = Aim(body.output, body.target, tolerance, constraints, where)
        found = await self._service.analysed(
            lambda: invert(model.surrogate, aim, body.points, body.seed)
        )
        codes = np.stack([answer.codes for answer in found])
        points = await self._described(model, codes, body.level, [targets] * len(codes))
        for point, answer in zip(points, found, strict=True):
            point |= {"probability": answer.probability, "reached": answer.reached}
        return _json({"model": model.name, "tolerance": tolerance, "points": points})

    async def _described(
        self,
        model: HostedModel,
        codes: NDArray[np.float64],
        level: float,
        outputs: Sequence[Sequence[str]],
    ) -> list[dict[str, Any]]:
        """Inputs of coded points (k, d), and predictions of some outputs of each."""
        columns = await _predicted(model, level, codes)
        inputs = model.space.decode(codes)
        return [
            {
                "inputs": {str(k): plain(v) for k, v in inputs.iloc[at].items()},
                "predictions": {name: _cell(columns, name, level, at) for name in names},
            }
            for at, names in enumerate(outputs)
        ]

    def _point(self, model: HostedModel, values: Mapping[str, Any]) -> Rows:
        return encode(model.space, {name: [value] for name, value in values.items()}, 1)


async def _predicted(model: HostedModel, level: float, X: NDArray[np.float64]) -> Arrays:
    """Predictions at codes X (n, d), together with those of other requests."""
    found = model.at_once((level,), X)
    if found is None:
        found = await asyncio.wrap_future(model.batcher.submit((level,), X))
    return found


def _cell(columns: Arrays, target: str, level: float, row: int = 0) -> dict[str, Any]:
    """What is predicted of one output in one row."""
    part = slice(row, row + 1)
    ends = {key: values[0] for key, values in curve(columns, target, level, part).items()}
    return {**ends, "sd": shortened(columns[f"{target}_sd"][part])[0]}


def _check(field: str, names: Sequence[str], known: Sequence[str], kind: str) -> None:
    """Refuse names that are not known (422)."""
    problems = [
        Problem(field, f"{name[:80]!r} is no {kind}{nearest(name[:80], known)}")
        for name in names
        if name not in known
    ]
    if problems:
        raise invalid(problems)


def _check_limits(body: InvertBody) -> None:
    """Refuse constraints that limit nothing or leave nothing (422)."""
    for at, each in enumerate(body.constraints):
        if each.lower is None and each.upper is None:
            raise invalid([Problem(f"constraints[{at}]", "needs lower, upper or both")])
        if each.lower is not None and each.upper is not None and each.lower >= each.upper:
            raise invalid([Problem(f"constraints[{at}]", "lower must be below upper")])


def _present(cell: Any) -> Any:
    """A cell of a table for an answer; None where it is empty."""
    return cell if isinstance(cell, str) else plain(cell)


def _json(record: Mapping[str, Any]) -> Response:
    return Response(to_json(record), media_type=JSON)
