"""Bearer tokens: who may ask."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from understudy.core.errors import UserError

LEAST = 16
"""Characters of a token at least."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@dataclass(frozen=True)
class Tokens:
    """Tokens that are accepted, kept as SHA-256 digests.

    Parameters
    ----------
    digests : tuple of bytes
        Of each token.
    """

    digests: tuple[bytes, ...]

    @classmethod
    def of(cls, texts: list[str]) -> Tokens:
        """Return these tokens."""
        return cls(tuple(_digest(text.encode()) for text in texts))

    def client(self, authorization: bytes | None) -> int | None:
        """Which token an ``Authorization`` header carries, from 0; None where it is none of them.

        Digests of equal length are compared in constant time, and all of them, so that the time
        taken tells nothing of a token.
        """
        scheme, _, given = (authorization or b"").partition(b" ")
        offered = _digest(given.strip())
        found = None
        for at, digest in enumerate(self.digests):
            if hmac.compare_digest(digest, offered):
                found = at
        return found if scheme.lower() == b"bearer" else None


def read_tokens(path: Path) -> Tokens:
    """Read a file with a token a line; empty lines and those that begin with # are passed over.

    Raises
    ------
    UserError
        No token, one that is short or twice in it, characters that a header cannot carry, or a
        file that others may read.
    """
    try:
        mode = os.stat(path).st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--token-file {path} cannot be read: {error}") from None
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IRGRP:
        raise UserError(
            f"--token-file {path} is open to others (mode {stat.S_IMODE(mode):o}); chmod 600 it"
        )
    lines = [(at, line.strip()) for at, line in enumerate(text.splitlines(), 1)]
    tokens = [(at, line) for at, line in lines if line and not line.startswith("#")]
    if not tokens:
        raise UserError(f"--token-file {path} holds no token; write one a line")
    for at, token in tokens:
        if len(token) < LEAST or _TOKEN.fullmatch(token) is None:
            raise UserError(
                f"--token-file {path}, line {at}: a token has at least {LEAST} letters, digits "
                "and . _ ~ + / - ="
            )
    if len({token for _, token in tokens}) < len(tokens):
        raise UserError(f"--token-file {path} holds a token twice")
    return Tokens.of([token for _, token in tokens])


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
