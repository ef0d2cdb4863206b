"""One module a system: the claim of its paper, measured.

A module here defines ``run(scale, seed) -> list[Claim]``.

`Scale`         how much a reproduction may spend
`Claim`         a statement of a paper, its bar and what was measured
`Report`        all claims of a system, with versions, hardware and time
`reproduce`     run a reproduction and keep its result
`read_report`   read a kept result
`result_path`   where the result of a scale is kept
`ReproductionError`  a reproduction that failed
`systems_table` the registry as rows
`systems_page`  the registry and the results as a page
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.reproduce.claims import Claim, Report, Scale
    from understudy.reproduce.runner import ReproductionError, read_report, reproduce, result_path
    from understudy.reproduce.table import systems_page, systems_table

_HOMES = {
    "Claim": "claims",
    "Report": "claims",
    "ReproductionError": "runner",
    "Scale": "claims",
    "read_report": "runner",
    "reproduce": "runner",
    "result_path": "runner",
    "systems_page": "table",
    "systems_table": "table",
}

__all__ = [
    "Claim",
    "Report",
    "ReproductionError",
    "Scale",
    "read_report",
    "reproduce",
    "result_path",
    "systems_page",
    "systems_table",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
