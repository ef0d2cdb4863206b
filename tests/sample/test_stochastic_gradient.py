"""Samplers that see noisy gradients: stationary variances, by closed form and by simulation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.sample import SGHMC, SGLD, ConstantSteps, CyclicalSteps, Minibatch, Plan, sample
from understudy.sample.chains import State


def gaussian(theta: Tensor) -> Tensor:
    """Variances 1 and 4."""
    return -0.5 * (theta.square() / torch.tensor([1.0, 4.0], dtype=theta.dtype)).sum(1)


def start(chains: int, dim: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(chains, dim, generator=generator, dtype=torch.float64)


def test_langevin_steps_have_their_discrete_stationary_variance():
    r"""Of :math:`\theta' = (1 - \alpha/\sigma^2)\theta + \sqrt{2\alpha}\,\xi`, solved exactly."""
    step = 0.3
    draws = sample(SGLD(ConstantSteps(step)), gaussian, start(4000), Plan(100, 10, 10)).draws
    expected = [1.0 / (1.0 - 0.5 * step), 4.0 / (1.0 - 0.125 * step)]
    assert draws.flatten(0, 1).var(0).tolist() == pytest.approx(expected, rel=0.05)


def test_sghmc_has_its_discrete_stationary_variance():
    r"""Without burn-in w = 1, and with :math:`k = \eta^2/\sigma^2` and noise variance q the
    linear recursion has the variance :math:`q (2-\alpha) / (2 k \alpha (2 - \alpha - k/2))`.
    """
    eta, alpha = 0.1, 0.2
    draws = sample(SGHMC(eta, alpha), gaussian, start(4000), Plan(0, 60, 20)).draws[20:]
    q = 2.0 * eta**2 * alpha - eta**4
    expected = [
        q * (2.0 - alpha) / (2.0 * k * alpha * (2.0 - alpha - 0.5 * k))
        for k in (eta**2, eta**2 / 4.0)
    ]
    assert draws.flatten(0, 1).var(0).tolist() == pytest.approx(expected, rel=0.05)
    assert expected == pytest.approx([1.0, 4.0], rel=0.03)


def test_sghmc_finds_a_posterior_from_a_few_rows_at_a_time():
    """The mean of 100 N(mu, 1) rows under a flat prior has the variance 1/100."""
    y = torch.randn(100, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 2.0

    def estimate(theta: Tensor, rows: Tensor) -> Tensor:
        return -0.5 * 100 / rows.shape[1] * (y[rows] - theta).square().sum(1)

    begin = start(1000, 1)
    draws = sample(SGHMC(0.03), Minibatch(estimate, 100, 10), begin, Plan(600, 20, 20)).draws
    assert float(draws.mean()) == pytest.approx(float(y.mean()), abs=0.02)
    assert float(draws.std()) == pytest.approx(0.1, rel=0.1)


def test_burn_in_statistics_follow_the_published_recursion():
    sampler, begin = SGHMC(0.01, 0.05), torch.full((1, 1), 3.0, dtype=torch.float64)
    state = sampler.start(gaussian, begin)
    generator = torch.Generator().manual_seed(0)
    tau = g = v = 1.0
    for step in range(5):
        gradient = float(state.position)
        rate = 1.0 / (tau + 1.0)
        tau = tau - tau * g**2 / (v + 1e-16) + 1.0
        g, v = g - rate * g + rate * gradient, v - rate * v + rate * gradient**2
        state, _ = sampler.step(one_dimensional, state, step, Plan(10, 1), generator)
        found = (float(state.tau), float(state.mean), float(state.square))
        assert found == pytest.approx((tau, g, v), rel=1e-12)


def one_dimensional(theta: Tensor) -> Tensor:
    return -0.5 * theta.square().sum(1)


def test_a_cycle_falls_from_its_first_step_by_a_cosine():
    steps = CyclicalSteps(0.1, 50, 0.8)
    assert [steps.size(k) for k in (0, 25, 50)] == pytest.approx([0.1, 0.05, 0.1])
    assert steps.size(49) == pytest.approx(0.05 * (math.cos(math.pi * 0.98) + 1.0))
    assert [steps.explores(k) for k in (0, 39, 40, 49, 50)] == [True, True, False, False, True]


def test_only_the_sampling_part_of_a_cycle_is_kept():
    steps = CyclicalSteps(0.1, 50, 0.8)
    plan = steps.plan(3, thin=2)
    kept = [k for k in range(plan.steps) if plan.keeps(k)]
    assert plan.steps == 150 and plan.samples == len(kept) == 15
    assert not any(steps.explores(k) for k in kept)


def test_exploration_is_without_noise():
    steps, begin = CyclicalSteps(0.1, 100, 0.5), torch.ones(2, 1, dtype=torch.float64)
    state: State = SGLD(steps).start(one_dimensional, begin)
    generator = torch.Generator().manual_seed(0)
    for k in range(50):
        state, _ = SGLD(steps).step(one_dimensional, state, k, Plan(0, 1), generator)
    assert torch.equal(state.position[0], state.position[1])
    state, _ = SGLD(steps).step(one_dimensional, state, 50, Plan(0, 1), generator)
    assert not torch.equal(state.position[0], state.position[1])


def test_cycles_visit_modes_that_one_descent_of_the_same_length_does_not():
    """Two Gaussians of deviation 0.3, 6 deviations from the saddle."""

    def modes(theta: Tensor) -> Tensor:
        away = torch.stack([theta[:, 0] - 1.8, theta[:, 0] + 1.8])
        return torch.logsumexp(-0.5 * (away / 0.3).square(), 0)

    begin = torch.full((200, 1), 1.8, dtype=torch.float64)
    steps = CyclicalSteps(0.3, 100, 0.0)
    cyclic = sample(SGLD(steps), modes, begin, steps.plan(10)).draws
    still = sample(SGLD(ConstantSteps(0.003)), modes, begin, Plan(0, 1000)).draws
    visited = [float((draws < 0.0).any(0).double().mean()) for draws in (cyclic, still)]
    assert visited[0] > 0.9 and visited[1] < 0.1


@pytest.mark.parametrize("make", [lambda: SGHMC(0.0), lambda: SGHMC(0.1, 1.0)])
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(UserError, match=r"learning_rate|friction"):
        make()


def test_cycles_out_of_range_are_refused():
    with pytest.raises(UserError, match="cycle"):
        CyclicalSteps(0.1, 1)
    with pytest.raises(UserError, match="exploration"):
        CyclicalSteps(0.1, 10, 1.0)
