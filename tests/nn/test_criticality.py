"""Gaussian expectations and critical points against closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from understudy.core.errors import UserError
from understudy.nn.closed_moments import erf_moment
from understudy.nn.criticality import UniversalityClass, find_critical_point
from understudy.nn.gaussian_expectation import (
    Activation,
    activation,
    covariance_moments,
    moments,
    quadrature,
)
from understudy.nn.signal_propagation import SignalPropagation


def variance(K: float) -> torch.Tensor:
    return torch.tensor(K, dtype=torch.float64)


def covariances(m: int, scale: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    X = math.sqrt(scale) * torch.randn(m, 4, generator=generator, dtype=torch.float64)
    return X @ X.mT / 4 + 0.01 * torch.eye(m, dtype=torch.float64)


@given(K=st.floats(1e-8, 1e4))
def test_moments_of_erf_are_its_closed_forms_at_any_variance(K):
    at = moments(activation("erf"), variance(K))
    assert float(at.square) == pytest.approx(2 / math.pi * math.asin(2 * K / (1 + 2 * K)), rel=1e-9)
    assert float(at.slope_square) == pytest.approx(4 / math.pi / math.sqrt(1 + 4 * K), rel=1e-9)


@given(K=st.floats(1e-6, 20.0))
def test_moments_of_sine_are_their_closed_forms(K):
    at = moments(activation("sin"), variance(K))
    damped = math.exp(-2 * K)
    assert float(at.square) == pytest.approx((1 - damped) / 2, rel=1e-9)
    assert float(at.slope_square) == pytest.approx((1 + damped) / 2, rel=1e-9)
    assert float(at.square_slope) == pytest.approx(damped, rel=1e-7, abs=1e-14)
    assert float(at.square_curvature) == pytest.approx(-2 * damped, rel=1e-3, abs=1e-9)
    assert float(at.slope_square_slope) == pytest.approx(-damped, rel=1e-5, abs=1e-10)
    assert float(at.mixed) == pytest.approx((1 - math.exp(-8 * K)) / 8, rel=1e-9)


def test_a_kink_away_from_zero_is_integrated_exactly():
    K = 2.0
    inside = math.erf(1 / math.sqrt(2 * K))
    density = math.exp(-1 / (2 * K)) / math.sqrt(2 * math.pi * K)
    square = K * inside - 2 * K * density + (1 - inside)
    at = moments(activation(nn.Hardtanh()), variance(K))
    assert float(at.square) == pytest.approx(square, rel=1e-12)
    assert float(at.slope_square) == pytest.approx(inside, rel=1e-12)


def test_scale_invariant_closed_forms_agree_with_quadrature():
    relu, K = activation("leaky_relu"), variance(1.7)
    closed = moments(relu, K)
    by_nodes = moments(Activation("by nodes", relu.function), K)
    for name in ("square", "fourth", "slope_square", "slope_fourth", "mixed", "square_slope"):
        assert float(getattr(closed, name)) == pytest.approx(float(getattr(by_nodes, name)))
    assert float(by_nodes.square_curvature) == pytest.approx(0.0, abs=1e-12)
    assert float(by_nodes.slope_square_slope) == pytest.approx(0.0, abs=1e-12)


def test_weights_of_the_quadrature_sum_to_one():
    _, w = quadrature(torch.tensor([1e-6, 1.0, 1e6], dtype=torch.float64), kinks=(-1.0, 1.0))
    assert w.sum(-1).tolist() == pytest.approx([1.0, 1.0, 1.0], rel=1e-12)


@pytest.mark.parametrize(("scale", "error"), [(0.01, 1e-14), (1.0, 1e-12), (10.0, 1e-7)])
def test_two_input_moments_of_erf_are_its_closed_form(scale, error):
    K = covariances(6, scale)
    K[1, :], K[:, 1] = K[0, :], K[:, 0]  # a pair that coincides
    k = K.diagonal()
    square, _ = covariance_moments(activation("erf"), K)
    assert torch.allclose(square, erf_moment(K, k[:, None], k[None]), rtol=0, atol=error)


def test_two_input_moments_of_leaky_relu_agree_with_samples():
    K = covariances(3, 1.0)
    phi = activation(nn.LeakyReLU(0.3))
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(400_000, 3, generator=generator, dtype=torch.float64)
    z = draws @ torch.linalg.cholesky(K).mT
    square, slope = covariance_moments(phi, K)
    f, d = phi(z), phi.derivative(z)
    assert torch.allclose(square, f.mT @ f / len(z), atol=0.01)
    assert torch.allclose(slope, d.mT @ d / len(z), atol=0.01)


@pytest.mark.parametrize("name", ["tanh", "gelu", "leaky_relu", "hardtanh"])
def test_the_diagonal_of_two_input_moments_is_the_single_input_moment(name):
    K, phi = covariances(4, 3.0), activation(name)
    square, slope = covariance_moments(phi, K)
    at = moments(phi, K.diagonal())
    assert torch.allclose(square.diagonal(), at.square)
    assert torch.allclose(slope.diagonal(), at.slope_square)


@pytest.mark.parametrize(
    ("name", "C_W", "nu"),
    [("relu", 2.0, 5.0), ("linear", 1.0, 2.0), ("leaky_relu", 2 / (1 + 1e-4), 4.9988)],
)
def test_scale_invariant_activations_keep_every_variance(name, C_W, nu):
    point = find_critical_point(name)
    assert point.universality_class is UniversalityClass.SCALE_INVARIANT
    assert (point.C_b, point.C_W) == (0.0, pytest.approx(C_W))
    assert math.isnan(point.K_star)
    assert point.nu == pytest.approx(nu, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "C_W", "a1"), [("tanh", 1.0, -2.0), ("sin", 1.0, -1.0), ("erf", math.pi / 4, -2.0)]
)
def test_smooth_odd_activations_have_their_critical_point_at_zero(name, C_W, a1):
    point = find_critical_point(name)
    assert point.universality_class is UniversalityClass.ZERO
    assert (point.C_b, point.C_W, point.K_star) == (0.0, pytest.approx(C_W), 0.0)
    assert point.a1 == pytest.approx(a1)
    assert point.p_perp == pytest.approx(1.0, rel=1e-5)
    assert point.nu == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("name", "C_b", "C_W", "K_star"),
    [
        ("gelu", 0.17292239, 1.98305826, (3 + math.sqrt(17)) / 2),
        ("swish", 0.55514317, 1.98800468, 14.32017362),
    ],
)
def test_gelu_and_swish_are_half_stable(name, C_b, C_W, K_star):
    point = find_critical_point(name)
    assert point.universality_class is UniversalityClass.HALF_STABLE
    assert (point.C_b, point.C_W) == (pytest.approx(C_b, abs=1e-8), pytest.approx(C_W, abs=1e-8))
    assert point.K_star == pytest.approx(K_star, rel=1e-8)


@pytest.mark.parametrize("name", ["gelu", "swish", "mish", nn.Hardswish()])
def test_both_susceptibilities_are_one_at_a_half_stable_point_that_is_kept(name):
    point = find_critical_point(name)
    here = SignalPropagation.critical(name)
    chi = here.susceptibilities(point.K_star)
    assert float(chi.parallel) == pytest.approx(1.0, abs=1e-8)
    assert float(chi.perpendicular) == pytest.approx(1.0, abs=1e-8)
    assert float(here.variances(point.K_star, 20)[-1]) == pytest.approx(point.K_star, rel=1e-6)


@pytest.mark.parametrize("name", ["sigmoid", "softplus", torch.square, torch.sign, nn.Tanhshrink()])
def test_activations_without_criticality_say_why(name):
    point = find_critical_point(name)
    assert not point.exists
    assert point.reason
    with pytest.raises(UserError, match=r"no critical initialisation: .*K"):
        point.required()


def test_elu_falls_as_the_square_of_depth():
    # g = K - sqrt(2/pi) K^(3/2) and <phi'^2> = 1 - sqrt(2/pi) K^(1/2), so K = (2/cl)^2, p = 2.
    point = find_critical_point("elu")
    assert point.universality_class is UniversalityClass.ZERO
    assert point.p_perp == pytest.approx(2.0, rel=1e-3)
    assert math.isnan(point.a1)
    K = SignalPropagation.critical("elu").variances(1.0, 1000)[-1]
    assert 1000**2 * float(K) == pytest.approx(2 * math.pi, rel=0.03)


@settings(max_examples=15)
@given(gamma=st.floats(0.0, 0.95), name=st.sampled_from(["relu", "tanh", "gelu"]))
def test_a_residual_connection_leaves_both_susceptibilities_critical(gamma, name):
    point = find_critical_point(name, gamma)
    K = {"relu": 1.0, "tanh": 1e-9, "gelu": point.K_star}[name]
    here = SignalPropagation(name, point.C_b, point.C_W, gamma)
    chi = here.susceptibilities(K)
    assert float(chi.parallel) == pytest.approx(1.0, abs=1e-7)
    assert float(chi.perpendicular) == pytest.approx(1.0, abs=1e-7)
    assert float(here.variances(K, 2)[-1]) == pytest.approx(K, rel=1e-7)


@given(gamma=st.floats(0.0, 0.95))
def test_the_slope_of_residual_networks_is_its_closed_form(gamma):
    keep = 1 - gamma**2
    even = keep * (keep * 2 + 4 * gamma**2)
    assert find_critical_point("linear", gamma).nu == pytest.approx(even)
    # ReLU has <z phi^2> = sqrt(2/pi) at K = 1 and so a third cumulant gamma C_W sqrt(2/pi)/(1-g).
    third = 2 * gamma / (1 - gamma) * (2 * keep) ** 2 * 2 / math.pi
    odd = keep * (keep * 5 + 4 * gamma**2) + third
    assert find_critical_point("relu", gamma).nu == pytest.approx(odd)


@pytest.mark.parametrize(
    "module", [nn.Softmax(-1), nn.GLU(), nn.LayerNorm(4), lambda z: z.sum(), lambda z: z / z.max()]
)
def test_what_is_not_elementwise_is_refused(module):
    with pytest.raises(UserError, match=r"elementwise|each entry"):
        find_critical_point(module)


def test_an_activation_drawn_at_random_is_refused():
    with pytest.raises(UserError, match="deterministically"):
        find_critical_point(lambda z: z * torch.rand_like(z))


def test_an_unknown_name_is_refused_with_those_known():
    with pytest.raises(UserError, match=r"one of elu, .*tanh, got 'tahn'"):
        find_critical_point("tahn")


def test_describing_a_module_leaves_it_as_it_was():
    module = nn.SELU(inplace=True)
    find_critical_point(module)
    assert module.inplace and module.training
