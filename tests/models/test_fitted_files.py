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
