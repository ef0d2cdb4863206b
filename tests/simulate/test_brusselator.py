"""The Brusselator is integrated to the order of its method, and its steady state is one."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from understudy.core.errors import UserError
from understudy.simulate.brusselator import (
    DURATION,
    BrusselatorVariance,
    ExponentialStep,
    cosine_basis,
    laplace_eigenvalues,
)


def codes(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_the_transform_makes_the_laplacian_without_flux_diagonal():
    field = torch.rand(6, 6, dtype=torch.float64)
    padded = np.pad(field.numpy(), 1, mode="edge")
    stencil = padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2]
    basis = cosine_basis(6)
    spectral = basis.T @ (laplace_eigenvalues(6) * (basis @ field @ basis.T)) @ basis
    np.testing.assert_allclose(spectral.numpy(), stencil - 4 * field.numpy(), atol=1e-12)


def test_functions_of_a_step_are_exact_away_from_zero_and_at_it():
    # z = -2 by their formulas; at z = 0 they tend to h/2, h/6, h/6 and h/6
    step = ExponentialStep.of(torch.tensor([-2.0, 0.0], dtype=torch.float64), 1.0)
    e = math.exp(-2.0)
    assert step.stage.tolist() == pytest.approx([(math.exp(-1.0) - 1.0) / -2.0, 0.5])
    assert step.first.tolist() == pytest.approx([(-2.0 + e * 14.0) / -8.0, 1.0 / 6.0])
    assert step.middle.tolist() == pytest.approx([(e * -4.0) / -8.0, 1.0 / 6.0])
    assert step.last.tolist() == pytest.approx([(-2.0 + e * 6.0) / -8.0, 1.0 / 6.0])


def test_the_method_is_of_fourth_order():
    function = BrusselatorVariance(cells=8)
    x = codes(1.0, 2.0, 1.0, 1.0)
    exact = function.state(x, 3200)
    errors = [(function.state(x, n) - exact).abs().max().item() for n in (100, 200, 400)]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert min(orders) > 3.8


def test_the_state_is_that_of_an_adaptive_solver():
    function = BrusselatorVariance(cells=6)
    a, b, du, dv = 1.0, 2.5, 0.3, 1.2
    start = torch.stack([torch.full((6, 6), a).double(), b / a + function.noise])

    def laplace(w):
        p = np.pad(w, 1, mode="edge")
        return p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2] - 4 * w

    def slope(t, w):
        u, v = w.reshape(2, 6, 6)
        du_dt = du * laplace(u) + a - (b + 1) * u + u**2 * v
        dv_dt = dv * laplace(v) + b * u - u**2 * v
        return np.concatenate([du_dt.ravel(), dv_dt.ravel()])

    found = solve_ivp(slope, (0, DURATION), start.numpy().ravel(), rtol=1e-10, atol=1e-12)
    ours = function.state(codes(a, b, du, dv), 2000)
    np.testing.assert_allclose(ours.numpy().ravel(), found.y[:, -1], atol=1e-6)


def test_the_homogeneous_steady_state_stays():
    function = BrusselatorVariance(cells=6)
    a, b = 2.0, 1.5
    start = torch.tensor([a, b / a], dtype=torch.float64).reshape(1, 2, 1, 1).expand(1, 2, 6, 6)
    end = function.state(codes(a, b, 0.5, 0.5), 250, start)
    torch.testing.assert_close(end, start.clone())


def test_the_weights_of_inner_cells_are_a_tenth():
    # all ones: 6^2 - 2^2 = 32 outer cells of 1 and 4 inner of 0.1, in both substances
    values = np.r_[np.ones(64), np.full(8, 0.1)]
    state = torch.ones(1, 2, 6, 6, dtype=torch.float64)
    found = BrusselatorVariance(cells=6).variance(state).item()
    assert found == pytest.approx(values.var(ddof=1))


def test_explosive_reactions_are_refined_until_they_agree():
    X = torch.cat([codes(1.0, 1.0, 1.0, 1.0), codes(0.5, 3.5, 1.0, 1.0)])
    coarse = BrusselatorVariance(cells=6, steps=125, max_steps=125).evaluate(X)
    fine = BrusselatorVariance(cells=6, steps=125, max_steps=4000).evaluate(X)
    finest = BrusselatorVariance(cells=6, steps=2000, max_steps=4000).evaluate(X)
    assert not torch.allclose(coarse[1], finest[1], rtol=1e-2)
    torch.testing.assert_close(fine, finest, rtol=2e-3, atol=0.0)


def test_a_grid_without_an_inside_is_refused():
    with pytest.raises(UserError, match="cells"):
        BrusselatorVariance(cells=4)
