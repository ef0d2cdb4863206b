"""The service as replicas of Ray Serve, on a local Ray."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import NEW_ROWS, TOKENS

pytest.importorskip("ray.serve", exc_type=ImportError)


def ask(port: int, path: str, body: Any = None, token: str | None = TOKENS[0]) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    method = "GET" if body is None else "POST"
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.slow
def test_replicas_answer_as_one_service(model: Path, token_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "understudy", "serve", model, "--port", port, "--no-onnx"]
    command += ["--token-file", token_file, "--ray", "--replicas", 2]
    process = subprocess.Popen(
        [str(part) for part in command], stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("{") and json.loads(line)["event"] == "ready":
                break
        else:
            pytest.fail("".join(lines[-30:]))
        assert ask(port, "/healthz", token=None) == (200, {"status": "ok"})
        assert ask(port, "/v1/models", token=None)[0] == 401
        assert ask(port, "/v1/models") == (200, {"models": ["wing"]})
        answers = [ask(port, "/v1/models/wing/predict", NEW_ROWS) for _ in range(8)]
        assert all(answer == answers[0] for answer in answers)
        assert answers[0][0] == 200
        status, refused = ask(port, "/v1/models/wing/predict", {"rows": [{"angle": 1}]})
        assert (status, refused["error"]["code"]) == (422, "invalid")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()
        process.wait()


def test_other_machines_need_tokens_here_too(model: Path) -> None:
    from understudy.core.errors import UserError
    from understudy.serve.on_ray import serve_on_ray

    with pytest.raises(UserError, match="--token-file is needed"):
        serve_on_ray([model], host="0.0.0.0")
