"""The benchmark of solvers compares at equal error, from equal starts, and prints its records."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import solvers
import solvers_page
from equations import PROBLEMS, heat, temperatures

POINTS = {"periodic": lambda problem, k: k * problem.base, "interior": lambda p, k: 16 * k - 1}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_start_is_the_same_at_every_resolution(name: str) -> None:
    problem = PROBLEMS[name]
    coarse, fine = (problem.start(POINTS[problem.nodes](problem, k)) for k in (1, 3))
    assert coarse.shape[1:] == (problem.base,) * problem.axes
    np.testing.assert_allclose(problem.sampled(fine), coarse, atol=1e-12)


def test_the_series_of_heat_starts_uniform_and_ends_as_a_line() -> None:
    x = np.array([0.25, 0.5])
    first, left, right = temperatures().T
    assert heat(x, 2e-3)[:, 1] == pytest.approx(first, rel=1e-6)
    line = left[:, None] + (right - left)[:, None] * x
    np.testing.assert_allclose(heat(x, 5.0), line, rtol=1e-12)


def test_seconds_at_an_error_are_those_of_a_power_law() -> None:
    pair = [{"error": 1e-2}, {"error": 1e-6}]  # four orders for twice the time
    assert solvers.at_error(pair, [1.0, 2.0], 1e-4) == pytest.approx(2.0**0.5)
    assert solvers.at_error(pair[1:], [2.0], 1e-4) == 2.0


def test_the_family_that_reaches_an_error_the_soonest_is_chosen() -> None:
    def sweep(*pairs: tuple[float, float]) -> list[dict]:
        return [{"error": e, "cpu_s": s, "setting": {"steps": s}} for e, s in pairs]

    coarse = sweep((1e-2, 1.0), (5e-3, 2.0))
    late = sweep((1e-2, 1.0), (1e-4, 9.0))
    soon = sweep((1e-1, 1.0), (1e-4, 3.0), (1e-5, 4.0))
    found = solvers.chosen([coarse, late, [{"failed": "no"}, *soon]], 1e-3)
    assert [record["cpu_s"] for record in found] == [1.0, 3.0]
    assert solvers.chosen([coarse], 1e-3) == []


def test_a_solver_that_does_not_start_fails() -> None:
    process = solvers.Process(solvers.Solver(solvers.OURS, "solve_nothing"), 1)
    assert process.versions == {}
    assert "failed" in process._line()


def test_the_page_says_who_is_ahead_and_who_did_not_reach_an_error(tmp_path: Path) -> None:
    def found(seconds: list[float]) -> dict:
        setting = {"points": 32, "steps": 7}
        times = {"wall_s": seconds, "cpu_s": seconds}
        return {"settings": [setting], "errors": [9e-4], "first_s": 1.5, **times}

    record = {
        "problem": "ks",
        "title": "KS",
        "equation": "u",
        "runs": 32,
        "agreement": 1e-9,
        "targets": {
            "0.001": {"understudy": found([1.0, 1.0, 2.0]), "exponax": found([3.0, 4.0, 2.0])},
            "1e-06": {"understudy": found([1.0, 1.0, 2.0])},
        },
        "solvers": ["understudy", "exponax"],
        "versions": {"understudy": {"torch": "2"}, "exponax": {"jax": "0"}},
        "hardware": {"processor": "P", "cores": 2, "threads": 1},
        "load": 1.0,
        "measured": "2026-01-01",
    }
    solvers_page.write(tmp_path / "page.md", [record])
    text = (tmp_path / "page.md").read_text()
    assert "| KS | 1 | 3.00 (exponax) | not reached by others |" in text
    assert (
        "| 0.001 | exponax | 3000.00 | 2000.00 | 3.00 | 1.50 | 32 points, 7 steps (9e-04) |" in text
    )
    assert "| 1e-06 | exponax | not reached |" in text and "1e-09 from the truth" in text
