"""Solvers that are programs, in Python and in C."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from understudy.core.errors import UserError
from understudy.core.space import Continuous, Space
from understudy.simulate.stream import (
    DirectLoss,
    ExternalSolver,
    FIFOBuffer,
    OnlineSettings,
    OnlineTrainer,
    UniformSampler,
)
from understudy.simulate.stream.external import SolverError

SPACE = Space((Continuous("k", 0.0, 1.0),))
PAGE = Path(__file__).parents[3] / "docs" / "online.md"


def solver(tmp_path: Path, body: str, *arguments: str) -> ExternalSolver:
    script = tmp_path / "solver.py"
    script.write_text(
        f"import sys\nfrom understudy.stream import send\nk = float(sys.argv[1])\n{body}"
    )
    return ExternalSolver(["{python}", str(script), "{k}", *arguments], SPACE)


def frames(solver: ExternalSolver, k: float = 0.5) -> list[tuple[float, list[float]]]:
    codes = torch.tensor([[k]], dtype=torch.float64)
    return [(float(t), field[0].tolist()) for t, field in solver.stream(codes)]


BODY = "for i in range(3): send(0.1 * i, [k, i])\n"
EXPECTED = [(0.1 * i, [0.5, float(i)]) for i in range(3)]


def test_frames_come_over_the_standard_output(tmp_path):
    assert frames(solver(tmp_path, BODY + "print('that was it')")) == EXPECTED


def test_frames_come_through_a_named_pipe(tmp_path):
    pipe = solver(tmp_path, "print('first words')\n" + BODY, "{output}")
    assert frames(pipe) == EXPECTED
    assert sorted(p.name for p in tmp_path.iterdir()) == ["solver.py"]


def test_more_than_a_pipe_holds_comes_through_it(tmp_path):
    body = "import numpy as np\nfor i in range(5): send(i, np.full(100_000, i))\n"
    for arguments in ((), ("{output}",)):
        found = frames(solver(tmp_path, body, *arguments))
        assert [field == [float(i)] * 100_000 for i, (_, field) in enumerate(found)] == [True] * 5


def test_a_program_that_fails_says_why(tmp_path):
    failing = solver(tmp_path, BODY + "raise SystemExit('no mesh for k')")
    with pytest.raises(SolverError, match="exit code 1: no mesh for k"):
        frames(failing)


def test_a_program_that_dies_within_a_frame_says_how_it_ended(tmp_path):
    dying = solver(
        tmp_path,
        "import os\nfrom understudy.stream import encode\n"
        "os.write(1, encode(0.0, [1, 2])[:20])\nos.kill(os.getpid(), 9)",
    )
    with pytest.raises(SolverError, match="exit code -9"):
        frames(dying)


def test_a_program_that_prints_something_else_is_refused(tmp_path):
    with pytest.raises(UserError, match="print something else"):
        frames(solver(tmp_path, "print('Step 1 of 100, residual 1e-3', flush=True)\n"))


def test_a_run_that_is_given_up_leaves_no_program(tmp_path):
    endless = solver(tmp_path, "import time\nsend(0.0, [k])\ntime.sleep(600)")
    stream = endless.stream(torch.tensor([[0.5]], dtype=torch.float64))
    next(stream)
    stream.close()
    children = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert str(tmp_path) not in children.stdout


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ([], "empty"),
        (["{python}"], "'k' is not used"),
        (["{python}", "{k}", "{kk}"], "no input {kk}"),
        (["no-such-program", "{k}"], "no program 'no-such-program'"),
    ],
)
def test_commands_that_cannot_work_are_refused(command, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        ExternalSolver(command, SPACE)


def test_a_program_computes_one_run_at_a_time(tmp_path):
    with pytest.raises(UserError, match="one run at a time"):
        next(solver(tmp_path, BODY).stream(torch.zeros(2, 1)))


@pytest.mark.slow
def test_a_network_learns_from_a_program(tmp_path):
    external = solver(tmp_path, BODY)
    report = OnlineTrainer(
        nn.Linear(2, 2),
        external,
        UniformSampler(SPACE),
        FIFOBuffer(20),
        loss=DirectLoss(SPACE, 0.2, 0.0, 2.0),
        max_simulations=2,
        settings=OnlineSettings(batch_size=3),
    ).run()
    assert report.frames == 6 and report.repetitions == {1: 6}


# -- the examples of the page ---------------------------------------------------------------------


def listing(language: str) -> str:
    found = re.search(rf"```{language}[^\n]*\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def cooling(k: float) -> list[tuple[float, list[float]]]:
    """The rod of the page, in float64."""
    u, h, out = [0.0] * 64, 1.0 / 65, []
    for step in range(101):
        out.append((0.01 * step, list(u)))
        for _ in range(100):
            wall = [1.0, *u, 0.0]
            u = [
                u[i] + 1e-4 * k * (wall[i] - 2 * wall[i + 1] + wall[i + 2]) / h**2
                for i in range(64)
            ]
    return out


def agrees(found: list[tuple[float, list[float]]], k: float) -> bool:
    expected = cooling(k)
    return len(found) == len(expected) and all(
        t == pytest.approx(at) and field == pytest.approx(u, abs=1e-5)
        for (t, field), (at, u) in zip(found, expected, strict=True)
    )


def test_the_python_example_of_the_page_streams_the_rod(tmp_path):
    (tmp_path / "rod.py").write_text(listing("python"))
    rod = ExternalSolver(["{python}", "rod.py", "{k}"], SPACE, tmp_path)
    assert agrees(frames(rod), 0.5)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.parametrize("named", [False, True])
def test_the_c_example_of_the_page_streams_the_rod(tmp_path, named):
    (tmp_path / "rod.c").write_text(listing("c"))
    subprocess.run(
        ["cc", "-O2", "-Wall", "-Werror", "rod.c", "-o", "rod"], cwd=tmp_path, check=True
    )
    command = ["./rod", "{k}", *(["{output}"] if named else [])]
    assert agrees(frames(ExternalSolver(command, SPACE, tmp_path)), 0.5)


def test_this_python_is_the_one_that_runs_the_solver(tmp_path):
    which = solver(tmp_path, f"send(0.0, [sys.executable == {sys.executable!r}])")
    assert frames(which) == [(0.0, [1.0])]
