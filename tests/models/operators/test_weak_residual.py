"""Weak residuals against calculus."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import UserError
from understudy.models.operators.weak_residual import (
    WeakResidual,
    disc_rule,
    latin_hypercube,
    wendland,
)

sizes = pytest.mark.parametrize("n", [5, 7, 9, 13])


def drawn(residual, seed=0):
    return residual.draw(torch.Generator().manual_seed(seed))


def test_the_test_function_is_one_at_the_centre_and_zero_on_the_rim_with_its_gradient():
    v, gradient = wendland(torch.tensor([[0.0, 0.0], [0.6, 0.8]], dtype=torch.float64))
    torch.testing.assert_close(v, torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert float(gradient.abs().max()) < 1e-12


def test_at_half_the_radius_it_is_the_polynomial_of_degree_eight():
    # L = 4: (1 - r)^6 (35 r^2 + 18 r + 3) / 3 = (35/4 + 9 + 3) / 192 at r = 1/2
    v, _ = wendland(torch.tensor([[0.5, 0.0]], dtype=torch.float64))
    assert float(v) == pytest.approx(20.75 / 192, rel=1e-12)


@given(st.floats(-0.7, 0.7), st.floats(-0.7, 0.7))
@settings(deadline=None)
def test_its_gradient_is_that_of_automatic_differentiation(x, y):
    q = torch.tensor([[x, y]], dtype=torch.float64).requires_grad_()
    v, gradient = wendland(q)
    # the norm has no derivative at the centre
    wanted = torch.autograd.grad(v.sum(), q)[0].nan_to_num()
    torch.testing.assert_close(gradient.detach(), wanted, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("n", "points", "excess"), [(7, 25, 1.0125), (9, 45, 1.0017)])
def test_the_rule_has_the_points_and_the_error_that_are_known(n, points, excess):
    rule = disc_rule(n)
    _, plain = wendland(rule.points)
    assert len(rule.points) == points
    c = -(rule.points * plain).sum(1).mean() / (2 * rule.v.mean())
    assert 1 / float(c) == pytest.approx(excess, abs=5e-5)


@sizes
def test_gradients_of_the_test_function_add_up_to_nothing(n):
    assert float(disc_rule(n).gradient.sum(0).abs().max()) < 1e-13


@sizes
def test_the_rule_is_exact_for_linear_fluxes(n):
    residual = WeakResidual(source=-3.0, radius=1e-4, n_centres=20, n_quad=n)
    x, y = drawn(residual).unbind(1)
    flux = torch.stack([0.5 + 2.0 * x - 4.0 * y, 1.0 + 7.0 * x + y])[:, None]  # divergence 3
    assert float(residual.balance(flux).abs().max()) < 1e-9


def test_discs_stay_inside_and_are_as_large_as_said():
    residual = WeakResidual(radius=0.2, n_centres=50, n_quad=9)
    x = drawn(residual)
    assert float(x.min()) > 0.0 and float(x.max()) < 1.0
    discs = x.unflatten(0, (50, -1))
    reach = (discs - discs.mean(1, keepdim=True)).norm(dim=-1).amax()
    assert 0.17 < float(reach) < 0.2


def test_centres_are_in_each_row_and_column_once():
    points = (8 * latin_hypercube(8, torch.Generator().manual_seed(3))).long()
    for axis in points.unbind(1):
        assert sorted(axis.tolist()) == list(range(8))


@pytest.mark.parametrize("radius", [1e-4, 0.02])
def test_the_exact_solution_of_a_smooth_problem_leaves_no_residual(radius):
    # u = sin(pi x) sin(pi y), K = 1 + x: f = 2 pi^2 K u - pi cos(pi x) sin(pi y)
    residual = WeakResidual(source=0.0, radius=radius, n_centres=40, n_quad=13)
    points = drawn(residual)
    x, y = points.unbind(1)
    gradient = math.pi * torch.stack(
        [
            torch.cos(math.pi * x) * torch.sin(math.pi * y),
            torch.sin(math.pi * x) * torch.cos(math.pi * y),
        ]
    )
    flux = ((1 + x) * gradient)[:, None]
    centre = points.unflatten(0, (40, -1)).mean(1)
    cx, cy = centre.unbind(1)
    u = torch.sin(math.pi * cx) * torch.sin(math.pi * cy)
    f = 2 * math.pi**2 * (1 + cx) * u - math.pi * torch.cos(math.pi * cx) * torch.sin(math.pi * cy)
    left = residual.balance(flux)[0] - f * disc_rule(13).v.mean()
    assert float(left.abs().max()) < 2e-2 * max(radius / 0.02, 1e-4)
    assert not residual.mismatch(flux, flux).any()


def test_single_precision_of_the_flux_does_not_drown_the_balance_of_tiny_discs():
    residual = WeakResidual(radius=1e-4, n_centres=100)
    x = drawn(residual)
    flux = torch.stack([torch.sin(3 * x[:, 0]), torch.cos(2 * x[:, 1])])[:, None]
    error = residual.balance(flux.float().double()) - residual.balance(flux)
    assert float(error.square().mean().sqrt()) < 1e-3 * residual.source * 0.124


def test_the_loss_weighs_balance_by_the_root_of_the_number_of_discs():
    residual = WeakResidual(source=10.0, radius=0.1, n_centres=16)
    none = torch.zeros(2, 3, 16 * residual.quadrature)
    v = float(disc_rule(9).v.mean())
    assert float(residual.loss(none, none)) == pytest.approx(4 * (10 * v) ** 2, rel=1e-5)


def test_without_a_flux_the_loss_is_the_norm_and_the_hardest_squares():
    residual = WeakResidual(source=10.0, radius=0.1, n_centres=16)
    k_gradient = torch.zeros(2, 3, 16 * residual.quadrature)
    v = float(disc_rule(9).v.mean())
    square = (10 * v) ** 2  # of each of 3 * 16 discs
    found = float(residual.primal_loss(k_gradient, hardest=5))
    assert found == pytest.approx(math.sqrt(16 * square) + 5 * square, rel=1e-5)
    by_field = residual.by_field(residual.squares(None, k_gradient))
    torch.testing.assert_close(by_field, torch.full((3,), math.sqrt(16 * square) + 16 * square))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radius": 0.6}, "radius must be between 0 and 0.5.*found 0.6"),
        ({"radius": 0.0}, "radius"),
        ({"n_centres": 0}, "n_centres must be at least 1"),
        ({"n_quad": 3}, "at least 4 points a side, found 3"),
        ({"source": math.nan}, "source must be finite"),
    ],
)
def test_what_fits_no_disc_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        WeakResidual(**settings)
