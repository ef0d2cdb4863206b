"""Burgers' equation between walls."""

import math

import pandas as pd
import pytest
import torch

from understudy.core.errors import UserError
from understudy.simulate.pde.darcy import Darcy
from understudy.simulate.pde.walled_burgers import WalledBurgers


def runs(count=4, viscosity=0.1 / math.pi):
    return pd.DataFrame({"seed": range(count), "viscosity": viscosity})


def test_a_finer_computation_says_the_same():
    one, two = (WalledBurgers(64, refinement=r).fields(runs())[:, 1] for r in (2, 4))
    assert float((one - two).norm() / two.norm()) < 1e-4


def test_with_much_viscosity_the_slowest_sine_is_left():
    # small waves and large viscosity: nu (pi/2)^2 t is the exponent of the first half wave
    simulator = WalledBurgers(64, duration=0.5)
    x = simulator.grid.axes()[0]
    start = 1e-3 * torch.cos(math.pi * x / 2)[None, None]
    end = simulator.fields(runs(1, 1.0), start=start)[0, 1, 0].double()
    torch.testing.assert_close(end, math.exp(-(math.pi**2) / 8) * start[0, 0], rtol=1e-3, atol=0)


def test_first_fields_go_to_zero_at_walls_and_are_of_size_one():
    # variances of the sines add up to sum_k (25 / (25 + (k pi)^2))^(2 alpha)
    for alpha, wanted in ((1.0, 0.87), (2.0, 0.54)):
        fields = WalledBurgers(128, alpha=alpha).initial(runs(400))[:, 0]
        size = fields.square().mean().sqrt()
        edges = fields[:, [0, -1]].square().mean().sqrt()
        assert float(size) == pytest.approx(wanted, rel=0.1)
        assert float(edges) < 0.06


def test_a_run_goes_on_from_a_field():
    whole = WalledBurgers(128, steps=2).fields(runs(2))
    half = WalledBurgers(128, steps=1, duration=0.5).fields(runs(2), start=whole[:, 1].double())
    assert float((half[:, 1] - whole[:, 2]).abs().max()) < 1e-4


def test_viscosity_must_be_positive():
    with pytest.raises(UserError, match="viscosity"):
        WalledBurgers(64).fields(runs(1, -1.0))


def test_media_of_cosines_are_positive_and_smooth():
    media = Darcy(29, "cosines").inputs(pd.DataFrame({"seed": range(50)}))["coefficient"]
    assert float(media.min()) > 0.6 and float(media.max()) < 5.4
    assert float(media.diff(dim=1).abs().max()) < 0.8
    assert float(media.std(0).min()) > 0.1
