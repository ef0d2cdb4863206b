"""Moments of pairs against closed forms and cubature."""

import math

import pytest
import torch

from understudy.nn.gaussian_expectation import Activation
from understudy.nn.pair_moments import PairMoments, _by_series, pair_moments

K1 = torch.tensor([[0.2], [1.5], [9.0]], dtype=torch.float64)
K2 = torch.tensor([[0.5, 4.0]], dtype=torch.float64)
K = torch.tensor([0.9, -0.4], dtype=torch.float64) * (K1 * K2).sqrt()


def by_cubature(phi, k, k1, k2, nodes=1201):
    """Trapezium rule over a square of ten standard deviations."""
    z = torch.linspace(-10.0, 10.0, nodes, dtype=torch.float64)
    w = torch.exp(-0.5 * z.square())
    w = w / w.sum()
    rho = k / math.sqrt(k1 * k2)
    u = math.sqrt(k1) * z
    v = math.sqrt(k2) * (rho * z[:, None] + math.sqrt(1.0 - rho**2) * z)
    return float((w[:, None] * w * phi(u)[:, None] * phi(v)).sum())


@pytest.mark.parametrize("name", ["tanh", "gelu", "softplus", "hardtanh", "sin"])
def test_the_series_agrees_with_cubature(name):
    phi = {"hardtanh": torch.nn.functional.hardtanh, "sin": torch.sin, "tanh": torch.tanh}.get(
        name, getattr(torch.nn.functional, name, None)
    )
    found = pair_moments(name).value(K, K1, K2)
    for i, j in ((0, 0), (1, 1), (2, 0)):
        direct = by_cubature(phi, float(K[i, j]), float(K1[i]), float(K2[0, j]))
        assert float(found[i, j]) == pytest.approx(direct, abs=2e-5 if name == "hardtanh" else 1e-6)


def test_the_series_agrees_with_the_closed_form_of_erf():
    closed, series = pair_moments("erf"), _by_series(torch.erf, ())
    assert isinstance(closed, PairMoments)
    for name in ("value", "slope"):
        assert torch.allclose(
            getattr(series, name)(K, K1, K2), getattr(closed, name)(K, K1, K2), atol=1e-12
        )
    for name in ("square", "slope_square"):
        assert torch.allclose(getattr(series, name)(K1), getattr(closed, name)(K1), rtol=1e-9)


def test_piecewise_linear_activations_have_the_moments_of_their_parts():
    assert torch.allclose(pair_moments("linear").value(K, K1, K2), K, atol=1e-14)
    assert torch.allclose(pair_moments("linear").slope(K, K1, K2), torch.ones_like(K))
    leaky = pair_moments("leaky_relu")
    direct = by_cubature(torch.nn.functional.leaky_relu, float(K[1, 0]), 1.5, 0.5)
    assert float(leaky.value(K, K1, K2)[1, 0]) == pytest.approx(direct, abs=1e-5)


@pytest.mark.parametrize("name", ["relu", "erf", "tanh", "hardtanh"])
def test_slope_moments_are_the_derivatives_of_value_moments(name):
    moments, k = pair_moments(name), K.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(moments.value(k, K1, K2).sum(), k)
    assert torch.allclose(derivative, moments.slope(K, K1, K2), rtol=1e-3)


def test_a_function_with_kinks_is_integrated_between_them():
    step = Activation("step", lambda z: (z > 1.0).to(z), kinks=(1.0,))
    one = torch.ones(1, 1, dtype=torch.float64)
    above = 0.5 * math.erfc(1.0 / math.sqrt(2.0))
    assert float(pair_moments(step).square(one)) == pytest.approx(above, rel=1e-9)
    assert float(pair_moments(step).value(0.0 * one, one, one)) == pytest.approx(above**2, rel=1e-9)
