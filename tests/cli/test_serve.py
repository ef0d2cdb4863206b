"""``understudy serve`` refuses at the start what it could not serve safely."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
import torch

from understudy.core import artifact

from .conftest import Program

TOKEN = "a-token-of-some-length\n"


def test_a_damaged_or_foreign_file_is_refused(
    program: Program, model: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.us"
    damaged.write_bytes(model.read_bytes()[:-1000])
    foreign = tmp_path / "foreign.us"
    foreign.write_bytes(b"\x80\x04\x95 a pickle")
    for path in (damaged, foreign):
        done = program("serve", model, path, "--port", 0)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(f"error: {path}")


def test_an_operator_without_a_network_is_refused(program: Program, tmp_path: Path) -> None:
    path = artifact.write(tmp_path / "flow.us", {"kind": "operator"}, {"w": torch.zeros(1)})
    done = program("serve", path, "--port", 0)
    assert done.code == 2
    assert "holds an operator whose parts do not fit together" in done.err


@pytest.mark.parametrize("name", ["a b.us", ".us.us", "ü.us", "a" * 70 + ".us"])
def test_a_file_whose_name_is_no_address_is_refused(
    program: Program, model: Path, tmp_path: Path, name: str
) -> None:
    shutil.copy(model, tmp_path / name)
    done = program("serve", tmp_path / name, "--port", 0)
    assert done.code == 2
    assert "cannot be served as" in done.err


def test_two_files_of_one_name_are_refused(program: Program, model: Path, tmp_path: Path) -> None:
    copy = shutil.copy(model, tmp_path / model.name)
    done = program("serve", model, copy, "--port", 0)
    assert (done.code, "two files would be served" in done.err) == (2, True)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "models.example"])
def test_other_machines_are_served_with_tokens_only(
    program: Program, model: Path, host: str
) -> None:
    done = program("serve", model, "--host", host, "--port", 0)
    assert (done.code, "--token-file is needed" in done.err) == (2, True)


def test_a_token_file_is_checked_before_anything_is_served(
    program: Program, model: Path, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(TOKEN)
    tokens.chmod(0o644)
    done = program("serve", model, "--token-file", tokens, "--port", 0)
    assert (done.code, "chmod 600" in done.err) == (2, True)
    done = program("serve", model, "--token-file", tmp_path / "absent", "--port", 0)
    assert (done.code, "there is no such file" in done.err) == (2, True)


def test_a_port_that_is_taken_is_refused(program: Program, model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = program("serve", model, "--port", taken.getsockname()[1])
    assert (done.code, "cannot listen at 127.0.0.1" in done.err) == (2, True)
