"""The HTTP API of served surrogates, as a FastAPI application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

from understudy import __version__
from understudy.core.space import nearest
from understudy.models.tabular.conformal import LEVELS
from understudy.serve import examples, formats
from understudy.serve.explorer_routes import add_explorer
from understudy.serve.formats import JSON, NPZ, to_json
from understudy.serve.guard import Guard
from understudy.serve.hosted import MIXTURE, HostedModel, plain
from understudy.serve.limits import Limits
from understudy.serve.operators import HostedOperator, Start, wrong_kind
from understudy.serve.optimum import propose
from understudy.serve.records import Metrics
from understudy.serve.refusal import Problem, Refusal, invalid
from understudy.serve.rows import Rows, encode, named
from understudy.serve.search_body import OptimizeBody
from understudy.serve.tokens import Tokens

T = TypeVar("T")

_INLINE = 2**16  # bytes of a body that is read in the event loop
_MOST_LEVELS = 16
_MOST_ANALYSES = 4  # searches and sensitivities that run or wait


def guarded(
    models: Mapping[str, HostedModel],
    limits: Limits,
    tokens: Tokens | None,
    metrics: Metrics,
    operators: Mapping[str, HostedOperator] | None = None,
) -> Guard:
    """Return the service as an ASGI application.

    Parameters
    ----------
    models : mapping of str to HostedModel
        At least one, unless there are operators.
    limits : Limits
    tokens : Tokens, optional
        Who may ask; without them only what names a loopback host is answered.
    metrics : Metrics
    operators : mapping of str to HostedOperator, optional
    """
    service = Service(models, limits, operators or {})
    return Guard(application(service, metrics), limits, tokens, metrics)


class Service:
    """Requests answered by the served models.

    Parameters
    ----------
    models : mapping of str to HostedModel
    limits : Limits
    operators : mapping of str to HostedOperator
    """

    def __init__(
        self,
        models: Mapping[str, HostedModel],
        limits: Limits,
        operators: Mapping[str, HostedOperator] | None = None,
    ) -> None:
        self.models, self.limits, self.operators = models, limits, operators or {}
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._analyst = ThreadPoolExecutor(1, thread_name_prefix="analyst")
        self._analyses = 0

    def model(self, name: str) -> HostedModel:
        """Return the model of a name, one of those loaded and nothing else (404)."""
        if name in self.operators:
            way = "rollout" if self.operators[name].steps else "solution"
            raise wrong_kind(name, "surrogate of a table", f"/v1/models/{name}/{way}")
        if name not in self.models:
            raise self._unknown(name)
        return self.models[name]

    def operator(self, name: str, steps: bool) -> HostedOperator:
        """Return the operator of a name, one that steps or one that maps (404)."""
        if name in self.models:
            raise wrong_kind(name, "operator", f"/v1/models/{name}/predict")
        if name not in self.operators:
            raise self._unknown(name)
        if self.operators[name].steps is not steps:
            wanted, way = ("step in time", "solution") if steps else ("map", "rollout")
            raise wrong_kind(name, wanted, f"/v1/models/{name}/{way}")
        return self.operators[name]

    def description(self, name: str) -> Mapping[str, Any]:
        """What is said of a model or an operator (404)."""
        if name in self.operators:
            return self.operators[name].description
        return self.model(name).description

    def _unknown(self, name: str) -> Refusal:
        known = nearest(name[:80], [*self.models, *self.operators])
        return Refusal(404, "no_such_model", f"no model {name[:80]!r}{known}")

    async def read(self, model: HostedModel, request: Request) -> tuple[Rows, str, bool]:
        """Rows of a request, its kind, and whether they came row by row."""
        kind = formats.kind_of(request.headers.get("content-type", ""))
        body = await request.body()

        def read() -> tuple[Rows, str, bool]:
            columns, by_rows = formats.read_columns(kind, body, self.limits.rows)
            return encode(model.space, columns, self.limits.rows), kind, by_rows

        return await self._in_thread(self._reader, read, inline=len(body) <= _INLINE)

    async def predict(self, model: HostedModel, request: Request, levels: str) -> Response:
        """Means, deviations and intervals, in the kind that is accepted."""
        chosen = _levels(levels)
        given = formats.kind_of(request.headers.get("content-type", ""))
        kind = formats.accepted(request.headers.get("accept", ""), given)
        rows, _, by_rows = await self.read(model, request)
        columns = model.at_once(chosen, rows.X)
        if columns is None:
            columns = await asyncio.wrap_future(model.batcher.submit(chosen, rows.X))
        table: formats.Table = {**columns, "extrapolation": named(rows.outside, model.space.names)}
        head = {
            "model": model.name,
            "rows": len(rows),
            "extrapolating": int(rows.outside.any(axis=1).sum()),
        }

        def write() -> bytes:
            return formats.write_table(kind, table, by_rows, head)

        small = len(rows) * len(table) <= 4096
        return Response(await self._in_thread(self._reader, write, inline=small), media_type=kind)

    async def distribution(self, model: HostedModel, request: Request) -> Response:
        """Whole predictive distributions: mixtures of Gaussians on the transformed scale."""
        given = formats.kind_of(request.headers.get("content-type", ""))
        offered = (JSON, NPZ)
        kind = formats.accepted(request.headers.get("accept", ""), given, offered)
        rows, _, _ = await self.read(model, request)
        parts = await asyncio.wrap_future(model.batcher.submit(MIXTURE, rows.X))
        arrays = {name: np.ascontiguousarray(part) for name, part in parts.items()}

        def write() -> bytes:
            if kind == NPZ:
                return formats.to_npz(arrays)
            return to_json({"model": model.name, **{k: v.tolist() for k, v in arrays.items()}})

        inline = arrays["loc"].size <= 4096
        return Response(await self._in_thread(self._reader, write, inline), media_type=kind)

    async def fields(
        self, hosted: HostedOperator, request: Request, steps: int, samples: int, seed: int
    ) -> Response:
        """Rollouts of an operator that steps, or the solution by one that maps."""
        given = formats.kind_of(request.headers.get("content-type", ""))
        offered = (JSON, NPZ)
        if given not in offered:
            raise Refusal(415, "unsupported_type", f"fields come as {JSON} or {NPZ}")
        kind = formats.accepted(request.headers.get("accept", ""), given, offered)
        body = await request.body()

        def read() -> Start:
            return hosted.start(formats.read_arrays(given, body, self.limits.numbers))

        start = await self._in_thread(self._reader, read, inline=len(body) <= _INLINE)
        hosted.check(start, steps, samples, kind == JSON)

        def work() -> dict[str, Any]:
            if hosted.steps:
                return hosted.rollout(start, steps, samples, seed)
            return hosted.solution(start)

        found = await self.analysed(work)

        def write() -> bytes:
            if kind == NPZ:
                return formats.to_npz(found)
            return to_json({"model": hosted.name, **{k: v.tolist() for k, v in found.items()}})

        inline = found["fields"].size <= 4096
        return Response(await self._in_thread(self._reader, write, inline), media_type=kind)

    async def sensitivity(self, model: HostedModel, samples: int, seed: int) -> Response:
        """Sobol indices."""
        if samples > self.limits.samples or samples < 16 or samples & (samples - 1):
            message = f"a power of two from 16 to {self.limits.samples} is expected"
            raise invalid([Problem("samples", message)])
        rows = await self.analysed(lambda: model.sensitivity(samples, seed))
        return _json({"model": model.name, "samples": samples, "seed": seed, "indices": rows})

    async def optimize(self, model: HostedModel, body: OptimizeBody) -> Response:
        """Next points, with what is predicted there."""
        wanted = body.wanted(model.surrogate, self.limits.points)
        found = await self.analysed(
            lambda: propose(model.surrogate, wanted, body.points, body.seed)
        )
        X = np.stack([point.codes for point in found])
        columns = await asyncio.wrap_future(model.batcher.submit((0.9,), X))
        inputs = model.space.decode(X)
        points = [
            {
                "inputs": {str(k): plain(v) for k, v in inputs.iloc[at].items()},
                "predictions": {name: plain(column[at]) for name, column in columns.items()},
                "feasible": point.feasible,
            }
            for at, point in enumerate(found)
        ]
        return _json({"model": model.name, "strategy": body.strategy, "points": points})

    async def analysed(self, work: Callable[[], T]) -> T:
        """Result of work that takes seconds, one at a time and few waiting (503)."""
        if self._analyses >= _MOST_ANALYSES:
            raise Refusal(503, "busy", "too many searches at a time; try again", retry_after=5)
        self._analyses += 1
        future = self._analyst.submit(work)
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._analysis_ended))
        return await asyncio.wrap_future(future)

    def _analysis_ended(self) -> None:
        self._analyses -= 1

    async def _in_thread(self, pool: ThreadPoolExecutor, work: Callable[[], T], inline: bool) -> T:
        if inline:
            return work()
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def close(self) -> None:
        """End all threads; an analysis that runs is not waited for."""
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._analyst.shutdown(wait=False, cancel_futures=True)
        for model in self.models.values():
            model.close()


def application(service: Service, metrics: Metrics) -> FastAPI:
    """Return the FastAPI application of a service."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="Understudy",
        version=__version__,
        description="Calibrated surrogates: predictions with intervals, what matters, what next.",
        docs_url=None,
        redoc_url=None,
        lifespan=life,
        responses=examples.REFUSALS,
        redirect_slashes=False,
    )
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _refused_by_framework)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    _add_routes(app, service, metrics)
    if service.models:
        _add_surrogates(app, service)
    _add_operators(app, service)
    add_explorer(app, service)
    return app


def _add_routes(app: FastAPI, service: Service, metrics: Metrics) -> None:
    any_name, described = examples.first(service.models, service.operators)

    @app.get("/healthz", summary="Whether the service runs", responses=examples.HEALTH)
    async def healthz() -> Response:
        return _json({"status": "ok"})

    @app.get(
        "/metrics",
        summary="Counts and times, as Prometheus reads them",
        response_class=PlainTextResponse,
        responses=examples.METRICS,
    )
    async def show_metrics() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models", summary="Names of the models", responses=examples.models(any_name))
    async def list_models() -> Response:
        operators = {"operators": list(service.operators)} if service.operators else {}
        return _json({"models": list(service.models), **operators})

    @app.get(
        "/v1/models/{name}",
        summary="Inputs, outputs and scores of a model",
        responses=examples.description(described),
    )
    async def describe(name: str) -> Response:
        return _json(service.description(name))


def _add_surrogates(app: FastAPI, service: Service) -> None:
    first = next(iter(service.models.values()))
    body = {"required": True, "content": examples.bodies(first)}

    @app.post(
        "/v1/models/{name}/predict",
        summary="Means, deviations and calibrated intervals",
        openapi_extra={"requestBody": body},
        responses=examples.predictions(first),
    )
    async def predict(
        name: str,
        request: Request,
        levels: Annotated[
            str,
            Query(
                max_length=400,
                description="Coverages of intervals, each between 0 and 1; may be empty.",
            ),
        ] = ",".join(map(str, LEVELS)),
    ) -> Response:
        return await service.predict(service.model(name), request, levels)

    @app.post(
        "/v1/models/{name}/predictive",
        summary="Whole predictive distributions, as mixtures of Gaussians",
        openapi_extra={"requestBody": body},
        responses=examples.ARRAYS,
    )
    async def predictive(name: str, request: Request) -> Response:
        return await service.distribution(service.model(name), request)

    @app.get("/v1/models/{name}/sensitivity", summary="Which inputs matter: Sobol indices")
    async def sensitivity(
        name: str,
        samples: Annotated[int, Query(description="Base samples, a power of two.")] = 1024,
        seed: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    ) -> Response:
        return await service.sensitivity(service.model(name), samples, seed)

    @app.post(
        "/v1/models/{name}/optimize",
        summary="Next points to run, or the point believed best",
        openapi_extra=examples.search(first),
    )
    async def optimize(name: str, body: OptimizeBody) -> Response:
        return await service.optimize(service.model(name), body)


def _add_operators(app: FastAPI, service: Service) -> None:
    stepping = [each for each in service.operators.values() if each.steps]
    mapping = [each for each in service.operators.values() if not each.steps]

    if stepping:

        @app.post(
            "/v1/models/{name}/rollout",
            summary="Fields at later times, with what is known of their error",
            openapi_extra={"requestBody": examples.fields(stepping[0])},
            responses=examples.ARRAYS,
        )
        async def rollout(
            name: str,
            request: Request,
            steps: Annotated[int, Query(description="Fields to predict.")] = 1,
            samples: Annotated[int, Query(description="Rollouts from each start.")] = 1,
            seed: Annotated[int, Query(ge=0, lt=2**31)] = 0,
        ) -> Response:
            hosted = service.operator(name, steps=True)
            return await service.fields(hosted, request, steps, samples, seed)

    if mapping:

        @app.post(
            "/v1/models/{name}/solution",
            summary="Fields of the solution for given fields",
            openapi_extra={"requestBody": examples.fields(mapping[0])},
            responses=examples.ARRAYS,
        )
        async def solution(name: str, request: Request) -> Response:
            hosted = service.operator(name, steps=False)
            return await service.fields(hosted, request, 1, 1, 0)


def _levels(text: str) -> tuple[float, ...]:
    """Interval levels of a query; values other than some between 0 and 1 are refused (422)."""
    try:
        levels = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        levels = (2.0,)
    if not all(0.0 < level < 1.0 for level in levels) or len(levels) > _MOST_LEVELS:
        message = f"at most {_MOST_LEVELS} numbers between 0 and 1, joined by commas, are expected"
        raise invalid([Problem("levels", message)])
    return levels


def _json(record: Mapping[str, Any], status: int = 200) -> Response:
    return Response(to_json(record), status, media_type=JSON)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    response = _json(error.record, error.status)
    for name, value in error.headers:
        response.headers[name.decode()] = value.decode()
    return response


async def _refused_by_framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "there is nothing at this address", 405: "this method is not allowed here"}
    message = words.get(error.status_code, "the request cannot be answered")
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
    response = _json(Refusal(error.status_code, code, message).record, error.status_code)
    response.headers.update(error.headers or {})
    return response


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found: Sequence[Any] = error.errors()
    if found[0]["type"] == "json_invalid":
        return await _refused(request, Refusal(400, "malformed", "the body is not JSON"))
    problems = [
        Problem(".".join(str(part)[:80] for part in each["loc"][1:]) or "body", each["msg"])
        for each in found
    ]
    return await _refused(request, invalid(problems))


async def _failed(request: Request, error: Exception) -> Response:
    refusal = Refusal(500, "internal", "the service failed; its log says more")
    return _json(refusal.record, 500)
