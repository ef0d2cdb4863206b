"""What is served, read from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from understudy.core import artifact
from understudy.serve.hosted import HostedModel, load_models, served_names
from understudy.serve.limits import Limits
from understudy.serve.operators import HostedOperator, load_operators
from understudy.serve.records import Metrics


def load_all(
    paths: Sequence[Path], limits: Limits, metrics: Metrics
) -> tuple[dict[str, HostedModel], dict[str, HostedOperator]]:
    """Read surrogates of tables and operators from ``.us`` files, by their names.

    Raises
    ------
    UserError
        A file that is damaged or hostile, or whose name cannot be part of an address.
    """
    files = served_names(paths)
    fields = {name: path for name, path in files.items() if _kind(path) == "operator"}
    tables = [path for name, path in files.items() if name not in fields]
    operators = load_operators(fields, limits)
    return load_models(tables, limits, metrics.batch), operators


def _kind(path: Path) -> str:
    return str(artifact.read(path).manifest.get("kind"))
