"""Tables of claims on the pages of systems, from the measurements themselves.

A line ``<!-- claims: SLUG -->`` becomes the table of ``results/SLUG.json``, so that a page never
says something else than what was measured. A page of a system without a result fails the build.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from understudy.reproduce.table import claims_table

_MARK = re.compile(r"^<!-- claims: ([a-z0-9-]+) -->$", re.MULTILINE)
_RESULTS = Path(__file__).parent.parent.parent / "results"


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Return a page with its marks replaced by tables."""
    return _MARK.sub(lambda mark: claims_table(mark.group(1), _RESULTS), markdown)
