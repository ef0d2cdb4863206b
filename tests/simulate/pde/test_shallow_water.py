"""Shallow water: order where it is smooth, the closed form of a dam break, what is kept."""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise

import pytest
import torch
from scipy.optimize import brentq

from understudy.core.errors import UserError
from understudy.core.simulator import diverged
from understudy.simulate.pde.shallow_water import ShallowWater


def codes(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def last(simulator: ShallowWater, start: torch.Tensor) -> torch.Tensor:
    return deque(simulator._march(simulator.values(codes(0.5, 2.0)), start), maxlen=1)[0]


def still(depth: torch.Tensor) -> torch.Tensor:
    return torch.stack([depth, 0.0 * depth, 0.0 * depth]).unsqueeze(0)


def test_it_is_of_second_order_where_the_water_is_smooth():
    found = []
    for n in (16, 32, 64, 128):
        simulator = ShallowWater(n, 1, 0.2)
        x, y = simulator.grid.axes()
        bump = 1.0 + 0.1 * torch.exp(-(x[:, None] ** 2 + y**2) / 0.5)
        h = last(simulator, still(bump))[0, 0]
        found.append(h.reshape(16, n // 16, 16, n // 16).mean((1, 3)))
    errors = [float((a - b).abs().mean()) for a, b in pairwise(found)]
    assert min(math.log2(a / b) for a, b in pairwise(errors)) > 1.7


def test_a_straight_dam_breaks_as_its_closed_form_says():
    # left 2 deep, right 1: between a rarefaction and a shock the depth is m (Stoker 1957)
    def closed(m: float) -> float:
        return 2.0 * (math.sqrt(2.0) - math.sqrt(m)) - (m - 1.0) * math.sqrt((m + 1.0) / (2.0 * m))

    middle = brentq(closed, 1.0, 2.0)
    simulator = ShallowWater(64, 1, 1.0)
    x, _ = simulator.grid.axes()
    dam = torch.where(x < 0, 2.0, 1.0).double()[:, None].expand(64, 64)
    h, _, v = last(simulator, still(dam))[0]
    t = 1.0
    fan = (2.0 * math.sqrt(2.0) - x / t) ** 2 / 9.0
    shock = middle / (middle - 1.0) * 2.0 * (math.sqrt(2.0) - math.sqrt(middle))
    exact = torch.where(x < t * shock, fan.clamp(middle, 2.0), 1.0)
    assert float((h[:, 30] - exact).abs().mean()) < 0.02
    assert float(h[32, 30]) == pytest.approx(middle, abs=5e-3)
    assert float((h - h[:, :1]).abs().max()) < 1e-12 and float(v.abs().max()) < 1e-12


def test_water_is_kept_and_a_round_dam_stays_symmetric():
    simulator = ShallowWater(32, 2, 0.4)
    states = list(simulator._march(simulator.values(codes(0.6, 2.0)), None))
    mass = [float(s[:, 0].sum()) for s in states]
    assert mass[-1] == pytest.approx(mass[0], rel=1e-12)  # nothing has reached the edge
    h, u, v = states[-1][0]
    torch.testing.assert_close(h, h.mT)
    torch.testing.assert_close(h, h.flip(0))
    torch.testing.assert_close(u, v.mT)
    assert float((h - states[0][0, 0]).abs().max()) > 0.1


def test_runs_do_not_know_of_each_other_and_lost_ones_are_flagged():
    simulator = ShallowWater(16, 2, 0.4)
    table = torch.tensor([[0.4, 2.0], [0.7, 2.5], [0.5, 1.5]], dtype=torch.float64)
    together = simulator.fields(table)
    for i in range(3):
        assert torch.equal(together[i : i + 1], simulator.fields(table[i : i + 1]))
    start = simulator.initial(table)
    start[1, 0] = -1.0
    fields = simulator.fields(table, start)
    assert diverged(fields).tolist() == [False, True, False]
    assert torch.equal(fields[0], together[0])


def test_a_dam_without_extent_is_refused():
    with pytest.raises(UserError, match=r"'radius' of run 1 must be positive, found -1"):
        ShallowWater(16).fields(codes(-1.0, 2.0))
