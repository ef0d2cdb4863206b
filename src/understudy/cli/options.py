"""Arguments and options that more than one command takes."""

from __future__ import annotations

import difflib
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


def readable(path: Path) -> Path:
    """Return the path if there is a file, before anything heavy is loaded to read it."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it")
    if path.parent.is_dir() and not path.exists():
        visible = [item.name for item in path.parent.iterdir() if item.is_file()]
        close = difflib.get_close_matches(path.name, visible, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"{path}: there is no such file{hint}")
    return path


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
