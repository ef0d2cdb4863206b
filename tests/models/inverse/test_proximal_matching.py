"""Proximal matching learns proximal operators of known priors; other losses do not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from understudy.core.errors import UserError
from understudy.models.inverse.icnn import InputConvexNet
from understudy.models.inverse.lpn import LearnedProximalNetwork
from understudy.models.inverse.proximal_matching import (
    ProximalMatchingLoss,
    Stage,
    fit_lpn,
    image_schedule,
    number_matching,
    number_warm_up,
)


def gaussian(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, 1, generator=generator)


def mixture(count: int, generator: torch.Generator) -> Tensor:
    """Two narrow modes at -1 and 1."""
    sign = 2.0 * torch.randint(0, 2, (count, 1), generator=generator) - 1.0
    return sign + 0.1 * torch.randn(count, 1, generator=generator)


def trained(sampler, sigma: float, *stages: Stage, **options) -> LearnedProximalNetwork:
    torch.manual_seed(0)
    lpn = LearnedProximalNetwork(InputConvexNet(hidden=16, layers=2, alpha=0.01), sigma)
    fit_lpn(lpn, sampler, stages, **({"batch_size": 256} | options))
    return lpn


def test_the_loss_is_that_of_the_paper():
    true = torch.zeros(2, 1, 2, 2)
    predicted = torch.stack([torch.full((1, 2, 2), 0.5), torch.zeros(1, 2, 2)])  # distances 1, 0
    found = ProximalMatchingLoss(2.0)(predicted, true)
    assert float(found) == pytest.approx(0.5 * (1.0 - math.exp(-0.25)))


def test_the_schedule_of_images_is_that_of_the_paper():
    stages = image_schedule(28 * 28)
    assert [stage.steps for stage in stages] == [20_000, 5000, 5000, 5000, 5000]
    assert [stage.learning_rate for stage in stages] == [1e-3, 1e-4, 1e-4, 1e-4, 1e-4]
    gammas = [stage.loss.gamma for stage in stages[1:]]
    assert gammas == pytest.approx([17.92, 8.96, 4.48, 2.24])
    assert isinstance(stages[0].loss, nn.L1Loss)


def test_the_schedule_of_numbers_is_that_of_the_paper():
    assert sum(stage.steps for stage in number_warm_up()) == 20_000
    stages = number_matching()
    assert sum(stage.steps for stage in stages) == 24_000
    assert [stage.loss.gamma for stage in stages] == [0.5, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1]
    assert sum(stage.steps for stage in number_matching(0.5)) == 12_000


def test_schedules_leave_out_empty_stages():
    assert len(image_schedule(4, warm_up=10, matching=2)) == 3
    assert sum(stage.steps for stage in image_schedule(4, warm_up=3, matching=5)) == 8


def test_each_stage_has_its_loss_and_rate():
    lpn = LearnedProximalNetwork(InputConvexNet(hidden=4, layers=1), 1.0)
    seen = []

    def note(k: int):
        return lambda predicted, true: seen.append(k) or (predicted - true).square().mean()

    steps = []
    fit_lpn(
        *(lpn, gaussian, [Stage(note(0), 3, 1e-2), Stage(note(1), 2, 1e-3)]),
        batch_size=4,
        listener=lambda event: steps.append(event.step),
    )
    assert seen == [0, 0, 0, 1, 1] and steps == [1, 2, 3, 4, 5]


def test_the_rate_of_a_stage_is_how_far_adam_goes():
    before = LearnedProximalNetwork(InputConvexNet(hidden=4, layers=1), 1.0)
    moved = []
    for rate in (1e-2, 1e-4):
        lpn = LearnedProximalNetwork(InputConvexNet(hidden=4, layers=1), 1.0)
        lpn.load_state_dict(before.state_dict())
        stages = [Stage(nn.MSELoss(), 1, 1e-2), Stage(nn.MSELoss(), 1, rate)]
        fit_lpn(lpn, gaussian, stages, batch_size=64)
        change = lpn.network.skips[0].bias - before.network.skips[0].bias
        moved.append(float(change.detach().abs().max()))
    assert moved[0] > 0.015 and moved[1] < 0.0102


def test_weights_stay_feasible_in_training():
    lpn = trained(gaussian, 1.0, Stage(nn.L1Loss(), 20, 1e-1))
    assert all(bool((weight >= 0.0).all()) for weight in lpn.network.convex_weights())


@pytest.mark.slow
def test_the_proximal_operator_and_the_prior_of_a_gaussian_are_learnt():
    warm = Stage(nn.L1Loss(), 500, 3e-3)
    lpn = trained(gaussian, 1.0, warm, Stage(ProximalMatchingLoss(0.5), 300, 1e-3))
    y = torch.linspace(-2.0, 2.0, 41)[:, None]
    f = lpn.in_parts(y)
    assert float((f - 0.5 * y).abs().max()) < 0.15  # -log p is convex ...
    assert float(f.diff(dim=0).max() / 0.1) < 1.0  # ... so its operator does not expand
    x = torch.linspace(-1.0, 1.0, 21)[:, None]
    R = lpn.prior(x).value
    expected = 0.5 * x.squeeze(1).square()
    assert float((R - R[10] - expected).abs().max()) < 0.12


@pytest.mark.slow
def test_of_two_modes_matching_finds_the_nearer_where_squared_error_is_between():
    warm = Stage(nn.L1Loss(), 600, 3e-3)
    matched = trained(mixture, 1.0, warm, Stage(ProximalMatchingLoss(0.4), 600, 1e-3))
    squared = trained(mixture, 1.0, Stage(nn.MSELoss(), 1200, 3e-3))
    y = torch.tensor([[-0.5], [0.5]])
    assert float((matched.in_parts(y).abs() - 1.0).abs().max()) < 0.2
    assert float(squared.in_parts(y).abs().max()) < 0.6  # the mean of the posterior, tanh(y)
    # the prior has two valleys, so its operator expands between them
    R = matched.prior(torch.tensor([[-1.0], [0.0], [1.0]])).value
    assert bool((R[1] > R[[0, 2]] + 0.2).all())
    middle = torch.tensor([[-0.05], [0.05]])
    assert float(matched.in_parts(middle).diff(dim=0)) > 0.1


def test_a_flat_loss_is_warned_of():
    with pytest.warns(UserWarning, match="the loss is flat"):
        trained(gaussian, 1.0, Stage(ProximalMatchingLoss(1e-9), 1, 1e-3))


def test_the_same_seed_trains_the_same_and_a_run_goes_on_where_it_was(tmp_path):
    stages = (Stage(nn.L1Loss(), 4, 1e-2), Stage(nn.MSELoss(), 4, 1e-3))
    whole, again = (trained(gaussian, 1.0, *stages) for _ in range(2))
    y = torch.randn(5, 1)
    assert torch.equal(whole(y), again(y))

    path = tmp_path / "state"

    def stop(event):
        if event.step == 5:
            raise KeyboardInterrupt

    trained(gaussian, 1.0, *stages, checkpoint=path, interrupt="return", listener=stop)
    assert torch.equal(trained(gaussian, 1.0, *stages, checkpoint=path)(y), whole(y))


def test_the_best_weights_on_validation_are_kept():
    lpn = LearnedProximalNetwork(InputConvexNet(hidden=4, layers=1), 1.0)
    clean = torch.randn(50, 1)
    stages = [
        Stage(nn.MSELoss(), 30, 1e-2),
        Stage(lambda p, t: 1e3 * (p - t).square().mean(), 1, 9),
    ]
    outcome = fit_lpn(lpn, gaussian, stages, batch_size=64, validation=clean, validate_every=10)
    assert int(outcome.best_step) == 30  # the last step threw it far off


@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan")])
def test_gamma_must_be_positive(gamma):
    with pytest.raises(UserError, match="gamma must be positive"):
        ProximalMatchingLoss(gamma)


def test_an_empty_schedule_and_samples_of_another_shape_are_refused():
    lpn = LearnedProximalNetwork(InputConvexNet(dim=2), 1.0)
    with pytest.raises(UserError, match="has no stage"):
        fit_lpn(lpn, gaussian, [])
    with pytest.raises(UserError, match=r"takes \(B, 2\)"):
        fit_lpn(lpn, gaussian, [Stage(nn.L1Loss(), 1, 1e-3)])
