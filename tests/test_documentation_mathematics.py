"""Docstrings with reStructuredText mathematics become pages with MathML."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).parent.parent / "docs" / "extensions" / "mathematics.py"


@pytest.fixture(scope="module")
def mathematics() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mathematics", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_inline_role_becomes_a_formula_between_dollars(mathematics: ModuleType) -> None:
    assert mathematics.to_markdown(r"with :math:`\alpha_t` small") == r"with $\alpha_t$ small"


def test_a_directive_ends_where_its_indentation_ends(mathematics: ModuleType) -> None:
    text = "Before\n\n.. math:: a =\n    b\n\n    + c\n\nAfter"
    assert mathematics.to_markdown(text) == "Before\n\n$$\na = b + c\n$$\n\nAfter"


def test_a_reference_to_a_class_becomes_code(mathematics: ModuleType) -> None:
    assert mathematics.to_markdown("a :class:`Space` of") == "a `Space` of"


def test_a_table_keeps_its_cells_and_joins_continued_lines(mathematics: ModuleType) -> None:
    text = "====  =====\nname  means\n====  =====\na     one\n      more\nb     |two|\n====  ====="
    assert mathematics.to_markdown(text).splitlines() == [
        "| name | means |",
        "| --- | --- |",
        "| a | one more |",
        r"| b | \|two\| |",
    ]


def test_a_formula_on_a_page_becomes_mathml(mathematics: ModuleType) -> None:
    page = mathematics.on_page_content(r'<p><span class="arithmatex">\(x &lt; y\)</span></p>')
    assert page.startswith("<p><math") and "<mo>&#x0003C;</mo>" in page
