"""The repository keeps its promises: documents, make targets and pins fit one another."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import understudy

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
EXAMPLES = ["README.md", "docs/quickstart.md"]
PAGES = [
    page
    for page in sorted((ROOT / "docs").rglob("*.md"))
    if str(page.relative_to(ROOT)) not in EXAMPLES and "```python\n" in page.read_text()
]
HEAVY = {
    "torch",
    "pandas",
    "sklearn",
    "scipy",
    "botorch",
    "gpytorch",
    "plotly",
    "optuna",
    "pyarrow",
}


def nav_pages(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [page for part in parts for page in nav_pages(part)]


def code_blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


def lines_of_shell(document: Path) -> list[str]:
    return "".join(code_blocks(document, "bash")).splitlines()


def commands() -> dict[str, Any]:
    from typer.main import get_command

    from understudy.cli.app import app

    return get_command(app).commands


def pins() -> dict[str, str]:
    text = (ROOT / "constraints.txt").read_text()
    pairs = (line.split("==") for line in text.splitlines() if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def installed_requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    names = [*PROJECT["dependencies"], *extras["battery"], *extras["dev"], *extras["docs"]]
    return [Requirement(name) for name in names]


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=280
    )


def test_importing_the_package_loads_no_heavy_library(tmp_path: Path) -> None:
    done = run("import sys, understudy; print(*{m.split('.')[0] for m in sys.modules})", tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "understudy" in loaded
    assert not loaded & HEAVY


def test_every_public_name_of_the_package_resolves() -> None:
    missing = [name for name in getattr(understudy, "__all__", []) if not hasattr(understudy, name)]
    assert missing == []


def test_every_page_of_the_documentation_is_in_the_navigation_and_exists() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert set(nav_pages(config["nav"])) == pages


def test_every_make_command_in_the_documents_is_a_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    texts = [path.read_text() for path in DOCUMENTS]
    spoken = {name for text in texts for name in re.findall(r"`make ([a-z-]+)", text)}
    typed = {
        name
        for path in DOCUMENTS
        for line in lines_of_shell(path)
        for name in re.findall(r"^make ([a-z-]+)", line)
    }
    assert {"demo", "test"} <= spoken | typed
    assert spoken | typed <= targets


def test_every_command_in_the_documents_is_one_of_the_command_line() -> None:
    used = {
        line.split()[1]
        for path in DOCUMENTS
        for line in lines_of_shell(path)
        if re.match(r"understudy [a-z]", line)
    }
    assert used == set(commands())


def test_every_option_of_every_command_is_documented_and_no_other() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    documented = {
        section.split()[0]: set(re.findall(r"^\| `(--[a-z-]+)", section, re.MULTILINE))
        for section in sections
    }
    offered = {
        name: {opt for parameter in command.params for opt in parameter.opts if opt[:2] == "--"}
        for name, command in commands().items()
    }
    assert documented == offered


def test_the_console_script_is_callable() -> None:
    (script,) = entry_points(group="console_scripts", name="understudy")
    assert callable(script.load())


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for path in ROOT.glob("*.md"):
        links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text())
        broken += [f"{path.name}: {link}" for link in links if not (ROOT / link).exists()]
    assert broken == []


def test_every_direct_dependency_is_pinned_within_its_range() -> None:
    versions = pins()
    wrong = [
        str(requirement)
        for requirement in installed_requirements()
        if not requirement.specifier.contains(
            versions.get(canonicalize_name(requirement.name), "0"), prereleases=True
        )
    ]
    assert wrong == []


def test_the_changelog_begins_with_the_current_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == understudy.__version__


def test_what_checks_a_change_can_be_executed() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("document", EXAMPLES)
def test_python_examples_compile(document: str) -> None:
    blocks = code_blocks(ROOT / document, "python")
    assert blocks
    for block in blocks:
        compile(block, document, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("document", EXAMPLES)
def test_python_examples_run(document: str, tmp_path: Path) -> None:
    done = run("\n".join(code_blocks(ROOT / document, "python")), tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "beam.us").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    done = run("\n".join(code_blocks(page, "python")), tmp_path)
    assert done.returncode == 0, done.stderr
