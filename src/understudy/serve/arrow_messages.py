"""Whether an Arrow stream has compressed buffers, told before any is decompressed.

A buffer of a few bytes may claim to hold gigabytes, and Arrow's reader would make room for them. A
stream is a sequence of messages

    0xFFFFFFFF, int32 length of the metadata, metadata, body

and the metadata is a flatbuffer (Arrow columnar format 1.5, ``Message.fbs``): a ``Message`` whose
header is a ``RecordBatch`` or a ``DictionaryBatch`` around one, whose field ``compression`` is
there or not. Only that much is read here, every offset within bounds; all else is Arrow's to check.
"""

from __future__ import annotations

import struct

_CONTINUATION = 0xFFFFFFFF
_DICTIONARY, _BATCH = 2, 3  # of the union MessageHeader
_HEADER_TYPE, _HEADER, _BODY_LENGTH = 1, 2, 3  # fields of Message
_DATA = 1  # of DictionaryBatch
_COMPRESSION = 3  # of RecordBatch


def has_compressed_buffers(stream: bytes) -> bool:
    """Whether any message of a stream has compressed buffers.

    Raises
    ------
    ValueError
        It cannot be told: the stream is damaged.
    """
    try:
        return _compressed(memoryview(stream))
    except (struct.error, IndexError) as error:
        raise ValueError("a message is damaged") from error


def _compressed(stream: memoryview) -> bool:
    at = 0
    while at + 4 <= len(stream):
        (length,) = struct.unpack_from("<I", stream, at)
        at += 4
        if length == _CONTINUATION:
            (length,) = struct.unpack_from("<I", stream, at)
            at += 4
        if length == 0:
            return False
        message = stream[at : at + length]
        if len(message) < length:
            raise ValueError("the stream ends within a message")
        at += length
        body, compressed = _told(message)
        if compressed:
            return True
        at += body
    return False


def _told(message: memoryview) -> tuple[int, bool]:
    """Length of the body that follows, and whether its buffers are compressed."""
    root = _indirect(message, 0)
    length = _field(message, root, _BODY_LENGTH)
    (body,) = struct.unpack_from("<q", message, length) if length else (0,)
    if body < 0:
        raise ValueError("a body has a negative length")
    kind = _field(message, root, _HEADER_TYPE)
    header = _field(message, root, _HEADER)
    if not kind or not header or message[kind] not in (_DICTIONARY, _BATCH):
        return body, False
    batch = _indirect(message, header)
    if message[kind] == _DICTIONARY:
        data = _field(message, batch, _DATA)
        if not data:
            return body, False
        batch = _indirect(message, data)
    return body, _field(message, batch, _COMPRESSION) != 0


def _indirect(message: memoryview, at: int) -> int:
    (offset,) = struct.unpack_from("<I", message, at)
    return at + offset


def _field(message: memoryview, table: int, index: int) -> int:
    """Where a field of a table is, 0 if it is not there."""
    (back,) = struct.unpack_from("<i", message, table)
    directory = table - back
    if directory < 0:
        raise ValueError("a table lies outside its message")
    (size,) = struct.unpack_from("<H", message, directory)
    slot = 4 + 2 * index
    if slot + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", message, directory + slot)
    return table + offset if offset else 0
