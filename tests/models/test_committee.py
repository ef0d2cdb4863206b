"""Networks trained together: the layout of folds, the losses, the training."""

import math

import numpy as np
import pytest
import torch

from understudy.models.tabular.committee import (
    Layout,
    Recipe,
    Regressor,
    beta_nll,
    inner_folds,
    squared_error,
    train_committee,
)


def table(n: int = 60, d: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    return x, torch.sin(x[:, :1]) + 0.1 * x[:, 1:2]


# -- networks ---------------------------------------------------------------------------------


def test_a_network_starts_as_sure_everywhere():
    _, variance = Regressor(3, 2, 1)(torch.randn(50, 2))
    assert float(variance.mean()) == pytest.approx(0.1, abs=0.03)


def test_a_network_is_its_perceptron_and_its_line():
    network, x = Regressor(3, 2, 2), torch.randn(7, 2)
    with torch.no_grad():
        network.line += torch.randn(3, 2, 2)
    mean, _ = network(x)
    assert torch.allclose(mean, network.mlp(x)[..., :2] + x @ network.line, atol=1e-6)


def test_networks_picked_predict_what_they_did_and_learn_no_more():
    network, x = Regressor(4, 2, 1), torch.randn(7, 2)
    part = network.pick(slice(1, 3))
    assert torch.allclose(torch.stack(part(x)), torch.stack(network(x, slice(1, 3))))
    assert not any(parameter.requires_grad for parameter in part.parameters())


# -- losses -----------------------------------------------------------------------------------


def test_the_weighted_likelihood_moves_the_mean_as_squared_error_does():
    y, mean = torch.randn(20), torch.randn(20, requires_grad=True)
    variance = torch.rand(20) + 0.1
    first = torch.autograd.grad(beta_nll(mean, variance, y).sum(), mean)[0]
    second = torch.autograd.grad(squared_error(mean, variance, y).sum(), mean)[0]
    assert torch.allclose(first, second, atol=1e-6)


def test_the_weighted_likelihood_is_least_at_the_true_variance():
    y = 2.0 * torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    slopes = []
    for value in (3.9, 4.1):
        variance = torch.tensor(value, requires_grad=True)
        loss = beta_nll(torch.zeros(()), variance, y).mean()
        slopes.append(float(torch.autograd.grad(loss, variance)[0]))
    assert slopes[0] < 0.0 < slopes[1]


# -- folds ------------------------------------------------------------------------------------


def test_a_network_learns_from_all_rows_but_those_of_its_fold():
    folds = np.array([0, 1, -1, 1, 0, 2, -1, 1])
    layout = Layout.of(folds, members=2, repeats=2)
    assert layout.train.shape == (8, 8)
    for b in range(8):
        fold = b // 2 if b < 6 else None
        wanted = np.flatnonzero(folds != fold) if fold is not None else np.arange(8)
        assert sorted(set(layout.train[b].tolist())) == wanted.tolist()
        weight = layout.weight[b, :, 0]
        assert torch.nonzero(weight)[:, 0].tolist() == wanted.tolist()
        assert float(weight.sum()) == pytest.approx(1.0)
        assert len(weight[weight > 0].unique()) == 1


def test_held_out_predictions_come_back_in_the_order_of_the_table():
    folds = np.array([2, 1, -1, 1, 0, 2, -1, 1])
    layout = Layout.of(folds, members=1, repeats=2)
    rows = layout.test.repeat_interleave(2, dim=0).unsqueeze(-1).float()
    found = layout.held_out(rows)[..., 0]
    assert found.tolist() == [[0.0, 1.0, 3.0, 4.0, 5.0, 7.0]] * 2


def test_networks_of_a_fold_do_not_see_its_outputs():
    x, Z = table()
    folds = np.arange(60) % 3
    other = torch.where(torch.from_numpy(folds == 0)[:, None], 50.0, Z)
    recipe = Recipe(members=1, steps=10, width=8)  # too few to choose among
    first, second = (train_committee(x, outputs, folds, recipe) for outputs in (Z, other))
    hidden = torch.from_numpy(folds == 0)
    assert torch.equal(first.mean[:, hidden], second.mean[:, hidden])
    assert not torch.allclose(first.mean[:, ~hidden], second.mean[:, ~hidden], atol=0.1)


def test_rows_without_a_fold_are_learnt_by_every_network():
    x, Z = table()
    folds = np.where(np.arange(60) < 20, np.arange(60) % 2, -1)
    committee = train_committee(x, Z, folds, Recipe(members=3, steps=10, width=8))
    assert committee.mean.shape == committee.variance.shape == (2, 20, 1)
    assert len(committee.network.line) == 3
    assert len(committee.folded.line) == 4


def test_inner_folds_are_five_or_one_hold_out_of_long_tables():
    assert np.bincount(inner_folds(53, 0)).tolist() == [11, 11, 11, 10, 10]
    assert sorted(inner_folds(3, 0).tolist()) == [0, 1, 2]
    long = inner_folds(6_000, 0)
    assert (long == 0).sum() == 1_200
    assert (long == -1).sum() == 4_800


# -- training ---------------------------------------------------------------------------------


def test_a_committee_learns_a_smooth_function():
    x, Z = table(100)
    committee = train_committee(x, Z, np.arange(100) % 4, Recipe(members=2, steps=100, width=16))
    error = (committee.mean.mean(0) - Z).square().mean()
    assert float(error) < 0.05 * float(Z.var())


def test_mini_batches_learn_it_too():
    x, Z = table(100)
    recipe = Recipe(members=2, steps=100, width=16, batch=32)
    committee = train_committee(x, Z, np.arange(100) % 4, recipe)
    error = (committee.mean.mean(0) - Z).square().mean()
    assert float(error) < 0.1 * float(Z.var())


def test_longer_tables_take_more_steps_up_to_a_limit():
    assert Recipe().steps_for(100) == 300
    assert Recipe().steps_for(5_120) == 600
    assert Recipe().steps_for(10**6) == 3_000
    assert Recipe(steps=7).steps_for(10**6) == 7


def test_variances_follow_the_noise():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(400, 1, generator=generator) * 4.0 - 2.0
    sd = torch.where(x > 0.0, 1.0, 0.1)
    Z = sd * torch.randn(400, 1, generator=generator)
    committee = train_committee(x, Z, np.arange(400) % 4, Recipe(members=1, steps=150, width=16))
    noisy = committee.variance[0][x > 0.3].mean().sqrt()
    calm = committee.variance[0][x < -0.3].mean().sqrt()
    assert math.isclose(float(noisy), 1.0, rel_tol=0.3)
    assert float(calm) < 0.5 * float(noisy)
