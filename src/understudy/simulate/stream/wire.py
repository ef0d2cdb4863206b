"""How fields come from a worker to the training: a socket, a secret, and messages without code.

A worker says hello with the secret of the study, the number of its job and that of its process.
Then each message holds one time step of all runs of the job: a head, the shape of a field, the
times, which runs are still finite, and the fields. The last message says that the job is done.
"""

from __future__ import annotations

import hmac
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

SECRET_BYTES = 32
Address = tuple[str, int]

_HELLO = struct.Struct("<4sQQQ")
_HEAD = struct.Struct("<4sBIII")
_MAGIC = b"USW1"
_STEP, _END = 0, 1


class Source(Protocol):
    """Where bytes are read from."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Read into a buffer; 0 at the end."""


class LostConnectionError(Exception):
    """The other side is gone, or is no worker of this study."""


@dataclass(frozen=True)
class Step:
    """One time step of the runs of a job.

    Parameters
    ----------
    step : int
        Counted from 0.
    times : Tensor (B,)
        Float64.
    alive : Tensor (B,)
        Which runs are still finite, boolean.
    fields : Tensor (B, *shape)
        Float32.
    """

    step: int
    times: Tensor
    alive: Tensor
    fields: Tensor


class Line:
    """The worker's end.

    Parameters
    ----------
    address : (str, int)
    secret : bytes (32,)
    job, attempt : int
    """

    def __init__(self, address: Address, secret: bytes, job: int, attempt: int) -> None:
        self._socket = socket.create_connection(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(secret + _HELLO.pack(_MAGIC, job, attempt, os.getpid()))

    def send(self, step: int, times: Tensor, fields: Tensor) -> bool:
        """Send a time step ``(B, *shape)``; waits where the training cannot take more.

        Returns
        -------
        bool
            Whether any run is still finite.
        """
        fields = fields.detach().to("cpu", torch.float32).contiguous()
        alive = fields.flatten(1).isfinite().all(1)
        shape = fields.shape[1:]
        head = _HEAD.pack(_MAGIC, _STEP, step, len(fields), len(shape))
        at = times.detach().to("cpu", torch.float64).contiguous()
        parts = (head, struct.pack(f"<{len(shape)}I", *shape), at, alive, fields)
        self._socket.sendall(b"".join(_bytes(part) for part in parts))
        return bool(alive.any())

    def end(self, steps: int) -> None:
        """Say that the job is done, and wait until that was heard."""
        self._socket.sendall(_HEAD.pack(_MAGIC, _END, steps, 0, 0))
        self._socket.shutdown(socket.SHUT_WR)
        self._socket.recv(1)
        self._socket.close()


def _bytes(part: bytes | Tensor) -> bytes:
    return part if isinstance(part, bytes) else part.numpy().tobytes()


# -- the training's end ---------------------------------------------------------------------------


def welcome(source: Source, secret: bytes) -> tuple[int, int, int]:
    """Job, attempt and process of a worker that knows the secret."""
    given = _whole(source, SECRET_BYTES)
    if not hmac.compare_digest(bytes(given), secret):
        raise LostConnectionError("not a worker of this study")
    magic, job, attempt, process = _HELLO.unpack(_whole(source, _HELLO.size))
    if magic != _MAGIC:
        raise LostConnectionError("not a worker of this version")
    return job, attempt, process


def messages(source: Source) -> Iterator[Step]:
    """Time steps of a job until its end.

    Raises
    ------
    LostConnectionError
        The worker is gone before its end.
    """
    while True:
        magic, kind, step, runs, dimensions = _HEAD.unpack(_whole(source, _HEAD.size))
        if magic != _MAGIC:
            raise LostConnectionError("what came is no message")
        if kind == _END:
            return
        shape = struct.unpack(f"<{dimensions}I", _whole(source, 4 * dimensions))
        times = torch.frombuffer(_whole(source, 8 * runs), dtype=torch.float64)
        alive = torch.frombuffer(_whole(source, runs), dtype=torch.bool)
        size = 4 * runs
        for n in shape:
            size *= n
        fields = torch.frombuffer(_whole(source, size), dtype=torch.float32)
        yield Step(step, times, alive, fields.reshape(runs, *shape))


def _whole(source: Source, size: int) -> bytearray:
    content = bytearray(size)
    view, have = memoryview(content), 0
    while have < size:
        try:
            more = source.readinto(view[have:])
        except OSError as error:
            raise LostConnectionError(str(error)) from error
        if not more:
            raise LostConnectionError("the worker is gone")
        have += more
    return content
