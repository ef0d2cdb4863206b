"""Auxiliary variables by turns with positions."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from scipy import stats

from understudy.core.errors import UserError
from understudy.sample import SGHMC, Chains, Gibbs, Plan, resume, sample


class StudentT:
    """Position N(0, 1 / precision), precision Gamma(2, 2): a Student t of 4 degrees."""

    def auxiliary(self, position, generator):
        shape = torch.full_like(position, 2.5)
        return torch._standard_gamma(shape, generator=generator) / (2.0 + 0.5 * position.square())

    def given(self, auxiliary):
        return lambda position: -0.5 * (auxiliary * position.square()).sum(1)


START = torch.randn(2000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_positions_have_their_marginal_distribution():
    sampler = Gibbs(SGHMC(learning_rate=0.1, friction=0.1), every=5)
    chains = sample(sampler, StudentT(), START, Plan(200, 1, 200), seed=1)
    found = stats.kstest(chains.draws.flatten().numpy(), stats.t(4).cdf)
    assert found.statistic < 0.05  # the step of SGHMC leaves a few per cent


def test_auxiliaries_stay_between_two_draws():
    sampler, generator = Gibbs(every=3), torch.Generator().manual_seed(0)
    state, seen = sampler.start(StudentT(), START), []
    for step in range(6):
        state, _ = sampler.step(StudentT(), state, step, Plan(0, 6), generator)
        seen.append(state.auxiliary)
    same = [torch.equal(a, b) for a, b in pairwise(seen)]
    assert same == [True, True, False, True, True]


def test_chains_go_on_from_a_file_as_if_they_had_not_stopped(tmp_path):
    sampler, target = Gibbs(every=4), StudentT()
    whole = sample(sampler, target, START[:5], Plan(6, 10), seed=2)
    part = sample(sampler, target, START[:5], Plan(6, 3), seed=2)
    part.save(tmp_path / "chains.us", sampler)
    again = Chains.load(tmp_path / "chains.us", sampler)
    again.plan = whole.plan
    assert torch.equal(resume(sampler, target, again).draws, whole.draws)


def test_auxiliaries_must_be_drawn_now_and_then():
    with pytest.raises(UserError, match="every"):
        Gibbs(every=0)
