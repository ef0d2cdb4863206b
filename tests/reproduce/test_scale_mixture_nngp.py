import math

import numpy as np
import pytest
import torch
from scipy import stats

from understudy.core.systems import find
from understudy.nn.scale_prior import InverseGamma
from understudy.reproduce import Scale
from understudy.reproduce import scale_mixture_nngp as reproduction

SMOKE = reproduction._SIZES[Scale.SMOKE]


def test_the_system_is_implemented():
    assert find("scale-mixture-nngp").implemented


@pytest.mark.slow
def test_every_claim_is_measured_at_smoke_scale():
    claims = reproduction.run(Scale.SMOKE, seed=3)
    assert {claim.seeds[0] for claim in claims} == {3}
    assert all(math.isfinite(claim.measured) for claim in claims)
    assert len({claim.statement for claim in claims}) == len(claims) == 16


def test_networks_and_tasks_measure_the_same_for_the_same_seed():
    first, second = (
        (reproduction._ks(SMOKE, 2.0, 1), reproduction._lead(10, 20, 1, InverseGamma()))
        for _ in range(2)
    )
    assert first == second


def test_a_normal_sample_of_networks_is_no_t():
    normal = torch.randn(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert reproduction._p(normal, stats.t(1.0).cdf) < 0.01
    assert reproduction._p(normal, stats.norm.cdf) > 0.01


def test_a_known_scale_costs_the_t_process_little_and_less_with_more_rows():
    """With scale factors known to be 1 the t process is behind, and the less so the more rows."""
    behind = [-reproduction._lead(60, n, 0, None) for n in (5, 80)]
    assert 0.0 < behind[1] < behind[0] < 0.1


def test_splits_share_no_row():
    X = np.arange(50.0)[:, None]
    train, _, test, _ = reproduction._split(X, X[:, 0], 20, np.random.default_rng(0))
    assert len(train) == 20 and len(test) == 30
    assert not set(train[:, 0]) & set(test[:, 0])


def test_corrupted_images_stay_images():
    rows = np.random.default_rng(0).random((5, 64))
    for corrupted in reproduction._corrupted(rows, np.random.default_rng(1)):
        assert corrupted.shape == rows.shape and corrupted.min() >= 0.0 and corrupted.max() <= 1.0
        assert not np.array_equal(corrupted, rows)
