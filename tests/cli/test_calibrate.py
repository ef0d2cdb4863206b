"""`understudy calibrate` infers parameters through a fitted surrogate."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

import understudy
from understudy.models.inverse.icnn import InputConvexNet
from understudy.models.inverse.lpn import LearnedProximalNetwork

from .conftest import Program

PRIOR = """
[parameters]
speed = { distribution = "uniform", lower = 20, upper = 40 }

[noise]
lift = 0.1
drag = "infer"
"""
FAST = ["--samples", "40", "--burn-in", "20", "--chains", "2"]


@pytest.fixture
def prior(tmp_path: Path) -> Path:
    path = tmp_path / "prior.toml"
    path.write_text(PRIOR)
    return path


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A wing at a speed of 30: lift is 0.1 angle speed, drag 0.01 angle^2 speed."""
    angle = [1.0, 2.0, 4.0, 6.0]
    table = {"angle": angle, "profile": ["flat"] * 4, "lift": [3.0 * a for a in angle]}
    path = tmp_path / "measured.csv"
    pd.DataFrame({**table, "drag": [0.3 * a**2 for a in angle]}).to_csv(path, index=False)
    return path


def test_a_parameter_is_inferred_and_reported(
    program: Program, model: Path, measured: Path, prior: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    done = program("calibrate", model, measured, "-p", prior, *FAST, "-o", page, "--json")
    assert done.code == 0, done.err
    speed, drag = done.record["parameters"]
    assert speed["parameter"] == "speed" and drag["parameter"] == "noise of drag"
    assert speed["lower_90"] < 31.5 and speed["upper_90"] > 28.5
    assert done.record["noise"]["lift"] == pytest.approx(0.1)
    text = page.read_text(encoding="utf-8")
    assert "Calibration to measured.csv" in text and "noise of drag" in text


def field(prior: Path, dim: int = 1) -> Path:
    """Beside the prior file, and named in it: f(y) = 0.8 y, a normal density at 0."""
    lpn = LearnedProximalNetwork(InputConvexNet(dim, hidden=2, layers=1, alpha=0.4), 0.1)
    with torch.no_grad():
        for p in lpn.parameters():
            p.zero_()
    prior.write_text(PRIOR + '[field]\ndensity = "fields.us"\n')
    return lpn.save(prior.with_name("fields.us"))


@pytest.mark.slow
def test_a_learned_density_of_all_parameters_multiplies_their_priors(
    program: Program, model: Path, measured: Path, prior: Path
) -> None:
    common = ("calibrate", model, measured, "-p", prior, *FAST, "--json")
    before = program(*common).record["parameters"][0]["mean"]
    field(prior)
    # R(x) = x^2 / 8, and the log density - x^2 / 0.08 pulls towards small values
    after = program(*common).record["parameters"][0]["mean"]
    assert before > 28.5 and after < before - 3.0


def test_densities_that_do_not_fit_are_refused_in_a_sentence(
    program: Program, model: Path, measured: Path, prior: Path
) -> None:
    path = field(prior, dim=3)
    done = program("calibrate", model, measured, "-p", prior, *FAST)
    assert done.code == 2 and "a prior of fields of 3 values; there are 1 parameters" in done.err
    done = program("calibrate", model, measured, "-p", prior, "--check", 10)
    assert done.code == 2 and "not from a [field]" in done.err
    path.unlink()
    done = program("calibrate", model, measured, "-p", prior, *FAST)
    assert done.code == 2 and "there is no such file, named as the density" in done.err
    prior.write_text(PRIOR + "[field]\ndensity = 3\n")
    done = program("calibrate", model, measured, "-p", prior)
    assert done.code == 2 and "[field] needs a file" in done.err


def test_draws_are_written_and_chains_go_on(
    program: Program, model: Path, measured: Path, prior: Path, tmp_path: Path
) -> None:
    draws, chains = tmp_path / "draws.csv", tmp_path / "chains.us"
    common = ["-p", prior, *FAST, "--chains-file", chains, "-o", draws]
    done = program("calibrate", model, measured, *common)
    assert done.code == 0 and "R-hat" in done.out
    assert len(pd.read_csv(draws)) == 80
    again = program("calibrate", model, measured, *common, "--samples", "45")
    assert again.code == 0 and len(pd.read_csv(draws)) == 90


def test_a_prior_of_what_is_no_input_is_refused_in_a_sentence(
    program: Program, model: Path, measured: Path, tmp_path: Path
) -> None:
    prior = tmp_path / "prior.toml"
    prior.write_text(PRIOR.replace("speed", "sped"))
    done = program("calibrate", model, measured, "--prior", prior)
    assert done.code == 2
    assert "'sped' is no input of the surrogate; did you mean 'speed'?" in done.err


def test_the_surrogate_of_the_tests_predicts_what_is_measured(model: Path) -> None:
    surrogate = understudy.load(model)
    row = pd.DataFrame({"angle": [4.0], "speed": [30.0], "profile": ["flat"]})
    assert float(surrogate.predict_table(row)["lift_mean"].iloc[0]) == pytest.approx(12.0, abs=2.0)


def further(measured: Path, runs: int, **changes: object) -> pd.DataFrame:
    """Runs of what the surrogate was fitted to, but with lift 0.3 higher."""
    table = pd.read_csv(measured)
    parts = []
    for k in range(runs):
        speed = 21.0 + 18.0 * k / max(runs - 1, 1)
        lift = 0.1 * table["angle"] * speed + 0.3
        drag = 0.01 * table["angle"] ** 2 * speed
        parts.append(table.assign(speed=speed, lift=lift, drag=drag))
    return pd.concat(parts).assign(**changes)


def test_the_error_of_the_surrogate_is_known_from_further_runs(
    program: Program, model: Path, measured: Path, prior: Path, tmp_path: Path
) -> None:
    runs, page = tmp_path / "further.csv", tmp_path / "page.html"
    further(measured, 10).to_csv(runs, index=False)
    common = ("calibrate", model, measured, "-p", prior, *FAST)
    done = program(*common, "--checks", runs, "-o", page)
    assert done.code == 0, done.err
    assert "error of the surrogate in 10 runs: drag 0.0" in done.out
    assert "Error of the surrogate in 10 runs" in page.read_text(encoding="utf-8")
    alone = program(*common, "--json").record
    helped = program(*common, "--checks", runs, "--json").record
    assert alone["error"] is None and helped["error"].startswith("error of the surrogate in 10")
    # a solver whose lift is 0.3 higher needs less speed for the same lift: 0.3 / 0.4 at most
    assert helped["parameters"][0]["mean"] < alone["parameters"][0]["mean"] - 0.3


def test_further_runs_that_do_not_do_are_refused_in_a_sentence(
    program: Program, model: Path, measured: Path, prior: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "further.csv"
    for table, sentence in (
        (further(measured, 5), f"{runs}: to know the error of a surrogate takes 8 runs"),
        (further(measured, 9).drop(columns="lift"), f"{runs}: column 'lift' is missing"),
        (further(measured, 9, speed=45.0), f"{runs}: column 'speed', row 1: 45 is outside the pr"),
        (further(measured, 9)[1:], "run with speed 21 has no row with angle 1, profile flat, whi"),
    ):
        table.to_csv(runs, index=False)
        done = program("calibrate", model, measured, "-p", prior, *FAST, "--checks", runs)
        assert done.code == 2 and sentence in " ".join(done.err.split()), done.err
