import pytest
import torch
from scipy.integrate import solve_ivp

from understudy.core.errors import UserError
from understudy.simulate.ode_families import (
    CHEN_LEE,
    FAMILIES,
    LORENZ,
    SPROTT_LINZ_F,
    THOMAS,
    sample_families,
    times,
)
from understudy.simulate.runge_kutta import integrate

SHORT = times(1.0, 11)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_trajectories_are_those_of_scipy(name):
    family = FAMILIES[name]
    data = family.sample(2, generator(), t=SHORT)
    equation = data.equation(1)
    solution = solve_ivp(
        lambda _, u: equation.evaluate(torch.tensor(u)).numpy(),
        (0.0, 1.0),
        data.u[1, 0].double().numpy(),
        method="DOP853",
        t_eval=SHORT.numpy(),
        rtol=1e-8,
        atol=1e-8,
    )
    expected = torch.tensor(solution.y.T).float()
    torch.testing.assert_close(data.u[1], expected, rtol=2e-4, atol=2e-4)


def test_every_run_has_its_own_steps_and_does_not_know_of_the_others():
    rates = torch.tensor([[1.0], [300.0], [-2.0]], dtype=torch.float64)
    u0 = torch.ones(3, 1, dtype=torch.float64)
    together = integrate(lambda u, rows: -rates[rows] * u, u0, SHORT)
    torch.testing.assert_close(together[..., 0], torch.exp(-rates * SHORT), rtol=1e-5, atol=1e-7)
    alone = integrate(lambda u, rows: -rates[:1] * u, u0[:1], SHORT)
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=0)


def test_tighter_tolerances_err_less():
    def circle(u, rows):
        return torch.stack([u[:, 1], -u[:, 0]], dim=1)

    u0 = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    t = torch.tensor([0.0, 6.0], dtype=torch.float64)
    exact = torch.stack([t.cos(), -t.sin()], dim=1)[1]
    errors = [
        float((integrate(circle, u0, t, rtol=tol, atol=tol)[0, 1] - exact).norm())
        for tol in (1e-4, 1e-6, 1e-8)
    ]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-7


def test_a_run_that_grows_beyond_bounds_is_nan_and_the_others_go_on():
    u0 = torch.tensor([[1.25], [-1.0]], dtype=torch.float64)
    out = integrate(lambda u, rows: u * u, u0, SHORT)  # 1 / (0.8 - t) and -1 / (1 + t)
    assert bool(out[0].isnan().all())
    torch.testing.assert_close(out[1, :, 0], -1.0 / (1.0 + SHORT), rtol=1e-5, atol=1e-7)


def test_parameters_stay_within_a_tenth_of_their_means_and_have_three_digits():
    data = LORENZ.sample(32, generator(), t=SHORT)
    mean = torch.tensor([10.0, 28.0, 2.67], dtype=torch.float64)
    assert bool(((data.numbers / mean - 1).abs() < 0.105).all())
    assert all(float(f"{x:.2e}") == x for x in data.numbers.flatten().tolist())
    assert len(data.numbers.unique(dim=0)) == 32


def test_a_fixed_parameter_is_the_same_in_every_run():
    numbers = CHEN_LEE.sample(16, generator(), t=SHORT).numbers
    assert set(numbers[:, 1].tolist()) == {-10.0}


def test_a_parameter_that_occurs_thrice_has_one_value():
    numbers = THOMAS.sample(8, generator(), t=SHORT).numbers
    assert bool((numbers == numbers[:, :1]).all())


def test_only_accepted_parameters_are_drawn():
    data = LORENZ.sample(16, generator(), t=SHORT, accept=lambda unit: unit[:, 0] > 0.8)
    assert float(data.numbers[:, 0].min()) >= 10.6


def test_no_trajectory_reaches_the_bound():
    data = SPROTT_LINZ_F.sample(128, generator(), t=times(6.0, 13))
    assert len(data) == 128 and float(data.u.abs().max()) < 1000


def test_families_come_in_turns_and_equal_shares():
    data = sample_families([LORENZ, THOMAS, FAMILIES["lorenz96-4"]], 10, seed=1, t=SHORT)
    assert data.which.tolist() == [0, 1, 2] * 3 + [0]
    assert data.u.shape == (10, 11, 4) and data.dims.tolist()[:3] == [3, 3, 4]
    assert not bool(data.u[0, :, 3].any())
    assert data.equation(1).skeleton == THOMAS.skeleton


def test_the_same_seed_draws_the_same():
    a, b = (sample_families([LORENZ, THOMAS], 6, seed=3, t=SHORT) for _ in range(2))
    assert torch.equal(a.u, b.u) and torch.equal(a.numbers, b.numbers)


def test_times_that_do_not_increase_are_refused():
    with pytest.raises(UserError, match=r"must increase, found 1 before 0\.5"):
        LORENZ.sample(2, generator(), t=torch.tensor([0.0, 1.0, 0.5]))


def test_parameters_that_no_draw_satisfies_are_refused():
    with pytest.raises(UserError, match="only 0 were accepted"):
        LORENZ.sample(1, generator(), t=SHORT, accept=lambda unit: unit[:, 0] > 2.0)
