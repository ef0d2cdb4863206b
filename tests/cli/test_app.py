"""The program explains itself, fails in one sentence, and completes what is typed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from understudy import __version__
from understudy.cli import app as program_module
from understudy.cli.app import app
from understudy.core.errors import UserError

from .conftest import PROGRAM, Program, process

COMMANDS = typer.main.get_command(app).commands
HEAVY = {"torch", "pandas", "numpy", "sklearn", "scipy", "botorch", "plotly", "pybamm"}


def raising(error: BaseException) -> object:
    def stage(**options: object) -> None:
        raise error

    return stage


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> object:
    """Let `systems` raise what the test names."""

    def set_up(error: BaseException) -> None:
        monkeypatch.setattr("understudy.reproduce.systems_table", raising(error), raising=False)

    return set_up


def test_help_fits_one_screen() -> None:
    done = process("--help", env={**os.environ, "COLUMNS": "80"})
    lines = done.out.splitlines()
    assert done.code == 0
    assert len(lines) <= 46
    assert max(map(len, lines)) <= 80
    assert all(name in done.out for name in COMMANDS)


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys; from understudy.cli.app import run; run(['--help']);"
        "print(*{m.split('.')[0] for m in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert not set(done.stdout.splitlines()[-1].split()) & HEAVY


def test_python_runs_the_package_as_the_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "understudy", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, f"understudy {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "missing.csv", "-t", "y"], "missing.csv: there is no such file"),
        (["fit", "runs.csv", "-t", "y", "--budget", "soon"], "'soon'"),
        (["fit", "runs.csv", "-t", "y", "--metric", "mae"], "'mae'"),
        (["fit", "runs.csv", "-t", "y", "--test", "absent.csv"], "absent.csv: there is no such"),
        (
            ["fit", "runs.csv", "-t", "y", "-o", "runs.csv", "--force"],
            "replace a file that is read",
        ),
        (["fit", "runs.csv", "-t", "y", "--members", ","], "--members names no model"),
        (["predict", "missing.us", "runs.csv"], "missing.us: there is no such file"),
        (["report", "missing.us"], "missing.us: there is no such file"),
        (["show", "missing.us"], "missing.us: there is no such file"),
        (["serve", "missing.us"], "missing.us: there is no such file"),
        (["demo", "--budget", "soon"], "'soon'"),
    ],
)
def test_what_is_plainly_wrong_is_refused_before_heavy_libraries_load(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "runs.csv").write_text("x,y\n1,2\n")
    code = (
        "import sys; from understudy.cli.app import run; code = run(sys.argv[1:]);"
        "print(code, *{m.split('.')[0] for m in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    code, *modules = done.stdout.split()
    assert code == "2"
    assert words in done.stderr
    assert not set(modules) & HEAVY
    assert [path.name for path in tmp_path.iterdir()] == ["runs.csv"]


def test_help_takes_less_than_seven_tenths_of_a_second_of_processor_time() -> None:
    before = os.times()
    assert process("--help").code == 0
    after = os.times()
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 0.7


def test_without_a_command_the_help_is_shown(program: Program) -> None:
    done = program()
    assert done.code == 0
    assert "Usage" in done.out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_help_of_every_command_ends_with_an_example(program: Program, name: str) -> None:
    done = program(name, "--help")
    last = [line.strip() for line in done.out.splitlines() if line.strip()]
    assert done.code == 0
    assert last[-2] == "Example"
    assert last[-1].startswith(f"understudy {name}")


def test_the_version_is_printed(program: Program) -> None:
    assert program("--version").out == f"understudy {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "No such command 'nonsense'. Try 'understudy --help'."),
        (["show"], "Missing argument 'MODEL'. Try 'understudy show --help'."),
        (["show", "a.us", "--depth"], "No such option: --depth. Try 'understudy show --help'."),
        (["show", "absent.us"], "absent.us: there is no such file"),
        (["systems", "--stage", "cooking"], "not 'cooking'"),
        (["reproduce", "no-such-system"], "there is no system 'no-such-system'"),
        (["reproduce", "cape", "--scale", "huge"], "not 'huge'"),
    ],
)
def test_a_wrong_request_is_refused_in_one_sentence(
    program: Program, arguments: list[str], words: str
) -> None:
    done = program(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert words in done.err
    assert done.err.startswith("error: ")
    assert len(done.err.splitlines()) == 1


def test_a_failure_is_one_sentence_that_names_debug(program: Program, failing: object) -> None:
    failing(RuntimeError("the disk\nis on fire"))
    done = program("systems")
    assert done.code == 1
    assert done.err == (
        "error: RuntimeError: the disk is on fire (run again with --debug to see the traceback)\n"
    )


def test_with_debug_a_failure_shows_its_traceback(failing: object) -> None:
    failing(RuntimeError("the disk is on fire"))
    with pytest.raises(RuntimeError):
        program_module.run(["systems"], debug=True)


def test_debug_may_stand_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(program_module, "run", lambda a, debug: seen.append((a, debug)) or 0)
    monkeypatch.setattr(sys, "argv", ["understudy", "systems", "--debug", "--json"])
    with pytest.raises(SystemExit):
        program_module.main()
    assert seen == [(["systems", "--json"], True)]


def test_an_interruption_says_stopped(program: Program, failing: object) -> None:
    failing(KeyboardInterrupt())
    done = program("systems")
    assert (done.code, done.err) == (130, "stopped\n")


def test_a_user_error_is_a_refusal(program: Program, failing: object) -> None:
    failing(UserError("column 'a' is empty"))
    done = program("systems")
    assert (done.code, done.err) == (2, "error: column 'a' is empty\n")


def test_a_reader_that_goes_away_is_nothing_to_talk_about() -> None:
    with subprocess.Popen(
        [*PROGRAM, "systems", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        said = running.stderr.read()
    assert said == b""


def test_colours_are_off_where_output_is_no_terminal(program: Program) -> None:
    for arguments in ([], ["systems"], ["fit", "--help"]):
        assert "\x1b[" not in program(*arguments).out


def test_systems_prints_a_table_or_one_json_object(program: Program) -> None:
    record = program("systems", "--stage", "model", "--json").record
    assert {row["stage"] for row in record["systems"]} == {"model"}
    done = program("systems", "--stage", "model")
    assert all(row["slug"] in done.out for row in record["systems"])
    assert f"{len(record['systems'])} systems" in done.out


def test_systems_can_list_what_is_implemented_only(program: Program) -> None:
    record = program("systems", "--implemented", "--json").record
    assert all(row["status"] == "implemented" for row in record["systems"])


# -- completion -----------------------------------------------------------------------------------


def completed(words: str, shell: str = "bash") -> list[str]:
    count = len(words.split(" ")) - 1
    request = {"_UNDERSTUDY_COMPLETE": f"complete_{shell}", "COMP_WORDS": words}
    done = process(env={**os.environ, **request, "COMP_CWORD": str(count)})
    return done.out.split()


def test_commands_are_completed() -> None:
    assert completed("understudy s") == [
        "serve",
        "show",
        "sensitivity",
        "simulate",
        "systems",
    ]
    assert completed("understudy e") == ["export", "extrapolate", "emulate"]


def test_options_and_their_values_are_completed() -> None:
    assert completed("understudy fit runs.csv --tar") == ["--targets"]
    assert completed("understudy fit runs.csv --metric ") == ["nlpd", "rmse", "crps"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_completion_installs_itself_for_bash(tmp_path: Path) -> None:
    command = " ".join([*PROGRAM, "--install-completion", ";", "true"])
    environment = {**os.environ, "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "completion installed" in done.stdout
    (script,) = tmp_path.rglob("understudy.sh")
    assert "_UNDERSTUDY_COMPLETE=complete_bash" in script.read_text()
    assert str(script) in (tmp_path / ".bashrc").read_text()
