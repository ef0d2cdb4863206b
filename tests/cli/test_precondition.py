"""`understudy precondition` learns a solver for a matrix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

import understudy
from understudy.core.differences import poisson_matrix
from understudy.core.loop import Trainer

from .conftest import Program

A = poisson_matrix((8, 8))
SHORT = ("--budget", "5m", "--steps", "40", "--grid", "8,8")


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    path = tmp_path / "poisson.npz"
    sp.save_npz(path, A)
    return path


def test_a_solver_is_learnt_and_compared(program: Program, matrix: Path, tmp_path: Path) -> None:
    output = tmp_path / "poisson.us"
    done = program("precondition", matrix, *SHORT, "--steps", 150, "-o", output)
    assert done.code == 0
    for word in ("to 0.0001, white noise", "IC(0)", "DCDM", "held-out loss", f"{output} ("):
        assert word in done.out
    assert "Ritz vectors: 0 of 64" in done.err and "Training: step" in done.err
    solver, b = understudy.load_solver(output), np.random.default_rng(0).standard_normal((64, 2))
    result = solver.solve(A, b, tol=1e-8, maxiter=500)
    assert result.converged.all()
    np.testing.assert_allclose(A @ result.x, b, atol=1e-6)


def test_matrix_market_and_json(program: Program, tmp_path: Path) -> None:
    path, output = tmp_path / "a.mtx", tmp_path / "a.us"
    scipy.io.mmwrite(path, sp.coo_array(A), symmetry="symmetric")
    record = program("precondition", path, *SHORT, "--ritz", 20, "-o", output, "--json").record
    assert record["output"] == str(output) and record["ritz_vectors"] == 20
    assert [row["name"] for row in record["comparison"]] == ["CG", "Jacobi", "IC(0)", "DCDM"]
    assert record["reason"] == "steps" and 0.0 < record["loss"] < 1.5


def test_an_interruption_keeps_the_best_and_a_checkpoint_goes_on(
    program: Program, matrix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, state = tmp_path / "a.us", tmp_path / "state"
    command = ("precondition", matrix, *SHORT, "-o", output, "--checkpoint", state)
    whole = Trainer._update

    def stopping(trainer: Trainer, loss: object, progress: float) -> None:
        if trainer.step == 3:
            raise KeyboardInterrupt
        whole(trainer, loss, progress)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_update", stopping)
        done = program(*command)
    assert done.code == 130
    assert "training was interrupted; the best state up to then is kept" in done.err
    assert understudy.load_solver(output).facts["steps"] == 3
    done = program(*command, "--force", "--json")
    assert done.code == 0 and done.record["steps"] == 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--grid", "8"), "two or three sides of at least 4 points"),
        (("--grid", "8,9"), "--grid 8,9 has 72 points, but"),
        (("--grid", "eight"), "--grid is two or three whole numbers such as 64,64, found 'eight'"),
        (("--grid", "8,8", "--tol", "2"), "--tol must be between 0 and 1, found 2"),
        (("--grid", "8,8", "--budget", "soon"), "'soon'"),
        (("--grid", "8,8", "--device", "tpu"), "--device is cpu or cuda"),
    ],
)
def test_requests_are_refused_in_one_sentence(
    program: Program, matrix: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = program("precondition", matrix, *arguments, "-o", tmp_path / "a.us")
    assert done.code == 2
    assert message in done.err and len(done.err.splitlines()) == 1
    assert not (tmp_path / "a.us").exists()


def test_files_that_hold_no_good_matrix_are_refused(program: Program, tmp_path: Path) -> None:
    text, dense, skew = tmp_path / "a.csv", tmp_path / "b.npz", tmp_path / "c.npz"
    text.write_text("1,2\n")
    np.savez(dense, x=np.ones(3))
    sp.save_npz(skew, sp.csr_array(A + sp.eye_array(64, k=1)))
    for path, message in (
        (text, "is neither .npz of SciPy nor .mtx of Matrix Market"),
        (dense, "holds no sparse matrix"),
        (skew, "A is not symmetric"),
        (tmp_path / "d.npz", "there is no such file"),
    ):
        done = program("precondition", path, *SHORT, "-o", tmp_path / "a.us")
        assert done.code == 2 and message in done.err


def test_the_file_is_shown(program: Program, matrix: Path, tmp_path: Path) -> None:
    output = tmp_path / "poisson.us"
    program("precondition", matrix, *SHORT, "-o", output, "--quiet")
    record = program("show", output, "--json").record
    assert record["grid"] == [8, 8] and record["weights"] == 32_657
    assert "held-out loss" in program("show", output).out
