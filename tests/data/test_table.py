"""Facts about the preparation of a table: what is inferred, dropped, filled, noted, refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from understudy.core.errors import UserError
from understudy.core.space import Categorical, Continuous, Integer
from understudy.data.table import encode_new, prepare

N = 40
RNG = np.random.default_rng(0)
RUNS = pd.DataFrame(
    {
        "speed": RNG.uniform(1.0, 2.0, N),
        "blades": RNG.integers(2, 7, N),
        "material": RNG.choice(["oak", "ash", "elm"], N),
        "coated": RNG.random(N) < 0.5,
        "thrust": RNG.normal(size=N),
        "noise": RNG.normal(size=N),
    }
)
TARGETS = ("thrust", "noise")


def kinds(table):
    return {note.kind for note in table.warnings}


def note(table, kind):
    (found,) = [note for note in table.warnings if note.kind == kind]
    return found


def changed(column, row, value):
    df = RUNS.astype({column: object})
    df.loc[row, column] = value
    return df


def refusal(df, targets=TARGETS, **options):
    with pytest.raises(UserError) as caught:
        prepare(df, targets, **options)
    return str(caught.value)


def test_a_clean_table_is_taken_as_it_is_and_nothing_is_noted():
    table = prepare(RUNS, TARGETS)
    speed = RUNS["speed"]
    assert table.space.inputs == (
        Continuous("speed", speed.min(), speed.max()),
        Integer("blades", 2, 6),
        Categorical("material", ("ash", "elm", "oak")),
        Categorical("coated", (False, True)),
    )
    assert table.warnings == ()
    assert table.rows.tolist() == list(range(N))
    np.testing.assert_array_equal(table.X, table.space.encode(RUNS))
    np.testing.assert_array_equal(table.Y, RUNS[list(TARGETS)])


def test_one_target_may_be_given_by_its_name_alone():
    table = prepare(RUNS, "thrust")
    assert table.targets == ("thrust",) and table.Y.shape == (N, 1)
    assert "noise" in table.space.names


def test_inputs_can_be_chosen_and_columns_left_out():
    assert prepare(RUNS, TARGETS, inputs=["coated", "speed"]).space.names == ["coated", "speed"]
    assert prepare(RUNS, TARGETS, drop=["coated"]).space.names == ["speed", "blades", "material"]


def test_numbers_and_truth_values_as_text_are_understood():
    text = RUNS.assign(
        speed=RUNS["speed"].map(repr),
        blades=RUNS["blades"].map(" {} ".format),
        coated=np.where(RUNS["coated"], "yes", "No"),
    )
    table = prepare(text, TARGETS)
    assert table.space == prepare(RUNS, TARGETS).space
    np.testing.assert_array_equal(table.X, prepare(RUNS, TARGETS).X)


def test_numbers_declared_as_categories_are_choices():
    df = RUNS.assign(blades=pd.Categorical(RUNS["blades"]))
    table = prepare(df, TARGETS)
    assert table.space["blades"] == Categorical("blades", ("2", "3", "4", "5", "6"))
    np.testing.assert_array_equal(table.X[:, 1], RUNS["blades"] - 2)
    np.testing.assert_array_equal(encode_new(table.space, table.fill, RUNS).X, table.X)


def test_an_empty_number_becomes_the_median_and_an_empty_text_a_level():
    df = RUNS.copy()
    df.loc[[3, 5], "speed"] = np.nan
    df.loc[4, "blades"] = np.nan
    df["material"] = df["material"].astype(object).where(df.index != 6, " ")
    df["coated"] = df["coated"].astype(object).where(df.index != 7, None)
    table = prepare(df, TARGETS)
    assert table.X[[3, 5], 0].tolist() == [df["speed"].median()] * 2
    assert table.space["blades"] == Integer("blades", 2, 6)
    assert table.X[4, 1] == round(df["blades"].median())
    assert table.space["material"] == Categorical("material", ("ash", "elm", "oak", "missing"))
    assert table.space["coated"] == Categorical("coated", (False, True, "missing"))
    assert (table.X[6, 2], table.X[7, 3]) == (3, 2)
    assert note(table, "imputed").count == 5
    assert note(table, "imputed").columns == ("speed", "blades", "material", "coated")


def test_rows_without_a_target_are_dropped():
    df = RUNS.copy()
    df.loc[2, "thrust"] = df.loc[[2, 9], "noise"] = np.nan
    table = prepare(df, TARGETS)
    assert table.rows.tolist() == [i for i in range(N) if i not in (2, 9)]
    assert note(table, "missing-target").count == 2


def test_an_infinite_value_is_refused_with_its_place():
    df = RUNS.copy()
    df.loc[[4, 8], "speed"] = [np.inf, -np.inf]
    assert refusal(df) == (
        "column 'speed' holds 2 infinite values, the first in row 5; "
        "give --drop-invalid to leave such rows out"
    )
    df.loc[1, "noise"] = np.inf
    assert "column 'noise' holds 1 infinite value, the first in row 2" in refusal(df)


def test_rows_with_infinite_values_are_dropped_on_request():
    df = RUNS.copy()
    df.loc[4, "speed"] = df.loc[8, "noise"] = np.inf
    table = prepare(df, TARGETS, drop_invalid=True)
    assert table.rows.tolist() == [i for i in range(N) if i not in (4, 8)]
    assert note(table, "infinite").count == 2


def test_columns_that_do_not_vary_are_dropped():
    table = prepare(RUNS.assign(g=9.81, site="lab", left=np.nan), TARGETS)
    assert table.space == prepare(RUNS, TARGETS).space
    assert note(table, "constant").columns == ("g", "site")
    assert note(table, "empty").columns == ("left",)


def test_a_level_that_no_row_is_left_with_is_no_choice():
    df = RUNS.copy()
    df.loc[df["material"] == "elm", "noise"] = np.nan
    table = prepare(df, TARGETS)
    assert table.space["material"] == Categorical("material", ("ash", "oak"))
    np.testing.assert_array_equal(table.X, table.space.encode(df.iloc[table.rows]))


def test_rows_that_repeat_are_dropped_also_with_empty_cells_and_negative_zero():
    df = RUNS.assign(speed=np.where(RUNS.index == 0, 0.0, RUNS["speed"]))
    df.loc[1, "speed"] = np.nan
    again = df.iloc[[0, 1, 5, 5]].replace({"speed": {0.0: -0.0}})
    table = prepare(pd.concat([df, again]), TARGETS)
    assert table.rows.tolist() == list(range(N))
    assert note(table, "duplicates").count == 4


def test_noise_is_measured_where_inputs_repeat():
    again = RUNS.assign(thrust=RUNS["thrust"] + 0.2)
    table = prepare(pd.concat([RUNS, again]), "thrust", drop=["noise"])
    replicates = note(table, "replicates")
    assert len(table.rows) == replicates.count == 2 * N
    # two values 0.2 apart have the standard deviation 0.2 / sqrt 2 = 0.141
    assert "thrust 0.141 (" in replicates.message


def test_inputs_over_orders_of_magnitude_are_taken_in_the_logarithm():
    wide = 10.0 ** RNG.uniform(0, 6, N)
    table = prepare(RUNS.assign(reynolds=wide, cells=wide.astype(int)), TARGETS)
    assert note(table, "wide").columns == ("reynolds", "cells")
    assert table.space["reynolds"] == Continuous("reynolds", wide.min(), wide.max(), log=True)
    assert table.space["cells"].log


def test_a_uniform_input_that_comes_close_to_zero_stays_linear():
    uniform = np.linspace(1e-4, 1.0, N)
    assert not prepare(RUNS.assign(gap=uniform), TARGETS).space["gap"].log


def test_outliers_of_an_output_are_named_by_row():
    table = prepare(changed("thrust", 6, 1e3), TARGETS)
    assert note(table, "outliers").columns == ("thrust",)
    assert note(table, "outliers").message.endswith("in 1 row: 7")


def test_many_far_values_of_an_output_are_its_tail_and_no_outliers():
    tail = RUNS.assign(thrust=np.where(RUNS.index < 4, 1e3 + RUNS.index, RUNS["thrust"]))
    table = prepare(tail, TARGETS)
    assert kinds(table) == {"heavy-tail"}
    assert note(table, "heavy-tail").count == 4


def test_columns_that_repeat_each_other_are_noted():
    df = RUNS.assign(speed_kmh=RUNS["speed"] * 3.6, lift=-2 * RUNS["thrust"])
    table = prepare(df, (*TARGETS, "lift"))
    assert note(table, "same-inputs").columns == ("speed", "speed_kmh")
    assert note(table, "same-outputs").columns == ("thrust", "lift")


def test_a_column_that_counts_the_rows_is_noted():
    table = prepare(RUNS.assign(run=np.arange(1, N + 1)), TARGETS)
    assert note(table, "identifier").columns == ("run",)
    assert "run" in table.space.names


def test_the_unnamed_index_of_a_saved_table_is_dropped():
    df = RUNS.copy()
    df.insert(0, "Unnamed: 0", range(N))
    df.loc[3, "noise"] = np.nan
    table = prepare(df, TARGETS)
    assert note(table, "index").columns == ("Unnamed: 0",)
    assert table.space.names == prepare(RUNS, TARGETS).space.names


def test_many_inputs_and_outputs_are_taken():
    wide = pd.DataFrame(RNG.normal(size=(12, 80))).rename(columns=str)
    table = prepare(wide, [str(i) for i in range(26)])
    assert table.X.shape == (12, 54) and table.Y.shape == (12, 26)


@pytest.mark.parametrize(
    ("df", "options", "sentence"),
    [
        (RUNS, {"targets": ["thrst"]}, "target 'thrst' is no column; did you mean 'thrust'?"),
        (RUNS, {"inputs": ["sped"]}, "input 'sped' is no column; did you mean 'speed'?"),
        (RUNS, {"drop": ["sped"]}, "--drop 'sped' is no column; did you mean 'speed'?"),
        (RUNS, {"inputs": ["speed", "noise"]}, "column 'noise' is both a target and an input"),
        (RUNS, {"drop": ["noise"]}, "column 'noise' is both a target and dropped"),
        (RUNS, {"targets": ["noise", "noise"]}, "column 'noise' is in the targets twice"),
        (RUNS, {"targets": []}, "no targets"),
        (RUNS[list(TARGETS)], {}, "no inputs are left"),
        (RUNS, {"targets": "material"}, "target 'material' must hold numbers, found text such as"),
        (RUNS.assign(noise=np.nan), {}, "target 'noise' is empty in every row"),
        (RUNS.assign(noise=1.0), {}, "target 'noise' is the same in every row; leave it out"),
        (RUNS.assign(noise=1.0, thrust=2.0), {}, "nothing to learn: target 'thrust', 'noise'"),
        (RUNS[["thrust", "noise"]].assign(a=1, b=np.nan), {}, "no input is left that varies: "
         "column 'b' without a value; column 'a' with the same value"),
        (RUNS.iloc[:9], {}, "9 rows to learn from; at least 10 are needed"),
        (pd.concat([RUNS.iloc[:9]] * 2), {}, "9 rows (of 18) to learn from"),
        (changed("speed", 4, "fast"), {}, "column 'speed', row 5: expected a number, found 'fast'"),
        (changed("noise", 4, "?"), {}, "column 'noise', row 5: expected a number, found '?'"),
        (RUNS.assign(when=pd.date_range("2020", periods=N)), {}, "holds dates or times"),
        (RUNS.assign(when=[f"2020-01-{i % 28 + 1:02}" for i in range(N)]), {}, "--drop when"),
        (pd.concat([RUNS] * 2).assign(tag=[f"run{i}" for i in range(2 * N)]), {},
         "column 'tag' has 80 different texts in 80 rows"),
        (RUNS.assign(shape=[[1, 2]] * N), {}, "column 'shape' must hold numbers, texts or"),
        (RUNS.assign(shape=[(1, 2), (2, 3)] * (N // 2)), {}, "found (1, 2)"),
        (RUNS.assign(shape=[b"u", b"v"] * (N // 2)), {}, "found b'u'"),
        (RUNS.assign(month=pd.period_range("2020", periods=N)), {}, "holds dates or times"),
        (RUNS.assign(price=[f"1.00{i % 9},5" for i in range(N)]), {},
         "column 'price' holds text that looks like numbers, such as '1.000,5'"),
        (RUNS.assign(noise=RUNS["noise"] * 1e200), {}, "column 'noise' holds values up to"),
        (RUNS.assign(speed=RUNS["speed"] * 1e-200), {}, "column 'speed' holds values up to"),
        (pd.concat([RUNS, RUNS["speed"]], axis=1), {}, "column 'speed' is in the table twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_learnt_from_is_refused(df, options, sentence):
    assert sentence in refusal(df, **{"targets": TARGETS, **options})


class TestRowsToPredict:
    table = prepare(RUNS, TARGETS)

    def encode(self, df):
        return encode_new(self.table.space, self.table.fill, df)

    def test_are_coded_as_the_rows_fitted_on(self):
        shuffled = RUNS[RUNS.columns[::-1]].drop(columns="noise").assign(other="text")
        rows = self.encode(shuffled)
        np.testing.assert_array_equal(rows.X, self.table.X)
        assert not rows.outside.any() and not rows.imputed.any() and set(rows.notes) == {""}

    def test_beyond_the_range_are_noted_one_by_one(self):
        df = RUNS.head(3).assign(speed=[1.5, 9.0, 0.25], blades=[3, 12, 2])
        upper, lower = RUNS["speed"].max(), RUNS["speed"].min()
        assert self.encode(df).notes == [
            "",
            f"speed = 9 above {upper:g}; blades = 12 above 6",
            f"speed = 0.25 below {lower:g}",
        ]

    def test_with_empty_cells_are_filled_in_as_in_training(self):
        df = RUNS.head(2).assign(speed=[np.nan, 1.5], material=["oak", None])
        rows = self.encode(df)
        assert rows.X[0, 0] == RUNS["speed"].median()
        assert rows.X[1, 2] == self.table.space["material"].code(RUNS["material"].mode()[0])
        assert rows.notes == ["speed filled in", "material filled in"]

    def test_of_a_table_with_empty_cells_get_their_level(self):
        df = RUNS.assign(material=RUNS["material"].where(RUNS.index > 2))
        table = prepare(df, TARGETS)
        np.testing.assert_array_equal(encode_new(table.space, table.fill, df).X, table.X)

    @pytest.mark.parametrize(
        ("df", "sentence"),
        [
            (RUNS.drop(columns="speed"), "column 'speed' is missing"),
            (RUNS.assign(speed=np.inf), "column 'speed', row 1: expected a finite number"),
            (changed("speed", 1, "fast"), "column 'speed', row 2: expected a number"),
            (changed("material", 2, "pine"),
             "column 'material', row 3: 'pine' is none of the choices 'ash', 'elm', 'oak'"),
        ],
    )  # fmt: skip
    def test_that_cannot_be_coded_are_refused(self, df, sentence):
        with pytest.raises(UserError) as caught:
            self.encode(df)
        assert sentence in str(caught.value)
