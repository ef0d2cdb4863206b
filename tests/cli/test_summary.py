"""What is said of a surrogate fits a terminal of eighty columns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from understudy.cli import console, summary

SCORES = {"nlpd": -1.2345678, "r2": 0.98765, "weight": 0.123456, "fit_seconds": 123.456}


def leaderboard() -> Any:
    statuses = {
        "infinite-width": "done",
        "smooth-gp": "stopped: exact-gp holds no weight",
        "boosting": "stopped: dominated on a fold",
        "deep-kernel": "stopped: out of time",
        "laplace": "failed: RuntimeError: the matrix is singular: pivot 3 of 4",
        "deep-ensemble": "stopped",
    }
    rows = [
        {"name": name, "status": status, **SCORES, "predict_seconds": 0.0123456}
        for name, status in statuses.items()
    ]
    return SimpleNamespace(leaderboard=pd.DataFrame(rows), settings={"metric": "nlpd"})


def test_a_model_takes_one_line_of_eighty_columns_whatever_became_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    screen = Console(width=80, force_terminal=True, no_color=True, legacy_windows=False)
    monkeypatch.setattr(console, "console", lambda: screen)
    summary.print_leaderboard(leaderboard())
    lines = [line for line in capsys.readouterr().out.splitlines() if "-1.235" in line]
    assert len(lines) == 6
    ends = [line.rpartition("0.01235")[2].strip() for line in lines]
    assert ends == ["done", "not needed", "dominated", "out of time", "failed", "stopped"]
    assert max(map(len, lines)) <= 80
