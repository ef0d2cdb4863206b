"""A surrogate's error, known from further runs, makes posteriors as unsure as they should be."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from botorch.posteriors import Posterior
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.posterior import independent_gaussian
from understudy.core.space import Categorical, Continuous, Space
from understudy.search.approximation_error import ApproximationError, LowRankNormal, _shrinkage
from understudy.search.calibrate import calibrate, simulation_based_calibration
from understudy.search.measurement import Checks, read_checks, read_measurement
from understudy.search.priors import JointPrior, Normal, Uniform

TIMES = torch.linspace(0.0, 1.0, 20, dtype=torch.float64)
SHAPES = torch.stack([torch.ones_like(TIMES), TIMES.square()], 1)
PRIORS = {"a": Normal(0.0, 1.0), "b": Normal(0.0, 1.0)}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


class Line:
    """a + b t at 20 times; a surrogate with a variance of its own."""

    space = Space((Continuous("a", -100.0, 100.0), Continuous("b", -100.0, 100.0)))
    outputs = ("y",)
    group = torch.zeros(20, dtype=torch.long)

    def __init__(self, variance: float = 0.0) -> None:
        self.variance = variance

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        mean = theta[:, :1] + theta[:, 1:] * TIMES
        return mean, torch.full_like(mean, self.variance)


class Bent(Line):
    """What the line stands in for: off by a smooth curve that depends on both parameters."""

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = super().__call__(theta)
        a, b = theta.unbind(1)
        bend = torch.stack([0.1 + 0.15 * torch.sin(3.0 * a + b), 0.2 * torch.cos(2.0 * b - a)], 1)
        return mean + bend @ SHAPES.T, variance


def checks(solver: Line, runs: int, seed: int = 0) -> Checks:
    theta = JointPrior.within(PRIORS, Line.space).values(normal(runs, 2, seed=seed))
    return Checks(theta, solver(theta)[0])


def of_shape(curve: Tensor, size: Tensor) -> Checks:
    """Runs of the line plus multiples of one curve."""
    theta = normal(len(size), 2, seed=7)
    return Checks(theta, Line()(theta)[0] + size.unsqueeze(1) * curve)


# -- moments of the error --------------------------------------------------------------------------


def test_moments_are_found_in_many_runs() -> None:
    # the curve 0.5 + 0.3 t^2 and sizes of mean 1 and deviation 2: m is the curve, E four times its
    # square
    curve = 0.5 + 0.3 * TIMES.square()
    found = ApproximationError.of(Line(), of_shape(curve, 1.0 + 2.0 * normal(4000)))
    assert torch.allclose(found.mean, curve, atol=0.05)
    assert torch.allclose(found.covariance, 4.0 * torch.outer(curve, curve), atol=0.06)
    assert torch.allclose(found.size, math.sqrt(5.0) * curve, rtol=0.03)


def test_few_runs_widen_the_error_and_keep_its_shape() -> None:
    # E is g ((1 - rho) S + rho mu I), g = (1 + 1/8) 7/5; its trace is g tr S whatever rho is
    size = normal(8, seed=2)
    found = ApproximationError.of(Line(), of_shape(SHAPES[:, 1], size))
    trace = float(size.var() * SHAPES[:, 1].square().sum())
    assert float(found.covariance.trace()) == pytest.approx(1.575 * trace)
    # all runs are of one shape, so hardly anything else is expected of the next
    assert 0.0 < float(found.diagonal.sum()) < 1e-5 * trace
    assert torch.allclose(found.variance, found.covariance.diagonal())


@pytest.mark.parametrize("runs", [10, 40])
def test_shapes_that_no_run_has_shown_are_expected_as_often_as_they_come(runs: int) -> None:
    # random walks: each has parts in all 20 directions; a right covariance has a mean distance of
    # 20, and S alone, of rank 9, an infinite one
    theta = normal(runs, 2)
    walks = normal(runs, 20, seed=6).cumsum(1)
    found = ApproximationError.of(Line(), Checks(theta, Line()(theta)[0] + walks))
    fresh = normal(1000, 20, seed=8).cumsum(1) - found.mean
    zero = torch.zeros_like(fresh)
    distance = LowRankNormal(zero, zero + found.diagonal, found.factor).distance(fresh).mean()
    assert 14.0 < float(distance) < 26.0


def test_the_shrinkage_is_the_one_of_largest_leave_one_out_likelihood() -> None:
    X = normal(9, 20, seed=3).cumsum(1)
    X = X - X.mean(0)
    U, S, _ = torch.linalg.svd(X, full_matrices=False)
    mu = float(X.square().sum()) / 8 / 20

    def score(rho: float) -> float:
        total = 0.0
        for j in range(9):
            others = torch.cat([X[:j], X[j + 1 :]])
            wide = (1.0 - rho) * torch.cov(others.T) + rho * mu * torch.eye(20).double()
            wide = (1.0 + 1.0 / 8.0) * 7.0 / 5.0 * wide
            model = torch.distributions.MultivariateNormal(others.mean(0), wide)
            total += float(model.log_prob(X[j]))
        return total

    exponents = [k / 10.0 - 8.0 for k in range(81)]
    best = max(exponents, key=lambda e: score(10.0**e))
    assert math.log10(_shrinkage(U[:, :8], S[:8], 20)) == pytest.approx(best)


def test_independent_errors_are_not_taken_for_curves() -> None:
    theta = normal(12, 2)
    y = Line()(theta)[0] + 0.1 * normal(12, 20, seed=5)
    found = ApproximationError.of(Line(), Checks(theta, y))
    share = found.factor.square().sum() / found.covariance.trace()
    assert share < 0.25
    # the surrogate's own variance, which says the same, is not added to it
    told = ApproximationError.of(Line(0.02), Checks(theta, y))
    assert torch.equal(told.diagonal, torch.zeros(20)) and torch.equal(told.factor, found.factor)


def test_a_surrogate_that_is_right_has_no_error() -> None:
    found = ApproximationError.of(Line(), checks(Line(), 10))
    assert float(found.covariance.abs().max()) < 1e-25
    exact = ApproximationError.of(Line(), of_shape(SHAPES[:, 0], torch.zeros(10)))
    y = Line()(torch.tensor([[0.3, 0.4]]).double())[0][0] + 0.1 * normal(20)
    common = {"noise": {"y": 0.1}, "samples": 20, "burn_in": 20}
    plain, same = (calibrate(Line(), y, PRIORS, error=e, **common) for e in (None, exact))
    assert torch.allclose(plain.draws, same.draws, atol=1e-6)


@given(st.integers(8, 40), st.integers(0, 1000), st.floats(1e-6, 1e6))
def test_units_of_an_output_change_nothing_but_the_unit(runs: int, seed: int, unit: float) -> None:
    class Two(Line):
        outputs = ("y", "z")
        group = torch.arange(2).repeat(10)

    theta, wave = normal(runs, 2, seed=seed), normal(runs, 20, seed=seed + 1).cumsum(1)
    scale = torch.tensor([1.0, unit]).double().repeat(10)

    class Scaled(Two):
        def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
            return super().__call__(theta)[0] * scale, torch.zeros(len(theta), 20).double()

    first = ApproximationError.of(Two(), Checks(theta, Line()(theta)[0] + wave))
    other = ApproximationError.of(Scaled(), Checks(theta, (Line()(theta)[0] + wave) * scale))
    expected = first.covariance * torch.outer(scale, scale)
    assert torch.allclose(other.covariance / expected, torch.ones(20, 20).double(), rtol=1e-4)


def test_the_size_of_the_error_is_said_against_the_noise() -> None:
    size = torch.tensor([-1.0, 1.0] * 8, dtype=torch.float64)
    found = ApproximationError.of(Line(), of_shape(torch.full((20,), 0.2).double(), size))
    said = found.said(Line.group, {"y": 0.1})
    assert said.startswith("error of the surrogate in 16 runs: y 0.2, 2 of the noise.")
    # 2 noises in the direction of the constant: 2 sqrt(20), times sqrt(g 16/15) = 1.144; g = 1.226
    whole = torch.linalg.eigvalsh(found.covariance / 0.01)[-1].sqrt()
    assert found.weight(torch.full((20,), 0.1).double()) == pytest.approx(float(whole))
    assert float(whole) == pytest.approx(2.0 * math.sqrt(20.0) * 1.144, rel=0.01)
    assert said.endswith(f"weighs {float(whole):.2g} of the noise in its main direction")


# -- the likelihood --------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(0, 6))
def test_log_densities_and_information_are_those_of_the_whole_covariance(seed: int, k: int) -> None:
    mean, y = normal(3, 7, seed=seed), normal(3, 7, seed=seed + 1)
    variance, B = normal(3, 7, seed=seed + 2).exp(), 2.0 * normal(7, k, seed=seed + 3)
    found = LowRankNormal(mean, variance, B)
    C = torch.diag_embed(variance) + B @ B.T
    exact = torch.distributions.MultivariateNormal(mean, C).log_prob(y)
    constant = 0.5 * 7 * math.log(2.0 * math.pi)
    assert torch.allclose(found.log_density(y) - constant, exact)
    J, G = normal(3, 7, 2, seed=seed + 4), normal(3, 7, 2, seed=seed + 5)
    K = torch.linalg.inv(C)
    V = torch.diag_embed((variance.unsqueeze(-1) * G).mT)  # (3, 2, 7, 7)
    traces = torch.einsum("cij,cajk,ckl,cbli->cab", K, V, K, V)
    assert torch.allclose(found.fisher(J, G), J.mT @ K @ J + 0.5 * traces)


def test_draws_have_the_whole_covariance() -> None:
    B = torch.stack([torch.ones(5), torch.arange(5.0)], 1).double()
    model = LowRankNormal(torch.ones(20_000, 5).double(), torch.full((20_000, 5), 0.5).double(), B)
    drawn = model.draw(generator(0))
    expected = B @ B.T + 0.5 * torch.eye(5).double()
    assert torch.allclose(torch.cov(drawn.T), expected, atol=0.6)
    assert torch.allclose(drawn.mean(0), torch.ones(5).double(), atol=0.1)
    # distances of draws are chi-square of 5
    assert float(model.distance(drawn).mean()) == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize("own", [0.0, 0.02])
def test_the_posterior_of_a_line_with_an_error_is_the_exact_one(own: float) -> None:
    error = ApproximationError.of(Line(own), checks(Bent(), 30))
    y = Bent()(torch.tensor([[0.5, -0.4]]).double())[0][0] + 0.1 * normal(20, seed=3)
    found = calibrate(Line(own), y, PRIORS, {"y": 0.1}, samples=400, burn_in=60, error=error)
    A = torch.stack([torch.ones_like(TIMES), TIMES], 1)
    K = torch.linalg.inv(error.covariance + (0.01 + own) * torch.eye(20).double())
    covariance = torch.linalg.inv(A.T @ K @ A + torch.eye(2).double())
    mean = covariance @ A.T @ K @ (y - error.mean)
    flat = found.draws.reshape(-1, 2)
    assert torch.allclose(flat.mean(0), mean, atol=0.12 * float(covariance.diagonal().sqrt().min()))
    assert torch.allclose(torch.cov(flat.T), covariance, rtol=0.15, atol=2e-3)
    assert found.table()["r_hat"].max() < 1.02 and "in 30 runs" in found.error


def test_noise_is_inferred_beside_the_error_and_predictions_cover() -> None:
    error = ApproximationError.of(Line(), checks(Bent(), 40))
    y = Bent()(torch.tensor([[0.5, -0.4]]).double())[0][0] + 0.02 * normal(20, seed=4)
    found = calibrate(Line(), y, PRIORS, samples=150, burn_in=100, error=error)
    assert 0.012 < found.noise["y"] < 0.04
    assert 0.01 < found.p_value < 0.99 and found.coverage > 0.7


@pytest.mark.slow
def test_intervals_of_a_wrong_surrogate_hold_the_truth_only_with_its_error() -> None:
    common = {"simulations": 150, "solver": Bent(), "burn_in": 50, "samples": 80, "seed": 1}
    error = ApproximationError.of(Line(), checks(Bent(), 20, seed=9))
    alone = simulation_based_calibration(Line(), PRIORS, {"y": 0.02}, **common).table()
    helped = simulation_based_calibration(Line(), PRIORS, {"y": 0.02}, error=error, **common)
    assert alone["coverage_90"].max() < 0.4
    assert helped.table()["coverage_90"].between(0.82, 0.99).all()


def test_ranks_of_data_with_the_error_are_uniform() -> None:
    error = ApproximationError.of(Line(), checks(Bent(), 20))
    found = simulation_based_calibration(
        *(Line(), PRIORS, {"y": 0.1}, 100), error=error, burn_in=50, samples=80, seed=3
    )
    assert (found.table()["p_value"] > 0.01).all()


# -- what is refused -------------------------------------------------------------------------------


def test_runs_that_do_not_do_are_refused() -> None:
    good = checks(Bent(), 10)
    with pytest.raises(UserError, match="takes 8 runs of the solver at least, better 20; found 7"):
        ApproximationError.of(Line(), Checks(good.theta[:7], good.y[:7]))
    with pytest.raises(UserError, match="predicts 20 values, a run has 19"):
        ApproximationError.of(Line(), Checks(good.theta, good.y[:, 1:]))
    bad = good.y.clone()
    bad[3, 2] = math.nan
    with pytest.raises(UserError, match="run 4 or its prediction is not finite"):
        ApproximationError.of(Line(), replace(good, y=bad))
    with pytest.raises(UserError, match="seems to be multiplied by 1000"):
        ApproximationError.of(Line(), replace(good, y=1000.0 * Line()(good.theta)[0]))
    error = ApproximationError.of(Line(), good)
    with pytest.raises(UserError, match="bisection knows no error"):
        calibrate(Line(), good.y[0], PRIORS, {"y": "bisect"}, error=error)


class Decay:
    """Stands in for a fitted surrogate: V = 4 - gain time, by 1 less for the kind "old"."""

    space = Space(
        (
            Continuous("gain", 0.0, 1.0),
            Continuous("time", 0.0, 10.0),
            Categorical("kind", ("new", "old")),
        )
    )
    targets = ("voltage",)

    def posterior(self, X: Tensor) -> Posterior:
        gain, time, kind = X.unbind(-1)
        mean = (4.0 - 0.1 * gain * time - kind).unsqueeze(-1)
        return independent_gaussian(mean, torch.full_like(mean, 1e-6))


MEASURED = pd.DataFrame(
    {"time": [0.1, 2.0, 4.0], "kind": ["old", "old", "new"], "voltage": [3.0, 2.9, 3.8]}
)
GAIN = {"gain": Uniform(0.2, 0.8)}


def table(**changes: object) -> pd.DataFrame:
    """Eight runs at the measured conditions and one more, in another order."""
    rows = [
        {"gain": 0.2 + 0.05 * k, "time": time, "kind": kind, "voltage": 4.0 + 0.01 * k + time}
        for k in range(8)
        for time, kind in ((4.0, "new"), (4.0, "old"), (0.1, "old"), (2.0, "old"))
    ]
    return pd.DataFrame(rows).assign(**changes)


def read(runs: pd.DataFrame) -> Checks:
    model, _ = read_measurement(Decay(), MEASURED, ["gain"])
    return read_checks(model, runs, GAIN)


def test_rows_of_runs_are_found_by_their_conditions() -> None:
    found = read(table())
    gains = torch.tensor([[0.2 + 0.05 * k] for k in range(8)], dtype=torch.float64)
    assert torch.equal(found.theta, gains)
    base = 4.0 + 0.01 * torch.arange(8, dtype=torch.float64).unsqueeze(1)
    assert torch.allclose(found.y, base + torch.tensor([0.1, 2.0, 4.0]).double())
    shuffled = read(table().sample(frac=1.0, random_state=1))
    order = shuffled.theta[:, 0].argsort()
    assert torch.equal(shuffled.y[order], found.y)


@pytest.mark.parametrize(
    ("runs", "sentence"),
    [
        (table().drop(columns="gain"), "column 'gain' is missing"),
        (table().rename(columns={"voltage": "volt"}), "'voltage' is missing; did you mean 'volt'"),
        (table().drop(columns="time"), "column 'time' is missing"),
        (table(voltage=[None, *[4.0] * 31]), "column 'voltage', row 1: a number is missing"),
        (table(gain=[1.5, *[0.3] * 31]), "row 1: 1.5 is outside 0 to 1, the range that"),
        (table(gain=[*[0.3] * 31, 0.9]), "'gain', row 32: 0.9 is outside the prior"),
        (table(kind="used"), "column 'kind', row 1"),
        (
            table()[lambda t: (t["gain"] != 0.25) | (t["time"] != 2.0)],
            "the run with gain 0.25 has no row with time 2, kind old, which row 2 of the measur",
        ),
    ],
)
def test_tables_of_runs_that_do_not_fit_are_refused(runs: pd.DataFrame, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read(runs)


def test_conditions_that_are_none_need_a_row_of_each_run() -> None:
    class Plain:
        space = Space((Continuous("gain", 0.0, 1.0),))
        targets = ("voltage",)

    model, _ = read_measurement(Plain(), pd.DataFrame({"voltage": [3.0, 3.1]}), ["gain"])
    runs = pd.DataFrame({"gain": [0.3, 0.4], "voltage": [1.0, 2.0]})
    assert read_checks(model, runs, GAIN).y.tolist() == [[1.0, 1.0], [2.0, 2.0]]
