import math

import numpy as np
import pytest
import torch

from understudy.core.errors import UserError
from understudy.sample import Chains, Plan, resume, sample
from understudy.sample.ensemble import EnsembleSampler

COVARIANCE = torch.tensor([[4.0, 1.8], [1.8, 1.0]], dtype=torch.float64)


def gaussian(z):
    return -0.5 * ((z @ torch.linalg.inv(COVARIANCE)) * z).sum(1)


def start(walkers, dim=2, ensembles=1):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ensembles * walkers, dim, generator=generator, dtype=torch.float64)


def test_a_gaussian_is_sampled_with_its_moments():
    chains = sample(EnsembleSampler(60), gaussian, start(60), Plan(100, 600), seed=1)
    draws = chains.draws.reshape(-1, 2)
    torch.testing.assert_close(
        draws.mean(0), torch.zeros(2, dtype=torch.float64), atol=0.08, rtol=0
    )
    torch.testing.assert_close(torch.cov(draws.T), COVARIANCE, atol=0.15, rtol=0.0)


def test_ensembles_have_targets_of_their_own():
    centre = torch.tensor([-3.0, 0.0, 5.0], dtype=torch.float64).view(3, 1, 1)
    sd = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64).view(3, 1, 1)

    def target(z):
        away = (z.view(3, -1, 2) - centre) / sd
        return -0.5 * away.square().sum(-1).flatten()

    sampler = EnsembleSampler(40)
    chains = sample(sampler, target, start(40, ensembles=3), Plan(200, 900), seed=2)
    draws = chains.draws.view(900, 3, 40, 2)
    torch.testing.assert_close(draws.mean((0, 2, 3)), centre.flatten(), atol=0.15, rtol=0.05)
    torch.testing.assert_close(draws.std((0, 2, 3)), sd.flatten(), atol=0.0, rtol=0.05)


def test_a_bounded_target_is_never_left():
    def target(z):
        return torch.where(((z > 0) & (z < 1)).all(1), 0.0, -math.inf).to(z)

    chains = sample(EnsembleSampler(60), target, 0.25 + 0.5 * start(60).sigmoid(), Plan(100, 500))
    draws = chains.draws.reshape(-1, 2)
    assert draws.min() > 0 and draws.max() < 1
    shares = torch.histc(draws[:, 0], 4, 0, 1) / len(draws)
    torch.testing.assert_close(shares, torch.full_like(shares, 0.25), atol=0.03, rtol=0)


@pytest.mark.slow
def test_it_samples_as_emcee_does():
    """Acceptance and mean absolute deviation of a banana-shaped density beside emcee's."""
    emcee = pytest.importorskip("emcee")

    def banana(z):
        return -0.5 * (z[:, 0] ** 2 / 4.0 + (z[:, 1] - 0.5 * z[:, 0] ** 2) ** 2)

    ours = sample(EnsembleSampler(80), banana, start(80), Plan(200, 1000), seed=3)
    peer = emcee.EnsembleSampler(
        80, 2, lambda z: banana(torch.from_numpy(z)).numpy(), vectorize=True
    )
    peer.random_state = np.random.RandomState(0).get_state()
    peer.run_mcmc(start(80).numpy(), 1200)
    theirs = peer.get_chain(discard=200, flat=True)
    acceptance = ours.statistics["acceptance"][200:].mean()
    assert float(acceptance) == pytest.approx(peer.acceptance_fraction.mean(), abs=0.02)
    spread = ours.draws.reshape(-1, 2).abs().mean(0)
    np.testing.assert_allclose(spread, np.abs(theirs).mean(0), rtol=0.08)


def test_chains_go_on_from_a_file_as_if_they_had_not_stopped(tmp_path):
    sampler = EnsembleSampler(8)
    whole = sample(sampler, gaussian, start(8), Plan(10, 30), seed=4)
    part = sample(sampler, gaussian, start(8), Plan(10, 15), seed=4)
    part.save(tmp_path / "chains.us", sampler)
    stored = Chains.load(tmp_path / "chains.us", sampler)
    stored.plan = Plan(10, 30)
    assert torch.equal(resume(sampler, gaussian, stored).draws, whole.draws)


@pytest.mark.parametrize(
    ("walkers", "stretch", "said"),
    [(3, 2.0, "even"), (2, 2.0, "even"), (8, 1.0, "above 1"), (8, math.inf, "finite")],
)
def test_settings_that_cannot_work_are_refused(walkers, stretch, said):
    with pytest.raises(UserError, match=said):
        EnsembleSampler(walkers, stretch)


def test_walkers_must_be_more_than_dimensions_and_fill_ensembles():
    with pytest.raises(UserError, match="no ensembles of 4 walkers"):
        EnsembleSampler(4).start(gaussian, start(6))
    with pytest.raises(UserError, match="more than dimensions"):
        EnsembleSampler(4).start(gaussian, start(4, dim=5))


def test_a_walker_that_starts_outside_is_named():
    position = start(8)
    with pytest.raises(UserError, match="walker 5 starts"):
        EnsembleSampler(8).start(
            lambda z: torch.where((z == position[5]).all(1), -math.inf, gaussian(z)), position
        )
