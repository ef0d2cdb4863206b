"""The mixture-of-Gaussians predictive distribution, against closed forms and SciPy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from understudy.core.predictive import Predictive


def mixture(seed: int = 0, components: int = 3, rows: int = 4, outputs: int = 2) -> Predictive:
    generator = torch.Generator().manual_seed(seed)
    shape = (components, rows, outputs)
    loc = 3.0 * torch.randn(shape, generator=generator, dtype=torch.float64)
    scale = 0.2 + torch.rand(shape, generator=generator, dtype=torch.float64)
    weight = torch.rand(shape, generator=generator, dtype=torch.float64)
    return Predictive(loc, scale, weight / weight.sum(0))


def cell(predictive: Predictive, row: int = 1, output: int = 1) -> tuple[np.ndarray, ...]:
    parts = (predictive.weight, predictive.loc, predictive.scale)
    return tuple(part[:, row, output].numpy() for part in parts)


def pdf(x: float, predictive: Predictive) -> float:
    weight, loc, scale = cell(predictive)
    return float((weight * stats.norm.pdf(x, loc, scale)).sum())


def test_density_integrates_to_one_and_gives_the_mean_and_deviation():
    predictive = mixture()
    total, _ = integrate.quad(pdf, -30, 30, args=(predictive,), limit=200)
    mean, _ = integrate.quad(lambda x: x * pdf(x, predictive), -30, 30, limit=200)
    square, _ = integrate.quad(lambda x: x**2 * pdf(x, predictive), -30, 30, limit=200)
    assert total == pytest.approx(1.0, abs=1e-6)
    assert float(predictive.mean[1, 1]) == pytest.approx(mean, abs=1e-6)
    assert float(predictive.sd[1, 1]) == pytest.approx(np.sqrt(square - mean**2), abs=1e-6)


def test_log_density_agrees_with_scipy():
    predictive = mixture()
    y = torch.full((4, 2), 0.7, dtype=torch.float64)
    assert float(predictive.log_density(y)[1, 1]) == pytest.approx(np.log(pdf(0.7, predictive)))


def test_log_density_far_in_the_tail_is_finite():
    one = Predictive.gaussian(torch.zeros(1, 1).double(), torch.ones(1, 1).double())
    assert float(one.log_density(torch.tensor([[100.0]]).double())) == pytest.approx(-5000.9189385)


@given(seed=st.integers(0, 10_000), level=st.floats(1e-6, 1 - 1e-6))
@settings(max_examples=60, deadline=None)
def test_quantile_inverts_the_distribution_function(seed: int, level: float):
    predictive = mixture(seed)
    quantile = predictive.quantile(torch.tensor([level], dtype=torch.float64))[0]
    assert torch.allclose(predictive.cdf(quantile), torch.full((4, 2), level).double(), atol=1e-8)


def test_quantiles_of_one_gaussian_are_the_textbook_ones():
    one = Predictive.gaussian(torch.tensor([[2.0]]).double(), torch.tensor([[3.0]]).double())
    quantile = one.quantile(torch.tensor([0.025, 0.5, 0.975]))
    assert torch.allclose(
        quantile.flatten(), 2 + 3 * torch.tensor([-1.959963985, 0, 1.959963985]).double()
    )


def test_quantile_ignores_components_without_weight():
    loc = torch.tensor([0.0, 1e6]).double().reshape(2, 1, 1)
    weight = torch.tensor([1.0, 0.0]).double().reshape(2, 1, 1)
    predictive = Predictive(loc, torch.ones_like(loc), weight)
    assert float(predictive.quantile(torch.tensor([0.5]))) == pytest.approx(0.0, abs=1e-9)


def test_crps_of_a_gaussian_is_the_closed_form():
    one = Predictive.gaussian(torch.zeros(1, 1).double(), torch.ones(1, 1).double())
    at_mean = 2 * stats.norm.pdf(0) - 1 / np.sqrt(np.pi)  # Gneiting & Raftery 2007, eq. 21
    assert float(one.crps(torch.zeros(1, 1).double())) == pytest.approx(at_mean)


def test_crps_of_a_mixture_agrees_with_its_integral():
    predictive = mixture()
    y = 0.3
    weight, loc, scale = cell(predictive)

    def squared(x: float) -> float:
        return ((weight * stats.norm.cdf(x, loc, scale)).sum() - (x >= y)) ** 2

    integral = sum(integrate.quad(squared, a, b, limit=200)[0] for a, b in ((-30, y), (y, 30)))
    crps = predictive.crps(torch.full((4, 2), y, dtype=torch.float64))
    assert float(crps[1, 1]) == pytest.approx(integral, abs=1e-6)


def test_affine_moves_quantiles_with_it():
    predictive = mixture()
    shift, scale = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 4.0]).double()
    levels = torch.tensor([0.1, 0.9])
    moved = predictive.affine(shift, scale).quantile(levels)
    assert torch.allclose(moved, shift + scale * predictive.quantile(levels), atol=1e-6)


def test_widening_keeps_the_mean_and_multiplies_the_deviation():
    predictive = mixture()
    factor = torch.tensor([0.5, 3.0]).double()
    wide = predictive.widened(factor)
    assert torch.allclose(wide.mean, predictive.mean)
    assert torch.allclose(wide.sd, factor * predictive.sd)


def test_stacking_mixes_densities_by_weight():
    a, b = mixture(1), mixture(2)
    weights = torch.tensor([[0.25, 1.0], [0.75, 0.0]]).double()
    y = torch.zeros(4, 2).double()
    expected = weights[0] * a.log_density(y).exp() + weights[1] * b.log_density(y).exp()
    assert torch.allclose(Predictive.stack([a, b], weights).log_density(y).exp(), expected)


def test_rows_taken_and_put_together_again_are_the_same():
    predictive = mixture()
    parts = [predictive[torch.tensor([0, 2])], predictive[1:2], predictive[3:]]
    joined = Predictive.concatenate(parts)
    order = torch.tensor([0, 2, 1, 3])
    assert torch.equal(joined.loc, predictive.loc[:, order])
    assert torch.equal(joined.weight, predictive.weight[:, order])
    assert len(joined) == 4
