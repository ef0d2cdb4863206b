"""Served operators as `Stepper` and `Operator`: rollouts and solutions over HTTP."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias
from urllib.parse import quote

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.grid import Grid
from understudy.core.operator import Operator, Stepper
from understudy.core.space import nearest
from understudy.serve.client import Connection

Parameters: TypeAlias = "ArrayLike | Mapping[str, float] | None"
"""Rows (B, P), one for all runs (P,), or the numbers by name."""

_NPZ = "application/x-npz"
_MOST_NUMBERS = 2**22  # of a request and of its answer; more runs are asked for part by part


class RemoteStepper(Stepper):
    """An operator that goes on in time and that a service answers for.

    It has `rollout`, `step`, `predict` and `reliable_horizon`, with the shapes of `Stepper`. Fields
    and parameters may be tensors or arrays, and parameters a mapping of names. What needs the
    network itself is not here; `understudy.load_operator` of the ``.us`` file has it.

    Parameters
    ----------
    connection : Connection
    description : mapping
        What the service says of the operator.

    Attributes
    ----------
    test_errors : tuple of float or None
        Normalised error of rollouts on test runs at each step; NaN where none is known.
    """

    def __init__(self, connection: Connection, description: Mapping[str, Any]) -> None:
        self.connection, self.description = connection, description
        _describe(self, description)
        self.dt, self.history = float(description["dt"]), int(description["history"])
        self.stochastic = bool(description["stochastic"])  # type: ignore[misc]  # of one file here
        errors = description["test_errors"]
        self.test_errors = errors and tuple(math.nan if e is None else float(e) for e in errors)

    def rollout(
        self,
        u0: ArrayLike,
        steps: int,
        params: Parameters = None,
        samples: int = 1,
        seed: int = 0,
    ) -> Tensor:
        """Trajectories from given fields.

        Runs of an operator that always gives the same are asked for part by part where they are
        many. Those of a stochastic one share their random numbers, so they go in one request.

        Parameters
        ----------
        u0 : Tensor or array (B, C, *space) or (B, history, C, *space)
        steps : int
            Fields to predict.
        params : Tensor or array (B, P) or (P,), or mapping of str to float, optional
        samples : int
            Rollouts from each start; more than one only of a stochastic operator.
        seed : int

        Returns
        -------
        Tensor (B, samples, steps + 1, C, *space), float32
            As `Stepper.rollout` of the operator in the file.

        Raises
        ------
        UserError
            Fields or parameters that do not fit, or more than the service gives.
        ServiceError
            The service cannot be reached, or has no time.
        """
        past = self._start(_tensor(u0))
        known = self._checked_parameters(_rows(params, self.parameters), len(past))
        start = past if self.history > 1 else past[:, 0]
        most = len(start) if self.stochastic else _runs(start, samples * (steps + 1))
        query = f"rollout?steps={steps}&samples={samples}&seed={seed}"
        parts = (
            _asked(self.connection, self.description, query, *part)
            for part in _parts(start, known, most)
        )
        return torch.cat(list(parts))

    def step(self, u: ArrayLike, params: Parameters = None, seed: int = 0) -> Tensor:
        """Next field ``(B, C, *space)``; the arguments are those of :meth:`rollout`."""
        return self.rollout(u, 1, params, seed=seed)[:, 0, 1]

    def predict(self, u: ArrayLike, params: Parameters = None) -> Tensor:  # noqa: D102
        return self.step(u, params)

    def _advance(
        self, past: Tensor, params: Tensor | None, generators: list[torch.Generator]
    ) -> NoReturn:
        raise UserError(
            f"{self.description['name']!r} steps where it is served; understudy.load_operator "
            "reads the network from its .us file"
        )


class RemoteMap(Operator):
    """An operator of a steady problem that a service answers for.

    Parameters
    ----------
    connection : Connection
    description : mapping
        What the service says of the operator.
    """

    def __init__(self, connection: Connection, description: Mapping[str, Any]) -> None:
        self.connection, self.description = connection, description
        _describe(self, description)

    def predict(self, u: ArrayLike, params: Parameters = None) -> Tensor:
        """Solutions for given fields, asked for part by part where they are many.

        Parameters
        ----------
        u : Tensor or array (B, C_in, *space)
        params : Tensor or array (B, P) or (P,), or mapping of str to float, optional

        Returns
        -------
        Tensor (B, C_out, *space), float32

        Raises
        ------
        UserError
            Fields or parameters that do not fit.
        ServiceError
            The service cannot be reached, or has no time.
        """
        fields = self._checked_fields(_tensor(u), (None, len(self.inputs)), "fields")
        known = self._checked_parameters(_rows(params, self.parameters), len(fields))
        most = _runs(fields, -(-len(self.outputs) // len(self.inputs)))
        parts = (
            _asked(self.connection, self.description, "solution", *part)
            for part in _parts(fields, known, most)
        )
        return torch.cat(list(parts))


def connect_operator(
    url: str, token: str | None = None, *, model: str | None = None, timeout: float = 60.0
) -> RemoteStepper | RemoteMap:
    """Return a served operator.

    Parameters
    ----------
    url : str
        Of the service, as `understudy serve` says it.
    token : str, optional
        Bearer token.
    model : str, optional
        Name of the operator; not needed where the service has one.
    timeout : float
        Seconds to wait for the network.

    Returns
    -------
    RemoteStepper or RemoteMap
        One that goes on in time, or one that maps fields to solutions.

    Raises
    ------
    UserError
        There is no such operator, or several and none was named.
    ServiceError
        The service cannot be reached or refuses the token.
    """
    connection = Connection(url, token, timeout)
    served = connection.get("/v1/models")
    names = list(served.get("operators", ()))
    if model in served["models"]:
        raise UserError(f"{model!r} is a surrogate of a table; understudy.connect asks for those")
    if not names:
        raise UserError(f"{connection.url} has no operators")
    if model is None and len(names) > 1:
        raise UserError(f"{connection.url} has several operators; name one{nearest('', names)}")
    chosen = names[0] if model is None else model
    if chosen not in names:
        raise UserError(f"{connection.url} has no operator {chosen!r}{nearest(chosen, names)}")
    description = connection.get(f"/v1/models/{quote(chosen, safe='')}")
    return (RemoteStepper if "dt" in description else RemoteMap)(connection, description)


def _describe(operator: Operator, description: Mapping[str, Any]) -> None:
    grid = description["grid"]
    shape, lower, upper = (tuple(grid[key]) for key in ("shape", "lower", "upper"))
    operator.grid = Grid(shape, lower, upper, grid["placement"])
    operator.inputs, operator.outputs, operator.parameters = (
        tuple(description[key]) for key in ("channels", "outputs", "parameters")
    )


def _tensor(given: ArrayLike) -> Tensor:
    """Numbers in single precision, as they are sent."""
    if isinstance(given, Tensor):
        return given.detach().to("cpu", torch.float32)
    try:
        return torch.from_numpy(np.array(given, dtype=np.float32))
    except (TypeError, ValueError):
        raise UserError("fields and parameters are arrays of numbers, all rows alike") from None


def _rows(params: Parameters, names: Sequence[str]) -> Tensor | None:
    if params is None:
        return None
    if not isinstance(params, Mapping):
        return _tensor(params)
    odd = [str(key) for key in params if key not in names]
    missing = [key for key in names if key not in params]
    if odd or missing:
        said = "is no parameter of this operator" if odd else "is missing"
        raise UserError(f"{(odd or missing)[0]!r} {said}{nearest((odd or missing)[0], names)}")
    return _tensor([params[name] for name in names])


def _runs(fields: Tensor, growth: int) -> int:
    """Runs of a request, whose answer is `growth` times as long as one field of each."""
    frame = fields[0].numel() if len(fields) else 1
    return max(1, _MOST_NUMBERS // (frame * max(growth, 1)))


def _parts(fields: Tensor, known: Tensor | None, most: int) -> Iterator[tuple[Tensor, ...]]:
    """Fields, and their parameters where there are any, of so many runs at a time."""
    whole = (fields,) if known is None else (fields, known)
    for start in range(0, max(len(fields), 1), max(most, 1)):
        yield tuple(each[start : start + most] for each in whole)


def _asked(
    connection: Connection,
    description: Mapping[str, Any],
    query: str,
    fields: Tensor,
    known: Tensor | None = None,
) -> Tensor:
    arrays = {"fields": fields} if known is None else {"fields": fields, "parameters": known}
    body = io.BytesIO()
    np.savez(body, allow_pickle=False, **{name: each.numpy() for name, each in arrays.items()})
    path = f"/v1/models/{quote(description['name'], safe='')}/{query}"
    answer = connection.post(path, body.getvalue(), _NPZ, _NPZ)
    with np.load(io.BytesIO(answer), allow_pickle=False) as found:
        return torch.from_numpy(found["fields"])
