"""Operators that are served: rollouts from given fields, with what is known of their error."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from understudy.core import artifact
from understudy.core.artifact import Artifact
from understudy.core.errors import UserError
from understudy.core.field_metrics import reliable_horizon
from understudy.models.operators.field_map import FieldMap
from understudy.models.operators.network import build
from understudy.models.operators.one_step import LearnedStepper
from understudy.models.operators.stored import load_operator
from understudy.serve.limits import Limits
from understudy.serve.refusal import Problem, Refusal, invalid

JSON_SHARE = 32
"""So many times fewer numbers are answered as JSON, which takes ten times the room and time."""

_LARGEST_SETTING = 10_000  # of a network with fewer weights than that
_DAMAGE = (
    *(KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError),
    *(ArithmeticError, AssertionError, RecursionError, MemoryError),
)
_THRESHOLD = 0.8  # correlation of samples below which a rollout is not believed


@dataclass(frozen=True)
class Start:
    """Where rollouts start.

    Parameters
    ----------
    fields : Tensor (B, history, C, *space) or (B, C, *space)
        Of a stepper, or of a map.
    parameters : Tensor (B, P) or None
    """

    fields: Tensor
    parameters: Tensor | None


class HostedOperator:
    """An operator that is served.

    Parameters
    ----------
    name : str
        In addresses.
    operator : LearnedStepper or FieldMap
    limits : Limits
    """

    def __init__(self, name: str, operator: LearnedStepper | FieldMap, limits: Limits) -> None:
        self.name, self.operator, self._limits = name, operator, limits

    @property
    def steps(self) -> bool:
        """Whether it goes on in time; else it maps fields to solutions."""
        return isinstance(self.operator, LearnedStepper)

    @cached_property
    def description(self) -> dict[str, Any]:
        """What the service says of it."""
        own = self.operator
        record: dict[str, Any] = {
            "name": self.name,
            "kind": "operator",
            "model": own.model,
            "channels": list(own.inputs),
            "outputs": list(own.outputs),
            "parameters": list(own.parameters),
            "grid": {
                "shape": list(own.grid.shape),
                "lower": list(own.grid.lower),
                "upper": list(own.grid.upper),
                "placement": own.grid.placement,
            },
        }
        if isinstance(own, LearnedStepper):
            record |= {"dt": own.dt, "history": own.history, "stochastic": own.stochastic}
            record["test_errors"] = None if own.test_errors is None else list(own.test_errors)
        return record

    @property
    def example(self) -> dict[str, Any]:
        """A body: fields at their mean, and parameters."""
        own, space = self.operator, self.operator.grid.shape
        scaling = own.field_units
        shift = scaling.shift.reshape(-1, len(own.inputs), *scaling.shift.shape[-len(space) :])[0]
        fields = shift.expand(len(own.inputs), *space)
        if isinstance(own, LearnedStepper) and own.history > 1:
            fields = fields.expand(own.history, *fields.shape)
        body: dict[str, Any] = {"fields": fields.tolist()}
        if own.parameters:
            middle = own.parameter_units.shift[0]
            if getattr(own, "parameter_scaling", "") == "log":
                middle = middle.exp()
            body["parameters"] = dict(zip(own.parameters, middle.tolist(), strict=True))
        return body

    def start(self, given: Mapping[str, Any]) -> Start:
        """Read the start of rollouts (422).

        Parameters
        ----------
        given : mapping
            ``fields`` of one run or of several, ``parameters`` by name or as rows.
        """
        odd = [key for key in given if key not in ("fields", "parameters")]
        if odd or "fields" not in given:
            said = "is no part of this" if odd else "is missing"
            raise invalid([Problem(str(odd[0])[:80] if odd else "fields", said)])
        own = self.operator
        fields = _numbers("fields", given["fields"])
        lead = (own.history,) if isinstance(own, LearnedStepper) and own.history > 1 else ()
        wanted = (*lead, len(own.inputs), *own.grid.shape)
        if fields.shape == wanted:
            fields = fields[None]
        if fields.shape[1:] != wanted or not len(fields):
            message = f"has the shape {fields.shape}; {wanted} or (runs, *{wanted}) is expected"
            raise invalid([Problem("fields", message)])
        _check_finite("fields", fields)
        return Start(torch.from_numpy(fields), self._parameters(given.get("parameters"), fields))

    def _parameters(self, given: Any, fields: NDArray[np.float32]) -> Tensor | None:
        names, runs = self.operator.parameters, len(fields)
        if given is None and not names:
            return None
        if isinstance(given, Mapping):
            odd = [str(key)[:80] for key in given if key not in names]
            missing = [key for key in names if key not in given]
            if odd or missing:
                said = "is no parameter" if odd else "is missing"
                raise invalid([Problem(f"parameters.{(odd or missing)[0]}", said)])
            given = [[given[key] for key in names]]
        if given is None:
            raise invalid([Problem("parameters", f"is missing; needed are {', '.join(names)}")])
        rows = _numbers("parameters", given)
        rows = rows.reshape(1, -1) if rows.ndim < 2 else rows
        if rows.ndim != 2 or rows.shape[1] != len(names) or len(rows) not in (1, runs):
            message = f"has the shape {rows.shape}; ({runs}, {len(names)}) is expected"
            raise invalid([Problem("parameters", message)])
        _check_finite("parameters", rows)
        if getattr(self.operator, "parameter_scaling", "") == "log" and bool((rows <= 0).any()):
            raise invalid([Problem("parameters", "must be positive")])
        return torch.from_numpy(rows) if names else None

    def check(self, start: Start, steps: int, samples: int, as_json: bool) -> None:
        """Refuse what would take too long or too much room (422)."""
        own, limits = self.operator, self._limits
        if not 1 <= steps <= limits.steps:
            raise invalid([Problem("steps", f"1 to {limits.steps} are accepted")])
        stochastic = isinstance(own, LearnedStepper) and own.stochastic
        if not 1 <= samples <= (64 if stochastic else 1):
            said = "1 to 64 are accepted" if stochastic else "must be 1: all of them are the same"
            raise invalid([Problem("samples", said)])
        frame = len(own.outputs) * math.prod(own.grid.shape)
        numbers = len(start.fields) * samples * (steps + 1) * frame
        most = limits.numbers // (JSON_SHARE if as_json else 1)
        if numbers > most:
            other = "; NPZ answers hold more" if as_json else ""
            message = f"the answer would have {numbers:,} numbers; at most {most:,} are given"
            raise invalid([Problem("steps", message + other)])

    @torch.no_grad()
    def rollout(self, start: Start, steps: int, samples: int, seed: int) -> dict[str, NDArray[Any]]:
        """Frames, and what is known of their error.

        Returns
        -------
        dict of str to ndarray
            ``times`` (T + 1,), ``fields`` (B, samples, T + 1, C, *space); ``test_error`` (T,), the
            normalised error of rollouts on test runs at each step, NaN where none was measured; of
            several samples also ``spread`` (B, T), their deviation over the size of their mean, and
            ``reliable_until`` (B,), the time until they disagree.
        """
        own = self.operator
        assert isinstance(own, LearnedStepper)
        paths = own.rollout(start.fields, steps, start.parameters, samples, seed)
        errors = np.full(steps, np.nan)
        known = np.asarray(own.test_errors or ())[:steps]
        errors[: len(known)] = known
        found: dict[str, NDArray[Any]] = {
            "times": own.dt * np.arange(steps + 1),
            "fields": paths.numpy(),
            "test_error": errors,
        }
        if samples > 1:
            ahead = paths[:, :, 1:].double()
            mean = ahead.mean(1)
            away = ahead.var(1).flatten(2).mean(2).sqrt()
            size = mean.flatten(2).square().mean(2).sqrt()
            found["spread"] = (away / size.clamp_min(1e-300)).numpy()
            found["reliable_until"] = reliable_horizon(ahead, own.dt, _THRESHOLD).numpy()
        return found

    @torch.no_grad()
    def solution(self, start: Start) -> dict[str, NDArray[Any]]:
        """Fields (B, C, *space) of a map."""
        return {"fields": self.operator.predict(start.fields, start.parameters).numpy()}


def load_operators(paths: Mapping[str, Path], limits: Limits) -> dict[str, HostedOperator]:
    """Read operators from ``.us`` files, by the names under which they are served.

    Raises
    ------
    UserError
        A file that is damaged, hostile, or of a kind of operator that cannot be served.
    """
    hosted = {}
    for name, path in paths.items():
        operator = _loaded(path)
        if not isinstance(operator, LearnedStepper | FieldMap):
            raise UserError(f"{path} holds a {operator.model!r}, which cannot be served")
        hosted[name] = HostedOperator(name, operator, limits)
        _try(path, hosted[name], limits)
    return hosted


def _try(path: Path, hosted: HostedOperator, limits: Limits) -> None:
    """Refuse what does not take fields of its own grid."""
    own = hosted.operator
    frame = math.prod(own.grid.shape) * len(own.outputs)
    if 2 * frame > limits.numbers:
        raise UserError(f"{path} has fields of {frame:,} numbers, too many to be served")
    try:
        start = hosted.start(hosted.example)
        found = hosted.rollout(start, 1, 1, 0) if hosted.steps else hosted.solution(start)
        sound = found["fields"].shape[-len(own.grid.shape) :] == tuple(own.grid.shape)
        if isinstance(own, LearnedStepper):
            sound = sound and isinstance(own.dt, float) and 0.0 < own.dt < math.inf
    except (UserError, Refusal, *_DAMAGE):
        sound = False
    if not sound:
        raise UserError(f"{path} holds an operator whose parts do not fit together")


def _loaded(path: Path) -> Any:
    """Read an operator; a network larger than its weights is refused before it is made."""
    try:
        stored = artifact.read(path)
        _check_network(path, stored)
        return load_operator(path)
    except UserError as error:
        said = str(error)
        raise UserError(said if str(path) in said else f"{path}: {said}") from None
    except _DAMAGE as error:
        raise UserError(
            f"{path} holds an operator whose parts do not fit together ({type(error).__name__})"
        ) from None


def _check_network(path: Path, stored: Artifact) -> None:
    description = stored.manifest["network"]
    weights = {k: v for k, v in stored.tensors.items() if k.startswith("network.")}
    most = max(_LARGEST_SETTING, sum(value.numel() for value in weights.values()))
    if any(abs(number) > most for number in _integers(description)):
        raise UserError(f"{path} describes a network that its weights cannot be those of")
    try:
        with torch.device("meta"):  # shapes without memory
            wanted = build(description).state_dict()
    except RuntimeError:  # some networks cannot be made so; theirs are compared when they are read
        return
    for name, value in wanted.items():
        shape = (*value.shape, 2) if value.is_complex() else tuple(value.shape)
        found = weights.get(f"network.{name}")
        if found is None or tuple(found.shape) not in (shape, tuple(value.shape)):
            raise UserError(f"{path} is damaged: its weights do not fit its network")


def _integers(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _integers(inner)


def _numbers(name: str, given: Any) -> NDArray[np.float32]:
    """Numbers in single precision; text, truth values and ragged lists are none (422)."""
    try:
        array = given if isinstance(given, np.ndarray) else _of_list(given)
    except (ValueError, OverflowError, RecursionError):
        raise invalid([Problem(name, "is no array of numbers")]) from None
    if array.dtype.kind not in "fiu" or array.size == 0:
        raise invalid([Problem(name, "is no array of numbers")])
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)


def _of_list(given: Any) -> NDArray[Any]:
    if not isinstance(given, Sequence | int | float) or isinstance(given, str | bool):
        raise ValueError
    return np.array(given)


def _check_finite(name: str, array: NDArray[np.float32]) -> None:
    if not np.isfinite(array).all():
        raise invalid([Problem(name, "holds NaN, infinity or a number too large for float32")])


def wrong_kind(name: str, wanted: str, address: str) -> Refusal:
    """Return the refusal of a model of another kind than an address is for (404)."""
    return Refusal(404, "wrong_kind", f"{name!r} is no {wanted}; ask {address}")
