r"""A problem on disk: inputs, objectives, constraints, and how one configuration is run.

.. code-block:: toml

    [inputs]
    angle = { type = "continuous", lower = -2, upper = 8, unit = "deg" }
    ribs = { type = "integer", lower = 2, upper = 12 }
    skin = { type = "categorical", choices = ["thin", "thick"] }

    [objectives]
    drag = "minimize"

    [constraints]
    stress = { upper = 250 }

    [run]
    command = "python {here}/wing.py --angle {angle} --ribs {ribs} --skin {skin}"
    timeout = "10m"

In place of ``command``, ``python = "module:function"`` names a function that takes the inputs by
keyword, or all in one dict, and returns a number, or a dict of outcomes.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.core.duration import parse_budget
from understudy.core.errors import UserError
from understudy.core.objective import COMMAND_WORDS, Command, Function, Run
from understudy.core.search import Constraint, Objective, Problem
from understudy.core.space import Categorical, Continuous, Input, Integer, Space, nearest
from understudy.data.toml_files import read_toml

_DIRECTIONS = ("minimize", "maximize")
_SECTIONS = ("name", "inputs", "objectives", "constraints", "run")
_OF_INPUT = {
    "continuous": ("lower", "upper", "unit", "log"),
    "integer": ("lower", "upper", "unit"),
    "categorical": ("choices",),
}
_OF_RUN = ("python", "command", "input_file", "output_file", "timeout", "folder", "environment")
_FILES = {"input_file": "inputs.json", "output_file": "outputs.json"}


@dataclass(frozen=True)
class ProblemFile:
    """What a problem file says.

    Parameters
    ----------
    path : Path
    name : str
        Of the study; by default that of the file.
    problem : Problem
    run : Run
        Runs one configuration, a `Function` or a `Command`.
    """

    path: Path
    name: str
    problem: Problem
    run: Run


def read_problem(path: str | Path) -> ProblemFile:
    """Read a problem file.

    Parameters
    ----------
    path : str or Path
        TOML, see the docstring of this module.

    Raises
    ------
    UserError
        One sentence: the file, the key, what was found, what is accepted.
    """
    path = Path(path)
    content = read_toml(path)
    try:
        return parse_problem(content, path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def parse_problem(content: Mapping[str, Any], path: Path) -> ProblemFile:
    """Problem of the parsed content of a file, of which the path is remembered."""
    _check_keys(content, _SECTIONS, "the file")
    for section in ("inputs", "objectives", "run"):
        if section not in content:
            raise UserError(f"there is no section [{section}]{_example(section)}")
    for section in ("inputs", "objectives", "constraints", "run"):
        _check_table(content.get(section, {}), f"[{section}]")
    space = Space(tuple(_input(name, item) for name, item in content["inputs"].items()))
    problem = Problem(
        space,
        tuple(_objective(name, item) for name, item in content["objectives"].items()),
        tuple(_constraint(name, item) for name, item in content.get("constraints", {}).items()),
    )
    for name in problem.outcomes:
        if name in space:
            raise UserError(f"{name!r} is an input and an outcome; names must be distinct")
    name = content.get("name", path.stem)
    if not isinstance(name, str) or not name.strip() or "/" in name:
        raise UserError(f"name is a text without '/', found {name!r}")
    return ProblemFile(path, name, problem, _run(content["run"], problem, path, name))


def _example(section: str) -> str:
    lines = {
        "inputs": 'angle = { type = "continuous", lower = -2, upper = 8 }',
        "objectives": 'drag = "minimize"',
        "run": 'python = "module:function" or command = "./solver {angle}"',
    }
    return f", which has lines such as {lines[section]}"


def _check_table(value: object, where: str) -> None:
    if not isinstance(value, Mapping):
        raise UserError(f"{where} is a table of names and values, found {value!r}")


def _check_keys(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise UserError(f"{where} has no key {key!r}{nearest(key, known)}")


# -- inputs, objectives, constraints -------------------------------------------------------------


def _input(name: str, item: object) -> Input:
    where = f"input {name!r}"
    _check_table(item, where)
    assert isinstance(item, Mapping)
    if "type" not in item:
        raise UserError(f"{where} has no type, one of 'continuous', 'integer', 'categorical'")
    kind = item["type"]
    if kind not in _OF_INPUT:
        raise UserError(f"{where}: unknown type {kind!r}{_nearest_kind(kind)}")
    _check_keys(item, ("type", *_OF_INPUT[kind]), f"{where}, of type {kind!r},")
    if kind == "categorical":
        return Categorical(name, _choices(item, where))
    lower, upper = (_number(item, key, where) for key in ("lower", "upper"))
    unit = item.get("unit", "")
    if not isinstance(unit, str):
        raise UserError(f"{where}: unit is a text, found {unit!r}")
    if kind == "integer":
        return _whole(name, lower, upper, unit)
    log = item.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"{where}: log is true or false, found {log!r}")
    return Continuous(name, lower, upper, unit, log)


def _whole(name: str, lower: float, upper: float, unit: str) -> Integer:
    if not (math.isfinite(lower) and math.isfinite(upper)):
        raise UserError(f"input {name!r}: bounds must be finite, found {lower} and {upper}")
    return Integer(name, lower, upper, unit)  # type: ignore[arg-type]  # checks that they are whole


def _nearest_kind(kind: object) -> str:
    words = {"float": "continuous", "real": "continuous", "int": "integer", "choice": "categorical"}
    meant = words.get(str(kind).lower())
    return f"; did you mean {meant!r}?" if meant else nearest(kind, list(_OF_INPUT))


def _choices(item: Mapping[str, Any], where: str) -> tuple[Any, ...]:
    choices = item.get("choices")
    if not isinstance(choices, list):
        raise UserError(f"{where}: choices is a list of at least two values, found {choices!r}")
    return tuple(choices)


def _number(item: Mapping[str, Any], key: str, where: str) -> float:
    if key not in item:
        raise UserError(f"{where} has no {key} bound; write {key} = a number")
    value = item[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{where}: {key} must be a number, found {value!r}")
    return value


def _objective(name: str, item: object) -> Objective:
    where = f"objective {name!r}"
    reference = None
    if isinstance(item, Mapping):
        _check_keys(item, ("direction", "reference"), where)
        reference = float(_number(item, "reference", where)) if "reference" in item else None
        item = item.get("direction")
    if item is None:
        raise UserError(f"{where} has no direction; it is 'minimize' or 'maximize'")
    if item not in _DIRECTIONS:
        close = difflib.get_close_matches(str(item), _DIRECTIONS, n=1, cutoff=0.6)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UserError(f"{where}: direction is 'minimize' or 'maximize', found {item!r}{hint}")
    return Objective(name, "maximize" if item == "maximize" else "minimize", reference)


def _constraint(name: str, item: object) -> Constraint:
    where = f"constraint {name!r}"
    if not isinstance(item, Mapping):
        raise UserError(f"{where} is {{ lower = ... }}, {{ upper = ... }} or both, found {item!r}")
    _check_keys(item, ("lower", "upper"), where)
    bounds = {key: float(_number(item, key, where)) for key in item}
    return Constraint(name, **bounds)


# -- how it is run -------------------------------------------------------------------------------


def _run(item: Mapping[str, Any], problem: Problem, path: Path, name: str) -> Run:
    _check_keys(item, _OF_RUN, "[run]")
    if ("python" in item) == ("command" in item):
        found = "both" if "python" in item else "neither"
        raise UserError(f"[run] has either python or command, found {found}")
    here = path.resolve().parent
    folder = item.get("folder", f"{name}-trials")
    if not isinstance(folder, str) or not folder:
        raise UserError(f"[run]: folder is a path, found {folder!r}")
    common = {
        "here": here,
        "folder": here / folder,
        "inputs": tuple(problem.space.names),
        "outcomes": problem.outcomes,
        "timeout": _timeout(item.get("timeout")),
        "environment": _environment(item.get("environment", {})),
    }
    if "python" in item:
        for key in ("input_file", "output_file"):
            if key in item:
                raise UserError(f"[run]: {key} belongs to a command, not to a python function")
        return _function(item["python"], common)
    return _command(item, common)


def _timeout(value: object) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise UserError
        return parse_budget(value)
    except UserError:
        raise UserError(
            f"[run]: timeout is a positive time such as 90, '90s', '2m' or '1h', found {value!r}"
        ) from None


def _environment(value: object) -> tuple[tuple[str, str], ...]:
    _check_table(value, "[run] environment")
    assert isinstance(value, Mapping)
    for name, text in value.items():
        if isinstance(text, bool) or not isinstance(text, str | int | float):
            raise UserError(f"[run] environment: {name} is a text or a number, found {text!r}")
    return tuple((name, str(text)) for name, text in value.items())


def _function(value: object, common: dict[str, Any]) -> Function:
    module, _, function = value.partition(":") if isinstance(value, str) else ("", "", "")
    if not module or not function:
        raise UserError(f"[run]: python is 'module:function', found {value!r}")
    run = Function(**common, module=module, function=function)
    run.check()
    return run


def _command(item: Mapping[str, Any], common: dict[str, Any]) -> Command:
    for name in common["inputs"]:
        if name in COMMAND_WORDS:
            raise UserError(
                f"input {name!r} cannot have this name, which commands use for something else"
            )
    for key in _FILES:
        if not isinstance(item.get(key, ""), str) or "/" in item.get(key, ""):
            raise UserError(f"[run]: {key} is the name of a file, found {item[key]!r}")
    names = {key: item.get(key, default) for key, default in _FILES.items()}
    run = Command(**common, **names, words=_words(item["command"]), writes="output_file" in item)
    run.check()
    return run


def _words(command: object) -> tuple[str, ...]:
    import shlex

    if isinstance(command, str):
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise UserError(f"[run]: command cannot be split into words: {error}") from error
    elif isinstance(command, list) and all(isinstance(word, str) for word in command):
        words = command
    else:
        raise UserError(f"[run]: command is a text or a list of texts, found {command!r}")
    if not words:
        raise UserError("[run]: command is empty")
    return tuple(words)
