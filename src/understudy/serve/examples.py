"""What OpenAPI shows: requests and answers of the first served model, as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from understudy.serve.formats import ARROW, JSON, NPZ
from understudy.serve.hosted import HostedModel
from understudy.serve.operators import HostedOperator

_REASONS = {
    400: "The body is not of its kind.",
    401: "No valid bearer token.",
    404: "No such model or address.",
    406: "No such kind of answer.",
    408: "The body came too slowly.",
    413: "The body has too many bytes, or the table too many rows.",
    415: "No such kind of body.",
    422: "Content that the model cannot take; `problems` names column and row.",
    429: "Too many requests of one client at a time.",
    500: "The service failed.",
    503: "Too many requests at a time, or shutting down.",
    504: "No answer in time.",
}
_REFUSED = {
    "error": {
        "code": "invalid",
        "message": "speed, row 3: found an empty cell; a finite number is expected",
        "problems": [
            {
                "field": "speed",
                "message": "found an empty cell; a finite number is expected",
                "row": 3,
            }
        ],
        "more_problems": 0,
    }
}
_PROBLEM = {
    "type": "object",
    "required": ["field", "message", "row"],
    "properties": {
        "field": {"type": "string"},
        "message": {"type": "string"},
        "row": {"type": ["integer", "null"], "description": "From 1."},
    },
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "problems": {"type": "array", "items": _PROBLEM},
                "more_problems": {"type": "integer"},
            },
        }
    },
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": reason,
        "content": {JSON: {"schema": _ERROR, **({"example": _REFUSED} if status == 422 else {})}},
    }
    for status, reason in _REASONS.items()
}

_BINARY = {"schema": {"type": "string", "format": "binary"}}


def _answered(example: Any, **others: Any) -> dict[int | str, dict[str, Any]]:
    content = {JSON: {"example": example}, **others}
    return {200: {"description": "Answered.", "content": content}}


METRICS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Answered.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}
ARRAYS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Answered.",
        "content": {JSON: {"schema": {"type": "object"}}, NPZ: _BINARY},
    }
}
HEALTH = _answered({"status": "ok"})


def bodies(model: HostedModel) -> dict[str, Any]:
    """Bodies of predictions: a row and columns of JSON, Arrow, NPZ."""
    row = model.example
    columns = {name: [value, value] for name, value in row.items()}
    examples = {
        "rows": {"summary": "Row by row", "value": {"rows": [row]}},
        "columns": {"summary": "Column by column", "value": {"columns": columns}},
    }
    schema = {
        "type": "object",
        "properties": {
            "rows": {"type": "array", "items": {"type": "object"}},
            "columns": {"type": "object", "additionalProperties": {"type": "array"}},
        },
    }
    return {JSON: {"schema": schema, "examples": examples}, ARROW: _BINARY, NPZ: _BINARY}


def first(
    models: Mapping[str, HostedModel], operators: Mapping[str, HostedOperator]
) -> tuple[str, Mapping[str, Any]]:
    """Name and description of the first model, or the first operator where there is none."""
    name = next(iter((*models, *operators)))
    return name, (models[name] if name in models else operators[name]).description


def models(name: str) -> dict[int | str, dict[str, Any]]:
    """Answer to a request for names."""
    return _answered({"models": [name]})


def description(record: Mapping[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Answer to a request for a description."""
    return _answered(record)


def fields(hosted: HostedOperator) -> dict[str, Any]:
    """Body of fields: JSON, small enough to show, or NPZ."""
    example = hosted.example
    shown = {"example": example} if len(str(example)) < 20_000 else {}
    schema = {
        "type": "object",
        "required": ["fields"],
        "properties": {
            "fields": {"type": "array", "items": {}},
            "parameters": {"type": "object", "additionalProperties": {"type": "number"}},
        },
    }
    return {"required": True, "content": {JSON: {"schema": schema, **shown}, NPZ: _BINARY}}


def predictions(model: HostedModel) -> dict[int | str, dict[str, Any]]:
    """Answer to a prediction of the row in the middle."""
    X = model.space.from_unit(_half(model)).numpy()
    columns = {name: values[0].item() for name, values in model.surrogate.columns(X).items()}
    row = {**columns, "extrapolation": ""}
    example = {"model": model.name, "rows": 1, "extrapolating": 0, "predictions": [row]}
    return _answered(example, **{ARROW: _BINARY, NPZ: _BINARY})


def search(model: HostedModel) -> dict[str, Any]:
    """Body of a search."""
    target = model.surrogate.targets[0]
    example = {"objective": {"output": target, "direction": "minimize"}, "points": 2}
    return {"requestBody": {"content": {JSON: {"example": example}}}}


def _half(model: HostedModel) -> Any:
    import torch

    return torch.full((1, len(model.space)), 0.5, dtype=torch.float64)
