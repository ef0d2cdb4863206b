r"""Functions on which surrogates, sensitivities and optimisers are tried, as simulators.

All but one are closed forms from the literature on computer experiments, with the ranges and, where
they are known, the exact facts (sensitivity indices, optimum) that a result can be held against;
formulas and ranges as collected by Surjanovic & Bingham, Virtual Library of Simulation Experiments.
:class:`Projectile` integrates an ordinary differential equation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from understudy.core.errors import UserError
from understudy.core.simulator import BatchedSimulator
from understudy.core.space import Continuous, Space

GRAVITY = 9.81  # m/s^2
BISECTIONS = 50  # to rounding
AIR_DENSITY = 1.225  # kg/m^3, at sea level and 15 degrees Celsius


def _unit_cube(n: int) -> Space:
    return Space(tuple(Continuous(f"x{i + 1}", 0.0, 1.0) for i in range(n)))


class Ishigami(BatchedSimulator):
    r"""Strong interaction and no main effect of the third input (Ishigami & Homma 1990).

    .. math:: y = \sin x_1 + a \sin^2 x_2 + b \, x_3^4 \sin x_1,
        \qquad x \in [-\pi, \pi]^3

    Its variance decomposes into :math:`V_1 = \tfrac12 (1 + b\pi^4/5)^2`, :math:`V_2 = a^2/8` and
    :math:`V_{13} = 8 b^2 \pi^8 / 225`.

    Parameters
    ----------
    a, b : float
        7 and 0.1 as in the paper.
    """

    space = Space(tuple(Continuous(f"x{i}", -math.pi, math.pi) for i in (1, 2, 3)))
    outputs = ("y",)

    def __init__(self, a: float = 7.0, b: float = 0.1) -> None:
        self.a = a
        self.b = b

    def evaluate(self, X: Tensor) -> Tensor:  # noqa: D102
        x1, x2, x3 = X.unbind(-1)
        y = x1.sin() + self.a * x2.sin() ** 2 + self.b * x3**4 * x1.sin()
        return y.unsqueeze(-1)

    @property
    def mean(self) -> float:
        """Mean over uniform inputs."""
        return self.a / 2

    @property
    def variance(self) -> float:
        """Variance over uniform inputs."""
        return sum(self._variances)

    @property
    def first_order(self) -> tuple[float, float, float]:
        """First-order Sobol indices of the three inputs."""
        v1, v2, _ = self._variances
        return v1 / self.variance, v2 / self.variance, 0.0

    @property
    def total(self) -> tuple[float, float, float]:
        """Total Sobol indices of the three inputs."""
        v1, v2, v13 = self._variances
        return (v1 + v13) / self.variance, v2 / self.variance, v13 / self.variance

    @property
    def _variances(self) -> tuple[float, float, float]:
        v1 = 0.5 * (1 + self.b * math.pi**4 / 5) ** 2
        v13 = 8 * self.b**2 * math.pi**8 / 225
        return v1, self.a**2 / 8, v13


class Borehole(BatchedSimulator):
    r"""Flow of water through a borehole between two aquifers (Worley 1987).

    .. math:: y = \frac{2\pi T_u (H_u - H_l)}
        {\ln(r/r_w) \left(1 + \frac{2 L T_u}{\ln(r/r_w)\, r_w^2 K_w} + \frac{T_u}{T_l}\right)}
    """

    space = Space(
        (
            Continuous("borehole_radius", 0.05, 0.15, unit="m"),
            Continuous("radius_of_influence", 100.0, 50000.0, unit="m"),
            Continuous("upper_transmissivity", 63070.0, 115600.0, unit="m^2/yr"),
            Continuous("upper_head", 990.0, 1110.0, unit="m"),
            Continuous("lower_transmissivity", 63.1, 116.0, unit="m^2/yr"),
            Continuous("lower_head", 700.0, 820.0, unit="m"),
            Continuous("length", 1120.0, 1680.0, unit="m"),
            Continuous("conductivity", 9855.0, 12045.0, unit="m/yr"),
        )
    )
    outputs = ("flow",)

    def evaluate(self, X: Tensor) -> Tensor:  # noqa: D102
        r_w, r, T_u, H_u, T_l, H_l, L, K_w = X.unbind(-1)
        log = (r / r_w).log()
        resistance = log * (1 + 2 * L * T_u / (log * r_w**2 * K_w) + T_u / T_l)
        return (2 * math.pi * T_u * (H_u - H_l) / resistance).unsqueeze(-1)


class WingWeight(BatchedSimulator):
    r"""Weight of the wing of a light aircraft (Forrester, Sobester & Keane 2008).

    .. math:: y = 0.036 \, S_w^{0.758} W_{fw}^{0.0035} \left(\frac{A}{\cos^2\Lambda}\right)^{0.6}
        q^{0.006} \lambda^{0.04} \left(\frac{100\, t_c}{\cos\Lambda}\right)^{-0.3}
        (N_z W_{dg})^{0.49} + S_w W_p
    """

    space = Space(
        (
            Continuous("wing_area", 150.0, 200.0, unit="ft^2"),
            Continuous("fuel_weight", 220.0, 300.0, unit="lb"),
            Continuous("aspect_ratio", 6.0, 10.0),
            Continuous("sweep", -10.0, 10.0, unit="deg"),
            Continuous("dynamic_pressure", 16.0, 45.0, unit="lb/ft^2"),
            Continuous("taper_ratio", 0.5, 1.0),
            Continuous("thickness_to_chord", 0.08, 0.18),
            Continuous("ultimate_load_factor", 2.5, 6.0),
            Continuous("design_gross_weight", 1700.0, 2500.0, unit="lb"),
            Continuous("paint_weight", 0.025, 0.08, unit="lb/ft^2"),
        )
    )
    outputs = ("weight",)

    def evaluate(self, X: Tensor) -> Tensor:  # noqa: D102
        S_w, W_fw, A, sweep, q, taper, t_c, N_z, W_dg, W_p = X.unbind(-1)
        cosine = torch.deg2rad(sweep).cos()
        aerodynamic = (A / cosine**2) ** 0.6 * q**0.006 * taper**0.04
        structural = (100 * t_c / cosine) ** -0.3 * (N_z * W_dg) ** 0.49
        weight = 0.036 * S_w**0.758 * W_fw**0.0035 * aerodynamic * structural + S_w * W_p
        return weight.unsqueeze(-1)


class OTLCircuit(BatchedSimulator):
    r"""Midpoint voltage of a transformerless push-pull circuit (Ben-Ari & Steinberg 2007).

    With :math:`V_{b1} = 12 R_{b2} / (R_{b1} + R_{b2})` and :math:`\rho = \beta (R_{c2} + 9)`,

    .. math:: y = \frac{(V_{b1} + 0.74) \rho}{\rho + R_f} + \frac{11.35 R_f}{\rho + R_f}
        + \frac{0.74 R_f \rho}{(\rho + R_f) R_{c1}}
    """

    space = Space(
        (
            Continuous("Rb1", 50.0, 150.0, unit="kohm"),
            Continuous("Rb2", 25.0, 70.0, unit="kohm"),
            Continuous("Rf", 0.5, 3.0, unit="kohm"),
            Continuous("Rc1", 1.2, 2.5, unit="kohm"),
            Continuous("Rc2", 0.25, 1.2, unit="kohm"),
            Continuous("gain", 50.0, 300.0),
        )
    )
    outputs = ("voltage",)

    def evaluate(self, X: Tensor) -> Tensor:  # noqa: D102
        R_b1, R_b2, R_f, R_c1, R_c2, beta = X.unbind(-1)
        V_b1 = 12 * R_b2 / (R_b1 + R_b2)
        rho = beta * (R_c2 + 9)
        voltage = (V_b1 + 0.74) * rho + 11.35 * R_f + 0.74 * R_f * rho / R_c1
        return (voltage / (rho + R_f)).unsqueeze(-1)


class Piston(BatchedSimulator):
    r"""Cycle time of a piston in a cylinder (Kenett & Zacks 1998).

    .. math:: y = 2\pi \sqrt{\frac{M}{k + S^2 \frac{P_0 V_0}{T_0} \frac{T_a}{V^2}}}, \quad
        V = \frac{S}{2k} \left(\sqrt{A^2 + 4k \frac{P_0 V_0}{T_0} T_a} - A\right), \quad
        A = P_0 S + 19.62 M - \frac{k V_0}{S}
    """

    space = Space(
        (
            Continuous("mass", 30.0, 60.0, unit="kg"),
            Continuous("surface", 0.005, 0.020, unit="m^2"),
            Continuous("initial_volume", 0.002, 0.010, unit="m^3"),
            Continuous("spring", 1000.0, 5000.0, unit="N/m"),
            Continuous("pressure", 90000.0, 110000.0, unit="N/m^2"),
            Continuous("ambient_temperature", 290.0, 296.0, unit="K"),
            Continuous("gas_temperature", 340.0, 360.0, unit="K"),
        )
    )
    outputs = ("cycle_time",)

    def evaluate(self, X: Tensor) -> Tensor:  # noqa: D102
        M, S, V_0, k, P_0, T_a, T_0 = X.unbind(-1)
        A = P_0 * S + 19.62 * M - k * V_0 / S
        gas = P_0 * V_0 / T_0 * T_a
        V = S / (2 * k) * ((A**2 + 4 * k * gas).sqrt() - A)
        return (2 * math.pi * (M / (k + S**2 * gas / V**2)).sqrt()).unsqueeze(-1)


class Friedman(BatchedSimulator):
    r"""Five inputs that matter among some that do not (Friedman 1991).

    .. math:: y = 10 \sin(\pi x_1 x_2) + 20 (x_3 - \tfrac12)^2 + 10 x_4 + 5 x_5,
        \qquad x \in [0, 1]^d

    Parameters
    ----------
    num_inputs : int
        d, at least 5; 10 as in the paper.
    """

    outputs = ("y",)

    def __init__(self, num_inputs: int = 10) -> None:
        if num_inputs < 5:
            raise UserError(f"num_inputs must be at least 5, found {num_inputs}")
        self.space = _unit_cube(num_inputs)

    def evaluate(self, X: Tensor) -> Tensor:  # noqa: D102
        x1, x2, x3, x4, x5 = X[..., :5].unbind(-1)
        y = 10 * (math.pi * x1 * x2).sin() + 20 * (x3 - 0.5) ** 2 + 10 * x4 + 5 * x5
        return y.unsqueeze(-1)


class Hartmann6(BatchedSimulator):
    r"""Six local minima in six inputs (Dixon & Szego 1978).

    .. math:: y = -\sum_{i=1}^4 \alpha_i \exp\Big(-\sum_{j=1}^6 A_{ij} (x_j - P_{ij})^2\Big),
        \qquad x \in [0, 1]^6
    """

    space = _unit_cube(6)
    outputs = ("y",)
    minimum = -3.32237
    minimiser = (0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573)

    _alpha = torch.tensor([1.0, 1.2, 3.0, 3.2], dtype=torch.float64)
    _A = torch.tensor(
        [
            [10.0, 3.0, 17.0, 3.5, 1.7, 8.0],
            [0.05, 10.0, 17.0, 0.1, 8.0, 14.0],
            [3.0, 3.5, 1.7, 10.0, 17.0, 8.0],
            [17.0, 8.0, 0.05, 10.0, 0.1, 14.0],
        ],
        dtype=torch.float64,
    )
    _P = 1e-4 * torch.tensor(
        [
            [1312.0, 1696.0, 5569.0, 124.0, 8283.0, 5886.0],
            [2329.0, 4135.0, 8307.0, 3736.0, 1004.0, 9991.0],
            [2348.0, 1451.0, 3522.0, 2883.0, 3047.0, 6650.0],
            [4047.0, 8828.0, 8732.0, 5743.0, 1091.0, 381.0],
        ],
        dtype=torch.float64,
    )

    def evaluate(self, X: Tensor) -> Tensor:  # noqa: D102
        alpha, A, P = self._alpha.to(X), self._A.to(X), self._P.to(X)
        distance = (A * (X.unsqueeze(-2) - P) ** 2).sum(-1)
        return -(alpha * (-distance).exp()).sum(-1, keepdim=True)


class _Flight(NamedTuple):
    """A point of a trajectory, each ``(...)``."""

    x: Tensor
    y: Tensor
    u: Tensor  # horizontal velocity
    v: Tensor  # vertical velocity


class Projectile(BatchedSimulator):
    r"""Flight of a ball through air that moves: four outputs of an ordinary differential equation.

    With the velocity :math:`w` of the wind along the ground and :math:`s = (u - w, v)` that of the
    ball through the air,

    .. math:: \dot x = u, \quad \dot y = v, \quad \dot u = -c \, |s| (u - w), \quad
        \dot v = -g - c \, |s| \, v, \quad c = \frac{\pi \rho \, d^2 C_d}{8 m}

    from the ground with the given speed and elevation, by the classical Runge-Kutta method, until
    the ball is on the ground again. Drag never lengthens the flight beyond that in vacuum,
    :math:`2 v_0 / g`, of which a step is a fixed fraction. The lengths of the last steps, to the
    apex and to the ground, are found by bisection. With 400 steps the relative error is below
    2e-5 throughout the space.

    Parameters
    ----------
    steps : int
        Steps in the time of flight in vacuum.
    """

    space = Space(
        (
            Continuous("speed", 20.0, 120.0, unit="m/s"),
            Continuous("elevation", 15.0, 75.0, unit="deg"),
            Continuous("mass", 0.1, 10.0, unit="kg", log=True),
            Continuous("diameter", 0.02, 0.1, unit="m"),
            Continuous("drag_coefficient", 0.1, 0.6),
            Continuous("wind", -10.0, 10.0, unit="m/s"),
        )
    )
    outputs = ("range", "height", "time", "impact_speed")

    def __init__(self, steps: int = 400) -> None:
        if steps < 10:
            raise UserError(f"steps must be at least 10, found {steps}")
        self.steps = steps

    def evaluate(self, X: Tensor) -> Tensor:
        """Range, greatest height, time and speed at impact, ``(..., 4)``."""
        speed, elevation, mass, diameter, drag, wind = X.unbind(-1)
        c = math.pi / 8 * AIR_DENSITY * diameter**2 * drag / mass
        angle = torch.deg2rad(elevation)
        zero = torch.zeros_like(speed)
        start = _Flight(zero, zero, speed * angle.cos(), speed * angle.sin())
        h = 2 * start.v / GRAVITY / self.steps
        before_apex, before_impact, time = self._brackets(start, h, c, wind)
        apex, _ = _crossing(before_apex, h, c, wind, lambda flight: flight.v > 0)
        impact, s = _crossing(before_impact, h, c, wind, lambda flight: flight.y > 0)
        return torch.stack([impact.x, apex.y, time + s, impact.u.hypot(impact.v)], dim=-1)

    def _brackets(
        self, start: _Flight, h: Tensor, c: Tensor, wind: Tensor
    ) -> tuple[_Flight, _Flight, Tensor]:
        """Beginnings of the steps with the apex and with the impact; time at the latter."""
        here = before_apex = before_impact = start
        time = torch.zeros_like(h)
        flying = torch.ones_like(h, dtype=torch.bool)
        for _ in range(self.steps + 1):  # one more than in vacuum, for rounding
            there = _step(here, h, c, wind)
            rising = here.v > 0
            before_apex = _where(flying & rising, here, before_apex)
            before_impact = _where(flying, here, before_impact)
            flying = flying & ~((there.y <= 0) & (there.v < 0))
            time = torch.where(flying, time + h, time)
            here = there
            if not bool(flying.any()):
                break
        return before_apex, before_impact, time


def _where(condition: Tensor, a: _Flight, b: _Flight) -> _Flight:
    return _Flight(*(torch.where(condition, p, q) for p, q in zip(a, b, strict=True)))


def _crossing(
    before: _Flight, h: Tensor, c: Tensor, wind: Tensor, still: Callable[[_Flight], Tensor]
) -> tuple[_Flight, Tensor]:
    """State at which ``still`` ends to hold within a step, and the time from its beginning."""
    low, high = torch.zeros_like(h), h
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        holds = still(_step(before, middle, c, wind))
        low, high = torch.where(holds, middle, low), torch.where(holds, high, middle)
    return _step(before, high, c, wind), high


def _step(at: _Flight, h: Tensor, c: Tensor, wind: Tensor) -> _Flight:
    """One step of the classical Runge-Kutta method."""

    def slope(f: _Flight) -> _Flight:
        speed = c * (f.u - wind).hypot(f.v)
        return _Flight(f.u, f.v, -speed * (f.u - wind), -GRAVITY - speed * f.v)

    def along(k: _Flight, length: Tensor) -> _Flight:
        return _Flight(*(p + length * q for p, q in zip(at, k, strict=True)))

    k1 = slope(at)
    k2 = slope(along(k1, h / 2))
    k3 = slope(along(k2, h / 2))
    k4 = slope(along(k3, h))
    mean = ((p1 + 2 * p2 + 2 * p3 + p4) / 6 for p1, p2, p3, p4 in zip(k1, k2, k3, k4, strict=True))
    return along(_Flight(*mean), h)
