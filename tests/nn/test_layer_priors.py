"""Priors over the weights of layers: draws, densities and their agreement."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from understudy.nn.bayesian_mlp import DiagonalPrior, FlatMLP, ScaledMLP
from understudy.nn.layer_priors import (
    GaussianLayerPrior,
    HierarchicalLayerPrior,
    LayerPrior,
    PlanarFlowLayerPrior,
    fixed_gaussian,
    fixed_hierarchical,
    group_sizes,
    restored,
)
from understudy.sample import value_and_gradient

NETWORK = ScaledMLP((2, 5, 4, 2))
FAMILIES = [GaussianLayerPrior, HierarchicalLayerPrior, PlanarFlowLayerPrior]
each = pytest.mark.parametrize("family", FAMILIES)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bent_flow(network: FlatMLP = NETWORK) -> PlanarFlowLayerPrior:
    """Flows that bend a great deal, some nearly as far as they can be inverted."""
    prior = PlanarFlowLayerPrior(network)
    draw = generator(5)
    with torch.no_grad():
        for parameter in prior.parameters():
            noise = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
            parameter += noise
    return prior


def test_a_scaled_network_divides_weights_by_the_root_of_their_fan_in():
    theta = NETWORK.initial(3, generator())
    x = torch.randn(6, 2, generator=generator(1), dtype=torch.float64)
    h = x.expand(3, 6, 2)
    for layer, (weight, bias) in enumerate(NETWORK.layers(theta)):
        h = h @ weight / math.sqrt(weight.shape[1]) + bias
        h = torch.tanh(h) if layer < 2 else h
    plain = FlatMLP(NETWORK.sizes)
    assert torch.allclose(NETWORK(theta, x), h)
    assert torch.allclose(plain(NETWORK.plain(theta), x), h)
    assert torch.allclose(NETWORK.plain(theta), plain.initial(3, generator()))


@pytest.mark.parametrize("activation", ["tanh", "silu"])
def test_the_pullback_of_a_scaled_network_is_that_of_autograd(activation):
    network = ScaledMLP((2, 5, 2), activation)
    theta = network.initial(3, generator()).requires_grad_()
    x = torch.randn(6, 2, generator=generator(1), dtype=torch.float64)
    cotangent = torch.randn(3, 6, 2, generator=generator(2), dtype=torch.float64)
    output, pullback = network.vjp(theta.detach(), x)
    (expected,) = torch.autograd.grad(network(theta, x), theta, cotangent)
    assert torch.allclose(output, network(theta, x))
    assert torch.allclose(pullback(cotangent), expected)


@each
def test_functions_come_as_points_by_functions_by_outputs(family):
    x = torch.zeros(7, 2, dtype=torch.float64)
    values = family(NETWORK).sample_functions(x, 3, generator())
    assert values.shape == (7, 3, 2)
    assert torch.equal(values[0], values[6])  # one function at the same point
    assert not torch.equal(values[0, 0], values[0, 1])


@each
def test_every_parameter_shapes_the_functions(family):
    prior = family(NETWORK)
    x = torch.randn(7, 2, generator=generator(3), dtype=torch.float64)
    prior.sample_functions(x, 4, generator()).square().sum().backward()
    assert all(bool((p.grad.abs() > 0).all()) for p in prior.parameters())


@each
def test_its_gradient_is_that_of_its_density(family):
    prior = bent_flow() if family is PlanarFlowLayerPrior else family(NETWORK)
    theta = prior.sample(4, generator()).detach()
    own, auto = prior.value_and_gradient(theta), value_and_gradient(prior.log_prob)(theta)
    assert torch.allclose(own[0], auto[0]) and torch.allclose(own[1], auto[1])
    assert torch.autograd.gradcheck(prior.log_prob, (theta[:1].clone().requires_grad_(),))


@each
def test_a_density_of_many_chains_is_that_of_each(family):
    prior = family(NETWORK)
    theta = prior.sample(5, generator()).detach()
    together = prior.log_prob(theta)
    assert together.shape == (5,)
    assert torch.allclose(together, torch.cat([prior.log_prob(one[None]) for one in theta]))


def test_gaussian_weights_have_the_softplus_of_rho_as_deviation():
    prior = GaussianLayerPrior(FlatMLP((3, 40, 1)))
    with torch.no_grad():
        prior.rho.copy_(torch.tensor([-2.0, 0.0, 1.0, 3.0]))
    theta = prior.sample(4000, generator()).detach()
    found = [part.std() for part in theta.split(group_sizes(prior.network), dim=1)]
    expected = torch.nn.functional.softplus(prior.rho)
    assert torch.allclose(torch.stack(found), expected.detach(), rtol=0.05)


def test_initial_deviations_are_those_of_the_official_code():
    assert GaussianLayerPrior(NETWORK).deviation.tolist() == pytest.approx(
        [1.3133] * NETWORK.dim, abs=1e-4
    )


def test_a_deviation_for_each_parameter_starts_as_the_shared_one():
    shared, own = (GaussianLayerPrior(NETWORK, per=per) for per in ("layer", "parameter"))
    theta = shared.sample(3, generator()).detach()
    assert len(own.rho) == NETWORK.dim
    assert torch.allclose(shared.log_prob(theta), own.log_prob(theta))


def test_the_fixed_gaussian_prior_is_standard_normal():
    theta = torch.randn(3, NETWORK.dim, generator=generator(), dtype=torch.float64)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(theta).sum(1)
    assert torch.allclose(fixed_gaussian(NETWORK).log_prob(theta), expected)


def test_the_density_of_hierarchical_weights_is_a_multivariate_student_t():
    """Precision Gamma(a, r) makes n weights Student-t with 2a degrees and squared scale r/a."""
    prior = HierarchicalLayerPrior(NETWORK, shape=1.5, rate=0.7)
    theta = prior.sample(3, generator()).detach()
    expected = torch.zeros(3, dtype=torch.float64)
    for part in theta.split(group_sizes(NETWORK), dim=1):
        n = part.shape[1]
        student = stats.multivariate_t(shape=0.7 / 1.5 * torch.eye(n).double().numpy(), df=3.0)
        expected += torch.from_numpy(student.logpdf(part.numpy())).reshape(3)
    assert torch.allclose(prior.log_prob(theta), expected)


def test_every_function_has_precisions_of_its_own():
    prior = fixed_hierarchical(FlatMLP((1, 400, 1)))
    theta = prior.sample(300, generator()).detach()
    spreads = theta[:, :400].std(1)
    exponent = stats.kstest(spreads.pow(-2).numpy(), stats.expon.cdf)  # Gamma(1, 1)
    assert exponent.pvalue > 0.01


def test_precisions_given_weights_are_the_conjugate_gamma():
    prior = HierarchicalLayerPrior(NETWORK, shape=2.0, rate=0.5)
    theta = prior.sample(1, generator()).detach()
    drawn = prior.resample(theta.expand(4000, -1), generator())
    for g, part in enumerate(theta.split(group_sizes(NETWORK), dim=1)):
        shape = 2.0 + 0.5 * part.shape[1]
        rate = 0.5 + 0.5 * float(part.square().sum())
        law = stats.gamma(shape, scale=1.0 / rate)
        assert stats.kstest(drawn[:, g].numpy(), law.cdf).pvalue > 0.001


def test_weights_given_precisions_are_normal():
    prior = HierarchicalLayerPrior(NETWORK)
    precisions = prior.sample_precisions(3, generator()).detach()
    theta = torch.randn(3, NETWORK.dim, generator=generator(1), dtype=torch.float64)
    value, gradient = prior.given(precisions).value_and_gradient(theta)
    sizes = torch.tensor(group_sizes(NETWORK))
    deviation = precisions.repeat_interleave(sizes, 1).rsqrt()
    expected = torch.distributions.Normal(0.0, deviation).log_prob(theta).sum(1)
    assert torch.allclose(value, expected)
    assert torch.allclose(gradient, -theta / deviation.square())


def test_draws_of_a_gamma_carry_the_gradient_of_its_mean():
    """The mean precision is a / r, so its derivatives in a and r are 1 / r and -a / r^2."""
    prior = HierarchicalLayerPrior(FlatMLP((1, 1)), shape=3.0, rate=2.0)
    prior.sample_precisions(200_000, generator()).mean(0).sum().backward()
    slope = torch.sigmoid(prior.shape.detach()), torch.sigmoid(prior.rate.detach())
    assert torch.allclose(prior.shape.grad / slope[0], torch.full((2,), 0.5).double(), rtol=0.03)
    assert torch.allclose(prior.rate.grad / slope[1], torch.full((2,), -0.75).double(), rtol=0.03)


def test_the_density_of_a_flow_is_that_of_a_change_of_variables():
    """Through the Jacobian of the flow itself, by autograd, at points that it has drawn."""
    prior = bent_flow(FlatMLP((1, 2, 1)))
    sizes = [4, 3]
    normal = [torch.randn(size, generator=generator(s), dtype=torch.float64)
              for s, size in enumerate(sizes)]  # fmt: skip

    def image(*values: torch.Tensor) -> torch.Tensor:
        parts = []
        for layer, value in enumerate(values):
            for w, u, b in prior._flows(layer):
                value = value + u * torch.tanh(value @ w + b)
            parts.append(value)
        return torch.cat(parts)

    start = [0.5 * lv.exp() ** 0.5 * z for lv, z in zip(prior.log_variance, normal, strict=True)]
    start = [value.detach() for value in start]
    theta = image(*start).detach()
    jacobian = torch.cat(torch.autograd.functional.jacobian(image, tuple(start)), dim=1)
    variance = torch.cat(list(prior.log_variance)).exp().detach()
    base = DiagonalPrior(variance).log_prob(torch.cat(start)[None])
    expected = base - torch.linalg.slogdet(jacobian)[1]
    assert torch.allclose(prior.log_prob(theta[None]), expected, rtol=1e-8)


def test_a_flow_stays_invertible_whatever_its_parameters():
    prior = bent_flow()
    slopes = [float((w @ u).detach()) for layer in range(3) for w, u, _ in prior._flows(layer)]
    assert min(slopes) > -1.0 and min(slopes) < -0.5
    theta = prior.sample(200, generator()).detach()
    assert bool(torch.isfinite(prior.log_prob(theta)).all())


@each
def test_a_prior_comes_back_from_its_tensors(family):
    prior: LayerPrior = family(NETWORK)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.mul_(1.5)
    again = restored(NETWORK, prior.state_dict())
    theta = prior.sample(3, generator()).detach()
    assert type(again) is family
    assert torch.equal(again.log_prob(theta), prior.log_prob(theta))


@pytest.mark.parametrize(
    "make",
    [
        lambda: GaussianLayerPrior(NETWORK, per="row"),
        lambda: GaussianLayerPrior(NETWORK, deviation=0.0),
        lambda: HierarchicalLayerPrior(NETWORK, shape=-1.0),
        lambda: PlanarFlowLayerPrior(NETWORK, flows=0),
    ],
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match=r"per|deviation|shape|flows"):
        make()
