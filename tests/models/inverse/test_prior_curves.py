"""The prior along noise, blur and mixtures."""

import pytest
import torch

from understudy.models.inverse.icnn import ConvexConvNet
from understudy.models.inverse.lpn import LearnedProximalNetwork
from understudy.models.inverse.prior_curves import (
    PriorCurve,
    mixed,
    prior_curve,
    with_blur,
    with_noise,
)


def test_blur_keeps_the_light_of_an_image_however_strong():
    x = torch.zeros(2, 1, 9, 9)
    x[0, 0, 4, 4], x[1, 0, 0, 0] = 1.0, 1.0
    stages = with_blur(x, (0.0, 1.0, 4.0))
    torch.testing.assert_close(stages[0], x)
    torch.testing.assert_close(stages.sum((2, 3, 4)), torch.ones(3, 2), atol=1e-5, rtol=0.0)
    # the middle of a Gaussian of deviation 1, cut at 4, on whole numbers
    line = torch.exp(-0.5 * torch.arange(-4.0, 5.0).square())
    assert float(stages[1, 0, 0, 4, 4]) == pytest.approx(float(1 / line.sum() ** 2), abs=1e-5)


def test_noise_is_the_same_at_all_levels_and_mixtures_end_at_the_neighbour():
    x = torch.rand(3, 1, 4, 4)
    noisy = with_noise(x, (0.0, 0.1, 0.2), torch.Generator().manual_seed(0))
    torch.testing.assert_close(noisy[0], x)
    torch.testing.assert_close(noisy[2] - x, 2.0 * (noisy[1] - x))
    between = mixed(x, (0.0, 0.5, 1.0))
    torch.testing.assert_close(between[2], x.roll(1, 0))
    torch.testing.assert_close(between[1], 0.5 * (x + x.roll(1, 0)))


def test_a_curve_is_the_prior_of_each_image_at_each_level():
    lpn = LearnedProximalNetwork(ConvexConvNet(size=8, hidden=2, alpha=0.4), 0.1)
    with torch.no_grad():
        for p in lpn.parameters():
            p.zero_()
    # f(y) = 0.8 y is the proximal operator of |x|^2 / 8
    x = torch.ones(2, 1, 8, 8)
    found = prior_curve(lpn, (0.0, 1.0), torch.stack([x, 2.0 * x]))
    torch.testing.assert_close(found.value, torch.tensor([[8.0, 8.0], [32.0, 32.0]]))
    assert float(found.residual.max()) < 1e-4 and found.rising == 1.0


def test_the_share_that_rises_counts_images_that_rise_throughout():
    values = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, -1.0], [2.0, 0.5, 3.0]])
    curve = PriorCurve((0.0, 1.0, 2.0), values, torch.zeros_like(values))
    assert curve.rising == pytest.approx(1 / 3)
