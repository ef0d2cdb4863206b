"""A small table, a surrogate of it, and the program run in this process or as one of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from understudy.cli.app import run

PROGRAM = [sys.executable, "-m", "understudy.cli.app"]
FIT = ["--targets", "drag,lift", "--drop", "id", "--members", "polynomial", "--budget", "20s"]


@dataclass(frozen=True)
class Outcome:
    """What a run of the program printed and returned."""

    code: int
    out: str
    err: str

    @property
    def record(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        return json.loads(self.out)


Program = Callable[..., Outcome]


def wing(rows: int, seed: int = 0) -> pd.DataFrame:
    """Table of a wing: two numbers and a category in, drag and lift out."""
    draw = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "id": [f"run {k}" for k in range(rows)],
            "angle": draw.uniform(-2, 8, rows),
            "speed": draw.uniform(10, 50, rows),
            "profile": draw.choice(["flat", "round"], rows),
        }
    )
    curved = np.where(table.profile == "round", 1.5, 1.0)
    table["lift"] = 0.1 * table.angle * table.speed * curved + draw.normal(0, 0.1, rows)
    table["drag"] = 0.01 * table.angle**2 * table.speed + draw.normal(0, 0.1, rows)
    return table


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "runs.csv"
    wing(60).to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, runs: Path) -> Path:
    path = tmp_path_factory.mktemp("model") / "wing.us"
    assert run(["fit", str(runs), *FIT, "--test", "0.2", "--quiet", "-o", str(path)]) == 0
    return path


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Nine rows without targets, the last seven at a speed that no run had."""
    table = wing(9, seed=1)[["id", "angle", "speed", "profile"]]
    table["angle"] = table["angle"].clip(0, 6)
    table["speed"] = [20.0, 30.0, *range(60, 67)]
    path = tmp_path / "new.csv"
    table.to_csv(path, index=False)
    return path


@pytest.fixture
def program(capsys: pytest.CaptureFixture[str]) -> Program:
    """The program in this process."""

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return call


def process(*arguments: object, **options: Any) -> Outcome:
    """The program as a process of its own."""
    done = subprocess.run(
        [*PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=200, **options
    )
    return Outcome(done.returncode, done.stdout, done.stderr)
