"""Facts about the named data sets, read from the folder that UNDERSTUDY_DATA names."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from understudy.core.errors import UserError
from understudy.data import datasets
from understudy.data.datasets import dataset_names, load_dataset
from understudy.data.table import prepare

SHAPES = {  # rows, inputs, outputs
    "cardiac1": (1350, 18, 4),
    "cardiac3": (630, 21, 26),
    "engineering1": (994, 6, 2),
    "yacht": (308, 6, 1),
    "energy": (768, 8, 1),
    "concrete": (1030, 8, 1),
    "wine-quality-red": (1599, 11, 1),
    "power-plant": (9568, 4, 1),
    "kin8nm": (8192, 8, 1),
}

needs_data = pytest.mark.skipif(
    not os.environ.get("UNDERSTUDY_DATA"),
    reason="UNDERSTUDY_DATA names no folder with the data sets, and tests do not download",
)


@pytest.fixture
def offline(monkeypatch):
    import pooch

    def refuse(*args, **options):
        raise OSError("no network in tests")

    monkeypatch.setattr(pooch, "retrieve", refuse)


def test_every_name_is_listed():
    assert dataset_names() == list(SHAPES)


@needs_data
@pytest.mark.parametrize("name", SHAPES)
def test_a_data_set_has_its_published_size_and_can_be_learnt_from(name, offline):
    df, targets = load_dataset(name)
    rows, inputs, outputs = SHAPES[name]
    assert df.shape == (rows, inputs + outputs) and len(targets) == outputs
    assert df.notna().all().all()
    table = prepare(df, targets)
    assert len(table.space) == inputs and table.Y.shape[1] == outputs


@needs_data
@pytest.mark.parametrize("name", SHAPES)
def test_local_files_are_those_that_would_be_downloaded(name, monkeypatch):
    located, files = datasets._located, []
    monkeypatch.setattr(
        datasets, "_located", lambda name, file: files.append(file) or located(name, file)
    )
    load_dataset(name)
    assert len(files) == (2 if name in ("cardiac1", "cardiac3", "engineering1") else 1)
    for file in files:
        content = (Path(os.environ["UNDERSTUDY_DATA"]) / file.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file.sha256


def test_an_unknown_name_is_answered_with_the_nearest_one():
    with pytest.raises(UserError, match="no data set 'yach'; did you mean 'yacht'"):
        load_dataset("yach")


def test_without_network_the_folder_to_fill_is_named(offline, monkeypatch, tmp_path):
    monkeypatch.setenv("UNDERSTUDY_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"no network.*UNDERSTUDY_DATA.*uci/yacht.txt"):
        load_dataset("yacht")
