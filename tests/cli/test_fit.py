"""`understudy fit` makes a file, refuses what it cannot use, and can be stopped."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import understudy
from understudy.cli.stopping import Stopping
from understudy.core.progress import Progress

from .conftest import FIT, PROGRAM, Program, wing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wing.us"


def test_fit_writes_a_model_and_says_how_good_it_is(
    program: Program, runs: Path, path: Path
) -> None:
    done = program("fit", runs, *FIT, "--test", "0.2", "-o", path)
    assert done.code == 0
    assert understudy.load(path).targets == ("drag", "lift")
    assert "Scores on 12 test rows" in done.out
    assert f"understudy predict {path} new.csv" in done.out
    assert "Comparing models" in done.err


def test_json_is_one_object_and_progress_goes_elsewhere(
    program: Program, runs: Path, path: Path
) -> None:
    done = program("fit", runs, *FIT, "--json", "-o", path)
    record = done.record
    assert record["output"] == str(path)
    assert [item["name"] for item in record["inputs"]] == ["angle", "speed", "profile"]
    assert {row["target"] for row in record["evaluation"]} == {"drag", "lift"}
    assert record["leaderboard"][0]["name"] == "polynomial"
    assert "Comparing models" in done.err


def test_quiet_says_nothing(program: Program, runs: Path, path: Path) -> None:
    done = program("fit", runs, *FIT, "--quiet", "-o", path)
    assert (done.code, done.out, done.err) == (0, "", "")
    assert path.exists()


def test_the_command_and_the_function_give_the_same_result(
    program: Program, runs: Path, path: Path
) -> None:
    assert program("fit", runs, *FIT, "--seed", 3, "-o", path).code == 0
    table = pd.read_csv(runs)
    fitted = understudy.fit(
        table, ["drag", "lift"], drop="id", members=["polynomial"], budget=20, seed=3
    )
    expected, found = (m.predict_table(table) for m in (fitted, understudy.load(path)))
    pd.testing.assert_frame_equal(found, expected)


def test_names_may_be_joined_or_repeated(program: Program, runs: Path, path: Path) -> None:
    joined = ["-t", "drag, lift", "-i", "angle,speed", "--members", "polynomial"]
    repeated = ["-t", "drag", "-t", "lift", "-i", "angle", "-i", "speed", "--members", "polynomial"]
    records = [
        program("fit", runs, *options, "--force", "--json", "-o", path).record
        for options in (joined, repeated)
    ]
    assert records[0]["targets"] == records[1]["targets"] == ["drag", "lift"]
    assert records[0]["inputs"] == records[1]["inputs"]


@pytest.mark.parametrize(
    ("options", "inputs"),
    [
        (["-t", "lift, per area", "-i", "angle, in degrees"], ["angle, in degrees"]),
        (
            ["-t", '"lift, per area"', "-i", '"angle, in degrees",speed'],
            ["angle, in degrees", "speed"],
        ),
        (
            ["-t", "lift, per area", "--drop", '"id, of run", profile, drag', "--drop", "speed"],
            ["angle, in degrees"],
        ),
    ],
)
def test_columns_with_commas_in_their_names_can_be_given(
    program: Program, tmp_path: Path, path: Path, options: list[str], inputs: list[str]
) -> None:
    renamed = {"id": "id, of run", "angle": "angle, in degrees", "lift": "lift, per area"}
    wing(60).rename(columns=renamed).to_csv(tmp_path / "runs.csv", index=False)
    arguments = [*options, "--members", "polynomial", "--json", "-o", path]
    record = program("fit", tmp_path / "runs.csv", *arguments).record
    assert record["targets"] == ["lift, per area"]
    assert [item["name"] for item in record["inputs"]] == inputs


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if fitting starts."""

    def fit(*arguments: object, **options: object) -> None:
        pytest.fail("fitting started")

    monkeypatch.setattr(understudy, "fit", fit, raising=False)


@pytest.mark.usefixtures("never")
def test_an_existing_file_is_refused_before_fitting(
    program: Program, runs: Path, path: Path
) -> None:
    path.write_text("precious")
    done = program("fit", runs, *FIT, "-o", path)
    assert done.code == 2
    assert "--force replaces it" in done.err
    assert path.read_text() == "precious"


@pytest.mark.usefixtures("never")
@pytest.mark.parametrize(
    ("output", "words"),
    [("absent/wing.us", "there is no folder"), (".", "is a folder"), ("/proc/a.us", "--output")],
)
def test_a_place_that_cannot_be_written_is_refused_before_fitting(
    program: Program, runs: Path, tmp_path: Path, output: str, words: str
) -> None:
    done = program("fit", runs, *FIT, "-o", tmp_path / output)
    assert done.code == 2
    assert words in done.err
    done = program(
        "fit", runs, *FIT, "-o", tmp_path / "a.us", "--report", tmp_path / "absent" / "a"
    )
    assert done.code == 2
    assert "--report" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-t", "lft"], "'lft' is no column; did you mean 'lift'?"),
        (["-t", "lift", "-i", "sped"], "did you mean 'speed'?"),
        (["-t", "lift", "--budget", "soon"], "'soon'"),
        (["-t", "lift", "--budget", "-3s"], "'-3s'"),
        (["-t", "lift", "--metric", "mae"], "'nlpd', 'rmse', 'crps'"),
        (["-t", "lift", "--members", "polynom"], "did you mean 'polynomial'?"),
        (["-t", "lift", "--test", "1.5"], "1.5"),
        (["-t", "lift", "--test", "absent.csv"], "absent.csv"),
        (["-t", "lift", "--seed", "-1"], "--seed"),
        (["-t", "profile"], "'profile'"),
        (["-t", ","], "no targets"),
        ([], "Missing option '--targets'"),
    ],
)
def test_a_wrong_option_is_refused_in_one_sentence(
    program: Program, runs: Path, path: Path, arguments: list[str], words: str
) -> None:
    done = program("fit", runs, "--drop", "id", *arguments, "-o", path)
    errors = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert done.code == 2, done.err
    assert len(errors) == 1
    assert words in errors[0]
    assert "Traceback" not in done.err
    assert not path.exists()


def test_a_table_that_cannot_be_read_is_refused(
    program: Program, tmp_path: Path, path: Path
) -> None:
    (tmp_path / "runs.parquet").write_bytes(b"PAR1 and no more")
    for name, words in [("absent.csv", "no such file"), ("runs.parquet", "damaged")]:
        done = program("fit", tmp_path / name, "-t", "lift", "-o", path)
        assert done.code == 2
        assert words in done.err


def test_threads_limit_the_numerical_libraries(
    program: Program, runs: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    before = torch.get_num_threads()
    try:
        done = program("fit", runs, *FIT, "--threads", before + 1, "--json", "-o", path)
    finally:
        torch.set_num_threads(before)
    assert done.record["settings"]["threads"] == before + 1
    assert os.environ["OPENBLAS_NUM_THREADS"] == str(before + 1)


# -- Ctrl-C ---------------------------------------------------------------------------------------


def test_an_interruption_during_the_comparison_keeps_the_best_so_far(tmp_path: Path) -> None:
    wing(400).to_csv(tmp_path / "runs.csv", index=False)
    path = tmp_path / "wing.us"
    arguments = ["fit", tmp_path / "runs.csv", "-t", "lift", "--drop", "id", "-o", path]
    with subprocess.Popen(
        [*PROGRAM, *map(str, arguments), "--budget", "5m"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as running:
        assert running.stderr is not None and running.stdout is not None
        for line in running.stderr:
            if "polynomial: nlpd" in line:
                running.send_signal(signal.SIGINT)
                break
        said = running.stderr.read()
        out = running.stdout.read()
    assert running.returncode == 0, said
    assert "the best so far is kept" in said
    assert "Stopped early" in out
    model = understudy.load(path)
    assert model.settings["interrupted"]
    assert len(model.predict_table(wing(5))) == 5


def press(stopping: Stopping) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def at(stage: str) -> Progress:
    return Progress(stage, 1.0, 2.0)


def test_before_the_comparison_an_interruption_ends_the_program() -> None:
    with pytest.raises(KeyboardInterrupt), Stopping(lambda text: None) as stopping:
        stopping(at("transform"))
        press(stopping)


def test_after_the_comparison_the_first_interruption_lets_it_finish() -> None:
    said: list[str] = []
    with Stopping(said.append) as stopping:
        stopping(at("calibrate"))
        press(stopping)
        assert said == ["nearly done: finishing (Ctrl-C again to give up)"]
        with pytest.raises(KeyboardInterrupt):
            press(stopping)


def test_the_second_interruption_gives_up_at_any_stage() -> None:
    with Stopping(lambda text: None) as stopping:
        stopping(at("candidates"))
        with pytest.raises(KeyboardInterrupt):
            press(stopping)
        stopping(at("stack"))
        with pytest.raises(KeyboardInterrupt):
            press(stopping)


def test_afterwards_an_interruption_is_what_it_was() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Stopping(lambda text: None):
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


# -- the display ----------------------------------------------------------------------------------


def test_on_a_terminal_the_display_shows_stage_time_and_comparison(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import io

    from rich.console import Console

    from understudy.cli import display as shown_by
    from understudy.cli import live
    from understudy.core.progress import Standing

    stream = io.StringIO()
    screen: Any = Console(file=stream, force_terminal=True, width=80)
    monkeypatch.setattr(shown_by, "console", lambda stderr: screen)
    standings = (
        Standing("slow", "running"),
        Standing("poor", "done", score=1.5, r2=0.2, seconds=1.0),
        Standing("good", "done", score=-2.5, r2=0.9, seconds=2.0),
    )
    with live.FitDisplay("nlpd") as display:
        display(Progress("candidates", 3.0, 60.0, standings=standings))
        screen.print(display._render())
    shown = stream.getvalue()
    assert "Comparing models" in shown
    assert "3 of 60 s" in shown
    assert shown.index("good") < shown.index("poor") < shown.index("slow")
    assert "Ctrl-C" in shown
