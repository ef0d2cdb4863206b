"""Densities of networks put together from a likelihood and a prior."""

from __future__ import annotations

import pytest
import torch

from understudy.nn.bayesian_mlp import (
    DiagonalPrior,
    FlatMLP,
    GaussianJoint,
    GaussianLikelihood,
    IsotropicPrior,
    Joint,
    MinibatchGaussian,
    MinibatchJoint,
    activated,
)
from understudy.nn.mlp import ACTIVATIONS
from understudy.sample import value_and_gradient

NETWORK = FlatMLP((2, 5, 2))
GENERATOR = torch.Generator().manual_seed(0)
X, Y = (torch.randn(9, 2, generator=GENERATOR, dtype=torch.float64) for _ in range(2))
THETA = NETWORK.initial(3, GENERATOR)
VARIANCE = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)


def test_a_diagonal_prior_is_a_product_of_normals():
    variance = torch.rand(3, NETWORK.dim, generator=GENERATOR, dtype=torch.float64) + 0.1
    value, gradient = DiagonalPrior(variance).value_and_gradient(THETA)
    expected = torch.distributions.Normal(0.0, variance.sqrt()).log_prob(THETA).sum(1)
    assert torch.allclose(value, expected)
    assert torch.allclose(gradient, -THETA / variance)


def test_an_isotropic_prior_is_a_diagonal_one_of_equal_variances():
    wide = VARIANCE.unsqueeze(1).expand_as(THETA)
    first = IsotropicPrior(VARIANCE).value_and_gradient(THETA)
    second = DiagonalPrior(wide).value_and_gradient(THETA)
    assert torch.allclose(first[0], second[0]) and torch.allclose(first[1], second[1])


def test_a_joint_of_its_parts_is_the_joint_density():
    noise = torch.full((3,), 0.3, dtype=torch.float64)
    whole = GaussianJoint(NETWORK, X, Y, VARIANCE, noise)
    parts = Joint(GaussianLikelihood(NETWORK, X, Y, noise), IsotropicPrior(VARIANCE))
    for first, second in zip(
        whole.value_and_gradient(THETA), parts.value_and_gradient(THETA), strict=True
    ):
        assert torch.equal(first, second)


def test_a_joint_of_parts_has_the_gradient_of_autograd():
    noise = torch.full((3,), 0.3, dtype=torch.float64)
    prior = DiagonalPrior(torch.full((NETWORK.dim,), 0.7, dtype=torch.float64))
    joint = Joint(GaussianLikelihood(NETWORK, X, Y, noise), prior)
    own, auto = joint.value_and_gradient(THETA), value_and_gradient(joint.__call__)(THETA)
    assert torch.allclose(own[0], auto[0]) and torch.allclose(own[1], auto[1])


def test_a_batch_of_all_rows_with_known_noise_is_the_whole():
    noise = torch.full((3,), 0.3, dtype=torch.float64)
    rows, counts = torch.arange(9).expand(3, 9), torch.full((3,), 9)
    prior = IsotropicPrior(VARIANCE)
    part = MinibatchJoint(MinibatchGaussian(NETWORK, X, Y, 0.3, rows, counts), prior)
    whole = Joint(GaussianLikelihood(NETWORK, X, Y, noise), prior)
    for first, second in zip(
        part.value_and_gradient(THETA, rows), whole.value_and_gradient(THETA), strict=True
    ):
        assert torch.allclose(first, second)


def test_batches_of_a_chain_average_to_its_own_rows():
    """Chain 0 sees rows 3 to 8 only: the mean over single rows is the estimate from all six."""
    rows, counts = torch.arange(3, 12).remainder(9).expand(3, 9), torch.full((3,), 6)
    likelihood = MinibatchGaussian(NETWORK, X, Y, 0.3, rows, counts)
    singles = [likelihood.value_and_gradient(THETA, torch.full((3, 1), r)) for r in range(6)]
    whole = likelihood.value_and_gradient(THETA, torch.arange(6).expand(3, 6))
    for i in (0, 1):
        assert torch.allclose(torch.stack([single[i] for single in singles]).mean(0), whole[i])
    noise = torch.full((3,), 0.3, dtype=torch.float64)
    alone = GaussianLikelihood(NETWORK, X[3:], Y[3:], noise).value_and_gradient(THETA)
    assert torch.allclose(whole[0], alone[0]) and torch.allclose(whole[1], alone[1])


@pytest.mark.parametrize("activation", ["tanh", "relu", "silu"])
def test_activations_and_gradients_are_those_of_autograd(activation):
    z = torch.linspace(-30.0, 30.0, 1001, dtype=torch.float64)
    exact = ACTIVATIONS[activation](z)
    assert torch.allclose(activated(z.clone(), activation), exact, rtol=0.0, atol=1e-15)
    network = FlatMLP((2, 4, 3, 2), activation)
    theta = 2.0 * network.initial(3, torch.Generator().manual_seed(1))
    output, pullback = network.vjp(theta, X)
    cotangent = torch.randn(output.shape, dtype=torch.float64)
    leaf = theta.clone().requires_grad_()
    assert torch.allclose(network(leaf, X), output)
    (expected,) = torch.autograd.grad(network(leaf, X), leaf, cotangent)
    assert torch.allclose(pullback(cotangent.clone()), expected)
