"""Samplers of parameters: inside the space, even where promised, the same after a pause."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from understudy.core.errors import UserError
from understudy.core.space import Categorical, Continuous, Integer, Space
from understudy.simulate.stream import (
    BreedSampler,
    HaltonSampler,
    LatinHypercubeSampler,
    ParameterSampler,
    UniformSampler,
)

SPACE = Space((Continuous("x", -1.0, 3.0), Continuous("k", 1e-3, 1e3, log=True)))
MIXED = Space((Continuous("x", 0.0, 1.0), Integer("n", 1, 3), Categorical("c", ("a", "b"))))


def made(kind: str, space: Space = SPACE, seed: int = 3) -> ParameterSampler:
    if kind == "lhs":
        return LatinHypercubeSampler(space, 8, seed)
    return {"uniform": UniformSampler, "halton": HaltonSampler, "breed": BreedSampler}[kind](
        space, seed
    )


KINDS = ["uniform", "halton", "lhs", "breed"]


@pytest.mark.parametrize("kind", KINDS)
def test_points_are_of_the_space_and_do_not_depend_on_how_they_are_drawn(kind):
    at_once, one_by_one = made(kind, MIXED), made(kind, MIXED)
    codes = at_once.draw(20)
    assert codes.dtype == torch.float64 and not MIXED.outside(codes).any()
    assert torch.equal(codes[:, 1:], codes[:, 1:].round())
    assert set(codes[:, 1].tolist()) == {1.0, 2.0, 3.0}
    assert torch.equal(codes, torch.cat([one_by_one.draw(1) for _ in range(20)]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sampler_goes_on_from_its_state(kind):
    sampler, twin = made(kind), made(kind)
    sampler.draw(5)
    twin.load_state_dict(json.loads(json.dumps(sampler.state_dict())))
    assert torch.equal(sampler.draw(4), twin.draw(4))


def test_the_state_of_another_sampler_is_refused():
    with pytest.raises(UserError, match="seed"):
        UniformSampler(SPACE, 1).load_state_dict(UniformSampler(SPACE, 2).state_dict())


def test_each_latin_hypercube_has_a_point_in_every_slice():
    unit = SPACE.to_unit(made("lhs").draw(16)).numpy()
    for cube in (unit[:8], unit[8:]):
        assert (np.sort(np.floor(cube * 8), axis=0) == np.arange(8)[:, None]).all()


def test_halton_is_more_even_than_chance():
    from scipy.stats import qmc

    even, chance = (
        qmc.discrepancy(SPACE.to_unit(made(kind).draw(64)).clamp(0, 1).numpy())
        for kind in ("halton", "uniform")
    )
    assert even < chance / 2


# -- Breed ----------------------------------------------------------------------------------------


def taught(renewals: int, deviation: float = 0.02) -> BreedSampler:
    """Runs 0 to 9 of which number 7 is learned badly."""
    sampler = BreedSampler(SPACE, seed=0, period=2, deviation=deviation)
    codes = sampler.draw(10)
    for run in range(10):
        sampler.finished(run)
    losses = torch.full((10,), 0.1)
    losses[7] = 5.0
    for _ in range(2 * renewals):
        sampler.observe(torch.arange(10), codes, losses)
    return sampler


def test_breed_draws_uniformly_until_its_first_renewal():
    sampler, uniform = BreedSampler(SPACE, seed=4), UniformSampler(SPACE, seed=4)
    assert sampler.share == 0.0
    assert torch.equal(sampler.draw(9), uniform.draw(9))


def test_the_share_of_children_rises_from_0_15_to_0_75_in_ten_renewals():
    shares = [taught(renewals).share for renewals in (1, 2, 10, 15)]
    assert shares == pytest.approx([0.15, 0.15 + 0.6 / 9, 0.75, 0.75])


def test_children_stand_around_the_run_that_is_learned_badly():
    sampler = taught(10)
    parent = SPACE.to_unit(UniformSampler(SPACE, 0).draw(10))[7]
    unit = SPACE.to_unit(sampler.draw(400))
    near = ((unit - parent).abs() < 0.1).all(1).double().mean()
    assert near == pytest.approx(0.75 + 0.25 * 0.04, abs=0.06)
    assert bool(((unit >= -1e-9) & (unit <= 1 + 1e-9)).all())


def test_a_child_that_always_leaves_the_cube_is_its_parent():
    sampler = BreedSampler(SPACE, deviation=1e6)
    corner = np.array([0.0, 1.0])
    child = sampler._mutated(corner, np.random.default_rng(0))
    assert ((child >= 0) & (child <= 1)).all()


def test_breed_goes_on_from_its_state_with_its_parents():
    sampler = taught(3)
    twin = BreedSampler(SPACE, seed=0, period=2, deviation=0.02)
    twin.load_state_dict(json.loads(json.dumps(sampler.state_dict())))
    assert twin.share == sampler.share > 0
    assert torch.equal(twin.draw(50), sampler.draw(50))


def test_equal_losses_make_no_parents():
    sampler = BreedSampler(SPACE, period=1)
    codes = sampler.draw(4)
    sampler.finished(0)
    sampler.observe(torch.arange(4), codes, torch.ones(4))
    assert sampler.share == 0.0
