"""`understudy predict`, `show`, `sensitivity` and `report` use a model file."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest

from understudy.core.artifact import read, write
from understudy.models.tabular.sensitivity import WITH_SURROGATE

from .conftest import Program, process


def test_predictions_are_printed_as_csv(program: Program, model: Path, new: Path) -> None:
    done = program("predict", model, new)
    table = pd.read_csv(io.StringIO(done.out))
    assert done.code == 0
    assert len(table) == 9
    for target in ("drag", "lift"):
        assert (table[f"{target}_sd"] > 0).all()
        for level in (50, 80, 90, 95):
            assert (table[f"{target}_lower_{level}"] <= table[f"{target}_upper_{level}"]).all()
    assert "angle" not in table


def test_predictions_are_written_to_a_file(
    program: Program, model: Path, new: Path, tmp_path: Path
) -> None:
    paths = [tmp_path / name for name in ("a.csv", "a.parquet")]
    for path in paths:
        assert program("predict", model, new, "-o", path).code == 0
    text, binary = pd.read_csv(paths[0]), pd.read_parquet(paths[1])
    pd.testing.assert_frame_equal(text.drop(columns="extrapolation"), binary[text.columns[:-1]])


def test_the_columns_of_the_table_are_kept_on_request(
    program: Program, model: Path, new: Path
) -> None:
    table = pd.read_csv(io.StringIO(program("predict", model, new, "--keep").out))
    given = pd.read_csv(new)
    pd.testing.assert_frame_equal(table[given.columns], given)
    assert "lift_mean" in table


def test_rows_outside_the_training_range_are_named_and_then_counted(
    program: Program, model: Path, new: Path
) -> None:
    warnings = program("predict", model, new).err.splitlines()
    assert len(warnings) == 6
    assert warnings[0].startswith("warning: row 3 is outside the training range: speed = 60")
    assert "2 more rows" in warnings[-1]
    assert program("predict", model, new, "--quiet").err == ""


def test_rows_with_empty_cells_are_counted(program: Program, model: Path, new: Path) -> None:
    table = pd.read_csv(new)
    table.loc[[0, 1], "angle"] = float("nan")
    table.to_csv(new, index=False)
    warnings = program("predict", model, new).err.splitlines()
    assert warnings[-1] == "warning: empty cells of 2 rows filled in; see the column 'filled_in'"


def test_json_counts_rows_and_says_where_they_are(
    program: Program, model: Path, new: Path, tmp_path: Path
) -> None:
    record = program("predict", model, new, "--json").record
    assert (record["rows"], record["extrapolating"]) == (9, 7)
    assert len(record["predictions"]) == 9
    record = program("predict", model, new, "--json", "-o", tmp_path / "a.csv").record
    assert record == {"rows": 9, "extrapolating": 7, "output": str(tmp_path / "a.csv")}


def test_a_missing_input_is_refused_with_the_nearest_name(
    program: Program, model: Path, new: Path
) -> None:
    pd.read_csv(new).rename(columns={"speed": "speeed"}).to_csv(new, index=False)
    done = program("predict", model, new)
    assert done.code == 2
    assert "'speed' is missing; did you mean 'speeed'?" in done.err


@pytest.mark.parametrize("which", ["model", "data"])
def test_a_file_that_is_read_is_never_replaced(
    program: Program, model: Path, new: Path, which: str
) -> None:
    target = model if which == "model" else new
    before = target.read_bytes()
    done = program("predict", model, new, "-o", target)
    assert done.code == 2
    assert "would replace a file that is read" in done.err
    assert target.read_bytes() == before


def test_a_table_in_place_of_a_model_is_refused(program: Program, runs: Path, new: Path) -> None:
    done = program("predict", runs, new)
    assert done.code == 2
    assert "is not an Understudy file" in done.err


def test_an_artifact_of_another_kind_is_refused(
    program: Program, new: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "other.us", {"kind": "operator"}, {})
    done = program("predict", path, new)
    assert done.code == 2
    assert "operator" in done.err


def test_show_says_what_is_inside(program: Program, model: Path) -> None:
    done = program("show", model)
    assert done.code == 0
    for word in ("runs.csv", "angle", "flat, round", "polynomial", "drag", "test rows"):
        assert word in done.out
    record = program("show", model, "--json").record
    assert record["targets"] == ["drag", "lift"]
    assert record["settings"] == read(model).manifest["settings"]


def test_sensitivity_ranks_the_inputs_of_each_target(program: Program, model: Path) -> None:
    record = program("sensitivity", model, "--samples", 256, "--json").record
    total = {(row["target"], row["input"]): row["total"] for row in record["indices"]}
    assert total["drag", "angle"] > total["drag", "speed"] > total["drag", "profile"]
    done = program("sensitivity", model, "--samples", 256)
    assert done.out.index("angle") < done.out.index("speed")
    assert WITH_SURROGATE in " ".join(done.out.split())
    assert {row["interval"] for row in record["indices"]} == {WITH_SURROGATE}


def test_report_writes_one_page_beside_the_model(
    program: Program, model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "wing.us"
    copy.write_bytes(model.read_bytes())
    done = program("report", copy)
    assert done.code == 0, done.err
    assert (tmp_path / "wing.html").read_text(encoding="utf-8").startswith("<!")
    assert "wing.html" in done.out
    record = program("report", copy, "-o", tmp_path / "b.html", "--json").record
    assert record["report"] == str(tmp_path / "b.html")


def test_the_report_of_a_file_says_which_inputs_matter(
    program: Program, model: Path, tmp_path: Path
) -> None:
    done = program("report", model, "-o", tmp_path / "wing.html")
    assert done.err == "Computing sensitivities\n"
    page = (tmp_path / "wing.html").read_text(encoding="utf-8")
    assert "Which inputs matter" in page
    assert "Sensitivities were not computed" not in page
    assert program("report", model, "-o", tmp_path / "wing.html", "--quiet").err == ""


def test_a_report_that_cannot_be_finished_leaves_the_former_one(
    program: Program, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wing.html"
    path.write_text("former")

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    done = program("report", model, "-o", path)
    assert done.code == 2
    assert "No space left on device" in done.err
    assert [(item.name, item.read_text()) for item in tmp_path.iterdir()] == [
        ("wing.html", "former")
    ]


def test_commands_work_as_a_process_of_their_own(model: Path, new: Path, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    done = process("predict", model, new, "-o", path)
    assert done.code == 0, done.err
    assert done.out == f"{path}: 9 rows, 7 of them extrapolated\n"
    assert len(pd.read_csv(path)) == 9
