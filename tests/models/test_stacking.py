"""Weights learnt from out-of-fold predictions."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from understudy.core.predictive import Predictive
from understudy.models.tabular import stacking


def densities(seed: int, models: int = 3, rows: int = 60, outputs: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(models, rows, outputs, generator=generator, dtype=torch.float64)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_weights_lie_on_the_simplex(seed: int):
    weights = stacking.log_score_weights(densities(seed))
    assert bool((weights >= 0).all())
    assert torch.allclose(weights.sum(0), torch.ones(2).double())


def test_log_score_weights_reach_the_optimum_found_by_a_general_solver():
    log_density = densities(3, outputs=1)
    density = log_density[:, :, 0].exp().numpy()
    found = stacking.log_score_weights(log_density, prior=0.0, iterations=20_000)[:, 0].numpy()
    solver = optimize.minimize(
        lambda w: -np.log(w @ density).sum(),
        np.full(3, 1 / 3),
        bounds=[(0, 1)] * 3,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
    )
    assert -np.log(found @ density).sum() <= solver.fun + 1e-4


def test_a_model_that_is_always_better_takes_nearly_all_weight():
    log_density = torch.zeros(2, 500, 1, dtype=torch.float64)
    log_density[1] = -4.0
    assert float(stacking.log_score_weights(log_density)[0, 0]) > 0.98


def test_squared_error_weights_recover_the_mixture_that_made_the_outputs():
    means = densities(5, models=3, rows=400, outputs=1)
    y = 0.3 * means[0] + 0.7 * means[2]
    weights = stacking.squared_error_weights(means, y)[:, 0]
    assert torch.allclose(weights, torch.tensor([0.3, 0.0, 0.7]).double(), atol=1e-3)


def test_crps_weights_are_no_worse_than_any_vertex_or_the_middle():
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(300, 1, generator=generator, dtype=torch.float64)
    parts = [
        Predictive.gaussian(
            y * share + noise * torch.randn(300, 1, generator=generator).double(),
            torch.full((300, 1), noise + 0.3).double(),
        )
        for share, noise in ((0.5, 0.2), (1.0, 0.8), (0.0, 0.1))
    ]
    distance = torch.stack([p.distance_to(y).mean(0) for p in parts], dim=1)
    spread = torch.stack(
        [torch.stack([a.expected_distance(b).mean(0) for b in parts], 1) for a in parts], dim=1
    )
    weights = stacking.crps_weights(distance, spread)

    def score(w: torch.Tensor) -> float:
        return float(Predictive.stack(parts, w.reshape(3, 1)).crps(y).mean())

    others = [*torch.eye(3, dtype=torch.float64), torch.full((3,), 1 / 3, dtype=torch.float64)]
    assert score(weights) <= min(score(w) for w in others) + 1e-6


def test_pruning_removes_small_weights_and_renormalises():
    weights = stacking.pruned(torch.tensor([[0.01], [0.495], [0.495]]).double())
    assert torch.allclose(weights[:, 0], torch.tensor([0.0, 0.5, 0.5]).double())
