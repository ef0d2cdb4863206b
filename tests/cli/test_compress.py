"""``understudy compress``: the table, truncation, and filters that are trained afresh."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("h5py")
pytest.importorskip("skfem")

SMALL = ["-s", "points=15", "-s", "steps=4", "-s", "duration=0.2", "-s", "substeps=2"]


@pytest.fixture(scope="module")
def wave(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Runs of waves, and an operator that has learnt a little of them."""
    from understudy.cli.app import run
    from understudy.emulate.fields import from_file
    from understudy.models.operators.one_step import OneStepModel
    from understudy.models.operators.training import Training
    from understudy.models.operators.wave_cnn import WaveCNN

    folder = tmp_path_factory.mktemp("wave")
    path, model = folder / "runs.h5", folder / "wave.us"
    assert run(["simulate", "wave", "-n", "12", *SMALL, "-o", str(path), "--quiet"]) == 0
    data = from_file(path)
    OneStepModel(WaveCNN(2, 2, num_params=4)).fit(
        data.fields,
        data.numbers,
        dt=data.dt,
        grid=data.grid,
        channels=data.channels,
        parameters=[str(name) for name in data.parameters.columns],
        training=Training(steps=8, batch_size=4, learning_rate=1e-2, ema_decay=None),
    ).save(model)
    return path, model


def test_the_table_names_layers_and_what_stays(program, wave) -> None:
    done = program("compress", str(wave[1]), "--rank", "2")
    assert done.code == 0
    assert "first.0.conv" in done.out and "all" in done.out
    assert "lift.conv stays: first" in done.out


def test_a_truncated_operator_is_scored_and_written(program, wave, tmp_path) -> None:
    data, model = wave
    small = tmp_path / "small.us"
    done = program(
        *("compress", str(model), "--rank", "1", "--data", str(data), "-o", str(small), "--json")
    )
    assert done.code == 0
    record = done.record
    inner = 32 * 32 * 25 + 32
    assert record["layers"][0]["parameters_before"] == inner
    assert record["layers"][0]["parameters_after"] == 32 * (32 + 10) + 32
    assert record["layers"][-1]["layer"] == "all"
    errors = [record["scores"][name]["one_step_error"] for name in ("dense", "one-way")]
    assert errors[0] != errors[1]
    shown = program("show", str(small), "--json").record
    assert shown["network"] == "one-way"
    assert shown["weights"] == record["layers"][-1]["parameters_after"]


def test_filters_a_priori_are_trained(program, wave, tmp_path) -> None:
    data, model = wave
    small = tmp_path / "small.us"
    done = program(
        *("compress", str(model), "--a-priori", "--rank", "2", "--mode", "shared", "-d", str(data)),
        *("--budget", "1s", "-o", str(small), "--json"),
    )
    assert done.code == 0
    assert done.record["plan"]["mode"] == "shared"
    assert done.record["scores"]["one-way"]["test_runs"] == 2
    assert small.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--a-priori", "-o", "x.us"], "have to be trained before they are kept; name --data"),
        (["--mode", "svd"], "mode must be one of"),
        (["--skip", "nothing"], "no convolution is called 'nothing'"),
        (["--data", "absent.h5"], "absent.h5: there is no such file"),
    ],
)
def test_requests_are_refused_in_one_sentence(program, wave, options, words) -> None:
    done = program("compress", str(wave[1]), *options)
    assert done.code == 2
    assert words in done.err
    assert done.err.count("\n") == 1


def test_runs_of_something_else_are_refused(program, wave, tmp_path) -> None:
    other = tmp_path / "other.h5"
    made = program("simulate", "wave", "-n", "8", "-s", "points=11", "-o", str(other), "--quiet")
    assert made.code == 0
    done = program("compress", str(wave[1]), "--data", str(other))
    assert done.code == 2
    assert "the runs have (11, 11) points, the operator (15, 15)" in done.err


def test_an_operator_of_another_kind_is_refused(program, wave, monkeypatch) -> None:
    other = SimpleNamespace(model="pi-deeponet")
    monkeypatch.setattr("understudy.load_operator", lambda path: other, raising=False)
    done = program("compress", str(wave[1]))
    assert done.code == 2
    assert "holds a 'pi-deeponet', which has no convolutions to rewrite" in done.err


def test_the_operator_is_never_replaced(program, wave) -> None:
    done = program("compress", str(wave[1]), "-o", str(wave[1]), "--force")
    assert done.code == 2
    assert "would replace a file that is read" in done.err
