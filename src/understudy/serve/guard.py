"""What stands before every request: who asks, how much, for how long, and what is written down.

A plain ASGI layer around the application, so that a body is refused while it comes in, not after.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from understudy.serve.explorer import pages
from understudy.serve.formats import JSON, to_json
from understudy.serve.limits import Limits
from understudy.serve.records import Metrics, log
from understudy.serve.refusal import Refusal
from understudy.serve.tokens import Tokens

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/healthz",)
"""Paths that need no token and are always answered, as are those of the page."""

_LOOPBACK = re.compile(rb"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


@dataclass
class _Answer:
    """What is known of the answer while it is sent."""

    id: str
    send: Send
    began: float = field(default_factory=time.perf_counter)
    status: int = 0
    body_bytes: int = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = [(b"x-request-id", self.id.encode()), *_HEADERS]
            message = {**message, "headers": [*message.get("headers", ()), *own]}
        await self.send(message)


class Guard:
    """Tokens, limits, metrics and logs around an ASGI application.

    Parameters
    ----------
    app : ASGI application
    limits : Limits
    tokens : Tokens, optional
        Who may ask; without them anybody, who must name a loopback host, so that no page of the
        web that a browser shows can have its name point here and read answers.
    metrics : Metrics
    """

    def __init__(
        self, app: Application, limits: Limits, tokens: Tokens | None, metrics: Metrics
    ) -> None:
        self._app, self._limits, self._tokens, self._metrics = app, limits, tokens, metrics
        self._flying: Counter[str] = Counter()
        self.closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = dict(reversed(scope["headers"]))
        answer = _Answer(_request_id(headers), send)
        client = "unknown"
        try:
            client = self._client(scope, headers)
            self._check_length(headers)
            with self._flight(scope, client):
                await self._within_time(scope, receive, answer)
        except Refusal as refusal:
            await _refuse(answer, refusal)
        except Exception:
            log("failed", logging.ERROR, exception=True, id=answer.id)
            await _refuse(answer, Refusal(500, "internal", "the service failed; its log says more"))
        finally:
            self._write_down(scope, answer, client)

    def _client(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        address = str((scope.get("client") or ("unknown",))[0])
        if self._tokens is None:
            host = headers.get(b"host", b"")
            if _LOOPBACK.fullmatch(host.lower()) is None:
                message = "without tokens only localhost is served; the Host header names another"
                raise Refusal(421, "wrong_host", message)
            return address
        if _is_open(scope["path"]):
            return address
        client = self._tokens.client(headers.get(b"authorization"))
        if client is None:
            raise Refusal(401, "unauthorized", "a valid bearer token is required")
        return f"token {client + 1}"

    def _check_length(self, headers: dict[bytes, bytes]) -> None:
        given = headers.get(b"content-length", b"0")
        if not given.isdigit() or int(given) > self._limits.body_bytes:
            raise self._too_large()

    def _too_large(self) -> Refusal:
        most = self._limits.body_bytes
        return Refusal(413, "body_too_large", f"a body may have at most {most:,} bytes")

    @contextmanager
    def _flight(self, scope: Scope, client: str) -> Iterator[None]:
        if _is_open(scope["path"]):
            yield
            return
        if self.closing:
            raise Refusal(503, "closing", "the service is shutting down", retry_after=5)
        if self._flying.total() >= self._limits.in_flight:
            raise Refusal(503, "busy", "too many requests at a time; try again", retry_after=1)
        if self._flying[client] >= self._limits.per_client:
            message = f"at most {self._limits.per_client} requests of one client at a time"
            raise Refusal(429, "too_many_requests", message, retry_after=1)
        self._flying[client] += 1
        self._metrics.in_flight.inc()
        try:
            yield
        finally:
            self._metrics.in_flight.dec()
            self._flying[client] -= 1
            if not self._flying[client]:
                del self._flying[client]

    async def _within_time(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        body = _Body(receive, self._limits, answer, self._too_large)
        try:
            async with asyncio.timeout(self._limits.seconds):
                await self._app(scope, body, answer)
        except TimeoutError:
            message = f"no answer within {self._limits.seconds:g} seconds"
            raise Refusal(504, "timeout", message) from None

    def _write_down(self, scope: Scope, answer: _Answer, client: str) -> None:
        seconds = time.perf_counter() - answer.began
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.answered(route, answer.status, seconds)
        log(
            "request",
            id=answer.id,
            client=client,
            method=scope["method"][:16],
            route=route,
            model=scope.get("path_params", {}).get("name") if answer.status < 400 else None,
            status=answer.status,
            seconds=round(seconds, 6),
            bytes=answer.body_bytes,
        )


@dataclass
class _Body:
    """The body of a request as it comes in: not too much, not too slowly."""

    receive: Receive
    limits: Limits
    answer: _Answer
    too_large: Callable[[], Refusal]
    complete: bool = False

    async def __call__(self) -> Message:
        if self.complete:
            return await self.receive()
        left = self.answer.began + self.limits.body_seconds - time.perf_counter()
        try:
            message = await asyncio.wait_for(self.receive(), max(left, 0.001))
        except TimeoutError:
            seconds = f"{self.limits.body_seconds:g} seconds"
            raise Refusal(408, "slow_body", f"the body did not come within {seconds}") from None
        if message["type"] == "http.disconnect":
            raise Refusal(400, "disconnected", "the client went away before its body was complete")
        self.answer.body_bytes += len(message.get("body", b""))
        if self.answer.body_bytes > self.limits.body_bytes:
            raise self.too_large()
        self.complete = not message.get("more_body", False)
        return message


async def _refuse(answer: _Answer, refusal: Refusal) -> None:
    """Send a refusal, unless the answer has begun already."""
    if answer.status:
        return
    body = to_json(refusal.record)
    headers = [
        (b"content-type", JSON.encode()),
        (b"content-length", str(len(body)).encode()),
        *refusal.headers,
    ]
    start = {"type": "http.response.start", "status": refusal.status, "headers": headers}
    await answer(start)
    await answer({"type": "http.response.body", "body": body})


def _is_open(path: str) -> bool:
    return path in OPEN or path in pages()


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
