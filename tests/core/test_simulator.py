"""Facts about simulators, on one that runs row by row and one that runs in batches."""

from __future__ import annotations

import pandas as pd
import pytest

from understudy.core.errors import UserError
from understudy.core.simulator import BatchedSimulator, Simulator
from understudy.core.space import Continuous, Space

SPACE = Space((Continuous("a", 0, 1), Continuous("b", 0, 1)))
TABLE = pd.DataFrame({"b": [1.0, 2.0], "a": [3.0, 4.0]}, index=[7, 9])
EXPECTED = pd.DataFrame({"sum": [4.0, 6.0], "product": [3.0, 8.0]}, index=[7, 9])


class RowByRow(Simulator):
    space = SPACE
    outputs = ("sum", "product")

    def run(self, params):
        p = self._complete(params)
        return {"product": p["a"] * p["b"], "sum": p["a"] + p["b"]}


class Batched(BatchedSimulator):
    space = SPACE
    outputs = ("sum", "product")

    def evaluate(self, X):
        return (
            X.new_tensor([0.0])
            + (X.sum(-1, True) * X.new_tensor([1.0, 0.0]))
            + (X.prod(-1, True) * X.new_tensor([0.0, 1.0]))
        )


@pytest.fixture(params=[RowByRow, Batched])
def simulator(request):
    return request.param()


def test_a_table_of_runs_keeps_its_index_and_the_order_of_outputs(simulator):
    pd.testing.assert_frame_equal(simulator.run_many(TABLE), EXPECTED)


def test_one_run_takes_a_mapping_or_a_row(simulator):
    assert simulator.run({"b": 1.0, "a": 3.0}) == {"sum": 4.0, "product": 3.0}
    assert simulator.run(TABLE.iloc[1]) == {"sum": 6.0, "product": 8.0}


def test_a_missing_parameter_is_named(simulator):
    with pytest.raises(UserError, match="input 'b' is missing"):
        simulator.run({"a": 1.0})


def test_an_unknown_parameter_is_named(simulator):
    with pytest.raises(UserError, match="no input 'c'"):
        simulator.run({"a": 1.0, "b": 1.0, "c": 1.0})
