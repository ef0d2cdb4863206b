"""Chains stop, are kept, and go on as if they had not stopped."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.progress import Progress
from understudy.sample import (
    HMC,
    SGHMC,
    SGLD,
    Chains,
    CyclicalSteps,
    Minibatch,
    Plan,
    maximise,
    resume,
    sample,
)

CYCLES = CyclicalSteps(0.05, 20, 0.5)
SAMPLERS = [
    pytest.param(HMC(0.1, 1.0, jitter=0.2, mass="diagonal"), Plan(60, 40), id="hmc"),
    pytest.param(SGHMC(0.05), Plan(60, 20, 2), id="sghmc"),
    pytest.param(SGLD(CYCLES), CYCLES.plan(5), id="sgld"),
]
START = torch.zeros(3, 2, dtype=torch.float64)


def log_density(theta: Tensor) -> Tensor:
    return -0.5 * (theta.square() * torch.tensor([1.0, 4.0], dtype=theta.dtype)).sum(1)


class Interrupting:
    """A density that is interrupted at one of its evaluations."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, theta: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return log_density(theta)


@pytest.mark.parametrize(("sampler", "plan"), SAMPLERS)
@pytest.mark.parametrize("at", [2, 37, 71])
def test_chains_killed_at_any_evaluation_go_on_from_a_file_bit_for_bit(sampler, plan, at, tmp_path):
    whole = sample(sampler, log_density, START, plan, seed=3)
    stopped = sample(sampler, Interrupting(at), START, plan, seed=3)
    assert stopped.interrupted and not stopped.finished
    path = stopped.save(tmp_path / "chains.us", sampler)
    again = resume(sampler, log_density, Chains.load(path, sampler))
    assert again.finished and not again.interrupted
    assert torch.equal(again.draws, whole.draws)
    assert torch.equal(again.state.position, whole.state.position)
    for name, values in whole.statistics.items():
        assert torch.equal(again.statistics[name], values), name


@pytest.mark.parametrize(("sampler", "plan"), SAMPLERS)
def test_the_same_seed_gives_the_same_chains_and_another_seed_others(sampler, plan):
    first, second, other = (
        sample(sampler, log_density, START, plan, seed=seed).draws for seed in (1, 1, 2)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_a_generator_given_as_seed_is_left_as_it_was():
    generator = torch.Generator().manual_seed(5)
    before = generator.get_state()
    first = sample(HMC(0.1, 1.0), log_density, START, Plan(5, 5), seed=generator)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(first.draws, sample(HMC(0.1, 1.0), log_density, START, Plan(5, 5), 5).draws)


def test_resuming_leaves_the_chains_given_as_they_were():
    sampler = HMC(0.1, 1.0)
    first = sample(sampler, log_density, START, Plan(5, 5))
    longer = resume(sampler, log_density, replace(first, plan=Plan(5, 15)))
    assert len(first.draws) == 5 and len(longer.draws) == 15
    assert torch.equal(longer.draws[:5], first.draws)
    assert torch.equal(longer.draws, sample(sampler, log_density, START, Plan(5, 15)).draws)


def test_an_interrupt_by_the_listener_keeps_what_is_sampled():
    said: list[Progress] = []

    def listen(progress: Progress) -> None:
        said.append(progress)
        if len(said) == 2:
            raise KeyboardInterrupt

    found = sample(HMC(0.1, 1.0), log_density, START, Plan(0, 10_000), listener=listen)
    assert found.interrupted and len(found.draws) == found.step > 0
    assert said[0].stage == "sample" and "sampling 1 of 10000" in said[0].message


def test_a_time_limit_ends_the_burn_in_early_and_still_leaves_draws():
    found = sample(HMC(0.1, 1.0), log_density, START, Plan(10**9, 10**9), max_seconds=0.05)
    assert not found.finished and not found.interrupted
    assert found.plan.burn_in < found.step and len(found.draws) >= 2


def test_a_warm_start_keeps_what_was_adapted():
    sampler = HMC(0.1, 1.0, mass="diagonal")
    first = sample(sampler, log_density, START, Plan(200, 2))
    warm = sample(sampler, lambda theta: log_density(theta - 1.0), first.state, Plan(0, 2))
    assert torch.equal(warm.state.scale, first.state.scale)
    assert torch.equal(warm.state.step_size.log_step, first.state.step_size.log_average)


def test_thinning_keeps_every_so_many_positions():
    every = sample(SGHMC(0.05), log_density, START, Plan(10, 30)).draws
    thinned = sample(SGHMC(0.05), log_density, START, Plan(10, 10, 3)).draws
    assert torch.equal(thinned, every[2::3])


def test_chains_of_another_sampler_are_refused(tmp_path):
    found = sample(HMC(0.1, 1.0), log_density, START, Plan(2, 2))
    path = found.save(tmp_path / "chains.us", HMC(0.1, 1.0))
    with pytest.raises(UserError, match="cannot go on"):
        Chains.load(path, HMC(0.2, 1.0))


@pytest.mark.parametrize("start", [torch.zeros(3), torch.zeros(3, 2, dtype=torch.long)])
def test_a_start_of_another_form_is_refused(start):
    with pytest.raises(UserError, match=r"\(chains, dim\)"):
        sample(HMC(), log_density, start, Plan(1, 1))


def test_a_minibatch_gradient_is_that_of_the_whole_on_average():
    y = torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def estimate(theta: Tensor, rows: Tensor) -> Tensor:
        return -0.5 * 30 / rows.shape[1] * (y[rows] - theta[:, :1]).square().sum(1)

    theta = torch.zeros(20_000, 1, dtype=torch.float64)
    _, gradient = Minibatch(estimate, 30, 5).gradient(theta, torch.Generator().manual_seed(1))
    assert float(gradient.mean()) == pytest.approx(float(y.sum()), abs=0.4)


def test_chains_draw_only_from_their_own_number_of_rows():
    seen: list[Tensor] = []

    def estimate(theta: Tensor, rows: Tensor) -> Tensor:
        seen.append(rows)
        return theta.sum(1)

    counts = torch.tensor([2, 7])
    generator = torch.Generator().manual_seed(0)
    Minibatch(estimate, counts, 500).gradient(torch.zeros(2, 1).double(), generator)
    assert seen[0].amin(1).tolist() == [0, 0] and seen[0].amax(1).tolist() == [1, 6]


def test_the_warm_start_climbs_to_the_mode():
    found = maximise(lambda theta: log_density(theta - 2.0), START, 2000)
    assert torch.allclose(found, torch.full_like(found, 2.0), atol=1e-2)
