"""Diagnostics say when chains cannot be trusted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from understudy.core.errors import UserError
from understudy.sample import diagnose, e_bfmi


def independent(samples: int = 500, chains: int = 4, k: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(samples, chains, k, generator=generator, dtype=torch.float64)


def test_independent_draws_are_all_effective():
    found = diagnose(independent())
    assert found.trusted()
    assert found.ess_bulk.tolist() == pytest.approx([2000, 2000], rel=0.2)
    assert found.r_hat.tolist() == pytest.approx([1.0, 1.0], abs=0.01)


def test_a_stuck_chain_is_flagged():
    draws = independent()
    draws[:, 0, 1] = 3.0
    found = diagnose(draws)
    assert float(found.r_hat[0]) < 1.01 < 1.1 < float(found.r_hat[1])
    assert not found.trusted()


def test_a_chain_in_another_place_is_flagged():
    draws = independent()
    draws[:, 0, 0] += 3.0
    assert float(diagnose(draws).r_hat[0]) > 1.1


def test_a_chain_of_another_spread_is_flagged():
    """What plain R-hat misses, as all means agree."""
    draws = independent(2000)
    draws[:, 0, 0] *= 10.0
    assert float(diagnose(draws).r_hat[0]) > 1.1


def test_autocorrelation_lessens_the_effective_draws():
    r"""AR(1) with coefficient a: n (1 - a) / (1 + a)."""
    a, noise = 0.8, independent(20_000, 4, 1)
    draws = torch.empty_like(noise)
    draws[0] = noise[0]
    for t in range(1, len(noise)):
        draws[t] = a * draws[t - 1] + (1 - a**2) ** 0.5 * noise[t]
    assert float(diagnose(draws).ess_bulk) == pytest.approx(80_000 * 0.2 / 1.8, rel=0.1)


def test_missing_information_on_the_energy_is_that_of_arviz():
    from arviz_stats.base import array_stats

    energy = independent(300, 3, 1)[..., 0].cumsum(0) * 0.3 + independent(300, 3, 2)[..., 1]
    theirs = np.ravel(array_stats.bfmi(energy.numpy().T))
    assert e_bfmi(energy).tolist() == pytest.approx(theirs.tolist(), rel=0.02)


def test_too_few_draws_are_refused():
    with pytest.raises(UserError, match="4 samples"):
        diagnose(independent(3))
