"""The benchmarks resume where they stopped, score by the formulas, and print what was measured."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import datasets
import optimize
import page
import problems
import runner
import search_page
import tables
from scores import scores

FAKE_PEER = """
import json, sys
import numpy as np
task = np.load(sys.argv[1])
mean = np.repeat(task["Y_train"].mean(0)[None], len(task["X_test"]), 0)
cost = {"fit_wall_s": 1.0, "fit_cpu_s": 2.0, "predict_wall_s": 0.1, "peak_mib": 50.0}
details = {"again_wall_s": 3.0, "again_cpu_s": 4.0}
report = json.dumps({"cost": cost, "details": details, "versions": {"fake": "1"}})
np.savez(sys.argv[2], mean=mean, again_mean=mean + 1.0, report=report)
"""


def peer(folder: Path, code: str, **variants: str) -> runner.Peer:
    script = folder / "peer.py"
    script.write_text(code)
    return runner.Peer(Path(sys.executable), script, variants or {"fake": ""})


def record(peer: str, seed: int = 0, r2: float = 0.5, cpu: float = 10.0, **changes: object) -> dict:
    cost = {"fit_wall_s": cpu, "fit_cpu_s": cpu, "predict_wall_s": 0.1, "peak_mib": 300.0}
    facts = {"peer": peer, "dataset": "yacht", "seed": seed, "rows": 150, "n_train": 150}
    sizes = {"n_test": 62, "inputs": 6, "outputs": 1, "measured": "2026-01-01"}
    machine = {"hardware": {"processor": "P", "cores": 2, "threads": 1}, "versions": {"p": "1"}}
    return facts | sizes | machine | {"scores": {"r2": [r2]}, "cost": cost} | changes


TASKS = [runner.Task("smooth-40x3x2", seed) for seed in (0, 1)]


def test_a_split_has_a_fifth_for_the_test_and_the_same_rows_for_the_same_seed() -> None:
    whole = datasets.table("smooth-40x3x2")
    first, again, other = (datasets.split(whole, seed) for seed in (0, 0, 1))
    assert first.X_test.shape == (8, 3) and first.Y_train.shape == (32, 2)
    assert np.array_equal(first.X_train, again.X_train)
    assert not np.array_equal(first.X_train, other.X_train)


def test_fewer_training_rows_leave_the_test_rows_alone() -> None:
    whole = datasets.table("smooth-40x3x2")
    all_rows, some = datasets.split(whole, 0), datasets.split(whole, 0, 10)
    assert np.array_equal(all_rows.X_test, some.X_test)
    assert np.array_equal(all_rows.X_train[:10], some.X_train)


def test_one_run_records_every_variant_with_its_own_cost(tmp_path: Path) -> None:
    fake = peer(tmp_path, FAKE_PEER, **{"fake": "", "fake-again": "again_"})
    first, again = runner.run(TASKS[0], fake, tmp_path / "out", runner.Limits(60.0, 1))
    assert (first["peer"], again["peer"]) == ("fake", "fake-again")
    assert first["cost"]["fit_cpu_s"] == 2.0 and again["cost"]["fit_cpu_s"] == 6.0
    assert again["scores"]["r2"][0] < first["scores"]["r2"][0]


def test_a_benchmark_goes_on_with_the_runs_that_have_no_file(tmp_path: Path) -> None:
    peers = {"fake": peer(tmp_path, FAKE_PEER)}
    runner.run(TASKS[0], peers["fake"], tmp_path / "out", runner.Limits(60.0, 1))
    left = [task for task, _ in runner.pending(TASKS, peers, tmp_path / "out", force=False)]
    forced = [task for task, _ in runner.pending(TASKS, peers, tmp_path / "out", force=True)]
    assert left == TASKS[1:] and forced == TASKS


def test_a_failing_peer_is_recorded_with_its_last_words(tmp_path: Path) -> None:
    fake = peer(tmp_path, "raise SystemExit('no such kernel')")
    (failed,) = runner.run(TASKS[0], fake, tmp_path / "out", runner.Limits(60.0, 1))
    assert failed["failed"] == "no such kernel"
    assert runner.load(tmp_path / "out") == [failed]


def test_a_run_over_its_time_is_stopped_and_recorded(tmp_path: Path) -> None:
    fake = peer(tmp_path, "import time; time.sleep(60)")
    (failed,) = runner.run(TASKS[0], fake, tmp_path / "out", runner.Limits(0.3, 1))
    assert failed["failed"] == "stopped after 0.3 s"


def test_a_gaussian_answer_scores_as_the_normal_distribution_does() -> None:
    rng = np.random.default_rng(0)
    Y_train, Y, mean = rng.normal(3.0, 5.0, (3, 50, 2))
    sd = rng.uniform(1.0, 9.0, (50, 2))
    found = scores({"mean": mean, "sd": sd}, Y_train, Y)
    unit = Y_train.std(0)
    nlpd = -norm.logpdf(Y / unit, mean / unit, sd / unit).mean(0)
    assert found["nlpd"] == pytest.approx(nlpd, rel=1e-4)
    assert found["width_90"] == pytest.approx((2.0 * norm.ppf(0.95) * sd / unit).mean(0), rel=1e-4)
    inside = np.abs(Y - mean) <= norm.ppf(0.95) * sd
    assert found["coverage_90"] == pytest.approx(inside.mean(0), rel=1e-4)


def test_a_density_of_its_own_scores_as_the_same_gaussian_does() -> None:
    rng = np.random.default_rng(1)
    Y_train, Y, mean = rng.normal(3.0, 5.0, (3, 50, 2))
    sd = rng.uniform(1.0, 9.0, (50, 2))
    half = norm.ppf(0.95) * sd
    z = (Y - mean) / sd
    crps = sd * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    density = {"log_density": norm.logpdf(Y, mean, sd), "crps": crps}
    answer = {"mean": mean, "sd": sd, **density, "lower_90": mean - half, "upper_90": mean + half}
    expected = scores({"mean": mean, "sd": sd}, Y_train, Y)
    for name, values in scores(answer, Y_train, Y).items():
        assert values == pytest.approx(expected[name], rel=1e-4)


def test_an_answer_without_uncertainty_has_only_r2() -> None:
    Y = np.arange(10.0)[:, None]
    assert scores({"mean": Y}, Y, Y) == {"r2": [1.0]}


def test_a_cell_is_the_mean_and_the_standard_error_over_seeds() -> None:
    members = [record("smt", seed, r2) for seed, r2 in enumerate((0.4, 0.5, 0.6))]
    assert tables.cell(members, tables.METRICS["r2"]) == "0.5000 ± 0.0577"
    assert tables.cell(members, tables.METRICS["nlpd"]) == tables.NONE
    assert tables.cell([], tables.METRICS["r2"]) == ""


def test_a_cell_says_how_many_seeds_have_the_figure() -> None:
    failed = record("smt", 1, failed="stopped after 9 s")
    del failed["scores"]
    assert tables.cell([failed], tables.METRICS["r2"]) == "stopped after 9 s"
    assert tables.cell([record("smt"), failed], tables.METRICS["r2"]) == "0.5000 (1 of 2)"


def test_the_cost_ratio_takes_only_seeds_that_both_have() -> None:
    ours = [record("understudy", seed, cpu=10.0) for seed in (0, 1)]
    theirs = [record("botorch", 0, cpu=70.0), record("botorch", 2, cpu=900.0)]
    ((_, *cells),) = tables.cost_ratios([*ours, *theirs], ["yacht"])
    assert dict(zip(tables.PEER_TITLES, cells, strict=True))["botorch"] == "7.0"


def test_the_page_has_the_machine_the_versions_and_every_metric(tmp_path: Path) -> None:
    page.write(tmp_path / "page.md", [record("understudy"), record("smt")], [], [])
    text = (tmp_path / "page.md").read_text()
    assert "Machine: P, 2 cores." in text and "| SMT KRG | p 1 | 1 | 2026-01-01 |" in text
    assert all(f"## {metric.title}" in text for metric in tables.METRICS.values())
    assert "| yacht, 150 rows | 0.5000 |" in text


class TestSearch:
    """`benchmarks/optimize.py`: peers as processes that are asked and told."""

    def test_a_search_goes_on_from_the_runs_that_all_are_told(self):
        record = optimize.run("branin", 0, optimize.PEERS["random"], threads=1, timeout=60.0)
        assert len(record["history"]) == 60 and len(record["round_wall_s"]) == 10
        assert record["history"] == sorted(record["history"], reverse=True)
        again = optimize.run("branin", 0, optimize.PEERS["random"], threads=1, timeout=60.0)
        assert again["history"] == record["history"]

    def test_a_peer_that_dies_is_a_failed_run(self, tmp_path):
        nowhere = optimize.Peer("none", optimize.OURS, "random_with_a_wrong_name")
        record = optimize.run("branin", 0, nowhere, threads=1, timeout=60.0)
        assert "No such file" in record["failed"]

    def test_loss_is_regret_where_the_optimum_is_known(self):
        task = problems.TASKS["hartmann6"]()
        history = task.history([{"y": -1.0}, {"y": -3.32237}, {"y": 0.0}])
        assert history == pytest.approx([2.32237, 0.0, 0.0])

    def test_what_is_maximised_is_counted_from_above(self):
        task = problems.TASKS["polynomial-200"]()
        assert task.history([{"y": task.best - 1.0}]) == pytest.approx([1.0])

    def test_several_objectives_are_scored_by_their_hypervolume(self):
        task = problems.TASKS["branin-currin"]()
        low = tuple(abs(point) for point in task.reference_point)
        values = [dict(zip(("branin", "currin"), (low[0] - 2.0, low[1] - 3.0), strict=True))]
        assert task.history(values) == pytest.approx([-6.0])

    def test_ranks_are_shared_by_ties_and_taken_over_common_seeds(self):
        def record(peer, seed, last):
            return {
                "problem": "branin",
                "peer": peer,
                "seed": seed,
                "history": [last],
                "round_cpu_s": [1.0],
                "versions": {},
                "measured": "2026-01-01",
                "hardware": {"processor": "x", "cores": 2},
            }

        last = {"understudy": (1.0, 9.0), "ax": (1.0, 1.0), "random": (2.0, 2.0), "hebo": (3.0,)}
        records = [record(p, seed, v) for p, ends in last.items() for seed, v in enumerate(ends)]
        text = search_page.page(records, optimize.PEERS, "ranks.svg")
        assert "| branin (2) | 2.25 | 1.25 | 2.50 |" in text
        few = text[text.index("With HEBO, on 1 pair") :]
        assert "| mean rank | 1.50 | 1.50 | 3.00 | 4.00 |" in few
        assert "(ranks.svg)" in text
