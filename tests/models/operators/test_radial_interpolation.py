"""Interpolation by radial functions against SciPy."""

import torch
from scipy.interpolate import RBFInterpolator

from understudy.models.operators.multionet import cell_points
from understudy.models.operators.radial_interpolation import cell_interpolation, interpolated


def test_it_is_that_of_scipy():
    torch.manual_seed(0)
    centres, x = cell_points((9, 9)), torch.rand(40, 2, dtype=torch.float64)
    values = torch.randn(3, 81, dtype=torch.float64)
    wanted = RBFInterpolator(centres, values.T, kernel="gaussian", epsilon=25.0, degree=6)(x)
    found = cell_interpolation((9, 9))(values, x)
    torch.testing.assert_close(found, torch.from_numpy(wanted).T)


def test_between_cells_a_smooth_field_is_met_and_at_their_centres_exactly():
    x, y = cell_points((29, 29)).unbind(1)
    field = (2 + torch.sin(3 * x) * torch.cos(2 * y)).reshape(1, 29, 29)
    at = torch.rand(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wanted = 2 + torch.sin(3 * at[:, 0]) * torch.cos(2 * at[:, 1])
    off = (interpolated(field, at)[0] - wanted).abs()
    assert float(off.max()) < 2e-3 and float(off.median()) < 1e-6  # worst beyond outer centres
    torch.testing.assert_close(interpolated(field, cell_points((29, 29)))[0], field.flatten())
