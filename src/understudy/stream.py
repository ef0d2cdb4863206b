r"""Frames of a run, from any program: what an external solver calls, and the format that it writes.

A solver in Python::

    from understudy.stream import send

    for t, field in solve(...):
        send(t, field)

A frame is, little-endian and without padding,

=============== =========================================================
``char[4]``     ``USF1``
``uint32``      number n of dimensions of the field, at most 8
``double``      time t
``uint32[n]``   shape
``float32[]``   the field, last dimension fastest
=============== =========================================================

and a run is frames one after the other, written to the standard output or to a file, until it
ends. A frame with a value that is not finite says that the run diverged. Nothing but the standard
library and NumPy is needed here.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from understudy.core.errors import UserError

MAGIC = b"USF1"
PATH_VARIABLE = "UNDERSTUDY_STREAM"
"""Environment variable: the file that frames go to; without it they go to the standard output."""

MOST_DIMENSIONS = 8
_LARGEST = 2**34  # bytes of a field: a count beyond it is noise, not a frame
_HEAD = struct.Struct("<4sId")


class Source(Protocol):
    """Where frames are read from."""

    def read(self, size: int, /) -> bytes:
        """Up to so many bytes; none at the end."""


def send(t: float, field: Any) -> None:
    """Send one time step of this run to the training that started it.

    Waits where the training cannot take more. The first call takes the standard output for
    frames, where no file is named, and turns what is printed from then on to the standard error.

    Parameters
    ----------
    t : float
    field : array or Tensor
        Of any shape with up to 8 dimensions; it is sent as float32.
    """
    out = _out()
    try:
        out.write(encode(t, field))
        out.flush()
    except BrokenPipeError:
        raise SystemExit("the training that this run belongs to has ended") from None


def encode(t: float, field: Any) -> bytes:
    """Bytes of a frame.

    Parameters
    ----------
    t : float
    field : array or Tensor
    """
    if hasattr(field, "detach"):
        field = field.detach().cpu().numpy()
    values = np.asarray(field, dtype="<f4")
    if values.ndim > MOST_DIMENSIONS:
        raise UserError(f"a field has at most {MOST_DIMENSIONS} dimensions, found {values.ndim}")
    shape = struct.pack(f"<{values.ndim}I", *values.shape)
    return _HEAD.pack(MAGIC, values.ndim, float(t)) + shape + values.tobytes()


def read(source: Source) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """Times and fields of a stream of frames, until it ends.

    Parameters
    ----------
    source : binary file

    Raises
    ------
    UserError
        What was read is no frame, or ends within one.
    """
    while True:
        head = _exactly(source, _HEAD.size)
        if not head:
            return
        if len(head) < _HEAD.size:
            raise _foreign(head)
        magic, dimensions, t = _HEAD.unpack(head)
        if magic != MAGIC or dimensions > MOST_DIMENSIONS:
            raise _foreign(head)
        shape = struct.unpack(f"<{dimensions}I", _whole(source, 4 * dimensions))
        yield t, np.frombuffer(_whole(source, _bytes(shape)), dtype="<f4").reshape(shape)


def _bytes(shape: Sequence[int]) -> int:
    size = 4
    for n in shape:
        size *= n
    if size > _LARGEST:
        raise UserError(f"a frame claims a field of shape {tuple(shape)}, which is too large")
    return size


def _whole(source: Source, size: int) -> bytearray:
    found = _exactly(source, size)
    if len(found) < size:
        raise UserError("the frames end within a frame")
    return found


def _exactly(source: Source, size: int) -> bytearray:
    """Read so many bytes, fewer where the source ends."""
    content = bytearray()
    while len(content) < size:
        piece = source.read(min(size - len(content), 2**20))
        if not piece:
            break
        content += piece
    return content


def _foreign(head: bytes | bytearray) -> UserError:
    return UserError(
        f"{bytes(head[:16])!r} is no frame; does the solver print something else to where its "
        "frames go?"
    )


@cache
def _out() -> BinaryIO:
    path = os.environ.get(PATH_VARIABLE)
    if path:
        return open(path, "wb")
    if sys.stdout is not None and sys.stdout.isatty():
        raise UserError("frames are not written to a terminal; send them to a file or a pipe")
    frames = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(frames, "wb")
