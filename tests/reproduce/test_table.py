import subprocess
import sys
from pathlib import Path

import pytest

from understudy.core.errors import UserError
from understudy.reproduce import reproduce, systems_page, systems_table
from understudy.reproduce.table import claims_table, main

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_the_generated_one():
    page = (ROOT / "docs/systems.md").read_text(encoding="utf-8")
    assert page == systems_page(ROOT / "results"), "run `python -m understudy.reproduce.table`"


def test_the_page_names_the_command_that_makes_it(tmp_path):
    assert "`python -m understudy.reproduce.table`" in systems_page(tmp_path).splitlines()[0]


def test_the_command_writes_the_page_without_a_warning(tmp_path):
    page = tmp_path / "page.md"
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c"]
    script = f"import runpy, sys; sys.argv[1:] = ['--results', {str(tmp_path)!r}, '--output', {str(page)!r}]; runpy.run_module('understudy.reproduce.table', run_name='__main__')"  # noqa: E501
    subprocess.run([*command, script], check=True, timeout=60)
    assert page.read_text(encoding="utf-8") == systems_page(tmp_path)


def test_every_system_is_a_row():
    rows = systems_table()
    assert len(rows) == 59
    assert rows[0]["slug"] == "online-training" and rows[0]["arxiv"] == "2306.16133"


def test_rows_are_kept_by_stage():
    assert {row["slug"] for row in systems_table(stage="retrieve")} == {
        "adanns",
        "hnsw-recall",
        "neural-ranking",
    }


def test_rows_are_kept_by_status(fake):
    ready, planned = systems_table(implemented=True), systems_table(implemented=False)
    assert len(ready) + len(planned) == 60
    assert "fake" in {row["slug"] for row in ready}
    assert {row["status"] for row in ready} == {"implemented"}
    assert "fake" not in {row["slug"] for row in planned}


def test_an_unknown_stage_is_refused():
    with pytest.raises(UserError, match=r"--stage is one of simulate, .*, not 'models'"):
        systems_table(stage="models")


def test_rows_count_the_claims_that_hold(fake, make_claim, tmp_path):
    fake.run = lambda scale, seed: [make_claim(), make_claim(measured=1.0)]
    reproduce("fake", "cpu", out=tmp_path)
    rows = {row["slug"]: row for row in systems_table(results=tmp_path)}
    assert (rows["fake"]["scale"], rows["fake"]["claims"], rows["fake"]["claims_holding"]) == (
        "cpu",
        2,
        1,
    )
    assert (rows["adanns"]["scale"], rows["adanns"]["claims"]) == (None, 0)


def test_the_page_shows_a_claim_that_does_not_hold_with_its_reason(fake, make_claim, tmp_path):
    fake.run = lambda scale, seed: [make_claim(measured=1.0, reason="reduced | width")]
    reproduce("fake", "cpu", out=tmp_path)
    [row] = [line for line in systems_page(tmp_path).splitlines() if "Twice as fast" in line]
    assert row == (
        "| Twice as fast | Fig. 1: 2.1x | speed ratio | at least 2 | 1 ± 0.1 | 0, 1 | "
        "**does not hold**: measured 1, below the bar of 2; reduced \\| width |"
    )


def test_a_smoke_run_is_not_shown_as_a_measurement(fake, tmp_path):
    reproduce("fake", "smoke", out=tmp_path)
    assert "### fake" not in systems_page(tmp_path)
    reproduce("fake", "cpu", out=tmp_path)
    assert "### fake" in systems_page(tmp_path)


def test_the_page_is_the_same_every_time(fake, tmp_path):
    reproduce("fake", "cpu", out=tmp_path / "results")
    pages = [tmp_path / "one.md", tmp_path / "two.md"]
    for page in pages:
        main(["--results", str(tmp_path / "results"), "--output", str(page)])
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_a_spoilt_result_stops_the_page(fake, tmp_path):
    (tmp_path / "fake.json").write_text("{}")
    with pytest.raises(UserError, match=r"the result .*fake\.json is not valid"):
        systems_page(tmp_path)


def test_the_claims_of_a_system_become_the_table_of_its_page(fake, make_claim, tmp_path):
    fake.run = lambda scale, seed: [make_claim(), make_claim(measured=1.0, metric="a | b")]
    reproduce("fake", "cpu", out=tmp_path)
    assert claims_table("fake", tmp_path).splitlines()[-2:] == [
        "| Twice as fast | speed ratio | ≥ 2 | 2.5 ± 0.1 | holds |",
        "| Twice as fast | a \\| b | ≥ 2 | 1 ± 0.1 | **does not hold** |",
    ]


def test_a_page_has_no_table_of_what_was_not_measured(fake, tmp_path):
    with pytest.raises(UserError, match="cannot read the result"):
        claims_table("fake", tmp_path)
    reproduce("fake", "smoke", out=tmp_path)
    with pytest.raises(UserError, match="at smoke scale only"):
        claims_table("fake", tmp_path)
