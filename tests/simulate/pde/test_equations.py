"""Each equation converges at the order of its scheme and keeps to closed forms and sums."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from mpmath import mp
from scipy.integrate import solve_ivp

from understudy.core.errors import UserError
from understudy.core.simulator import FieldSimulator
from understudy.simulate.pde import (
    Advection,
    Burgers,
    CombinedEquation,
    Darcy,
    FisherKPP,
    FitzHughNagumo,
    Heat,
    KolmogorovFlow,
    KuramotoSivashinsky,
    NavierStokes,
)
from understudy.simulate.pde.darcy import solve_darcy
from understudy.simulate.pde.exponential import AdamsStep, ExponentialStep, phi
from understudy.simulate.pde.helmholtz import solve_helmholtz
from understudy.simulate.pde.semilinear import square
from understudy.simulate.pde.weno import weno_slope


def codes(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def last(simulator: FieldSimulator, x: torch.Tensor, start: torch.Tensor | None = None):
    """Last field in the precision of the computation."""
    return deque(simulator._march(simulator.values(x), start), maxlen=1)[0]


def orders(
    make: Callable[[int], FieldSimulator],
    x: torch.Tensor,
    counts: tuple[int, ...],
    start: torch.Tensor | None = None,
    waves: int | None = None,
) -> list[float]:
    """Orders at which the last field converges as the number of time steps doubles.

    With a number of waves, only its modes below that count.
    """

    def seen(n: int) -> torch.Tensor:
        field = last(make(n), x, start)
        return field if waves is None else torch.fft.rfft(field, norm="forward")[..., :waves]

    exact = seen(8 * counts[-1])
    errors = [float((seen(n) - exact).abs().max()) for n in counts]
    return [math.log2(a / b) for a, b in pairwise(errors)]


def test_functions_of_an_imaginary_step_are_exact():
    z = torch.tensor([2.0j], dtype=torch.complex128)
    step = ExponentialStep.of(z, 1.0)
    e = np.exp(2.0j)
    assert complex(step.stage) == pytest.approx((np.exp(1.0j) - 1.0) / 2.0j)
    first = (-4.0 - 2.0j + e * (4.0 - 6.0j + (2.0j) ** 2)) / (2.0j) ** 3
    assert complex(step.first) == pytest.approx(first)


def test_phi_functions_are_those_of_many_digits():
    numbers = [0.0, 1e-8, 0.5, 0.999, 1.001, -0.99, -3.0, -1e4, 10.0]
    found = phi(torch.tensor(numbers, dtype=torch.float64), 5)
    mp.dps = 100
    for z, *values in zip(numbers, *found, strict=True):
        exact = mp.exp(z)
        for k, value in enumerate(values, start=1):
            exact = mp.mpf(1) / mp.factorial(k) if z == 0 else (exact - 1 / mp.factorial(k - 1)) / z
            assert float(value) == pytest.approx(float(exact), rel=2e-15)


def test_adams_methods_are_exact_for_a_polynomial_of_the_fourth_degree():
    # w' = -w + t^4 + 4 t^3 from 0 is t^4
    L, h = torch.tensor([-1.0], dtype=torch.float64), 0.125
    step = AdamsStep.of(L, h)

    def nonlinear(w, t):
        return torch.full_like(w, t**4 + 4.0 * t**3)

    *_, end = step.march(torch.zeros(1, dtype=torch.float64), nonlinear, h, 8)
    start = deque(step.start.march(torch.zeros(1).double(), nonlinear, h, 3), maxlen=1)[0]
    behind = (start - (3 * h) ** 4) * math.exp(-5 * h)  # what Runge-Kutta left in three steps
    assert float(end - behind) == pytest.approx(1.0, abs=1e-13)


def test_adams_methods_are_of_fifth_order():
    def flow(n: int) -> NavierStokes:
        return NavierStokes(16, 1, 0.5, n, scheme="adams")

    def forced(n: int) -> CombinedEquation:
        return CombinedEquation(32, 1, 1, 0.5, n, "spectral", scheme="adams")

    assert min(orders(flow, codes(1e-3, 2), (20, 40, 80))) > 4.6
    assert min(orders(forced, codes(0.5, 0.2, 0.1, 3), (40, 80))) > 4.6


def test_adams_methods_refuse_flow_that_runge_kutta_takes():
    x = codes(1e-3, 2)
    start = 20.0 * NavierStokes(16, 1, 1.0, 100).initial(x)
    u, v = NavierStokes(16)._velocity(torch.fft.rfft2(start, norm="forward"))
    fewest = math.ceil(float((u.abs() + v.abs()).max()) * 16)  # steps of one cell each
    NavierStokes(16, 1, 1.0, fewest + 1).fields(x, start)
    with pytest.raises(UserError, match="more substeps"):
        NavierStokes(16, 1, 1.0, fewest + 1, scheme="adams").fields(x, start)
    NavierStokes(16, 1, 1.0, 5 * fewest // 2, scheme="adams").fields(x, start)


def test_adams_and_runge_kutta_agree_and_single_precision_rounds():
    x = codes(64.0, 2.0, 1.0, 3)
    exact = last(KuramotoSivashinsky(64, 1, 0, 200), x)
    adams = last(KuramotoSivashinsky(64, 1, 0, 200, scheme="adams"), x)
    single = last(KuramotoSivashinsky(64, 1, 0, 200, precision="single"), x)
    torch.testing.assert_close(adams, exact, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(single.double(), exact, rtol=0.0, atol=1e-4)
    assert single.dtype == torch.float32
    for option in ({"scheme": "euler"}, {"precision": "half"}):
        with pytest.raises(UserError, match="must be"):
            KuramotoSivashinsky(**option)


def test_a_product_has_no_aliases():
    n = 16
    x = 2.0 * math.pi * torch.arange(n, dtype=torch.float64) / n
    w = torch.fft.rfft((5.0 * x).cos(), norm="forward")
    # cos(5x)^2 = 1/2 + cos(10x)/2, whose second wave 16 points would show as cos(6x)
    modes = square(w, n)
    assert complex(modes[0]) == pytest.approx(0.5)
    assert float(modes[1:].abs().max()) < 1e-15


def test_kuramoto_sivashinsky_is_of_fourth_order():
    # short waves follow the long ones at once and are of third order until steps resolve that
    def make(n: int) -> KuramotoSivashinsky:
        return KuramotoSivashinsky(64, 1, 0, n)

    x = codes(22.0, 0.5, 1.0, 3)
    assert min(orders(make, x, (8, 16, 32), waves=5)) > 3.7
    assert min(orders(make, x, (64, 128))) > 3.5


def test_kuramoto_sivashinsky_keeps_its_mean_and_grows_waves_at_their_rate():
    simulator = KuramotoSivashinsky(64, 10, 0)
    length, nu, rise = 32.0, 1.0, 1e-6
    q = 2.0 * math.pi * 3 / length
    grid = simulator.grid.axes()[0]
    start = rise * (2.0 * math.pi * 3 * grid).cos().reshape(1, 1, -1)
    found = last(simulator, codes(length, 0.2, nu, 0), start)
    torch.testing.assert_close(
        found, start * math.exp(2.0 * (q**2 - nu * q**4)), rtol=0.0, atol=1e-5 * rise
    )
    fields = simulator.fields(codes(length, 0.2, nu, 4), start + 1.0)
    assert fields.mean(-1).flatten().tolist() == pytest.approx([1.0] * 11, abs=1e-6)


def test_kuramoto_sivashinsky_is_that_of_an_adaptive_solver():
    simulator = KuramotoSivashinsky(32, 4, 0)
    x = codes(22.0, 0.5, 1.0, 2)
    start = simulator.initial(x)
    k = 2.0 * np.pi / 22.0 * np.arange(17)
    slope = np.where(np.arange(17) < 16, 1j * k, 0.0)

    def right(t, u):
        w = np.fft.rfft(u)
        product = np.fft.rfft(np.fft.irfft(np.where(slope != 0, w, 0), 48) ** 2)[:17] * 1.5
        product[0] = 0.0
        return np.fft.irfft((k**2 - k**4) * w - 0.5 * slope * product, 32)

    exact = solve_ivp(right, (0, 2.0), start.flatten().numpy(), "LSODA", rtol=1e-9, atol=1e-9).y
    np.testing.assert_allclose(last(simulator, x).flatten().numpy(), exact[:, -1], atol=2e-5)


def test_advection_moves_the_profile_exactly():
    simulator = Advection(points=64, steps=4, duration=0.5)
    fields = simulator.fields(codes(1.0, 7))
    for k in range(5):
        torch.testing.assert_close(fields[:, k], fields[:, 0].roll(8 * k, -1))


def test_weno_is_of_fifth_order_and_conserves():
    errors = []
    for n in (32, 64, 128):
        x = torch.arange(n, dtype=torch.float64) / n
        u = (2.0 * math.pi * x).sin() + 0.3
        slope = weno_slope(u * u / 2, u, u.abs().max(), 1.0 / n)
        errors.append(float((slope - u * 2 * math.pi * (2 * math.pi * x).cos()).abs().mean()))
        assert abs(float(slope.sum())) < 1e-9
    assert min(math.log2(a / b) for a, b in pairwise(errors)) > 4.5


def burgers_by_cole_hopf(viscosity: float, t: float, x: np.ndarray) -> np.ndarray:
    """Burgers' solution from sin(2 pi x): a mean over where Brownian motion may come from."""
    nu = viscosity / math.pi
    y = np.linspace(-1.0, 1.0, 8001)
    potential = -np.cos(2.0 * np.pi * (x[:, None] - y)) / (2.0 * np.pi)
    weight = -(y**2 / (2.0 * t) + potential) / (2.0 * nu)
    weight = np.exp(weight - weight.max(1, keepdims=True))
    return (weight * y / t).sum(1) / weight.sum(1)


@pytest.mark.parametrize(
    ("flux", "viscosity", "refinement", "error"),
    [("spectral", 0.1, 2, 1e-6), ("weno", 0.1, 4, 1e-5), ("weno", 0.003, 16, 1e-4)],
)
def test_burgers_is_its_closed_form(flux, viscosity, refinement, error):
    simulator = Burgers(32, 1, refinement, 0.3, flux=flux)
    grid = simulator.grid.axes()[0]
    fine = simulator.fine.axes()[0]
    simulator._draw = lambda values: (2.0 * math.pi * fine).sin().reshape(1, 1, -1)
    found = last(simulator, codes(viscosity, 0)).flatten().numpy()
    exact = burgers_by_cole_hopf(viscosity, 0.3, grid.numpy())
    assert np.abs(found - exact).max() < error


def test_burgers_is_of_fourth_order_in_time():
    found = orders(lambda n: Burgers(32, 1, 1, 0.1, n, "spectral"), codes(0.5, 2), (4, 8, 16))
    assert min(found) > 3.7


def test_the_combined_equation_moves_a_soliton():
    # alpha = 3 and gamma = 1 is the equation of Korteweg and de Vries, u_t + 6 u u_x + u_xxx = 0
    simulator = CombinedEquation(64, 1, 1, 1.0, 400, "spectral", forced=False)
    x, c = simulator.grid.axes()[0], 4.0
    soliton = c / 2.0 / torch.cosh(math.sqrt(c) / 2.0 * (x - 6.0)) ** 2
    moved = c / 2.0 / torch.cosh(math.sqrt(c) / 2.0 * (x - 6.0 - c)) ** 2
    found = last(simulator, codes(3.0, 0.0, 1.0, 0), soliton.reshape(1, 1, -1))
    torch.testing.assert_close(found.flatten(), moved, rtol=0.0, atol=1e-4)


def test_the_combined_equation_follows_its_force():
    # without the flux du/dt = delta, whose integral is known for every sine
    simulator = CombinedEquation(32, 4, 1, 2.0, 2, "spectral")
    x = codes(0.0, 0.0, 0.0, 5)
    sines = simulator._sines(simulator.values(x))
    grid = simulator.grid.axes()[0] / 16.0
    angle = 2.0 * math.pi * sines.wavenumber.T * grid + sines.phase.T
    w, amplitude = sines.frequency.T, sines.amplitude.T
    gain = amplitude * (angle.cos() - (angle + 2.0 * w).cos()) / w
    expected = (amplitude * angle.sin() + gain).sum(0)
    torch.testing.assert_close(last(simulator, x).flatten(), expected, rtol=0.0, atol=1e-6)


def test_the_combined_equation_is_of_fourth_order_with_force_and_dispersion():
    found = orders(
        lambda n: CombinedEquation(32, 1, 1, 0.5, n, "spectral"),
        codes(0.5, 0.2, 0.5, 3),
        (8, 16, 32),
    )
    assert min(found) > 3.7


@pytest.mark.parametrize(("scheme", "order"), [("implicit_euler", 1.0), ("crank_nicolson", 2.0)])
def test_heat_is_of_the_order_of_its_scheme(scheme, order):
    # from a smooth state: at a wall that jumps, no scheme has its order at once
    grid = Heat(15, 1).grid.axes()[0]
    start = 300.0 + 50.0 * (math.pi * grid).sin().reshape(1, 1, -1)
    x = codes(300.0, 300.0, 300.0)

    def make(n: int) -> Heat:
        return Heat(15, 1, n, 0.1 / n, 1.0, scheme)

    assert min(orders(make, x, (16, 32, 64), start)) == pytest.approx(order, abs=0.1)


def test_heat_decays_at_the_rate_of_the_differences_and_of_the_equation():
    errors = []
    for n in (7, 15, 31):
        simulator = Heat(n, 2, 1, 0.05, 1.0, "exact")
        x, y = simulator.grid.axes()
        start = ((math.pi * x).sin()[:, None] * (2 * math.pi * y).sin()).reshape(1, 1, n, n)
        found = last(simulator, torch.zeros(1, 5, dtype=torch.float64), start)
        errors.append(float((found - start * math.exp(-0.05 * 5 * math.pi**2)).abs().max()))
    assert min(math.log2(a / b) for a, b in pairwise(errors)) > 1.9


def test_heat_ends_in_the_harmonic_state_of_its_walls():
    wire = last(Heat(9, 1, 400), codes(300.0, 100.0, 500.0))
    torch.testing.assert_close(wire.flatten(), torch.linspace(140.0, 460.0, 9).double())
    plate = last(Heat(9, 2, 400), codes(300.0, 100.0, 300.0, 200.0, 400.0))
    assert float(plate[0, 0, 4, 4]) == pytest.approx(250.0)  # the centre has the mean of the walls
    assert float(plate[0, 0, 0, 4]) < float(plate[0, 0, -1, 4])  # left is the first axis
    assert float(plate[0, 0, 4, 0]) < float(plate[0, 0, 4, -1])


def test_fisher_is_logistic_where_it_is_uniform_and_of_fourth_order():
    simulator = FisherKPP(16, 4, 1.0, 10)
    found = last(simulator, codes(1.0, 5.0, 0), torch.full((1, 1, 16), 0.1).double())
    exact = 0.1 * math.exp(5.0) / (1.0 - 0.1 + 0.1 * math.exp(5.0))
    torch.testing.assert_close(found, torch.full_like(found, exact), rtol=0.0, atol=1e-5)
    assert min(orders(lambda n: FisherKPP(32, 1, 0.2, n), codes(0.1, 5.0, 3), (4, 8, 16))) > 3.5


def test_fitzhugh_nagumo_is_of_fourth_order_and_that_of_an_adaptive_solver():
    x = codes(1e-3, 5e-3, 5e-3, 1)
    # the cubic term makes the first moments fast: steps are counted from where they are resolved
    assert min(orders(lambda n: FitzHughNagumo(8, 1, 0.5, n), x, (32, 64, 128))) > 3.7
    uniform = torch.tensor([0.5, 0.1]).double().reshape(1, 2, 1, 1).expand(1, 2, 8, 8)
    found = last(FitzHughNagumo(8, 1, 1.0), x, uniform)
    exact = solve_ivp(
        lambda t, w: [w[0] - w[0] ** 3 - 5e-3 - w[1], w[0] - w[1]],
        (0, 1.0), [0.5, 0.1], rtol=1e-10, atol=1e-10,
    ).y[:, -1]  # fmt: skip
    assert found[0, :, 3, 5].tolist() == pytest.approx(exact.tolist(), abs=1e-6)


def test_a_taylor_green_vortex_decays_at_its_rate():
    simulator = NavierStokes(32, 1, 1.0, 20)
    simulator._force = torch.zeros_like(simulator._force)
    x, y = simulator.grid.axes()
    vortex = ((2 * math.pi * x).cos()[:, None] * (2 * math.pi * y).cos()).reshape(1, 1, 32, 32)
    found = last(simulator, codes(1e-3, 0), vortex)
    torch.testing.assert_close(found, vortex * math.exp(-8.0 * math.pi**2 * 1e-3))


def test_flow_without_viscosity_and_force_keeps_energy_and_enstrophy():
    simulator = NavierStokes(32, 2, 0.5, 50)
    simulator._force = torch.zeros_like(simulator._force)
    values = {"viscosity": torch.tensor([0.0], dtype=torch.float64), "seed": torch.tensor([2.0])}
    start = simulator._draw(values)
    w = torch.where(simulator._resolved, simulator._transform(start), 0.0)
    states = list(simulator._march(values, simulator._inverse(w)))

    def invariants(field):
        u, v = simulator._velocity(simulator._transform(field))
        return float((u**2 + v**2).mean()), float((field**2).mean())

    assert invariants(states[-1]) == pytest.approx(invariants(states[0]), rel=1e-6)


def test_navier_stokes_is_of_fourth_order():
    found = orders(lambda n: NavierStokes(16, 1, 0.5, n), codes(1e-3, 2), (10, 20, 40))
    assert min(found) > 3.7


def test_kolmogorov_flow_at_high_viscosity_settles_to_its_laminar_profile():
    # 0 = nu u_yy - drag u + sin 4y
    simulator = KolmogorovFlow(16, 10, 2.0, 20)
    found = last(simulator, codes(1.0, 1), torch.zeros(1, 2, 16, 16).double())
    y = simulator.grid.axes()[1]
    laminar = ((4.0 * y).sin() / (16.0 + 0.1)).expand(16, -1)
    torch.testing.assert_close(found[0, 0], laminar, rtol=0.0, atol=1e-9)
    torch.testing.assert_close(found[0, 1], torch.zeros_like(laminar), rtol=0.0, atol=1e-9)


def test_kolmogorov_flow_is_of_fourth_order_and_free_of_divergence():
    simulator = KolmogorovFlow(16, 2, 0.1, 10)
    x = codes(1e-2, 3)
    vx, vy = torch.fft.rfft2(last(simulator, x), norm="forward").unbind(1)
    assert float((simulator._dx * vx + simulator._dy * vy).abs().max()) < 1e-12
    assert min(orders(lambda n: KolmogorovFlow(16, 1, 0.2, n), x, (8, 16, 32))) > 3.7


def test_darcy_is_of_second_order_where_the_medium_is_smooth():
    errors = []
    for n in (16, 32, 64):
        x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        u = (math.pi * x).sin()[:, None] * (math.pi * x).sin()
        a = (1.0 + x)[:, None].expand(n, n)
        flow = -math.pi * (math.pi * x).cos()[:, None] * (math.pi * x).sin()
        f = 2.0 * math.pi**2 * a * u + flow
        errors.append(float((solve_darcy(a[None], f[None])[0] - u).abs().max()))
    assert min(math.log2(a / b) for a, b in pairwise(errors)) > 1.9


def test_darcy_with_layers_conserves_flux_exactly():
    # in one dimension harmonic means are exact: a u' is linear, with a jump of a at 1/2
    n = 32
    a = torch.where(torch.arange(n) < n // 2, 3.0, 12.0).double()[:, None].expand(n, n)
    f = torch.ones(1, n, n, dtype=torch.float64)
    u = solve_darcy(a[None], f)[0]
    out = 2.0 * n * n * (
        (a[0] * u[0]).sum() + (a[-1] * u[-1]).sum()
        + (a[:, 0] * u[:, 0]).sum() + (a[:, -1] * u[:, -1]).sum()
    )  # fmt: skip
    assert float(out) == pytest.approx(float(n * n), rel=1e-8)  # what flows out is what is put in


def test_darcy_is_that_of_a_dense_solver():
    simulator = Darcy(8, "multiscale")
    a = simulator.inputs(codes(3))["coefficient"]
    columns = torch.eye(64, dtype=torch.float64).reshape(64, 8, 8)
    # the operator is the inverse of the solver: put a solution in and get its source back
    inverse = solve_darcy(a.expand(64, 8, 8).contiguous(), columns).reshape(64, 64)
    torch.testing.assert_close(inverse, inverse.T, rtol=0.0, atol=1e-9 * float(inverse.max()))
    assert float(torch.linalg.eigvalsh((inverse + inverse.T) / 2).min()) > 0.0
    exact = (torch.ones(64, dtype=torch.float64) @ inverse).reshape(8, 8)
    torch.testing.assert_close(last(simulator, codes(3))[0, 0], exact, rtol=1e-7, atol=0.0)


def test_helmholtz_is_of_second_order_and_of_zero_residual():
    errors = []
    for n in (16, 32, 64):
        x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        u = (2 * math.pi * x).cos()[:, None] * (math.pi * x).cos()
        square = torch.full((1, n, n), 130.0, dtype=torch.float64)
        found = solve_helmholtz(square, ((5.0 * math.pi**2 - 130.0) * u)[None])
        errors.append(float((found[0] - u).abs().max()))
    assert min(math.log2(a / b) for a, b in pairwise(errors)) > 1.8


def test_helmholtz_at_a_resonance_is_flagged():
    n = 16  # s is an eigenvalue of the differences, of a mode that the source excites
    s = 4.0 * n**2 * math.sin(math.pi / (2 * n)) ** 2
    x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    source = (math.pi * x).cos().expand(n, n)[None]
    found = solve_helmholtz(torch.full((1, n, n), s, dtype=torch.float64), source)
    assert found.isnan().all() or float(found.abs().max()) > 1e8
