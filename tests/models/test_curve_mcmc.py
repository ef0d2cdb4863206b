import math

import pytest
import torch
from torch.distributions import Normal

from understudy.models.incontext.curve_mcmc import (
    CurvePosterior,
    LastValue,
    MCMCExtrapolator,
    times,
)
from understudy.models.incontext.curve_prior import EPOCHS, CurvePrior

PRIOR = CurvePrior()
AHEAD = torch.tensor([20.0, 50.0, 100.0], dtype=torch.float64)


@pytest.fixture(scope="module")
def curves():
    return PRIOR.curves(6, EPOCHS, torch.Generator().manual_seed(11), torch.float64)


def test_the_density_is_prior_times_likelihood_where_the_curve_is_acceptable(curves):
    _, noisy = curves
    generator = torch.Generator().manual_seed(0)
    z, clean = PRIOR.accepted(8, EPOCHS, generator, torch.float64)
    posterior = CurvePosterior(PRIOR, noisy[:2, :10])
    found = posterior(torch.cat([z, z])).view(2, 8)
    peer = Normal(clean[:, :10], z[:, -1:].exp())
    expected = torch.stack([peer.log_prob(noisy[k, :10]).sum(1) for k in range(2)])
    torch.testing.assert_close(found, PRIOR.log_density(z) + expected)


def test_a_curve_that_leaves_the_interval_later_is_excluded(curves):
    _, noisy = curves
    z = PRIOR.draw(500, torch.Generator().manual_seed(1), torch.float64)
    clean = PRIOR.curve(z, times(EPOCHS, z))
    within = ((clean[:, :10] >= 0) & (clean[:, :10] <= 1)).all(1)
    later = within & ((clean[:, 10:] < 0) | (clean[:, 10:] > 1)).any(1)
    assert later.any()
    assert (CurvePosterior(PRIOR, noisy[:1, :10])(z[later]) == -math.inf).all()


@pytest.mark.slow
def test_predictions_agree_with_importance_sampling():
    """The prior's own curves, weighted by the likelihood of three values, are an exact answer.

    It is exact enough where many of them have weight: for curves with much noise.
    """
    _, noisy = PRIOR.curves(60, EPOCHS, torch.Generator().manual_seed(12), torch.float64)
    z, clean = PRIOR.accepted(40_000, EPOCHS, torch.Generator().manual_seed(2), torch.float64)
    posterior = CurvePosterior(PRIOR, noisy[:, :3])
    w = posterior.log_likelihood(z.unsqueeze(0), clean.unsqueeze(0)).softmax(1)
    effective, best = (1.0 / w.square().sum(1)).topk(4)
    assert effective.min() > 200
    exact = w[best] @ clean[:, AHEAD.long() - 1]
    chains = MCMCExtrapolator(walkers=40, burn_in=300, samples=100, thin=6)
    found = chains.predict(noisy[best, :3], AHEAD)
    torch.testing.assert_close(found.mean.T, exact, atol=0.05, rtol=0.0)


def test_the_same_seed_predicts_the_same(curves):
    _, noisy = curves
    chains = MCMCExtrapolator(walkers=26, burn_in=5, samples=5, seed=3)
    first, again = (chains.predict(noisy[:2, :5], AHEAD).mean for _ in range(2))
    assert torch.equal(first, again)


def test_what_a_constant_curve_predicts_is_finite():
    chains = MCMCExtrapolator(walkers=26, burn_in=20, samples=10)
    found = chains.predict(torch.full((1, 12), 0.7), AHEAD)
    assert found.mean.isfinite().all() and (found.sd > 0).all()


def test_the_last_value_goes_on_with_an_error_that_grows():
    found = LastValue(count=2000).predict(torch.tensor([[0.1, 0.4]]), AHEAD)
    torch.testing.assert_close(
        found.mean, torch.full((3, 1), 0.4, dtype=torch.float64), rtol=1e-6, atol=0
    )
    assert (found.sd.diff(dim=0) > 0).all()
