"""Linearised Laplace: Jacobians, the dense posterior, the evidence, predictions."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.models.tabular.committee import Regressor
from understudy.models.tabular.laplace import (
    Curvature,
    Jacobian,
    LaplaceSurrogate,
    maximise_evidence,
    prior_precision,
)
from understudy.nn.soap import SOAP


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tiny(m: int = 2, activation: str = "silu") -> Regressor:
    """Network of 3 inputs and two hidden layers of 4 with a line that is not nothing."""
    network = Regressor(1, 3, m, width=4, depth=2, activation=activation, seed=1).double()
    with torch.no_grad():
        network.line += some(1, 3, m, seed=5)
    return network.requires_grad_(False)


def slopes(network: Regressor, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Gradients of the means in the last layer's weights, (n, m, p), and the hidden layers'."""
    mlp, m = network.mlp, network.outputs
    layers = [torch.cat([w[0], b[0]]) for w, b in zip(mlp.weights, mlp.biases, strict=True)]
    last = torch.cat([layers[-1][:-1, :m], network.line[0], layers[-1][-1:, :m]])

    def mean(*weights: Tensor) -> Tensor:
        h, one = x, torch.ones(len(x), 1).double()
        for weight in weights[:-1]:
            h = mlp.activation(torch.cat([h, one], 1) @ weight)
        return torch.cat([h, x, one], 1) @ weights[-1]

    weights = (*layers[:-1], last)
    assert torch.allclose(mean(*weights), network(x)[0][0])
    found = torch.autograd.functional.jacobian(mean, weights)
    return found[-1], list(found[:-1])


# -- Jacobians --------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["silu", "tanh"])
def test_jacobians_are_those_of_automatic_differentiation(activation):
    network, x = tiny(activation=activation), some(5, 3)
    jacobian = Jacobian.of(network, x, hidden=True)
    last, hidden = slopes(network, x)
    assert torch.allclose(jacobian.mean, network(x)[0][0])
    for j in range(2):  # an output depends on its own column of the last layer only
        assert torch.allclose(last[:, j, :, j], jacobian.last)
        assert not bool(last[:, j, :, 1 - j].any())
    for layer, wanted in enumerate(hidden):
        a, g = jacobian.inputs[layer], jacobian.gradients[layer]
        assert torch.allclose(torch.einsum("ni,nmo->nmio", a, g), wanted, atol=1e-12)


def test_without_hidden_layers_only_the_last_has_a_jacobian():
    jacobian = Jacobian.of(tiny(), some(5, 3), hidden=False)
    assert jacobian.inputs == jacobian.gradients == []


# -- the posterior ----------------------------------------------------------------------------


def last_covariance(curvature: Curvature, j: int) -> Tensor:
    basis = curvature.last_basis
    return (basis * curvature.last_variance[:, j]) @ basis.mT


def test_the_last_layers_posterior_is_the_dense_one():
    network, x, Z = tiny(), some(40, 3), some(40, 2, seed=1)
    curvature = Curvature.fit(network, x, Z, hidden=False)
    last, _ = slopes(network, x)
    features = last[:, 0, :, 0]
    squares = torch.linalg.eigvalsh(features.mT @ features)
    error = (network(x)[0][0] - Z).square().sum(0)
    weights = torch.cat([network.mlp.weights[-1][0, :, :2], network.line[0]]).square().sum(0)
    noise, precision = maximise_evidence(squares.clamp_min(0.0), error, weights, 40)
    new = some(6, 3, seed=2)
    at = slopes(network, new)[0][:, 0, :, 0]
    for j in range(2):
        inverse = features.mT @ features / noise[j] + precision[j] * torch.eye(8).double()
        dense = torch.linalg.inv(inverse)
        assert torch.allclose(last_covariance(curvature, j), dense, rtol=1e-6, atol=1e-10)
        jacobian = Jacobian.of(network, new, hidden=False)
        joint = curvature.covariance(jacobian, torch.Size(), 6)[j]
        assert torch.allclose(joint, at @ dense @ at.mT, rtol=1e-6, atol=1e-10)
        assert torch.allclose(curvature.variance(jacobian)[:, j], joint.diagonal(), rtol=1e-8)


def test_hidden_layers_add_the_dense_kronecker_posterior():
    network, x, Z = tiny(), some(40, 3), some(40, 2, seed=1)
    curvature = Curvature.fit(network, x, Z, hidden=True)
    new = some(6, 3, seed=2)
    jacobian, seen = (Jacobian.of(network, at, hidden=True) for at in (new, x))
    _, hidden = slopes(network, new)
    wanted = [jacobian.last @ last_covariance(curvature, j) @ jacobian.last.mT for j in range(2)]
    for layer, slope in enumerate(hidden):
        a, g = seen.inputs[layer], seen.gradients[layer]
        first = a.mT @ a
        second = torch.einsum("nmo,m,nmp->op", g, 1.0 / curvature.noise, g) / 40.0
        whole = torch.kron(first, second)
        norm = network.mlp.weights[layer][0].square().sum()
        precision = prior_precision(torch.linalg.eigvalsh(whole).clamp_min(0.0), norm)
        dense = torch.linalg.inv(whole + precision * torch.eye(len(whole)).double())
        for j in range(2):
            flat = slope[:, j].flatten(1)
            wanted[j] = wanted[j] + flat @ dense @ flat.mT
    joint = curvature.covariance(jacobian, torch.Size(), 6)
    assert torch.allclose(joint, torch.stack(wanted), rtol=1e-5, atol=1e-9)
    assert torch.allclose(curvature.variance(jacobian), joint.diagonal(dim1=-2, dim2=-1).mT)


def test_one_row_gives_the_exact_curvature_of_a_layer():
    network, x = tiny(m=1), some(1, 3)
    curvature = Curvature.fit(network, x, some(1, 1, seed=1), hidden=True)
    _, hidden = slopes(network, x)
    for layer, slope in enumerate(hidden):
        flat = slope[0, 0].flatten()
        exact = torch.outer(flat, flat) / curvature.noise
        A, G = curvature.input_bases[layer], curvature.gradient_bases[layer]
        basis = torch.kron(A, G)
        found = (basis / curvature.variances[layer].flatten()) @ basis.mT
        prior = found - exact  # a multiple of the identity
        assert torch.allclose(prior, prior[0, 0] * torch.eye(len(prior)).double(), atol=1e-6)


def test_batches_of_points_have_the_covariance_of_each_alone():
    network, x, Z = tiny(), some(40, 3), some(40, 2, seed=1)
    curvature = Curvature.fit(network, x, Z, hidden=True)
    new = some(3, 4, 3, seed=2)
    flat = Jacobian.of(network, new.reshape(12, 3), hidden=True)
    together = curvature.covariance(flat, torch.Size([3]), 4)
    for b in range(3):
        alone = curvature.covariance(Jacobian.of(network, new[b], True), torch.Size(), 4)
        assert torch.allclose(together[b], alone)


# -- the evidence -----------------------------------------------------------------------------


def evidence(squares: Tensor, error: float, norm: float, rows: int, logs: Tensor) -> Tensor:
    """Log evidence of a linear layer at logarithms of noise variance and prior precision."""
    noise, precision = logs.exp()
    likelihood = -0.5 * rows * (2.0 * math.pi * noise).log() - 0.5 * error / noise
    prior = 0.5 * len(squares) * precision.log() - 0.5 * precision * norm
    return likelihood + prior - 0.5 * (squares / noise + precision).log().sum()


def test_the_evidence_has_no_slope_at_its_best():
    features = some(60, 8) * torch.logspace(0.5, -1.5, 8).double()
    squares = torch.linalg.eigvalsh(features.mT @ features)
    error, norm = torch.tensor([3.0, 50.0]).double(), torch.tensor([2.0, 9.0]).double()
    noise, precision = maximise_evidence(squares, error, norm, 60)
    for j in range(2):
        logs = torch.stack([noise[j], precision[j]]).log().requires_grad_()
        value = evidence(squares, float(error[j]), float(norm[j]), 60, logs)
        (slope,) = torch.autograd.grad(value, logs)
        assert float(slope.abs().max()) < 1e-5
        for k in range(2):
            for change in (-0.3, 0.3):
                moved = logs.detach().clone()
                moved[k] += change
                assert float(evidence(squares, float(error[j]), float(norm[j]), 60, moved)) < value


def test_a_hidden_layers_precision_has_no_slope_at_its_best():
    eigenvalues, norm = torch.logspace(-2.0, 3.0, 30).double(), torch.tensor(12.0).double()
    log = prior_precision(eigenvalues, norm).log().requires_grad_()
    value = 0.5 * len(eigenvalues) * log - 0.5 * log.exp() * norm
    value = value - 0.5 * (eigenvalues + log.exp()).log().sum()
    assert abs(float(torch.autograd.grad(value, log)[0])) < 1e-5


# -- the surrogate ----------------------------------------------------------------------------

QUICK = {"width": 16, "max_steps": 80}


def table(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(0).uniform(-2.0, 2.0, size=(n, 2))
    return X, np.column_stack([np.sin(2.0 * X[:, 0]), 50.0 + 10.0 * X[:, 1] ** 2])


@pytest.fixture(scope="module")
def fitted() -> LaplaceSurrogate:
    return LaplaceSurrogate(**QUICK).fit(*table())


def test_error_bars_grow_away_from_the_data(fitted):
    _, near = fitted.predict(table()[0], return_std=True)
    _, far = fitted.predict(np.array([[20.0, 20.0], [-20.0, 20.0]]), return_std=True)
    assert (far.min(0) > 3.0 * near.mean(0)).all()


def test_all_layers_are_less_sure_than_the_last(fitted):
    jacobian = Jacobian.of(fitted._network, some(9, 2), hidden=True)
    last = Jacobian(jacobian.mean, jacobian.last, [], [])
    only = Curvature(
        fitted._curvature.noise,
        fitted._curvature.last_basis,
        fitted._curvature.last_variance,
        *([], [], []),
    )
    assert bool((fitted._curvature.variance(jacobian) > only.variance(last)).all())


def test_joint_and_marginal_predictions_agree(fitted):
    at = np.random.default_rng(1).uniform(-2.0, 2.0, size=(7, 2))
    joint = fitted.posterior(torch.from_numpy(at), observation_noise=True)
    predictive = fitted.predictive(at)
    assert torch.allclose(joint.mean, predictive.mean, rtol=1e-8)
    assert torch.allclose(joint.variance.sqrt(), predictive.sd, rtol=1e-5)


@pytest.mark.parametrize("weights", ["last", "all"])
def test_its_state_brings_back_the_same_predictions(weights):
    X, Y = table(30)
    surrogate = LaplaceSurrogate(weights=weights, width=8, max_steps=20).fit(X, Y)
    again = LaplaceSurrogate.from_state(*surrogate.state())
    both = (member.predict(X, return_std=True) for member in (again, surrogate))
    assert np.array_equal(*both)


def test_an_interrupt_keeps_what_was_learnt(fitted, monkeypatch):
    taken, step = [], SOAP.step

    def interrupted(self):
        taken.append(None)
        if len(taken) == 60:
            raise KeyboardInterrupt
        step(self)

    monkeypatch.setattr(SOAP, "step", interrupted)
    surrogate = LaplaceSurrogate(**QUICK)
    with pytest.raises(KeyboardInterrupt):
        surrogate.fit(*table())
    assert len(taken) == 60
    assert surrogate.score(*table()) > 0.8 * fitted.score(*table())


def test_other_weights_are_refused():
    with pytest.raises(UserError, match="first"):
        LaplaceSurrogate(weights="first").fit(*table(20))
