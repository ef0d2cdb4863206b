from pathlib import Path

import pytest
import torch
from tests.cli.conftest import Program

import understudy
from understudy.models.operators.equation_tokens import ExpressionTokenizer
from understudy.models.operators.prose import PROSE
from understudy.models.operators.prose_network import PROSEArchitecture
from understudy.simulate.ode_families import SPROTT_B, THOMAS, sample_families, times


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokens = ExpressionTokenizer(3)
    torch.manual_seed(0)
    model = PROSE(tokens, PROSEArchitecture(len(tokens), 3, 16, 2, 1, 1, 2, 1, 1))
    runs = sample_families([THOMAS, SPROTT_B], 2, seed=0, t=times(1.0, 12))
    return model.prepared(runs, (8, 4)).save(tmp_path_factory.mktemp("prose") / "family.us")


def test_a_file_says_its_variant_its_sizes_and_what_it_was_trained_on(program: Program, file: Path):
    found = program("show", str(file))
    assert found.code == 0 and "Traceback" not in found.err
    said = " ".join(found.out.split())
    assert "variant: multimodal" in said and "samples: 8 or 4" in said
    assert "2 fusion" in said and "times: 0 to 1" in said
    assert f"trained on: {THOMAS.skeleton}" in said


def test_the_record_has_the_same_as_numbers(program: Program, file: Path):
    record = program("show", str(file), "--json").record
    assert record["operator"] == "prose" and record["variant"] == "multimodal"
    assert record["given"] == [8, 4] and record["span"] == [0.0, 1.0]
    assert record["trees"] == [str(THOMAS.skeleton), str(SPROTT_B.skeleton)]
    assert record["network_settings"]["width"] == 16


def test_the_file_is_read_where_operators_are_read(file: Path):
    model = understudy.load_operator(file)
    assert isinstance(model, PROSE) and model.given == (8, 4)


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "FILE", "runs.csv"),
        ("compress", "FILE", "-o", "small.us"),
        ("export", "FILE", "-o", "graph.onnx"),
        ("calibrate", "FILE", "runs.csv", "--noise", "0.1"),
    ],
)
def test_commands_for_other_files_refuse_it_in_one_sentence(
    program: Program, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command
):
    monkeypatch.chdir(tmp_path)
    Path("runs.csv").write_text("x,y\n1,2\n")
    found = program(*(str(file) if word == "FILE" else word for word in command))
    assert found.code == 2 and "Traceback" not in found.err
    assert len(found.err.strip().splitlines()) <= 3
