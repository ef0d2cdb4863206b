"""A served surrogate as a `Surrogate`: what can be had over HTTP, a sentence about the rest."""

from __future__ import annotations

import http.client
import io
import json
import ssl
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn, Self
from urllib.parse import quote, urlsplit

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from understudy.core import warp
from understudy.core.errors import UserError
from understudy.core.predictive import Predictive
from understudy.core.space import Space, nearest
from understudy.core.surrogate import Surrogate
from understudy.core.warp import WarpedPredictive

_JSON, _NPZ = "application/json", "application/x-npz"
_ARROW = "application/vnd.apache.arrow.stream"
_MOST_ROWS = 8192  # of a request; longer tables are asked for part by part
_DESCRIBED = {
    "continuous": ("name", "lower", "upper", "unit", "log"),
    "integer": ("name", "lower", "upper", "unit"),
    "categorical": ("name", "choices"),
}


class ServiceError(RuntimeError):
    """A service that does not answer as it should.

    Parameters
    ----------
    message : str
    status : int, optional
        Status code of its answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Connection:
    """A connection to a service, kept open between requests and safe to use from threads.

    Parameters
    ----------
    url : str
        ``http://host:port`` or ``https://host``, with a path before ``/v1`` if there is one.
    token : str, optional
        Bearer token.
    timeout : float
        Seconds to wait for the network.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 60.0) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"expected an address such as http://127.0.0.1:8000, found {url!r}")
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname, parts.port
        self._prefix, self._timeout = parts.path.rstrip("/"), timeout
        self._token = token
        self._lock = threading.Lock()
        self._open: http.client.HTTPConnection | None = None
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{self._prefix}"

    def get(self, path: str) -> Any:
        """Return the JSON of an address."""
        return json.loads(self._request("GET", path, None, {}))

    def post(self, path: str, body: bytes, kind: str, accept: str) -> bytes:
        """Return the answer to a body."""
        return self._request("POST", path, body, {"Content-Type": kind, "Accept": accept})

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def _request(self, method: str, path: str, body: bytes | None, extra: dict[str, str]) -> bytes:
        headers = {"Accept": _JSON, **extra}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        with self._lock:
            status, answer = self._exchange(method, self._prefix + path, body, headers)
        if status != 200:
            self._complain(status, answer)
        return answer

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        kept = self._open is not None
        try:
            return self._once(method, path, body, headers)
        except (http.client.HTTPException, OSError) as error:
            self._drop()
            if not kept:  # a connection that was kept may have been closed meanwhile
                raise ServiceError(f"{self.url} cannot be reached: {_said(error)}") from error
        try:
            return self._once(method, path, body, headers)
        except (http.client.HTTPException, OSError) as error:
            self._drop()
            raise ServiceError(f"{self.url} cannot be reached: {_said(error)}") from error

    def _once(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        if self._open is None:
            self._open = self._connected()
        self._open.request(method, path, body, headers)
        response = self._open.getresponse()
        return response.status, response.read()

    def _connected(self) -> http.client.HTTPConnection:
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout, context=context
            )
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    def _complain(self, status: int, answer: bytes) -> NoReturn:
        message = f"status {status}"
        with suppress(ValueError, KeyError, TypeError):
            message = str(json.loads(answer)["error"]["message"])[:1000]
        if status in (404, 413, 422):
            raise UserError(f"{self.url} refused: {message}")
        raise ServiceError(f"{self.url} did not answer: {message} (status {status})", status)


class RemoteSurrogate(Surrogate):
    """A surrogate that a service answers for.

    It has `predict`, `mean`, `predictive`, `columns`, `intervals`, `predict_table`, `sensitivity`
    and `optimize`. What needs the model itself (fitting, joint posteriors, gradients, drawn
    functions, its state) is refused; `understudy.load` of the ``.us`` file has it.

    Parameters
    ----------
    connection : Connection
    name : str
        Of the model.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self.connection = connection
        self.name = name
        described = connection.get(f"/v1/models/{quote(name, safe='')}")
        self.description = described
        inputs = [_input(item) for item in described["inputs"]]
        self.space = Space.from_json(json.dumps({"inputs": inputs}))
        self.targets = tuple(str(output["name"]) for output in described["outputs"])
        self.warps = tuple(warp.from_json(output["transform"]) for output in described["outputs"])
        self.n_features_in_, self.n_outputs_ = len(self.space), len(self.targets)
        self._one_dimensional = bool(described["one_dimensional"])

    # -- predictions --------------------------------------------------------------------------

    def columns(
        self, X: ArrayLike, levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95)
    ) -> dict[str, NDArray[np.float64]]:
        """Predictions at X (n, d) code units: ``y_mean``, ``y_sd``, ``y_lower_90``, ... (n,)."""
        return _joined([self._columns(rows, levels)[0] for rows in self._tables(X)])

    def predict(
        self, X: ArrayLike, return_std: bool = False
    ) -> NDArray[np.float64] | tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean of new observations at X (n, d) code units; with its standard deviation if asked."""
        found = self.columns(X, ())
        mean, sd = (
            self._shaped(
                torch.from_numpy(np.stack([found[f"{t}_{what}"] for t in self.targets], 1))
            )
            for what in ("mean", "sd")
        )
        return (mean, sd) if return_std else mean

    def mean(self, X: ArrayLike, outputs: Tensor | None = None) -> Tensor:
        """Mean of new observations at X (n, d) code units, of some outputs (k,): (n, k)."""
        found = self.columns(X, ())
        whole = torch.from_numpy(np.stack([found[f"{t}_mean"] for t in self.targets], 1))
        return whole if outputs is None else whole[:, outputs]

    def intervals(
        self, X: ArrayLike, levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95)
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Calibrated intervals at X (n, d) code units: lower and upper ends (l, n, m)."""
        found = self.columns(X, levels)
        lower, upper = (
            np.stack(
                [
                    np.stack([found[f"{t}_{end}_{100 * level:.6g}"] for t in self.targets], 1)
                    for level in levels
                ]
            )
            for end in ("lower", "upper")
        )
        return lower, upper

    def predictive(  # type: ignore[override]
        self, X: ArrayLike, outputs: Tensor | None = None
    ) -> WarpedPredictive:
        """Marginal distribution of new observations at X (n, d) code units, in output units."""
        parts = [self._mixture(rows) for rows in self._tables(X)]
        whole = WarpedPredictive(Predictive.concatenate(parts), self.warps)
        if outputs is None:
            return whole
        chosen = tuple(self.warps[at] for at in outputs.tolist())
        return WarpedPredictive(whole.base.outputs(outputs), chosen)

    def predict_table(self, data: pd.DataFrame) -> pd.DataFrame:
        """Predict the rows of a table that has the input columns; other columns are ignored.

        Returns
        -------
        DataFrame
            As by `FittedSurrogate.predict_table`. Empty cells are refused.
        """
        for name in self.space.names:
            if name not in data.columns:
                raise UserError(f"column {name!r} is missing{nearest(name, list(data.columns))}")
        chosen = data[self.space.names]
        parts, outside = [], []
        for start in range(0, max(len(chosen), 1), _MOST_ROWS):
            part, beyond = self._columns(chosen.iloc[start : start + _MOST_ROWS])
            parts.append(part)
            outside += beyond
        return pd.DataFrame({**_joined(parts), "extrapolation": outside}, index=data.index)

    # -- analyses -----------------------------------------------------------------------------

    def sensitivity(self, n: int = 1024, seed: int = 0) -> pd.DataFrame:
        """Sobol indices of every input for every target, as `FittedSurrogate.sensitivity`."""
        found = self.connection.get(f"{self._path}/sensitivity?samples={n}&seed={seed}")
        return pd.DataFrame(found["indices"])

    def optimize(
        self,
        output: str,
        direction: str = "minimize",
        target: float | None = None,
        *,
        constraints: Sequence[Mapping[str, Any]] = (),
        bounds: Mapping[str, Sequence[Any]] | None = None,
        fixed: Mapping[str, Any] | None = None,
        strategy: str = "improve",
        points: int = 1,
        seed: int = 0,
    ) -> list[dict[str, Any]]:
        """Next points to run, or the point believed best.

        Parameters
        ----------
        output : str
            What is wanted to be small, large or near a target.
        direction : {"minimize", "maximize", "target"}
        target : float, optional
        constraints : sequence of mapping
            ``output`` with ``lower``, ``upper`` or both.
        bounds : mapping, optional
            Two numbers of an input, or some of its choices.
        fixed : mapping, optional
            Value of an input.
        strategy : {"improve", "best"}
        points : int
        seed : int

        Returns
        -------
        list of dict
            Each with ``inputs``, ``predictions`` and ``feasible``, the probability that constraints
            hold.
        """
        wanted = {
            "objective": {"output": output, "direction": direction, "target": target},
            "constraints": list(constraints),
            "bounds": dict(bounds or {}),
            "fixed": dict(fixed or {}),
            "strategy": strategy,
            "points": points,
            "seed": seed,
        }
        body = json.dumps(wanted, default=_plain).encode()
        answer = self.connection.post(f"{self._path}/optimize", body, _JSON, _JSON)
        return list(json.loads(answer)["points"])

    # -- what the model itself is needed for ---------------------------------------------------

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Refused: a served surrogate is fitted already."""
        self._not_remotely("fit")

    def posterior(self, X: Tensor, observation_noise: bool = False) -> NoReturn:
        """Refused: joint posteriors and gradients need the model."""
        self._not_remotely("posterior")

    def sample(self, X: ArrayLike, n: int = 1, seed: int = 0) -> NoReturn:
        """Refused: joint draws need the model."""
        self._not_remotely("sample")

    def functions(self, count: int = 64, seed: int = 0) -> NoReturn:
        """Refused: drawn functions need the model."""
        self._not_remotely("functions")

    def to_botorch(self) -> NoReturn:
        """Refused: gradients need the model; `optimize` searches where the model is."""
        self._not_remotely("to_botorch")

    def state(self) -> NoReturn:
        """Refused: the service does not hand out the model."""
        self._not_remotely("state")

    def _not_remotely(self, what: str) -> NoReturn:
        raise UserError(
            f"{what} of {self.name!r} cannot be had from {self.connection.url}: it needs the model "
            "itself, which understudy.load reads from its .us file"
        )

    # -- plumbing -----------------------------------------------------------------------------

    @property
    def _path(self) -> str:
        return f"/v1/models/{quote(self.name, safe='')}"

    def _tables(self, X: ArrayLike) -> list[pd.DataFrame]:
        """Rows of X (n, d) code units as tables that a request takes."""
        codes = self._checked(X)
        starts = range(0, len(codes), _MOST_ROWS)
        return [self._table(codes[start : start + _MOST_ROWS]) for start in starts]

    def _table(self, codes: NDArray[np.float64]) -> pd.DataFrame:
        columns: dict[str, Any] = {}
        for j, item in enumerate(self.space):
            choices = getattr(item, "choices", None)
            column: Any = codes[:, j]
            if choices is not None:
                at = np.clip(np.rint(column), 0, len(choices) - 1).astype(int)
                column = [choices[k] for k in at]
            columns[item.name] = column
        return pd.DataFrame(columns)

    def _columns(
        self, table: pd.DataFrame, levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95)
    ) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
        """Predictions of a table, and the inputs of each row that are outside their range."""
        import pyarrow as pa

        asked = ",".join(repr(float(level)) for level in levels)
        path = f"{self._path}/predict?levels={asked}"
        answer = self.connection.post(path, _arrow(table), _ARROW, _ARROW)
        found = pa.ipc.open_stream(answer).read_all()
        outside = found.column("extrapolation").to_pylist()
        names = [name for name in found.column_names if name != "extrapolation"]
        return {name: found.column(name).to_numpy() for name in names}, outside

    def _mixture(self, table: pd.DataFrame) -> Predictive:
        answer = self.connection.post(f"{self._path}/predictive", _arrow(table), _ARROW, _NPZ)
        with np.load(io.BytesIO(answer), allow_pickle=False) as arrays:
            loc, scale, weight = (
                torch.from_numpy(arrays[name]).transpose(0, 1)
                for name in ("loc", "scale", "weight")
            )
        return Predictive(loc, scale, weight)


def connect(
    url: str, token: str | None = None, *, model: str | None = None, timeout: float = 60.0
) -> RemoteSurrogate:
    """Return a served surrogate.

    Parameters
    ----------
    url : str
        Of the service, as `understudy serve` says it.
    token : str, optional
        Bearer token.
    model : str, optional
        Name of the model; not needed where the service has one.
    timeout : float
        Seconds to wait for the network.

    Raises
    ------
    UserError
        There is no such model, or several and none was named; an operator, for which there is
        `understudy.connect_operator`.
    ServiceError
        The service cannot be reached or refuses the token.
    """
    connection = Connection(url, token, timeout)
    served = connection.get("/v1/models")
    names, operators = list(served["models"]), list(served.get("operators", ()))
    if model in operators or not names:
        raise UserError(
            f"{connection.url} serves operators of fields as {', '.join(operators)}; "
            "understudy.connect_operator asks for those"
        )
    if model is None and len(names) > 1:
        raise UserError(f"{connection.url} has several models; name one{nearest('', names)}")
    chosen = names[0] if model is None else model
    if chosen not in names:
        raise UserError(f"{connection.url} has no model {chosen!r}{nearest(chosen, names)}")
    return RemoteSurrogate(connection, chosen)


def _arrow(table: pd.DataFrame) -> bytes:
    import pyarrow as pa

    whole = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(None)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(whole)
    return sink.getvalue().to_pybytes()


def _input(item: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(item["kind"])
    return {"type": kind, **{key: item[key] for key in _DESCRIBED[kind]}}


def _joined(parts: Sequence[dict[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
