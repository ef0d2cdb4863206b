"""The server: sockets, patience with slow clients, and an end without losses."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import signal
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from understudy.core.errors import UserError
from understudy.serve.application import guarded
from understudy.serve.engine import Engines
from understudy.serve.guard import Guard
from understudy.serve.limits import Limits
from understudy.serve.loading import load_all
from understudy.serve.records import Metrics, log, log_to_stderr
from understudy.serve.tokens import read_tokens

_LARGEST_HEAD = 2**15  # bytes


def serve(
    paths: Sequence[Path],
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    limits: Limits | None = None,
    onnx: bool = True,
) -> None:
    """Serve surrogates until SIGINT or SIGTERM, which lets requests that are being answered end.

    Parameters
    ----------
    paths : sequence of Path
        ``.us`` files of surrogates of tables and of operators; each is served under its name
        without ``.us``.
    host : str
        Address to listen at. Any but a loopback address needs a token file.
    port : int
        0 takes a free one.
    token_file : Path, optional
        A bearer token a line.
    limits : Limits, optional
    onnx : bool
        Whether ONNX Runtime predicts where it is faster than PyTorch, once it is known to be.

    Raises
    ------
    UserError
        A file that is no sound surrogate or operator, an address that cannot be had or that needs
        tokens.
    """
    check_host(host, token_file)
    limits = limits or Limits()
    tokens = None if token_file is None else read_tokens(token_file)
    metrics = Metrics()
    listener = _listener(host, port)
    try:
        models, operators = load_all(paths, limits, metrics)
        log_to_stderr()
        warnings.simplefilter("ignore")
        app = guarded(models, limits, tokens, metrics, operators)
        gc.collect()
        gc.freeze()  # what is loaded stays: looking through all of it stops every answer
        engines = Engines(models if onnx else {})
        try:
            _Server(_config(app, limits), app, [*models, *operators]).run(sockets=[listener])
        finally:
            engines.close()
    finally:
        listener.close()


def check_host(host: str, token_file: Path | None) -> None:
    """Refuse an address that other machines reach where there are no tokens."""
    if token_file is None and not is_loopback(host):
        raise UserError(
            f"--host {host} can be reached from other machines: --token-file is needed, too"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen at {host}, port {port}: {error}") from None


def _config(app: Guard, limits: Limits) -> uvicorn.Config:
    protocol = type("Protocol", (_PatientProtocol,), {"head_seconds": limits.body_seconds})
    return uvicorn.Config(
        app,
        http=protocol,
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=_LARGEST_HEAD,
        limit_concurrency=8 * limits.in_flight,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(limits.seconds) + 1,
    )


class _PatientProtocol(H11Protocol):
    """HTTP/1.1 that closes a connection whose request head does not come in time."""

    head_seconds: float = 10.0
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        # the loop does so only for sockets made with a protocol; without it an answer of two parts
        # waits for the acknowledgement of the first, which clients delay by 40 ms
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._patience is None:
            self._wait_for_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        waiting_for_another = self.cycle is None or self.cycle.response_complete
        if waiting_for_another and self.conn.trailing_data[0]:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(self.head_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """Says where it listens, and ends with exit code 0 on a signal."""

    def __init__(self, config: uvicorn.Config, app: Guard, models: list[str]) -> None:
        super().__init__(config)
        self._app, self._models = app, models

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port, *_ = sockets[0].getsockname()
            host = f"[{host}]" if ":" in host else host
            log("ready", url=f"http://{host}:{port}", models=self._models)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.closing = True
        log("stopping")
        await super().shutdown(sockets)
        log("stopped")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
