import math
from dataclasses import replace

import pytest
import torch

from understudy.core.errors import UserError
from understudy.core.systems import find
from understudy.reproduce import Scale
from understudy.reproduce import pde_refiner as reproduction
from understudy.reproduce.refined_steps import sizes, study
from understudy.reproduce.refined_steps.rollouts import spectral
from understudy.reproduce.refined_steps.waves import trajectories

CPU = torch.device("cpu")
SMALL = sizes.SMOKE


def test_the_system_is_implemented():
    assert find("pde-refiner").implemented


def test_every_claim_is_measured_at_smoke_scale():
    claims = reproduction.run(Scale.SMOKE, seed=3)
    assert {claim.seeds[0] for claim in claims} == {3}
    assert all(math.isfinite(claim.measured) for claim in claims)
    assert len({claim.statement for claim in claims}) == len(claims) == 7


@pytest.mark.slow
def test_two_processes_measure_what_one_does():
    one, two = (
        [claim.measured for claim in reproduction.measure(replace(SMALL, workers=n), 3)]
        for n in (1, 2)
    )
    assert two == pytest.approx(one, rel=1e-3)


def test_trajectories_start_at_every_output_and_step_by_four_of_them():
    few = replace(SMALL, runs=2, times=12)
    fields, told = trajectories(few, 2, 12, 5, CPU)
    assert fields.shape == (8, 3, 1, 32) and told is None
    every, _ = trajectories(few, 2, 4, 5, CPU)
    torch.testing.assert_close(fields[:, 0], every[:, 0])  # the first four outputs of each run
    assert (fields[0, 1] - fields[1, 0]).abs().max() > 0.1


def test_time_step_and_spacing_are_told_where_they_vary():
    spent = replace(SMALL, length=(22.0, 24.0), interval=(0.18, 0.22))
    fields, told = trajectories(spent, 3, 8, 5, CPU)
    assert told.shape == (12, 2) and fields.shape[0] == 12
    time_steps, spacings = told.reshape(3, 4, 2).unbind(-1)
    assert bool(((time_steps >= 3.0) & (time_steps <= 7.0)).all())
    low, high = (100.0 * (length / 32 - 0.2) for length in spent.length)
    assert bool(((spacings >= low) & (spacings <= high)).all())
    assert time_steps.unique().numel() == 3 and torch.equal(told[0], told[3])


def test_the_floor_is_a_quarter_of_the_error_and_not_below_the_paper():
    class Plain:
        outcome = None

    plain = Plain()
    for score, floor in ((4e-3, 1e-3), (1e-9, 4e-7), (5.0, 0.1)):
        plain.outcome = type("Outcome", (), {"score": torch.tensor(score)})
        assert study.matched_variance(plain) == pytest.approx(floor)


def test_weak_modes_lie_beyond_the_largest_and_far_below_it():
    begun = study.Study.start(SMALL, 0)
    begun.amplitude = torch.tensor([1e-9, 0.5, 1.0, 0.1, 9e-4, 2e-3, 1e-5])
    assert begun.weak().tolist() == [False, False, False, False, True, False, True]


def test_a_budget_of_time_is_kept(monkeypatch):
    monkeypatch.setattr(study, "_TRIAL", 4)
    spent = replace(SMALL, seeds=1, seconds=16.5)
    claims = list(reproduction.measure(spent, 0))
    assert len(claims) >= 2  # the headline comes first, ablations when there is time
    assert "steps of batch 8" in claims[0].reason


def test_the_environment_bounds_the_paper_scale_only(monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_SECONDS", "300")
    assert sizes.budget(Scale.PAPER).seconds == 300.0
    assert sizes.budget(Scale.CPU).seconds is None
    monkeypatch.setenv("UNDERSTUDY_SECONDS", "soon")
    with pytest.raises(UserError, match="UNDERSTUDY_SECONDS must be a number of at least 20"):
        sizes.budget(Scale.PAPER)
    monkeypatch.delenv("UNDERSTUDY_SECONDS")
    paper = sizes.budget(Scale.PAPER)
    assert (paper.steps, paper.settings["hidden"], paper.horizon_bar) == (220_000, 64, 1.1)


@pytest.mark.slow
def test_weak_modes_are_more_exact_after_a_short_training():
    # 2.4 after 1200 steps on four times as many trajectories, see the kept result
    spent = replace(
        sizes.CPU, seeds=1, runs=64, test_runs=8, test_times=24, transient=200, steps=400
    )
    begun = study.Study.start(spent, 0)
    pair = study.Pair.train(begun, 0)
    assert spectral(begun, [pair]).measured > 2.0


def test_a_clock_times_steps_after_the_first():
    clock = study.Clock(CPU, 2)
    clock.marks = [(1, 0.0), (50, 10.0), (100, 15.0)]
    assert clock.milliseconds == pytest.approx(100.0)
