"""Facts about the test functions: golden values where a formula collapses, and known results."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from understudy.core.errors import UserError
from understudy.simulate.functions import (
    AIR_DENSITY,
    GRAVITY,
    Borehole,
    Friedman,
    Hartmann6,
    Ishigami,
    OTLCircuit,
    Piston,
    Projectile,
    WingWeight,
)

ALL = [Ishigami, Borehole, WingWeight, OTLCircuit, Piston, Friedman, Hartmann6, Projectile]
PI = math.pi

GOLDEN = [
    # sin = 1 in the first two inputs: 1 + a + b pi^4
    (Ishigami, (PI / 2, PI / 2, PI), 8 + 0.1 * PI**4),
    # r = e r_w makes the logarithm 1, all else 1 but the heads: 2 pi 2 / (1 + 2 + 1)
    (Borehole, (1, math.e, 1, 3, 1, 1, 1, 1), PI),
    # every factor is 1: the leading constant, and the paint on one square foot
    (WingWeight, (1, 1, 1, 0, 1, 1, 0.01, 1, 1, 0.5), 0.036 + 0.5),
    # at 60 degrees the cosine is 1/2: (1/4)^-0.6 and 2^-0.3
    (WingWeight, (1, 1, 1, 60, 1, 1, 0.01, 1, 1, 0), 0.036 * 2**0.9),
    # Rb1 = Rb2 gives Vb1 = 6; beta (Rc2 + 9) = Rf = 10: 6.74/2 + 11.35/2 + 0.74 * 10/2
    (OTLCircuit, (1, 1, 10, 1, 1, 1), 12.745),
    # V0 = P0 S + 19.62 M makes A = 0, then S^2 P0 V0 / V^2 = k: 2 pi sqrt(M / 2 k)
    (Piston, (2, 1, 40.24, 1, 1, 300, 300), 2 * PI),
    # sin(pi/2) = 1 and x3 away from the middle: 10 + 20/4 + 10/5 + 5/5
    (Friedman, (0.5, 1, 0, 0.2, 0.2, 0.9, 0.9, 0.9, 0.9, 0.9), 18),
    # published optimum
    (Hartmann6, Hartmann6.minimiser, Hartmann6.minimum),
]


@pytest.mark.parametrize(("function", "x", "y"), GOLDEN)
def test_the_formula_collapses_to_a_golden_value(function, x, y):
    X = torch.tensor([x], dtype=torch.float64)
    assert function().evaluate(X).item() == pytest.approx(y, rel=2e-6 if y < 0 else 1e-12)


@pytest.mark.parametrize(
    ("index", "exponent"),
    [(0, 0.758), (1, 0.0035), (2, 0.6), (4, 0.006), (5, 0.04), (6, -0.3), (7, 0.49), (8, 0.49)],
)
def test_wing_weight_follows_its_power_laws(index, exponent):
    X = torch.ones(2, 10, dtype=torch.float64)
    X[:, 9] = 0
    X[1, index] = 2
    one, two = WingWeight().evaluate(X)[:, 0]
    assert (two / one).item() == pytest.approx(2**exponent)


@pytest.mark.parametrize("function", ALL)
def test_many_runs_agree_with_single_runs_and_are_finite(function):
    simulator = function()
    df = simulator.space.sample(5, seed=1)
    Y = simulator.run_many(df)
    assert Y.shape == (5, len(simulator.outputs)) and np.isfinite(Y.to_numpy()).all()
    assert simulator.run(df.iloc[3]) == pytest.approx(Y.iloc[3].to_dict())


@pytest.mark.parametrize("function", ALL)
def test_leading_dimensions_are_kept(function):
    simulator = function()
    X = torch.from_numpy(simulator.space.encode(simulator.space.sample(6)))
    Y = simulator.evaluate(X.reshape(2, 3, -1))
    assert torch.equal(Y.reshape(6, -1), simulator.evaluate(X))


def test_the_moments_of_ishigami_are_those_of_a_large_sample():
    ishigami = Ishigami()
    y = ishigami.run_many(ishigami.space.sample(2**16))["y"]
    assert y.mean() == pytest.approx(ishigami.mean, rel=1e-3)
    assert y.var() == pytest.approx(ishigami.variance, rel=1e-3)


def test_the_sensitivities_of_ishigami_are_the_published_ones():
    assert Ishigami().first_order == pytest.approx((0.3139, 0.4424, 0.0), abs=5e-5)
    assert Ishigami().total == pytest.approx((0.5576, 0.4424, 0.2437), abs=5e-5)


def test_the_first_order_indices_of_ishigami_are_variances_of_conditional_means():
    ishigami = Ishigami(a=5.0, b=0.2)
    grid = (torch.arange(48, dtype=torch.float64) + 0.5) / 48 * 2 * PI - PI  # midpoint rule
    X = torch.stack(torch.meshgrid(grid, grid, grid, indexing="ij"), dim=-1)
    Y = ishigami.evaluate(X)[..., 0]
    of_means = [Y.mean(dim=[j for j in range(3) if j != i]).var(correction=0) for i in range(3)]
    total = [Y.var(dim=i, correction=0).mean() for i in range(3)]
    variance = Y.var(correction=0)
    assert [float(v / variance) for v in of_means] == pytest.approx(ishigami.first_order, abs=2e-3)
    assert [float(v / variance) for v in total] == pytest.approx(ishigami.total, abs=2e-3)


def test_inputs_beyond_the_fifth_do_not_matter_to_friedman():
    X = torch.from_numpy(np.random.default_rng(0).random((9, 7)))
    changed = torch.cat([X[:, :5], 1 - X[:, 5:]], dim=1)
    friedman = Friedman(num_inputs=7)
    assert torch.equal(friedman.evaluate(X), friedman.evaluate(changed))


def test_friedman_needs_its_five_inputs():
    with pytest.raises(UserError, match="at least 5, found 4"):
        Friedman(num_inputs=4)


def test_nothing_near_the_optimum_of_hartmann_is_lower():
    best = torch.tensor(Hartmann6.minimiser, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    near = best + 1e-3 * torch.randn(500, 6, dtype=torch.float64, generator=generator)
    function = Hartmann6()
    assert (function.evaluate(near) > function.evaluate(best) - 1e-6).all()


class TestProjectile:
    def test_in_vacuum_flies_a_parabola(self):
        v, angle = 50.0, 40.0
        flight = Projectile().run(
            {
                "speed": v,
                "elevation": angle,
                "mass": 1.0,
                "diameter": 0.05,
                "drag_coefficient": 0.0,
                "wind": 5.0,
            }
        )
        sine = math.sin(math.radians(angle))
        assert flight == pytest.approx(
            {
                "range": v**2 * math.sin(math.radians(2 * angle)) / GRAVITY,
                "height": (v * sine) ** 2 / (2 * GRAVITY),
                "time": 2 * v * sine / GRAVITY,
                "impact_speed": v,
            },
            rel=1e-9,
        )

    def test_agrees_with_an_adaptive_solver(self):
        from scipy.integrate import solve_ivp

        simulator = Projectile()
        df = simulator.space.sample(8, seed=2)
        for row, found in zip(
            df.itertuples(), simulator.run_many(df).to_dict("records"), strict=True
        ):
            c = PI / 8 * AIR_DENSITY * row.diameter**2 * row.drag_coefficient / row.mass

            def slope(t, f, c=c, wind=row.wind):
                _, _, u, v = f
                drag = c * math.hypot(u - wind, v)
                return [u, v, -drag * (u - wind), -GRAVITY - drag * v]

            def ground(t, f):
                return f[1] if t > 1e-6 else 1.0

            def apex(t, f):
                return f[3]

            ground.terminal = True
            angle = math.radians(row.elevation)
            start = [0, 0, row.speed * math.cos(angle), row.speed * math.sin(angle)]
            exact = solve_ivp(
                slope,
                (0, 100),
                start,
                events=[ground, apex],
                method="DOP853",
                rtol=1e-11,
                atol=1e-11,
            )
            x, _, u, v = exact.y_events[0][0]
            expected = (x, exact.y_events[1][0][1], exact.t_events[0][0], math.hypot(u, v))
            assert tuple(found.values()) == pytest.approx(expected, rel=1e-6)

    def test_halving_the_step_hardly_changes_the_hardest_flight(self):
        hardest = pd.DataFrame(
            {
                "speed": [120.0],
                "elevation": [75.0],
                "mass": [0.1],
                "diameter": [0.1],
                "drag_coefficient": [0.6],
                "wind": [-10.0],
            }
        )
        coarse, fine = (Projectile(steps).run_many(hardest) for steps in (400, 800))
        np.testing.assert_allclose(coarse, fine, rtol=2e-5)

    def test_drag_shortens_the_flight(self):
        simulator = Projectile()
        df = simulator.space.sample(64, seed=3).assign(wind=0.0)
        drag, none = simulator.run_many(df), simulator.run_many(df.assign(drag_coefficient=0.0))
        assert (drag < none).all().all()
