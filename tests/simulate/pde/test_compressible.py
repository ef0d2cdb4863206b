"""Compressible flow: order, sound, a shock tube's closed form, what is conserved."""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise

import pytest
import torch

from understudy.core.errors import UserError
from understudy.simulate.pde.compressible import GAMMA, CompressibleFlow


def codes(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def last(simulator: CompressibleFlow, start: torch.Tensor, viscosity: float) -> torch.Tensor:
    march = simulator._march(simulator.values(codes(viscosity, 0.0)), start)
    return deque(march, maxlen=1)[0]


def sound(n: int, rise: float = 1e-4) -> tuple[CompressibleFlow, torch.Tensor]:
    """A wave of sound that moves to the right."""
    simulator = CompressibleFlow(n, 1, 0.25)
    s = rise * (2.0 * math.pi * simulator.grid.axes()[0]).sin()
    c = math.sqrt(GAMMA)
    return simulator, torch.stack([1.0 + s, c * s, 1.0 + GAMMA * s]).unsqueeze(0)


def test_sound_moves_at_its_speed_with_second_order():
    rise, errors = 1e-4, []
    for n in (32, 64, 128):
        simulator, start = sound(n, rise)
        x = simulator.grid.axes()[0]
        moved = 1.0 + rise * (2.0 * math.pi * (x - 0.25 * math.sqrt(GAMMA))).sin()
        errors.append(float((last(simulator, start, 1e-12)[0, 0] - moved).abs().mean()))
    assert min(math.log2(a / b) for a, b in pairwise(errors)) > 1.7


def test_viscosity_damps_sound_at_its_rate():
    # linear in the wave: density, velocity and pressure follow v' = A v
    simulator, start = sound(128)
    k, eta = 2.0 * math.pi, 0.01
    A = torch.tensor(
        [[0, -1j * k, 0], [0, -7 / 3 * eta * k**2, -1j * k], [0, -1j * k * GAMMA, 0]],
        dtype=torch.complex128,
    )
    before, after = (
        torch.fft.rfft(field[0], norm="forward")[:, 1]
        for field in (start, last(simulator, start, eta))
    )
    expected = torch.matrix_exp(0.25 * A) @ before
    assert float(expected[0].abs()) < 0.9 * float(before[0].abs())
    torch.testing.assert_close(after, expected, rtol=0.0, atol=5e-3 * float(before.abs().max()))


def test_a_shear_free_shock_tube_has_its_plateau():
    # density and pressure 1 | 1/8 and 1/10 at rest; between contact and shock the pressure is p
    # that makes rarefaction and shock meet at one velocity (Toro 2009, section 4.2)
    gamma = GAMMA

    def velocity(p: float) -> float:
        fan = 2.0 * math.sqrt(gamma) / (gamma - 1.0) * (1.0 - p ** ((gamma - 1.0) / (2.0 * gamma)))
        a, b = 2.0 / ((gamma + 1.0) * 0.125), (gamma - 1.0) / (gamma + 1.0) * 0.1
        return fan - (p - 0.1) * math.sqrt(a / (p + b))

    low, high = 0.1, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if velocity(middle) > 0 else (low, middle)
    simulator = CompressibleFlow(256, 1, 0.1)
    x = simulator.grid.axes()[0]
    inside = (x > 0.25) & (x < 0.75)
    density = torch.where(inside, 1.0, 0.125).double()
    pressure = torch.where(inside, 1.0, 0.1).double()
    start = torch.stack([density, 0.0 * x, pressure]).unsqueeze(0)
    field = last(simulator, start, 1e-12)[0]
    plateau = field[2, (x > 0.80) & (x < 0.86)]
    torch.testing.assert_close(plateau, torch.full_like(plateau, middle), rtol=0.01, atol=0.0)


def test_mass_momentum_and_energy_are_conserved():
    simulator = CompressibleFlow(64, 2, 0.5)
    values = simulator.values(codes(0.01, 3.0))
    states = [simulator._conserved(field).sum(-1)[0] for field in simulator._march(values, None)]
    torch.testing.assert_close(states[-1], states[0], rtol=1e-12, atol=1e-10)


def test_viscosity_must_be_positive():
    with pytest.raises(UserError, match=r"'viscosity' of run 1 must be positive, found 0"):
        CompressibleFlow().fields(codes(0.0, 1.0))
