"""Priors of a scale and their posteriors."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad

from understudy.core.errors import UserError
from understudy.nn.scale_prior import (
    BurrXII,
    InverseGamma,
    PointMass,
    ScalePrior,
    importance,
    scale_prior,
)

S = torch.tensor([0.02, 0.3, 1.0, 7.0, 300.0], dtype=torch.float64)


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("prior", "oracle"),
    [
        (InverseGamma(2.0, 3.0), stats.invgamma(2.0, scale=3.0)),
        (InverseGamma(0.5, 0.5), stats.invgamma(0.5, scale=0.5)),
        (BurrXII(3.0, 1.0), stats.burr12(3.0, 1.0)),
        (BurrXII(1.0, 2.0), stats.burr12(1.0, 2.0)),
    ],
)
def test_density_and_quantiles_are_those_of_scipy(prior, oracle):
    np.testing.assert_allclose(prior.log_density(S), oracle.logpdf(S.numpy()), rtol=1e-10)
    u = numbers(0.001, 0.2, 0.5, 0.99)
    np.testing.assert_allclose(prior.quantile(u), oracle.ppf(u.numpy()), rtol=1e-9)


def by_integration(prior: ScalePrior, rows: int, Q: float) -> float:
    """Evidence by adaptive quadrature in log s."""

    def density(x: float) -> float:
        s = math.exp(x)
        log = -0.5 * rows * x - 0.5 * Q / s + x + float(prior.log_density(numbers(s)))
        return math.exp(log - log_mode)

    log_mode = 0.0
    grid = np.linspace(-12.0, 12.0, 4001)
    log_mode = max(math.log(density(x)) for x in grid[::20] if density(x) > 0.0)
    return log_mode + math.log(quad(density, -15.0, 15.0, limit=400)[0])


@pytest.mark.parametrize("prior", [InverseGamma(2.0, 2.0), BurrXII(2.0, 1.0), BurrXII(1.0, 3.0)])
@pytest.mark.parametrize(("rows", "Q"), [(3, 2.0), (40, 400.0), (40, 0.5)])
def test_the_evidence_is_the_integral(prior, rows, Q):
    estimate = importance(prior, rows, numbers(Q), proposal="adapted").log_evidence
    assert float(estimate) == pytest.approx(by_integration(prior, rows, Q), abs=2e-3)


def test_the_closed_form_of_the_evidence_is_the_integral():
    prior = InverseGamma(2.0, 3.0)
    closed = float(prior.log_evidence(10, numbers(25.0)))
    assert closed == pytest.approx(by_integration(prior, 10, 25.0), abs=1e-8)


def test_the_adapted_proposal_integrates_an_inverse_gamma_to_many_digits():
    prior, Q = InverseGamma(2.0, 2.0), numbers(3.0, 5000.0)
    found = importance(prior, 50, Q, proposal="adapted")
    assert (found.effective_size > 500.0).all()
    assert torch.allclose(found.log_evidence, prior.log_evidence(50, Q), atol=1e-5)


def test_the_adapted_proposal_reaches_far_into_the_tail():
    found = importance(InverseGamma(2.0, 2.0), 160, numbers(2440.0), proposal="adapted")
    posterior = stats.invgamma(82.0, scale=1222.0)
    assert float(found.values.max()) > 5.0 * posterior.ppf(0.5)
    y = 25.0 * posterior.mean() ** 0.5  # of a normal of variance s: the density is that of t
    log_normal = -0.5 * (2.0 * math.pi * found.values).log() - 0.5 * y**2 / found.values
    density = torch.logsumexp(log_normal + found.log_weights.log_softmax(0), 0)
    exact = stats.t(164.0, scale=(1222.0 / 82.0) ** 0.5).logpdf(y)
    assert float(density) == pytest.approx(exact, abs=0.05)


def test_a_prior_that_collapses_is_left_for_the_adapted_proposal():
    Q = numbers(4e5)
    assert float(importance(BurrXII(2.0, 2.0), 400, Q, proposal="prior").effective_size) < 10.0
    assert float(importance(BurrXII(2.0, 2.0), 400, Q, proposal="auto").effective_size) > 400.0


def test_the_prior_serves_as_proposal_where_it_can():
    Q = numbers(4.0)
    auto, prior = (importance(BurrXII(), 4, Q, proposal=p) for p in ("auto", "prior"))
    assert torch.equal(auto.values, prior.values)


def test_weighted_draws_have_the_quantiles_of_the_posterior():
    prior, Q, u = InverseGamma(2.0, 2.0), numbers(12.0), numbers(0.01, 0.3, 0.5, 0.95)
    found = importance(prior, 10, Q, proposal="prior").quantile(u.unsqueeze(1))
    exact = stats.invgamma(7.0, scale=8.0).ppf(u.numpy())
    np.testing.assert_allclose(found[:, 0], exact, rtol=0.01)


def test_the_mean_of_a_heavy_tail_is_infinite():
    assert math.isinf(float(InverseGamma(1.0, 2.0).mean))
    assert float(InverseGamma(3.0, 2.0).mean) == pytest.approx(1.0)


def test_a_point_mass_learns_nothing():
    prior = PointMass(2.0)
    assert prior.posterior(5, numbers(3.0)) is prior
    assert float(prior.log_evidence(2, numbers(8.0))) == pytest.approx(-math.log(2.0) - 2.0)


def test_draws_follow_the_prior():
    drawn = BurrXII(2.0, 1.0).sample(4000, torch.Generator().manual_seed(0))
    assert stats.kstest(drawn.numpy(), stats.burr12(2.0, 1.0).cdf).pvalue > 0.01


@pytest.mark.parametrize("prior", [InverseGamma(2.0, 3.0), BurrXII(1.0, 3.0), PointMass(2.0)])
def test_a_prior_is_described_and_taken_back(prior):
    assert scale_prior(prior.describe()) == prior
    assert scale_prior(prior) is prior


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: InverseGamma(0.0, 1.0), "alpha"),
        (lambda: InverseGamma(1.0, math.inf), "beta"),
        (lambda: BurrXII(1.0, -1.0), "d of BurrXII"),
        (lambda: PointMass("one"), "must be a number"),
        (lambda: scale_prior("cauchy"), "scale_prior must be one of"),
    ],
)
def test_wrong_priors_are_refused(make, named):
    with pytest.raises(UserError, match=named):
        make()
