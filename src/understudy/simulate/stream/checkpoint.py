"""A whole study in one file: written whole or not at all, and without a second copy in memory.

The file is in the format of safetensors: a JSON head, then the bytes of the tensors one after the
other. They are written straight from where they are, since a buffer may fill most of the memory;
fields that samples share are written once. What is no tensor is JSON in the metadata.
"""

from __future__ import annotations

import json
import os
import secrets
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.simulate.stream.samples import Sample

KIND = "online training"
VERSION = 1

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class CheckpointError(UserError):
    """A checkpoint that cannot be written, or read."""


def write(path: str | Path, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint in one step: an earlier one is replaced whole or left as it is.

    Parameters
    ----------
    path : path
    record : mapping
        JSON.
    tensors : mapping of str to Tensor

    Raises
    ------
    CheckpointError
        The disk does not take it.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            _write(file, record, tensors)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def _write(file: BinaryIO, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    content = {"kind": KIND, "version": VERSION, **record}
    head: dict[str, Any] = {"__metadata__": {"understudy": json.dumps(content)}}
    at = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        head[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for tensor in tensors.values():
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        file.write(plain.view(torch.uint8).numpy().data)


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `write` wrote.

    Raises
    ------
    CheckpointError
        There is no such file, or it is none of these.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            record = json.loads((file.metadata() or {}).get("understudy", "{}"))
            if record.get("kind") != KIND or record.get("version") != VERSION:
                raise CheckpointError(f"{path} is no checkpoint of an online training")
            return record, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no checkpoint {path}") from error
    except (OSError, SafetensorError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error


def pack(samples: list[Sample]) -> dict[str, Tensor]:
    """Tensors of samples; a field that several share is there once."""
    if not samples:
        return {}
    places: dict[int, int] = {}
    fields: list[Tensor] = []
    for sample in samples:
        for field in sample.fields:
            if id(field) not in places:
                places[id(field)] = len(fields)
                fields.append(field)
    return {
        "samples.runs": torch.tensor([sample.run for sample in samples]),
        "samples.steps": torch.tensor([sample.step for sample in samples]),
        "samples.times": torch.tensor([sample.t for sample in samples], dtype=torch.float64),
        "samples.codes": torch.stack([sample.codes for sample in samples]),
        "samples.fields": torch.tensor([[places[id(f)] for f in s.fields] for s in samples]),
    } | {f"field.{i}": field for i, field in enumerate(fields)}


def unpack(tensors: Mapping[str, Tensor]) -> list[Sample]:
    """Undo `pack`."""
    if "samples.runs" not in tensors:
        return []
    columns = [tensors[f"samples.{name}"].tolist() for name in ("runs", "steps", "times", "fields")]
    return [
        Sample(run, step, t, codes, tuple(tensors[f"field.{i}"] for i in places))
        for run, step, t, places, codes in zip(*columns, tensors["samples.codes"], strict=True)
    ]
