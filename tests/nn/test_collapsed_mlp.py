"""The output layer integrated out: the density is the marginal one, and draws complete it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from understudy.nn.bayesian_mlp import FlatMLP, GaussianJoint, ScaledMLP
from understudy.nn.collapsed_mlp import CollapsedJoint
from understudy.sample import HMC, Plan, sample

DOUBLE = torch.float64
CHAINS = 3


def data(rows: int = 9, inputs: int = 2, outputs: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(rows, inputs, generator=generator, dtype=DOUBLE)
    return x, torch.randn(rows, outputs, generator=generator, dtype=DOUBLE)


def pair(network: FlatMLP, weight: Tensor | None = None) -> tuple[CollapsedJoint, GaussianJoint]:
    """Collapsed and full densities with other variances for each chain."""
    x, y = data(inputs=network.sizes[0], outputs=network.sizes[-1])
    prior = torch.tensor([0.7, 1.0, 2.5], dtype=DOUBLE)
    noise = torch.tensor([0.3, 0.01, 0.1], dtype=DOUBLE)
    known = (network, x, y, prior, noise, weight)
    return CollapsedJoint(*known), GaussianJoint(*known)


def seen_rows() -> Tensor:
    weight = torch.ones(CHAINS, 9, dtype=DOUBLE)
    weight[0, :3] = weight[2, 7:] = 0.0
    return weight


def cases() -> list:
    return [
        pytest.param(FlatMLP((2, 4, 3, 2)), None, id="two outputs"),
        pytest.param(FlatMLP((2, 5, 1), "relu"), None, id="relu"),
        pytest.param(ScaledMLP((2, 4, 3, 2)), None, id="scaled weights"),
        pytest.param(FlatMLP((2, 3, 2)), seen_rows(), id="some rows"),
    ]


def hidden_weights(target: CollapsedJoint, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(CHAINS, target.hidden.dim, generator=generator, dtype=DOUBLE)


@pytest.mark.parametrize(("network", "weight"), cases())
def test_density_is_the_integral_of_the_full_one_over_the_output_layer(network, weight):
    """The full density is Gaussian in the output layer: its integral is exact by Laplace."""
    collapsed, full = pair(network, weight)
    theta = hidden_weights(collapsed)
    size = network.dim - collapsed.hidden.dim

    def log_full(output: Tensor) -> Tensor:
        return full(torch.cat([theta, output], dim=1))

    def one_hessian(chain: int) -> Tensor:
        def value(own: Tensor) -> Tensor:
            output = torch.zeros(CHAINS, size, dtype=DOUBLE)
            return log_full(output.index_put((torch.tensor(chain),), own))[chain]

        return torch.autograd.functional.hessian(value, torch.zeros(size, dtype=DOUBLE))

    origin = torch.zeros(CHAINS, size, dtype=DOUBLE, requires_grad=True)
    at_origin = log_full(origin)
    (slope,) = torch.autograd.grad(at_origin.sum(), origin)
    precision = -torch.stack([one_hessian(chain) for chain in range(CHAINS)])
    top = torch.linalg.solve(precision, slope)
    constant = 0.5 * size * torch.log(torch.tensor(2.0 * torch.pi, dtype=DOUBLE))
    integral = at_origin + 0.5 * (slope * top).sum(1) + constant - 0.5 * precision.logdet()
    assert torch.allclose(collapsed(theta), integral, rtol=1e-10)


@pytest.mark.parametrize(("network", "weight"), cases())
def test_gradient_is_that_of_differences(network, weight):
    collapsed, _ = pair(network, weight)
    theta = hidden_weights(collapsed)
    _, gradient = collapsed.value_and_gradient(theta)
    for seed in range(3):
        along = hidden_weights(collapsed, 10 + seed)
        step = 1e-5 * along
        change = (collapsed(theta + step) - collapsed(theta - step)) / 2e-5
        assert torch.allclose(change, (gradient * along).sum(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("network", "weight"), cases())
def test_drawn_output_layers_have_the_moments_of_the_full_density(network, weight):
    """Its mean is where the full density has its top, its covariance the inverse curvature."""
    collapsed, full = pair(network, weight)
    theta = hidden_weights(collapsed)
    generator = torch.Generator().manual_seed(1)
    draws = torch.stack([collapsed.complete(theta, generator) for _ in range(4000)])
    assert torch.equal(draws[..., : theta.shape[1]], theta.expand(4000, *theta.shape))
    mean = draws.mean(0).requires_grad_()
    (slope,) = torch.autograd.grad(full(mean).sum(), mean)
    slope = slope[:, theta.shape[1] :]
    output = draws[..., theta.shape[1] :]
    # in a Gaussian the gradient at the mean of n draws has covariance precision / n
    for chain in range(CHAINS):
        covariance = torch.cov(output[:, chain].T)
        away = slope[chain] @ covariance @ slope[chain] * 4000
        assert float(away) < 3.0 * len(covariance) + 10.0  # chi-squared of that many degrees
    top = torch.stack([full(row) for row in draws])
    excess = 2.0 * (full(mean.detach()) - top).mean(0)
    size = output.shape[2]
    assert torch.allclose(excess, torch.full_like(excess, size), rtol=0.08)


def test_chains_with_and_without_the_output_layer_agree_on_the_function():
    """Hidden chains completed by exact draws have the means and variances of full chains."""
    network = FlatMLP((1, 3, 1))
    x = torch.linspace(-1.0, 1.0, 6, dtype=DOUBLE).unsqueeze(1)
    chains = 100
    one = torch.ones(chains, dtype=DOUBLE)
    known = (network, x, torch.sin(2.0 * x), one, 0.05 * one)
    full, collapsed = GaussianJoint(*known), CollapsedJoint(*known)
    start = network.initial(chains, torch.Generator().manual_seed(0))
    sampler = HMC(0.05, 1.5, jitter=0.5, shared=True)
    whole = sample(sampler, full, start, Plan(80, 60), seed=1).draws
    hidden = sample(sampler, collapsed, start[:, : collapsed.hidden.dim], Plan(80, 60), seed=2)
    generator = torch.Generator().manual_seed(3)
    completed = torch.stack([collapsed.complete(theta, generator) for theta in hidden.draws])
    at = torch.tensor([[-1.5], [0.1], [1.5]], dtype=DOUBLE)
    one_way, other = (
        torch.stack([network(theta, at)[..., 0] for theta in draws]).flatten(0, 1)
        for draws in (whole, completed)
    )
    scale = one_way.std(0)
    assert torch.allclose(one_way.mean(0) / scale, other.mean(0) / scale, atol=0.1)
    assert torch.allclose(other.std(0) / scale, torch.ones(3, dtype=DOUBLE), atol=0.1)


def test_single_precision_weights_lose_no_more_than_their_rounding():
    collapsed, _ = pair(FlatMLP((2, 4, 3, 2)))
    theta = hidden_weights(collapsed)
    x, y = collapsed.x.float(), collapsed.y.float()
    prior, noise = collapsed.prior_variance.float(), collapsed.noise_variance.float()
    single = CollapsedJoint(collapsed.network, x, y, prior, noise)
    value, gradient = single.value_and_gradient(theta.float())
    exact, slope = collapsed.value_and_gradient(theta)
    assert value.dtype == gradient.dtype == torch.float32
    assert torch.allclose(value.double(), exact, rtol=1e-5)
    assert torch.allclose(gradient.double(), slope, rtol=1e-3, atol=1e-3)


def test_a_network_without_hidden_layers_is_refused():
    x, y = data()
    one = torch.ones(1, dtype=DOUBLE)
    with pytest.raises(ValueError, match="without hidden layers"):
        CollapsedJoint(FlatMLP((2, 2)), x, y, one, one)
