import numpy as np
import pytest
import torch

from understudy.core.errors import UserError
from understudy.core.space import Categorical, Continuous, Integer, Space
from understudy.models.tabular.fitted import FittedSurrogate
from understudy.models.tabular.sensitivity import (
    IN_PART,
    MONTE_CARLO,
    WITH_SURROGATE,
    held,
    indices,
    sobol_indices,
)

CUBE = Space(tuple(Continuous(f"x{i}", -np.pi, np.pi) for i in range(3)))


def ishigami(X, a=7.0, b=0.1):
    x = np.asarray(X)
    value = np.sin(x[:, 0]) + a * np.sin(x[:, 1]) ** 2 + b * x[:, 2] ** 4 * np.sin(x[:, 0])
    return value[:, None]


def ishigami_indices(a=7.0, b=0.1):
    """Closed form: Ishigami & Homma 1990."""
    v1 = 0.5 * (1 + b * np.pi**4 / 5) ** 2
    v2 = a**2 / 8
    v13 = b**2 * np.pi**8 * (1 / 18 - 1 / 50)
    v = v1 + v2 + v13
    return np.array([v1, v2, 0.0]) / v, np.array([v1 + v13, v2, v13]) / v


def test_indices_of_the_ishigami_function_are_the_closed_form():
    table = sobol_indices(ishigami, CUBE, n=4096)
    first, total = ishigami_indices()
    assert np.allclose(table["first"], first, atol=0.01)
    assert np.allclose(table["total"], total, atol=0.01)


def test_intervals_hold_the_closed_form():
    table = sobol_indices(ishigami, CUBE, n=1024)
    first, total = ishigami_indices()
    assert (table["first_low"] - 1e-9 <= first).all()
    assert (first <= table["first_high"] + 1e-9).all()
    assert (table["total_low"] - 1e-9 <= total).all()
    assert (total <= table["total_high"] + 1e-9).all()
    assert (table["first_high"] - table["first_low"]).max() < 0.3


def test_estimates_are_those_of_salib():
    from SALib.analyze import sobol as analyze
    from SALib.sample import sobol as sample

    problem = {"num_vars": 3, "names": CUBE.names, "bounds": [[-np.pi, np.pi]] * 3}
    X = sample.sample(problem, 256, calc_second_order=False, seed=1)
    peer = analyze.analyze(problem, ishigami(X)[:, 0], calc_second_order=False, seed=1)
    f = ishigami(X).reshape(256, 5, 1).transpose(1, 0, 2)
    first, total = indices(f[None, 0], f[None, -1], f[None, 1:-1], np.ones((1, 256)))
    assert np.allclose(first[0, 0, :, 0], peer["S1"], atol=1e-10)
    assert np.allclose(total[0, 0, :, 0], peer["ST"], atol=1e-10)


def test_bootstrap_spread_is_that_of_salib():
    from SALib.analyze import sobol as analyze
    from SALib.sample import sobol as sample

    problem = {"num_vars": 3, "names": CUBE.names, "bounds": [[-np.pi, np.pi]] * 3}
    X = sample.sample(problem, 512, calc_second_order=False, seed=1)
    peer = analyze.analyze(
        problem, ishigami(X)[:, 0], calc_second_order=False, num_resamples=500, seed=1
    )
    f = ishigami(X).reshape(512, 5, 1).transpose(1, 0, 2)
    counts = np.random.default_rng(0).multinomial(512, [1 / 512] * 512, size=500)
    first, total = indices(f[None, 0], f[None, -1], f[None, 1:-1], counts.astype(float))
    assert np.allclose(1.96 * first[0, :, :, 0].std(0), peer["S1_conf"], rtol=0.25)
    assert np.allclose(1.96 * total[0, :, :, 0].std(0), peer["ST_conf"], rtol=0.25)


def test_choices_and_whole_numbers_are_equally_likely():
    space = Space((Categorical("material", ("a", "b", "c")), Integer("layers", 1, 4)))
    # additive in two independent uniform discrete inputs: Var(x1) = 2/3, Var(2 x2) = 5
    table = sobol_indices(lambda X: (X[:, :1] + 2 * X[:, 1:]).numpy(), space, n=4096)
    expected = np.array([2 / 3, 5.0]) / (2 / 3 + 5.0)
    assert np.allclose(table["first"], expected, atol=0.01)
    assert np.allclose(table["total"], expected, atol=0.01)


def test_a_logarithmic_input_varies_on_its_logarithmic_scale():
    space = Space((Continuous("a", 1e-3, 1e3, log=True), Continuous("b", 0.0, 1.0)))
    table = sobol_indices(lambda X: torch.log10(X[:, :1]).numpy() / 6 + X[:, 1:].numpy(), space)
    assert np.allclose(table["first"], 0.5, atol=0.02)


def test_every_output_has_its_rows_under_its_name():
    both = sobol_indices(lambda X: np.hstack([ishigami(X), X[:, 2:]]), CUBE, targets=["f", "g"])
    alone = sobol_indices(ishigami, CUBE)
    assert list(both["target"]) == ["f"] * 3 + ["g"] * 3
    assert list(both["input"]) == CUBE.names * 2
    assert list(alone["target"]) == [0, 0, 0]
    assert np.allclose(both["first"][:3], alone["first"])
    assert np.allclose(both["first"][3:], [0, 0, 1], atol=0.02)


def test_an_output_that_does_not_vary_has_no_sensitivity():
    table = sobol_indices(lambda X: np.full((len(X), 1), 3.7), CUBE, n=64)
    assert (table[["first", "total", "total_high"]] == 0.0).all(axis=None)


def test_disagreeing_functions_widen_the_intervals():
    def draws(X):
        return np.stack([ishigami(X, a=a) for a in (3.0, 7.0, 11.0)])

    alone = sobol_indices(ishigami, CUBE, n=2048)
    among = sobol_indices(ishigami, CUBE, n=2048, draws=draws)
    assert set(alone["interval"]) == {MONTE_CARLO}
    assert set(among["interval"]) == {WITH_SURROGATE}
    width = among["first_high"] - among["first_low"]
    assert (width[:2] > 2 * (alone["first_high"] - alone["first_low"])[:2]).all()
    assert np.allclose(among["first"], alone["first"])


def test_intervals_of_drawn_functions_are_theirs_at_all_rows():
    rng = np.random.default_rng(0)
    strengths = rng.normal(7.0, 1.0, size=40)

    def draws(X):
        return np.stack([ishigami(X, a=a) for a in strengths])

    table = sobol_indices(ishigami, CUBE, n=4096, draws=draws)
    exact = np.array([ishigami_indices(a) for a in strengths])  # (s, 2, d)
    for k, name in enumerate(("first", "total")):
        low, high = np.quantile(exact[:, k], [0.025, 0.975], axis=0)
        assert np.allclose(table[f"{name}_low"], low, atol=0.06)
        assert np.allclose(table[f"{name}_high"], high, atol=0.06)


def test_intervals_contain_the_estimate():
    rough = [lambda X, k=k: ishigami(X) + 4 * np.cos((5 + k) * X[:, 2:].numpy()) for k in range(8)]
    table = sobol_indices(ishigami, CUBE, draws=lambda X: np.stack([f(X) for f in rough]))
    for name in ("first", "total"):
        assert (table[f"{name}_low"] <= table[name]).all()
        assert (table[name] <= table[f"{name}_high"]).all()
    assert table["first_high"][2] > 0.2


def test_what_the_intervals_hold_is_said_for_every_output():
    table = sobol_indices(
        lambda X: np.hstack([ishigami(X)] * 3),
        CUBE,
        n=64,
        draws=lambda X: np.stack([np.hstack([ishigami(X)] * 3)] * 2),
        drawn=(0.0, 0.4, 1.0),
    )
    assert list(table["interval"][::3]) == [MONTE_CARLO, IN_PART, WITH_SURROGATE]
    assert held(table) == f"{MONTE_CARLO} (0); {IN_PART} (1); {WITH_SURROGATE} (2)"
    assert held(table[:3]) == held(table[:3].drop(columns="interval")) == MONTE_CARLO


def test_same_seed_gives_the_same_table():
    tables = [sobol_indices(ishigami, CUBE, n=128, seed=5) for _ in range(2)]
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(sobol_indices(ishigami, CUBE, n=128, seed=6))


def test_a_single_base_row_is_refused():
    with pytest.raises(UserError, match="at least 2, found 1"):
        sobol_indices(ishigami, CUBE, n=1)


def fitted(rows, members, seed=0):
    X = np.random.default_rng(seed).uniform(-np.pi, np.pi, size=(rows, 3))
    return FittedSurrogate(members=members, budget=30.0).fit(X, ishigami(X))


def test_few_runs_leave_wider_intervals_than_many():
    few, many = (fitted(rows, ["exact-gp"]).sensitivity() for rows in (60, 400))
    for name, exact in zip(("first", "total"), ishigami_indices(), strict=True):
        width = few[f"{name}_high"] - few[f"{name}_low"]
        assert (width > many[f"{name}_high"] - many[f"{name}_low"]).sum() >= 2
        assert (many[f"{name}_low"] - 0.02 <= exact).all()
        assert (exact <= many[f"{name}_high"] + 0.02).all()
    assert set(few["interval"]) == {WITH_SURROGATE}


def test_what_the_intervals_hold_is_kept_in_the_file(tmp_path):
    model = fitted(60, ["polynomial"])
    table = model.sensitivity(n=64)
    again = FittedSurrogate.load(model.save(tmp_path / "model.us"))
    assert again.sensitivity_["interval"].tolist() == table["interval"].tolist()
    assert set(table["interval"]) == {WITH_SURROGATE}
    assert again.sensitivity(n=64).equals(table)


def test_trees_leave_monte_carlo_error_only():
    assert set(fitted(60, ["boosting"]).sensitivity(n=64)["interval"]) == {MONTE_CARLO}
