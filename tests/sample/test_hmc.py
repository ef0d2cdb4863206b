"""Hamiltonian Monte Carlo: its flow is exact, its draws are from the density, its steps adapt."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from understudy.core.errors import UserError
from understudy.sample import HMC, Plan, sample, value_and_gradient
from understudy.sample.dual_averaging import DualAveraging
from understudy.sample.hmc import Moments, Phase, leapfrog, windows

COVARIANCE = torch.tensor([[2.0, 1.2], [1.2, 1.0]], dtype=torch.float64)
PRECISION = torch.linalg.inv(COVARIANCE)
MEAN = torch.tensor([3.0, -1.0], dtype=torch.float64)


def gaussian(theta: Tensor) -> Tensor:
    away = theta - MEAN
    return -0.5 * ((away @ PRECISION) * away).sum(1)


def banana(theta: Tensor, bend: float = 0.5) -> Tensor:
    """x ~ N(0, 1), y | x ~ N(bend (x² - 1), 0.5²): means 0 and 0, variances 1 and 0.75."""
    x, y = theta.unbind(1)
    return -0.5 * x.square() - 0.5 * ((y - bend * (x.square() - 1.0)) / 0.5).square()


def start(chains: int, dim: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(chains, dim, generator=generator, dtype=torch.float64)


def phase(target, chains: int, seed: int) -> Phase:
    position = start(chains, 2, seed)
    value, gradient = value_and_gradient(target)(position)
    return Phase(position, start(chains, 2, seed + 1), value, gradient)


def energy(at: Phase) -> Tensor:
    return 0.5 * at.momentum.square().sum(1) - at.log_density


@pytest.mark.parametrize(
    "sampler",
    [
        HMC(0.1, 2.0, jitter=0.3),
        HMC(0.1, 2.0, jitter=0.3, mass="diagonal"),
        HMC(0.1, 2.0, jitter=0.3, mass="diagonal", shared=True),
    ],
    ids=["identity", "diagonal", "shared"],
)
def test_moments_of_a_correlated_gaussian_are_recovered(sampler):
    draws = sample(sampler, gaussian, start(100), Plan(100, 100)).draws.flatten(0, 1)
    assert torch.allclose(draws.mean(0), MEAN, atol=0.08)
    assert torch.allclose(torch.cov(draws.T), COVARIANCE, atol=0.15)


def test_moments_of_a_banana_are_recovered_in_the_long_run():
    sampler = HMC(0.1, 1.5, jitter=0.5, target_acceptance=0.9)
    draws = sample(sampler, banana, start(200), Plan(150, 150)).draws.flatten(0, 1)
    x, y = draws.unbind(1)
    assert draws.mean(0).tolist() == pytest.approx([0.0, 0.0], abs=0.05)
    assert draws.var(0).tolist() == pytest.approx([1.0, 0.75], abs=0.08)
    assert float((x.square() * y).mean()) == pytest.approx(1.0, abs=0.12)  # bend Var(x²)


@given(
    step=st.floats(0.001, 0.3),
    counts=st.lists(st.integers(1, 25), min_size=3, max_size=3),
    seed=st.integers(0, 1000),
)
def test_a_path_runs_back_to_its_start_when_momenta_are_turned(step, counts, seed):
    target, first = value_and_gradient(banana), phase(banana, 3, seed)
    rate, steps = torch.full((1, 1), step, dtype=torch.float64), torch.tensor(counts)
    there = leapfrog(target, first, rate, steps)
    if not bool(torch.isfinite(there.position).all()) or float(there.position.abs().max()) > 1e3:
        return  # out of the step's region of stability rounding is magnified without bound
    turned = Phase(there.position, -there.momentum, there.log_density, there.gradient)
    back = leapfrog(target, turned, rate, steps)
    assert torch.allclose(back.position, first.position, atol=1e-6)
    assert torch.allclose(-back.momentum, first.momentum, atol=1e-6)


@given(seed=st.integers(0, 1000))
def test_the_error_of_the_energy_is_of_second_order_in_the_step(seed):
    target, first = value_and_gradient(gaussian), phase(gaussian, 20, seed)
    errors = []
    for steps in (20, 40):  # of the same path of length 1
        rate = torch.full((1, 1), 1.0 / steps, dtype=torch.float64)
        end = leapfrog(target, first, rate, torch.full((20,), steps))
        errors.append(float((energy(end) - energy(first)).square().mean().sqrt()))
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)


def test_a_chain_that_has_made_its_steps_stands_still_while_others_go_on():
    target, first = value_and_gradient(banana), phase(banana, 3, 5)
    rate, steps = torch.full((1, 1), 0.1, dtype=torch.float64), torch.tensor([1, 4, 9])
    together = leapfrog(target, first, rate, steps)
    for chain, count in enumerate(steps.tolist()):
        own = Phase(*(getattr(first, name)[chain : chain + 1] for name in Phase.__annotations__))
        alone = leapfrog(target, own, rate, torch.tensor([count]))
        assert torch.allclose(together.position[chain], alone.position[0], atol=1e-14)
        assert torch.allclose(together.momentum[chain], alone.momentum[0], atol=1e-14)


@pytest.mark.parametrize("aim", [0.65, 0.8, 0.9])
def test_acceptance_converges_to_its_target(aim):
    sampler = HMC(0.5, 1e-6, target_acceptance=aim)  # one leapfrog step: smooth in its size
    found = sample(
        sampler, lambda theta: -0.5 * theta.square().sum(1), start(40, 30), Plan(600, 100)
    )
    rates = found.statistics["acceptance"].mean(1)
    assert float(rates[300:600].mean()) == pytest.approx(aim, abs=0.02)
    assert float(rates[600:].mean()) == pytest.approx(aim, abs=0.07)  # of the averaged step
    assert found.statistics["leapfrog_steps"].max() == 1


def test_dual_averaging_follows_the_published_recursion():
    averaging = DualAveraging.start(torch.tensor([math.log(0.02)], dtype=torch.float64))
    error = log_average = 0.0
    for t, acceptance in enumerate((1.0, 0.3, 0.0, 0.9), start=1):
        averaging = averaging.update(torch.tensor([acceptance], dtype=torch.float64))
        error = (1 - 1 / (t + 10)) * error + (0.8 - acceptance) / (t + 10)
        log_step = math.log(0.2) - math.sqrt(t) / 0.05 * error
        log_average = t**-0.75 * log_step + (1 - t**-0.75) * log_average
    assert float(averaging.log_step) == pytest.approx(log_step)
    assert float(averaging.log_average) == pytest.approx(log_average)


def test_mass_adaptation_finds_the_scales_of_the_coordinates():
    scales = torch.tensor([0.01, 1.0, 100.0], dtype=torch.float64)
    sampler = HMC(0.005, 2.0, jitter=0.3, mass="diagonal", shared=True)
    found = sample(
        sampler, lambda theta: -0.5 * (theta / scales).square().sum(1), start(30, 3), Plan(300, 100)
    )
    assert torch.allclose(found.draws.flatten(0, 1).std(0) / scales, scales.new_ones(3), atol=0.1)
    assert torch.allclose(found.state.scale[0, 1:] / scales[1:], scales.new_ones(2), rtol=0.2)


def test_running_moments_are_those_of_all_positions():
    positions = torch.randn(50, 4, 3, dtype=torch.float64) * 5.0 + 100.0
    moments = Moments.start(positions[0])
    for position in positions:
        moments = moments.update(position)
    variance = positions.flatten(0, 1).var(0)
    shrunk = (200 * variance + 5 * 1e-3) / 205
    assert torch.allclose(moments.scale(shared=True)[0].square(), shrunk)
    assert torch.allclose(moments.mean, positions.mean(0))


@pytest.mark.parametrize("burn_in", [20, 100, 150, 500, 1000])
def test_windows_of_the_mass_double_and_leave_room_at_both_ends(burn_in):
    first, ends = windows(burn_in)
    lengths = [b - a for a, b in pairwise((first - 1, *ends))]
    assert first > 0 and ends[-1] < burn_in - 1
    assert all(after >= 2 * before for before, after in pairwise(lengths))


def test_a_chain_that_meets_nan_stays_where_it_is_and_others_move():
    def half(theta: Tensor) -> Tensor:  # log θ: NaN for negative values
        return theta[:, 0].log() * 2.0 - theta[:, 0]

    begin = torch.tensor([[1e-3], [4.0]], dtype=torch.float64)
    found = sample(HMC(2.0, 2.0), half, begin, Plan(0, 50))
    assert bool((found.draws > 0.0).all()) and bool(torch.isfinite(found.draws).all())
    rejected = found.statistics["acceptance"] == 0.0
    assert bool(rejected.any()) and bool(found.statistics["divergent"][rejected].any())


def test_a_path_too_long_for_its_step_is_halved_in_the_burn_in():
    sampler = HMC(0.5, 100.0, max_leapfrog=10)
    found = sample(sampler, gaussian, start(2), Plan(30, 2))
    assert bool((found.state.path_length < 100.0).all())
    assert int(found.statistics["leapfrog_steps"].max()) == 10


def test_a_start_of_no_density_is_refused():
    with pytest.raises(UserError, match="not finite where chain 1 starts"):
        sample(HMC(), lambda theta: theta[:, 0].log(), torch.tensor([[1.0], [-1.0]]), Plan(1, 2))


@pytest.mark.parametrize(
    "wrong",
    [{"step_size": 0.0}, {"path_length": -1.0}, {"jitter": 1.0}, {"mass": "dense"}],
    ids=lambda w: next(iter(w)),
)
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        HMC(**wrong)
