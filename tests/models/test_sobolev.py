import math

import pytest
import torch

from understudy.core.errors import UserError
from understudy.models.operators.sobolev import DifferenceLoss, SobolevLoss


def _wave(n, k, m=0):
    x = torch.arange(n, dtype=torch.float64) / n
    phase = 2.0 * math.pi * (k * x[:, None] + m * x)
    return phase.cos()[None, None]


@pytest.mark.parametrize("n", [31, 32])
@pytest.mark.parametrize(("order", "square"), [(0, 1.0), (1, 26.0), (2, 26.0 + 625.0)])
def test_a_wave_weighs_what_its_wavenumber_says(n, order, square):
    """A cosine of wavenumber (3, 4) has two coefficients of 1/2; w^2 = 1 + 25 + 625 + ..."""
    norm = SobolevLoss(order).norm(_wave(n, 3, 4))
    assert float(norm) == pytest.approx(math.sqrt(square / 2.0))


def test_order_zero_is_the_relative_l2_error():
    u, v = torch.randn(2, 3, 2, 12, 9, dtype=torch.float64)
    expected = (u - v).flatten(1).norm(dim=1) / v.flatten(1).norm(dim=1)
    torch.testing.assert_close(SobolevLoss(0, reduction="none")(u, v), expected)
    torch.testing.assert_close(SobolevLoss(0)(u, v), expected.sum())
    torch.testing.assert_close(SobolevLoss(0, reduction="mean")(u, v), expected.mean())


def test_beyond_the_largest_wavenumber_a_wave_weighs_one():
    loss = SobolevLoss(largest=20.0)
    assert float(loss.norm(_wave(64, 20))) == pytest.approx(math.sqrt(0.5))
    assert float(loss.norm(_wave(64, 19))) == pytest.approx(math.sqrt((1 + 19**2) / 2))


def test_one_dimension_is_as_two():
    line = _wave(16, 3)[..., 0]
    assert float(SobolevLoss().norm(line)) == pytest.approx(math.sqrt(10.0 / 2.0))


def test_an_absolute_loss_is_the_norm_of_the_error():
    u, v = torch.randn(2, 3, 1, 8, 8)
    loss = SobolevLoss(relative=False, reduction="none")
    torch.testing.assert_close(loss(u, v), loss.norm(u - v))


def test_differences_see_slopes_exactly():
    """u = 3 x + 4 y on 8 x 10 points has slopes 3 and 4 on 7 x 10 and 8 x 9 of them."""
    x = 0.5 * torch.arange(8.0)[:, None] + 0.0 * torch.arange(10.0)
    y = 0.25 * torch.arange(10.0) + 0.0 * x
    u = (3.0 * x + 4.0 * y)[None, None]
    expected = (9.0 * 70 + 16.0 * 72) * 0.5 * 0.25
    assert float(DifferenceLoss((0.5, 0.25), weight=0.0).norm(u)) ** 2 == pytest.approx(expected)


def test_a_wrap_costs_the_difference_loss_nothing():
    ramp = torch.arange(8.0).expand(8, 8)[None, None]
    assert float(DifferenceLoss((1.0, 1.0), 0.0).norm(ramp)) ** 2 == pytest.approx(56.0)


def test_relative_to_itself_a_field_of_zeros_errs_by_one():
    v = torch.randn(3, 1, 8, 8)
    for loss in (SobolevLoss(reduction="mean"), DifferenceLoss((0.1, 0.1))):
        assert float(loss(torch.zeros_like(v), v)) == pytest.approx(1.0)
        assert float(loss(v, v)) == 0.0


def test_what_makes_no_norm_is_refused():
    with pytest.raises(UserError, match="order"):
        SobolevLoss(-1)
    with pytest.raises(UserError, match="spacings"):
        DifferenceLoss((0.1, 0.0))
    with pytest.raises(UserError, match="2 axes of space"):
        DifferenceLoss((0.1, 0.1)).norm(torch.zeros(1, 1, 8))
