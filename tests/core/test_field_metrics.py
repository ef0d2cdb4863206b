"""Measures of predicted fields, against fields for which they are known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.field_metrics import (
    agreement,
    correlation,
    correlation_time,
    first_below,
    mean_correlation_time,
    nrmse,
    relative_l2,
    reliable_horizon,
    spectrum,
    spectrum_error,
)

X = 2 * math.pi * torch.arange(64, dtype=torch.float64) / 64


def test_errors_of_a_field_scaled_by_a_factor():
    true = torch.randn(3, 4, 2, 8, 8)
    assert torch.allclose(relative_l2(1.25 * true, true), torch.full((3,), 0.25))
    assert torch.allclose(nrmse(0.5 * true, true), torch.full((3, 4, 2), 0.5))


def test_a_zero_field_has_no_infinite_error():
    zero = torch.zeros(2, 3, 1, 8)
    assert relative_l2(zero, zero).tolist() == [0.0, 0.0]
    assert nrmse(zero, zero).sum() == 0


@given(st.integers(1, 31), st.floats(0.1, 5.0))
def test_a_wave_shifted_by_an_angle_correlates_by_its_cosine(mode, angle):
    a, b = torch.sin(mode * X), torch.sin(mode * X + angle)
    found = correlation(a.expand(1, 1, 1, 64), b.expand(1, 1, 1, 64))
    assert found.item() == pytest.approx(math.cos(angle), abs=1e-9)


def test_time_until_waves_have_drifted_apart():
    angles = torch.linspace(0.1, 3.0, 30, dtype=torch.float64)
    true = torch.sin(X).expand(1, 30, 1, 64)
    drifting = torch.sin(X + angles[:, None]).reshape(1, 30, 1, 64)
    last = math.floor(math.acos(0.8) / 0.1)
    assert correlation_time(drifting, true, 0.5).item() == pytest.approx(0.5 * last)
    assert correlation_time(true, true, 0.5).item() == pytest.approx(15.0)
    assert mean_correlation_time(drifting, true, 0.5) == pytest.approx(0.5 * last)


def test_a_series_that_rises_again_or_turns_nan_is_below_from_there_on():
    series = torch.tensor([[1.0, 0.5, 1.0], [1.0, 1.0, math.nan], [0.1, 1.0, 1.0]])
    assert first_below(series, 2.0, 0.8).tolist() == [2.0, 4.0, 0.0]


def test_agreement_is_the_mean_correlation_of_pairs():
    samples = torch.randn(2, 5, 3, 1, 16, dtype=torch.float64)
    pairs = [
        correlation(samples[:, a], samples[:, b]) for a in range(5) for b in range(5) if a != b
    ]
    assert torch.allclose(agreement(samples), torch.stack(pairs).mean(0))
    assert reliable_horizon(samples[:, :1].expand_as(samples), 0.1).tolist() == pytest.approx(
        [0.3, 0.3]
    )
    with pytest.raises(ValueError, match="two rollouts"):
        agreement(samples[:, :1])


def test_spectrum_of_a_wave_is_half_its_amplitude_at_its_number():
    found = spectrum(3.0 * torch.sin(5 * X), 1)
    assert found.shape == (33,)
    assert found[5].item() == pytest.approx(1.5)
    assert found.sum().item() == pytest.approx(1.5)


def test_power_in_two_dimensions_is_kept():
    field = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    smooth = torch.fft.irfft2(torch.fft.rfft2(field)[..., :8, :5], s=(16, 16))
    error = spectrum_error(smooth, torch.zeros_like(smooth), 2)
    assert error.shape == (9,)
    wave = torch.sin(3 * X)[:, None] * torch.cos(4 * X)[None, :]
    found = spectrum(wave, 2)
    assert found[5].item() == pytest.approx(wave.square().mean().sqrt().item())
    assert found.square().sum().item() == pytest.approx(wave.square().mean().item())
