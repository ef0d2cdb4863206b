"""One HTML page that needs nothing else: style, figures, scripts and data in one file.

Names from the data reach a page only through Jinja2's escaping or as JSON without angle brackets,
and the page's own content security policy allows the scripts by their hashes and no connection at
all; so neither a column's name nor anything else can run or load something.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.errors import UserError
from understudy.report import sentences

if TYPE_CHECKING:
    from jinja2 import Environment


def write_page(
    path: Path, template: str, script: str, context: Mapping[str, Any], data: Mapping[str, Any]
) -> Path:
    """Write a page.

    Parameters
    ----------
    path : Path
        The HTML file to write.
    template, script : str
        Files of this package; the script runs after ``drawing.js``.
    context : mapping
        What the template says.
    data : mapping
        What the script draws.

    Returns
    -------
    Path
        Where it was written.
    """
    from plotly.offline import get_plotlyjs

    scripts = _part("drawing.js") + _part(script)
    page = (
        _environment()
        .get_template(template)
        .render(
            **context,
            style=_part("page.css"),
            plotly=get_plotlyjs(),
            script=scripts,
            data=_inert(json.dumps(data, separators=(",", ":"), allow_nan=False)),
            policy=_policy(get_plotlyjs(), scripts),
        )
    )
    _write_whole(path, page)
    return path


def _write_whole(path: Path, page: str) -> None:
    """Write the page in one step: an existing file is replaced whole or left as it is."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        part.unlink(missing_ok=True)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("understudy.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("number", "score", "percent", "duration", "listed", "counted")
    environment.filters.update({name: getattr(sentences, name) for name in names})
    return environment


def _part(name: str) -> str:
    return (files("understudy.report") / name).read_text(encoding="utf-8")


def _inert(text: str) -> str:
    """JSON that cannot end its element: angle brackets and ampersands as escapes."""
    return text.translate({ord(character): f"\\u{ord(character):04x}" for character in "<>&"})


def _policy(*scripts: str) -> str:
    """Allow these scripts by hash, styles and generated images; nothing from anywhere."""
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"
    )
