"""Wide networks with a random scale of their read-out."""

import math

import pytest
import torch
from scipy import stats

from understudy.nn.scale_prior import InverseGamma, PointMass
from understudy.nn.wide_network import (
    last_feature_kernel,
    sample_last_features,
    sample_wide_network,
    train_readout,
)

HIDDEN = {"depth": 2, "activation": "erf", "weight_std": 3.0, "bias_std": 0.5}
X = torch.tensor([[-1.0, 0.3], [0.4, 2.0], [1.5, -0.2]], dtype=torch.float64)


def test_sampled_features_and_networks_have_the_kernel_of_their_limit():
    generator = torch.Generator().manual_seed(0)
    exact = last_feature_kernel(X, X, **HIDDEN)
    features = sample_last_features(X, 200, width=256, generator=generator, **HIDDEN)
    drawn = (features @ features.mT / 256).mean(0)
    assert torch.allclose(drawn, exact, rtol=0.03, atol=0.02)
    networks = [
        sample_wide_network(2, PointMass(), width=256, generator=generator, **HIDDEN)
        for _ in range(20)
    ]
    hidden = torch.stack([network[:-1](X.float()) for network in networks]).double()
    assert torch.allclose((hidden @ hidden.mT / 256).mean(0), exact, rtol=0.1, atol=0.05)


def test_one_scale_is_drawn_a_network():
    generator = torch.Generator().manual_seed(0)
    prior = InverseGamma(2.0, 2.0)
    scales = [
        256
        * float(
            sample_wide_network(2, prior, width=256, generator=generator, depth=1)[-1]
            .weight.square()
            .mean()
        )
        for _ in range(300)
    ]
    assert stats.kstest(scales, stats.invgamma(2.0, scale=2.0).cdf).pvalue > 0.01
    assert sample_wide_network(2, prior, depth=1)[-1].bias is None


def test_the_trained_readout_is_where_gradient_descent_leads():
    torch.manual_seed(0)
    network = sample_wide_network(2, PointMass(), width=64, **HIDDEN).double()
    y, at = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64), torch.tensor([[0.3, 0.3]]).double()
    hidden, last = network[:-1], network[-1]
    with torch.no_grad():
        features, at_features = hidden(X), hidden(at)
    f, f_at = (v.detach()[None, :, 0] for v in (network(X), network(at)))
    closed = train_readout(features[None], at_features[None], y, f, f_at)
    rate = 1.0 / float(torch.linalg.matrix_norm(features, 2)) ** 2
    for _ in range(3000):
        error = last(features)[:, 0] - y
        last.weight.data -= rate * (error @ features)[None].detach()
    assert float(network(at)) == pytest.approx(float(closed), abs=1e-5)


def test_a_seed_draws_the_same_network():
    def first(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return sample_wide_network(2, InverseGamma(), generator=generator)(X.float())

    assert torch.equal(first(1), first(1)) and not torch.equal(first(1), first(2))
    assert math.isfinite(float(first(1).detach().sum()))
