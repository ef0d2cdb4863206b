"""Recursions of random networks against closed forms, ensembles and trained wide networks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import UserError
from understudy.nn.gaussian_expectation import activation
from understudy.nn.infinite_width import nngp
from understudy.nn.random_networks import Ensemble, layers, pair_covariance, tangent_layers
from understudy.nn.signal_propagation import (
    LearningRates,
    PerturbationWarning,
    SignalPropagation,
    optimal_aspect_ratio,
)


def points(m: int, d: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(m, d, generator=generator, dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ["relu", "erf"])
def test_kernels_are_those_of_the_infinitely_wide_network(name):
    X = points(5)
    K = SignalPropagation(name, 0.3, 1.5).kernel(X, 4)
    for depth in range(4):
        bias, weight = (torch.tensor(v, dtype=torch.float64) for v in (0.3, 1.5))
        assert torch.allclose(K[depth], nngp(X, X, depth, name, weight, bias), atol=1e-9)


def test_the_kernel_of_one_input_follows_the_variance_recursion():
    X, here = points(1), SignalPropagation("gelu", 0.1, 1.9, gamma=0.5)
    K = here.kernel(X, 6).flatten()
    assert torch.allclose(K, here.variances(K[0], 6))


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), name=st.sampled_from(["tanh", "relu", "gelu"]))
def test_kernels_and_tangent_kernels_are_positive_semi_definite(seed, name):
    K, Theta = SignalPropagation(name, 0.1, 1.3).neural_kernels(points(6, seed=seed), 4)
    for matrices in (K, Theta):
        largest = matrices.diagonal(dim1=-2, dim2=-1).max()
        assert float(torch.linalg.eigvalsh(matrices).min()) > -1e-9 * float(largest)


@pytest.mark.parametrize(("name", "limit"), [("tanh", 0.5), ("sin", 1.0), ("erf", 0.5)])
def test_variances_fall_as_the_inverse_of_depth_in_their_class(name, limit):
    # erf has a1 = -2 as tanh does.
    K = SignalPropagation.critical(name).variances(1.0, 1000)
    assert 1000 * float(K[-1]) == pytest.approx(limit, rel=0.01)


@pytest.mark.parametrize(("C_W", "factor"), [(1.8, 0.9**50), (2.0, 1.0), (2.2, 1.1**50)])
def test_relu_fades_or_explodes_off_criticality(C_W, factor):
    K = SignalPropagation("relu", 0.0, C_W).variances(1.0, 51)
    assert float(K[-1]) == pytest.approx(factor)


@pytest.mark.parametrize(("name", "slope"), [("relu", 5.0), ("linear", 2.0)])
def test_the_normalised_vertex_grows_linearly(name, slope):
    here = SignalPropagation.critical(name)
    V = here.vertex(1.0, 12, 1000)
    assert V.tolist() == pytest.approx([slope * l for l in range(12)])


@pytest.mark.parametrize("gamma", [0.0, 0.6])
def test_the_vertex_of_tanh_grows_with_its_own_slope(gamma):
    here = SignalPropagation.critical("tanh", gamma)
    result = here.finite_width(0.5, 1000, 1_000_000)
    slope = float(result.V[-1] / result.K[-1].square()) / 1000
    assert slope == pytest.approx(2 / 3 * (1 - gamma**4), rel=0.02)


def test_widths_that_differ_weigh_the_vertex():
    # The covariance of two squares is V^(l)/n_{l-1} = sum over the layers before of 5/n.
    result = SignalPropagation.critical("relu").finite_width(1.0, 4, [100, 200, 400])
    covariance = (result.V / result.width).tolist()
    steps = [0.0, 0.05, 0.05 + 0.025, 0.05 + 0.025 + 0.0125]
    assert covariance == pytest.approx(steps)


@pytest.mark.parametrize(
    ("name", "C_b", "C_W", "gamma"),
    [("relu", 0.0, 2.0, 0.0), ("tanh", 0.0, 1.0, 0.0), ("gelu", 0.2, 1.9, 0.4)],
)
def test_random_networks_have_this_variance_and_vertex(name, C_b, C_W, gamma):
    width, depth, networks = 120, 4, 20_000
    phi = activation(name)
    theory = SignalPropagation(phi, C_b, C_W, gamma).finite_width(1.0, depth, width)
    drawn = layers(Ensemble(phi, C_b, C_W, width, depth, 1.0, gamma), networks, generator())
    squares = [z.double().square() for z in drawn]
    for layer in range(1, depth):
        measured = width * pair_covariance(squares[layer], squares[layer])
        assert measured == pytest.approx(float(theory.V[layer]), rel=0.1)
        mean = float(squares[layer].mean())
        assert mean == pytest.approx(float(theory.mean_square[layer]), rel=0.01)


def test_the_mean_square_has_its_correction_at_finite_width():
    width, networks = 10, 40_000
    phi = activation("tanh")
    theory = SignalPropagation(phi, 0.0, 1.5).finite_width(1.0, 4, width)
    drawn = list(layers(Ensemble(phi, 0.0, 1.5, width, 4), networks, generator()))
    last = float(drawn[-1].double().square().mean())
    assert abs(last - float(theory.mean_square[-1])) < 0.2 * abs(last - float(theory.K[-1]))


def test_fluctuations_of_the_relu_tangent_kernel_are_the_known_ones():
    # By hand: with chi = 1, h = 0, q = 1/2, <phi'^4> = 1/2, Theta = 1, 3/2, 2, 5/2.
    at = SignalPropagation("relu", 0.0, 2.0).ntk_fluctuations(
        1.0, 4, LearningRates(0.0, 1.0), squared_input=1.0
    )
    last = {name: float(getattr(at, name)[-1]) for name in ("V", "Theta", "D", "F", "A", "B")}
    expected = {"V": 15.0, "Theta": 2.5, "D": 19.5, "F": 9.0, "A": 32.75, "B": 14.5}
    assert last == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "C_b", "C_W"), [("tanh", 0.1, 1.2), ("gelu", 0.2, 1.9)])
def test_random_networks_have_these_tangent_fluctuations(name, C_b, C_W):
    width, depth, networks, lam_b, lam_W = 64, 3, 6000, 0.5, 0.8
    phi = activation(name)
    squared_input = (1.0 - C_b) / C_W
    theory = SignalPropagation(phi, C_b, C_W).ntk_fluctuations(
        1.0, depth, LearningRates(lam_b, lam_W), squared_input
    )
    ensemble = Ensemble(phi, C_b, C_W, width, depth)
    z, H = list(tangent_layers(ensemble, networks, generator(), squared_input, lam_b, lam_W))[-1]
    z, H = z.double(), H.double()
    own = H.diagonal(dim1=1, dim2=2)
    off = H - torch.diag_embed(own)
    pairs = networks * width * (width - 1) / width
    measured = {
        "D": width * pair_covariance(own, z.square()),
        "F": float(torch.einsum("nij,ni,nj->", off, z, z)) / pairs,
        "A": width * pair_covariance(own, own),
        "B": float(off.square().sum()) / pairs,
    }
    assert float(own.mean()) == pytest.approx(float(theory.Theta[-1]), rel=0.02)
    for quantity, value in measured.items():
        expected = float(getattr(theory, quantity)[-1])
        assert value == pytest.approx(expected, rel=0.1, abs=0.02), quantity


def test_the_layerwise_tangent_kernel_is_the_one_of_automatic_differentiation():
    width, C_W, lam_b, lam_W = 5, 1.3, 0.4, 0.7
    ensemble = Ensemble(activation("tanh"), 0.2, C_W, width, 3)
    _, H = list(tangent_layers(ensemble, 1, generator(3), 1.0, lam_b, lam_W))[-1]
    draw = generator(3)
    z1 = torch.randn(1, width, generator=draw)[0]
    weights, shifts = [], []
    for _ in range(2):
        weights.append(torch.randn(1, width, width, generator=draw)[0] * math.sqrt(C_W / width))
        shifts.append(math.sqrt(0.2) * torch.randn(1, width, generator=draw)[0])

    def network(x, W2, W3, b1, b2, b3):
        z = z1 + b1 + x  # x stands for the first layer's weights, acting on a unit input
        for W, b in ((W2, b2), (W3, b3)):
            z = W @ torch.tanh(z) + b
        return z

    zero = torch.zeros(width)
    inputs = (zero, *weights, zero, *shifts)
    jacobians = torch.autograd.functional.jacobian(network, inputs)
    rates = [lam_W, lam_W / width, lam_W / width, lam_b, lam_b, lam_b]
    expected = sum(
        rate * J.flatten(1) @ J.flatten(1).mT for rate, J in zip(rates, jacobians, strict=True)
    )
    assert torch.allclose(H[0], expected, rtol=1e-4, atol=1e-5)


def test_the_tangent_kernel_of_several_inputs_agrees_with_one_of_each():
    X, here = points(4), SignalPropagation("tanh", 0.1, 1.1)
    rates = LearningRates([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    K, Theta = here.neural_kernels(X, 3, rates)
    for row in range(4):
        alone = here.ntk_fluctuations(float(K[0, row, row]), 3, rates)
        assert torch.allclose(Theta[:, row, row], alone.Theta)


def test_a_wide_network_trained_by_gradient_descent_is_this_kernel_regression():
    X, new = points(4, seed=1), points(3, seed=2)
    Y = points(4, 1, seed=3)
    here = SignalPropagation("erf", 0.1, 1.0)
    theory = here.gradient_descent(X, Y, new, 2)
    n, networks, draw = 512, 100, generator()

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    W1, b1 = normal(networks, 3, n) / math.sqrt(3), math.sqrt(0.1) * normal(networks, 1, n)
    W2, b2 = normal(networks, n, 1) / math.sqrt(n), math.sqrt(0.1) * normal(networks, 1, 1)

    def jacobian(x):  # linearised around the start, as is exact at infinite width
        z = x @ W1 + b1
        h, slope = torch.erf(z), 2 / math.sqrt(math.pi) * torch.exp(-z.square())
        back = slope * W2.mT
        first = (back.unsqueeze(-1) * x[:, None, :]).flatten(2) / math.sqrt(3)
        ones = torch.ones(networks, len(x), 1, dtype=torch.float64)
        return h @ W2 + b2, torch.cat([first, back, h / math.sqrt(n), ones], dim=-1)

    (f, J), (f_new, J_new) = jacobian(X), jacobian(new)
    trained = f_new + J_new @ J.mT @ torch.linalg.solve(J @ J.mT, Y - f)
    error = theory.covariance.diagonal().sqrt() / math.sqrt(networks)
    assert (abs(trained.mean(0) - theory.mean)[:, 0] < 4 * error).all()
    assert torch.allclose(trained.var(0)[:, 0], theory.covariance.diagonal(), rtol=0.5)


def test_the_bayesian_prediction_passes_through_the_data_and_is_surer_than_the_prior():
    X, Y = points(5), points(5, 1, seed=1)
    here = SignalPropagation("gelu", 0.2, 1.9)
    at_data = here.bayesian(X, Y, X, 3)
    assert torch.allclose(at_data.mean, Y, atol=1e-5)
    elsewhere = here.bayesian(X, Y, points(3, seed=2), 3, noise=0.1)
    prior = here.kernel(points(3, seed=2), 3)[-1]
    assert (elsewhere.covariance.diagonal() < prior.diagonal()).all()


def test_a_network_too_deep_for_its_width_gives_a_warning():
    with pytest.warns(PerturbationWarning, match="deviation from a Gaussian reaches"):
        SignalPropagation.critical("relu").vertex(1.0, 20, 100)


def test_a_third_cumulant_of_residual_relu_networks_is_part_of_their_vertex():
    # By hand: with C_W = 3/2, gamma = 1/2, K = 1 the source is 57/16; T' = (T + w)/2 with
    # w = C_W <z phi^2> = C_W sqrt(2/pi), and V' = V + 57/16 + 2 w T.
    w, source = 1.5 * math.sqrt(2 / math.pi), 57 / 16
    V = SignalPropagation.critical("relu", 0.5).vertex(1.0, 4, 10_000)
    T2, T3 = w / 2, 3 * w / 4
    expected = [0.0, source, 2 * source + 2 * w * T2, 3 * source + 2 * w * (T2 + T3)]
    assert V.tolist() == pytest.approx(expected)


def test_the_optimal_aspect_ratio_maximises_the_mutual_information():
    nu, outputs = 5.0, 10
    r = optimal_aspect_ratio("relu", outputs)
    assert r == pytest.approx(4 / (50 * nu))

    def information(r):
        return (nu * r) ** 2 / 8 - (20 + 3 * outputs) / 48 * (nu * r) ** 3

    assert information(r) > max(information(0.99 * r), information(1.01 * r))


def test_residual_connections_raise_the_optimal_aspect_ratio_of_linear_networks():
    ratios = [optimal_aspect_ratio("linear", 1, gamma) for gamma in (0.0, 0.5, 0.9, 0.99)]
    assert ratios == sorted(ratios)
    assert ratios[-1] > 10 * ratios[0]


def test_the_third_cumulant_makes_half_a_residual_relu_network_less_gaussian():
    ratios = [optimal_aspect_ratio("relu", 1, gamma) for gamma in (0.0, 0.5, 0.99)]
    assert ratios[1] < ratios[0] < ratios[2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SignalPropagation("relu", -1.0, 2.0), "C_b"),
        (lambda: SignalPropagation("relu", 0.0, 0.0), "C_W"),
        (lambda: SignalPropagation("relu", 0.0, 2.0).kernel(torch.zeros(2, 3), 2), "zero"),
        (lambda: SignalPropagation("relu", 0.0, 2.0).kernel(torch.ones(3), 2), "matrix"),
        (lambda: SignalPropagation("relu", 0.0, 2.0).variances(1.0, 0), "depth"),
        (lambda: SignalPropagation("relu", 0.0, 2.0).vertex(1.0, 4, [10, 10]), "3 hidden widths"),
        (
            lambda: SignalPropagation("relu", 0.0, 2.0).ntk_fluctuations(
                1.0, 3, LearningRates([1.0], 1.0)
            ),
            "learning rates of the bias must be 3",
        ),
        (
            lambda: SignalPropagation("relu", 0.0, 1.0, 0.5).ntk_fluctuations(1.0, 3),
            "residual",
        ),
        (lambda: optimal_aspect_ratio("sigmoid", 1), "no critical initialisation"),
        (lambda: optimal_aspect_ratio("relu", 0), "n_out"),
    ],
)
def test_what_cannot_be_propagated_is_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()
