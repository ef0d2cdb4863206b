"""A file whose parts were changed is refused with one sentence, whatever was changed."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import understudy
from understudy.core import artifact
from understudy.core.artifact import ArtifactError
from understudy.core.errors import UserError


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    runs = pd.DataFrame({"a": rng.uniform(size=40), "b": rng.uniform(size=40)})
    runs["y"], runs["z"] = np.sin(3 * runs["a"]), runs["a"] * runs["b"]
    model = understudy.fit(runs, ["y", "z"], members=["polynomial", "exact-gp"])
    model.sensitivity(n=64)
    return model.save(tmp_path_factory.mktemp("files") / "model.us")


def changed(saved: Path, folder: Path, change) -> Path:
    """Write the file again with its manifest, tensors and tables changed."""
    stored = artifact.read(saved)
    manifest = {k: v for k, v in stored.manifest.items() if k != "artifact"}
    change(manifest, stored.tensors, stored.tables)
    return artifact.write(folder / "changed.us", manifest, stored.tensors, stored.tables)


KEYS = [
    *("params", "space", "fill", "targets", "members", "warps", "conformal"),
    *("one_dimensional", "notes", "settings"),
]


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_part_of_the_manifest_is_refused(saved, tmp_path, key: str):
    path = changed(saved, tmp_path, lambda manifest, *_: manifest.pop(key))
    with pytest.raises(ArtifactError, match=r"changed\.us"):
        understudy.load(path)


@pytest.mark.parametrize("value", [None, 7, "text", [1, 2], {"a": 1}])
@pytest.mark.parametrize("key", [*KEYS[:7], "notes"])
def test_a_part_of_another_kind_never_breaks_the_reader(saved, tmp_path, key: str, value: Any):
    path = changed(saved, tmp_path, lambda manifest, *_: manifest.update({key: value}))
    try:
        model = understudy.load(path)
    except ArtifactError:
        return
    assert np.isfinite(model.predict(np.full((1, 2), 0.5))).all()


@pytest.mark.parametrize(
    "name", ["weights", "factor", "conformal.radius", "member.0.x_shift", "member.0.y_scale"]
)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5)])
def test_a_tensor_of_another_shape_never_breaks_the_reader(saved, tmp_path, name, shape):
    def change(_, tensors, __):
        tensors[name] = torch.ones(shape, dtype=torch.float64)

    path = changed(saved, tmp_path, change)
    try:
        model = understudy.load(path)
    except ArtifactError:
        return
    assert np.asarray(model.predict(np.full((1, 2), 0.5))).shape == (1, 2)


@pytest.mark.parametrize("table", ["leaderboard", "evaluation", "held_out", "training"])
def test_a_missing_table_is_refused(saved, tmp_path, table: str):
    path = changed(saved, tmp_path, lambda _, __, tables: tables.pop(table))
    with pytest.raises(ArtifactError):
        understudy.load(path)


COLUMNS = {
    "leaderboard": ["name", "status", "weight", "nlpd", "predict_seconds"],
    "evaluation": ["split", "target", "rows", "r2", "crps_high", "coverage_50"],
    "held_out": ["split", "target", "row", "y", "pit", "lower_90"],
    "training": ["a", "b", "y", "z"],
    "sensitivity": ["target", "input", "first", "total_high"],
}
TEXT = ("name", "status", "split", "target", "input")
CELLS = [(table, column) for table, columns in COLUMNS.items() for column in columns]


def refused_with(saved: Path, folder: Path, name: str, change) -> None:
    """Have a table changed and the file refused."""

    def in_file(_, __, tables):
        tables[name] = change(tables[name])

    with pytest.raises(ArtifactError, match=r"changed\.us"):
        understudy.load(changed(saved, folder, in_file))


@pytest.mark.parametrize(("table", "column"), CELLS)
def test_a_table_without_one_of_its_columns_is_refused(saved, tmp_path, table: str, column: str):
    refused_with(saved, tmp_path, table, lambda whole: whole.drop(columns=column))


@pytest.mark.parametrize(("table", "column"), [c for c in CELLS if c[1] not in ("y", "z")])
def test_a_column_of_another_kind_is_refused(saved, tmp_path, table: str, column: str):
    value = 1.5 if column in TEXT else "text"
    refused_with(saved, tmp_path, table, lambda whole: whole.assign(**{column: value}))


@pytest.mark.parametrize("table", ["evaluation", "held_out", "training", "sensitivity"])
def test_a_table_without_rows_is_refused(saved, tmp_path, table: str):
    refused_with(saved, tmp_path, table, lambda whole: whole.head(0))


@pytest.mark.parametrize("table", ["evaluation", "held_out", "sensitivity"])
def test_a_table_with_its_rows_twice_is_refused(saved, tmp_path, table: str):
    refused_with(saved, tmp_path, table, lambda whole: pd.concat([whole, whole]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("metric", value) for value in ("beauty", [1], None)),
        *(("rows", value) for value in ("many", [1], {})),
        *(("seconds", "long"), ("created", 7), ("source", {}), ("versions", "new")),
    ],
)
def test_a_setting_of_another_kind_is_refused(saved, tmp_path, key: str, value: Any):
    path = changed(saved, tmp_path, lambda manifest, *_: manifest["settings"].update({key: value}))
    with pytest.raises(ArtifactError, match=key):
        understudy.load(path)


@pytest.mark.parametrize("targets", [["y", "y"], ["y", 3], ["y", None], ["y"], ["z", "w"], []])
def test_other_targets_are_refused(saved, tmp_path, targets: list[Any]):
    path = changed(saved, tmp_path, lambda manifest, *_: manifest.update(targets=targets))
    with pytest.raises(ArtifactError):
        understudy.load(path)


def test_a_model_that_is_not_known_is_refused_by_its_name(saved, tmp_path):
    def change(manifest, *_):
        manifest["members"][0]["class"] = "Oracle"

    with pytest.raises(ArtifactError, match="'Oracle'"):
        understudy.load(changed(saved, tmp_path, change))


def test_predictions_that_are_no_numbers_are_refused(saved, tmp_path):
    def change(_, tensors, __):
        tensors["weights"] = torch.full_like(tensors["weights"], float("nan"))

    with pytest.raises(ArtifactError):
        understudy.load(changed(saved, tmp_path, change))


def test_usual_values_are_needed_for_every_input(saved, tmp_path):
    path = changed(saved, tmp_path, lambda manifest, *_: manifest["fill"].pop("b"))
    with pytest.raises(ArtifactError, match="'b'"):
        understudy.load(path)


def test_missing_tensors_are_refused(saved, tmp_path):
    path = changed(saved, tmp_path, lambda _, tensors, __: tensors.clear())
    with pytest.raises(ArtifactError):
        understudy.load(path)


def test_content_of_another_version_is_refused_by_both_versions(saved, tmp_path):
    path = changed(saved, tmp_path, lambda manifest, *_: manifest.update(content=99))
    with pytest.raises(ArtifactError, match="version 99, this version of Understudy reads 1"):
        understudy.load(path)


def test_a_file_of_another_kind_is_refused(saved, tmp_path):
    path = changed(saved, tmp_path, lambda manifest, *_: manifest.update(kind="operator"))
    with pytest.raises(UserError, match="holds a 'operator', not a surrogate of a table"):
        understudy.load(path)
