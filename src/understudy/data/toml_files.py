"""Files of settings in TOML, with errors in one sentence."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from understudy.core.errors import UserError


def read_toml(path: Path) -> dict[str, Any]:
    """Content of a TOML file.

    Raises
    ------
    UserError
        That names the file and what is wrong with it.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: {_plainly(error)}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not text in UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def _plainly(error: tomllib.TOMLDecodeError) -> str:
    said = str(error)
    twice = said.startswith(("Cannot overwrite", "Cannot declare", "Cannot redefine"))
    where = said[said.rfind("(") :] if "(" in said else ""
    return f"a name is given twice {where}".rstrip() if twice else f"is not valid TOML: {said}"
