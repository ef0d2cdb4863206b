"""Arguments and options that more than one command takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from understudy.core.errors import UserError

Model: TypeAlias = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A .us file.", show_default=False)
]
Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object and nothing else.")
]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")]
Seed: TypeAlias = Annotated[int, typer.Option(min=0, help="Of every random choice.")]


def names(values: Sequence[str] | None) -> list[str]:
    """Names given as ``a,b`` or by repeating the option."""
    return [name.strip() for value in values or () for name in value.split(",") if name.strip()]


def writable(path: Path, option: str, force: bool = True) -> Path:
    """Return the path if a file can be written there.

    Parameters
    ----------
    path : Path
    option : str
        The option that named it, for the message.
    force : bool
        Whether an existing file may be replaced.
    """
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder; name a file in it")
    if path.exists() and not force:
        raise UserError(f"{option} {path} exists already; --force replaces it")
    folder = path.parent
    if not folder.is_dir():
        raise UserError(f"{option} {path}: there is no folder {folder}")
    try:
        probe = folder / f".{path.name[:40]}.probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{option} {path} cannot be written: {error.strerror}") from error
    return path
