"""Solvers that are programs: started once a run, with frames on their standard output or in a pipe.

The format of frames, and the one function that a solver in Python calls, are in
`understudy.stream`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select
from typing import IO

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.space import Space, nearest
from understudy.stream import PATH_VARIABLE, Source, read

_PLACE = re.compile(r"\{(\w+)\}")
_LAST_WORDS = 300
_LAST_SECONDS = 1.0


class SolverError(Exception):
    """A program failed; says how it ended and its last words."""


class ExternalSolver:
    """A program that streams the fields of one run.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments. ``{name}`` stands for the value of an input, ``{python}`` for
        this Python, ``{output}`` for the path of a named pipe; where it is not named, frames are
        read from the standard output. No shell is involved.
    space : Space
        The inputs.
    folder : path, optional
        In which the program runs.
    """

    def __init__(
        self, command: Sequence[str], space: Space, folder: str | Path | None = None
    ) -> None:
        self.command, self.space = tuple(command), space
        self.folder = None if folder is None else str(folder)
        self._check()

    def _check(self) -> None:
        if not self.command:
            raise UserError("the command of a solver is empty")
        known = [*self.space.names, "python", "output"]
        for word in self.command:
            for name in _PLACE.findall(word):
                if name not in known:
                    raise UserError(f"command: no input {{{name}}}{nearest(name, known)}")
        named = {name for word in self.command for name in _PLACE.findall(word)}
        for name in self.space.names:
            if name not in named:
                raise UserError(f"command: input {name!r} is not used; write {{{name}}}")
        program = self.command[0]
        there = shutil.which(program) or os.access(Path(self.folder or ".") / program, os.X_OK)
        if not there and not _PLACE.search(program):
            raise UserError(f"command: there is no program {program!r} that can be run")

    def stream(self, params: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Times ``(1,)`` and fields ``(1, *shape)`` of the run of codes ``(1, d)``.

        Raises
        ------
        SolverError
            The program ended with another exit code than 0.
        UserError
            What it wrote are no frames.
        """
        if len(params) != 1:
            raise UserError(f"a program computes one run at a time, found {len(params)}")
        row = self.space.decode(params).iloc[0].to_dict()
        with tempfile.TemporaryDirectory(prefix="understudy-") as folder:
            pipe = Path(folder) / "frames"
            words = self._words({**row, "python": sys.executable, "output": pipe})
            named = any("{output}" in word for word in self.command)
            with self._started(words, pipe if named else None) as source:
                for t, field in read(source):
                    yield torch.tensor([t], dtype=torch.float64), torch.tensor(field)[None]

    def _words(self, places: dict[str, object]) -> list[str]:
        def value(match: re.Match[str]) -> str:
            return str(places[match[1]])

        return [_PLACE.sub(value, word) for word in self.command]

    @contextmanager
    def _started(self, words: list[str], pipe: Path | None) -> Iterator[Source]:
        """Start the program; give where its frames can be read; see how it ends."""
        environment = os.environ | ({PATH_VARIABLE: str(pipe)} if pipe else {})
        with tempfile.TemporaryFile() as errors:
            waiting = _pipe(pipe) if pipe else None
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=errors if pipe else subprocess.PIPE,
                stderr=errors,
                cwd=self.folder,
                env=environment,
            )
            try:
                source = _Named(waiting, process) if waiting is not None else process.stdout
                assert source is not None
                yield source
                code = process.wait()
            except UserError as error:
                with suppress(subprocess.TimeoutExpired):
                    if process.wait(_LAST_SECONDS) != 0:
                        raise SolverError(_ended(process.returncode, errors)) from error
                raise
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                if process.stdout is not None:
                    process.stdout.close()
                if waiting is not None:
                    os.close(waiting)
            if code != 0:
                raise SolverError(_ended(code, errors))


def _pipe(path: Path) -> int:
    """Make a named pipe, and open it without waiting for who writes."""
    os.mkfifo(path)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


class _Named:
    """Reads a named pipe until the program ends."""

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self._descriptor, self._process = descriptor, process

    def read(self, size: int) -> bytes:
        while True:
            ended = self._process.poll() is not None
            ready, _, _ = select([self._descriptor], [], [], 0.05)
            if ready:
                piece = self._piece(size)
                if piece:
                    return piece
            if ended:
                return b""
            if ready:  # nobody has opened it yet, or nobody any more
                self._pause()

    def _piece(self, size: int) -> bytes:
        try:
            return os.read(self._descriptor, size)
        except BlockingIOError:
            return b""

    def _pause(self) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.005)


def _ended(code: int, errors: IO[bytes]) -> str:
    return f"the solver ended with exit code {code}{_said(errors)}"


def _said(errors: IO[bytes]) -> str:
    size = errors.seek(0, os.SEEK_END)
    errors.seek(max(0, size - _LAST_WORDS))
    words = " ".join(errors.read().decode(errors="replace").split())
    return f": {words}" if words else ""
