"""Arguments and options that more than one command takes."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Callable, Sequence
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
Device: TypeAlias = Annotated[str, typer.Option(help="cpu or cuda.")]


def names(values: Sequence[str] | None) -> list[str]:
    """Names given as ``a,b`` or by repeating the option."""
    return [name.strip() for value in values or () for name in value.split(",") if name.strip()]


def readable(path: Path) -> Path:
    """Return the path if a file can be read there, before anything heavy is loaded to read it."""
    path = path.expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}")
    if not path.exists():
        visible = [item.name for item in path.parent.iterdir() if item.is_file()]
        close = difflib.get_close_matches(path.name, visible, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"{path}: there is no such file{hint}")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: no permission to read it")
    return path


def share_or_readable(text: str) -> str:
    """Return the text if it is a number or names a file that can be read."""
    try:
        float(text)
    except ValueError:
        return str(readable(Path(text)))
    return text


def writable(path: Path, option: str, force: bool = True, others: Sequence[Path] = ()) -> Path:
    """Return the path if a file can be written there.

    Parameters
    ----------
    path : Path
    option : str
        The option that named it, for the message.
    force : bool
        Whether an existing file may be replaced.
    others : sequence of Path
        Files that the same command reads or writes, which it must not be.
    """
    path = path.expanduser()
    if any(path.resolve() == other.expanduser().resolve() for other in others):
        raise UserError(f"{option} {path} would replace a file that is read; name another")
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise UserError(f"{option} {path} is a device, not a file that can be replaced")
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


def saved(save: Callable[[Path], object], path: Path) -> None:
    """Write what was learnt, to the folder of temporary files if it cannot be written where wanted.

    A disk may fill up while something is trained, and hours of training are not to be lost by it.

    Raises
    ------
    UserError
        If the path could not be written, naming the file that holds what was learnt, if any does.
    """
    try:
        save(path)
    except UserError as error:
        kept = Path(tempfile.mkdtemp(prefix="understudy-")) / path.name
        try:
            save(kept)
        except UserError:
            raise error from None
        raise UserError(f"{error}; what was learnt is in {kept}") from error


def check_device(device: str) -> None:
    """Refuse devices that are unknown or not there; PyTorch is loaded for cuda only."""
    if device not in ("cpu", "cuda"):
        raise UserError(f"--device is cpu or cuda, found {device!r}")
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise UserError("--device cuda: no GPU that PyTorch can use was found")
