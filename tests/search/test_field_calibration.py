"""Fields from tables of readings, through a generative operator, and on the command line."""

import json

import pandas as pd
import pytest
import torch

from understudy.cli.app import run
from understudy.core.errors import UserError
from understudy.models.operators.dgno import DeepGenerativeNeuralOperator
from understudy.models.operators.residual_operator import PIMultiONet
from understudy.models.operators.training import Training
from understudy.models.operators.weak_residual import WeakResidual
from understudy.report.field_calibration import write_field_report
from understudy.search.field_calibration import calibrate_field, read_sensors
from understudy.simulate.pde.darcy import Darcy

RESIDUAL = WeakResidual(10.0, 0.03, 20, 5)


def media(seeds):
    runs = pd.DataFrame({"seed": list(seeds)})
    return Darcy(15, "two-phase").inputs(runs)["coefficient"].unsqueeze(1)


@pytest.fixture(scope="module")
def operator():
    torch.manual_seed(0)
    made = DeepGenerativeNeuralOperator((15, 15), 4, [8, 8], residual=RESIDUAL)
    plan = Training(steps=60, batch_size=8, learning_rate=5e-3, clip_norm=None, optimizer="soap")
    return made.fit(media(range(16)), plan)


@pytest.fixture(scope="module")
def table(operator):
    """Readings that the operator itself gives of a field it has not seen."""
    x = torch.rand(25, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    u = operator.solution(media([40]), x)[0]
    return pd.DataFrame({"x": x[:, 0], "y": x[:, 1], "u": u})


def test_a_field_is_inferred_that_explains_the_readings(operator, table):
    found = calibrate_field(operator, read_sensors(table), 0.002, chains=2, burn_in=10, samples=10)
    assert found.mean.shape == found.sd.shape == (15, 15)
    assert found.explained > 0.8
    assert 0.0 <= found.decided <= 1.0
    cells = found.table()
    assert len(cells) == 225
    # the first axis is x: rows go through y first
    assert cells["x"].iloc[0] == cells["x"].iloc[1] and cells["y"].iloc[0] < cells["y"].iloc[1]
    assert cells["mean"].iloc[1] == pytest.approx(float(found.mean[0, 1]))


def test_a_continuous_field_is_told_by_its_range_and_deviation(tmp_path):
    torch.manual_seed(0)
    runs = pd.DataFrame({"seed": range(12)})
    fields = Darcy(15, "cosines").inputs(runs)["coefficient"].unsqueeze(1)
    made = DeepGenerativeNeuralOperator(
        (15, 15), 4, [8, 8], residual=RESIDUAL, likelihood="gaussian"
    )
    made.fit(fields, Training(steps=30, batch_size=8, learning_rate=5e-3))
    x = torch.rand(20, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rows = pd.DataFrame({"x": x[:, 0], "y": x[:, 1], "u": made.solution(fields[:1], x)[0]})
    found = calibrate_field(made, read_sensors(rows), 0.002, "map")
    low, high = found.range
    assert found.phases is None and low < float(found.mean.mean()) < high
    assert found.decided == 1.0  # one field alone, with the deviation of a cell
    page = write_field_report(found, tmp_path / "field.html", source="a", model="b").read_text()
    assert "below a tenth of the mean" in page
    made.save(tmp_path / "smooth.us")
    rows.to_csv(tmp_path / "rows.csv")
    arguments = [str(tmp_path / "smooth.us"), str(tmp_path / "rows.csv")]
    assert run(["calibrate", *arguments, "--noise", "0.002", "--method", "map"]) == 0


def test_readings_that_no_field_explains_are_warned_of(operator, table):
    wrong = table.assign(u=table["u"] + 0.5 * (-1.0) ** table.index)
    found = calibrate_field(operator, read_sensors(wrong), 0.002, "map")
    assert any("noise is larger than said" in text for text in found.warnings())
    assert any("nothing of how sure" in text for text in found.warnings())


def test_the_page_shows_both_fields(operator, table, tmp_path):
    found = calibrate_field(operator, read_sensors(table), 0.002, "map")
    page = write_field_report(found, tmp_path / "field.html", source="s.csv", model="d.us")
    text = page.read_text(encoding="utf-8")
    assert "The field behind s.csv" in text
    assert 'id="mean"' in text and 'id="sd"' in text and "25 readings" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": [0.2, 1.5]}, "column 'x', row 2: 1.5 is outside 0 to 1"),
        ({"y": [-0.1, 0.5]}, "column 'y', row 1: -0.1 is outside"),
        ({"u": [0.1, None]}, "column 'u', row 2: a number is missing"),
        ({"u": ["a", 0.1]}, "column 'u', row 1: a number is missing"),
    ],
)
def test_tables_that_are_no_readings_are_refused(change, message):
    good = {"x": [0.2, 0.3], "y": [0.2, 0.3], "u": [0.1, 0.1]}
    with pytest.raises(UserError, match=message):
        read_sensors(pd.DataFrame({**good, **change}))


def test_a_table_without_rows_or_a_column_is_refused():
    with pytest.raises(UserError, match="no rows"):
        read_sensors(pd.DataFrame({"x": [], "y": [], "u": []}))
    with pytest.raises(UserError, match="no column 'y'"):
        read_sensors(pd.DataFrame({"x": [0.1], "u": [0.1]}))


def told(capsys, *arguments):
    """Code, output and errors of the command."""
    code = run(["calibrate", *map(str, arguments)])
    seen = capsys.readouterr()
    return code, seen.out, seen.err


def test_the_command_writes_a_page_and_a_table(operator, table, tmp_path, capsys):
    model, sensors = operator.save(tmp_path / "darcy.us"), tmp_path / "sensors.csv"
    table.to_csv(sensors, index=False)
    page, cells = tmp_path / "field.html", tmp_path / "field.csv"
    common = (model, sensors, "--noise", 0.002, "--method", "map")
    code, out, err = told(capsys, *common, "-o", page)
    assert code == 0, err
    assert "of the cells are decided" in out and "nothing of how sure" in err
    assert page.exists()
    code, out, _ = told(capsys, *common, "-o", cells, "--json")
    record = json.loads(out)
    assert code == 0 and record["sensors"] == 25
    assert len(pd.read_csv(cells)) == 225
    assert len(record["mean"]) == 15


def test_the_command_says_in_a_sentence_what_it_cannot_do(operator, table, tmp_path, capsys):
    model, sensors = operator.save(tmp_path / "darcy.us"), tmp_path / "sensors.csv"
    table.to_csv(sensors, index=False)
    code, _, err = told(capsys, model, sensors)
    assert code == 2 and "needs --noise" in err
    code, _, err = told(capsys, model, sensors, "--noise", 0.1, "--method", "guess")
    assert code == 2 and "map, vi or hmc, found 'guess'" in err
    plain = PIMultiONet((15, 15), [8], residual=RESIDUAL).save(tmp_path / "plain.us")
    code, _, err = told(capsys, plain, sensors, "--noise", 0.1)
    assert code == 2 and "infers nothing" in err
