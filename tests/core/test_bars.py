"""Bar distributions against numerical integration, and their bounds."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from understudy.core.bars import BarDistribution, borders_of
from understudy.core.posterior import BinnedPosterior, rescale, sampler_for

GRID = torch.linspace(-80.0, 80.0, 800_001, dtype=torch.float64)
STEP = GRID[1] - GRID[0]


def distribution(seed: int = 0, cells: tuple[int, ...] = (), bars: int = 20) -> BarDistribution:
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randn(5000, generator=generator, dtype=torch.float64)
    logits = 2.0 * torch.randn(*cells, bars, generator=generator, dtype=torch.float64)
    one = torch.ones((), dtype=torch.float64)
    return BarDistribution.of(borders_of(sample, bars), logits).affine(0.7 * one, 2.5 * one)


def on_grid(bars: BarDistribution) -> torch.Tensor:
    rows = bars.logits.expand(len(GRID), -1)
    return BarDistribution(bars.borders, rows, bars.shift, bars.scale).log_density(GRID).exp()


def test_borders_give_bars_equal_shares_of_the_sample():
    sample = torch.randn(30_000, generator=torch.Generator().manual_seed(0))
    borders = borders_of(sample, 100)
    counts = torch.histogram(sample, borders).hist
    assert len(borders) == 101
    assert bool((borders.diff() > 0).all())
    assert bool(((counts[1:-1] - 300).abs() <= 2).all())


def test_outer_bars_have_the_scale_of_what_lies_beyond_their_borders():
    sample = torch.randn(200_000, generator=torch.Generator().manual_seed(0)).double()
    borders = borders_of(sample, 50)
    beyond = sample[sample > borders[-2]] - borders[-2]
    bars = BarDistribution.of(borders, torch.zeros(50, dtype=torch.float64))
    spread = (borders[-1] - borders[-2]) / 0.6744897501960817
    assert float(spread) == pytest.approx(float(beyond.square().mean().sqrt()), rel=1e-3)
    assert float(bars.log_density(sample).mean()) > -1.43  # the entropy of a normal is 1.419


def test_ties_leave_no_bar_without_width():
    sample = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 2.0]).repeat(50)
    borders = borders_of(sample, 10)
    assert bool((borders.diff() > 0).all())
    assert len(borders) <= 3


@pytest.mark.parametrize("bars", [0, 1])
def test_fewer_than_two_bars_are_refused(bars):
    with pytest.raises(ValueError, match="at least 2"):
        borders_of(torch.randn(10), bars)


def test_a_constant_sample_gives_no_borders():
    with pytest.raises(ValueError, match="three distinct"):
        borders_of(torch.ones(10), 4)


@pytest.mark.parametrize("seed", range(3))
def test_moments_are_those_of_the_density(seed):
    bars = distribution(seed)
    density = on_grid(bars)
    assert float(density.sum() * STEP) == pytest.approx(1.0, abs=1e-3)
    mean = float((density * GRID).sum() * STEP)
    assert float(bars.mean) == pytest.approx(mean, abs=4e-3)
    variance = float((density * (GRID - mean).square()).sum() * STEP)
    assert float(bars.variance) == pytest.approx(variance, rel=3e-3)


@pytest.mark.parametrize("threshold", [-12.0, -1.0, 0.7, 3.1, 15.0])
def test_improvement_and_distribution_function_are_integrals_of_the_density(threshold):
    bars = distribution(1)
    density, f = on_grid(bars), torch.tensor(threshold, dtype=torch.float64)
    above = float(((GRID - f).clamp_min(0) * density).sum() * STEP)
    below = float(((f - GRID).clamp_min(0) * density).sum() * STEP)
    assert float(bars.expected_excess(f)) == pytest.approx(above, abs=4e-3)
    assert float(bars.expected_shortfall(f)) == pytest.approx(below, abs=4e-3)
    assert float(bars.cdf(f)) == pytest.approx(float(density[f >= GRID].sum() * STEP), abs=1e-3)


def test_half_of_an_outer_bars_mass_lies_in_its_bucket():
    bars = distribution(2)
    edge = bars.shift + bars.scale * bars.borders[0]
    assert float(bars.cdf(edge)) == pytest.approx(0.5 * float(bars.probabilities[0]), rel=1e-6)


@given(st.floats(0.0005, 0.9995), st.integers(0, 20))
def test_quantiles_invert_the_distribution_function(level, seed):
    bars = distribution(seed)
    found = bars.quantile(torch.tensor([level], dtype=torch.float64))[0]
    assert float(bars.cdf(found)) == pytest.approx(level, abs=1e-6)


def test_outcomes_on_the_outermost_borders_have_a_density():
    bars = distribution(3)
    for edge in (bars.borders[0], bars.borders[-1]):
        assert math.isfinite(float(bars.log_density(bars.shift + bars.scale * edge)))


def test_the_mode_is_where_the_density_is_highest():
    bars = distribution(4)
    highest = on_grid(bars).max()
    one = BarDistribution(bars.borders, bars.logits, bars.shift, bars.scale)
    assert float(one.log_density(bars.mode).exp()) == pytest.approx(float(highest), rel=1e-3)


def test_draws_have_the_mean_and_variance_of_the_bars():
    bars = distribution(5, (3, 2))
    draws = bars.sample(40_000, torch.Generator().manual_seed(0))
    assert bool(((draws.mean(0) - bars.mean).abs() < 5.0 * bars.sd / 200.0).all())
    assert torch.allclose(draws.var(0), bars.variance, rtol=0.1)


def test_a_mixture_of_gaussians_keeps_mean_variance_and_roughly_the_density():
    bars = distribution(6, (5, 2), bars=200)
    centre = 0.5 * (bars.borders[:-1] + bars.borders[1:])
    middle = torch.linspace(-1.5, 1.5, 10, dtype=torch.float64).reshape(5, 2, 1)
    bars = replace(bars, logits=-0.5 * ((centre - middle) / 0.4).square())
    mixture = bars.predictive()
    assert torch.allclose(mixture.mean, bars.mean)
    assert torch.allclose(mixture.sd, bars.sd)
    levels = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
    gap = (mixture.quantile(levels) - bars.quantile(levels)).abs() / bars.sd
    assert float(gap.max()) < 0.1


def test_a_posterior_of_bars_is_rescaled_and_drawn_by_acquisition_samplers():
    bars = distribution(7, (4, 6, 2))
    posterior = BinnedPosterior(bars)
    shift, scale = torch.tensor([1.0, -2.0]).double(), torch.tensor([3.0, 0.5]).double()
    moved = rescale(posterior, shift, scale)
    assert torch.allclose(moved.mean, shift + scale * posterior.mean)
    assert torch.allclose(moved.variance, scale.square() * posterior.variance)
    draws = sampler_for(moved, 4096, seed=0)(moved)
    assert draws.shape == (4096, 4, 6, 2)
    assert torch.allclose(draws.mean(0), moved.mean, atol=0.15)


def test_draws_are_differentiable_in_the_logits():
    logits = torch.randn(3, 12, dtype=torch.float64, requires_grad=True)
    borders = torch.linspace(-2.0, 2.0, 13, dtype=torch.float64)
    levels = torch.tensor([0.21, 0.5, 0.83], dtype=torch.float64)
    assert gradcheck(lambda z: BarDistribution.of(borders, z).quantile(levels), (logits,))
    assert gradcheck(lambda z: BarDistribution.of(borders, z).expected_excess(levels), (logits,))
