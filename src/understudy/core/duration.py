"""Durations as people write them."""

from __future__ import annotations

import re

from understudy.core.errors import UserError

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_budget(budget: float | str) -> float:
    """Seconds of a budget such as 120, "90s", "2m" or "1h"."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*", str(budget).lower())
    if match is None or match[2] not in _UNITS or float(match[1]) <= 0.0:
        raise UserError(f"a budget is a positive time such as 90s, 2m or 1h, got {budget!r}")
    return float(match[1]) * _UNITS[match[2]]
