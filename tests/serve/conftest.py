"""A small surrogate, and a real service of it in a process of its own, once for each module."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import understudy
from understudy.models.tabular.fitted import FittedSurrogate

TOKENS = ["first-token-0123456789", "second-token-0123456789"]
ROW = {"angle": 2.0, "speed": 20.0, "profile": "round"}
NEW_ROWS = {"rows": [ROW, {**ROW, "angle": -1.5}, {**ROW, "profile": "flat"}]}


def wing(rows: int, seed: int = 0) -> pd.DataFrame:
    """Table of a wing: two numbers and a category in, drag and lift out."""
    draw = np.random.default_rng(seed)
    angle, speed = draw.uniform(-2, 8, rows), draw.uniform(10, 50, rows)
    profile = draw.choice(["flat", "round", "slotted"], rows)
    curved = np.select([profile == "flat", profile == "round"], [1.0, 1.5], 2.0)
    lift = 0.1 * angle * speed * curved + draw.normal(0, 0.1, rows)
    drag = 0.01 * angle**2 * speed + draw.normal(0, 0.1, rows)
    return pd.DataFrame(
        {"angle": angle, "speed": speed, "profile": profile, "drag": drag, "lift": lift}
    )


@pytest.fixture(scope="session")
def surrogate() -> FittedSurrogate:
    return understudy.fit(
        wing(80), targets=["drag", "lift"], members=["polynomial", "exact-gp"], budget=20
    )


@pytest.fixture(scope="session")
def model(surrogate: FittedSurrogate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return surrogate.save(tmp_path_factory.mktemp("served") / "wing.us")


@pytest.fixture(scope="session")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text("# who may ask\n" + "\n".join(TOKENS) + "\n")
    path.chmod(0o600)
    return path


@dataclass(frozen=True)
class Answer:
    """What a service answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def record(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.record["error"]


@dataclass
class Service:
    """A running service."""

    process: subprocess.Popen[str]
    port: int = 0
    lines: list[str] = field(default_factory=list)
    reader: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        token: str | None = TOKENS[0],
    ) -> Answer:
        own = {} if token is None else {"Authorization": f"Bearer {token}"}
        if isinstance(body, dict):
            body, own["Content-Type"] = json.dumps(body), "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {**own, **(headers or {})})
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def predict(self, body: Any, query: str = "", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", f"/v1/models/wing/predict{query}", body, named)

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(timeout=60)
        assert self.reader is not None
        self.reader.join(timeout=10)
        return code


def started(*arguments: object) -> Service:
    """A service that says that it is ready."""
    engine = () if "--onnx" in arguments else ("--no-onnx",)
    command = [sys.executable, "-m", "understudy.cli.app", "serve", *map(str, arguments)]
    process = subprocess.Popen(
        [*command, *engine, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    service = Service(process)
    assert process.stderr is not None
    for line in process.stderr:
        service.lines.append(line)
        if line.startswith("{") and json.loads(line)["event"] == "ready":
            service.port = int(json.loads(line)["url"].rpartition(":")[2])
            break
    else:
        pytest.fail("the service did not start: " + "".join(service.lines))

    def follow() -> None:
        assert process.stderr is not None
        service.lines.extend(process.stderr)

    service.reader = threading.Thread(target=follow, daemon=True)
    service.reader.start()
    return service


LIMITS = ("--max-body", 1, "--max-rows", 2000, "--body-timeout", 1, "--max-requests", 8)


@pytest.fixture(scope="session")
def service(model: Path, token_file: Path) -> Iterator[Service]:
    running = started(model, "--token-file", token_file, *LIMITS)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
