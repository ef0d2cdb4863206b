"""`understudy extrapolate` predicts how training runs will go on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from .conftest import Program, process

EPOCHS = np.arange(1, 31)


@pytest.fixture
def curves(tmp_path: Path) -> Path:
    """A complete run, one that is behind, and one that may still become the best."""
    noise = np.random.default_rng(0).normal(0, 0.004, (3, 30))
    table = pd.DataFrame({"epoch": EPOCHS, "done": 0.8 - 0.5 * EPOCHS**-0.9 + noise[0]})
    table["behind"] = 0.5 - 0.4 * EPOCHS**-0.8 + noise[1]
    table["ahead"] = 0.95 - 0.7 * EPOCHS**-0.6 + noise[2]
    table.loc[12:, ["behind", "ahead"]] = np.nan
    path = tmp_path / "curves.csv"
    table.to_csv(path, index=False)
    return path


def test_each_run_is_told_to_stop_or_to_go_on(program: Program, curves: Path) -> None:
    done = program("extrapolate", curves)
    verdicts = {line.split()[0]: line.strip() for line in done.out.splitlines() if line.strip()}
    assert done.code == 0 and done.err == ""
    assert verdicts["done"].endswith("complete")
    assert verdicts["behind"].endswith("stop")
    assert verdicts["ahead"].endswith("go on")


def test_json_holds_the_forecasts(program: Program, curves: Path) -> None:
    record = program("extrapolate", curves, "--horizon", 40, "--json").record
    by_name = {line["curve"]: line for line in record["curves"]}
    assert record["horizon"] == 40
    assert len(by_name["done"]["forecast"]) == 10 and len(by_name["ahead"]["forecast"]) == 28
    last = by_name["ahead"]["forecast"][-1]
    assert last["epoch"] == by_name["ahead"]["at"] == 40
    assert last["lower_90"] == by_name["ahead"]["lower"] < by_name["ahead"]["median"]


def test_a_page_and_a_table_are_written(program: Program, curves: Path, tmp_path: Path) -> None:
    page, table = tmp_path / "curves.html", tmp_path / "forecast.csv"
    assert program("extrapolate", curves, "-o", page).code == 0
    assert program("extrapolate", curves, "-o", table, "--quiet").out == ""
    text = page.read_text()
    assert "behind" in text and "https://" not in text.split("<script>")[0]
    written = pd.read_csv(table)
    assert written["curve"].value_counts().to_dict() == {"behind": 18, "ahead": 18}
    assert {"epoch", "median", "lower_95", "upper_95"} <= set(written)


def test_columns_range_and_direction_are_options(
    program: Program, curves: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(curves)
    percent = tmp_path / "percent.csv"
    (100 * table[["done", "ahead"]]).to_csv(percent, index=False)
    refused = program("extrapolate", percent)
    assert refused.code == 2
    assert "column 'ahead': the curve is" in refused.err and "range" in refused.err
    taken = program("extrapolate", percent, "--range", 0, 100, "-c", "ahead", "--json").record
    assert [line["curve"] for line in taken["curves"]] == ["ahead"]
    assert 50 < taken["curves"][0]["median"] <= 100
    losses = tmp_path / "losses.csv"
    (3.0 - 2.0 * table[["done", "ahead"]]).to_csv(losses, index=False)
    record = program("extrapolate", losses, "--minimize", "--json").record
    assert 0 < record["curves"][1]["median"] < 2.0


def test_a_curve_that_falls_is_warned_of(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "falling.csv"
    pd.DataFrame({"loss": np.linspace(0.9, 0.1, 12)}).to_csv(path, index=False)
    done = program("extrapolate", path, "--json")
    assert done.code == 0
    assert done.err.startswith("warning: a curve has become clearly worse")
    assert program("extrapolate", path, "--json", "--quiet").err == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--horizon", 12), "horizon 12 is in the past"),
        (("--delta", 1.5), "--delta is a probability between 0 and 1, found 1.5"),
        (("--range", 1, 0), "--range takes a lower and a higher limit, found 1 and 0"),
        (("-o", "plot.png"), "can write .html, .csv, .tsv, .parquet, found .png"),
        (("-c", "aheda"), "no curve 'aheda'"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(
    program: Program, curves: Path, tmp_path: Path, options: tuple[object, ...], said: str
) -> None:
    table = pd.read_csv(curves)
    path = tmp_path / "same.csv"
    table[["behind", "ahead"]].dropna().to_csv(path, index=False)
    done = program("extrapolate", path, *options)
    assert done.code == 2
    assert said in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n0.1,x\n0.2,0.3\n", "column 'b', row 1: 'x' is no number"),
        ("a\n0.1\n0.2\nnan\n0.4\n", "column 'a', row 3 is empty"),
        ("epoch\n1\n2\n", "column for each run"),
    ],
)
def test_wrong_cells_are_named(program: Program, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "curves.csv"
    path.write_text(text)
    done = program("extrapolate", path)
    assert done.code == 2 and said in done.err


def test_the_file_that_is_read_is_not_replaced(program: Program, curves: Path) -> None:
    done = program("extrapolate", curves, "-o", curves)
    assert done.code == 2 and "would replace a file that is read" in done.err


@pytest.mark.slow
def test_it_is_a_command_of_the_program(curves: Path) -> None:
    done = process("extrapolate", "--help")
    assert done.code == 0 and "understudy extrapolate curves.csv" in done.out
