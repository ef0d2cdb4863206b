"""Ratios of operators are those of turns, and peers of other weights do not decide the verdict."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import operators


def record(peer: str, factor: float) -> dict:
    turns = [[0.1, 0.1 * factor], [0.2, 0.2 * factor], [0.4, 0.4 * factor]]
    memory = {"step_mb": 10.0, "answer_mb": 4.0}
    return {
        **{"peer": peer, "case": "1d", "package": f"{peer} 1", "batch": 32, "apart": 1e-7},
        **{"numbers": [10, 10], "step_s": turns, "answer_s": turns},
        **{"memory_ours": memory, "memory_theirs": {"step_mb": 15.0, "answer_mb": 2.0}},
    }


def test_a_ratio_is_the_median_over_turns():
    found = record("neuraloperator", 2.0)
    found["step_s"][0] = [0.1, 0.9]
    assert operators.ratios(found, "step_s") == pytest.approx((2.0, 2.0, 5.5))


def test_rates_are_samples_by_the_median_time():
    assert operators.rates(record("neuraloperator", 2.0), "step_s") == pytest.approx((160, 80))


def test_tables_have_a_line_a_peer_that_ran():
    records = [record("uno", 3.0), record("neuraloperator", 2.0)]
    records.append({"peer": "physicsnemo", "case": "1d", "failed": "no such package"})
    lines = operators.speed_table(records).splitlines()[2:]
    assert [line.split("|")[2].strip() for line in lines] == [
        "neuraloperator 1, FNO",
        "uno 1, U-NO",
    ]
    assert "**2.00** (2.00, 2.00)" in lines[0]
    assert "10 / 15 | 1.50 | 4 / 2 | 0.50" in operators.memory_table(records)


@pytest.mark.parametrize(("factor", "said"), [(0.9, "slower than some"), (1.1, "not slower")])
def test_the_verdict_is_of_peers_with_the_same_weights(factor, said):
    records = [record("uno", 0.1), record("neuraloperator", factor)]
    kept = {"records": records, "hardware": {"processor": "a chip"}, "measured": "2026-11-26"}
    assert said in operators.verdict(kept)
