"""From a table to a calibrated surrogate, end to end."""

import json
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from botorch.acquisition import LogExpectedImprovement
from botorch.optim import optimize_acqf
from sklearn.model_selection import cross_val_score

import understudy
from understudy.core.errors import UserError
from understudy.models.tabular.fit import column_names, parse_budget

QUICK = ("polynomial", "exact-gp")


def runs(n: int = 80, seed: int = 0) -> pd.DataFrame:
    """Two smooth outputs of a number, a category, a whole number and a flag."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "speed": rng.uniform(1.0, 5.0, n),
            "material": rng.choice(["steel", "copper", "zinc"], n),
            "layers": rng.integers(1, 9, n),
            "coated": rng.choice([True, False], n),
        }
    )
    effect = table["material"].map({"steel": 0.0, "copper": 2.0, "zinc": -1.0})
    table["wear"] = np.sin(table["speed"]) + effect + 0.1 * table["layers"] + 0.5 * table["coated"]
    table["cost"] = 100.0 * table["layers"] + 20.0 * table["speed"] + rng.normal(size=n)
    return table


@pytest.fixture(scope="module")
def model() -> understudy.FittedSurrogate:
    return understudy.fit(runs(), ["wear", "cost"], members=QUICK, test=0.25)


def test_unseen_rows_are_predicted_well(model):
    test = model.evaluation.query("split == 'test'").set_index("target")
    assert test.loc["wear", "r2"] > 0.95
    assert test.loc["cost", "r2"] > 0.99


def test_predictions_have_every_column_that_the_documentation_names(model):
    table = model.predict_table(runs(5, seed=3))
    wanted = [f"{t}_{c}" for t in ("wear", "cost") for c in ("mean", "sd")]
    wanted += [
        f"{t}_{side}_{level}"
        for t in ("wear", "cost")
        for side in ("lower", "upper")
        for level in (50, 80, 90, 95)
    ]
    assert set(wanted) <= set(table.columns)


def test_wider_intervals_contain_narrower_ones_and_the_median_region(model):
    table = model.predict_table(runs(40, seed=4))
    for target in ("wear", "cost"):
        ends = [table[f"{target}_lower_{p}"] for p in (95, 90, 80, 50)]
        ends += [table[f"{target}_upper_{p}"] for p in (50, 80, 90, 95)]
        assert (np.diff(np.column_stack(ends), axis=1) >= 0).all()


def test_rows_outside_the_training_range_are_named(model):
    rows = runs(3, seed=5)
    rows.loc[1, "speed"] = 50.0
    assert list(model.predict_table(rows)["extrapolation"]) == ["", "speed", ""]


def test_error_bars_grow_away_from_the_data(model):
    rows = runs(1, seed=5)
    far = rows.assign(speed=100.0)
    assert model.predict_table(far)["wear_sd"][0] > 2 * model.predict_table(rows)["wear_sd"][0]


def test_the_same_seed_gives_the_same_predictions():
    again = [understudy.fit(runs(), "wear", members=QUICK, seed=7) for _ in range(2)]
    tables = [m.predict_table(runs(6, seed=1)) for m in again]
    pd.testing.assert_frame_equal(*tables)


def test_a_file_keeps_every_prediction_bit_for_bit(model, tmp_path):
    path = model.save(tmp_path / "model.us")
    loaded = understudy.load(path)
    pd.testing.assert_frame_equal(
        loaded.predict_table(runs(9, seed=2)),
        model.predict_table(runs(9, seed=2)),
        check_exact=True,
    )
    assert loaded.evaluation.equals(model.evaluation)
    assert loaded.notes == model.notes


def test_a_file_that_names_a_foreign_class_is_refused(model, tmp_path):
    path = model.save(tmp_path / "model.us")
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
    text = json.dumps(manifest)
    assert "os.system" not in text
    with pytest.raises(UserError):
        forged = tmp_path / "forged.us"
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(forged, "w") as target:
            for name in source.namelist():
                data = source.read(name)
                if name == "manifest.json":
                    data = data.replace(b"PolynomialSurrogate", b"system").replace(
                        b"ExactGP", b"system"
                    )
                target.writestr(name, data)
        understudy.load(forged)


def test_it_is_a_scikit_learn_regressor():
    X = np.random.default_rng(0).uniform(size=(60, 2))
    y = np.sin(3 * X[:, 0]) + X[:, 1]
    assert cross_val_score(understudy.FittedSurrogate(members=QUICK), X, y, cv=3).min() > 0.95


def test_its_posterior_agrees_with_its_marginals_and_has_gradients(model):
    X = torch.from_numpy(model.space.encode(runs(5, seed=8))).requires_grad_()
    posterior = model.posterior(X, observation_noise=True)
    marginal = model.predictive(X.detach().numpy())
    assert torch.allclose(posterior.mean, marginal.mean, rtol=1e-4, atol=1e-4)
    assert torch.allclose(posterior.variance.sqrt(), marginal.sd, rtol=1e-2)
    posterior.mean[:, 0].sum().backward()
    assert bool((X.grad[:, 0] != 0).all())


def test_an_acquisition_function_finds_the_best_run():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.uniform(size=(30, 2)), columns=["a", "b"])
    table["y"] = -((table["a"] - 0.3) ** 2) - (table["b"] - 0.8) ** 2
    surrogate = understudy.fit(table, "y", members=QUICK)
    best, _ = optimize_acqf(
        LogExpectedImprovement(surrogate.to_botorch(), best_f=table["y"].max()),
        bounds=torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64),
        q=1,
        num_restarts=4,
        raw_samples=64,
    )
    assert torch.allclose(best, torch.tensor([[0.3, 0.8]], dtype=torch.float64), atol=0.1)


def test_the_mean_of_a_transformed_output_takes_its_spread_into_account():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.uniform(size=80)})
    table["y"] = np.exp(8.0 * table["a"] + 0.5 * rng.normal(size=80))
    model = understudy.fit(table, "y", members=["exact-gp"])
    assert model.warps[0].name != "identity"
    X = model.space.encode(table)
    assert torch.allclose(model.mean(X), model.predictive(X).mean, rtol=1e-9)
    assert bool((model.mean(X) > model.predictive(X).quantile(torch.tensor([0.5]))[0]).all())


def test_a_skewed_output_is_transformed_and_stays_in_its_range():
    rng = np.random.default_rng(1)
    table = pd.DataFrame(rng.uniform(size=(150, 2)), columns=["a", "b"])
    table["y"] = np.exp(4 * table["a"] + 3 * table["b"] + 0.2 * rng.normal(size=150))
    surrogate = understudy.fit(table, "y", members=QUICK)
    assert type(surrogate.warps[0]).__name__ != "Identity"
    assert (surrogate.predict_table(table)["y_lower_95"] > 0).all()


def test_ctrl_c_keeps_the_best_so_far():
    pressed = []

    def interrupt(progress):
        if not pressed and any(s.status == "done" for s in progress.standings):
            pressed.append(True)
            raise KeyboardInterrupt

    stopped = understudy.fit(runs(), "wear", members=QUICK, listener=interrupt)
    assert stopped.settings["interrupted"]
    assert [name for name, _ in stopped.members_] == ["polynomial"]


def test_its_mean_alone_is_that_of_its_predictive(model):
    X = model.space.encode(runs(40, seed=5))
    assert torch.allclose(model.mean(X), model.predictive(X).mean, rtol=1e-9)


def test_slices_take_whole_numbers_where_an_input_does(model):
    layers = model.slices().query("input == 'layers'")["value"]
    assert sorted(set(layers)) == list(range(1, 9))


def test_slices_hold_one_line_per_input_target_and_point(model):
    slices = model.slices(points=11)
    counts = slices.groupby(["input", "target"]).size()
    assert counts["speed", "wear"] == 11
    assert counts["material", "cost"] == 3
    assert (slices["lower_90"] <= slices["upper_90"]).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"targets": "waer"}, ["waer", "wear"]),
        ({"targets": "material"}, ["material"]),
        ({"targets": "wear", "metric": "mse"}, ["mse", "nlpd"]),
        ({"targets": "wear", "members": ["exact-pg"]}, ["exact-pg", "exact-gp"]),
        ({"targets": "wear", "budget": "soon"}, ["soon", "90s"]),
        ({"targets": "wear", "test": 1.5}, ["1.5"]),
        ({"targets": "wear", "inputs": ["sped"]}, ["sped", "speed"]),
    ],
)
def test_bad_options_are_refused_in_one_sentence(options, words):
    with pytest.raises(UserError) as refused:
        understudy.fit(runs(), **options)
    message = str(refused.value)
    assert all(word in message for word in words)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("wear,cost", ["wear", "cost"]),
        (["wear", "cost"], ["wear", "cost"]),
        ("Ca,ampl", ["Ca,ampl"]),
        ('"Ca,ampl", wear', ["Ca,ampl", "wear"]),
        (["wear,cost", "Ca,ampl"], ["wear", "cost", "Ca,ampl"]),
        ("", []),
    ],
)
def test_columns_are_named_with_or_without_commas_in_their_names(value, names):
    assert column_names(value, ["wear", "cost", "Ca,ampl"]) == names


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("2m", 120), ("1h", 3600), (15, 15), (".5m", 30)]
)
def test_budgets_are_read_as_people_write_them(text, seconds):
    assert parse_budget(text) == seconds


def test_settings_are_refused_before_the_table_is_read(tmp_path):
    with pytest.raises(UserError, match=r"unknown member 'exact'; did you mean 'exact-gp'"):
        understudy.fit(tmp_path / "missing.csv", "y", members=["exact"])


def test_a_long_table_keeps_the_rows_whose_held_out_predictions_it_keeps():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.uniform(size=4_000)})
    frame["y"] = np.sin(6 * frame["x"]) + 0.1 * rng.normal(size=4_000)
    model = understudy.fit(frame, "y", members=["polynomial"])
    assert len(model.training) == 2_000
    assert set(model.held_out["row"]) <= set(model.training["row"])
