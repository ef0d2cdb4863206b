"""Deep kernels: the process on features, its likelihood, its training."""

import numpy as np
import pytest
import torch
from gpytorch.kernels import MaternKernel
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern
from torch import Tensor

from understudy.models.tabular.committee import Regressor
from understudy.models.tabular.deep_kernel import (
    Conditioned,
    DeepKernel,
    DeepKernelSurrogate,
    matern,
)
from understudy.nn.soap import SOAP


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kernels(B: int = 2, m: int = 2, features: int = 3, x: Tensor | None = None) -> DeepKernel:
    """Deep kernels of random networks with hyperparameters that differ among outputs."""
    network = Regressor(B, 3, m, width=6, depth=2, activation="tanh", gain=1.5).double()
    x = some(30, 3) if x is None else x
    kernel = DeepKernel(network.requires_grad_(False), x, torch.full((m,), 0.05), features)
    kernel = kernel.double()
    with torch.no_grad():
        kernel.lengths += 0.5 * some(B, m, 1, features, seed=1)
        kernel.outputscale += 0.5 * some(B, m, seed=2)
        kernel.noise += 0.5 * some(B, m, seed=3)
        kernel.mean += some(B, m, seed=4)
    return kernel


def written_out(kernel: DeepKernel, b: int, j: int, x: Tensor, new: Tensor) -> tuple[Tensor, ...]:
    """Covariances of observations at x, and of x and new with the function at new."""
    a, c = (kernel.features(at)[b, j] for at in (x, new))
    peer = MaternKernel(nu=2.5).double()
    peer.lengthscale = 1.0
    scale, noise = kernel.outputscale[b, j].exp(), kernel.noise_variance()[b, j]
    K = scale * peer(a).to_dense() + noise * torch.eye(len(x)).double()
    return tuple(v.detach() for v in (K, scale * peer(a, c).to_dense(), scale * peer(c).to_dense()))


# -- the kernel -------------------------------------------------------------------------------


def test_correlations_are_those_of_gpytorch():
    a, b = some(2, 7, 3), some(2, 5, 3, seed=1)
    peer = MaternKernel(nu=2.5).double()
    peer.lengthscale = 1.0
    assert torch.allclose(matern(a, b), peer(a, b).to_dense(), atol=1e-6)
    assert torch.allclose(matern(a, a).diagonal(dim1=-2, dim2=-1), torch.ones(2, 7).double())


def test_features_are_white_on_the_rows_that_set_them():
    x = some(50, 3)
    network = Regressor(2, 3, 1, width=6, depth=1, activation="tanh", gain=1.5).double()
    kernel = DeepKernel(network.requires_grad_(False), x, torch.ones(1), 3).double()
    z = kernel.features(x)[:, 0] * kernel.lengths[:, 0].exp()
    assert torch.allclose(z.mean(1), torch.zeros(2, 3).double(), atol=1e-9)
    assert torch.allclose(z.mT @ z / 50.0, torch.eye(3).double().expand(2, 3, 3), atol=1e-6)


def test_axes_on_which_rows_hardly_differ_are_not_blown_up():
    x = some(50, 3)
    x[:, 1:] = 0.5
    kernel = kernels(x=x)
    z = (kernel.features(x) * kernel.lengths.exp()).square().mean(2).sqrt()
    assert bool((z[..., 0] > 0.9).all())
    far = kernel.features(some(50, 3)) * kernel.lengths.exp()
    assert float(far.detach().abs().max()) < 1e4


# -- the process ------------------------------------------------------------------------------


def test_it_predicts_as_the_process_written_out():
    kernel, x, Z, new = kernels(), some(30, 3), some(30, 2, seed=5), some(8, 3, seed=6)
    process = Conditioned(kernel, x, Z)
    with torch.no_grad():
        mean, variance = process.moments(new)
        joint_mean, joint = process.joint(new.expand(2, 8, 3))
    for b in range(2):
        for j in range(2):
            K, cross, own = written_out(kernel, b, j, x, new)
            inverse, level = torch.linalg.inv(K), kernel.mean[b, j].detach()
            wanted = level + cross.mT @ inverse @ (Z[:, j] - level)
            left = own - cross.mT @ inverse @ cross
            assert torch.allclose(mean[b, :, j], wanted, atol=1e-6)
            assert torch.allclose(joint_mean[b, :, j], wanted, atol=1e-6)
            assert torch.allclose(variance[b, :, j], left.diagonal(), atol=1e-6)
            assert torch.allclose(joint[b, j], left, atol=1e-6)


def test_on_features_that_are_the_inputs_it_is_an_ordinary_process():
    x, Z, new = some(30, 3), some(30, 1, seed=5), some(8, 3, seed=6)
    network = Regressor(1, 3, 1, width=3, depth=1, activation="relu").double()
    network.requires_grad_(False)
    network.mlp.weights[0][0], network.mlp.biases[0][0] = torch.eye(3).double(), 50.0
    kernel = DeepKernel(network, x, torch.tensor([0.05]), 3).double().requires_grad_(False)
    kernel.centre.fill_(50.0)
    kernel.axes.copy_(torch.eye(3))
    lengths = torch.tensor([0.7, 1.5, 4.0]).double()
    kernel.lengths[0, 0, 0], kernel.outputscale[0, 0] = lengths.log(), np.log(2.0)
    mean, variance = Conditioned(kernel, x, Z).moments(new)
    peer = GaussianProcessRegressor(
        ConstantKernel(2.0) * Matern(lengths.tolist(), nu=2.5),
        alpha=float(kernel.noise_variance()),
        optimizer=None,
    )
    wanted, sd = peer.fit(x.numpy(), Z[:, 0].numpy()).predict(new.numpy(), return_std=True)
    assert np.allclose(mean[0, :, 0], wanted, atol=1e-6)
    assert np.allclose(variance[0, :, 0], sd**2, atol=1e-6)


def test_the_likelihood_is_that_of_the_process_written_out():
    kernel, x, Z = kernels(), some(30, 3), some(30, 2, seed=5)
    found = kernel.negative_log_likelihood(x.expand(2, 30, 3), Z.expand(2, 30, 2)).detach()
    for b in range(2):
        total = torch.zeros(()).double()
        for j in range(2):
            K, *_ = written_out(kernel, b, j, x, x[:1])
            error = Z[:, j] - kernel.mean[b, j].detach()
            total = total - 0.5 * (error @ torch.linalg.solve(K, error) + torch.logdet(K))
        wanted = -(total + kernel.log_prior()[b].detach()) / 30.0
        assert float(found[b]) == pytest.approx(float(wanted), rel=1e-6)


def test_the_likelihood_has_the_gradient_of_finite_differences():
    kernel, x, Z, step = kernels(B=1), some(1, 20, 3), some(1, 20, 2, seed=5), 1e-5
    kernel.network.mlp.requires_grad_(True)
    shared = [*kernel.network.mlp.weights[:-1], *kernel.network.mlp.biases[:-1]]
    own = [kernel.lengths, kernel.outputscale, kernel.noise, kernel.mean]
    for parameter in [*own, *shared]:
        value = kernel.negative_log_likelihood(x, Z).sum()
        (gradient,) = torch.autograd.grad(value, parameter)
        direction = some(*parameter.shape, seed=7)
        ends = []
        for sign in (1.0, -1.0):
            parameter.data += sign * step * direction
            ends.append(kernel.negative_log_likelihood(x, Z).sum().item())
            parameter.data -= sign * step * direction
        slope = (ends[0] - ends[1]) / (2.0 * step)
        assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_priors_are_gamma_densities():
    kernel, other = kernels(B=1), kernels(B=1)
    with torch.no_grad():
        other.lengths += 0.3
        other.outputscale -= 0.2
        other.noise += 0.4
    found = (kernel.log_prior() - other.log_prior()).item()
    wanted = 0.0
    for name, shape, rate in (("lengths", 3.0, 1.0), ("outputscale", 2.0, 0.15)):
        gamma = torch.distributions.Gamma(shape, rate)
        values = [getattr(k, name).detach().exp() for k in (kernel, other)]
        wanted += (gamma.log_prob(values[0]) - gamma.log_prob(values[1])).sum().item()
    gamma = torch.distributions.Gamma(1.1, 0.05)
    values = [k.noise.detach().exp() for k in (kernel, other)]
    wanted += (gamma.log_prob(values[0]) - gamma.log_prob(values[1])).sum().item()
    assert found == pytest.approx(wanted, rel=1e-4)


def test_kernels_picked_predict_what_they_did():
    kernel, x, Z, new = kernels(B=3), some(30, 3), some(30, 2, seed=5), some(8, 3, seed=6)
    part = kernel.pick(slice(1, 3))
    with torch.no_grad():
        whole = Conditioned(kernel, x, Z).moments(new)
        some_of_them = Conditioned(part, x, Z).moments(new)
    for a, b in zip(whole, some_of_them, strict=True):
        assert torch.allclose(a[1:], b)
    assert not any(parameter.requires_grad for parameter in part.parameters())


# -- the surrogate ----------------------------------------------------------------------------

QUICK = {"width": 16, "pretraining_steps": 60, "steps": 20}


def table(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(0).uniform(-2.0, 2.0, size=(n, 2))
    return X, np.column_stack([np.sin(2.0 * X[:, 0]), 50.0 + 10.0 * X[:, 1] ** 2])


@pytest.fixture(scope="module")
def fitted() -> DeepKernelSurrogate:
    return DeepKernelSurrogate(**QUICK).fit(*table())


def test_it_learns_a_smooth_function(fitted):
    rng = np.random.default_rng(1)
    X = rng.uniform(-2.0, 2.0, size=(200, 2))
    assert fitted.score(X, np.column_stack([np.sin(2 * X[:, 0]), 50 + 10 * X[:, 1] ** 2])) > 0.95


def test_error_bars_grow_away_from_the_data(fitted):
    _, near = fitted.predict(table()[0], return_std=True)
    _, far = fitted.predict(np.array([[20.0, 20.0], [-20.0, 20.0]]), return_std=True)
    assert (far.min(0) > 1.5 * near.mean(0)).all()


def test_joint_and_marginal_predictions_agree(fitted):
    at = np.random.default_rng(1).uniform(-2.0, 2.0, size=(7, 2))
    joint = fitted.posterior(torch.from_numpy(at), observation_noise=True)
    predictive = fitted.predictive(at)
    assert torch.allclose(joint.mean, predictive.mean, rtol=1e-6)
    assert torch.allclose(joint.variance.sqrt(), predictive.sd, rtol=1e-5)


def test_its_state_brings_back_the_same_predictions(fitted):
    again = DeepKernelSurrogate.from_state(*fitted.state())
    at = table()[0]
    assert np.array_equal(again.predict(at, return_std=True), fitted.predict(at, return_std=True))


@pytest.mark.parametrize("at", [40, 65], ids=["of the network", "of the process"])
def test_an_interrupt_keeps_what_was_learnt(monkeypatch, at):
    taken, step = [], SOAP.step

    def interrupted(self):
        taken.append(None)
        if len(taken) == at:
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(SOAP, "step", interrupted)
    surrogate = DeepKernelSurrogate(**QUICK)
    with pytest.raises(KeyboardInterrupt):
        surrogate.fit(*table())
    assert len(taken) == at
    assert surrogate.score(*table()) > 0.7
