"""What stands before the application: time, failures, hosts, and tokens."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from understudy.core.errors import UserError
from understudy.serve.application import Service
from understudy.serve.guard import Guard
from understudy.serve.limits import Limits
from understudy.serve.records import JsonLines, Metrics
from understudy.serve.refusal import Refusal
from understudy.serve.server import is_loopback
from understudy.serve.tokens import Tokens, read_tokens


async def slow(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(60)


async def failing(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("the password is swordfish")


async def fine(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


def asked(app: Any, host: str = "localhost", **options: Any) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an answer."""
    sent = messages(app, [(b"host", host.encode())], **options)
    return sent[0]["status"], json.loads(sent[1]["body"])


def messages(
    app: Any,
    headers: list[tuple[bytes, bytes]],
    tokens: Tokens | None = None,
    limits: Limits | None = None,
) -> list[Any]:
    """What is sent in answer to a request."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/models",
        "headers": headers,
        "client": ("127.0.0.1", 5),
    }
    guard = Guard(app, limits or Limits(), tokens, Metrics())
    asyncio.run(guard(scope, receive, send))
    return sent


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    status, record = asked(slow, limits=Limits(seconds=0.05))
    assert (status, record["error"]["code"]) == (504, "timeout")


def test_a_failure_is_logged_without_its_text_and_not_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR, logger="understudy.serve"):
        logging.getLogger("understudy.serve").propagate = True
        status, record = asked(failing)
    assert status == 500
    assert "swordfish" not in json.dumps(record)
    (line,) = [JsonLines().format(r) for r in caplog.records if r.levelno == logging.ERROR]
    assert json.loads(line)["exception"] == "RuntimeError"
    assert any("test_guard.py" in at for at in json.loads(line)["at"])
    assert "swordfish" not in line


@pytest.mark.parametrize(
    ("given", "kept"), [(b"a-1.b_C", True), (b'"},{"', False), (b"a b", False), (b"a" * 65, False)]
)
def test_an_id_of_a_request_is_taken_over_if_it_is_plain(given: bytes, kept: bool) -> None:
    sent = messages(fine, [(b"host", b"localhost"), (b"x-request-id", given)])
    found = dict(sent[0]["headers"])[b"x-request-id"]
    assert (found == given) == kept
    assert len(found) >= 7


def test_of_many_long_analyses_those_beyond_a_few_are_refused() -> None:
    async def ask_for_many() -> list[object]:
        service, go = Service({}, Limits()), threading.Event()
        waiting = [asyncio.create_task(service.analysed(go.wait)) for _ in range(6)]
        await asyncio.sleep(0)
        go.set()
        try:
            first = await asyncio.gather(*waiting, return_exceptions=True)
            return [*first, await service.analysed(lambda: "free again")]
        finally:
            service.close()

    *first, last = asyncio.run(ask_for_many())
    refused = [found for found in first if isinstance(found, Refusal)]
    assert [refusal.status for refusal in refused] == [503, 503]
    assert last == "free again"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"])
def test_without_tokens_loopback_names_are_served(host: str) -> None:
    assert asked(fine, host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "", "localhost.evil.example", "127.0.0.1.evil.example:80", "10.0.0.1"]
)
def test_without_tokens_other_names_are_not(host: str) -> None:
    assert asked(fine, host)[0] == 421


def test_with_tokens_the_host_may_be_any() -> None:
    assert asked(fine, "models.example", tokens=Tokens.of(["a" * 20]))[0] == 401


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.2", False),
        ("models.example", False),
        ("", False),
    ],
)
def test_only_loopback_addresses_are_local(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


def tokens_from(folder: Path, text: str, mode: int = 0o600) -> Tokens:
    path = folder / "tokens"
    path.write_text(text)
    path.chmod(mode)
    return read_tokens(path)


def test_tokens_are_told_apart(tmp_path: Path) -> None:
    tokens = tokens_from(tmp_path, "# a\n\nfirst-token-0123456789\n  second-token-0123456789 \n")
    assert tokens.client(b"Bearer first-token-0123456789") == 0
    assert tokens.client(b"bearer second-token-0123456789") == 1
    assert tokens.client(b"Bearer ") is None
    assert tokens.client(None) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no token"),
        ("# only this\n", "holds no token"),
        ("short\n", "line 1: a token has at least 16"),
        ("ok-token-0123456789\nwith space 0123456789\n", "line 2"),
        ("ok-token-0123456789\nok-token-0123456789\n", "holds a token twice"),
    ],
)
def test_token_files_that_will_not_do_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        tokens_from(tmp_path, text)


@pytest.mark.skipif(os.name != "posix", reason="modes of files are those of POSIX")
@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602])
def test_a_token_file_that_others_may_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(UserError, match="chmod 600"):
        tokens_from(tmp_path, "ok-token-0123456789\n", mode)


def test_limits_are_positive() -> None:
    with pytest.raises(UserError, match="rows must be positive"):
        Limits(rows=0)
