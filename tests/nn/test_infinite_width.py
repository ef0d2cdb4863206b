"""Kernels of infinitely wide networks against wide ones, and their derivatives."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.errors import UserError
from understudy.nn.closed_moments import erf_moment, relu_moment
from understudy.nn.infinite_width import NNGPKernel, NTKKernel, nngp, nngp_variance, ntk

ACTIVATIONS = {"relu": torch.relu, "erf": torch.erf, "gelu": torch.nn.functional.gelu}


def points(n: int, d: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


def variances(weight: float, bias: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(weight, dtype=torch.float64), torch.tensor(bias, dtype=torch.float64)


@pytest.mark.parametrize("activation", ["relu", "erf", "gelu"])
@pytest.mark.parametrize("depth", [1, 2])
def test_wide_networks_have_this_covariance(activation, depth):
    X, (weight, bias) = points(4), variances(1.5, 0.3)
    torch.manual_seed(0)
    width, networks = 400, 100
    total = torch.zeros(4, 4, dtype=torch.float64)
    for _ in range(networks):
        hidden = X
        for _ in range(depth):
            W = torch.randn(hidden.shape[1], width, dtype=torch.float64)
            noise = torch.randn(width, dtype=torch.float64)
            before = (weight / hidden.shape[1]).sqrt() * hidden @ W + bias.sqrt() * noise
            hidden = ACTIVATIONS[activation](before)
        total += bias + weight * (hidden @ hidden.mT) / width  # last layer in expectation
    exact = nngp(X, X, depth, activation, weight, bias)
    assert torch.allclose(total / networks, exact, rtol=0.05, atol=0.02)


@pytest.mark.parametrize(
    ("moment", "value"),
    [(relu_moment, 0.5), (erf_moment, 2 / math.pi * math.asin(2 / 3))],
)
def test_the_moment_of_a_point_with_itself_is_its_mean_square(moment, value):
    one = torch.ones(1, 1, dtype=torch.float64)
    assert float(moment(one, one, one)) == pytest.approx(value)


def test_relu_moment_of_independent_units_is_the_product_of_their_means():
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    assert float(relu_moment(zero, one, one)) == pytest.approx(1 / (2 * math.pi))


@pytest.mark.parametrize("activation", ["relu", "erf"])
@given(seed=st.integers(0, 1000), depth=st.integers(0, 4))
def test_kernel_matrices_are_positive_semi_definite(activation, seed, depth):
    K = nngp(points(8, seed=seed), points(8, seed=seed), depth, activation, *variances(2.0, 0.1))
    assert float(torch.linalg.eigvalsh(K).min()) > -1e-9 * float(K.diagonal().max())


@pytest.mark.parametrize("activation", ["relu", "erf", "gelu", "leaky_relu"])
def test_the_kernel_differentiates_in_inputs_and_variances(activation):
    A, B = points(3).requires_grad_(), points(2, seed=1).requires_grad_()
    weight, bias = (v.requires_grad_() for v in variances(1.5, 0.3))
    inputs = (A, B, weight, bias)
    assert torch.autograd.gradcheck(lambda *x: nngp(x[0], x[1], 3, activation, *x[2:]), inputs)


@pytest.mark.parametrize("activation", ["relu", "erf", "tanh"])
@pytest.mark.parametrize("kernel", [nngp, ntk])
def test_gradients_are_finite_where_points_coincide(activation, kernel):
    X = points(3).requires_grad_()
    K = kernel(X, X, 3, activation, *variances(10.0, 1.3))
    K.sum().backward()
    assert bool(torch.isfinite(X.grad).all())


@pytest.mark.parametrize("activation", ["relu", "erf", "tanh"])
def test_the_gradient_at_a_coincident_point_is_the_limit_of_its_neighbours(activation):
    def slope(distance: float) -> float:
        x = torch.tensor([[0.5 + distance]], dtype=torch.float64, requires_grad=True)
        y = torch.tensor([[0.5]], dtype=torch.float64)
        nngp(x, y, 2, activation, *variances(2.0, 0.5)).sum().backward()
        return float(x.grad)

    assert slope(0.0) == pytest.approx(slope(1e-7), rel=1e-4)


@pytest.mark.parametrize("activation", ["relu", "erf", "silu", "hardtanh"])
@pytest.mark.parametrize(("skip", "tangent"), [(0.0, False), (0.7, False), (0.7, True)])
def test_variances_are_the_diagonal(activation, skip, tangent):
    X, rest = points(5), (*variances(1.5, 0.3), skip, tangent)
    diagonal = nngp(X, X, 3, activation, *rest).diagonal()
    assert torch.allclose(nngp_variance(X, 3, activation, *rest), diagonal, rtol=1e-7)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_wide_residual_networks_have_this_covariance(activation):
    X, phi, (weight, bias) = points(3), ACTIVATIONS.get(activation, torch.tanh), variances(1.5, 0.3)
    torch.manual_seed(0)
    width, networks, total = 400, 100, torch.zeros(3, 3, dtype=torch.float64)
    for _ in range(networks):
        z = (weight / 3).sqrt() * X @ torch.randn(3, width).double()
        z = z + bias.sqrt() * torch.randn(width).double()
        W = torch.randn(width, width).double() * (weight / width).sqrt()
        z = z + phi(z) @ W + bias.sqrt() * torch.randn(width).double()
        total += bias + weight * (phi(z) @ phi(z).mT) / width
    exact = nngp(X, X, 2, activation, weight, bias, skip=1.0)
    assert torch.allclose(total / networks, exact, rtol=0.05, atol=0.02)


class Network(torch.nn.Module):
    """Two wide hidden layers with a skip about the second, in the tangent parameterisation."""

    def __init__(self, width, weight, bias, phi, skip):
        super().__init__()
        self.layers = torch.nn.ModuleList(
            torch.nn.Linear(a, b).double() for a, b in ((3, width), (width, width), (width, 1))
        )
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter)
        self.weight, self.bias, self.phi, self.skip = weight, bias, phi, skip

    def dense(self, layer, x):
        scale = (self.weight / x.shape[-1]).sqrt()
        return scale * x @ layer.weight.mT + self.bias.sqrt() * layer.bias

    def forward(self, x):
        first, second, last = self.layers
        z = self.dense(first, x)
        z = self.dense(second, self.phi(z)) + self.skip * z
        return self.dense(last, self.phi(z))[:, 0]


@pytest.mark.parametrize("activation", ["relu", "erf", "gelu"])
@pytest.mark.parametrize("skip", [0.0, 1.0])
def test_wide_networks_have_this_tangent_kernel(activation, skip):
    X, (weight, bias) = points(3), variances(1.5, 0.3)
    torch.manual_seed(0)
    total = torch.zeros(3, 3, dtype=torch.float64)
    for _ in range(12):
        network = Network(400, weight, bias, ACTIVATIONS[activation], skip)
        parameters = list(network.parameters())
        rows = [torch.autograd.grad(f, parameters, retain_graph=True) for f in network(X)]
        J = torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])
        total += J @ J.mT / 12
    exact = ntk(X, X, 2, activation, weight, bias, skip=skip)
    assert torch.allclose(total, exact, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("activation", ["erf", "tanh", "leaky_relu"])
def test_the_tangent_kernel_differentiates_in_inputs_and_variances(activation):
    A, B = points(3).requires_grad_(), points(2, seed=1).requires_grad_()
    weight, bias = (v.requires_grad_() for v in variances(1.5, 0.3))
    inputs = (A, B, weight, bias)
    assert torch.autograd.gradcheck(lambda *x: ntk(x[0], x[1], 2, activation, *x[2:]), inputs)


def test_the_relu_kernel_keeps_its_variance_at_weights_of_variance_two_without_bias():
    X = points(4)
    deep = nngp_variance(X, 7, "relu", *variances(2.0, 0.0))
    assert torch.allclose(deep, nngp_variance(X, 0, "relu", *variances(2.0, 0.0)))


# -- as a GPyTorch kernel ---------------------------------------------------------------------


def test_gpytorch_evaluates_the_same_kernel():
    kernel, X = NNGPKernel(weight_variance=2.0, bias_variance=0.5).double(), points(4)
    exact = nngp(X, X[:2], 3, "relu", *variances(2.0, 0.5))
    assert torch.allclose(kernel(X, X[:2]).to_dense(), exact, rtol=1e-6)
    assert torch.allclose(kernel(X, diag=True), kernel(X).to_dense().diagonal())
    assert torch.allclose(
        kernel(X, X.flip(0), diag=True), kernel(X, X.flip(0)).to_dense().diagonal()
    )


def test_the_papers_kernel_has_its_constants_and_nothing_to_learn():
    kernel = NNGPKernel.li(many_inputs=True)
    assert kernel.depth == 3
    assert float(kernel.weight_variance) == pytest.approx(10.0)
    assert float(kernel.bias_variance) == pytest.approx(1.6)
    assert not any(p.requires_grad for p in kernel.parameters())


def test_its_variances_are_learnt_by_marginal_likelihood():
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from gpytorch.mlls import ExactMarginalLogLikelihood

    X = torch.rand(15, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = SingleTaskGP(X, (X[:, :1] - X[:, 1:]).abs(), covar_module=NNGPKernel(depth=1))
    before = float(model.covar_module.bias_variance)
    fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
    assert float(model.covar_module.bias_variance) != before


def test_batches_of_kernels_are_independent():
    kernel = NNGPKernel(batch_shape=torch.Size([2])).double()
    kernel.weight_variance = torch.tensor([[[1.0]], [[3.0]]], dtype=torch.float64)
    X = points(4)
    K = kernel(X).to_dense()
    assert torch.allclose(K[1], nngp(X, X, 3, "relu", *variances(3.0, 1.3)), rtol=1e-6)


def test_gpytorch_evaluates_the_tangent_kernel_of_a_residual_network():
    kernel = NTKKernel(2, "gelu", weight_variance=2.0, bias_variance=0.5, skip=1.0).double()
    X = points(4)
    exact = ntk(X, X[:2], 2, "gelu", *variances(2.0, 0.5), skip=1.0)
    assert torch.allclose(kernel(X, X[:2]).to_dense(), exact, rtol=1e-6)
    assert torch.allclose(kernel(X, diag=True), kernel(X).to_dense().diagonal())


def test_an_exact_process_with_a_tangent_kernel_learns_and_predicts_in_single_precision():
    import gpytorch

    X = torch.linspace(-1.0, 1.0, 12).unsqueeze(1)
    likelihood = gpytorch.likelihoods.GaussianLikelihood()

    class Process(gpytorch.models.ExactGP):
        def __init__(self):
            super().__init__(X, X[:, 0].abs(), likelihood)
            self.mean, self.kernel = gpytorch.means.ZeroMean(), NTKKernel(2, "silu")

        def forward(self, x):
            return gpytorch.distributions.MultivariateNormal(self.mean(x), self.kernel(x))

    model = Process()
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)
    before = float(objective(model(X), X[:, 0].abs()))
    optimiser = torch.optim.Adam(model.parameters(), 0.1)
    for _ in range(6):
        optimiser.zero_grad()
        loss = -objective(model(X), X[:, 0].abs())
        loss.backward()
        optimiser.step()
    assert -float(loss) > before
    model.eval()
    assert float((model(X).mean - X[:, 0].abs()).abs().max()) < 0.3


@pytest.mark.parametrize("options", [{"depth": -1}, {"activation": "cosine"}])
def test_wrong_options_are_refused(options):
    with pytest.raises(UserError, match=r"depth must be at least 0|activation must be one of"):
        NNGPKernel(**options)
