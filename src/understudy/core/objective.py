"""One configuration run: a Python function, or an external command with its files.

A run takes place in a folder of its own, where what it prints is kept in ``stdout.txt`` and
``stderr.txt``. It gives a finite number for every outcome, or fails with a sentence. This module
loads nothing heavy, so that a worker starts in no time.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import os
import re
import shutil
import signal
import string
import subprocess
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.errors import UserError

if TYPE_CHECKING:
    from understudy.core.search import Config

COMMAND_WORDS = ("input_file", "output_file", "here", "python")
OUT, ERR = "stdout.txt", "stderr.txt"

_LINE = re.compile(r"^\s*(?P<name>[^=:]+?)\s*[=:]\s*(?P<value>\S+)\s*$")
_TAIL = 200  # characters of a program's last words that a reason quotes


class RunError(Exception):
    """A run that failed, with the reason in one sentence."""


@dataclass(frozen=True)
class Run(ABC):
    """How a configuration is run; can be sent to another process, and called there.

    Parameters
    ----------
    here : Path
        Folder of the problem file: relative names start there.
    folder : Path
        Folder in which each run gets its own.
    inputs, outcomes : tuple of str
        Names of what goes in and of what has to come out.
    timeout : float, optional
        Seconds that a run may take; the executor that runs it sees to that.
    environment : tuple of (str, str)
        Variables set for the run.
    """

    here: Path
    folder: Path
    inputs: tuple[str, ...]
    outcomes: tuple[str, ...]
    timeout: float | None
    environment: tuple[tuple[str, str], ...]

    @abstractmethod
    def check(self) -> None:
        """Refuse what cannot be run at all."""

    @abstractmethod
    def outcome(self, config: Config, folder: Path) -> Any:
        """Run in a folder and return what came out, unchecked."""

    def __call__(self, config: Config, name: str) -> dict[str, float]:
        """Run a configuration.

        Parameters
        ----------
        config : dict
            A value for each input.
        name : str
            Of the run's folder.

        Returns
        -------
        dict
            A finite number for each outcome.

        Raises
        ------
        RunError
        """
        folder = _new_folder(self.folder, name)
        try:
            return numbers(self.outcome(config, folder), self.outcomes)
        finally:
            _remove_if_empty(folder)


def attempt(run: Run, config: Config, name: str) -> tuple[dict[str, float] | None, str, float]:
    """Run a configuration and return its outcomes, or None and why it failed, and its seconds."""
    started = time.monotonic()
    try:
        return run(config, name), "", time.monotonic() - started
    except RunError as error:
        return None, str(error), time.monotonic() - started


def numbers(found: Any, outcomes: tuple[str, ...]) -> dict[str, float]:
    """Check what a run returned: a number where there is one outcome, or a mapping of them.

    Returns
    -------
    dict
        The outcomes in their order.
    """
    if not isinstance(found, Mapping):
        if len(outcomes) > 1:
            raise RunError(f"returned {_brief(found)}, not a mapping of {_listed(outcomes)}")
        found = {outcomes[0]: found}
    missing = [name for name in outcomes if name not in found]
    if missing:
        raise RunError(
            f"returned no {missing[0]!r}; it returned {_listed([str(key) for key in found])}"
        )
    return {name: _finite(name, found[name]) for name in outcomes}


def _finite(name: str, value: Any) -> float:
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise RunError(f"returned {_brief(value)} as {name!r}, which is not a number") from None
    if not math.isfinite(number):
        raise RunError(f"returned {number} as {name!r}")
    return number


def _brief(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape:
        return f"an array of shape {tuple(shape)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _listed(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


# -- folders -------------------------------------------------------------------------------------


def _new_folder(parent: Path, name: str) -> Path:
    """Folder that no run has used: of a run that is repeated, the name with a number."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, 10_000):
            folder = parent / (name if attempt == 1 else f"{name}.{attempt}")
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        raise RunError(f"{parent}: cannot make a folder there ({error.strerror})") from error
    raise RunError(f"{parent}: has too many folders of run {name}")


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        for path in (folder / OUT, folder / ERR):
            if path.exists() and path.stat().st_size == 0:
                path.unlink()
        folder.rmdir()


# -- a Python function ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Function(Run):
    """A function of a module, called with the inputs by keyword, or with all in one dict.

    Parameters
    ----------
    module, function : str
        The module is looked for beside the problem file first.
    """

    module: str
    function: str

    def check(self) -> None:
        """Import the function and see how it takes the inputs."""
        self._by_keyword(self._load())

    def outcome(self, config: Config, folder: Path) -> Any:
        """Call the function; what it prints is kept in the folder."""
        os.environ.update(self.environment)
        with _inside(folder):
            try:
                function = self._load()
                return function(**config) if self._by_keyword(function) else function(dict(config))
            except Exception as error:
                traceback.print_exc()
                said = " ".join(str(error).split())
                raise RunError(f"raised {type(error).__name__}: {said}".rstrip(": ")) from error

    def _load(self) -> Callable[..., Any]:
        if str(self.here) not in sys.path:
            sys.path.insert(0, str(self.here))
        try:
            module = importlib.import_module(self.module)
        except Exception as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name == self.module
            why = (
                f"there is no module {self.module!r}{self._nearest_module()}"
                if missing
                else f"module {self.module!r} cannot be imported: {type(error).__name__}: {error}"
            )
            raise UserError(f"[run] python: {why}") from error
        found = getattr(module, self.function, None)
        if not callable(found):
            from understudy.core.space import nearest

            names = [name for name, value in vars(module).items() if inspect.isfunction(value)]
            raise UserError(
                f"[run] python: module {self.module!r} has no function {self.function!r}"
                f"{nearest(self.function, names)}"
            )
        return found

    def _nearest_module(self) -> str:
        from understudy.core.space import nearest

        return nearest(self.module, sorted(path.stem for path in self.here.glob("*.py")))

    def _by_keyword(self, function: Callable[..., Any]) -> bool:
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            return True
        with suppress(TypeError):
            signature.bind(**dict.fromkeys(self.inputs))
            return True
        with suppress(TypeError):
            signature.bind({})
            return False
        raise UserError(
            f"[run] python: {self.function}{signature} takes neither the inputs "
            f"{_listed(self.inputs)} by name nor one dict of them"
        )


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder, which keeps everything that this process prints."""
    before = Path.cwd()
    kept = [os.dup(1), os.dup(2)]
    with (folder / OUT).open("a", buffering=1) as out, (folder / ERR).open("a", buffering=1) as err:
        try:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os.chdir(folder)
            with redirect_stdout(out), redirect_stderr(err):
                yield
        finally:
            os.chdir(before)
            for number, descriptor in zip((1, 2), kept, strict=True):
                os.dup2(descriptor, number)
                os.close(descriptor)


# -- an external command -------------------------------------------------------------------------


@dataclass(frozen=True)
class Command(Run):
    """A program with the inputs on its command line or in a JSON file.

    Parameters
    ----------
    words : tuple of str
        The program and its arguments; ``{name}`` stands for an input, ``{input_file}`` and
        ``{output_file}`` for JSON files in the run's folder, ``{here}`` for the folder of the
        problem file, ``{python}`` for this Python.
    input_file, output_file : str
        Names of those files.
    writes : bool
        Whether outcomes come in the output file though the command line does not name it.
    """

    words: tuple[str, ...]
    input_file: str
    output_file: str
    writes: bool = False

    def check(self) -> None:
        """Refuse unknown placeholders, unused inputs and a program that is not there."""
        from understudy.core.space import nearest

        used = {name for word in self.words for name in _placeholders(word)}
        known = (*self.inputs, *COMMAND_WORDS)
        for name in used:
            if name not in known:
                raise UserError(f"[run] command: no input {{{name}}}{nearest(name, known)}")
        unused = [name for name in self.inputs if name not in used]
        if unused and "input_file" not in used:
            raise UserError(
                f"[run] command: input {unused[0]!r} is not used; write {{{unused[0]}}}, "
                "or {input_file} for a file with all of them"
            )
        if not _placeholders(self.words[0]) and shutil.which(self._program()) is None:
            raise UserError(f"[run] command: there is no program {self.words[0]!r} that can be run")

    def outcome(self, config: Config, folder: Path) -> Any:
        """Run the program and read the outcomes."""
        inputs, outputs = folder / self.input_file, folder / self.output_file
        inputs.write_text(json.dumps(config, indent=2))
        places = {
            **{name: _spelt(value) for name, value in config.items()},
            "input_file": str(inputs),
            "output_file": str(outputs),
            "here": str(self.here),
            "python": sys.executable,
        }
        words = [self._program(), *self.words[1:]]
        printed = self._run([_filled(word, places) for word in words], folder)
        if self._writes_a_file():
            return _read_outputs(outputs)
        return parse_printed(printed, self.outcomes)

    def _writes_a_file(self) -> bool:
        return self.writes or any("output_file" in _placeholders(word) for word in self.words)

    def _program(self) -> str:
        """The program, of which a relative path starts where the problem file is."""
        program = self.words[0]
        relative = "/" in program and not program.startswith(("/", "{"))
        return str(self.here / program) if relative else program

    def _run(self, words: list[str], folder: Path) -> str:
        """What the program printed on standard output; all it printed is kept in the folder.

        It stays in the process group of this worker, which ends it when the time is up.
        """
        environment = {**os.environ, **dict(self.environment)}
        with (folder / OUT).open("w+b") as out, (folder / ERR).open("w+b") as err:
            try:
                code = subprocess.call(
                    words,
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                )
            except OSError as error:
                raise RunError(f"{words[0]} cannot be run: {error.strerror}") from error
            text, complaint = _text(out), _text(err)
        if code != 0:
            how = f"ended with exit code {code}" if code > 0 else f"was killed by {_name(code)}"
            raise RunError(f"{words[0]} {how}{_quoted(complaint or text)}")
        return text


def parse_printed(text: str, outcomes: tuple[str, ...]) -> Any:
    """Outcomes in what a program printed.

    The last line that is a JSON object with an outcome; else the whole text, as JSON; else lines
    ``name = value`` or ``name: value``, of which the last of each name counts; else, where one
    outcome is looked for, the last line that is a number.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for candidate in (*reversed(lines), text):
        found = _json(candidate)
        if isinstance(found, dict) and any(name in found for name in outcomes):
            return found
    named = {
        match["name"]: match["value"].rstrip(",;")
        for match in map(_LINE.match, lines)
        if match is not None and match["name"] in outcomes
    }
    if named:
        return {name: _as_number(value) for name, value in named.items()}
    if len(outcomes) == 1:
        for line in reversed(lines):
            with suppress(ValueError):
                return float(line)
    raise RunError(
        f"printed no {_listed(outcomes)}; accepted are JSON, or lines such as {outcomes[0]} = 1.5"
        f"{_quoted(text)}"
    )


def _json(text: str) -> Any:
    with suppress(ValueError, RecursionError):
        return json.loads(text) if text.lstrip().startswith("{") else None
    return None


def _as_number(value: str) -> Any:
    with suppress(ValueError):
        return float(value.replace("D", "E").replace("d", "e"))  # as Fortran writes exponents
    return value


def _read_outputs(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"wrote no file {path.name}") from None
    except (OSError, ValueError) as error:
        raise RunError(f"wrote a file {path.name} that is not JSON: {error}") from error


def _placeholders(word: str) -> list[str]:
    try:
        return [name for _, name, _, _ in string.Formatter().parse(word) if name is not None]
    except ValueError as error:
        raise UserError(
            f"[run] command: {word!r} has a brace that is not part of a {{name}} ({error}); "
            "a brace itself is written twice"
        ) from error


def _filled(word: str, places: Mapping[str, Any]) -> str:
    try:
        return word.format_map(places)
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise RunError(f"{word!r} cannot be filled in: {error}") from error


def _spelt(value: Any) -> Any:
    """Truth values as most programs read them; numbers and texts as they are."""
    return str(value).lower() if isinstance(value, bool) else value


def _text(stream: Any) -> str:
    stream.seek(0)
    return str(stream.read().decode("utf-8", errors="replace"))


def _quoted(text: str) -> str:
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
    return f"; its last line: {last[-_TAIL:]}" if last else ""


def _name(code: int) -> str:
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
