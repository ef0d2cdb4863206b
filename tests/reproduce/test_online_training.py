import math
from dataclasses import replace

import pytest
import torch
from scipy.integrate import solve_ivp

from understudy.core.systems import find
from understudy.reproduce import Scale
from understudy.reproduce import online_training as reproduction
from understudy.reproduce.online.networks import fno_problem, heat_problem
from understudy.reproduce.online.problems import Lorenz, Paced
from understudy.reproduce.online.setting import SIZES
from understudy.reproduce.online.training import (
    contest,
    errors_by_run,
    train_offline,
    train_online,
)
from understudy.simulate.stream import UniformSampler

SMOKE = SIZES[Scale.SMOKE]


def test_the_system_is_implemented():
    assert find("online-training").implemented


@pytest.mark.slow
def test_every_claim_is_measured_at_smoke_scale():
    claims = reproduction.run(Scale.SMOKE, seed=3)
    assert {claim.seeds[0] for claim in claims} == {3}
    assert all(math.isfinite(claim.measured) for claim in claims)
    assert len({claim.statement for claim in claims}) == len(claims) == 12


def test_the_same_seed_measures_the_same():
    heat = heat_problem(SMOKE)
    first, second = (contest(heat, replace(SMOKE.heat, seeds=2), 2, seed=5) for _ in range(2))
    assert first == second
    assert list(first.gains) == [5, 6]


def test_online_and_offline_take_the_same_number_of_updates_and_see_their_runs():
    heat, spent = heat_problem(SMOKE), SMOKE.heat
    report = train_online(heat, spent, (1e-3, 0.0), 0, heat.fixed(2, 1))
    assert report.batches == spent.updates
    assert report.finished == spent.online and report.frames == spent.online * heat.frames
    assert sum(report.repetitions.values()) == spent.online * heat.frames


def test_offline_training_learns_what_it_stores():
    heat = heat_problem(SMOKE)
    spent = replace(SMOKE.heat, updates=600)
    data = heat.fixed(2, 1)
    errors = [
        train_offline(heat, replace(spent, updates=n), (3e-3, 0.0), 0, data, data) for n in (6, 600)
    ]
    assert errors[1] < 0.1 * errors[0]


def test_windows_of_waves_are_scored_at_all_their_steps():
    waves = fno_problem(SMOKE)
    fixed = waves.fixed(2, 1)
    assert len(fixed) == 2 * waves.samples
    assert waves.loss(waves.made(0), fixed).shape == (len(fixed),)


def test_the_worst_runs_are_found():
    problem = heat_problem(SMOKE)
    fixed = problem.fixed(3, 0)

    def loss(network, batch):
        return batch.runs.float()

    assert errors_by_run(loss, problem.made(0), fixed).tolist() == [0.0, 1.0, 2.0]


def test_the_lorenz_system_is_solved():
    solver = Lorenz(steps=20, duration=1.0)
    codes = UniformSampler(solver.space, 0).draw(3)
    states = torch.stack([state for _, state in solver.stream(codes)], dim=1)
    for (sigma, rho, beta), mine in zip(codes.tolist(), states, strict=True):

        def slope(_, u, sigma=sigma, rho=rho, beta=beta):
            x, y, z = u
            return sigma * (y - x), x * (rho - z) - y, x * y - beta * z

        peer = solve_ivp(slope, (0, 1), [1, 1, 1], rtol=1e-10, atol=1e-10, t_eval=[0.5, 1.0])
        assert mine[[10, 20]].T.numpy() == pytest.approx(peer.y, abs=1e-3)


def test_a_paced_solver_gives_the_same():
    solver = Lorenz(steps=60)
    codes = UniformSampler(solver.space, 0).draw(1)
    for (t, state), (paced_t, paced) in zip(
        solver.stream(codes), Paced(solver, 0.0).stream(codes), strict=True
    ):
        assert torch.equal(t, paced_t) and torch.equal(state, paced)
