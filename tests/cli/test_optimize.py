"""`understudy optimize` runs a study, refuses what it cannot run, and can be stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from .conftest import PROGRAM, Program

PROBLEM = """
[inputs]
x = { type = "continuous", lower = -1, upper = 1 }
k = { type = "integer", lower = 1, upper = 4 }

[objectives]
OBJECTIVES

[run]
command = "{python} {here}/solve.py {x} {k}"
"""
SOLVE = """
import os, sys, time
from pathlib import Path
x, k = float(sys.argv[1]), int(sys.argv[2])
here = Path(__file__).parent
with open(here / "begun.txt", "a") as file:
    file.write("trial\\n")
while (here / "wait").exists():
    time.sleep(0.05)
if (here / "fail").exists():
    sys.exit("the mesh is tangled")
print("y =", x * x + k)
print("z =", x - k)
"""


@pytest.fixture
def problem(tmp_path, monkeypatch):
    """Return a function that writes a problem and its program into the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(objectives: str = 'y = "minimize"') -> Path:
        (tmp_path / "solve.py").write_text(SOLVE)
        path = tmp_path / "wing.toml"
        path.write_text(PROBLEM.replace("OBJECTIVES", objectives))
        return path

    return make


def begun(folder: Path) -> int:
    path = folder / "begun.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_study_is_run_told_of_and_gone_on_with(program: Program, problem, tmp_path) -> None:
    problem()
    done = program("optimize", "wing.toml", "--trials", 3, "--parallel", 2)
    assert done.code == 0
    assert "Study wing: 3 trials: 3 done." in done.out
    assert "Best trial:" in done.out
    assert "understudy optimize wing.toml --resume --trials 60" in done.out
    assert "trial 0: y " in done.err
    assert begun(tmp_path) == 3
    assert (tmp_path / "study.db").exists()
    assert sorted(path.name for path in (tmp_path / "wing-trials").iterdir()) == [
        "00000",
        "00001",
        "00002",
    ]
    again = program("optimize", "wing.toml", "--trials", 4, "--resume", "--json")
    assert begun(tmp_path) == 4
    record = again.record
    assert (record["done"], record["failed"], record["interrupted"]) == (4, 0, False)
    assert record["best"]["inputs"].keys() == {"x", "k"}
    assert record["best"]["outcomes"]["y"] == pytest.approx(
        record["best"]["inputs"]["x"] ** 2 + record["best"]["inputs"]["k"]
    )


def test_quiet_says_nothing_and_an_existing_study_is_refused(program: Program, problem) -> None:
    problem()
    done = program("optimize", "wing.toml", "-n", 1, "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")
    refused = program("optimize", "wing.toml", "-n", 2)
    assert refused.code == 2
    assert refused.out == ""
    assert refused.err == (
        "error: study 'wing' of sqlite:///study.db exists already; --resume goes on with it, "
        "--name NAME begins another\n"
    )


def test_a_study_of_which_every_trial_fails_ends_with_code_1(program: Program, problem) -> None:
    path = problem()
    (path.parent / "fail").touch()
    done = program("optimize", "wing.toml", "-n", 2)
    assert done.code == 1
    assert "2 trials: 2 failed." in done.out
    assert "failed 2 times: " in done.out
    assert "ended with exit code 1; its last line: the mesh is tangled" in done.out
    assert "No result yet." in done.out


def test_several_objectives_give_a_front_and_a_report(program: Program, problem) -> None:
    problem('y = "minimize"\nz = "maximize"')
    done = program("optimize", "wing.toml", "-n", 3, "--report", "study.html")
    assert done.code == 0
    assert "Pareto front" in done.out
    assert "study.html (" in done.out
    assert "Study wing" in Path("study.html").read_text()
    record = program("optimize", "wing.toml", "-n", 0, "--resume", "--json").record
    assert record["best"] is None
    assert 1 <= len(record["front"]) <= 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["absent.toml"], "absent.toml: there is no such file"),
        (["wing.toml", "--timeout", "soon"], "'soon'"),
        (["wing.toml", "--surrogate", "exact-pg"], "did you mean 'exact-gp'"),
        (["wing.toml", "--storage", "sqlite:///absent/study.db"], "there is no folder absent"),
        (["wing.toml", "--report", "absent/page.html"], "there is no folder absent"),
        (["wing.toml", "--parallel", "0"], "'--parallel'"),
        (["wing.toml", "--executor", "cloud"], "'--executor'"),
        (["broken.toml"], "broken.toml: input 'x': lower bound 2.0 must be below upper"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_sentence(
    program: Program, problem, tmp_path, options: list[str], words: str
) -> None:
    text = problem().read_text()
    (tmp_path / "broken.toml").write_text(text.replace("lower = -1", "lower = 2"))
    done = program("optimize", *options, "-n", 1)
    assert done.code == 2
    assert words in done.err
    assert len(done.err.splitlines()) == 1
    assert begun(tmp_path) == 0
    assert not (tmp_path / "study.db").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_keeps_what_is_done_and_gives_the_rest_back(
    program: Program, problem, tmp_path, number: signal.Signals
) -> None:
    problem()
    assert program("optimize", "wing.toml", "-n", 1, "--quiet").code == 0
    (tmp_path / "wait").touch()
    arguments = ["optimize", "wing.toml", "-n", "4", "-p", "2", "--resume"]
    with subprocess.Popen(
        [*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        end = time.monotonic() + 90
        while begun(tmp_path) < 3:
            assert time.monotonic() < end
            time.sleep(0.05)
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 0
    assert "stopping: running trials are given back" in err
    assert "Stopped early: what is done was kept." in out
    assert "3 trials: 1 done, 2 waiting." in out
    (tmp_path / "wait").unlink()
    record = program("optimize", "wing.toml", "-n", 4, "--resume", "--json").record
    assert (record["done"], record["waiting"]) == (4, 0)
    assert begun(tmp_path) == 6


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed, so it runs no trials")
def test_ray_runs_the_same_trials(program: Program, problem) -> None:
    problem()
    records = [
        program("optimize", "wing.toml", "-n", 3, "--executor", kind, "--name", kind, "--json")
        for kind in ("local", "ray")
    ]
    assert records[0].record["best"] == records[1].record["best"]
    assert os.path.exists("study.db")
