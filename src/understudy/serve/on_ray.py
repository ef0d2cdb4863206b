"""The service as replicas of Ray Serve, on one machine or on a cluster.

Ray's proxy takes connections and spreads requests over replicas, each a process with the whole
service: guard, limits, batching. Limits of requests at a time hold for each replica. The proxy, not
the guard, waits for heads and bodies, so that the address should not be open to strangers.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from understudy.core.errors import UserError
from understudy.serve.application import guarded
from understudy.serve.engine import Engines
from understudy.serve.limits import Limits
from understudy.serve.loading import load_all
from understudy.serve.records import Metrics, log, log_to_stderr
from understudy.serve.tokens import Tokens, read_tokens

NAME = "understudy"


def serve_on_ray(
    paths: Sequence[Path],
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: Path | None = None,
    limits: Limits | None = None,
    replicas: int = 2,
    address: str | None = None,
    onnx: bool = True,
) -> None:
    """Serve on Ray until SIGINT or SIGTERM.

    Parameters
    ----------
    paths, host, port, token_file, limits, onnx
        As of `understudy.serve.server.serve`. The files must be at these paths on every node.
    replicas : int
        Processes that answer.
    address : str, optional
        Of a running cluster; a local one is started without.

    Raises
    ------
    UserError
        As by `serve`; or Ray Serve is missing or cannot be reached.
    """
    from understudy.serve.server import check_host

    check_host(host, token_file)
    limits = limits or Limits()
    tokens = None if token_file is None else read_tokens(token_file)
    resolved = [path.resolve() for path in paths]
    names = [name for part in load_all(resolved, limits, Metrics()) for name in part]
    ray, serve = _ray()
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        options = {"host": host, "port": port}
        serve.start(http_options=options, logging_config={"log_level": "ERROR"})
        deployment = _deployment(serve, resolved, limits, tokens, onnx)
        serve.run(deployment.options(num_replicas=replicas).bind(), name=NAME, route_prefix="/")
    except Exception as error:  # Ray raises of every kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"Ray cannot serve at {host}, port {port}: {reason}") from error
    log_to_stderr()
    log("ready", url=f"http://{host}:{port}", models=names, replicas=replicas)
    try:
        _until_told_to_end()
    finally:
        log("stopping")
        serve.delete(NAME)
        if address is None:
            serve.shutdown()
        ray.shutdown()
        log("stopped")


def _ray() -> tuple[Any, Any]:
    try:
        import ray
        from ray import serve
    except ModuleNotFoundError as error:
        raise UserError(
            f"--ray needs the extra scale ({error.name} is missing): "
            "pip install 'understudy[serve,scale]'"
        ) from None
    return ray, serve


def _deployment(
    serve: Any, paths: Sequence[Path], limits: Limits, tokens: Tokens | None, onnx: bool
) -> Any:
    """Deployment whose replicas have each read the files."""

    def application() -> Any:
        metrics = Metrics()
        models, operators = load_all(paths, limits, metrics)
        Engines(models if onnx else {})
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        return guarded(models, limits, tokens, metrics, operators)

    @serve.deployment(name=NAME, max_ongoing_requests=limits.in_flight)
    @serve.ingress(application)
    class Replica:
        """A process that answers."""

    return Replica


def _until_told_to_end() -> None:
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    while not told.wait(0.5):
        pass
