"""Iterations with a proximal operator converge to what they minimise, and say how it goes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.models.inverse.conjugate_gradients import conjugate_gradients
from understudy.models.inverse.icnn import ConvexConvNet
from understudy.models.inverse.imaging_operators import (
    FunctionOperator,
    GaussianBlur,
    Identity,
    MatrixOperator,
)
from understudy.models.inverse.lpn import LearnedProximalNetwork
from understudy.models.inverse.patchwise import Patchwise
from understudy.models.inverse.plug_and_play import (
    SPLITTINGS,
    Splitting,
    data_scale,
    pnp_admm,
    pnp_hqs,
    pnp_pgd,
)


def problem() -> tuple[Tensor, MatrixOperator]:
    generator = torch.Generator().manual_seed(0)
    A = MatrixOperator(torch.randn(20, 16, generator=generator), (1, 4, 4))
    return torch.randn(3, 20, generator=generator), A


def ridge(weight: float):
    """Proximal operator of weight / 2 |x|^2."""
    return lambda y: y / (1.0 + weight)


def ridge_solution(y: Tensor, A: MatrixOperator, weight: float) -> Tensor:
    """Minimiser of half the squared misfit and weight / 2 |x|^2."""
    M = A.apply(torch.eye(16).reshape(16, 1, 4, 4)).T
    return torch.linalg.solve(M.T @ M + weight * torch.eye(16), M.T @ y.T).T.reshape(-1, 1, 4, 4)


def random_network(size: int = 8, alpha: float = 0.3) -> LearnedProximalNetwork:
    torch.manual_seed(0)
    network = ConvexConvNet(size=size, hidden=4, alpha=alpha)
    for weight in network.convex_weights():
        nn.init.uniform_(weight, 0.0, 0.05)
    return LearnedProximalNetwork(network, 0.1)


def test_proximal_gradient_descent_solves_ridge_regression():
    y, A = problem()
    step = 0.9 / A.norm() ** 2
    found = pnp_pgd(y, A, ridge(2.0), step=step, iterations=3000, tolerance=1e-7)
    torch.testing.assert_close(found.x, ridge_solution(y, A, 2.0 / step), atol=1e-4, rtol=1e-3)
    assert bool(found.converged.all())


def test_alternating_directions_solve_ridge_regression():
    y, A = problem()
    found = pnp_admm(y, A, ridge(0.5), Splitting(3.0, 0.25, iterations=500, tolerance=1e-7))
    # scale |y - Ax|^2 + rho * 0.5 / 2 |x|^2
    torch.testing.assert_close(found.x, ridge_solution(y, A, 3.0 * 0.5 / 0.5), atol=1e-4, rtol=1e-3)


def test_half_quadratic_splitting_solves_ridge_regression_with_the_envelope_of_the_prior():
    y, A = problem()
    found = pnp_hqs(y, A, ridge(1.0), Splitting(1.0, 0.5, iterations=100, tolerance=1e-5))
    z = found.x
    # z = f(x) and (A'A + 1) x = A'y + z
    x = 2.0 * z
    residual = A.normal(x) + x - A.adjoint(y) - z
    assert float(residual.abs().max()) < 1e-3


def test_descent_with_a_proximal_network_never_raises_its_objective_and_steps_vanish():
    lpn, A = random_network(), GaussianBlur((1, 8, 8), 1.0)
    y = torch.rand(4, 1, 4, 4)
    found = pnp_pgd(y, A, lpn, iterations=300, tolerance=1e-5, x0=3.0 * torch.randn(4, 1, 8, 8))
    assert found.rises.shape == (found.iterations - 1, 4) and not bool(found.rises.any())
    assert bool((found.objectives[0] > found.objectives[-1] + 0.01).all())
    assert bool(found.converged.all())


def test_a_denoiser_that_is_no_proximal_operator_need_not_converge():
    # a quarter turn of every value and its neighbour has no potential
    def turn(y: Tensor) -> Tensor:
        a, b = y[..., ::2], y[..., 1::2]
        return torch.stack([-b, a], -1).flatten(-2)

    found = pnp_pgd(
        torch.zeros(1, 1, 4, 4),
        Identity((1, 4, 4)),
        turn,
        step=1e-3,
        iterations=200,
        x0=torch.ones(1, 1, 4, 4),
    )
    assert found.iterations == 200 and not bool(found.converged.any())
    assert float(found.residuals[-1]) > 1.0


def test_what_diverges_is_noticed_and_the_last_good_image_is_kept():
    found = pnp_pgd(torch.ones(1, 1, 4, 4), Identity((1, 4, 4)), lambda y: 10.0 * y, step=1e-3)
    assert bool(found.diverged.all()) and not bool(found.converged.any())
    assert bool(torch.isfinite(found.x).all()) and found.iterations < 10
    nothing = pnp_pgd(torch.ones(1, 1, 4, 4), Identity((1, 4, 4)), lambda y: y * torch.nan)
    torch.testing.assert_close(nothing.x, torch.ones(1, 1, 4, 4))


def test_a_step_beyond_its_bound_is_warned_of():
    y, A = problem()
    with pytest.warns(UserWarning, match="convergence is not certain"):
        pnp_pgd(y, A, ridge(1.0), step=1.1 / A.norm() ** 2, iterations=1)


SEVEN = {"iterations": 7, "tolerance": 0.0}


@pytest.mark.parametrize("scheme", ["pgd", *SPLITTINGS])
def test_images_of_a_batch_do_not_know_of_each_other(scheme):
    def solve(y: Tensor):
        if scheme == "pgd":
            return pnp_pgd(y, A, ridge(1.0), **SEVEN)
        return SPLITTINGS[scheme](y, A, ridge(1.0), Splitting(**SEVEN))

    y, A = problem()
    together, alone = solve(y), solve(y[1:2])
    torch.testing.assert_close(together.x[1:2], alone.x, atol=1e-5, rtol=1e-4)
    assert together.residuals.shape == together.misfits.shape == (7, 3)


def test_a_listener_hears_of_every_iteration():
    y, A = problem()
    heard = []
    five = Splitting(iterations=5, tolerance=0.0)
    found = pnp_admm(y, A, ridge(1.0), five, listener=heard.append)
    assert [moment.iteration for moment in heard] == [1, 2, 3, 4, 5]
    torch.testing.assert_close(heard[-1].residual, found.residuals[-1])
    assert float(heard[-1].misfit.max()) == pytest.approx(float(found.misfits[-1].max()))


def test_patches_are_averaged_where_they_overlap():
    y = torch.rand(2, 1, 13, 10)
    same = Patchwise(lambda p: p, 8, 3)(y)
    torch.testing.assert_close(same, y)
    means = Patchwise(lambda p: p.mean((2, 3), keepdim=True).expand_as(p), 4, 4)(y[..., :8, :8])
    torch.testing.assert_close(means[0, 0, 0, 0], y[0, 0, :4, :4].mean())


def test_the_weight_of_the_data_makes_the_fixed_point_that_of_the_posterior():
    # a normal prior of deviation 1: with sigma 0.5, f(y) = y / 1.25
    y, A = problem()
    noise, sigma, rho = 0.7, 0.5, 0.2
    scale = data_scale(rho, sigma, noise)
    settings = Splitting(rho, scale, iterations=1000, tolerance=1e-7)
    found = pnp_admm(y, A, ridge(sigma**2), settings)
    torch.testing.assert_close(found.x, ridge_solution(y, A, noise**2), atol=1e-3, rtol=1e-2)


def test_conjugate_gradients_solve_each_sample():
    M = torch.randn(6, 6, dtype=torch.float64)
    M = M @ M.T + torch.eye(6)
    b = torch.randn(5, 6, dtype=torch.float64)
    b[2] = 0.0
    x = conjugate_gradients(lambda v: v @ M, b, tolerance=1e-12, iterations=60)
    torch.testing.assert_close(x, torch.linalg.solve(M, b.T).T)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": 0.0}, "rho must be positive"),
        ({"scale": -1.0}, "weight of the data must be positive"),
        ({"rho": float("nan")}, "rho must be positive"),
        ({"iterations": 0}, "at least 1 iteration"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Splitting(**options)


@pytest.mark.parametrize("scheme", SPLITTINGS.values(), ids=SPLITTINGS)
def test_ctrl_c_keeps_the_iterations_that_are_done_if_asked(scheme):
    def press(moment):
        if moment.iteration == 3:
            raise KeyboardInterrupt

    y, A = problem()
    whole = scheme(y, A, ridge(1.0), Splitting(iterations=3, tolerance=0.0))
    found = scheme(y, A, ridge(1.0), listener=press, interrupt="return")
    assert found.interrupted and not whole.interrupted and found.iterations == 3
    torch.testing.assert_close(found.x, whole.x)
    with pytest.raises(KeyboardInterrupt):
        scheme(y, A, ridge(1.0), listener=press)


def test_ctrl_c_before_there_is_anything_to_keep_ends_the_program():
    def press(y):
        raise KeyboardInterrupt

    y, A = problem()
    with pytest.raises(KeyboardInterrupt):
        pnp_pgd(y, A, press, interrupt="return")


def test_measurements_that_do_not_fit_are_refused():
    y, A = problem()
    with pytest.raises(UserError, match="the step must be positive"):
        pnp_pgd(y, A, ridge(1.0), step=0.0)
    with pytest.raises(UserError, match="at least 1 iteration"):
        pnp_pgd(y, A, ridge(1.0), iterations=0)
    with pytest.raises(UserError, match="the start has the shape"):
        pnp_admm(y, A, ridge(1.0), x0=torch.zeros(3, 1, 5, 5))
    with pytest.raises(UserError, match="the measurement has the shape"):
        pnp_pgd(y[:, :5], A, ridge(1.0))
    with pytest.raises(UserError, match="not finite"):
        pnp_pgd(y * torch.nan, A, ridge(1.0))
    with pytest.raises(UserError, match="the noise must be positive"):
        data_scale(0.1, 0.1, 0.0)
    with pytest.raises(UserError, match="smaller than the patch"):
        Patchwise(lambda p: p, 8, 4)(torch.zeros(1, 1, 7, 9))


def test_an_operator_whose_adjoint_turns_out_wrong_is_refused():
    A = FunctionOperator(lambda x: x, lambda y: y, (1, 4, 4), (1, 4, 4))
    A._adjoint = lambda y: 3.0 * y
    with pytest.raises(UserError, match="the adjoint is not that"):
        pnp_pgd(torch.zeros(1, 1, 4, 4), A, ridge(1.0))
