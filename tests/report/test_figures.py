import json

import numpy as np

from understudy.report.figures import MOST_ROWS, figure_data, rounded


def test_test_rows_come_first_and_cross_validation_second(make_surrogate):
    splits = figure_data(make_surrogate())["splits"]
    assert [split["name"] for split in splits] == ["test", "cross-validation"]
    assert [split["whole"] for split in splits] == [60, 150]


def test_rows_are_counted_from_one_as_in_the_notes(make_surrogate):
    assert figure_data(make_surrogate())["splits"][1]["rows"] == list(range(1, 151))


def test_rows_carry_what_was_observed_and_predicted(make_surrogate):
    model = make_surrogate()
    split = figure_data(model)["splits"][1]
    table = model.held_out.query("split == 'cross-validation' and target == 'moment'")
    assert np.allclose(split["y"][1], table["y"], atol=1e-3 * np.ptp(table["y"]))
    assert np.allclose(split["low"][1], table["lower_90"], atol=1e-3 * np.ptp(table["y"]))


def test_inputs_of_rows_are_found_in_the_training_table(make_surrogate):
    model = make_surrogate()
    split = figure_data(model)["splits"][1]
    assert np.allclose(split["x"][0], model.training["load"], atol=1e-2)
    assert split["x"][3] == list(model.training["support"])


def test_inputs_of_rows_are_found_by_their_number_where_the_training_table_has_it(make_surrogate):
    model = make_surrogate(rows=20)
    model.training["deflection"] = model.training["moment"] = 0.0  # no telling rows apart by these
    model.training = model.training.assign(row=np.arange(20)).iloc[::-1].head(15)
    split = figure_data(model)["splits"][1]
    assert split["x"][0][:5] == [None] * 5
    assert split["x"][3][5:] == list(model.training["support"])[::-1]


def test_test_rows_are_not_taken_for_training_rows_of_the_same_number(make_surrogate):
    model = make_surrogate(rows=60)
    model.training = model.training.assign(row=np.arange(60, 120))
    assert figure_data(model)["splits"][0]["x"] is None


def test_an_input_of_the_name_row_is_no_number_of_a_row(make_surrogate):
    model = make_surrogate(inputs=("row", "span", "layers"))
    data = figure_data(model)
    assert np.allclose(data["splits"][1]["x"][0], model.training["row"], atol=1e-2)
    assert [item["name"] for item in data["inputs"]] == ["row", "span", "layers"]


def test_inputs_of_rows_that_are_not_in_the_training_table_are_left_out(make_surrogate):
    assert figure_data(make_surrogate())["splits"][0]["x"] is None


def test_many_rows_are_thinned_to_the_same_ones_for_every_output(make_surrogate):
    data = figure_data(make_surrogate(rows=3000, targets=("a", "b", "c")))
    split = data["splits"][1]
    assert split["whole"] == 3000
    assert len(split["rows"]) <= MOST_ROWS
    assert {len(values) for values in split["y"]} == {len(split["rows"])}


def test_data_of_many_rows_inputs_and_outputs_stay_small(make_surrogate):
    model = make_surrogate(
        inputs=[f"input {i}" for i in range(60)],
        targets=[f"output {j}" for j in range(30)],
        rows=2500,
        test_rows=800,
    )
    text = json.dumps(figure_data(model), separators=(",", ":"), allow_nan=False)
    assert len(text) < 1_000_000


def test_slices_follow_the_most_influential_inputs(make_surrogate):
    model = make_surrogate(inputs=[f"x{i}" for i in range(15)], targets=("y", "z"))
    data = figure_data(model)
    along = [curve["input"] for curve in data["slices"] if curve["target"] == 1]
    total = model.sensitivity_.query("target == 'z'")["total"].to_numpy()
    assert along == np.argsort(-total)[:12].tolist()
    assert data["sensitivity"]["inputs"][1][:12] == along


def test_without_sensitivities_the_first_inputs_are_shown(make_surrogate):
    data = figure_data(make_surrogate(with_sensitivity=False))
    assert data["sensitivity"] is None
    assert [curve["input"] for curve in data["slices"] if curve["target"] == 0] == [0, 1, 2, 3]


def test_calibration_curve_runs_from_zero_to_one(make_surrogate):
    curve = figure_data(make_surrogate())["splits"][0]["curve"][0]
    assert curve[0] == 0.0
    assert curve[-1] == 1.0
    assert all(np.diff(curve) >= 0)


def test_rounding_keeps_digits_of_the_spread_and_replaces_what_is_no_number():
    assert rounded([1000.00123456, 1000.00223456]) == [1000.0012346, 1000.0022346]
    assert rounded([1.23456e9, 2.5e9]) == [1234600000.0, 2500000000.0]
    assert rounded([np.nan, 1.0, np.inf]) == [None, 1.0, None]
    assert rounded([]) == []
