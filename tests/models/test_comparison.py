"""A surrogate is compared with its simulator on runs that it has not seen."""

import numpy as np
import pandas as pd
import pytest

from understudy.core.space import Continuous, Space
from understudy.models.tabular.comparison import (
    Comparison,
    compare_with_simulator,
    seconds_per_row,
    set_last_apart,
)


class Doubling:
    """Predicts twice the input, give or take one."""

    targets = ("y", "z")
    space = Space((Continuous("x", 0.0, 10.0),))

    def __init__(self):
        self.asked = []

    def predict(self, X):
        self.asked.append(len(X))
        return 2.0 * np.asarray(X)

    def predict_table(self, data):
        mean = 2.0 * data["x"]
        ends = {"mean": mean, "lower_90": mean - 1.0, "upper_90": mean + 1.0}
        return pd.DataFrame({f"{t}_{k}": v for t in self.targets for k, v in ends.items()})


RUNS = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "y": [2.5, 4.0, 7.0, 20.0], "z": [2, 4, 6, 8]})


def test_values_inside_their_intervals_are_counted():
    found = compare_with_simulator(Doubling(), RUNS, pd.Series([1.0, 3.0, 2.0, 100.0]))
    assert found.first["inside"].tolist() == [3, 4]  # 7 lies on an end, 20 outside
    assert found.coverage_90 == 7 / 8
    assert found.simulator_seconds == 2.5
    first = found.first.iloc[0]
    assert (first["simulated"], first["predicted"]) == (2.5, 2.0)
    assert (first["lower_90"], first["upper_90"]) == (1.0, 3.0)


def test_speed_is_the_ratio_of_the_times_of_one_run():
    comparison = Comparison(pd.DataFrame({"inside": [1]}), 1, 3.0, 0.002)
    assert comparison.speed_up == pytest.approx(1500)


def test_time_is_measured_on_a_thousand_rows_or_more():
    model = Doubling()
    assert seconds_per_row(model, RUNS.head(3)) > 0
    assert model.asked == [1002] * 3


@pytest.mark.parametrize(("rows", "count"), [(40, 2), (200, 10), (20, 2)])
def test_the_last_runs_are_set_apart(rows: int, count: int):
    seen, unseen = set_last_apart(pd.DataFrame({"x": range(rows)}), 0.05)
    assert unseen["x"].tolist() == list(range(rows - count, rows))
    assert len(seen) + len(unseen) == rows
