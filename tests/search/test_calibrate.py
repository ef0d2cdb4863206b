"""Calibration finds exact posteriors, knows what it cannot know, and refuses nonsense."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from botorch.posteriors import Posterior
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.posterior import independent_gaussian
from understudy.core.space import Continuous, Space
from understudy.search.calibrate import (
    FieldPrior,
    SurrogateModel,
    calibrate,
    read_measurement,
    simulation_based_calibration,
)
from understudy.search.priors import (
    JointPrior,
    LogNormal,
    Normal,
    Uniform,
    parse_priors,
    read_priors,
)

TIMES = torch.linspace(0.0, 1.0, 12, dtype=torch.float64)
SPACE = Space((Continuous("a", -100.0, 100.0), Continuous("b", -100.0, 100.0)))
PRIORS = {"a": Normal(0.0, 2.0), "b": Normal(1.0, 0.5)}


class Line:
    """a + b t, exactly, or with a variance of its own."""

    space = SPACE
    outputs = ("y",)
    group = torch.zeros(12, dtype=torch.long)

    def __init__(self, variance: float = 0.0) -> None:
        self.variance = variance

    def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        mean = theta[:, :1] + theta[:, 1:] * TIMES
        return mean, torch.full_like(mean, self.variance)


class Decay:
    """Stands in for a fitted surrogate: V = 4 - gain * time * current, with a variance."""

    space = Space(
        (
            Continuous("gain", 0.0, 1.0),
            Continuous("time", 0.0, 10.0),
            Continuous("current", 1.0, 2.0),
        )
    )
    targets = ("heat", "voltage")

    def posterior(self, X: Tensor) -> Posterior:
        gain, time, current = X.unbind(-1)
        mean = torch.stack([gain * current**2, 4.0 - 0.1 * gain * time * current], -1)
        return independent_gaussian(mean, torch.full_like(mean, 1e-6))


def measured(**changes: list[float]) -> pd.DataFrame:
    times = [0.0, 2.0, 4.0, 6.0]
    table = {"time": times, "current": [1.5] * 4, "voltage": [4.0 - 0.06 * t for t in times]}
    return pd.DataFrame({**table, **changes})


def exact(y: Tensor, variance: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the Gaussian posterior of the line."""
    A = torch.stack([torch.ones_like(TIMES), TIMES], 1)
    prior = torch.tensor([4.0, 0.25], dtype=torch.float64)
    mean = torch.tensor([0.0, 1.0], dtype=torch.float64)
    covariance = torch.linalg.inv(A.T @ A / variance + torch.diag(1.0 / prior))
    return covariance @ (A.T @ y / variance + mean / prior), covariance


@pytest.mark.parametrize("own", [0.0, 0.03])
def test_the_posterior_of_a_line_is_the_exact_one(own: float) -> None:
    noise = torch.randn(12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    y = 0.7 + 1.4 * TIMES + 0.2 * noise
    found = calibrate(Line(own), y, PRIORS, {"y": 0.2}, samples=400, burn_in=60, seed=1)
    mean, covariance = exact(y, 0.04 + own)
    flat = found.draws.reshape(-1, 2)
    assert torch.allclose(flat.mean(0), mean, atol=0.12 * float(covariance.diagonal().sqrt().min()))
    assert torch.allclose(torch.cov(flat.T), covariance, rtol=0.15, atol=1e-3)
    assert found.table()["r_hat"].max() < 1.02


def test_noise_is_inferred_and_predictions_cover_the_data() -> None:
    noise = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = calibrate(Line(), 0.7 + 1.4 * TIMES + 0.1 * noise, PRIORS, samples=200, burn_in=100)
    assert found.names == ("a", "b", "noise of y")
    assert 0.05 < found.noise["y"] < 0.2
    assert found.coverage > 0.7 and 0.01 < found.p_value < 0.99


@pytest.mark.slow
def test_bisection_ends_just_above_the_noise_that_holds_all_curves() -> None:
    model, y = Line(), 0.7 + 1.4 * TIMES
    y[5] += 0.02
    found = calibrate(model, y, PRIORS, {"y": "bisect"}, samples=50, burn_in=50)
    # the value that is off by 20 mV is within twice the noise of every curve from about 10 mV on
    assert 0.009 < found.noise["y"] < 0.03


def test_the_same_seed_gives_the_same_draws() -> None:
    y = 0.7 + 1.4 * TIMES
    first, again = (
        calibrate(Line(), y, PRIORS, {"y": 0.1}, samples=20, burn_in=20, seed=5) for _ in range(2)
    )
    assert torch.equal(first.draws, again.draws)


def test_sampling_goes_on_from_a_file_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    y, file = 0.7 + 1.4 * TIMES, tmp_path / "chains.us"
    settings = {"noise": {"y": 0.1}, "burn_in": 20, "seed": 2}
    calibrate(Line(), y, PRIORS, samples=10, file=file, **settings)
    on = calibrate(Line(), y, PRIORS, samples=30, file=file, **settings)
    whole = calibrate(Line(), y, PRIORS, samples=30, **settings)
    assert torch.equal(on.draws, whole.draws)
    with pytest.raises(UserError, match="chains of another problem"):
        calibrate(Line(), y + 0.5, PRIORS, samples=30, file=file, **settings)


def test_what_the_data_do_not_say_is_warned_of() -> None:
    class Blind(Line):
        def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
            return super().__call__(theta * torch.tensor([1.0, 0.0]))

    y = 0.7 + 0.0 * TIMES
    found = calibrate(Blind(), y, PRIORS, {"y": 0.1}, samples=300, burn_in=100)
    assert any("b is not identified" in text for text in found.warnings())


def test_parameters_known_only_together_are_warned_of() -> None:
    class Sum(Line):
        def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
            mean = theta.sum(1, keepdim=True).expand(-1, 12)
            return mean, torch.zeros_like(mean)

    found = calibrate(Sum(), torch.full((12,), 1.0), PRIORS, {"y": 0.01}, samples=300, burn_in=100)
    assert any("a and b are known only together" in text for text in found.warnings())


def test_ranks_of_exact_posteriors_are_uniform_and_intervals_cover() -> None:
    found = simulation_based_calibration(Line(), PRIORS, {"y": 0.2}, simulations=200, seed=4)
    table = found.table()
    assert (table["p_value"] > 0.01).all()
    assert table["coverage_90"].between(0.83, 0.96).all()
    assert found.ranks.min() >= 0 and found.ranks.max() <= found.of == 63


def test_ranks_of_wrong_posteriors_are_not_uniform() -> None:
    class Sloppy(Line):
        """Tells calibration half the variance that its data have."""

        calls = 0

        def __call__(self, theta: Tensor) -> tuple[Tensor, Tensor]:
            Sloppy.calls += 1
            mean, _ = super().__call__(theta)
            return mean, torch.full_like(mean, 0.5 if Sloppy.calls == 1 else 0.0)

    found = simulation_based_calibration(Sloppy(), PRIORS, {"y": 0.2}, simulations=200, seed=4)
    assert found.table()["p_value"].min() < 1e-4


# -- surrogates and measurements -------------------------------------------------------------------


def test_a_surrogate_is_calibrated_at_measured_conditions() -> None:
    model, y = read_measurement(Decay(), measured(), ["gain"])
    assert isinstance(model, SurrogateModel) and model.outputs == ("voltage",)
    found = calibrate(
        model, y, {"gain": Uniform(0.0, 1.0)}, {"voltage": 0.003}, samples=200, burn_in=100
    )
    assert float(found.draws.mean()) == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (measured(time=[0.0, 2.0, 2.0, 6.0]), "'time' must increase, but row 3 has 2 after 2"),
        (measured(time=[float("nan")] * 4), "column 'time' is empty"),
        (measured(time=[0.0, float("nan"), 4.0, 6.0]), "row 2: a number is missing"),
        (measured(time=[0.0, 2.0, 4.0, 60.0]), "row 4: 60 is outside 0 to 10"),
        (measured(current=[-1.5] * 4), "seems to have the wrong sign"),
        (measured()[:0], "has no rows"),
        (measured().drop(columns="voltage"), "no column of an output"),
        (measured().drop(columns="current"), "'current' has neither a prior nor a column"),
        (measured(gain=[0.5] * 4), "is measured and has a prior"),
        (measured(voltage=[4.0, 3.9, None, 3.6]), "column 'voltage', row 3: a number is missing"),
    ],
)
def test_a_measurement_that_does_not_fit_is_refused(table: pd.DataFrame, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_measurement(Decay(), table, ["gain"])


def test_a_prior_of_what_is_no_input_is_refused() -> None:
    with pytest.raises(UserError, match="'gian' is no input of the surrogate; did you mean 'gain'"):
        read_measurement(Decay(), measured(), ["gian"])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([4000.0, 3880.0, 3760.0, 3640.0], "seems to be multiplied by 1000"),
        ([3.0, 2.9, 2.8, 2.7], "the prior excludes the data: 4 of 4 values of 'voltage'"),
    ],
)
def test_data_that_nothing_explains_are_refused(values: list[float], sentence: str) -> None:
    model, y = read_measurement(Decay(), measured(voltage=values), ["gain"])
    with pytest.raises(UserError, match=sentence):
        calibrate(model, y, {"gain": Uniform(0.0, 1.0)}, {"voltage": 0.003})


def test_discharges_that_empty_a_particle_before_the_last_measurement_are_refused() -> None:
    from understudy.search.calibrate import CurveModel
    from understudy.simulate.battery import SingleParticleModel

    model = CurveModel(SingleParticleModel(times=(100.0, 3000.0), step=100.0))
    priors = {
        "negative_exchange_current": Uniform(0.5, 4.0),
        "positive_diffusivity": Uniform(1.0, 10.0),
    }
    values = torch.tensor([4.0, 3.0], dtype=torch.float64)
    with pytest.raises(UserError, match="no draw of the prior gives a prediction for every"):
        calibrate(model, values, priors, {"voltage": 0.003})


# -- priors ----------------------------------------------------------------------------------------


def test_draws_of_a_joint_prior_have_its_quantiles_and_stay_within_limits() -> None:
    space = Space((Continuous("u", 0, 4), Continuous("n", 0, 9), Continuous("l", 0.1, 50)))
    joint = JointPrior.within(
        {"u": Uniform(1, 3), "n": Normal(3, 1.8), "l": LogNormal(2, 0.5)}, space
    )
    z = torch.randn(20000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = joint.values(z)
    assert torch.allclose(values.median(0).values, torch.tensor([2.0, 3.1, 2.0]).double(), atol=0.1)
    assert values[:, 1].min() > 0.0 and values[:, 0].max() < 3.0
    assert torch.allclose(joint.spread(), values.std(0), rtol=0.03)


@pytest.mark.parametrize(
    ("prior", "sentence"),
    [
        (Uniform(0.0, 2.0), "50.0 % of 'gain' lies outside 0 to 1"),
        (Normal(0.9, 0.2), "lies outside 0 to 1, the range that the surrogate was trained on"),
    ],
)
def test_a_prior_beyond_the_trained_range_is_refused(prior: Uniform, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        JointPrior.within({"gain": prior}, Decay.space)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "no section"),
        ({"parameters": {"a": 3}}, "'a' is a table with a distribution"),
        ({"parameters": {"a": {"distribution": "cauchy"}}}, "distribution is one of uniform"),
        ({"parameters": {"a": {"distribution": "normal", "mean": 1}}}, "needs a number 'sd'"),
        (
            {"parameters": {"a": {"distribution": "uniform", "lower": 2, "upper": 1}}},
            "'a': lower must be below upper",
        ),
        (
            {"parameters": {"a": {"distribution": "uniform", "lower": 2, "uper": 3}}},
            "no key 'uper'; did you mean 'upper'",
        ),
        (
            {
                "parameters": {"a": {"distribution": "uniform", "lower": 2, "upper": 3}},
                "noise": {"y": -1},
            },
            "noise of 'y' is a number above 0",
        ),
    ],
)
def test_a_prior_file_with_a_mistake_is_refused(content: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse_priors(content)


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prior.toml"
    path.write_text("[parameters\n")
    with pytest.raises(UserError, match=r"prior\.toml: is not valid TOML"):
        read_priors(path)


# -- a prior of a whole field ----------------------------------------------------------------


class Gaussian:
    """Density of fields (2, 1) with values of mean m, deviation s and correlation r."""

    shape = (2, 1)

    def log_prior(self, x):
        a, b = (x[:, 0, 0] - 1.0) / 0.5, (x[:, 1, 0] - 1.0) / 0.5
        return -(a * a - 1.6 * a * b + b * b) / (2.0 * (1.0 - 0.8**2))


class Values:
    """The first of two parameters, measured."""

    space = Space((Continuous("a", -20.0, 20.0), Continuous("b", -20.0, 20.0)))
    outputs = ("y",)
    group = torch.zeros(1, dtype=torch.long)

    def __call__(self, theta):
        return theta[:, :1], torch.zeros_like(theta[:, :1])


def test_a_density_of_the_field_enters_the_posterior():
    flat = {"a": Uniform(-20.0, 20.0), "b": Uniform(-20.0, 20.0)}
    found = calibrate(
        *(Values(), torch.tensor([2.0]), flat, {"y": 0.5}),
        chains=8,
        burn_in=50,
        samples=250,
        log_prior=FieldPrior(Gaussian()),
    )
    # two normals of deviation 0.5 at 1 and 2 give 1.5; the second follows with correlation 0.8
    draws = found.draws.reshape(-1, 2)
    assert draws.mean(0).tolist() == pytest.approx([1.5, 1.4], abs=0.04)
    assert float(draws[:, 0].std()) == pytest.approx(math.sqrt(0.125), abs=0.03)
    assert float(torch.corrcoef(draws.T)[0, 1]) > 0.6


def test_fields_may_be_made_of_fewer_parameters():
    prior = FieldPrior(Gaussian(), decode=lambda t: t[:, :1, None].expand(-1, 2, 1))
    assert prior(torch.tensor([[1.0]])).tolist() == [0.0]
    with pytest.raises(UserError, match="give decode"):
        FieldPrior(Gaussian())(torch.zeros(1, 3))
