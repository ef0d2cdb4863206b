"""`understudy simulate` writes files of runs and goes on with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from understudy.simulate.pde import files
from understudy.simulate.pde.files import read_fields

from .conftest import Program

pytest.importorskip("h5py")
SMALL = ("--set", "points=16", "--set", "steps=2")


def test_runs_are_written(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    done = program("simulate", "advection", "-n", 3, "-o", path, *SMALL, "--set", "speed=1:2")
    assert done.code == 0
    assert f"{path}: 3 runs (" in done.out
    data = read_fields(path)
    assert data.fields.shape == (3, 3, 1, 16)
    assert data.parameters["speed"].between(1.0, 2.0).all()


def test_a_file_goes_on(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    program("simulate", "advection", "-n", 2, "-o", path, *SMALL)
    first = read_fields(path)
    record = program("simulate", "advection", "-n", 4, "-o", path, *SMALL, "--json").record
    assert record == {"output": str(path), "runs": 4, "diverged": 0, "interrupted": False}
    assert read_fields(path).fields[:2].equal(first.fields)


def test_equations_are_listed(program: Program) -> None:
    record = program("simulate", "--list", "--json").record
    by_name = {line["name"]: line for line in record["equations"]}
    assert by_name["ks"]["inputs"] == "length, time_step, viscosity, seed"
    assert "kolmogorov" in program("simulate", "--list").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("burger",), "no equation 'burger'; did you mean 'burgers'?"),
        (("burgers", "--set", "viscosity"), "--set is NAME=VALUE"),
        (("burgers", "--set", "viscosity=thick"), "expected a number or LOW:HIGH, found 'thick'"),
        (("burgers", "--set", "viscosity=2:1"), "2 must not be above 1"),
        (("burgers", "--set", "viscosity=-1"), "'viscosity' of run 1 must be positive, found -1"),
        (("burgers", "--set", "point=3"), "burgers has no option 'point'; did you mean 'points'?"),
        ((), "name an equation"),
    ],
)
def test_requests_are_refused_in_one_sentence(
    program: Program, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = program("simulate", *arguments, "-o", tmp_path / "a.h5")
    assert done.code == 2
    assert message in done.err and "Traceback" not in done.err
    assert not (tmp_path / "a.h5").exists()


def test_another_seed_does_not_mix_with_what_is_there(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    program("simulate", "advection", "-n", 2, "-o", path, *SMALL)
    done = program("simulate", "advection", "-n", 2, "-o", path, *SMALL, "--seed", 1)
    assert done.code == 2 and "other values of 'speed'" in done.err
    done = program("simulate", "advection", "-n", 2, "-o", path, *SMALL, "--seed", 1, "--force")
    assert done.code == 0


def test_an_interrupted_file_keeps_its_runs(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = files.write_fields

    def stopped(path, simulator, table, equation, batch, listener):
        def listen(done: int, total: int) -> None:
            listener(done, total)
            if done == 4:
                raise KeyboardInterrupt

        return whole(path, simulator, table, equation, batch, listen)

    path = tmp_path / "a.h5"
    command = ("simulate", "advection", "-n", 6, "--batch", 2, "-o", path, *SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_fields", stopped)
        done = program(*command)
    assert done.code == 130
    assert "4 of 6 runs are kept; the same command goes on" in done.err
    assert len(read_fields(path).fields) == 4
    assert program(*command, "--json").record["runs"] == 6
