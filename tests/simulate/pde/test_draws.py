"""Random fields depend on their seed alone, look the same on finer grids, and have their law."""

from __future__ import annotations

import math

import torch

from understudy.simulate.pde.bases import cell_sine_basis, cosine_basis, sine_basis
from understudy.simulate.pde.draws import normal, uniform
from understudy.simulate.pde.random_fields import periodic_field, square_field


def test_numbers_are_those_of_the_counter_whatever_stands_beside_them():
    seeds, index = torch.tensor([3, 2**31 - 1, 0]), torch.arange(-500, 500)
    table = uniform(seeds, 1, index)
    assert torch.equal(table[1:2, 7:9], uniform(seeds[1:2], 1, index[7:9]))
    assert len(table.unique()) == table.numel()
    assert not torch.equal(table, uniform(seeds, 2, index))


def test_numbers_are_uniform_and_normal():
    u = uniform(torch.arange(20), 0, torch.arange(1000)).flatten()
    counts = torch.histc(u, 20, 0.0, 1.0)
    assert float(((counts - 1000.0) ** 2 / 1000.0).sum()) < 43.8  # chi-square, 19, 99.9 %
    z = normal(torch.arange(20), 0, torch.arange(1000)).flatten()
    assert abs(float(z.mean())) < 0.025
    assert abs(float(z.var()) - 1.0) < 0.05
    assert abs(float((z**4).mean()) - 3.0) < 0.3
    neighbours = torch.corrcoef(torch.stack([z[:-1], z[1:]]))[0, 1]
    assert abs(float(neighbours)) < 0.025


def test_a_finer_grid_shows_the_same_field():
    seed = torch.tensor([5])
    # without what only the finer grid resolves: a spectrum steep enough to have hardly any
    coarse = periodic_field(seed, (32, 32), 1.0, 7.0, 9.0)
    fine = periodic_field(seed, (64, 64), 1.0, 7.0, 9.0)
    torch.testing.assert_close(fine[:, ::2, ::2], coarse, rtol=0.0, atol=1e-6 * float(fine.max()))
    cells = square_field(seed, 32, 1.0, 3.0, 9.0)
    finer = square_field(seed, 96, 1.0, 3.0, 9.0)  # every third centre is a centre
    torch.testing.assert_close(
        finer[:, 1::3, 1::3], cells, rtol=0.0, atol=1e-6 * float(finer.max())
    )


def test_the_variance_is_the_sum_of_the_eigenvalues():
    seeds = torch.arange(2000)
    k = torch.fft.fftfreq(16, 1.0 / 16, dtype=torch.float64)
    k = k[k.abs() < 8]
    power = (4.0 * math.pi**2 * (k[:, None] ** 2 + k**2) + 9.0) ** -2.0
    expected = float(power.sum()) - 9.0**-2  # without the constant
    found = periodic_field(seeds, (16, 16), 1.0, 3.0, 2.0).var()
    assert abs(float(found) / expected - 1.0) < 0.05
    q = (math.pi * torch.arange(16)) ** 2
    expected = float(((q[:, None] + q + 9.0) ** -2.0).sum()) - 9.0**-2
    found = square_field(seeds, 16, 1.0, 3.0, 2.0).var()
    assert abs(float(found) / expected - 1.0) < 0.05


def test_bases_are_orthonormal():
    for basis in (cosine_basis(9), sine_basis(9), cell_sine_basis(9)):
        torch.testing.assert_close(basis @ basis.T, torch.eye(9, dtype=torch.float64))
