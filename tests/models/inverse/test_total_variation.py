"""The proximal operator of total variation is the minimiser that it says it is."""

from __future__ import annotations

import pytest
import torch

from understudy.core.errors import UserError
from understudy.models.inverse.total_variation import TotalVariation, _adjoint, _differences


def test_differences_and_their_transpose_are_adjoint():
    x, p = torch.randn(2, 3, 5, 6), torch.randn(2, 2, 3, 5, 6)
    left, right = (_differences(x) * p).sum(), (x * _adjoint(p)).sum()
    # values at the end of a row or column have no difference
    torch.testing.assert_close(left, right)


def test_it_agrees_with_scikit_image():
    restoration = pytest.importorskip("skimage.restoration")
    y = torch.rand(1, 1, 20, 24, dtype=torch.float64)
    expected = restoration.denoise_tv_chambolle(
        y[0, 0].numpy(), weight=0.2, eps=1e-12, max_num_iter=4000
    )
    found = TotalVariation(0.2, 2000)(y)[0, 0]
    torch.testing.assert_close(found, torch.as_tensor(expected), atol=2e-3, rtol=0.0)


def test_no_other_image_is_better():
    y, weight = torch.rand(1, 1, 8, 8, dtype=torch.float64), 0.3

    def objective(x):
        return 0.5 * (x - y).square().sum() + weight * _differences(x).norm(dim=0).sum()

    x = TotalVariation(weight, 2000)(y)
    for scale in (1e-3, 1e-2, 1e-1):
        assert objective(x) <= objective(x + scale * torch.randn_like(x)) + 1e-7


def test_constants_stay_and_images_of_a_batch_do_not_mix():
    y = torch.rand(3, 2, 6, 6)
    torch.testing.assert_close(TotalVariation(0.1)(y)[1:2], TotalVariation(0.1)(y[1:2]))
    flat = torch.full((1, 1, 5, 5), 0.7)
    torch.testing.assert_close(TotalVariation(0.5)(flat), flat)
    with pytest.raises(UserError, match="must be positive"):
        TotalVariation(0.0)
