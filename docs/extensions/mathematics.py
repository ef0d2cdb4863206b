r"""Mathematics in the documentation, without scripts or a network.

Docstrings carry reStructuredText roles (``:math:``, ``.. math::``, simple tables), which Markdown
does not know: `Roles` turns them into Markdown before they are rendered. The hook
`on_page_content` then turns every formula of a finished page into MathML, which browsers draw.
"""

from __future__ import annotations

import html
import re
from typing import Any

import griffe
from latex2mathml.converter import convert

_ROLE = re.compile(r":math:`([^`]+)`")
_CODE = re.compile(r":(?:class|func|meth|mod|attr|data|exc|obj):`~?([^`]+)`")
_DISPLAY = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +.*| *$))*)", re.MULTILINE)
_TABLE = re.compile(r"^(=+(?: +=+)+)\n(?:(.+)\n\1\n)?((?:.+\n)+?)\1$", re.MULTILINE)
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def _table(match: re.Match[str]) -> str:
    """Return a Markdown table for a reStructuredText one whose columns its rules mark."""
    rule, head, body = match.groups()
    starts = [column.start() for column in re.finditer("=+", rule)]
    spans = list(zip(starts, [*starts[1:], None], strict=True))
    rows: list[list[str]] = []
    for line in body.splitlines():
        cells = [line[a:b].strip().replace("|", "\\|") for a, b in spans]
        if cells[0] or not rows:
            rows.append(cells)
        else:  # without a first cell, a line goes on with the row above
            rows[-1] = [
                f"{above} {cell}".strip() for above, cell in zip(rows[-1], cells, strict=True)
            ]
    heads = [(head or "")[a:b].strip() for a, b in spans]
    table = [heads, ["---"] * len(spans), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in table)


def _display(match: re.Match[str]) -> str:
    """Return a displayed formula as a paragraph of its own, at the indentation it had."""
    indent, formula = match.groups()
    return f"{indent}$$\n{indent}{' '.join(formula.split())}\n{indent}$$\n"


def to_markdown(docstring: str) -> str:
    """Return a docstring with its reStructuredText mathematics and tables as Markdown."""
    text = _DISPLAY.sub(_display, _TABLE.sub(_table, docstring))
    return _CODE.sub(r"`\1`", _ROLE.sub(r"$\1$", text))


class Roles(griffe.Extension):
    """Rewrites every docstring with `to_markdown`."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)


def _mathml(match: re.Match[str]) -> str:
    formula = html.unescape(match.group(3))
    return convert(formula, display="inline" if match.group(2) == "(" else "block")


def on_page_content(content: str, **kwargs: Any) -> str:
    """Return a rendered page with its formulas as MathML."""
    return _FORMULA.sub(_mathml, content)
